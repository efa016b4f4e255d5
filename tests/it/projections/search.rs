//! What is found in the lists: the same as the log says, with every value a parameter, and nothing of what
//! was erased; and what the role for SQL may read.

use countersign::projections::FoundPage;
use countersign_protocol::api::Page;
use countersign_protocol::hash::StatementId;
use countersign_protocol::search::{Pattern, Query, Ran, SearchHit, Term};
use serde_json::json;
use sqlx::Row as _;

use crate::support::TestServer;
use crate::support::server::problem;

fn term(term: Term) -> Query {
    Query::Term(term)
}

fn exact(text: &str) -> Pattern {
    Pattern::Exact(text.to_owned())
}

fn glob(text: &str) -> Pattern {
    Pattern::Glob(text.to_owned())
}

fn not(query: Query) -> Query {
    Query::Not(Box::new(query))
}

async fn found(server: &TestServer, query: &Query) -> Vec<StatementId> {
    let size = server.book.ledger.newest().size();
    let page = server.reader.runs_that_fit(query, size, None, 100).await;
    ids(&page.unwrap())
}

fn ids(page: &FoundPage) -> Vec<StatementId> {
    page.items.iter().map(|found| found.command).collect()
}

/// One that ran and wrote `hello`, and one that was asked for and rejected by nobody yet.
async fn two(server: &TestServer) -> (StatementId, StatementId) {
    let (ran, _) = server.book.authorized().await;
    server.book.run(ran).await;
    let argv = ["/usr/bin/systemctl", "restart", "100%_sure", "it's"];
    let (asked, _) = server.book.request_running(&argv, b"the disk is full");
    let asked = server.book.send(asked).await.unwrap().id;
    (ran, asked)
}

#[tokio::test]
async fn each_term_finds_what_fits_and_nothing_else() {
    let server = TestServer::start().await;
    let (ran, asked) = two(&server).await;
    let both = vec![ran, asked];
    for (query, expected) in [
        (term(Term::Who(exact("alice"))), both.clone()),
        (term(Term::Who(exact("bob"))), vec![ran]),
        (term(Term::Who(glob("bo*"))), vec![ran]),
        (not(term(Term::Who(glob("*b*")))), vec![asked]),
        (term(Term::Host(exact("web-1"))), both.clone()),
        (term(Term::Host(glob("*-1"))), both.clone()),
        (term(Term::Host(exact("web-*"))), vec![]),
        (term(Term::Program(exact("systemctl"))), vec![asked]),
        (term(Term::Program(glob("/usr/*ctl"))), vec![asked]),
        (not(term(Term::Program(glob("system*")))), vec![ran]),
        (term(Term::Arg(exact("restart"))), vec![asked]),
        (term(Term::Arg(exact("systemctl"))), vec![]),
        (term(Term::Arg(glob("100%_*"))), vec![asked]),
        (term(Term::Arg(glob("1%0%*"))), vec![]),
        (term(Term::Arg(glob("it'*"))), vec![asked]),
        (term(Term::Exit(0, 0)), vec![ran]),
        (not(term(Term::Exit(0, 0))), vec![asked]),
        (term(Term::Exit(1, 255)), vec![]),
        (term(Term::Status("completed".to_owned())), vec![ran]),
        (term(Term::Status("waiting".to_owned())), vec![asked]),
        (term(Term::Mode("exec".to_owned())), both.clone()),
        (
            term(Term::Id(asked.to_string()[..9].to_owned())),
            vec![asked],
        ),
        (term(Term::Output("hell".to_owned())), vec![ran]),
        (term(Term::Output("l_o".to_owned())), vec![]),
        (not(term(Term::Output("hello\n".to_owned()))), vec![asked]),
        (
            Query::Or(vec![
                term(Term::Output("hello".to_owned())),
                Query::And(vec![
                    term(Term::Arg(exact("restart"))),
                    not(term(Term::Exit(0, 255))),
                ]),
            ]),
            both.clone(),
        ),
    ] {
        assert_eq!(found(&server, &query).await, expected, "{query:?}");
    }
}

