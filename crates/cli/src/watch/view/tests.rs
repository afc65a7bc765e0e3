//! What the view looks like, as its user sees it.

use mutext::{AgentName, Claim, Holder, LeaseId, Mode, Resource};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::Modifier;

use super::super::state::{Picture, Subject};
use super::*;

const PLAIN: Theme = Theme { colour: false };

fn claims(resource: &str, mode: Mode) -> std::sync::Arc<[Claim]> {
    let resources = resource.split(", ").map(|name| Resource::new(name).unwrap());
    resources.map(|resource| Claim { resource, mode }).collect()
}

pub(in super::super) fn holding(resource: &str, agent: &str) -> Holding {
    Holding {
        lease: LeaseId::random(),
        holder: Holder::new(AgentName::new(agent).unwrap()),
        claims: claims(resource, Mode::Exclusive),
        token: (1, 7),
        held_for: Duration::from_secs(62),
        remaining: Duration::from_millis(8_940),
        reason: None,
    }
}

pub(in super::super) fn waiter(resource: &str, agent: &str, seconds: u64) -> Waiter {
    Waiter {
        lease: LeaseId::random(),
        holder: Holder::new(AgentName::new(agent).unwrap()),
        claims: claims(resource, Mode::Exclusive),
        waited: Duration::from_secs(seconds),
        reason: None,
        keeps: Vec::new(),
        replaces: None,
    }
}

/// A watch that has just begun.
pub(in super::super) fn state() -> State {
    let subject = Subject {
        context: "default".to_owned(),
        address: "redis://agent:***@locks.example:6379/0".to_owned(),
        engine: "redis",
        every: Duration::from_secs(1),
    };
    State::new(subject, Instant::now())
}

/// One that has seen `table` a second ago.
fn seen(table: LockTable) -> State {
    let mut state = state();
    // 14:03:22 on a day long ago.
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(14 * 3600 + 3 * 60 + 22);
    state.answered(Picture { table, at, began: state.since, took: Duration::from_micros(1_240) });
    state
}

fn one_lease_and_its_queue() -> LockTable {
    let mut plan = holding("plan.md, tasks", "planner");
    plan.lease = LeaseId::try_from("9f86d081884c7d659a2feaa0c55ad015".to_owned()).unwrap();
    plan.reason = Some("re-ordering".to_owned());
    let mut lapsed = holding("notes.md", "scribe");
    lapsed.lease = LeaseId::try_from("3d1c22aa71e0ffee00112233445566ff".to_owned()).unwrap();
    lapsed.claims = claims("notes.md", Mode::Shared);
    (lapsed.token, lapsed.remaining) = ((1, 6), Duration::ZERO);
    let mut second = waiter("tasks/17", "tester", 1);
    second.reason = Some("one more\nstep".to_owned());
    LockTable { holdings: vec![plan, lapsed], waiters: vec![waiter("tasks/17", "critic", 4), second] }
}

fn many_leases() -> LockTable {
    let leases = (0..30).map(|number| holding(&format!("tasks/{number:02}"), "planner"));
    LockTable { holdings: leases.collect(), waiters: vec![waiter("tasks/03", "critic", 4)] }
}

/// A second after the watch began.
fn drawn(state: &mut State, width: u16, height: u16, theme: Theme) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let now = state.since + Duration::from_secs(1);
    // Twice, as the loop does: the first time says how much room there is.
    for _ in 0..2 {
        let mut room = Room::default();
        terminal.draw(|frame| room = draw(frame, state, now, theme)).unwrap();
        state.drawn(room);
    }
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let row = |y: u16| (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..buffer.area.height).map(|y| row(y).trim_end().to_owned() + "\n").collect()
}

#[track_caller]
fn shows(state: &mut State, (width, height): (u16, u16), expected: &str) {
    let found = text(&drawn(state, width, height, PLAIN));
    let expected = expected.strip_prefix('\n').unwrap();
    assert_eq!(found, expected, "found:\n{found}");
}

