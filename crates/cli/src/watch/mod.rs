//! `locks --watch`: looks again and again, at a steady pace, and with growing pauses while nobody answers.
//!
//! | file | what lives there |
//! |---|---|
//! | `screen` | the terminal and its keys |
//! | `state` | what the view knows, and what a key changes |
//! | `view`, `columns` | what that looks like |
//! | `seen` | what the looks add up to |

mod columns;
mod screen;
mod seen;
mod state;
mod view;

use std::future;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use mutext::{Context, LockTable, Settings};
use ratatui::crossterm::event::Event;
use serde_json::json;
use tokio::time::sleep_until;

use crate::config::Common;
use crate::config_file::parse_duration;
use crate::error::CliError;
use crate::exit::Exit;
use crate::locks::{human, picture};
use crate::output::{Written, moment, no_colour, span, timestamp, write_unless_gone};
use crate::signals::{Signals, ended_by};
use screen::{Keys, Screen};
use seen::Seen;
use state::{Asked, Picture, State, Subject};
use view::Theme;

/// More often than this is a load on the lock server, and more than anybody can read.
const EVERY_MIN: Duration = Duration::from_millis(100);
const EVERY_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest pause while nobody answers, unless looks are rarer anyway: recovery is seen within it.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long one look may take before it counts as failed: whoever watches wants to know soon.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often the view is drawn when nothing happens, for what it says about time.
const REDRAW: Duration = Duration::from_secs(1);

/// The value of `--every`.
pub(crate) fn every(text: &str) -> Result<Duration, String> {
    let every = parse_duration(text)?;
    if (EVERY_MIN..=EVERY_MAX).contains(&every) {
        return Ok(every);
    }
    let reason = if every < EVERY_MIN { "looking more often would burden the lock server" } else { "it is too rare" };
    Err(format!("{reason}: give 100ms to 1day"))
}

/// Looks until it is told to end, or has looked often enough.
pub(crate) async fn run(every: Duration, count: Option<NonZeroU64>, common: &Common) -> Result<ExitCode, CliError> {
    let address = common.locks.as_ref().unwrap_or(&common.store).address()?.to_string();
    let (mutext, _) = common.open().await?;
    let context = mutext.context(common.context.clone(), Settings { patience: PATIENCE, ..common.settings() })?;
    let engine = mutext.capabilities().1.engine;
    let subject = Subject { context: common.context.to_string(), address, engine, every };
    let mut looks = Looks { context, every, failures: 0, left: count.map(NonZeroU64::get) };
    let outcome = if common.out.can_draw() && screen::has_keys() {
        drawn(&mut looks, subject).await
    } else {
        written(&mut looks, common).await
    };
    mutext.finish().await;
    outcome
}

// --- Looking -------------------------------------------------------------------------------------------------------

/// When to look, and how often yet.
struct Looks {
    context: Context,
    every: Duration,
    /// Failures since the last answer.
    failures: u32,
    left: Option<u64>,
}

/// What one look found.
struct Look {
    outcome: Result<LockTable, CliError>,
    at: SystemTime,
    began: Instant,
    took: Duration,
}

/// One look under way. Dropping it changes nothing: to look is to read.
type UnderWay = Pin<Box<dyn Future<Output = Look> + Send>>;

impl Looks {
    /// Begins a look that is due at `due`.
    fn begin(&self, due: Instant) -> UnderWay {
        let context = self.context.clone();
        Box::pin(async move {
            sleep_until(due.into()).await;
            let (at, began) = (SystemTime::now(), Instant::now());
            let outcome = context.locks().await.map_err(CliError::from);
            Look { outcome, at, began, took: began.elapsed() }
        })
    }

    /// When the look after `look` is due; `None` where it was the last.
    fn after(&mut self, look: &Look) -> Option<Instant> {
        self.left = self.left.map(|left| left.saturating_sub(1));
        self.failures = if look.outcome.is_ok() { 0 } else { self.failures.saturating_add(1) };
        let ended = look.began + look.took;
        let due = match self.failures {
            // At a steady pace, unless looking takes longer than that.
            0 => (look.began + self.every).max(ended),
            failures => ended + pause(self.every, failures),
        };
        (self.left != Some(0)).then_some(due)
    }
}

/// How long to leave a lock server alone that has failed so often.
fn pause(every: Duration, failures: u32) -> Duration {
    every.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(PAUSE_MAX.max(every))
}

/// What went wrong, in one text.
fn told(error: &CliError) -> String {
    error.chain().join("; caused by: ")
}

// --- As lines ------------------------------------------------------------------------------------------------------

