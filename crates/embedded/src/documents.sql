-- Every change of documents, in commit order. AUTOINCREMENT: a place in the feed is never used twice.
CREATE TABLE commits (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    context     TEXT NOT NULL,
    author      TEXT NOT NULL,
    message     TEXT,
    at          INTEGER NOT NULL,
    key         TEXT,
    fingerprint BLOB
);
CREATE INDEX commits_by_context ON commits (context, seq);
CREATE UNIQUE INDEX commits_by_key ON commits (context, key) WHERE key IS NOT NULL;

-- What each commit made of each document. No content: it was deleted.
CREATE TABLE revisions (
    context  TEXT NOT NULL,
    path     TEXT NOT NULL,
    revision INTEGER NOT NULL,
    seq      INTEGER NOT NULL REFERENCES commits (seq),
    kind     INTEGER NOT NULL,
    content  TEXT,
    PRIMARY KEY (context, path, revision)
) WITHOUT ROWID;
CREATE INDEX revisions_by_seq ON revisions (seq);

-- Where each document stands: its last revision, whether it lives, and the highest token that it has seen.
-- Revision 0: no write yet, but a lease has been here.
CREATE TABLE documents (
    context       TEXT NOT NULL,
    path          TEXT NOT NULL,
    revision      INTEGER NOT NULL,
    live          INTEGER NOT NULL,
    fence_epoch   INTEGER,
    fence_counter INTEGER,
    fence_owner   BLOB,
    PRIMARY KEY (context, path)
) WITHOUT ROWID;

-- The last epoch of fencing tokens that each context has given out.
CREATE TABLE epochs (
    context TEXT PRIMARY KEY,
    epoch   INTEGER NOT NULL
) WITHOUT ROWID;
