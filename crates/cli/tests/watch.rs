//! `mutext locks --watch`, as lines in a pipe and as a view on a real terminal: the real binary, over real engines.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "cli/place.rs"]
#[expect(dead_code, reason = "the tests of the other commands use the rest")]
mod place;

use std::fs;
use std::process::Command;

use mutext_testbed::RedisServer;
use place::{Holder, Place, until};
use rustix::process::Signal;
use serde_json::Value;

const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";
const SHOW_CURSOR: &str = "\x1b[?25h";

/// The first look, among the next, of which this holds.
#[track_caller]
fn look(watch: &mut Holder, holds: impl Fn(&Value) -> bool) -> Value {
    loop {
        let line = watch.line();
        assert!(!line.is_empty(), "it has ended");
        let look: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        if holds(&look) {
            return look;
        }
    }
}

fn agents(look: &Value) -> Vec<&str> {
    look["leases"].as_array().unwrap().iter().map(|lease| lease["agent"].as_str().unwrap()).collect()
}

#[test]
fn a_holder_appears_and_disappears_line_by_line() {
    let place = Place::new();
    let mut watch = place.mutext(&["locks", "--watch", "--every", "100ms", "--json"]);
    let mut watch = Holder::start_without_word(&mut watch);
    let first = look(&mut watch, |_| true);
    assert!(agents(&first).is_empty() && first["watched"]["grants"] == 0, "{first}");
    let holder = place.hold(&["--agent", "planner", "plan.md", "--reason", "re-ordering"], "echo ready; cat");
    let held = look(&mut watch, |look| agents(look) == ["planner"]);
    assert_eq!((&held["context"], &held["leases"][0]["reason"]), (&"default".into(), &"re-ordering".into()));
    assert_eq!((held["watched"]["grants"].as_u64(), held["leases"][0]["lapsed"].as_bool()), (Some(1), Some(false)));
    assert!(held["at"].as_str().unwrap().ends_with('Z') && held["took_us"].is_u64(), "{held}");
    let mut waiting = place.mutext(&["--agent", "critic", "lock", "plan.md", "--wait", "30s", "--", "cat"]);
    let waiting = Holder::start_without_word(&mut waiting);
    let queued = look(&mut watch, |look| look["waiters"][0].is_object());
    assert_eq!(
        (&queued["waiters"][0]["agent"], &queued["leases"][0]["waiting"][0]["agent"]),
        (&"critic".into(), &"critic".into())
    );
    assert_eq!(holder.end().status, 0);
    let handed_over = look(&mut watch, |look| agents(look) == ["critic"]);
    assert_eq!(waiting.end().status, 0);
    let free = look(&mut watch, |look| agents(look).is_empty());
    assert!(free["watched"]["looks"].as_u64() > handed_over["watched"]["looks"].as_u64(), "{free}");
    watch.signal(Signal::TERM);
    let ran = watch.end();
    assert_eq!((ran.status, ran.err.as_str()), (143, ""), "{ran:?}");
}

#[test]
fn a_number_of_looks_is_that_many_tables_without_a_single_escape() {
    let place = Place::new();
    let _holder = place.hold(&["--agent", "planner", "plan.md"], "echo ready; cat");
    let tables = place.run(&["locks", "--watch", "--every", "100ms", "--count", "3"]).done();
    assert_eq!(tables.matches("context default: 1 held, 0 waiting\n").count(), 3, "{tables}");
    assert_eq!(tables.matches("planner").count(), 3, "{tables}");
    assert!(!tables.contains('\x1b'), "{tables}");
}

#[test]
fn it_ends_with_its_reader_and_can_be_interrupted_while_nobody_reads() {
    let place = Place::new();
    let script = "mutext locks --watch --every 100ms --json | head -n 1 >first; echo done";
    let mut piped = Holder::start_without_word(place.program("sh").args(["-c", script]));
    assert_eq!(piped.line(), "done\n");
    // A pipe that is full, and a reader that never reads.
    let fifo = place.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let reader = fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let filled = std::io::Write::write(&mut &reader, &vec![b'x'; 65_536]).unwrap();
    assert_eq!(filled, 65_536, "as much as a pipe holds");
    let script = "echo $$ >pid; exec mutext locks --watch --every 100ms --json >fifo";
    let watch = Holder::start_without_word(place.program("sh").args(["-c", script]));
    until("it writes", || fs::read_to_string(place.path("pid")).is_ok_and(|pid| writes(pid.trim())));
    watch.signal(Signal::TERM);
    assert_eq!(watch.end().status, 143);
}

/// Whether the process takes signals, and has begun to write a look: a thread of the runtime does that.
fn writes(pid: &str) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.any(|name| name.starts_with("tokio"))
}

