//! The one way out: answers to standard output, remarks and errors to standard error; tables for people, JSON for
//! machines.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::json;

use crate::error::CliError;

/// How a command talks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) json: bool,
    terminal: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, terminal: io::stdout().is_terminal() }
    }

    /// Whether a view can be drawn, and is wanted.
    pub(crate) fn can_draw(self) -> bool {
        self.terminal && !self.json && !is_dumb()
    }

    /// The answer: as JSON, or as `human` writes it.
    pub(crate) fn answer(self, value: &impl Serialize, human: impl FnOnce() -> String) -> Result<(), CliError> {
        let text = if self.json { line(&serde_json::to_string(value).unwrap_or_default()) } else { human() };
        to_stdout(text.as_bytes())
    }

    /// A document as it is; a terminal gets the line break that it may lack.
    pub(crate) fn content(self, text: &str) -> Result<(), CliError> {
        let ended = text.is_empty() || text.ends_with('\n');
        to_stdout(if self.terminal && !ended { line(text) } else { text.to_owned() }.as_bytes())
    }

    /// A table: drawn on a terminal, plain aligned columns in a pipe.
    pub(crate) fn table<const N: usize>(self, header: [&str; N], rows: Vec<[String; N]>) -> String {
        if rows.is_empty() {
            return String::new();
        }
        let mut table = Table::new();
        table.set_header(header);
        table.add_rows(rows.into_iter().map(|row| row.map(|cell| printable(&cell))));
        if self.terminal {
            table.load_style(presets::UTF8_FULL_CONDENSED);
            if let Some(width) = terminal_width() {
                table.set_width(width).set_content_arrangement(ContentArrangement::Dynamic);
            }
            line(&table.to_string())
        } else {
            table.load_style(presets::NOTHING);
            table.column_iter_mut().for_each(|column| {
                column.set_padding((0, 2));
            });
            line(&table.trim_fmt())
        }
    }

    /// A remark for people: on a terminal, and never among JSON.
    pub(crate) fn remark(self, text: &str) {
        if self.terminal && !self.json {
            to_stderr(&line(&printable(text)));
        }
    }

    /// Something that the command survives and its user should know.
    pub(crate) fn warn(self, code: &'static str, text: &str) {
        if self.json {
            to_stderr(&line(&json!({"warning": {"code": code, "message": text}}).to_string()));
        } else {
            to_stderr(&format!("{} {}\n", paint("warning:", "1;33"), printable(text)));
        }
    }

    /// What the command waits for, and for how long it may yet.
    pub(crate) fn waiting(self, text: &str, data: &serde_json::Value) {
        if self.json {
            to_stderr(&line(&json!({ "waiting": data }).to_string()));
        } else {
            to_stderr(&format!("{} {}\n", paint("waiting:", "2"), printable(text)));
        }
    }

    /// Something that whoever sits at the terminal is to read before they decide.
    pub(crate) fn say(self, text: &str) {
        if !self.json {
            to_stderr(&line(&printable(text)));
        }
    }

    /// Where something that goes on has begun.
    pub(crate) fn began(self, text: &str, data: &serde_json::Value) {
        if self.json {
            to_stderr(&line(&json!({ "began": data }).to_string()));
        } else {
            self.remark(text);
        }
    }

    /// What happens meanwhile, for whoever asked to be told.
    pub(crate) fn note(self, level: &str, target: &str, text: &str) {
        if self.json {
            to_stderr(&line(&json!({"log": {"level": level, "target": target, "message": text}}).to_string()));
        } else {
            to_stderr(&format!("{} {target}: {}\n", paint(&format!("{level}:"), "2"), printable(text)));
        }
    }

    /// Why the command failed, with its causes.
    pub(crate) fn error(self, error: &CliError) {
        if let CliError::Told { said, .. } = error {
            return to_stderr(said);
        }
        if self.json {
            return to_stderr(&line(&error.to_json().to_string()));
        }
        let chain = error.chain().join("\n  caused by: ");
        to_stderr(&format!("{} {}\n", paint("error:", "1;31"), printable(&chain)));
    }
}

/// A question at the terminal, whose answer follows on the same line.
pub(crate) fn question(text: &str) {
    to_stderr(text);
}

/// Whether there is still somebody who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    Read,
    Gone,
}

