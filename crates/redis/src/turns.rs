//! Acquires and releases on their way to the server: those of one moment go in one step.
//!
//! While few are under way each goes by itself, at once. Where many are, whatever is asked while the runtime is busy
//! with others goes with them as one script call: nobody waits for company, and under load the cost of a call, of its
//! answer and of waking the connection is paid once for many. All turns of a call belong to one context, whose keys
//! lie together.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use mutext_contract::{Claim, ContextName, Deadline, LeaseId};
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::sync::Notify;

use crate::keys::Keys;
use crate::link::{Live, lock};
use crate::records::{letter, path_of};
use crate::scripts;

/// How many go in one call: none holds the server up for long, and it works on one while the next is written.
const AT_ONCE: usize = 32;
/// So many are under way before any share a call: below, one's own call is the quicker one.
const BY_THEMSELVES: usize = 4;

/// One attempt to acquire, or the end of one.
#[derive(Clone)]
pub(crate) struct Turn {
    pub(crate) context: ContextName,
    pub(crate) id: LeaseId,
    pub(crate) wish: Wish,
    /// Where it is about one claim that the script may serve by its short way: that claim.
    pub(crate) claim: Option<Arc<[Claim]>>,
    /// Of an attempt its process and what it is about; of an end what is to be remembered of it.
    pub(crate) text: Arc<str>,
    /// Whether what is remembered of its end is read or written.
    pub(crate) ended: bool,
}

/// What a turn is to do.
#[derive(Clone, Copy)]
pub(crate) enum Wish {
    /// Acquire: in milliseconds how long the lease lasts, and how long it may queue.
    Acquire { ttl: u128, wait: u128 },
    /// Release or revoke, and whether the holder is told.
    Release { told: bool },
}

impl Turn {
    /// The path and the mode that the short way is about.
    fn path(&self) -> Option<(&str, char)> {
        let [claim] = self.claim.as_deref()? else { return None };
        // Whoever wants the whole context has everything to look at.
        let path = Some(path_of(&claim.resource)).filter(|path| !path.is_empty())?;
        Some((path, letter(claim.mode)))
    }
}

/// What the server answered to one turn.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    /// The epoch of a grant by the short way.
    pub(crate) epoch: Option<u64>,
    pub(crate) value: Value,
}

impl Reply {
    /// The answer of `turn_alone.lua`.
    fn alone(value: Value) -> Result<Self, RedisError> {
        let Value::BulkString(text) = &value else { return Ok(Self { epoch: None, value }) };
        let space = text.iter().position(|byte| *byte == b' ').ok_or_else(unreadable)?;
        let (epoch, count) = (number(&text[..space]), number(&text[space + 1..]).ok_or_else(unreadable)?);
        Ok(Self { epoch, value: Value::Int(i64::try_from(count).map_err(|_| unreadable())?) })
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Where the answer to a turn that went with others arrives.
#[derive(Default)]
pub(crate) struct Slot {
    state: Mutex<State>,
    told: Notify,
}

#[derive(Default)]
enum State {
    #[default]
    Open,
    Answered(Result<Reply, RedisError>),
    Taken,
}

impl Slot {
    /// The first answer counts.
    fn settle(&self, answer: Result<Reply, RedisError>) {
        let mut state = lock(&self.state);
        if matches!(*state, State::Open) {
            *state = State::Answered(answer);
            self.told.notify_one();
        }
    }

    async fn answer(&self) -> Result<Reply, RedisError> {
        loop {
            {
                let mut state = lock(&self.state);
                if !matches!(*state, State::Open) {
                    return match std::mem::replace(&mut *state, State::Taken) {
                        State::Answered(answer) => answer,
                        // Nobody asks twice.
                        State::Open | State::Taken => Err(broken("an answer was taken already")),
                    };
                }
            }
            self.told.notified().await;
        }
    }

    /// Waits until there is an answer, whoever takes it. Not to be called while somebody waits for that answer.
    pub(crate) async fn settled(&self) {
        while matches!(*lock(&self.state), State::Open) {
            self.told.notified().await;
        }
    }
}

/// What became of a turn is not known, as with a connection that broke.
fn broken(what: &'static str) -> RedisError {
    RedisError::from((ErrorKind::Io, what))
}

/// Turns that are under way on a connection.
#[derive(Default)]
pub(crate) struct Turns(Mutex<Pending>);

#[derive(Default)]
struct Pending {
    /// Not yet sent, the oldest first.
    queue: Vec<Waiting>,
    /// Calls that were begun and will take turns from the queue.
    calls: usize,
    /// Asked and not answered, in the queue or not.
    asking: usize,
}

struct Waiting {
    turn: Turn,
    slot: Arc<Slot>,
    until: Deadline,
}

/// A turn that was asked for: [`Asked::answer`] sends it where it goes by itself.
pub(crate) enum Asked {
    /// It goes by itself: dropped, it may have been sent or not, and whatever follows on the connection comes after it.
    Alone(Turn, Place),
    /// It goes with others, and does so also where nobody waits for it any more.
    Together(Arc<Slot>),
}

/// One that goes by itself, as long as this stands.
pub(crate) struct Place(Arc<Live>);

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.0.turns.0).asking -= 1;
    }
}

