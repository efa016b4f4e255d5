//! Follows the log and moves the projections along: cursors and rows in one transaction.
//!
//! Any number of servers may run it on one database: whoever locks the cursors does the next page,
//! the others find it done. An entry that a projection has seen is a quiet success.

use std::sync::Arc;
use std::time::Duration;

use countersign_protocol::checkpoint::Checkpoint;
use countersign_protocol::hash::CommandId;
use countersign_protocol::judgement::Judge;
use countersign_protocol::lifecycle::{Execution, ExecutionStatus, Stage};
use countersign_protocol::name::AgentName;
use countersign_protocol::rights::Rights;
use sqlx::postgres::PgRow;
use sqlx::{Acquire as _, AssertSqlSafe, PgConnection, PgPool, Row as _};
use tokio::sync::watch;

use super::agents::Agents;
use super::bell::Bell;
use super::commands::Commands;
use super::executions::Executions;
use super::inbox::Inbox;
use super::page::{Fold, Page};
use super::search::{self, Deeds, Outputs, Runs, Spans};
use crate::ledger::OpenError;
use crate::ledger::store::signed;

/// How long a failing follower waits before it tries again: the database is probably restarting.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// How often a follower that has nothing to do looks whether the lists are still those that it told of: for so
/// long at most does a server answer from lists that another program has begun anew. One small query.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// Keeps two servers from creating the tables at the same time; any number that is ours alone.
const SCHEMA_LOCK: i64 = 0x636f_756e_7465_7273;

/// Rows that follow from the log.
pub(super) trait Projection {
    /// The table's name.
    const NAME: &'static str;
    /// Raised when the rows change shape or meaning: the table is then built anew.
    const VERSION: i32;
    /// Creates the table, unqualified, so that a comparison can create it elsewhere.
    const TABLE: &'static str;
    /// Creates its indexes.
    const INDEXES: &'static [&'static str];

    /// Brings the rows to the end of a page.
    fn apply(
        connection: &mut PgConnection,
        page: &Page<'_>,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

/// Why the projections do not follow.
#[derive(Debug, thiserror::Error)]
pub enum ProjectionError {
    /// The database.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// The log itself does not stand.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// They are of a program that is newer than this one.
    #[error(
        "a newer program has made the list {name} (version {found}; this program makes {known}), so this server leaves the lists alone and answers none; update it, or stop the newer servers and run `countersign rebuild` with this program"
    )]
    Newer {
        /// Which.
        name: &'static str,
        /// Its version.
        found: i32,
        /// What this program would make.
        known: i32,
    },
    /// Another program has begun one anew while this one followed.
    #[error("the list {0} is not the one that this server followed; it is looked at again")]
    Replaced(&'static str),
}

/// How far the rows are, and who may do what there.
#[derive(Debug, Clone)]
pub struct Projected {
    /// Entries that were folded, and that the rows contain while there are any.
    pub size: u64,
    /// Keys, people, agents and policy after them.
    pub rights: Arc<Rights>,
    /// Whether the rows are still there. Another program may have begun the lists anew: the rights, which
    /// follow from the log, are right as before, and the rows that this told of are gone.
    pub has_rows: bool,
}

impl Projected {
    /// Entries that can be read in the rows.
    #[must_use]
    pub const fn in_rows(&self) -> u64 {
        if self.has_rows { self.size } else { 0 }
    }
}

/// Runs something for every projection.
macro_rules! every {
    ($projection:ident => $do:expr) => {{
        {
            type $projection = Commands;
            $do
        }
        {
            type $projection = Executions;
            $do
        }
        {
            type $projection = Inbox;
            $do
        }
        {
            type $projection = Agents;
            $do
        }
        {
            type $projection = Spans;
            $do
        }
        {
            type $projection = Runs;
            $do
        }
        {
            type $projection = Outputs;
            $do
        }
        {
            type $projection = Deeds;
            $do
        }
    }};
}
pub(super) use every;

