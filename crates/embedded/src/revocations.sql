-- Leases that operators broke: their tokens are not admitted any more. Kept for good: they are the audit, too.
-- No holder, and no claims: the lock service could not tell. The number says which came first.
CREATE TABLE revocations (
    context TEXT NOT NULL,
    lease   BLOB NOT NULL,
    number  INTEGER NOT NULL,
    holder  TEXT,
    claims  TEXT NOT NULL,
    author  TEXT NOT NULL,
    reason  TEXT NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (context, lease)
) WITHOUT ROWID;
CREATE UNIQUE INDEX revocations_by_number ON revocations (context, number);
