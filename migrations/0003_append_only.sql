-- The log only grows. These guards slow an attacker and stop a mistake; what detects a change are
-- the hashes, signatures and checkpoints. A table's owner can disable triggers: the server is not
-- the owner.
--
-- Every function names its search path, with pg_temp last: else a session that makes a table or an
-- operator of its own under one of our names would have the guards read that one.

CREATE FUNCTION refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'countersign: % on % refused, the log only grows', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$$;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'entries', 'checkpoints', 'blob_references', 'statements', 'client_refs',
        'agent_statements', 'subtrees'
    ] LOOP
        -- TRUNCATE fires neither UPDATE nor DELETE triggers: it needs to be named.
        EXECUTE format(
            'CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %I
             FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', name);
    END LOOP;
END
$$;

CREATE TRIGGER head_stays BEFORE DELETE OR TRUNCATE ON head
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TRIGGER blobs_are_not_truncated BEFORE TRUNCATE ON blobs
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- A blob that an entry names is never deleted, and its bytes never change. Erasing (both columns to
-- null) is allowed by the guard only once an entry of kind blob.redacted names the digest.
CREATE FUNCTION guard_blob() RETURNS trigger
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
        AND EXISTS (
            SELECT FROM entries
            -- The namespace stands at 104, after its length: an entry that only mentions it is none.
            WHERE substring(entry FROM 102 FOR 30)
                = int2send(28::int2) || convert_to('blob.redacted.v1@countersign', 'UTF8')
                AND position(convert_to(encode(OLD.digest, 'hex'), 'UTF8') IN entry) > 0
        ) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'countersign: UPDATE on blobs refused, no redaction event names the blob'
        USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE TRIGGER guard_blob BEFORE UPDATE OR DELETE ON blobs
FOR EACH ROW EXECUTE FUNCTION guard_blob();

-- Blobs are stored before the statement that names them is decided. What no entry named within an
-- hour is waste. Runs as the owner, so that the server needs no DELETE of its own.
CREATE FUNCTION purge_unreferenced_blobs() RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    WITH purged AS (
        DELETE FROM public.blobs
        WHERE stored_at < now() - interval '1 hour'
            AND NOT EXISTS (
                SELECT FROM public.blob_references WHERE blob_references.digest = blobs.digest)
        RETURNING 1
    )
    SELECT count(*) FROM purged
$$;
REVOKE EXECUTE ON FUNCTION purge_unreferenced_blobs() FROM PUBLIC;
