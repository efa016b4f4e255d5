-- The role that the server runs as. It owns nothing of the log; see README.md in this folder.
-- The role that migrates (countersign_owner) exists already: it runs this.
DO $$
BEGIN
    -- Asked first: without a role to make, the owner needs no right to make roles.
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'countersign_app') THEN
        CREATE ROLE countersign_app LOGIN;
    END IF;
EXCEPTION
    -- Roles belong to the cluster: another ledger on it has made this one, or makes it right now.
    WHEN duplicate_object OR unique_violation THEN NULL;
END
$$;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO countersign_app;
