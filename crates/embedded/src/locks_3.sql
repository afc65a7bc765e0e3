-- How many tokens after its own a request would like for its lease, and once it is granted how many it has.
ALTER TABLE entries ADD COLUMN spare INTEGER NOT NULL DEFAULT 0;