#[test]
fn before_the_first_look() {
    shows(
        &mut state(),
        (40, 10),
        "
default at redis://agent:***@locks.exam…
not seen yet
grants 0, changes 0, wait 0ms
looking…





q quit   ? help   p pause
",
    );
}

#[test]
fn an_empty_table() {
    shows(
        &mut seen(LockTable::default()),
        (100, 16),
        "
context default, looked at every 1s
locks at redis://agent:***@locks.example:6379/0 (engine redis)
last look 14:03:22Z, took 1.2ms: 0 leases, 0 waiting
watched 1s, 1 look: grants seen 0, holders changed 0, longest wait seen 0ms

nobody holds a lock









q quit   ? help   p pause
",
    );
}

#[test]
fn a_lease_a_lapsed_one_and_the_queue() {
    shows(
        &mut seen(one_lease_and_its_queue()),
        (110, 18),
        "
context default, looked at every 1s
locks at redis://agent:***@locks.example:6379/0 (engine redis)
last look 14:03:22Z, took 1.2ms: 2 leases, 2 waiting
watched 1s, 1 look: grants seen 0, holders changed 0, longest wait seen 4.0s

resource        mode       holder   token  held for  good for  waiting  reason       lease
plan.md, tasks  exclusive  planner  1.7    1m 2s     8.9s      2        re-ordering  9f86d081884c
notes.md        shared     scribe   1.6    1m 2s     lapsed    0                     3d1c22aa71e0

waiting for  mode       agent   since  reason
tasks/17     exclusive  critic  4.0s
tasks/17     exclusive  tester  1.0s   one more step





q quit   ? help   p pause
",
    );
}

#[test]
fn many_leases_scrolled_down_keep_their_heading() {
    let mut state = seen(many_leases());
    drawn(&mut state, 80, 18, PLAIN);
    (0..22).for_each(|_| {
        state.key(ratatui::crossterm::event::KeyCode::Down.into());
    });
    shows(
        &mut state,
        (80, 18),
        "
context default, looked at every 1s
locks at redis://agent:***@locks.example:6379/0 (engine redis)
last look 14:03:22Z, took 1.2ms: 30 leases, 1 waiting
watched 1s, 1 look: grants seen 0, holders changed 0, longest wait seen 4.0s

resource  mode       holder   token  held for  good for  waiting  reason
tasks/22  exclusive  planner  1.7    1m 2s     8.9s      0
tasks/23  exclusive  planner  1.7    1m 2s     8.9s      0
tasks/24  exclusive  planner  1.7    1m 2s     8.9s      0
tasks/25  exclusive  planner  1.7    1m 2s     8.9s      0
tasks/26  exclusive  planner  1.7    1m 2s     8.9s      0
tasks/27  exclusive  planner  1.7    1m 2s     8.9s      0
tasks/28  exclusive  planner  1.7    1m 2s     8.9s      0
tasks/29  exclusive  planner  1.7    1m 2s     8.9s      0

waiting for  mode       agent   since  reason

q quit   ? help   p pause   up/down: line 23 of 24
",
    );
}

#[test]
fn a_narrow_terminal_keeps_what_matters_most() {
    shows(
        &mut seen(one_lease_and_its_queue()),
        (40, 10),
        "
default at redis://agent:***@locks.exam…
14:03:22Z, took 1.2ms
grants 0, changes 0, wait 4.0s
resource       holder  held for waiting
plan.md, tasks planner 1m 2s    2
notes.md       scribe  1m 2s    0

waiting for mode      agent  since
tasks/17    exclusive critic 4.0s
q quit   ? help   p pause   up/down: li…
",
    );
}

