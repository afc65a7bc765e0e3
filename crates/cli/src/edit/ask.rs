//! Asking a person at the terminal.

use std::io::{self, IsTerminal};

use crate::output::{Output, question};

/// What a person wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// Write both changes.
    Merge,
    /// Open the editor again.
    Again,
    /// Write it although something speaks against it.
    Write,
    /// Write nothing; what was typed is kept.
    Abandon,
}

/// Whether there is somebody to ask.
pub(super) fn can_ask(out: Output) -> bool {
    !out.json && io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks until an answer is one of `choices`, each of which is named by its first letter. Where nobody answers, nothing is
/// written.
pub(super) async fn ask(choices: &[(&'static str, Choice)]) -> Choice {
    loop {
        let words: Vec<String> = choices.iter().map(|(word, _)| shown(word)).collect();
        question(&format!("{}? ", words.join(", ")));
        // Read by a thread: a signal still ends the wait.
        let line = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            io::stdin().read_line(&mut line).ok().filter(|bytes| *bytes > 0).map(|_| line)
        });
        let Ok(Some(line)) = line.await else { return Choice::Abandon };
        let answer = line.trim().to_lowercase();
        let chosen = choices.iter().find(|(word, _)| {
            !answer.is_empty() && (word.starts_with(&answer) || answer.chars().eq(word.chars().take(1)))
        });
        if let Some((_, choice)) = chosen {
            return *choice;
        }
    }
}

/// `[m]erge`.
fn shown(word: &str) -> String {
    let first: String = word.chars().take(1).collect();
    format!("[{first}]{}", word.get(first.len()..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_shows_its_letter() {
        assert_eq!(shown("merge both"), "[m]erge both");
    }
}