impl Asked {
    /// Where the answer will arrive, whoever waits for it.
    pub(crate) fn slot(&self) -> Option<Arc<Slot>> {
        match self {
            Self::Alone(..) => None,
            Self::Together(slot) => Some(Arc::clone(slot)),
        }
    }

    /// The answer. Dropping this takes nothing back.
    pub(crate) async fn answer(self) -> Result<Reply, RedisError> {
        match self {
            Self::Alone(turn, place) => send(&place.0, &[&turn]).await?.into_iter().next().ok_or_else(unreadable),
            Self::Together(slot) => slot.answer().await,
        }
    }
}

impl Live {
    /// Asks for a turn, which whoever asks waits for until `until` at most.
    pub(crate) fn ask(self: &Arc<Self>, turn: Turn, until: Deadline) -> Asked {
        let mut pending = lock(&self.turns.0);
        pending.asking += 1;
        if pending.asking <= BY_THEMSELVES && pending.queue.is_empty() {
            return Asked::Alone(turn, Place(Arc::clone(self)));
        }
        let slot = Arc::new(Slot::default());
        if pending.queue.len() >= pending.calls * AT_ONCE {
            pending.calls += 1;
            Call::begin(self);
        }
        pending.queue.push(Waiting { turn, slot: Arc::clone(&slot), until });
        Asked::Together(slot)
    }
}

/// Turns that go in one call; whatever becomes of it, each of them is answered.
struct Call {
    live: Arc<Live>,
    together: Vec<Waiting>,
    /// Whether turns were taken from the queue for it.
    is_full: bool,
}

impl Call {
    fn begin(live: &Arc<Live>) {
        let call = Self { live: Arc::clone(live), together: Vec::new(), is_full: false };
        tokio::spawn(call.make());
    }

    /// Takes turns of one context from the queue.
    fn fill(&mut self) {
        self.is_full = true;
        let mut pending = lock(&self.live.turns.0);
        let pending = &mut *pending;
        pending.calls -= 1;
        let Some(context) = pending.queue.first().map(|waiting| waiting.turn.context.clone()) else { return };
        if pending.queue.len() <= AT_ONCE && pending.queue.iter().all(|waiting| waiting.turn.context == context) {
            self.together = std::mem::take(&mut pending.queue);
            return;
        }
        let fits = pending.queue.extract_if(.., |waiting| waiting.turn.context == context);
        self.together = fits.take(AT_ONCE).collect();
        if !pending.queue.is_empty() && pending.calls == 0 {
            pending.calls = 1;
            Self::begin(&self.live);
        }
    }

