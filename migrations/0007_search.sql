-- Searching: the texts that people wrote or programs printed, as words in an index; and a role that
-- reads views and nothing else. Neither proves anything: answers are judged again from the log.

-- Extensions get a schema of their own: what they bring is no part of ours.
CREATE SCHEMA IF NOT EXISTS extensions;
CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA extensions;
SET LOCAL search_path = public, extensions;

-- The searchable text of a blob: of what would run its words, of anything else its beginning. What is
-- no UTF-8 stands as U+FFFD. Standard input and environments are not among them: they hold secrets.
CREATE TABLE blob_texts (
    digest bytea PRIMARY KEY REFERENCES blobs,
    text text NOT NULL,
    -- Only of what would run: the program's path and its last part, and the further words.
    program text NULL,
    program_name text NULL,
    args text[] NULL,
    -- Eight bytes of SHA-256 of each of the words: an index over words themselves has a longest word.
    arg_keys bigint[] NULL,
    CHECK ((program IS NULL) = (args IS NULL) AND (args IS NULL) = (arg_keys IS NULL))
);
CREATE INDEX blob_texts_text ON blob_texts USING gin (text gin_trgm_ops);
CREATE INDEX blob_texts_program ON blob_texts USING hash (program);
CREATE INDEX blob_texts_program_name ON blob_texts USING hash (program_name);
CREATE INDEX blob_texts_arg_keys ON blob_texts USING gin (arg_keys);

-- There is no text of a blob that was erased. The row of the blob is locked against erasing until this
-- transaction ends, so that whoever erases at the same moment finds the text and removes it.
CREATE FUNCTION keep_text() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM FROM public.blobs WHERE digest = NEW.digest AND content IS NOT NULL FOR SHARE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END
$$;
REVOKE EXECUTE ON FUNCTION keep_text() FROM PUBLIC;
CREATE TRIGGER keep_text BEFORE INSERT ON blob_texts
FOR EACH ROW EXECUTE FUNCTION keep_text();

-- What is erased is found no more, from the same moment on.
CREATE FUNCTION purge_text() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    DELETE FROM public.blob_texts WHERE digest = OLD.digest;
    RETURN NULL;
END
$$;
REVOKE EXECUTE ON FUNCTION purge_text() FROM PUBLIC;
CREATE TRIGGER purge_text AFTER UPDATE ON blobs
FOR EACH ROW WHEN (NEW.content IS NULL) EXECUTE FUNCTION purge_text();

GRANT SELECT, INSERT ON blob_texts TO countersign_app;

-- For people who ask in SQL. It signs in as nobody: grant it to the roles of those people.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'countersign_reader') THEN
        CREATE ROLE countersign_reader NOLOGIN;
    END IF;
EXCEPTION
    -- Roles belong to the cluster: another ledger on it has made this one, or makes it right now.
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;

-- The views stand on projections, which the server drops and builds anew, so that the server makes them.
CREATE SCHEMA audit;
GRANT USAGE, CREATE ON SCHEMA audit TO countersign_app;
GRANT USAGE ON SCHEMA audit TO countersign_reader;
