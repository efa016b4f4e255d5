-- Erasing what a redaction event names, and nothing else.
--
-- Offsets in an entry (docs/PROTOCOL.md, 2), 1-based as substring counts: 102 the namespace's length
-- (2) · 104 the namespace, of this kind 28 · 132 the payload's length (4) · 136 the payload.
-- The bytes below are that length and `blob.redacted.v1@countersign`, as a literal, so that the index
-- can be of them.

-- Redactions are few among many entries: without it the guard would read the whole log for each blob.
CREATE INDEX redactions ON entries (seq)
WHERE substring(entry FROM 102 FOR 30)
    = '\x001c626c6f622e72656461637465642e763140636f756e7465727369676e'::bytea;

-- As before; the newest redactions are looked at first, through the index.
CREATE OR REPLACE FUNCTION guard_blob() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF EXISTS (SELECT FROM blob_references WHERE digest = OLD.digest)
            OR OLD.stored_at > now() - interval '1 hour' THEN
            RAISE EXCEPTION 'countersign: DELETE on blobs refused, an entry names the blob or may yet'
                USING ERRCODE = 'insufficient_privilege';
        END IF;
        RETURN OLD;
    END IF;
    IF NEW.digest = OLD.digest AND NEW.stored_at = OLD.stored_at AND NEW.content IS NULL
        AND (
            SELECT true FROM entries
            WHERE substring(entry FROM 102 FOR 30)
                = '\x001c626c6f622e72656461637465642e763140636f756e7465727369676e'::bytea
                AND position(convert_to('"' || encode(OLD.digest, 'hex') || '"', 'UTF8') IN entry) > 0
            ORDER BY seq DESC LIMIT 1
        ) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'countersign: UPDATE on blobs refused, no redaction event names the blob'
        USING ERRCODE = 'insufficient_privilege';
END
$$;

-- Erases salt and content of what the entry at this place names, and says of how many blobs. Runs as
-- the owner, so that the server needs no UPDATE of its own; the guard looks at each blob besides.
CREATE FUNCTION erase_blobs(redaction bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    said bytea;
    length bigint;
    erased bigint;
BEGIN
    SELECT entries.entry INTO said FROM public.entries
    WHERE entries.seq = redaction AND substring(entries.entry FROM 102 FOR 30)
        = '\x001c626c6f622e72656461637465642e763140636f756e7465727369676e'::bytea;
    IF said IS NULL THEN
        RAISE EXCEPTION 'countersign: nothing is erased, entry % is no redaction', redaction
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    length := (get_byte(said, 131)::bigint << 24) + (get_byte(said, 132) << 16)
        + (get_byte(said, 133) << 8) + get_byte(said, 134);
    UPDATE public.blobs SET salt = NULL, content = NULL
    WHERE blobs.content IS NOT NULL AND blobs.digest IN (
        SELECT decode(named.digest, 'hex')
        FROM jsonb_array_elements_text(
            convert_from(substring(said FROM 136 FOR length::integer), 'UTF8')::jsonb -> 'digests'
        ) AS named(digest)
    );
    GET DIAGNOSTICS erased = ROW_COUNT;
    RETURN erased;
END
$$;
REVOKE EXECUTE ON FUNCTION erase_blobs(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION erase_blobs(bigint) TO countersign_app;
