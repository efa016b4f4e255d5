-- What is inserted links on: every new entry says its own number, links to the leaf before it, and
-- is not earlier. One set-based check for a whole INSERT, so that a batch costs one pass.
--
-- Offsets in an entry (docs/PROTOCOL.md, 2), 1-based as substring counts:
-- 1 "countersign/entry/v1\n" (21) · 22 seq (8) · 30 time_us (8) · 38 prev (32)

CREATE FUNCTION check_links() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    first bigint;
    before entries%ROWTYPE;
    bad bigint;
BEGIN
    -- By itself, so that no plan of a day when the log was short reads the whole of it later.
    SELECT min(new_rows.seq) INTO first FROM new_rows;
    SELECT entries.* INTO before FROM entries WHERE entries.seq = first - 1;
    SELECT min(linked.seq) INTO bad
    FROM (
        SELECT
            new_rows.seq,
            new_rows.entry,
            lag(new_rows.seq, 1, before.seq) OVER by_seq AS seq_before,
            lag(new_rows.leaf, 1, before.leaf) OVER by_seq AS leaf_before,
            lag(new_rows.entry, 1, before.entry) OVER by_seq AS entry_before
        FROM new_rows
        WINDOW by_seq AS (ORDER BY new_rows.seq)
    ) AS linked
    WHERE (
        substring(linked.entry FROM 1 FOR 21) = convert_to(E'countersign/entry/v1\n', 'UTF8')
        AND substring(linked.entry FROM 22 FOR 8) = int8send(linked.seq)
        AND CASE
            WHEN linked.seq = 0 THEN
                substring(linked.entry FROM 38 FOR 32) = decode(repeat('00', 32), 'hex')
            ELSE
                linked.seq_before = linked.seq - 1
                AND substring(linked.entry FROM 38 FOR 32) = linked.leaf_before
                -- Big-endian times compare as bytes.
                AND substring(linked.entry FROM 30 FOR 8)
                    >= substring(linked.entry_before FROM 30 FOR 8)
        END
    ) IS NOT TRUE;
    IF bad IS NOT NULL THEN
        RAISE EXCEPTION 'countersign: entry % does not link to the one before it', bad
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER linking AFTER INSERT ON entries
REFERENCING NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION check_links();
