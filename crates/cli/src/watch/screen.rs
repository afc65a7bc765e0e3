//! The terminal: taken for the view, and given back however the view ends. And its keys, read by a thread of their own.

use std::io::{self, IsTerminal, Stdout};
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::layout::Rect;
use ratatui::{Frame, Terminal, TerminalOptions, Viewport};
use tokio::sync::mpsc;

use crate::error::CliError;
use crate::output;

/// How long the thread that reads keys may not notice that nobody wants any more.
const NOTICE: Duration = Duration::from_millis(50);
/// Keys that may wait to be read; the thread waits with more.
const KEYS_MAX: usize = 64;
/// For a terminal that does not know its size, as a serial line.
const SIZE_UNKNOWN: Rect = Rect { x: 0, y: 0, width: 80, height: 24 };

/// Whether the terminal is ours now. It is given back once, by whoever comes first: the end, an error, or a panic in
/// any thread.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal while the view is on it.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    pub(super) fn take() -> Result<Self, CliError> {
        let remedy = "use --json, or a pipe, for looks without a view";
        let refused = |source| CliError::Io { what: "the terminal cannot be drawn on".to_owned(), remedy, source };
        give_back_on_panic();
        enable_raw_mode().map_err(refused)?;
        // From here on there is something to give back, should the next step fail.
        TAKEN.store(true, Ordering::SeqCst);
        output::hold_back();
        let taken = execute!(io::stdout(), EnterAlternateScreen, Hide).and_then(|()| terminal());
        taken.map(|terminal| Self { terminal }).map_err(|error| {
            give_back();
            refused(error)
        })
    }

    /// Draws, and says what `draw` found.
    pub(super) fn draw<T>(&mut self, draw: impl FnOnce(&mut Frame<'_>) -> T) -> Result<T, CliError> {
        if !TAKEN.load(Ordering::SeqCst) {
            return Err(CliError::Io {
                what: "the view ends".to_owned(),
                remedy: "please report the panic that is told above",
                source: io::Error::other("a thread of mutext has panicked"),
            });
        }
        let mut found = None;
        let drawn = self.terminal.draw(|frame| found = Some(draw(frame)));
        match (drawn, found) {
            (Ok(_), Some(found)) => Ok(found),
            (drawn, _) => Err(CliError::Io {
                what: "the terminal cannot be drawn on".to_owned(),
                remedy: "is it still there?",
                source: drawn.err().unwrap_or_else(|| io::ErrorKind::Other.into()),
            }),
        }
    }

    /// Draws everything anew, not just what has changed.
    pub(super) fn forget(&mut self) -> io::Result<()> {
        self.terminal.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn terminal() -> io::Result<Terminal<CrosstermBackend<Stdout>>> {
    let backend = CrosstermBackend::new(io::stdout());
    let size = ratatui::crossterm::terminal::size()?;
    match size {
        (0, _) | (_, 0) => Terminal::with_options(backend, TerminalOptions { viewport: Viewport::Fixed(SIZE_UNKNOWN) }),
        _ => Terminal::new(backend),
    }
}

/// Leaves the terminal as it was. Where it is gone, there is nothing left to do, and nobody to tell.
fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
        output::let_go();
    }
}

/// A panic's message belongs on the terminal that its reader comes back to.
fn give_back_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            give_back();
            before(info);
        }));
    });
}

/// What is typed.
pub(super) struct Keys {
    events: mpsc::Receiver<io::Result<Event>>,
    thread: Option<JoinHandle<()>>,
}

impl Keys {
    /// Begins to read.
    pub(super) fn read() -> Result<Self, CliError> {
        let (sender, events) = mpsc::channel(KEYS_MAX);
        let read = move || {
            while !sender.is_closed() {
                let event = match event::poll(NOTICE) {
                    Ok(false) => continue,
                    Ok(true) => event::read(),
                    Err(error) => Err(error),
                };
                let failed = event.is_err();
                if sender.blocking_send(event).is_err() || failed {
                    break;
                }
            }
        };
        let started = std::thread::Builder::new().name("mutext-keys".to_owned()).spawn(read);
        let (what, remedy) = ("the thread that reads keys cannot be started".to_owned(), "allow more threads");
        let thread = started.map_err(|source| CliError::Io { what, remedy, source })?;
        Ok(Self { events, thread: Some(thread) })
    }

    /// The next event. Dropping the future loses none.
    pub(super) async fn next(&mut self) -> Result<Event, CliError> {
        let event = self.events.recv().await.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()));
        let (what, remedy) = ("the keys cannot be read".to_owned(), "use --json, or a pipe, for looks without a view");
        event.map_err(|source| CliError::Io { what, remedy, source })
    }
}

impl Drop for Keys {
    /// Whatever is typed next belongs to the shell. A terminal that has hung up keeps the thread inside its library
    /// for ever, so that it is not waited for for ever; it ends with the process.
    fn drop(&mut self) {
        self.events.close();
        let until = Instant::now() + 4 * NOTICE;
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) && Instant::now() < until {
            std::thread::sleep(NOTICE / 25);
        }
    }
}

/// Whether there is somewhere to read keys from.
pub(super) fn has_keys() -> bool {
    io::stdin().is_terminal() || std::fs::File::open("/dev/tty").is_ok()
}
