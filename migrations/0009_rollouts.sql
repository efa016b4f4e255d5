-- The turns under each label's gap: where an `execution.released` stands that names the label. Whoever
-- starts the server reads the last one of each, however long ago its command was over.
CREATE TABLE label_turns (
    label text NOT NULL,
    seq bigint NOT NULL REFERENCES entries,
    PRIMARY KEY (label, seq)
);

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON label_turns
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

GRANT SELECT, INSERT ON label_turns TO countersign_app;