#[tokio::test]
async fn pages_follow_each_other_and_end_at_the_size() {
    let server = TestServer::start().await;
    let (ran, asked) = two(&server).await;
    let size = server.book.ledger.newest().size();
    let any = term(Term::Host(glob("*")));
    let reader = &server.reader;
    let first = reader.runs_that_fit(&any, size, None, 1).await.unwrap();
    assert_eq!(ids(&first), [ran]);
    let next = first.next.unwrap();
    let second = reader.runs_that_fit(&any, size, Some(&next), 1).await;
    let second = second.unwrap();
    assert_eq!((ids(&second), second.next), (vec![asked], None));
    let before = reader.runs_that_fit(&any, size - 1, None, 9).await.unwrap();
    assert_eq!(ids(&before), [ran]);
    assert!(
        reader
            .runs_that_fit(&any, size, Some("x"), 1)
            .await
            .is_err()
    );

    let ran_there = |from_us, to_us, user: Option<&str>| Ran {
        host: "web-1".to_owned(),
        user: user.map(ToOwned::to_owned),
        from_us,
        to_us,
    };
    let on = async |ran: Ran| ids(&reader.runs_on(&ran, size, None, 9).await.unwrap());
    assert_eq!(on(ran_there(None, None, None)).await, [ran]);
    assert_eq!(on(ran_there(Some(i64::MAX as u64), None, None)).await, []);
    assert_eq!(on(ran_there(None, Some(1), None)).await, []);
    assert_eq!(on(ran_there(None, None, Some("nobody-else"))).await, []);
}

#[tokio::test]
async fn what_there_was_then_is_among_what_is_named() {
    let server = TestServer::start().await;
    let (request, act) = server.book.request();
    let id = server.book.send(request).await.unwrap().id;
    let then = server.book.ledger.newest().size();
    let named = async |status, size| {
        let page = server.reader.there_then(status, false, size, None, 9).await;
        ids(&page.unwrap())
    };
    for who in ["bob", "carol"] {
        let approval = server.book.approval(who, id, &act);
        server.book.send(approval).await.unwrap();
    }
    server.book.run(id).await;
    let now = server.book.ledger.newest().size();
    assert_eq!(named(Some("completed"), now).await, [id]);
    assert_eq!(named(Some("requested"), now).await, []);
    // It went on since, so it may have waited then; it did.
    assert_eq!(named(Some("requested"), then).await, [id]);
    assert_eq!(named(None, then - 1).await, []);
    let open = server.reader.there_then(None, true, now, None, 9).await;
    assert_eq!(ids(&open.unwrap()), []);
}

#[tokio::test]
async fn a_text_goes_with_its_blob_in_one_transaction_and_does_not_come_back() {
    let server = TestServer::start().await;
    let (ran, asked) = two(&server).await;
    let restart = term(Term::Arg(exact("restart")));
    let hello = term(Term::Output("hello".to_owned()));
    assert_eq!(found(&server, &restart).await, [asked]);
    let owner = &server.book.database.owner;
    sqlx::raw_sql("DROP TRIGGER guard_blob ON blobs")
        .execute(owner)
        .await
        .unwrap();
    let mut transaction = owner.begin().await.unwrap();
    sqlx::raw_sql(
        "UPDATE blobs SET content = NULL, salt = NULL
         WHERE digest IN (SELECT digest FROM blob_texts WHERE text LIKE '%restart%')",
    )
    .execute(&mut *transaction)
    .await
    .unwrap();
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM blob_texts WHERE text LIKE '%restart%'")
            .fetch_one(&mut *transaction)
            .await
            .unwrap();
    assert_eq!(left, 0);
    transaction.commit().await.unwrap();
    assert_eq!(found(&server, &restart).await, []);
    assert_eq!(found(&server, &hello).await, [ran]);
    // Whoever indexes later, or once more, brings nothing back.
    sqlx::raw_sql(
        "INSERT INTO blob_texts (digest, text)
         SELECT digest, 'restart' FROM blobs WHERE content IS NULL",
    )
    .execute(&server.book.database.app)
    .await
    .unwrap();
    assert_eq!(
        found(&server, &term(Term::Output("restart".to_owned()))).await,
        []
    );
    let texts: i64 = sqlx::query_scalar("SELECT count(*) FROM blob_texts WHERE text = 'restart'")
        .fetch_one(owner)
        .await
        .unwrap();
    assert_eq!(texts, 0);
}

