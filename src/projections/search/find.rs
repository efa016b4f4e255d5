//! The questions: what fits a query, what ran on a host, what there was at a size of the log.

use std::time::Duration;

use countersign_protocol::hash::CommandId;
use countersign_protocol::search::{Query, Ran};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Postgres, QueryBuilder, Row as _};

use super::condition;
use crate::ledger::store::signed;
use crate::projections::read::{ReadError, Reader, id};

/// How long one search may take: more is a question for whoever reads the whole log.
const SEARCH_TIME: Duration = Duration::from_secs(10);

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The command.
    pub command: CommandId,
    /// The host, where parts of commands are searched for.
    pub host: Option<String>,
}

/// Some of what was found, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPage {
    /// At most as many as were asked for.
    pub items: Vec<Found>,
    /// The cursor of what follows.
    pub next: Option<String>,
}

/// Why a search gives nothing.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The lists.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It took too long.
    #[error("the search took longer than {} seconds", SEARCH_TIME.as_secs())]
    Broad,
    /// The cursor is of something else.
    #[error("the cursor is not one that a page gave")]
    Cursor,
}

impl From<sqlx::Error> for SearchError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code());
        // query_canceled
        if code.as_deref() == Some("57014") {
            Self::Broad
        } else {
            Self::Read(error.into())
        }
    }
}

/// Where a page goes on.
struct Cursor {
    place: i64,
    host: String,
}

impl Cursor {
    fn parse(text: Option<&str>) -> Result<Option<Self>, SearchError> {
        let parse = |text: &str| {
            let (place, host) = text.split_once('-')?;
            Some(Self {
                place: place.parse().ok()?,
                host: host.to_owned(),
            })
        };
        text.map(|text| parse(text).ok_or(SearchError::Cursor))
            .transpose()
    }
}

impl Reader {
    /// Hosts' parts of commands that fit a query and were asked for before `size`, in the order of the
    /// requests.
    ///
    /// # Errors
    /// See [`SearchError`].
    pub async fn runs_that_fit(
        &self,
        query: &Query,
        size: u64,
        cursor: Option<&str>,
        limit: u64,
    ) -> Result<FoundPage, SearchError> {
        let mut sql = QueryBuilder::new(
            "SELECT r.seq AS place, r.command, r.host FROM projections.runs AS r WHERE r.seq < ",
        );
        sql.push_bind(signed(size)).push(" AND (");
        condition::push(&mut sql, query);
        sql.push(")");
        if let Some(after) = Cursor::parse(cursor)? {
            sql.push(" AND (r.seq, r.host) > (").push_bind(after.place);
            sql.push(", ").push_bind(after.host).push(")");
        }
        sql.push(" ORDER BY r.seq, r.host LIMIT ");
        self.found(sql, limit).await
    }

    /// Parts of commands that were started on a host, in the order of the starts.
    ///
    /// # Errors
    /// See [`SearchError`].
    pub async fn runs_on(
        &self,
        ran: &Ran,
        size: u64,
        cursor: Option<&str>,
        limit: u64,
    ) -> Result<FoundPage, SearchError> {
        let mut sql = QueryBuilder::new(
            "SELECT r.started_seq AS place, r.command, r.host FROM projections.runs AS r
             WHERE r.started_seq < ",
        );
        sql.push_bind(signed(size)).push(" AND r.host = ");
        sql.push_bind(ran.host.clone());
        if let Some(to) = ran.to_us {
            sql.push(" AND r.started_us < ").push_bind(signed(to));
        }
        if let Some(from) = ran.from_us {
            sql.push(" AND (r.ended_us IS NULL OR r.ended_us >= ");
            sql.push_bind(signed(from)).push(")");
        }
        if let Some(user) = &ran.user {
            sql.push(" AND (r.account = ").push_bind(user.clone());
            sql.push(" OR r.uid::text = ")
                .push_bind(user.clone())
                .push(")");
        }
        if let Some(after) = Cursor::parse(cursor)? {
            sql.push(" AND r.started_seq > ").push_bind(after.place);
        }
        sql.push(" ORDER BY r.started_seq LIMIT ");
        self.found(sql, limit).await
    }

