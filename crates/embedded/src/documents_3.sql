-- When a document is gone by itself (milliseconds since 1970; null: never), and whether a revision replaced what was
-- there without a precondition.
ALTER TABLE documents ADD COLUMN expires INTEGER;
ALTER TABLE revisions ADD COLUMN overwrote INTEGER NOT NULL DEFAULT 0;
-- The revision at which the document stood when the highest token last read or wrote it: what comes under a lease is for
-- this one.
ALTER TABLE documents ADD COLUMN fence_revision INTEGER;
CREATE INDEX documents_by_expiry ON documents (context, expires) WHERE expires IS NOT NULL;

-- Up to which commit revisions of a context have been forgotten, and up to which its documents are indexed.
CREATE TABLE contexts (
    name    TEXT PRIMARY KEY,
    oldest  INTEGER NOT NULL DEFAULT 0,
    indexed INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- The index of words: one row for each document that was there when it was last looked at. Searches keep it, not
-- commits.
CREATE TABLE pages (
    id       INTEGER PRIMARY KEY,
    context  TEXT NOT NULL,
    path     TEXT NOT NULL,
    revision INTEGER NOT NULL,
    UNIQUE (context, path)
);
CREATE VIRTUAL TABLE words USING fts5 (text, tokenize = 'unicode61 remove_diacritics 2');
-- What is deleted is overwritten in the index, too.
INSERT INTO words (words, rank) VALUES ('secure-delete', 1);