#[tokio::test]
async fn a_search_takes_the_rights_to_read_what_it_finds() {
    let server = TestServer::start().await;
    let (ran, _) = two(&server).await;
    let ask = async |who: &str, search: serde_json::Value, size: u64| {
        let token = server.sign_in(who).await;
        let body = json!({ "search": search, "size": size });
        let call = server.call(reqwest::Method::POST, "/v1/audit/search");
        call.bearer_auth(token).json(&body).send().await.unwrap()
    };
    let size = server.book.ledger.newest().size();
    let output = || json!({ "runs": { "term": { "output": "hello" } } });
    let answer = ask("alice", output(), size).await;
    assert_eq!(answer.status(), 200);
    let page: Page<SearchHit> = answer.json().await.unwrap();
    assert_eq!(page.items[0].command, ran.to_string());
    let book = &server.book;
    book.join("dave").await;
    let denied = problem(ask("dave", output(), size).await).await;
    assert_eq!(denied.0, 403);
    for (search, code) in [
        (json!({ "runs": { "and": [] } }), "query"),
        (json!({ "runs": { "term": { "id": "abc" } } }), "query"),
        (
            json!({ "runs": { "term": { "output": "a\u{0}" } } }),
            "query",
        ),
        (
            json!({ "then": { "status": "done", "open": false } }),
            "status",
        ),
        (json!({ "other": {} }), "body"),
    ] {
        let refused = problem(ask("alice", search, size).await).await;
        assert_eq!(refused, (400, code.to_owned()));
    }
    let ahead = problem(ask("alice", output(), 1 << 40).await).await;
    assert_eq!(ahead, (400, "size".to_owned()));
}

const DOCUMENT: &str = include_str!("../../../docs/SQL.md");

#[tokio::test]
async fn every_example_for_sql_runs_as_the_role_that_only_reads() {
    let server = TestServer::start().await;
    two(&server).await;
    server.reader.caught_up().await.unwrap();
    let mut reader = as_reader(&server).await;
    let mut examples = 0;
    for part in DOCUMENT.split("```sql\n").skip(1) {
        let sql = part.split("```").next().unwrap().to_owned();
        let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.clone()))
            .fetch_all(&mut *reader)
            .await;
        rows.unwrap_or_else(|error| panic!("{sql}: {error}"));
        examples += 1;
    }
    let columns = sqlx::query(
        "SELECT table_name::text, column_name::text FROM information_schema.columns
         WHERE table_schema = 'audit'",
    )
    .fetch_all(&server.book.database.owner)
    .await
    .unwrap();
    let mut views = std::collections::BTreeSet::new();
    for row in &columns {
        let (view, column): (String, String) = (row.get(0), row.get(1));
        let chapter = DOCUMENT.split(&format!("### audit.{view}\n")).nth(1);
        let chapter = chapter.and_then(|text| text.split("\n### ").next());
        let chapter = chapter.unwrap_or_else(|| panic!("audit.{view} is not described"));
        assert!(chapter.contains(&format!("`{column}`")), "{view}.{column}");
        views.insert(view);
    }
    assert_eq!(views.len(), examples);
}

async fn as_reader(server: &TestServer) -> sqlx::pool::PoolConnection<sqlx::Postgres> {
    let mut connection = server.book.database.owner.acquire().await.unwrap();
    sqlx::raw_sql("GRANT countersign_reader TO CURRENT_USER; SET ROLE countersign_reader")
        .execute(&mut *connection)
        .await
        .unwrap();
    connection
}

#[tokio::test]
async fn the_role_for_sql_reads_no_table_and_writes_nothing() {
    let server = TestServer::start().await;
    two(&server).await;
    server.reader.caught_up().await.unwrap();
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
         WHERE schemaname IN ('public', 'projections')",
    )
    .fetch_all(&server.book.database.owner)
    .await
    .unwrap();
    assert!(tables.len() > 15, "{tables:?}");
    let mut refused: Vec<String> = tables
        .iter()
        .map(|table| format!("TABLE {table}"))
        .collect();
    for view in ["commands", "hosts", "statements", "progress"] {
        refused.push(format!("DELETE FROM audit.{view}"));
        refused.push(format!("DROP VIEW audit.{view}"));
    }
    for other in [
        "CREATE TABLE audit.mine (a int)",
        "CREATE TABLE public.mine (a int)",
        "CREATE TABLE projections.mine (a int)",
        "SELECT purge_unreferenced_blobs()",
        "INSERT INTO audit.hosts (host) VALUES ('x')",
    ] {
        refused.push(other.to_owned());
    }
    let mut reader = as_reader(&server).await;
    let who: String = sqlx::query_scalar("SELECT current_user::text")
        .fetch_one(&mut *reader)
        .await
        .unwrap();
    assert_eq!(who, "countersign_reader");
    for sql in refused {
        let answer = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.clone()))
            .execute(&mut *reader)
            .await;
        let error = answer.err().unwrap_or_else(|| panic!("{sql} was allowed"));
        let code = error.as_database_error().and_then(|error| error.code());
        let code = code.unwrap_or_default();
        assert!(matches!(&*code, "42501" | "55000"), "{sql}: {error}");
    }
    let memberships: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_auth_members WHERE member = 'countersign_reader'::regrole",
    )
    .fetch_one(&mut *reader)
    .await
    .unwrap();
    assert_eq!(memberships, 0);
}
