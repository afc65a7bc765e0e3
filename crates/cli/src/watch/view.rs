//! The picture: what the state looks like in so many columns and rows. It is drawn from the state alone.

use std::time::{Duration, Instant, SystemTime};

use mutext::{Holding, LockTable, Waiter};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style};
use ratatui::text::{Line, Text};

use super::columns::{self, Column, LUXURY, cut, measure, one_line};
use super::seen::{Seen, per_minute};
use super::state::{Room, State};
use crate::locks::{mode, resources, waiting_for};
use crate::output::span;

const LEASES: [Column; 9] = [
    Column { title: "resource", rank: 0, width_min: 12 },
    Column { title: "mode", rank: 4, width_min: 9 },
    Column { title: "holder", rank: 0, width_min: 8 },
    Column { title: "token", rank: LUXURY, width_min: 5 },
    Column { title: "held for", rank: 1, width_min: 8 },
    Column { title: "good for", rank: 2, width_min: 8 },
    Column { title: "waiting", rank: 0, width_min: 7 },
    Column { title: "reason", rank: LUXURY + 1, width_min: 10 },
    Column { title: "lease", rank: LUXURY + 2, width_min: 12 },
];

const QUEUE: [Column; 5] = [
    Column { title: "waiting for", rank: 0, width_min: 11 },
    Column { title: "mode", rank: 2, width_min: 9 },
    Column { title: "agent", rank: 0, width_min: 6 },
    Column { title: "since", rank: 1, width_min: 6 },
    Column { title: "reason", rank: LUXURY, width_min: 10 },
];

const KEYS: [(&str, &str); 6] = [
    ("q, Esc, Ctrl-C", "quit"),
    ("Up, Down, k, j", "scroll by a line"),
    ("PgUp, PgDn", "scroll by a page"),
    ("Home, End", "to either end"),
    ("p", "pause, and go on"),
    ("?", "help; Esc closes it"),
];

/// A terminal with fewer rows gets a short header.
const ROWS_OF_A_LONG_HEADER: u16 = 16;

/// How things are told apart. Every difference is a word, too: colour and weight only help to find it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Theme {
    pub(crate) colour: bool,
}

impl Theme {
    fn coloured(self, style: Style, colour: Color) -> Style {
        if self.colour { style.fg(colour) } else { style }
    }

    fn heading(self) -> Style {
        self.coloured(Style::new().bold(), Color::Cyan)
    }

    fn lapsed(self) -> Style {
        self.coloured(Style::new(), Color::Yellow)
    }

    fn trouble(self) -> Style {
        self.coloured(Style::new().bold(), Color::Red)
    }
}

/// Draws the state, and says how far the list can be scrolled.
pub(crate) fn draw(frame: &mut Frame<'_>, state: &State, now: Instant, theme: Theme) -> Room {
    let area = frame.area();
    let width = usize::from(area.width);
    let header = header(state, now, width, area.height);
    let status = status(state, now, width, usize::from(area.height / 3).clamp(1, 4), theme);
    let rows = [Constraint::Length(rows(&header)), Constraint::Min(0), Constraint::Length(rows(&status))];
    let [top, middle, bottom] = Layout::vertical(rows).areas(area);
    frame.render_widget(header, top);
    frame.render_widget(status, bottom);
    // A line between them, where there are lines to spare.
    let inset = u16::from(area.height >= ROWS_OF_A_LONG_HEADER);
    let middle =
        Rect { y: middle.y + inset.min(middle.height), height: middle.height.saturating_sub(2 * inset), ..middle };
    if state.help {
        frame.render_widget(help(width), middle);
        return state.room;
    }
    let Some(picture) = &state.picture else {
        frame.render_widget(Text::raw(if state.trouble.is_some() { "" } else { "looking…" }), middle);
        return Room::default();
    };
    let sections = sections(&picture.table, width, theme);
    let (lines, room) = window(&sections, state.scroll, usize::from(middle.height));
    // Old news looks like it, and the status line says so.
    let style = if state.without_answer(now).is_some() { Style::new().dim() } else { Style::new() };
    frame.render_widget(Text::from(lines).style(style), middle);
    room
}

fn rows(text: &Text<'_>) -> u16 {
    u16::try_from(text.lines.len()).unwrap_or(u16::MAX)
}

// --- Header --------------------------------------------------------------------------------------------------------

