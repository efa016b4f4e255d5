-- What the server may do: add to the log, move the head, keep its projections. Nothing else.
GRANT SELECT, INSERT ON
    entries, checkpoints, blobs, blob_references, statements, client_refs, agent_statements, subtrees
TO countersign_app;
GRANT SELECT, INSERT, DELETE ON open_streams TO countersign_app;
GRANT SELECT, UPDATE ON head TO countersign_app;
GRANT EXECUTE ON FUNCTION purge_unreferenced_blobs() TO countersign_app;
GRANT USAGE, CREATE ON SCHEMA projections TO countersign_app;
-- `serve` reads which migrations were run and refuses a schema that is not its own.
GRANT SELECT ON _sqlx_migrations TO countersign_app;
