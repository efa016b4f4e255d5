//! A ledger with something of everything in it, what a superuser does to it, and the verdict.

use countersign::keys::LedgerKeys;
use countersign_cli::verify::{self, Options, Report, Source, VerifyError};
use countersign_protocol::hash::{Digest, Hash, LedgerId, StatementId};
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgPool, Row as _};

use crate::forger::Forger;
use crate::support::TestLedger;

/// A finished command, one that waits for approval, one with a caller's own id, in this order.
pub(super) struct Story {
    pub(super) book: TestLedger,
    pub(super) size: u64,
    pub(super) root: Hash,
    pub(super) done: StatementId,
    pub(super) waiting: StatementId,
}

impl Story {
    pub(super) async fn new() -> Self {
        let book = TestLedger::ready().await;
        let (done, _) = book.authorized().await;
        book.run(done).await;
        let (request, _) = book.request();
        let waiting = book.send(request).await.unwrap().id;
        let (request, act) = book.request_with(Some(Digest::new([5; 32])));
        let last = book.send(request).await.unwrap().id;
        book.send(book.approval("bob", last, &act)).await.unwrap();
        let newest = book.ledger.newest();
        Self {
            size: newest.size(),
            root: newest.root(),
            book,
            done,
            waiting,
        }
    }

    pub(super) fn owner(&self) -> &PgPool {
        &self.book.database.owner
    }

    /// Somebody who owns its database and has its keys.
    pub(super) async fn forger(&self) -> Forger {
        let keys = LedgerKeys::read(self.book.folder.path()).unwrap();
        Forger::new(self.owner(), self.book.ledger.verifier().origin(), keys).await
    }

    pub(super) fn ledger(&self) -> LedgerId {
        self.book.ledger.id()
    }

    /// Pinned, and remembering the newest checkpoint: as a client that has been here before.
    pub(super) fn options(&self) -> Options {
        Options {
            ledger: Some(self.ledger()),
            remembered: Some((self.size, self.root)),
            ..Options::new(Source::Database(url(&self.book.database.app)))
        }
    }

    /// As a client that is here for the first time.
    pub(super) fn stranger(&self) -> Options {
        Options::new(Source::Database(url(&self.book.database.app)))
    }

    pub(super) async fn verify(&self) -> Report {
        verify::verify(self.options()).await.unwrap()
    }

    pub(super) async fn verify_as_stranger(&self) -> Report {
        verify::verify(self.stranger()).await.unwrap()
    }

    pub(super) async fn try_verify(&self) -> Result<Report, VerifyError> {
        verify::verify(self.options()).await
    }

    /// Runs statements as a superuser who has switched triggers and foreign keys off.
    pub(super) async fn tamper(&self, statements: &[&str]) {
        let mut connection = self.owner().acquire().await.unwrap();
        for sql in ["SET session_replication_role = replica"]
            .iter()
            .chain(statements)
            .chain(&["RESET session_replication_role"])
        {
            let done = sqlx::raw_sql(AssertSqlSafe((*sql).to_owned()))
                .execute(&mut *connection)
                .await;
            assert!(done.is_ok(), "{sql}: {done:?}");
        }
    }

    /// A number that a query gives.
    pub(super) async fn number(&self, sql: &str) -> u64 {
        let row = sqlx::query(AssertSqlSafe(sql.to_owned()))
            .fetch_one(self.owner())
            .await
            .unwrap();
        u64::try_from(row.get::<i64, _>(0)).unwrap()
    }

    /// Where a statement stands.
    pub(super) async fn seq_of(&self, id: StatementId) -> u64 {
        let sql = format!("SELECT seq FROM statements WHERE statement_id = '\\x{id}'");
        self.number(&sql).await
    }

    /// Tampers, and says what `verify` finds even for somebody who remembers nothing.
    pub(super) async fn found(&self, statements: &[&str]) -> (u64, String) {
        self.tamper(statements).await;
        let report = self.verify_as_stranger().await;
        let first = bad(&report);
        let remembered = bad(&self.verify().await);
        assert!(remembered.0 <= first.0, "{remembered:?} {first:?}");
        first
    }
}

/// What was found; a report that found nothing fails the test.
pub(super) fn bad(report: &Report) -> (u64, String) {
    assert!(!report.ok);
    let first = report.first_bad.as_ref().unwrap();
    (first.seq, first.reason.clone())
}

pub(super) fn assert_holds(report: &Report) {
    assert!(report.ok, "{report:?}");
    assert_eq!(report.first_bad, None);
    assert!(report.findings.is_empty(), "{report:?}");
}

/// The URL of a pool's database, for its role.
pub(super) fn url(pool: &PgPool) -> String {
    pool.connect_options().to_url_lossy().to_string()
}