    /// Commands that were meant to run without approvals, in the order of the requests.
    ///
    /// # Errors
    /// See [`SearchError`].
    pub async fn break_glass(
        &self,
        size: u64,
        cursor: Option<&str>,
        limit: u64,
    ) -> Result<FoundPage, SearchError> {
        let mut sql = QueryBuilder::new(
            "SELECT seq AS place, command, NULL::text AS host FROM projections.spans
             WHERE break_glass AND seq < ",
        );
        sql.push_bind(signed(size));
        if let Some(after) = Cursor::parse(cursor)? {
            sql.push(" AND seq > ").push_bind(after.place);
        }
        sql.push(" ORDER BY seq LIMIT ");
        self.found(sql, limit).await
    }

    /// Commands that had been asked for when the log had `size` entries, newest first: of `status` then,
    /// or touched since, so that they may have been.
    ///
    /// # Errors
    /// See [`SearchError`].
    pub async fn there_then(
        &self,
        status: Option<&str>,
        open: bool,
        size: u64,
        cursor: Option<&str>,
        limit: u64,
    ) -> Result<FoundPage, SearchError> {
        let mut sql = QueryBuilder::new(
            "SELECT seq AS place, command, NULL::text AS host FROM projections.spans WHERE seq < ",
        );
        sql.push_bind(signed(size));
        let words: Option<Vec<String>> = match status {
            Some(status) => Some(vec![status.to_owned()]),
            None if open => Some(OPEN.map(str::to_owned).to_vec()),
            None => None,
        };
        if let Some(words) = words {
            sql.push(" AND (status = ANY(").push_bind(words);
            sql.push(") OR int8range(seq, last_seq, '[]') @> ");
            sql.push_bind(signed(size)).push(")");
        }
        if let Some(after) = Cursor::parse(cursor)? {
            sql.push(" AND seq < ").push_bind(after.place);
        }
        sql.push(" ORDER BY seq DESC LIMIT ");
        self.found(sql, limit).await
    }

    /// Asks for one more than wanted, in a time that is bounded, once the rows have caught up.
    async fn found(
        &self,
        mut sql: QueryBuilder<Postgres>,
        limit: u64,
    ) -> Result<FoundPage, SearchError> {
        self.caught_up().await?;
        sql.push_bind(signed(limit.saturating_add(1)));
        let mut connection = self.pool.acquire().await?;
        let mut transaction = connection.begin().await?;
        bound(&mut transaction).await?;
        // Planned for its own values, and not kept: no other search is the same.
        let query = sql.build().persistent(false);
        let rows = query.fetch_all(&mut *transaction).await?;
        transaction.rollback().await?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        let rows = rows.get(..limit).unwrap_or(&rows);
        let items: Result<Vec<_>, sqlx::Error> = rows.iter().map(found).collect();
        let items = items?;
        let next = match (rows.last(), items.last()) {
            (Some(row), Some(last)) if more => {
                let place: i64 = row.try_get("place")?;
                let host = last.host.as_deref().unwrap_or_default();
                Some(format!("{place}-{host}"))
            }
            _end => None,
        };
        Ok(FoundPage { items, next })
    }
}

/// The words for a command that has not come to its end.
const OPEN: [&str; 3] = ["requested", "authorized", "running"];

/// Reads only, ends in time, and compiles no plan: that takes longer than what is looked for.
async fn bound(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let time = SEARCH_TIME.as_millis();
    sqlx::raw_sql(AssertSqlSafe(format!(
        "SET TRANSACTION READ ONLY; SET LOCAL statement_timeout = {time}; SET LOCAL jit = off"
    )))
    .execute(connection)
    .await
    .map(drop)
}

fn found(row: &PgRow) -> Result<Found, sqlx::Error> {
    Ok(Found {
        command: id(row, "command")?,
        host: row.try_get("host")?,
    })
}
