-- How far each sink of the feed has got. Not part of the log: a row that is lost or wrong makes a
-- receiver hear entries again or, if it was moved forward, miss some; it changes no entry.
CREATE TABLE feed_cursors (
    name text PRIMARY KEY CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,63}$'),
    -- The first entry that was not delivered.
    next bigint NOT NULL CHECK (next >= 0),
    -- The leaf of the entry before it, so that a cursor of another history is noticed.
    leaf bytea CHECK (octet_length(leaf) = 32),
    updated timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT, INSERT, UPDATE ON feed_cursors TO countersign_app;
