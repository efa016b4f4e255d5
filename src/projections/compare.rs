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

/// A projection whose rows are not what the log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Which.
    pub projection: &'static str,
    /// Rows that should not be there.
    pub surplus: u64,
    /// Rows that should be and are not.
    pub missing: u64,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            projection,
            surplus,
            missing,
        } = self;
        write!(
            f,
            "the list {projection} is not what the log says: {surplus} rows too many or changed, {missing} missing or changed"
        )
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
    let next: i64 = sqlx::query_scalar("SELECT coalesce(min(next), 0) FROM projections.cursors")
        .fetch_one(&mut *transaction)
        .await?;
    if next < size {
        return Err(CompareError::Behind(size.abs_diff(next)));
    }
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
    let mut found = Vec::new();
    every!(P => found.extend(difference::<P>(&mut transaction).await?));
    transaction.rollback().await?;
    debug_assert_eq!(signed(fold.next()), size);
    Ok(found)
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
    Ok((surplus + missing > 0).then_some(Difference {
        projection: name,
        surplus,
        missing,
    }))
}
