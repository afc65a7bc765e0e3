//! What the view knows: the last picture, the trouble since, and what its user has asked for.

use std::time::{Duration, Instant, SystemTime};

use mutext::LockTable;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::seen::Seen;

/// An answer that takes longer than this is worth a word.
const LATE: Duration = Duration::from_secs(1);

/// What is watched; it does not change.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) context: String,
    /// Without any password.
    pub(crate) address: String,
    pub(crate) engine: &'static str,
    pub(crate) every: Duration,
}

/// One answered look.
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    pub(crate) table: LockTable,
    /// When it was asked for, for people.
    pub(crate) at: SystemTime,
    /// The same, to count from.
    pub(crate) began: Instant,
    pub(crate) took: Duration,
}

/// Looks that failed, since the last that did not.
#[derive(Debug, Clone)]
pub(crate) struct Trouble {
    pub(crate) text: String,
    pub(crate) since: Instant,
    pub(crate) failures: u32,
    /// When the next look is due.
    pub(crate) next: Instant,
}

/// How much of the list there was room for when it was last drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Room {
    /// As far down as scrolling makes sense.
    pub(crate) scroll_max: usize,
    /// The lines that one page scrolls.
    pub(crate) page: usize,
}

/// Everything that is drawn.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) subject: Subject,
    pub(crate) picture: Option<Picture>,
    pub(crate) trouble: Option<Trouble>,
    /// When the look that is under way was due; `None` while paused.
    pub(crate) asked: Option<Instant>,
    pub(crate) seen: Seen,
    pub(crate) since: Instant,
    pub(crate) paused: bool,
    pub(crate) help: bool,
    pub(crate) scroll: usize,
    pub(crate) room: Room,
}

/// What a key asks the loop to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Nothing,
    Pause,
    Resume,
    Quit,
}

impl State {
    pub(crate) fn new(subject: Subject, now: Instant) -> Self {
        Self {
            subject,
            picture: None,
            trouble: None,
            asked: None,
            seen: Seen::default(),
            since: now,
            paused: false,
            help: false,
            scroll: 0,
            room: Room::default(),
        }
    }

    /// A look was answered.
    pub(crate) fn answered(&mut self, picture: Picture) {
        self.seen.add(&picture.table);
        self.trouble = None;
        self.picture = Some(picture);
    }

    /// A look that began at `began` failed; the next is due at `next`.
    pub(crate) fn failed(&mut self, text: String, began: Instant, next: Instant) {
        let before = self.trouble.take();
        let failures = before.as_ref().map_or(0, |trouble| trouble.failures).saturating_add(1);
        self.trouble = Some(Trouble { text, since: before.map_or(began, |trouble| trouble.since), failures, next });
    }

    /// For how long an answer has been missing, where it should have come: then what is shown is old.
    pub(crate) fn without_answer(&self, now: Instant) -> Option<Duration> {
        let since = self.trouble.as_ref().map(|trouble| trouble.since);
        let late = self.asked.filter(|asked| now.saturating_duration_since(*asked) >= LATE);
        since.or(late).map(|since| now.saturating_duration_since(since))
    }

    /// What a key does, and what it asks for.
    pub(crate) fn key(&mut self, key: KeyEvent) -> Asked {
        if key.kind == KeyEventKind::Release {
            return Asked::Nothing;
        }
        let page = self.room.page.max(1);
        match key.code {
            // Raw mode makes a key of it.
            KeyCode::Char('c' | 'C') if key.modifiers.contains(KeyModifiers::CONTROL) => return Asked::Quit,
            KeyCode::Esc if self.help => self.help = false,
            KeyCode::Char('q' | 'Q') | KeyCode::Esc => return Asked::Quit,
            KeyCode::Char('?') => self.help = !self.help,
            KeyCode::Char('p' | 'P') => {
                self.paused = !self.paused;
                return if self.paused { Asked::Pause } else { Asked::Resume };
            }
            KeyCode::Up | KeyCode::Char('k') => self.scroll_to(self.scroll.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.scroll_to(self.scroll + 1),
            KeyCode::PageUp => self.scroll_to(self.scroll.saturating_sub(page)),
            KeyCode::PageDown => self.scroll_to(self.scroll + page),
            KeyCode::Home => self.scroll_to(0),
            KeyCode::End => self.scroll_to(usize::MAX),
            _ => {}
        }
        Asked::Nothing
    }

    fn scroll_to(&mut self, line: usize) {
        self.scroll = line.min(self.room.scroll_max);
    }

    /// What the last drawing had room for. A list that has become shorter pulls the view up.
    pub(crate) fn drawn(&mut self, room: Room) {
        self.room = room;
        self.scroll_to(self.scroll);
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::state;
    use super::*;

    fn press(state: &mut State, code: KeyCode) -> Asked {
        state.key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn keys_quit_pause_and_help() {
        let mut state = state();
        assert_eq!(press(&mut state, KeyCode::Char('p')), Asked::Pause);
        assert_eq!(press(&mut state, KeyCode::Char('p')), Asked::Resume);
        assert_eq!(press(&mut state, KeyCode::Char('?')), Asked::Nothing);
        assert!(state.help);
        assert_eq!(press(&mut state, KeyCode::Esc), Asked::Nothing, "it closes the help first");
        assert!(!state.help);
        assert_eq!(press(&mut state, KeyCode::Esc), Asked::Quit);
        assert_eq!(press(&mut state, KeyCode::Char('q')), Asked::Quit);
        assert_eq!(press(&mut state, KeyCode::Char('c')), Asked::Nothing);
        assert_eq!(state.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Asked::Quit);
    }

    #[test]
    fn scrolling_stays_within_the_list() {
        let mut state = state();
        state.drawn(Room { scroll_max: 12, page: 5 });
        for (code, line) in [
            (KeyCode::Up, 0),
            (KeyCode::Down, 1),
            (KeyCode::PageDown, 6),
            (KeyCode::PageDown, 11),
            (KeyCode::PageDown, 12),
            (KeyCode::Up, 11),
            (KeyCode::PageUp, 6),
            (KeyCode::End, 12),
        ] {
            press(&mut state, code);
            assert_eq!(state.scroll, line, "{code:?}");
        }
        state.drawn(Room { scroll_max: 3, page: 5 });
        assert_eq!(state.scroll, 3, "the list has become shorter");
    }

    #[test]
    fn an_answer_is_missed_before_its_look_has_failed() {
        let mut state = state();
        let begun = state.since;
        assert_eq!(state.without_answer(begun + Duration::from_secs(9)), None, "nobody has asked");
        state.asked = Some(begun);
        assert_eq!(state.without_answer(begun + Duration::from_millis(900)), None);
        assert_eq!(state.without_answer(begun + Duration::from_secs(2)), Some(Duration::from_secs(2)));
    }

    #[test]
    fn trouble_lasts_from_its_first_failure_until_an_answer() {
        let mut state = state();
        let begun = state.since;
        let later = begun + Duration::from_secs(3);
        state.failed("one".to_owned(), begun, later);
        state.failed("two".to_owned(), later, later);
        assert_eq!(state.without_answer(later), Some(Duration::from_secs(3)));
        let trouble = state.trouble.clone().unwrap();
        assert_eq!((trouble.since, trouble.failures, trouble.text.as_str()), (begun, 2, "two"));
        let picture =
            Picture { table: LockTable::default(), at: SystemTime::now(), began: later, took: Duration::ZERO };
        state.answered(picture);
        assert!(state.trouble.is_none());
    }
}