fn header(state: &State, now: Instant, width: usize, height: u16) -> Text<'static> {
    let subject = &state.subject;
    let watched = now.saturating_duration_since(state.since);
    let lines = if height >= ROWS_OF_A_LONG_HEADER {
        let looks = counted(state.seen.looks, "look", "looks");
        let watched = format!("watched {}, {looks}: {}", seconds(watched), so_far(&state.seen, watched));
        let mut lines = vec![
            format!("context {}, looked at every {}", subject.context, exact(subject.every)),
            format!("locks at {} (engine {})", one_line(&subject.address), subject.engine),
            last_look(state, now, false),
        ];
        lines.extend(wrapped(&watched, width, 2));
        lines
    } else {
        let place = format!("{} at {}", subject.context, one_line(&subject.address));
        vec![place, last_look(state, now, true), in_short(&state.seen)]
    };
    let mut lines: Vec<Line<'_>> = lines.iter().map(|line| Line::raw(cut(line, width))).collect();
    lines[0].style = Style::new().bold();
    Text::from(lines)
}

fn last_look(state: &State, now: Instant, short: bool) -> String {
    let Some(picture) = &state.picture else { return "not seen yet".to_owned() };
    let age = now.saturating_duration_since(picture.began);
    // On time is not worth a word.
    let old = age >= state.subject.every + Duration::from_secs(2);
    let ago = if old { format!(" ({} ago)", seconds(age)) } else { String::new() };
    let took = took(picture.took);
    if short {
        return format!("{}{ago}, took {took}", clock(picture.at));
    }
    let (leases, waiting) = (picture.table.holdings.len() as u64, picture.table.waiters.len());
    let leases = counted(leases, "lease", "leases");
    format!("last look {}{ago}, took {took}: {leases}, {waiting} waiting", clock(picture.at))
}

fn so_far(seen: &Seen, watched: Duration) -> String {
    let rate = |count: u64| per_minute(count, watched).map_or_else(String::new, |rate| format!(" ({rate:.1}/min)"));
    format!(
        "grants seen {}{}, holders changed {}{}, longest wait seen {}",
        seen.grants,
        rate(seen.grants),
        seen.holders_changed,
        rate(seen.holders_changed),
        span(seen.longest_wait)
    )
}

