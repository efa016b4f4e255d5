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

/// What becomes of lists that a newer program has made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NewerLists {
    /// They stay: two programs would take the tables from each other for ever.
    Stay,
    /// They go: a person has decided so.
    Go,
}

/// How far the rows are, and who may do what there.
#[derive(Debug, Clone)]
pub struct Projected {
    /// Entries that the rows contain.
    pub size: u64,
    /// Keys, people, agents and policy after them.
    pub rights: Arc<Rights>,
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

/// Makes sure that the tables exist in their current shape; those of an older version start anew.
async fn prepare(connection: &mut PgConnection, newer: NewerLists) -> Result<(), ProjectionError> {
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(SCHEMA_LOCK)
        .execute(&mut *transaction)
        .await?;
    use_schema(&mut transaction).await?;
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS projections.cursors (
            name text PRIMARY KEY,
            version integer NOT NULL,
            next bigint NOT NULL CHECK (next >= 0)
        )",
    )
    .execute(&mut *transaction)
    .await?;
    // No projection: nothing in the log says when a token was used.
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS projections.token_uses (
            token text PRIMARY KEY,
            last_us bigint NOT NULL
        )",
    )
    .execute(&mut *transaction)
    .await?;
    let mut is_current = search::are_current(&mut transaction).await?;
    every!(P => match version::<P>(&mut transaction).await? {
        Some(found) if found > P::VERSION && newer == NewerLists::Stay => {
            return Err(ProjectionError::Newer {
                name: P::NAME,
                found,
                known: P::VERSION,
            });
        }
        found => is_current &= found == Some(P::VERSION),
    });
    if !is_current {
        // What stands on a table goes before it.
        search::drop_views(&mut transaction).await?;
        every!(P => begin::<P>(&mut transaction).await?);
        search::create_views(&mut transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}

/// Of the table that is there; none when there is none.
async fn version<P: Projection>(connection: &mut PgConnection) -> Result<Option<i32>, sqlx::Error> {
    sqlx::query_scalar("SELECT version FROM cursors WHERE name = $1")
        .bind(P::NAME)
        .fetch_optional(connection)
        .await
}

async fn begin<P: Projection>(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    if version::<P>(connection).await? == Some(P::VERSION) {
        return Ok(());
    }
    let name = P::NAME;
    sqlx::query(AssertSqlSafe(format!("DROP TABLE IF EXISTS {name}")))
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

/// How far each table is, held until the transaction ends. Others that a newer program keeps beside
/// them are not this one's to move, and of tables in another shape it must not write a row.
async fn own_cursors(
    connection: &mut PgConnection,
) -> Result<Vec<(&'static str, i64)>, ProjectionError> {
    let rows = sqlx::query("SELECT name, version, next FROM cursors ORDER BY name FOR UPDATE")
        .fetch_all(&mut *connection)
        .await?;
    let mut cursors = Vec::new();
    every!(P => {
        let row = rows.iter().find(|row| row.try_get("name").is_ok_and(|name: &str| name == P::NAME));
        let row = row.ok_or(ProjectionError::Replaced(P::NAME))?;
        if row.try_get::<i32, _>("version")? != P::VERSION {
            return Err(ProjectionError::Replaced(P::NAME));
        }
        cursors.push((P::NAME, row.try_get("next")?));
    });
    Ok(cursors)
}

/// Names without a schema mean the projections, for this transaction.
async fn use_schema(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SET LOCAL search_path = projections, public")
        .execute(connection)
        .await
        .map(drop)
}

/// Builds the rows anew, beside the old ones, and then takes their place. Queries see the old ones
/// until then; they wait only while the new ones are copied.
///
/// # Errors
/// The database's.
pub async fn rebuild(pool: &PgPool, judge: &Arc<dyn Judge>) -> Result<u64, ProjectionError> {
    let mut connection = pool.acquire().await?;
    prepare(&mut connection, NewerLists::Go).await?;
    let mut transaction = connection.begin().await?;
    // Whoever follows waits here. In the order in which it takes them, or each might hold what the other wants.
    sqlx::query("SELECT FROM projections.cursors ORDER BY name FOR UPDATE")
        .execute(&mut *transaction)
        .await?;
    let size = build_beside(&mut transaction, judge).await?;
    // From here on readers wait. Temporary tables are found last, so that the lasting ones are meant.
    sqlx::query("SET LOCAL search_path = projections, public, pg_temp")
        .execute(&mut *transaction)
        .await?;
    sqlx::query("UPDATE cursors SET version = 0")
        .execute(&mut *transaction)
        .await?;
    search::drop_views(&mut transaction).await?;
    every!(P => begin::<P>(&mut transaction).await?);
    search::create_views(&mut transaction).await?;
    every!(P => take_over::<P>(&mut transaction).await?);
    sqlx::query("UPDATE cursors SET next = $1")
        .bind(signed(size))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(size)
}

/// Folds the whole log into temporary tables and gives its size.
async fn build_beside(
    connection: &mut PgConnection,
    judge: &Arc<dyn Judge>,
) -> Result<u64, ProjectionError> {
    sqlx::query("SET LOCAL search_path = pg_temp, public")
        .execute(&mut *connection)
        .await?;
    every!(P => create::<P>(connection).await?);
    let mut fold = Fold::at(connection, 0, judge).await?;
    while let Some(page) = fold.page(connection, u64::MAX).await? {
        every!(P => P::apply(connection, &page).await?);
        search::fill(connection, &page).await?;
        fold.drop_settled();
    }
    Ok(fold.next())
}

/// Copies what was built beside into the lasting table.
async fn take_over<P: Projection>(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let name = P::NAME;
    sqlx::raw_sql(AssertSqlSafe(format!(
        "INSERT INTO projections.{name} TABLE pg_temp.{name}; DROP TABLE pg_temp.{name}"
    )))
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
        fold: None,
        judge,
        bell,
        rights: None,
        calls: Vec::new(),
    };
    let mut prepared = false;
    loop {
        let wanted = log.borrow_and_update().size();
        match follower.follow(&pool, wanted, &mut prepared, &tell).await {
            Ok(()) => {
                if log.changed().await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::error!(%error, "projections do not follow the log; trying again");
                follower.forget();
                prepared = false;
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

/// What a step came to.
struct Step {
    next: u64,
    moved: bool,
}

/// The fold that the rows are made from; none until it is read.
struct Follower {
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
        prepared: &mut bool,
        tell: &watch::Sender<Option<Projected>>,
    ) -> Result<(), ProjectionError> {
        let mut connection = pool.acquire().await?;
        if !*prepared {
            prepare(&mut connection, NewerLists::Stay).await?;
            *prepared = true;
        }
        loop {
            let known = tell.borrow().as_ref().map_or(0, |told| told.size);
            if known >= wanted {
                return Ok(());
            }
            let mut transaction = connection.begin().await?;
            use_schema(&mut transaction).await?;
            let step = self.step_in(&mut transaction, wanted).await?;
            transaction.commit().await?;
            self.tell(step.next, tell);
            if !step.moved && step.next < wanted {
                // The cursors say that everything is done and the log says otherwise.
                return Err(OpenError::Behind {
                    database: step.next,
                    file: wanted,
                }
                .into());
            }
        }
    }

    /// The next page is folded from the log anew, and whoever listens asks for all that is open.
    fn forget(&mut self) {
        self.fold = None;
        self.rights = None;
        self.calls.clear();
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
        tell.send_replace(Some(Projected { size, rights }));
        if touched {
            self.bell.ring_the_revoked(&told);
        }
        for (command, hosts) in self.calls.drain(..) {
            self.bell.ring((command, size), &hosts);
        }
    }

    /// Remembers whom a page concerns.
    fn note(page: &Page<'_>, rights: &mut Option<Arc<Rights>>, calls: &mut Calls) {
        if page.rights_touched {
            *rights = None;
        }
        for command in page.changed_for_all() {
            let waits = command.plan.is_some() && command.cancel.is_none();
            if matches!(command.stage, Stage::Authorized { .. }) && !waits {
                let hosts = command.executions.keys().cloned().collect();
                calls.push((command.id, hosts));
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
                calls.push((command.id, hosts));
            }
        }
    }

    /// One page, in the caller's transaction. Holds the cursors from its first query on. What another
    /// server has committed and this one has not looked at yet lies behind `wanted`, and nothing here
    /// can prove it: whoever was woken for it would find nothing, and not be woken again.
    async fn step_in(
        &mut self,
        connection: &mut PgConnection,
        wanted: u64,
    ) -> Result<Step, ProjectionError> {
        let cursors = own_cursors(connection).await?;
        let place = |next: i64| u64::try_from(next).unwrap_or(0);
        let behind = cursors
            .iter()
            .map(|(_, next)| place(*next))
            .min()
            .unwrap_or(0);
        // The page ends where the next projection stands: from there on both take part.
        let to = cursors
            .iter()
            .map(|(_, next)| place(*next))
            .filter(|next| *next > behind)
            .min()
            .map_or(wanted, |next| next.min(wanted));
        let followed = behind.min(wanted);
        let mut fold = match self.fold.take() {
            Some(fold) if fold.next() <= behind => fold,
            // A projection starts anew.
            _other => {
                self.rights = None;
                self.bell.ring_all();
                Fold::at(&mut *connection, followed, &self.judge).await?
            }
        };
        // What another server has written is folded here and not written again.
        while fold.next() < followed {
            let Some(page) = fold.page(&mut *connection, followed).await? else {
                return Err(OpenError::Behind {
                    database: fold.next(),
                    file: followed,
                }
                .into());
            };
            Self::note(&page, &mut self.rights, &mut self.calls);
            fold.drop_settled();
        }
        let mut moved = false;
        if behind < wanted
            && let Some(page) = fold.page(&mut *connection, to).await?
        {
            moved = true;
            Self::note(&page, &mut self.rights, &mut self.calls);
            every!(P => {
                let cursor = cursors.iter().find(|(name, _)| *name == P::NAME);
                if cursor.is_some_and(|(_, next)| place(*next) == behind) {
                    P::apply(connection, &page).await?;
                }
            });
            let runs = cursors.iter().find(|(name, _)| *name == Runs::NAME);
            if runs.is_some_and(|(_, next)| place(*next) == behind) {
                search::fill(connection, &page).await?;
            }
        }
        let next = fold.next();
        fold.drop_settled();
        if moved {
            let names: Vec<&str> = cursors.iter().map(|(name, _)| *name).collect();
            sqlx::query("UPDATE cursors SET next = $2 WHERE next = $1 AND name = ANY($3)")
                .bind(signed(behind))
                .bind(signed(next))
                .bind(names)
                .execute(&mut *connection)
                .await?;
        }
        self.fold = Some(fold);
        Ok(Step { next, moved })
    }
}