#[test]
fn how_often_and_how_many_are_checked() {
    let place = Place::new();
    place
        .run(&["locks", "--watch", "--every", "50ms"])
        .refused(2, &["50ms", "burden the lock server", "100ms to 1day"]);
    place.run(&["locks", "--watch", "--every", "5"]).refused(2, &["--every", "500ms"]);
    place.run(&["locks", "--watch", "--count", "0"]).refused(2, &["--count"]);
    place.run(&["locks", "--every", "1s"]).refused(2, &["--watch"]);
    place.run(&["locks", "--count", "1"]).refused(2, &["--watch"]);
}

#[test]
fn a_lock_server_that_goes_away_is_told_of_and_found_again() {
    let place = Place::new();
    let mut server = RedisServer::start().unwrap();
    let url = server.url();
    let script = "exec mutext locks --watch --every 100ms --json --locks \"$0\" 2>told";
    let mut watch = Holder::start_without_word(place.program("sh").args(["-c", script, &url]));
    look(&mut watch, |_| true);
    server.kill().unwrap();
    let told = || fs::read_to_string(place.path("told")).unwrap_or_default();
    until("it says so", || told().contains("\"no_answer\""));
    // What was answered before that may be read only now.
    let answered = place.run(&["locks", "--watch", "--count", "1", "--locks", &url]);
    answered.refused(7, &["see that the server runs"]);
    server.restart().unwrap();
    let holder = place.hold(&["--agent", "planner", "--locks", &url, "plan.md"], "echo ready; cat");
    look(&mut watch, |look| agents(look) == ["planner"]);
    assert_eq!(told().lines().count(), 1, "once for one trouble: {}", told());
    assert_eq!(holder.end().status, 0);
    watch.signal(Signal::TERM);
    assert_eq!(watch.end().status, 143);
}

// --- On a terminal -------------------------------------------------------------------------------------------------

/// A shell on a terminal of its own. What appears there is kept in a file.
struct OnTerminal<'a> {
    place: &'a Place,
    script: Holder,
    /// In columns and rows.
    size: (u16, u16),
}

impl<'a> OnTerminal<'a> {
    /// Runs this there, after the terminal was given its size; whatever it has changed of the terminal's settings
    /// must be undone at its end.
    fn run(place: &'a Place, size: (u16, u16), variables: &[(&str, &str)], command: &str) -> Self {
        let (columns, rows) = size;
        let shell = format!(
            "stty cols {columns} rows {rows}; before=$(stty -g); {command}; status=$?; \
             [ \"$before\" = \"$(stty -g)\" ] && echo terminal restored; exit $status"
        );
        let mut script = place.program("script");
        script.env("TERM", "xterm-256color").env("SHELL", "/bin/sh").envs(variables.iter().copied());
        script.args(["--quiet", "--return", "--flush", "--command", &shell, "typescript"]);
        Self { place, script: Holder::start_without_word(&mut script), size }
    }

    fn seen(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.place.path("typescript")).unwrap_or_default()).into_owned()
    }

    #[track_caller]
    fn shows(&self, part: &str) {
        until(part, || self.screen().contains(part));
    }

    /// What stands on the screen: only what changes is written, and a blank is jumped over.
    fn screen(&self) -> String {
        let seen = self.seen();
        let (columns, rows) = self.size;
        let mut cells = vec![vec![' '; columns.into()]; rows.into()];
        let (mut row, mut column) = (0_usize, 0_usize);
        let view = seen.rsplit_once(ENTER).map_or("", |(_, view)| view);
        for piece in view.split(LEAVE).next().unwrap_or_default().split("\x1b[") {
            let Some(end) = piece.find(|character: char| character.is_ascii_alphabetic()) else { continue };
            let (parameters, rest) = piece.split_at(end);
            match rest.as_bytes().first() {
                Some(b'H') => {
                    let mut place = parameters.split(';').map(|number| number.parse().unwrap_or(1_usize) - 1);
                    (row, column) = (place.next().unwrap_or(0), place.next().unwrap_or(0));
                }
                Some(b'J') => cells.iter_mut().for_each(|row| row.fill(' ')),
                _ => {}
            }
            for character in rest.chars().skip(1) {
                let cell = cells.get_mut(row).and_then(|row| row.get_mut(column));
                *cell.unwrap_or_else(|| panic!("drawn outside the terminal: {seen:?}")) = character;
                column += 1;
            }
        }
        cells.into_iter().map(|row| row.into_iter().collect::<String>().trim_end().to_owned() + "\n").collect()
    }

    /// Its exit status, after it has given the terminal back.
    #[track_caller]
    fn ends(self) -> i32 {
        until("its end", || self.seen().contains("COMMAND_EXIT_CODE"));
        let seen = self.seen();
        let (_, after) = seen.rsplit_once(LEAVE).unwrap_or_else(|| panic!("the view is left on the screen: {seen:?}"));
        assert!(after.contains(SHOW_CURSOR), "the cursor stays hidden: {seen:?}");
        assert!(after.contains("terminal restored"), "the terminal's settings are changed: {seen:?}");
        self.script.end().status
    }
}

