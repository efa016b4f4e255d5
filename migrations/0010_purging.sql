-- Blobs that no entry names are looked for among those that came since the last look, and taken out in
-- portions: before, each look read all blobs there are.
--
-- Building the index reads `blobs` once.

-- By ranges of pages, some 50 bytes for each MiB, since blobs lie in the order in which they came. New
-- ranges are summed up as they fill, for pages that are in no sum are read each time.
CREATE INDEX blobs_by_age ON blobs USING brin (stored_at) WITH (autosummarize = on);

-- How far they were looked through. A database whose clock is set back stores some behind this: they
-- stay, and are waste.
CREATE TABLE blob_purge (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    looked_until timestamptz NOT NULL
);
INSERT INTO blob_purge (looked_until) VALUES ('-infinity');

-- As before, but for two things: what was looked at is not looked at again, and at most 10,000 go at
-- once, so that no transaction lasts for minutes. While it removes some there may be more. One server
-- does it; another that asks meanwhile removes nothing.
CREATE OR REPLACE FUNCTION purge_unreferenced_blobs() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET enable_seqscan = off
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    portion CONSTANT bigint := 10000;
    since timestamptz;
    until timestamptz := now() - interval '1 hour';
    found bigint;
    removed bigint;
BEGIN
    SELECT looked_until INTO since FROM public.blob_purge FOR UPDATE SKIP LOCKED;
    IF since IS NULL OR since >= until THEN
        RETURN 0;
    END IF;
    WITH came AS MATERIALIZED (
        SELECT blobs.digest FROM public.blobs
        WHERE blobs.stored_at >= since AND blobs.stored_at < until
    ), waste AS MATERIALIZED (
        SELECT came.digest FROM came
        WHERE NOT EXISTS (
            SELECT FROM public.blob_references WHERE blob_references.digest = came.digest)
        LIMIT portion
    ), purged AS (
        DELETE FROM public.blobs USING waste
        -- Asked again of the row as it is now: it may have been sent again since it was found.
        WHERE blobs.digest = waste.digest AND blobs.stored_at < until
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM waste), (SELECT count(*) FROM purged) INTO found, removed;
    IF found < portion THEN
        UPDATE public.blob_purge SET looked_until = until;
    END IF;
    RETURN removed;
END
$$;

-- What is sent again is young again: it may have come first over an hour ago with a statement that was
-- refused, and would be purged before the one that brings it now is entered. What is younger than half
-- the hour has the other half, and what an entry names is never purged.
CREATE FUNCTION renew_blobs(sent bytea[]) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET enable_seqscan = off
SET search_path = pg_catalog, public, pg_temp AS $$
    UPDATE public.blobs SET stored_at = now()
    WHERE blobs.digest = ANY (sent) AND blobs.stored_at < now() - interval '30 minutes'
        AND NOT EXISTS (
            SELECT FROM public.blob_references WHERE blob_references.digest = blobs.digest)
$$;
REVOKE EXECUTE ON FUNCTION renew_blobs(bytea[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION renew_blobs(bytea[]) TO countersign_app;

-- As before, and a blob may become young; its bytes stay.
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
    IF NEW.digest = OLD.digest AND NEW.salt = OLD.salt AND NEW.content = OLD.content
        AND NEW.stored_at = now() THEN
        RETURN NEW;
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