#[test]
fn trouble_keeps_the_last_picture_and_says_that_it_is_old() {
    let mut state = seen(one_lease_and_its_queue());
    let now = state.since + Duration::from_secs(1);
    let told =
        "redis://agent:***@locks.example:6379/0: cannot be reached; is the server running, and the address right?";
    state.failed(told.to_owned(), now.checked_sub(Duration::from_secs(12)).unwrap(), now + Duration::from_secs(3));
    shows(
        &mut state,
        (90, 18),
        "
context default, looked at every 1s
locks at redis://agent:***@locks.example:6379/0 (engine redis)
last look 14:03:22Z, took 1.2ms: 2 leases, 2 waiting
watched 1s, 1 look: grants seen 0, holders changed 0, longest wait seen 4.0s

resource        mode       holder   token  held for  good for  waiting  reason
plan.md, tasks  exclusive  planner  1.7    1m 2s     8.9s      2        re-ordering
notes.md        shared     scribe   1.6    1m 2s     lapsed    0

waiting for  mode       agent   since  reason
tasks/17     exclusive  critic  4.0s
tasks/17     exclusive  tester  1.0s   one more step



NO ANSWER for 12s, next look in 3s; what is shown is old
redis://agent:***@locks.example:6379/0: cannot be reached; is the server running, and the
address right?
",
    );
    let buffer = drawn(&mut state, 90, 18, PLAIN);
    assert!(buffer[(0, 6)].modifier.contains(Modifier::DIM), "the old picture is greyed");
    assert!(!buffer[(0, 15)].modifier.contains(Modifier::DIM));
}

#[test]
fn a_pause_and_the_help_say_so() {
    let mut state = seen(LockTable::default());
    state.paused = true;
    state.help = true;
    shows(
        &mut state,
        (40, 10),
        "
default at redis://agent:***@locks.exam…
14:03:22Z, took 1.2ms
grants 0, changes 0, wait 0ms
q, Esc, Ctrl-C  quit
Up, Down, k, j  scroll by a line
PgUp, PgDn      scroll by a page
Home, End       to either end
p               pause, and go on
?               help; Esc closes it
PAUSED   p goes on   q quits
",
    );
}

#[test]
fn rates_are_those_of_the_time_watched() {
    let mut state = seen(LockTable::default());
    state.answered(Picture { table: many_leases(), ..state.picture.clone().unwrap() });
    let header = header(&state, state.since + Duration::from_secs(90), 200, 40);
    let expected =
        "watched 1m 30s, 2 looks: grants seen 30 (20.0/min), holders changed 0 (0.0/min), longest wait seen 4.0s";
    assert_eq!(header.lines[3].to_string(), expected);
    let narrow = super::header(&state, state.since + Duration::from_secs(90), 80, 40);
    assert_eq!(narrow.lines[4].to_string(), "longest wait seen 4.0s", "nothing of it is lost");
    assert_eq!(
        header.lines[2].to_string(),
        "last look 14:03:22Z (1m 30s ago), took 1.2ms: 30 leases, 1 waiting",
        "a look that should have come is missed"
    );
}

#[test]
fn every_size_is_drawn() {
    for table in [LockTable::default(), one_lease_and_its_queue(), many_leases()] {
        for (trouble, help) in [(false, false), (true, false), (false, true)] {
            for (width, height) in (0..=45).map(|width| (width, width / 3)).chain([(1, 60), (200, 1), (200, 60)]) {
                let mut state = seen(table.clone());
                (state.help, state.scroll) = (help, 7);
                if trouble {
                    state.failed("a-word-that-is-wider-than-the-terminal ".repeat(9), state.since, state.since);
                }
                drawn(&mut state, width, height, Theme { colour: true });
            }
        }
    }
}

#[test]
fn without_colour_there_is_none_and_nothing_is_said_by_colour_alone() {
    let mut state = seen(one_lease_and_its_queue());
    let (plain, coloured) = (drawn(&mut state, 110, 18, PLAIN), drawn(&mut state, 110, 18, Theme { colour: true }));
    assert!(plain.content.iter().all(|cell| (cell.fg, cell.bg) == (Color::Reset, Color::Reset)));
    assert!(coloured.content.iter().any(|cell| cell.fg == Color::Yellow), "the lapsed lease is yellow, and says so");
    assert_eq!(text(&plain), text(&coloured));
}