/// Creates one projection's table where the search path says.
pub(super) async fn create<P: Projection>(
    connection: &mut PgConnection,
) -> Result<(), sqlx::Error> {
    sqlx::query(P::TABLE).execute(&mut *connection).await?;
    for index in P::INDEXES {
        sqlx::query(*index).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Makes sure that the tables exist in their current shape; those of an older version start anew, and
/// those of a newer one stay: two programs would take the tables from each other for ever.
async fn prepare(connection: &mut PgConnection) -> Result<(), ProjectionError> {
    let mut transaction = connection.begin().await?;
    lay_out(&mut transaction).await?;
    let mut is_current = search::are_current(&mut transaction).await?;
    every!(P => match version::<P>(&mut transaction).await? {
        Some(found) if found > P::VERSION => {
            return Err(ProjectionError::Newer {
                name: P::NAME,
                found,
                known: P::VERSION,
            });
        }
        found => is_current &= found == Some(P::VERSION),
    });
    if !is_current {
        hold_cursors(&mut transaction).await?;
        // What stands on a table goes before it.
        search::drop_views(&mut transaction).await?;
        every!(P => if version::<P>(&mut transaction).await? != Some(P::VERSION) {
            begin_anew::<P>(&mut transaction).await?;
        });
        search::create_views(&mut transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// What the lists need to be there. Until the transaction ends nobody else begins a list.
async fn lay_out(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(SCHEMA_LOCK)
        .execute(&mut *connection)
        .await?;
    use_schema(connection).await?;
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS projections.cursors (
            name text PRIMARY KEY,
            version integer NOT NULL,
            next bigint NOT NULL CHECK (next >= 0)
        )",
    )
    .execute(&mut *connection)
    .await?;
    // No projection: nothing in the log says when a token was used.
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS projections.token_uses (
            token text PRIMARY KEY,
            last_us bigint NOT NULL
        )",
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Whoever follows waits from here on. Before any table is touched, and in the order in which followers take
/// them, or each might hold what the other wants.
async fn hold_cursors(connection: &mut PgConnection) -> Result<Vec<PgRow>, sqlx::Error> {
    sqlx::query("SELECT name, version, next FROM projections.cursors ORDER BY name FOR UPDATE")
        .fetch_all(connection)
        .await
}

/// Of the table that is there; none when there is none.
async fn version<P: Projection>(connection: &mut PgConnection) -> Result<Option<i32>, sqlx::Error> {
    sqlx::query_scalar("SELECT version FROM cursors WHERE name = $1")
        .bind(P::NAME)
        .fetch_optional(connection)
        .await
}

/// An empty table in the place of the one that is there, if one is.
async fn begin_anew<P: Projection>(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let name = P::NAME;
    sqlx::query(AssertSqlSafe(format!(
        "DROP TABLE IF EXISTS projections.{name}"
    )))
    .execute(&mut *connection)
    .await?;
    create::<P>(connection).await?;
    sqlx::query(
        "INSERT INTO cursors VALUES ($1, $2, 0)
         ON CONFLICT (name) DO UPDATE SET version = excluded.version, next = 0",
    )
    .bind(name)
    .bind(P::VERSION)
    .execute(&mut *connection)
    .await?;
    Ok(())
}

/// How far each table of this program is. Others that a newer program keeps beside them are not this one's
/// to move, and of tables in another shape it must not write a row.
struct Cursors(Vec<(&'static str, u64)>);

impl Cursors {
    /// As they stand at this moment, when the first `told` entries are known to have been in all of them.
    async fn read(connection: &mut PgConnection, told: u64) -> Result<Self, ProjectionError> {
        let rows = sqlx::query("SELECT name, version, next FROM projections.cursors")
            .fetch_all(connection)
            .await?;
        Self::of(&rows, told)
    }

    fn of(rows: &[PgRow], told: u64) -> Result<Self, ProjectionError> {
        let mut cursors = Vec::new();
        every!(P => {
            let row = rows.iter().find(|row| row.try_get("name").is_ok_and(|name: &str| name == P::NAME));
            let row = row.ok_or(ProjectionError::Replaced(P::NAME))?;
            let next = u64::try_from(row.try_get::<i64, _>("next")?).unwrap_or(0);
            if row.try_get::<i32, _>("version")? != P::VERSION || next < told {
                return Err(ProjectionError::Replaced(P::NAME));
            }
            cursors.push((P::NAME, next));
        });
        Ok(Self(cursors))
    }

    /// Entries that all tables contain.
    fn behind(&self) -> u64 {
        let places = self.0.iter().map(|(_, next)| *next);
        places.min().unwrap_or(0)
    }

    /// Where a page that begins at the last table ends: where the next one stands, for from there on both take part.
    fn end_of_page(&self, wanted: u64) -> u64 {
        let behind = self.behind();
        let places = self.0.iter().map(|(_, next)| *next);
        let ahead = places.filter(|next| *next > behind).min();
        ahead.map_or(wanted, |next| next.min(wanted))
    }

    /// The last tables.
    fn last(&self) -> Vec<&'static str> {
        let behind = self.behind();
        let last = self.0.iter().filter(|(_, next)| *next == behind);
        last.map(|(name, _)| *name).collect()
    }
}

/// Names without a schema mean the projections, for this transaction.
async fn use_schema(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SET LOCAL search_path = projections, public")
        .execute(connection)
        .await
        .map(drop)
}

/// Builds the rows anew, beside the old ones, and then takes their place. Until then servers follow and queries
/// see the old ones; both wait only while what was entered meanwhile is folded and the new ones are copied.
///
/// # Errors
/// The database's.
pub async fn rebuild(pool: &PgPool, judge: &Arc<dyn Judge>) -> Result<u64, ProjectionError> {
    let mut connection = pool.acquire().await?;
    // Whatever comes of it, its temporary tables go with its session.
    connection.close_on_drop();
    let mut transaction = connection.begin().await?;
    use_beside(&mut transaction).await?;
    every!(P => create::<P>(&mut transaction).await?);
    transaction.commit().await?;
    let mut fold = Fold::at(&mut connection, 0, judge).await?;
    // A transaction for each page and another for its texts: those are everybody's, so that they are searchable at
    // once, and nobody waits who would write the same ones, or erase the blob.
    loop {
        let mut transaction = connection.begin().await?;
        let Some(page) = page_beside(&mut transaction, &mut fold).await? else {
            break;
        };
        transaction.commit().await?;
        search::fill(&mut connection, &page).await?;
        fold.drop_settled();
    }
    let mut transaction = connection.begin().await?;
    lay_out(&mut transaction).await?;
    hold_cursors(&mut transaction).await?;
    // What was entered since the last look.
    while let Some(page) = page_beside(&mut transaction, &mut fold).await? {
        search::fill(&mut transaction, &page).await?;
        fold.drop_settled();
    }
    // From here on readers wait. Temporary tables are found last, so that the lasting ones are meant.
    sqlx::query("SET LOCAL search_path = projections, public, pg_temp")
        .execute(&mut *transaction)
        .await?;
    search::drop_views(&mut transaction).await?;
    every!(P => begin_anew::<P>(&mut transaction).await?);
    search::create_views(&mut transaction).await?;
    every!(P => take_over::<P>(&mut transaction, fold.next()).await?);
    transaction.commit().await?;
    Ok(fold.next())
}

/// Names without a schema mean the tables that are built beside, for this transaction.
async fn use_beside(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SET LOCAL search_path = pg_temp, public")
        .execute(connection)
        .await
        .map(drop)
}

/// The next page, and its rows beside. Nothing at the end of the log.
async fn page_beside<'a>(
    connection: &mut PgConnection,
    fold: &'a mut Fold,
) -> Result<Option<Page<'a>>, ProjectionError> {
    use_beside(connection).await?;
    let page = fold.page(connection, u64::MAX).await?;
    if let Some(page) = &page {
        every!(P => P::apply(connection, page).await?);
    }
    Ok(page)
}

/// Copies what was built beside of so many entries into the lasting table.
async fn take_over<P: Projection>(
    connection: &mut PgConnection,
    size: u64,
) -> Result<(), sqlx::Error> {
    let name = P::NAME;
    sqlx::raw_sql(AssertSqlSafe(format!(
        "INSERT INTO projections.{name} TABLE pg_temp.{name}; DROP TABLE pg_temp.{name}"
    )))
    .execute(&mut *connection)
    .await?;
    sqlx::query("UPDATE projections.cursors SET next = $1 WHERE name = $2")
        .bind(signed(size))
        .bind(name)
        .execute(connection)
        .await
        .map(drop)
}

/// Follows the log until the ledger is gone, telling how far it is.
pub async fn run(
    pool: PgPool,
    mut log: watch::Receiver<Arc<Checkpoint>>,
    (tell, bell): (watch::Sender<Option<Projected>>, Bell),
    judge: Arc<dyn Judge>,
) {
    let mut follower = Follower {
        prepared: false,
        fold: None,
        judge,
        bell,
        rights: None,
        calls: Vec::new(),
    };
    loop {
        let wanted = log.borrow_and_update().size();
        match follower.follow(&pool, wanted, &tell).await {
            Ok(()) => {
                if let Ok(Err(_gone)) = tokio::time::timeout(LOOK_PAUSE, log.changed()).await {
                    return;
                }
            }
            Err(error) => {
                tracing::error!(%error, "projections do not follow the log; trying again");
                if matches!(
                    error,
                    ProjectionError::Newer { .. } | ProjectionError::Replaced(_)
                ) {
                    follower.take_back(&tell);
                }
                follower.prepared = false;
                tokio::time::sleep(RETRY_PAUSE).await;
                if log.has_changed().is_err() {
                    return;
                }
            }
        }
    }
}

/// Commands, and the hosts that they may be others for.
type Calls = Vec<(CommandId, Vec<AgentName>)>;

/// The fold that the rows are made from; none until it is read, and none after a page that was given up halfway.
struct Follower {
    /// The tables were there, and this program's.
    prepared: bool,
    fold: Option<Fold>,
    judge: Arc<dyn Judge>,
    bell: Bell,
    /// Of the fold, while nothing has touched them.
    rights: Option<Arc<Rights>>,
    /// Whom the bell wakes once the rows are there.
    calls: Calls,
}

impl Follower {
    async fn follow(
        &mut self,
        pool: &PgPool,
        wanted: u64,
        tell: &watch::Sender<Option<Projected>>,
    ) -> Result<(), ProjectionError> {
        let mut connection = pool.acquire().await?;
        if !self.prepared {
            prepare(&mut connection).await?;
            self.prepared = true;
        }
        loop {
            let told = tell.borrow().as_ref().map_or(0, Projected::in_rows);
            // Also when nothing is new: another program may have begun the lists anew.
            let cursors = Cursors::read(&mut connection, told).await?;
            if told >= wanted {
                return Ok(());
            }
            let mut reached = self.catch_up(&mut connection, &cursors, wanted).await?;
            if reached == told {
                let mut transaction = connection.begin().await?;
                use_schema(&mut transaction).await?;
                let held = hold_cursors(&mut transaction).await?;
                let cursors = Cursors::of(&held, told)?;
                if cursors.behind() != reached {
                    // Another server was here first. What it wrote is folded without holding anybody up.
                    continue;
                }
                reached = self.step_in(&mut transaction, &cursors, wanted).await?;
                transaction.commit().await?;
            }
            self.tell(reached, tell);
            if reached >= wanted {
                return Ok(());
            }
        }
    }

    /// The rows that were told of are gone. Whoever listens asks for all that is open, hears that nobody knows,
    /// and leaves.
    fn take_back(&self, tell: &watch::Sender<Option<Projected>>) {
        let was_told = tell.send_if_modified(|told| {
            told.as_mut()
                .is_some_and(|told| std::mem::take(&mut told.has_rows))
        });
        if was_told {
            self.bell.ring_all();
        }
    }

    /// Tells of rows that are committed, and wakes whom they concern.
    fn tell(&mut self, size: u64, tell: &watch::Sender<Option<Projected>>) {
        let Some(fold) = &self.fold else {
            return;
        };
        let touched = self.rights.is_none();
        let rights = self
            .rights
            .get_or_insert_with(|| Arc::new(fold.rights().clone()));
        let rights = Arc::clone(rights);
        let told = Arc::clone(&rights);
        tell.send_replace(Some(Projected {
            size,
            rights,
            has_rows: true,
        }));
        if touched {
            self.bell.ring_the_revoked(&told);
        }
        for (command, hosts) in self.calls.drain(..) {
            self.bell.ring((command, size), &hosts);
        }
    }

    /// Remembers whom a page concerns.
    fn note(&mut self, page: &Page<'_>) {
        if page.rights_touched {
            self.rights = None;
        }
        for command in page.changed_for_all() {
            let waits = command.plan.is_some() && command.cancel.is_none();
            if matches!(command.stage, Stage::Authorized { .. }) && !waits {
                let hosts = command.executions.keys().cloned().collect();
                self.calls.push((command.id, hosts));
            }
        }
        // In a rollout those that have their turn now.
        for command in page.commands().filter(|command| command.plan.is_some()) {
            let has_turn = |part: &Execution| {
                part.status == ExecutionStatus::Waiting && part.released.is_some()
            };
            let parts = page.parts(command).filter(|(_, part)| has_turn(part));
            let hosts: Vec<AgentName> = parts.map(|(host, _)| host.clone()).collect();
            if !hosts.is_empty() {
                self.calls.push((command.id, hosts));
            }
        }
    }

    /// The next page, which must be there, and whom it concerns remembered.
    async fn page<'a>(
        &mut self,
        connection: &mut PgConnection,
        fold: &'a mut Fold,
        to: u64,
    ) -> Result<Page<'a>, ProjectionError> {
        let database = fold.next();
        let page = fold.page(connection, to).await?;
        // The cursors say that it is there, or that it is not done, and the log says otherwise.
        let page = page.ok_or(OpenError::Behind { database, file: to })?;
        self.note(&page);
        Ok(page)
    }

    /// Folds what the rows contain, and gives how far. Nothing is held meanwhile: all rights, and what other
    /// servers have written while this one was paused, take longer than anybody's list may wait. What another
    /// server has committed and this one has not looked at yet lies behind `wanted`, and nothing here can prove
    /// it: whoever was woken for it would find nothing, and not be woken again.
    async fn catch_up(
        &mut self,
        connection: &mut PgConnection,
        cursors: &Cursors,
        wanted: u64,
    ) -> Result<u64, ProjectionError> {
        let behind = cursors.behind();
        let followed = behind.min(wanted);
        let mut fold = match self.fold.take() {
            Some(fold) if fold.next() <= behind => fold,
            // A projection starts anew, or the last page was folded and not written.
            _other => {
                self.rights = None;
                self.calls.clear();
                self.bell.ring_all();
                Fold::at(&mut *connection, followed, &self.judge).await?
            }
        };
        while fold.next() < followed {
            self.page(connection, &mut fold, followed).await?;
            fold.drop_settled();
        }
        let reached = fold.next();
        self.fold = Some(fold);
        Ok(reached)
    }

    /// One page, in the caller's transaction, which holds the cursors; the fold is where they are.
    async fn step_in(
        &mut self,
        connection: &mut PgConnection,
        cursors: &Cursors,
        wanted: u64,
    ) -> Result<u64, ProjectionError> {
        let behind = cursors.behind();
        let fold = self.fold.take().filter(|fold| fold.next() == behind);
        let (database, file) = (behind, wanted);
        let mut fold = fold.ok_or(OpenError::Behind { database, file })?;
        let to = cursors.end_of_page(wanted);
        let page = self.page(connection, &mut fold, to).await?;
        let last = cursors.last();
        every!(P => if last.contains(&P::NAME) {
            P::apply(connection, &page).await?;
        });
        if last.contains(&Runs::NAME) {
            search::fill(connection, &page).await?;
        }
        fold.drop_settled();
        let next = fold.next();
        sqlx::query("UPDATE cursors SET next = $1 WHERE name = ANY($2)")
            .bind(signed(next))
            .bind(last)
            .execute(&mut *connection)
            .await?;
        self.fold = Some(fold);
        Ok(next)
    }
}
