//! Proves that the rows equal a fold of the log: builds them again beside and compares.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use super::agents::Agents;
use super::commands::Commands;
use super::executions::Executions;
use super::inbox::Inbox;
use std::sync::Arc;

use countersign_protocol::judgement::Judge;

use super::page::Fold;
use super::runner::{Projection, ProjectionError, create, every};
use super::search::{Deeds, Outputs, Runs, Spans};
use crate::ledger::store::signed;

/// Why the comparison could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// The database or the log.
    #[error(transparent)]
    Projection(#[from] ProjectionError),
    /// The rows are behind the log, so there is nothing to compare yet.
    #[error(
        "the projections are {0} entries behind the log; start a server or run `countersign rebuild`, then verify again"
    )]
    Behind(u64),
}

impl From<sqlx::Error> for CompareError {
    fn from(error: sqlx::Error) -> Self {
        Self::Projection(error.into())
    }
}

/// A projection that is not what the log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Its rows are others.
    Rows {
        /// Which.
        projection: &'static str,
        /// Rows that should not be there.
        surplus: u64,
        /// Rows that should be and are not.
        missing: u64,
    },
    /// Its cursor is past the end of the log: the entries up to there would never come into it.
    Ahead {
        /// Which.
        projection: &'static str,
        /// Entries past the end.
        by: u64,
    },
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rows {
                projection,
                surplus,
                missing,
            } => write!(
                f,
                "the list {projection} is not what the log says: {surplus} rows too many or changed, {missing} missing or changed"
            ),
            Self::Ahead { projection, by } => write!(
                f,
                "the list {projection} says that it holds {by} entries more than there are, and would leave them out when they come"
            ),
        }
    }
}

/// Compares every projection with a fold of the log, in one snapshot. Changes nothing.
///
/// # Errors
/// See [`CompareError`].
pub async fn compare(
    connection: &mut PgConnection,
    judge: &Arc<dyn Judge>,
) -> Result<Vec<Difference>, CompareError> {
    let mut transaction = connection.begin().await?;
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        .execute(&mut *transaction)
        .await?;
    let size: i64 = sqlx::query_scalar("SELECT size FROM public.head")
        .fetch_one(&mut *transaction)
        .await?;
    let built: Option<bool> =
        sqlx::query_scalar("SELECT to_regclass('projections.cursors') IS NOT NULL")
            .fetch_one(&mut *transaction)
            .await?;
    if built != Some(true) {
        // No server has made any yet.
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    every!(P => found.extend(ahead::<P>(&mut transaction, size).await?));
    // Temporary tables are created and found first; nothing that stays is written.
    sqlx::query("SET LOCAL search_path = pg_temp, public")
        .execute(&mut *transaction)
        .await?;
    every!(P => create::<P>(&mut transaction).await?);
    let mut fold = Fold::at(&mut transaction, 0, judge)
        .await
        .map_err(ProjectionError::from)?;
    while let Some(page) = fold
        .page(&mut transaction, u64::MAX)
        .await
        .map_err(ProjectionError::from)?
    {
        every!(P => P::apply(&mut transaction, &page).await?);
        fold.drop_settled();
    }
    every!(P => found.extend(difference::<P>(&mut transaction).await?));
    transaction.rollback().await?;
    debug_assert_eq!(signed(fold.next()), size);
    Ok(found)
}

/// How far a projection's cursor is past the end. None is where no server has moved it yet.
async fn ahead<P: Projection>(
    connection: &mut PgConnection,
    size: i64,
) -> Result<Option<Difference>, CompareError> {
    let next: Option<i64> =
        sqlx::query_scalar("SELECT next FROM projections.cursors WHERE name = $1")
            .bind(P::NAME)
            .fetch_optional(connection)
            .await?;
    let next = next.unwrap_or(0);
    if next < size {
        return Err(CompareError::Behind(size.abs_diff(next)));
    }
    Ok((next > size).then_some(Difference::Ahead {
        projection: P::NAME,
        by: next.abs_diff(size),
    }))
}

async fn difference<P: Projection>(
    connection: &mut PgConnection,
) -> Result<Option<Difference>, sqlx::Error> {
    let name = P::NAME;
    let row = sqlx::query(AssertSqlSafe(format!(
        "SELECT (SELECT count(*) FROM (TABLE projections.{name} EXCEPT ALL TABLE pg_temp.{name}) AS more) AS surplus,
                (SELECT count(*) FROM (TABLE pg_temp.{name} EXCEPT ALL TABLE projections.{name}) AS less) AS missing"
    )))
    .fetch_one(connection)
    .await?;
    let count =
        |name| Ok::<_, sqlx::Error>(u64::try_from(row.try_get::<i64, _>(name)?).unwrap_or(0));
    let (surplus, missing) = (count("surplus")?, count("missing")?);
    Ok((surplus + missing > 0).then_some(Difference::Rows {
        projection: name,
        surplus,
        missing,
    }))
}
