-- Which leases a request keeps while it waits (a JSON array), and which one it is to take the place of.
ALTER TABLE entries ADD COLUMN keeps TEXT NOT NULL DEFAULT '[]';
ALTER TABLE entries ADD COLUMN replaces BLOB;