fn in_short(seen: &Seen) -> String {
    format!("grants {}, changes {}, wait {}", seen.grants, seen.holders_changed, span(seen.longest_wait))
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// A time of day; the day is the reader's own business.
fn clock(moment: SystemTime) -> String {
    let at = jiff::Timestamp::try_from(moment);
    at.map_or_else(|_| String::new(), |at| at.strftime("%H:%M:%SZ").to_string())
}

/// For what changes while it is read: a digit that jumps about says nothing.
fn seconds(duration: Duration) -> String {
    exact(Duration::from_secs(duration.as_secs_f64().round() as u64))
}

/// As its user wrote it.
fn exact(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// A look at a store on this machine takes less than a millisecond.
fn took(duration: Duration) -> String {
    if duration < Duration::from_secs(1) { format!("{:.1}ms", duration.as_secs_f64() * 1e3) } else { span(duration) }
}

// --- The list ------------------------------------------------------------------------------------------------------

/// A heading and its rows.
struct Section {
    heading: Line<'static>,
    rows: Vec<Line<'static>>,
}

fn sections(table: &LockTable, width: usize, theme: Theme) -> Vec<Section> {
    let section = |columns: &[Column], rows: &[Vec<String>]| {
        let (heading, rows) = columns::lines(columns, rows, width);
        (Line::styled(heading, theme.heading()), rows)
    };
    let leases: Vec<Vec<String>> = table.holdings.iter().map(|lease| lease_row(lease, table)).collect();
    let (heading, rows) = section(&LEASES, &leases);
    let lapsed = |lease: &Holding| if lease.remaining.is_zero() { theme.lapsed() } else { Style::new() };
    let rows = rows.into_iter().zip(&table.holdings).map(|(row, lease)| Line::styled(row, lapsed(lease)));
    let nobody = |text: &'static str| Section { heading: Line::raw(cut(text, width)), rows: Vec::new() };
    let mut sections = Vec::new();
    sections.push(if table.holdings.is_empty() {
        nobody("nobody holds a lock")
    } else {
        Section { heading, rows: rows.collect() }
    });
    if !table.waiters.is_empty() {
        let queue: Vec<Vec<String>> = table.waiters.iter().map(waiter_row).collect();
        let (heading, rows) = section(&QUEUE, &queue);
        sections.push(Section { heading, rows: rows.into_iter().map(Line::raw).collect() });
    }
    sections
}

fn lease_row(lease: &Holding, table: &LockTable) -> Vec<String> {
    vec![
        resources(&lease.claims),
        mode(&lease.claims),
        lease.holder.to_string(),
        format!("{}.{}", lease.token.0, lease.token.1),
        span(lease.held_for),
        if lease.remaining.is_zero() { "lapsed".to_owned() } else { span(lease.remaining) },
        waiting_for(lease, table).count().to_string(),
        lease.reason.clone().unwrap_or_default(),
        lease.lease.to_string().chars().take(12).collect(),
    ]
}

fn waiter_row(waiter: &Waiter) -> Vec<String> {
    vec![
        resources(&waiter.claims),
        mode(&waiter.claims),
        waiter.holder.to_string(),
        span(waiter.waited),
        waiter.reason.clone().unwrap_or_default(),
    ]
}

/// As many lines as there is room for. The first is always the heading of what follows it, however far down.
fn window(sections: &[Section], scroll: usize, height: usize) -> (Vec<Line<'static>>, Room) {
    let mut lines: Vec<(&Line<'static>, Line<'static>)> = Vec::new();
    for (index, section) in sections.iter().enumerate() {
        if index > 0 {
            lines.push((&section.heading, Line::default()));
        }
        lines.push((&section.heading, section.heading.clone()));
        lines.extend(section.rows.iter().map(|row| (&section.heading, row.clone())));
    }
    let room = Room { scroll_max: lines.len().saturating_sub(height), page: height.saturating_sub(1) };
    let scroll = scroll.min(room.scroll_max);
    let mut shown: Vec<Line<'static>> = lines.iter().skip(scroll).take(height).map(|(_, line)| line.clone()).collect();
    if let (Some(first), Some((heading, _))) = (shown.first_mut(), lines.get(scroll)) {
        *first = (*heading).clone();
    }
    (shown, room)
}

// --- The status line -----------------------------------------------------------------------------------------------

fn status(state: &State, now: Instant, width: usize, rows_max: usize, theme: Theme) -> Text<'static> {
    if let Some(missing) = state.without_answer(now) {
        let mut lines = vec![Line::styled(cut(&no_answer(state, missing, now), width), theme.trouble())];
        let told = state.trouble.as_ref().map_or("", |trouble| &trouble.text);
        lines.extend(wrapped(told, width, rows_max.saturating_sub(1)).into_iter().map(Line::raw));
        return Text::from(lines);
    }
    let rest = state.room.scroll_max;
    let keys = match (state.paused, rest > 0) {
        (true, _) => "PAUSED   p goes on   q quits".to_owned(),
        (false, true) => format!("q quit   ? help   p pause   up/down: line {} of {}", state.scroll + 1, rest + 1),
        (false, false) => "q quit   ? help   p pause".to_owned(),
    };
    let style = if state.paused { Style::new().reversed() } else { Style::new().dim() };
    Text::from(Line::styled(cut(&keys, width), style))
}

fn no_answer(state: &State, missing: Duration, now: Instant) -> String {
    let left = state.trouble.as_ref().map_or(Duration::ZERO, |trouble| trouble.next.saturating_duration_since(now));
    let (word, next) = match (state.paused, &state.trouble) {
        (true, _) => ("PAUSED, NO ANSWER", String::new()),
        (false, None) => ("NO ANSWER", " yet".to_owned()),
        (false, Some(_)) if left < Duration::from_millis(500) => ("NO ANSWER", ", looking again".to_owned()),
        (false, Some(_)) => ("NO ANSWER", format!(", next look in {}", seconds(left))),
    };
    let old = if state.picture.is_some() { "; what is shown is old" } else { "" };
    format!("{word} for {}{next}{old}", seconds(missing))
}

/// The text in lines between words, at most so many; the last one tells where there was more.
fn wrapped(text: &str, width: usize, lines_max: usize) -> Vec<String> {
    let text = one_line(text);
    let mut lines: Vec<String> = Vec::new();
    let mut words = text.split(' ').filter(|word| !word.is_empty()).peekable();
    while words.peek().is_some() && lines.len() < lines_max {
        let last = lines.len() + 1 == lines_max;
        let mut line = words.next().unwrap_or_default().to_owned();
        while let Some(word) = words.next_if(|word| last || measure(&line) + 1 + measure(word) <= width) {
            line.push(' ');
            line.push_str(word);
        }
        lines.push(cut(&line, width));
    }
    lines
}

fn help(width: usize) -> Text<'static> {
    let lines = KEYS.iter().map(|(keys, what)| Line::raw(cut(&format!("{keys:<16}{what}"), width)));
    lines.collect()
}

#[cfg(test)]
pub(super) mod tests;