    async fn make(mut self) {
        // Whatever else can run now may have something to ask.
        tokio::task::yield_now().await;
        self.fill();
        let Some(until) = self.together.iter().map(|waiting| waiting.until).max() else { return };
        let turns: Vec<&Turn> = self.together.iter().map(|waiting| &waiting.turn).collect();
        match self.send(&turns, until).await {
            Ok(replies) => {
                self.together.iter().zip(replies).for_each(|(waiting, reply)| waiting.slot.settle(Ok(reply)));
            }
            // One of them met something that the script cannot read: the others must not suffer. Whatever came to pass
            // before that is found again by its id.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::ResponseError) && turns.len() > 1 => {
                for waiting in &self.together {
                    let reply = self.send(&[&waiting.turn], until).await;
                    waiting.slot.settle(reply.and_then(|replies| replies.into_iter().next().ok_or_else(unreadable)));
                }
            }
            Err(error) => self.together.iter().for_each(|waiting| waiting.slot.settle(Err(error.clone()))),
        }
    }

    async fn send(&self, turns: &[&Turn], until: Deadline) -> Result<Vec<Reply>, RedisError> {
        let sent = tokio::time::timeout_at(until.instant(), send(&self.live, turns)).await;
        sent.unwrap_or_else(|_| Err(broken("nothing was answered in time")))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.is_full {
            // Its runtime ends: nobody else would take them.
            let mut pending = lock(&self.live.turns.0);
            pending.calls -= 1;
            self.together = std::mem::take(&mut pending.queue);
        }
        for waiting in &self.together {
            waiting.slot.settle(Err(broken("the runtime that asked has ended")));
        }
        lock(&self.live.turns.0).asking -= self.together.len();
    }
}

/// Makes one call of turns of one context; one reply for each of them.
async fn send(live: &Live, turns: &[&Turn]) -> Result<Vec<Reply>, RedisError> {
    let sheet = Sheet::of(turns);
    let value = live.known_or_not(|by_hash| sheet.command(by_hash, &live.run, &live.keys)).await?;
    let values = match value {
        Value::Array(values) => values,
        alone => return Ok(vec![Reply::alone(alone)?]),
    };
    let mut values = values.into_iter();
    let epoch = match values.next() {
        Some(Value::BulkString(text)) => number(&text),
        _ => None,
    };
    if values.len() != turns.len() {
        return Err(unreadable());
    }
    let mut replies: Vec<(usize, Value)> = sheet.order().zip(values).collect();
    replies.sort_unstable_by_key(|(at, _)| *at);
    Ok(replies.into_iter().map(|(_, value)| Reply { epoch, value }).collect())
}

fn unreadable() -> RedisError {
    RedisError::from((ErrorKind::UnexpectedReturnType, "it answered what no script of Mutext answers"))
}

/// Turns in the order in which the script wants them: those that have much in common stand together.
struct Sheet<'a> {
    lines: Vec<Line<'a>>,
    /// The folders that paths lie in; the first has the number 1.
    folders: Vec<&'a str>,
}

struct Line<'a> {
    /// What it has in common with others, and what comes first.
    group: Group,
    /// Where it stood.
    at: usize,
    turn: &'a Turn,
    path: &'a str,
}

/// As the head of a group says it; ends come before attempts, which may want what becomes free.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    kind: Kind,
    mode: char,
    folder: usize,
    time: u128,
    wait: u128,
}

/// What the script does with a turn: by the short way where it can, or by the long way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Release,
    End,
    Acquire,
    Look,
}

impl Kind {
    const fn letter(self) -> char {
        match self {
            Self::Release => 'R',
            Self::End => 'E',
            Self::Acquire => 'A',
            Self::Look => 'L',
        }
    }
}

