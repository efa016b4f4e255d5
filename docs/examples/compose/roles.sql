-- The roles of a ledger, and its database. Run once as superuser; passwords come from the
-- environment, so that they stand in no argument and in no file of the repository. Needs psql 15 or
-- newer for \getenv.
\set ON_ERROR_STOP on
\getenv owner_password COUNTERSIGN_OWNER_PASSWORD
\getenv app_password COUNTERSIGN_APP_PASSWORD

-- Owns the tables and migrates; no running process holds it.
CREATE ROLE countersign_owner LOGIN PASSWORD :'owner_password';
-- What the server runs as: it may add to the log and owns nothing of it.
CREATE ROLE countersign_app LOGIN PASSWORD :'app_password';
-- Reads the views of docs/SQL.md and nothing else. Signs in as nobody: GRANT it to people's own roles.
CREATE ROLE countersign_reader NOLOGIN;

CREATE DATABASE countersign OWNER countersign_owner ENCODING 'UTF8' TEMPLATE template0;
REVOKE ALL ON DATABASE countersign FROM PUBLIC;
-- TEMPORARY: `countersign verify --database` builds the lists a second time to compare them.
GRANT CONNECT, TEMPORARY ON DATABASE countersign TO countersign_app;
GRANT CONNECT ON DATABASE countersign TO countersign_reader;