/// One line of JSON, or one table, for each look.
async fn written(looks: &mut Looks, common: &Common) -> Result<ExitCode, CliError> {
    let mut signals = Signals::listen()?;
    let (begun, mut seen, mut trouble) = (Instant::now(), Seen::default(), None);
    let mut under_way = looks.begin(begun);
    loop {
        let look = tokio::select! {
            biased;
            signal = signals.next() => return Ok(ended_by(signal)),
            look = &mut under_way => look,
        };
        let next = looks.after(&look);
        match (&look.outcome, next) {
            (Ok(table), _) => {
                seen.add(table);
                trouble = None;
                let text = if common.out.json {
                    json_line(table, &look, &seen, begun, common)
                } else {
                    plain(table, &look, common)
                };
                // A reader that does not read must not keep us from being interrupted.
                let written = tokio::task::spawn_blocking(move || write_unless_gone(text.as_bytes()));
                let written = tokio::select! {
                    biased;
                    signal = signals.next() => return Ok(ended_by(signal)),
                    written = written => written,
                };
                match written {
                    Ok(Ok(Written::Gone)) => return Ok(Exit::Done.into()),
                    Ok(Err(error)) => return Err(error),
                    _ => {}
                }
            }
            // Its error is the answer to the whole command.
            (Err(_), None) => {}
            (Err(error), Some(due)) => {
                let text = told(error);
                if trouble.as_ref() != Some(&text) {
                    let left = span(due.saturating_duration_since(Instant::now()));
                    common.out.warn("no_answer", &format!("{text}; looking again, first in {left}"));
                }
                trouble = Some(text);
            }
        }
        match next {
            Some(due) => under_way = looks.begin(due),
            None => return look.outcome.map(|_| Exit::Done.into()),
        }
    }
}

fn json_line(table: &LockTable, look: &Look, seen: &Seen, begun: Instant, common: &Common) -> String {
    let mut value = picture(table, &common.context);
    value["at"] = json!(timestamp(look.at));
    value["took_us"] = json!(u64::try_from(look.took.as_micros()).unwrap_or(u64::MAX));
    value["watched"] = seen.to_json(begun.elapsed());
    format!("{value}\n")
}

fn plain(table: &LockTable, look: &Look, common: &Common) -> String {
    let (leases, waiting) = (table.holdings.len(), table.waiters.len());
    let head = format!("{}  context {}: {leases} held, {waiting} waiting", moment(look.at), common.context);
    format!("{head}\n{}\n", human(table, common.out))
}

// --- As a view -----------------------------------------------------------------------------------------------------

/// The view on the terminal.
async fn drawn(looks: &mut Looks, subject: Subject) -> Result<ExitCode, CliError> {
    let mut signals = Signals::listen()?;
    let theme = Theme { colour: !no_colour() };
    let mut state = State::new(subject, Instant::now());
    let mut screen = Screen::take()?;
    // Declared after the screen, so that it ends before: what is typed while it ends is not echoed.
    let mut keys = Keys::read()?;
    let mut due = Some(Instant::now());
    let mut under_way = due.map(|due| looks.begin(due));
    loop {
        state.asked = due;
        let room = screen.draw(|frame| view::draw(frame, &state, Instant::now(), theme))?;
        if state.room != room {
            state.drawn(room);
            // How far it can be scrolled is said in the picture itself.
            screen.draw(|frame| view::draw(frame, &state, Instant::now(), theme))?;
        }
        tokio::select! {
            biased;
            signal = signals.next() => return Ok(ended_by(signal)),
            event = keys.next() => match event? {
                Event::Key(key) => match state.key(key) {
                    Asked::Quit => return Ok(Exit::Done.into()),
                    // A picture that comes in now would take away the one that is being read.
                    Asked::Pause => (due, under_way) = (None, None),
                    Asked::Resume => {
                        due = Some(Instant::now());
                        under_way = due.map(|due| looks.begin(due));
                    }
                    Asked::Nothing => {}
                },
                // What is on the screen after that is the terminal's guess.
                Event::Resize(..) => screen.forget().unwrap_or_default(),
                _ => {}
            },
            look = next_look(&mut under_way) => {
                let Some(next) = looks.after(&look) else { return last(look, &mut screen, state, theme) };
                take(look, next, &mut state);
                due = Some(next);
                under_way = due.map(|due| looks.begin(due));
            }
            () = tokio::time::sleep(REDRAW) => {}
        }
    }
}

async fn next_look(under_way: &mut Option<UnderWay>) -> Look {
    match under_way {
        Some(look) => look.await,
        None => future::pending().await,
    }
}

fn take(look: Look, due: Instant, state: &mut State) {
    let Look { outcome, at, began, took } = look;
    match outcome {
        Ok(table) => state.answered(Picture { table, at, began, took }),
        Err(error) => state.failed(told(&error), began, due),
    }
}

/// The last of `--count` looks: shown, if only for a moment, and then what came of it is what comes of the command.
fn last(look: Look, screen: &mut Screen, mut state: State, theme: Theme) -> Result<ExitCode, CliError> {
    let Look { outcome, at, began, took } = look;
    state.answered(Picture { table: outcome?, at, began, took });
    screen.draw(|frame| view::draw(frame, &state, Instant::now(), theme))?;
    Ok(Exit::Done.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_often_has_bounds_that_are_told() {
        assert_eq!(every("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(every("1day"), Ok(EVERY_MAX));
        assert!(every("99ms").is_err_and(|error| error.contains("100ms to 1day")));
        assert!(every("2days").is_err_and(|error| error.contains("100ms to 1day")));
        assert!(every("5").is_err());
    }

    #[test]
    fn pauses_grow_up_to_a_bound() {
        let pauses = |every: Duration| [1, 2, 3, 4, 40, u32::MAX].map(|failures| pause(every, failures).as_millis());
        assert_eq!(pauses(Duration::from_secs(1)), [1_000, 2_000, 4_000, 5_000, 5_000, 5_000]);
        assert_eq!(pauses(Duration::from_millis(100)), [100, 200, 400, 800, 5_000, 5_000]);
        assert_eq!(pauses(Duration::from_secs(60)), [60_000; 6], "rarer than that anyway");
    }
}
