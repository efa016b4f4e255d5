-- The log and its indexes. `entries.entry` is the truth; every other column and table is derived
-- from it and recomputed by `countersign verify`.

-- One row for each entry. No sequence gives out `seq`: sequences commit out of order, and a reader
-- that polls for "greater than the last" would lose entries. The writer takes it under the head lock.
CREATE TABLE entries (
    seq bigint PRIMARY KEY CHECK (seq >= 0),
    entry bytea NOT NULL CHECK (octet_length(entry) <= 32768),
    -- Chain link and Merkle leaf at once: SHA-256(0x00 || entry).
    leaf bytea NOT NULL GENERATED ALWAYS AS (sha256('\x00'::bytea || entry)) STORED
);
-- Entries hold signatures and digests: nothing that compression could shorten.
ALTER TABLE entries ALTER COLUMN entry SET STORAGE EXTERNAL;

-- The signed note of each batch.
CREATE TABLE checkpoints (
    size bigint PRIMARY KEY CHECK (size > 0),
    note text NOT NULL
);

-- Content that may have to be erased one day. Both null: redacted.
CREATE TABLE blobs (
    digest bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
    salt bytea NULL CHECK (octet_length(salt) = 32),
    content bytea NULL CHECK (octet_length(content) <= 4194304),
    stored_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((salt IS NULL) = (content IS NULL))
);

-- Which entries name a blob.
CREATE TABLE blob_references (
    digest bytea NOT NULL REFERENCES blobs,
    seq bigint NOT NULL REFERENCES entries,
    PRIMARY KEY (digest, seq)
);

-- Where a statement stands, and the stream it belongs to: a command's id, zeros for rights.
CREATE TABLE statements (
    statement_id bytea PRIMARY KEY CHECK (octet_length(statement_id) = 32),
    seq bigint NOT NULL UNIQUE REFERENCES entries,
    stream bytea NULL CHECK (octet_length(stream) = 32)
);
CREATE INDEX statements_by_stream ON statements (stream, seq);

-- A caller's own ids: unique for ever, per principal.
CREATE TABLE client_refs (
    principal text NOT NULL,
    client_ref bytea NOT NULL CHECK (octet_length(client_ref) = 32),
    statement_id bytea NOT NULL REFERENCES statements,
    PRIMARY KEY (principal, client_ref)
);

-- Each agent's own chain of statements; a new key begins a new chain.
CREATE TABLE agent_statements (
    key_id bytea NOT NULL CHECK (octet_length(key_id) = 32),
    agent_seq bigint NOT NULL CHECK (agent_seq >= 0),
    statement_id bytea NOT NULL REFERENCES statements,
    PRIMARY KEY (key_id, agent_seq)
);

-- Commands whose end is not settled: what a starting server reads back.
CREATE TABLE open_streams (
    stream bytea PRIMARY KEY CHECK (octet_length(stream) = 32)
);

-- Roots of perfect subtrees of height 8, 16, 24 …; lower ones are computed from 256 leaves.
CREATE TABLE subtrees (
    level smallint NOT NULL CHECK (level > 0 AND level % 8 = 0),
    index bigint NOT NULL CHECK (index >= 0),
    root bytea NOT NULL CHECK (octet_length(root) = 32),
    PRIMARY KEY (level, index)
);

-- The one row that writers lock: all they need to append.
CREATE TABLE head (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    size bigint NOT NULL CHECK (size >= 0),
    last_leaf bytea NOT NULL CHECK (octet_length(last_leaf) = 32),
    last_time_us bigint NOT NULL CHECK (last_time_us >= 0),
    -- Roots of the perfect subtrees along the right edge, largest first.
    right_edge bytea[] NOT NULL,
    -- The newest checkpoint; empty before genesis.
    note text NOT NULL
);
INSERT INTO head (size, last_leaf, last_time_us, right_edge, note)
VALUES (0, decode(repeat('00', 32), 'hex'), 0, '{}', '');

-- What queries read; dropped and rebuilt at will.
CREATE SCHEMA projections;
