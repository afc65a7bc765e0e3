-- The lock table of one boot. Leases of other boots are gone with their processes.
CREATE TABLE contexts (
    name    TEXT PRIMARY KEY,
    epoch   INTEGER NOT NULL,
    counter INTEGER NOT NULL
) WITHOUT ROWID;

-- A request that waits (counter is null) or a lease that stands. AUTOINCREMENT: places are never used twice.
CREATE TABLE entries (
    place   INTEGER PRIMARY KEY AUTOINCREMENT,
    id      BLOB NOT NULL UNIQUE,
    context TEXT NOT NULL,
    agent   TEXT NOT NULL,
    holder  BLOB NOT NULL,
    claims  TEXT NOT NULL,
    ttl     INTEGER NOT NULL,
    reason  TEXT,
    home    TEXT NOT NULL,
    since   INTEGER NOT NULL,
    until   INTEGER NOT NULL,
    counter INTEGER
);
CREATE INDEX entries_by_context ON entries (context, place);
CREATE INDEX entries_by_home ON entries (home);

-- Why an operator broke a lease, for its holder to read.
CREATE TABLE revocations (
    id     BLOB PRIMARY KEY,
    agent  TEXT NOT NULL,
    reason TEXT NOT NULL,
    at     INTEGER NOT NULL
) WITHOUT ROWID;