/// Writes to standard output. A reader that has gone away is not our trouble, and not worth a word.
pub(crate) fn to_stdout(bytes: &[u8]) -> Result<(), CliError> {
    write_unless_gone(bytes).map(|_| ())
}

/// The same, for whoever would go on writing.
pub(crate) fn write_unless_gone(bytes: &[u8]) -> Result<Written, CliError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Written::Read),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Written::Gone),
        Err(source) => Err(CliError::Io {
            what: "standard output cannot be written".to_owned(),
            remedy: "the command itself is done; make room where its output goes",
            source,
        }),
    }
}

/// Remarks that a view on the terminal keeps from being written across it.
static HELD_BACK: Mutex<Option<VecDeque<String>>> = Mutex::new(None);
/// More than this is not worth reading afterwards: the earliest go.
const HELD_BACK_MAX: usize = 50;

/// From now on remarks wait, where they would go to a terminal.
pub(crate) fn hold_back() {
    if io::stderr().is_terminal()
        && let Ok(mut held) = HELD_BACK.lock()
    {
        held.get_or_insert_default();
    }
}

/// Says what was held back.
pub(crate) fn let_go() {
    let held = HELD_BACK.lock().ok().and_then(|mut held| held.take());
    held.into_iter().flatten().for_each(|text| to_stderr(&text));
}

fn to_stderr(text: &str) {
    if let Ok(mut held) = HELD_BACK.lock()
        && let Some(texts) = held.as_mut()
    {
        texts.push_back(text.to_owned());
        if texts.len() > HELD_BACK_MAX {
            texts.pop_front();
        }
        return;
    }
    // Where even standard error is gone, nobody is left to tell.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

fn line(text: &str) -> String {
    format!("{text}\n")
}

/// Whether whoever reads has asked for no colour.
pub(crate) fn no_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Whether the terminal can do no more than show one line after the other.
fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

fn paint(text: &str, style: &str) -> String {
    if no_colour() || is_dumb() || !io::stderr().is_terminal() {
        text.to_owned()
    } else {
        format!("\x1b[{style}m{text}\x1b[0m")
    }
}

fn terminal_width() -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then_some(size.ws_col)
}

/// Reasons and messages are other people's words: what would move a terminal's cursor is shown, not done.
pub(crate) fn printable(text: &str) -> String {
    let shown = |character: char| {
        let moves = character.is_control() && character != '\n';
        if moves { character.escape_default().to_string() } else { character.to_string() }
    };
    text.chars().map(shown).collect()
}

/// The same for what is to stay on its line, as a file's name, which may have a line break of its own.
pub(crate) fn on_one_line(text: &str) -> String {
    printable(text).replace('\n', "\\n")
}

/// A moment for machines: RFC 3339, to the millisecond as the store keeps it.
pub(crate) fn timestamp(moment: SystemTime) -> String {
    jiff::Timestamp::try_from(moment).map_or_else(|_| String::new(), |moment| moment.to_string())
}

/// A moment for people: to the second.
pub(crate) fn moment(moment: SystemTime) -> String {
    let at = jiff::Timestamp::try_from(moment);
    at.map_or_else(|_| String::new(), |at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// A duration for people.
pub(crate) fn span(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{}ms", duration.as_millis()),
        1..60 => format!("{:.1}s", duration.as_secs_f64()),
        seconds => humantime::format_duration(Duration::from_secs(seconds)).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anothers_words_do_not_move_the_cursor() {
        assert_eq!(printable("a\x1b[2Jb\nc"), "a\\u{1b}[2Jb\nc");
        assert_eq!(on_one_line("a\x1b[2Jb\nc"), "a\\u{1b}[2Jb\\nc");
    }

    #[test]
    fn a_table_in_a_pipe_is_plain_and_aligned() {
        let out = Output { json: false, terminal: false };
        let rows = vec![["plan.md".to_owned(), "3".to_owned()], ["a".to_owned(), "12".to_owned()]];
        assert_eq!(out.table(["path", "revision"], rows), "path     revision\nplan.md  3\na        12\n");
    }

    #[test]
    fn a_duration_is_as_long_as_it_needs_to_be() {
        assert_eq!(span(Duration::from_millis(340)), "340ms");
        assert_eq!(span(Duration::from_millis(2340)), "2.3s");
        assert_eq!(span(Duration::from_millis(61_999)), "1m 1s");
    }
}
