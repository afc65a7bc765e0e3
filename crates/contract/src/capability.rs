//! What an engine can do, declared in its type: the docs' table and the conformance suite are made from it.

/// How a waiter learns that it is its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// The engine pushes the grant.
    Pushed,
    /// The waiter asks again and again.
    Polled,
}

/// Who is served next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fairness {
    /// Whoever asked first.
    FirstComeFirstServed,
    /// Whoever asks at the right moment.
    Barging,
}

/// Whose clock decides that a lease has expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpiryClock {
    /// The lock server's.
    Server,
    /// The machine's monotonic clock, which all its processes share.
    Machine,
    /// The monotonic clock of its holder, and of whoever wants it: that one must have seen it unrenewed for its whole
    /// TTL. Nobody trusts another's clock.
    Observer,
}

/// How a dead holder is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadHolder {
    /// By its TTL alone.
    Ttl,
    /// By its presence, well before its TTL.
    Presence,
}

/// What a lock engine can do.
#[expect(clippy::struct_excessive_bools, reason = "each is a capability that the docs' table shows as yes or no")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockCapabilities {
    /// The engine's name, as in its URL.
    pub engine: &'static str,
    /// How a waiter learns that it is its turn.
    pub waiting: Waiting,
    /// Who is served next.
    pub fairness: Fairness,
    /// Whether shared leases stand together.
    pub shared_mode: bool,
    /// Whether a lease on a path covers all below it.
    pub subtrees: bool,
    /// Whether several resources are granted together, or none.
    pub several_resources: bool,
    /// Whether a cycle of waiters is found when it closes; without it, bounded waits resolve it.
    pub deadlock_detection: bool,
    /// Whether a lapsed lease that nobody has taken can be renewed under its old token.
    pub revival: bool,
    /// Whether a release makes the next in line the holder in the same step; else that one is told that it is its turn,
    /// and takes the lock by a step of its own.
    pub hands_over: bool,
    /// How a dead holder is found.
    pub dead_holder: DeadHolder,
    /// Whose clock decides expiry.
    pub expiry_clock: ExpiryClock,
    /// Where tokens come from.
    pub token_source: &'static str,
    /// What the engine's memory survives, and what follows where it does not.
    pub survives: &'static str,
}

impl LockCapabilities {
    /// Each property and what this engine has of it, in words: the columns and cells of the docs' table, of reports and
    /// of `mutext engines`.
    pub fn described(&self) -> Vec<(&'static str, String)> {
        let yes = |has: bool| if has { "yes" } else { "no" }.to_owned();
        let waiting = match self.waiting {
            Waiting::Pushed => "told when it is its turn",
            Waiting::Polled => "asks again and again",
        };
        let fairness = match self.fairness {
            Fairness::FirstComeFirstServed => "first come, first served",
            Fairness::Barging => "whoever asks at the right moment",
        };
        let dead = match self.dead_holder {
            DeadHolder::Ttl => "by its TTL",
            DeadHolder::Presence => "by its presence, before its TTL",
        };
        let clock = match self.expiry_clock {
            ExpiryClock::Server => "the server's",
            ExpiryClock::Machine => "the machine's monotonic one",
            ExpiryClock::Observer => "its holder's, and its challenger's, each for itself",
        };
        vec![
            ("a waiter", waiting.to_owned()),
            ("order", fairness.to_owned()),
            ("shared mode", yes(self.shared_mode)),
            ("subtrees", yes(self.subtrees)),
            ("several at once", yes(self.several_resources)),
            ("deadlocks found", yes(self.deadlock_detection)),
            ("lapsed lease revived", yes(self.revival)),
            (
                "the next is made holder",
                if self.hands_over { "by the release" } else { "by a step of its own" }.to_owned(),
            ),
            ("a dead holder is found", dead.to_owned()),
            ("clock of expiry", clock.to_owned()),
            ("tokens come from", self.token_source.to_owned()),
            ("its memory survives", self.survives.to_owned()),
        ]
    }
}

/// What a document engine can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreCapabilities {
    /// The engine's name, as in its URL.
    pub engine: &'static str,
    /// Whether several documents change together, or none.
    pub several_documents: bool,
    /// Whether commits are made one after the other, also those of different documents.
    pub serial_commits: bool,
    /// Whether the feed's waiters are pushed to, or poll.
    pub feed: Waiting,
    /// What an acknowledged commit survives.
    pub survives: &'static str,
}