#[test]
fn the_view_shows_the_holder_and_leaves_the_terminal_as_it_was() {
    let place = Place::new();
    let _holder = place.hold(&["--agent", "planner", "plan.md", "--reason", "re-ordering"], "echo ready; cat");
    let mut terminal = OnTerminal::run(&place, (100, 20), &[], "mutext locks --watch --every 100ms");
    terminal.shows("planner");
    terminal.shows("re-ordering");
    assert!(coloured(&terminal.seen()), "a heading has a colour");
    terminal.script.tell("?");
    terminal.shows("scroll by a page");
    terminal.script.tell("q");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn ctrl_c_quits_a_narrow_view_without_colour() {
    let place = Place::new();
    let _holder = place.hold(&["--agent", "planner", "plan.md"], "echo ready; cat");
    let mut terminal = OnTerminal::run(&place, (40, 10), &[("NO_COLOR", "1")], "mutext locks --watch --every 100ms");
    terminal.shows("planner");
    terminal.script.tell("\x03");
    assert!(!coloured(&terminal.seen()), "{:?}", terminal.seen());
    assert_eq!(terminal.ends(), 0);
}

/// Whether any escape sets a foreground or a background.
fn coloured(seen: &str) -> bool {
    let parameters =
        seen.split("\x1b[").skip(1).filter_map(|text| text.split_once('m')).map(|(parameters, _)| parameters);
    let is_colour = |number: u8| matches!(number, 30..=38 | 40..=48 | 90..=97 | 100..=107);
    parameters.flat_map(|text| text.split(';')).filter_map(|number| number.parse().ok()).any(is_colour)
}

#[test]
fn a_signal_ends_the_view_and_the_terminal_is_given_back() {
    for (signal, status) in [("TERM", 143), ("INT", 130), ("HUP", 129)] {
        let place = Place::new();
        // Whoever started the tests may have switched one off.
        let command = "sh -c 'echo $$ >pid; exec env --default-signal mutext locks --watch'";
        let terminal = OnTerminal::run(&place, (80, 24), &[], command);
        terminal.shows("nobody holds a lock");
        let pid = fs::read_to_string(place.path("pid")).unwrap();
        assert!(Command::new("sh").args(["-c", &format!("kill -{signal} {pid}")]).status().unwrap().success());
        assert_eq!(terminal.ends(), status, "{signal}");
    }
}

#[test]
fn a_view_ends_with_its_terminal_even_where_hanging_up_is_ignored() {
    for ignore in ["", "trap '' HUP; "] {
        let place = Place::new();
        let command = format!("sh -c '{ignore}echo $$ >pid; exec mutext locks --watch'");
        let terminal = OnTerminal::run(&place, (80, 24), &[], &command);
        terminal.shows("nobody holds a lock");
        let watch = format!("/proc/{}", fs::read_to_string(place.path("pid")).unwrap().trim());
        assert!(fs::exists(&watch).unwrap());
        terminal.script.signal(Signal::KILL);
        until("the end of the view", || {
            fs::read_to_string(format!("{watch}/stat")).map_or(true, |stat| stat.contains(") Z "))
        });
    }
}

#[test]
fn a_number_of_looks_ends_the_view_too() {
    let place = Place::new();
    let terminal = OnTerminal::run(&place, (80, 24), &[], "mutext locks --watch --every 100ms --count 2");
    terminal.shows("nobody holds a lock");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn the_view_greys_what_is_old_and_recovers() {
    let place = Place::new();
    let mut server = RedisServer::start().unwrap();
    let command = format!("mutext locks --watch --every 100ms --locks '{}'", server.url());
    let mut terminal = OnTerminal::run(&place, (100, 20), &[], &command);
    terminal.shows("nobody holds a lock");
    server.kill().unwrap();
    terminal.shows("NO ANSWER");
    terminal.shows("see that the server runs");
    server.restart().unwrap();
    let _holder = place.hold(&["--agent", "planner", "--locks", &server.url(), "plan.md"], "echo ready; cat");
    terminal.shows("planner");
    terminal.script.tell("q");
    assert_eq!(terminal.ends(), 0);
}
