//! A ledger that is read page by page, as over HTTP: the same audit, and a lying server is found.

use countersign_cli::verify::{self, EntryRow, Fetch, Held, Options, Pages, Report, Source};
use countersign_protocol::hash::{Digest, Hash};
use sqlx::{PgPool, Row as _};

use super::story::{Story, assert_holds, bad};

/// A server that answers from the database, with one lie.
struct Server {
    pool: PgPool,
    lie: Lie,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lie {
    None,
    OldNote,
    NoNote,
    FewerEntries,
    SameEntriesAgain,
    Withholds,
    OtherLeaf,
    NoBlobs,
}

impl Pages for Server {
    fn newest(&mut self) -> Fetch<'_, Option<String>> {
        Box::pin(async {
            if self.lie == Lie::NoNote {
                return Ok(None);
            }
            let sql = if self.lie == Lie::OldNote {
                "SELECT note FROM checkpoints ORDER BY size LIMIT 1 OFFSET 3"
            } else {
                "SELECT note FROM head"
            };
            Ok(Some(
                sqlx::query(sql)
                    .fetch_one(&self.pool)
                    .await?
                    .try_get("note")?,
            ))
        })
    }

    fn entries(&mut self, from: u64, limit: u64) -> Fetch<'_, Vec<EntryRow>> {
        Box::pin(async move {
            if self.lie == Lie::FewerEntries && from >= 3 {
                return Ok(Vec::new());
            }
            let (from, limit) = if self.lie == Lie::FewerEntries {
                (from, 3)
            } else if self.lie == Lie::SameEntriesAgain {
                (0, 2)
            } else {
                (from, limit)
            };
            let rows =
                sqlx::query("SELECT seq, entry FROM entries WHERE seq >= $1 ORDER BY seq LIMIT $2")
                    .bind(i64::try_from(from)?)
                    .bind(i64::try_from(limit)?)
                    .fetch_all(&self.pool)
                    .await?;
            let leaf = (self.lie == Lie::OtherLeaf).then_some(Hash::ZERO);
            let row = |row: &sqlx::postgres::PgRow| EntryRow {
                seq: u64::try_from(row.get::<i64, _>("seq")).unwrap(),
                entry: row.get("entry"),
                leaf: leaf.filter(|_| row.get::<i64, _>("seq") == 4),
            };
            Ok(rows.iter().map(row).collect())
        })
    }

    fn blobs<'a>(&'a mut self, digests: &'a [Digest]) -> Fetch<'a, Vec<(Digest, Held)>> {
        Box::pin(async move {
            let mut found = Vec::new();
            let mut connection = self.pool.acquire().await?;
            for digest in digests {
                let blob = countersign::ledger::store::blob(&mut connection, digest).await?;
                let blob = blob.flatten().unwrap();
                let secret = blob.content() == b"hello\n";
                if self.lie == Lie::Withholds && secret {
                    found.push((*digest, Held::Withheld));
                } else if self.lie != Lie::NoBlobs {
                    found.push((*digest, Held::Here(blob)));
                }
            }
            Ok(found)
        })
    }
}

async fn told(story: &Story, lie: Lie) -> Report {
    let pool = story.book.database.app.clone();
    let options = Options {
        source: Source::Pages(Box::new(Server { pool, lie })),
        ..story.options()
    };
    verify::verify(options).await.unwrap()
}

#[tokio::test]
async fn an_honest_server_verifies_and_a_lying_one_is_found() {
    let story = Story::new().await;
    let honest = told(&story, Lie::None).await;
    assert_holds(&honest);
    assert_eq!((honest.size, honest.root), (story.size, story.root));
    assert_eq!(honest.checkpoints, 1);
    let old = story
        .number("SELECT size FROM checkpoints ORDER BY size LIMIT 1 OFFSET 3")
        .await;
    assert_eq!(bad(&told(&story, Lie::OldNote).await).0, old);
    assert_eq!(bad(&told(&story, Lie::NoNote).await).0, 0);
    assert_eq!(bad(&told(&story, Lie::FewerEntries).await).0, 3);
    assert_eq!(bad(&told(&story, Lie::SameEntriesAgain).await).0, 2);
    assert_eq!(bad(&told(&story, Lie::OtherLeaf).await).0, 4);
    let missing = told(&story, Lie::NoBlobs).await;
    assert!(missing.blobs.missing > 0 && !missing.ok);
}

#[tokio::test]
async fn output_that_a_reader_may_not_see_is_counted_and_no_failure() {
    let story = Story::new().await;
    let report = told(&story, Lie::Withholds).await;
    assert_holds(&report);
    assert_eq!(report.blobs.withheld, 1);
}