impl<'a> Sheet<'a> {
    fn of(turns: &[&'a Turn]) -> Self {
        let mut sheet = Self { lines: Vec::with_capacity(turns.len()), folders: Vec::new() };
        for (at, turn) in turns.iter().enumerate() {
            let (path, mode) = turn.path().filter(|_| !turn.ended).unwrap_or(("", '-'));
            let (kind, time, wait) = match turn.wish {
                Wish::Acquire { ttl, wait } => (if mode == '-' { Kind::Look } else { Kind::Acquire }, ttl, wait),
                Wish::Release { told } => {
                    let is_long = mode == '-' || told;
                    (if is_long { Kind::End } else { Kind::Release }, u128::from(told), 0)
                }
            };
            let folder = path.rsplit_once('/').map_or(0, |(folder, _)| sheet.folder(folder));
            sheet.lines.push(Line { group: Group { kind, mode, folder, time, wait }, at, turn, path });
        }
        sheet.lines.sort_by_key(|line| line.group);
        sheet
    }

    /// The number of a folder.
    fn folder(&mut self, folder: &'a str) -> usize {
        let known = self.folders.iter().rposition(|known| *known == folder);
        known.unwrap_or_else(|| {
            self.folders.push(folder);
            self.folders.len() - 1
        }) + 1
    }

    /// Where the turns stood, in the order of the answers.
    fn order(&self) -> impl Iterator<Item = usize> {
        self.lines.iter().map(|line| line.at)
    }

    /// The call, as `turns_first.lua` reads it.
    fn command(&self, by_hash: bool, run: &str, keys: &Keys) -> Cmd {
        let Some(context) = self.lines.first().map(|line| &line.turn.context) else { return Cmd::new() };
        let mut names = vec![keys.table(context), keys.queue(context)];
        let ended = self.lines.iter().filter(|line| line.turn.ended);
        names.extend(ended.map(|line| keys.ended(context, line.turn.id)));
        let depths = self.folders.iter().map(|folder| folder.matches('/').count() + 1);
        let words = 2 + depths.map(|depth| 2 * depth + 1).sum::<usize>() + 4 * self.lines.len();
        let texts = self.lines.iter().map(|line| line.turn.text.len() + line.path.len() + 96).sum::<usize>();
        let bytes = texts + names.iter().map(String::len).sum::<usize>() + 32 * words;
        let mut command = scripts::TURNS.start(by_hash, &names, words, bytes);
        command.arg(run);
        let mut word = String::with_capacity(128);
        let mut write = |command: &mut Cmd, text: std::fmt::Arguments<'_>| {
            word.clear();
            // Writing to a string cannot fail.
            let _ = word.write_fmt(text);
            command.arg(word.as_str());
        };
        write(&mut command, format_args!("{}", self.folders.len()));
        for folder in &self.folders {
            let ends = folder.match_indices('/').map(|(at, _)| at).chain([folder.len()]);
            write(&mut command, format_args!("{}", 2 * ends.clone().count()));
            for end in ends {
                write(&mut command, format_args!("h/{}", &folder[..end]));
                write(&mut command, format_args!("b/{}", &folder[..end]));
            }
        }
        // Of KEYS the first two are the table and the queue.
        let mut key = 2;
        for lines in self.lines.chunk_by(|one, other| one.group == other.group) {
            let Some(Group { kind, mode, folder, time, wait }) = lines.first().map(|line| line.group) else { continue };
            let count = lines.len();
            write(&mut command, format_args!("{}{mode} {folder} {time} {wait} {count}", kind.letter()));
            for Line { turn, path, .. } in lines {
                write(&mut command, format_args!("{}", turn.id));
                if kind != Kind::Release {
                    command.arg(&*turn.text);
                }
                if matches!(kind, Kind::Acquire | Kind::Release) {
                    command.arg(*path);
                } else {
                    key += usize::from(turn.ended);
                    command.arg(if turn.ended { key } else { 0 });
                }
            }
        }
        command
    }
}
