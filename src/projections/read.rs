//! The queries over projections, each after a bounded wait, so that people read their own writes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use countersign_protocol::api::{AgentItem, AgentPresence, Base64, ChangeItem, CommandItem};
use countersign_protocol::checkpoint::Checkpoint;
use countersign_protocol::fold::Stream;
use countersign_protocol::hash::{CommandId, KeyId, StatementId};
use countersign_protocol::judgement::Judge;
use countersign_protocol::name::{AgentName, Principal, Time, TokenId};
use countersign_protocol::rights::{Holder, Rights};
use countersign_protocol::view;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row as _};
use tokio::sync::watch;

use super::bell::Bell;
use super::runner::Projected;
use crate::ledger::store::{self, signed};

/// How long a read waits for the rows to contain the newest entry that this server knows.
const CATCH_UP: Duration = Duration::from_secs(5);

/// Why a query gives nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The database.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// The rows did not catch up in time.
    #[error("the lists are behind the log; try again")]
    Behind,
    /// More than one command begins like this.
    #[error("more than one command begins like this; give more of the id")]
    Ambiguous,
}

/// Which commands to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// With this status word only.
    pub status: Option<String>,
    /// Of this requester only.
    pub requester: Option<Principal>,
    /// Requested before this place only.
    pub before: Option<u64>,
    /// At most so many.
    pub limit: u64,
}

/// Reads projections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reader {
    pub(super) pool: PgPool,
    log: watch::Receiver<Arc<Checkpoint>>,
    projected: watch::Receiver<Option<Projected>>,
    bell: Bell,
}

impl Reader {
    /// Reads what `projected` tells of, and waits for what `log` tells of.
    #[must_use]
    pub fn new(
        pool: PgPool,
        log: watch::Receiver<Arc<Checkpoint>>,
        projected: watch::Receiver<Option<Projected>>,
    ) -> Self {
        Self {
            pool,
            log,
            projected,
            bell: Bell::default(),
        }
    }

    /// What wakes the agents that listen; whoever follows the log for this reader rings it.
    #[must_use]
    pub fn bell(&self) -> Bell {
        self.bell.clone()
    }

    /// Waits, bounded, until the rows contain the newest entry that this server knows.
    ///
    /// # Errors
    /// [`ReadError::Behind`].
    pub async fn caught_up(&self) -> Result<Projected, ReadError> {
        let wanted = self.log.borrow().size();
        let mut projected = self.projected.clone();
        let there = projected.wait_for(|projected| {
            projected
                .as_ref()
                .is_some_and(|projected| projected.in_rows() >= wanted)
        });
        match tokio::time::timeout(CATCH_UP, there).await {
            Ok(Ok(projected)) => projected.clone().ok_or(ReadError::Behind),
            Ok(Err(_)) | Err(_) => Err(ReadError::Behind),
        }
    }

    /// Keys, people, agents and policy as of the newest entry that this server knows. Waits for the
    /// rows only when rights were touched since.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn rights(&self) -> Result<Arc<Rights>, ReadError> {
        let wanted = self.log.borrow().size();
        let known = self.projected.borrow().clone();
        // Also when the rows are gone: the rights were folded from the log.
        if let Some(Projected { size, rights, .. }) = known {
            let stream = Stream::Rights.id();
            if size >= wanted || !store::stream_moved(&self.pool, &stream, size, wanted).await? {
                return Ok(rights);
            }
        }
        Ok(self.caught_up().await?.rights)
    }

    /// Keys, people, agents and policy as the rows have them at this moment; the same one until it changes.
    #[must_use]
    pub fn rights_of_rows(&self) -> Option<Arc<Rights>> {
        let projected = self.projected.borrow();
        projected
            .as_ref()
            .map(|projected| Arc::clone(&projected.rights))
    }

    /// Says whether a key is known already and not revoked; a no may be out of date.
    #[must_use]
    pub fn knows(&self, key: &KeyId) -> bool {
        self.projected
            .borrow()
            .as_ref()
            .and_then(|projected| projected.rights.key(key))
            .is_some_and(|record| record.revoked.is_none())
    }

    /// Whose a key is; nothing may be out of date.
    #[must_use]
    pub fn holder(&self, key: &KeyId) -> Option<Holder> {
        let projected = self.projected.borrow();
        let record = projected.as_ref()?.rights.key(key)?;
        Some(record.holder.clone())
    }

    /// Tells of each step of the rows.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Option<Projected>> {
        self.projected.clone()
    }

    /// Entries that the rows contain at this moment.
    #[must_use]
    pub fn size(&self) -> u64 {
        let projected = self.projected.borrow();
        projected.as_ref().map_or(0, Projected::in_rows)
    }

    /// Commands, newest first.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn commands(&self, filter: &Filter) -> Result<Vec<CommandItem>, ReadError> {
        self.caught_up().await?;
        let rows = sqlx::query(
            "SELECT * FROM projections.commands
             WHERE ($1::text IS NULL OR status = $1) AND ($2::bigint IS NULL OR seq < $2)
               AND ($4::text IS NULL OR requester = $4)
             ORDER BY seq DESC LIMIT $3",
        )
        .bind(&filter.status)
        .bind(filter.before.map(signed))
        .bind(signed(filter.limit))
        .bind(filter.requester.as_ref().map(Principal::as_str))
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| command_item(row).map_err(ReadError::from))
            .collect()
    }

    /// One command.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn command(&self, id: &CommandId) -> Result<Option<CommandItem>, ReadError> {
        self.caught_up().await?;
        let row = sqlx::query("SELECT * FROM projections.commands WHERE id = $1")
            .bind(id.as_bytes().as_slice())
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.as_ref().map(command_item).transpose()?)
    }

    /// Those of these commands that there are, by their ids.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn these(
        &self,
        ids: &[CommandId],
    ) -> Result<BTreeMap<CommandId, CommandItem>, ReadError> {
        self.caught_up().await?;
        let ids: Vec<_> = ids.iter().map(|id| id.as_bytes().as_slice()).collect();
        let rows = sqlx::query("SELECT * FROM projections.commands WHERE id = ANY($1)")
            .bind(ids)
            .fetch_all(&self.pool)
            .await?;
        let item = |row: &PgRow| Ok((id(row, "id")?, command_item(row)?));
        rows.iter().map(item).collect()
    }

    /// The one command whose id lies between two bounds, both included.
    ///
    /// # Errors
    /// [`ReadError::Ambiguous`] when there are several.
    pub async fn find(
        &self,
        low: [u8; 32],
        high: [u8; 32],
    ) -> Result<Option<CommandId>, ReadError> {
        self.caught_up().await?;
        let rows =
            sqlx::query("SELECT id FROM projections.commands WHERE id BETWEEN $1 AND $2 LIMIT 2")
                .bind(low.as_slice())
                .bind(high.as_slice())
                .fetch_all(&self.pool)
                .await?;
        match rows.as_slice() {
            [] => Ok(None),
            [row] => Ok(Some(id(row, "id")?)),
            _several => Err(ReadError::Ambiguous),
        }
    }

    /// What waits for a person: commands, and changes of rights, oldest first.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn inbox(
        &self,
        person: &Principal,
        limit: u64,
        judge: &dyn Judge,
    ) -> Result<(Vec<CommandItem>, Vec<ChangeItem>), ReadError> {
        // The rows, and not the rights alone: people read their own approvals.
        let rights = self.caught_up().await?.rights;
        let rows = sqlx::query(
            "SELECT c.* FROM projections.inbox i JOIN projections.commands c USING (id)
             WHERE i.principal = $1 ORDER BY c.seq LIMIT $2",
        )
        .bind(person.as_str())
        .bind(signed(limit))
        .fetch_all(&self.pool)
        .await?;
        let commands = rows.iter().map(command_item).collect::<Result<_, _>>()?;
        let rows =
            sqlx::query("SELECT id FROM projections.inbox WHERE principal = $1 AND is_change")
                .bind(person.as_str())
                .fetch_all(&self.pool)
                .await?;
        let mut changes = Vec::new();
        for row in &rows {
            let id: StatementId = id(row, "id")?;
            changes.extend(
                rights
                    .change(&id)
                    .map(|change| view::change_item(&rights, judge, &id, change)),
            );
        }
        changes.sort_by_key(|change: &ChangeItem| change.seq);
        Ok((commands, changes))
    }

    /// Keeps when an API token was used.
    ///
    /// # Errors
    /// The database's.
    pub async fn keep_token_use(&self, token: &TokenId, now: Time) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO projections.token_uses VALUES ($1, $2) ON CONFLICT (token)
             DO UPDATE SET last_us = greatest(token_uses.last_us, excluded.last_us)",
        )
        .bind(token.as_str())
        .bind(signed(now.as_micros()))
        .execute(&self.pool)
        .await
        .map(drop)
    }

    /// When each API token was last used, to the minute.
    ///
    /// # Errors
    /// The database's.
    pub async fn token_uses(&self) -> Result<BTreeMap<String, u64>, sqlx::Error> {
        let rows = sqlx::query("SELECT token, last_us FROM projections.token_uses")
            .fetch_all(&self.pool)
            .await?;
        let of = |row: &PgRow| Ok((row.try_get("token")?, number(row, "last_us")?));
        rows.iter().map(of).collect()
    }

    /// Says whether a command waits for this person's judgement.
    ///
    /// # Errors
    /// The database's.
    pub async fn waits_for(&self, person: &Principal, id: &CommandId) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM projections.inbox WHERE principal = $1 AND id = $2)",
        )
        .bind(person.as_str())
        .bind(id.as_bytes().as_slice())
        .fetch_one(&self.pool)
        .await
    }

    /// All agents.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn agents(&self) -> Result<Vec<AgentItem>, ReadError> {
        self.caught_up().await?;
        let rows = sqlx::query("SELECT * FROM projections.agents ORDER BY agent, key_id")
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| agent_item(row).map_err(ReadError::from))
            .collect()
    }

    /// By key id: the newest word of each agent's key in the log, and its runs that have not ended.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn agents_said(&self) -> Result<BTreeMap<String, AgentPresence>, ReadError> {
        let rows = sqlx::query(
            "SELECT a.key_id, newest.seq, newest.time_us,
                 (SELECT count(*) FROM projections.executions e
                  WHERE e.agent = a.agent AND e.key_id = a.key_id
                    AND e.authorized AND e.status = 'running') AS running
             FROM projections.agents a LEFT JOIN LATERAL
                 (SELECT d.seq, d.time_us FROM projections.deeds d
                  WHERE d.who = a.agent AND d.author = 'host' AND d.fingerprint = a.fingerprint
                  ORDER BY d.seq DESC LIMIT 1) AS newest ON true",
        )
        .fetch_all(&self.pool)
        .await?;
        let of = |row: &PgRow| {
            let known = |column: &str| -> Result<Option<u64>, sqlx::Error> {
                let value: Option<i64> = row.try_get(column)?;
                Ok(value.and_then(|value| u64::try_from(value).ok()))
            };
            let presence = AgentPresence {
                last_statement_us: known("time_us")?,
                last_statement_seq: known("seq")?,
                running: known("running")?.unwrap_or_default(),
                ..AgentPresence::default()
            };
            Ok((row.try_get("key_id")?, presence))
        };
        rows.iter().map(of).collect()
    }

    /// Authorized commands that name this key of an agent and that it has not ended, oldest first.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn work(&self, agent: &AgentName, key: &KeyId) -> Result<Vec<OpenWork>, ReadError> {
        self.caught_up().await?;
        let rows = sqlx::query(
            "SELECT e.command, e.status = 'waiting' AS waiting, e.may_start, c.cancelled
             FROM projections.executions e JOIN projections.commands c ON c.id = e.command
             WHERE e.agent = $1 AND e.key_id = $2
               AND e.authorized AND e.status IN ('waiting', 'running')
             ORDER BY c.seq",
        )
        .bind(agent.as_str())
        .bind(key.to_string())
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(OpenWork {
                    command: id(row, "command")?,
                    waiting: row.try_get("waiting")?,
                    may_start: row.try_get("may_start")?,
                    cancelled: row.try_get("cancelled")?,
                })
            })
            .collect()
    }

    /// Where a host's turn in a rollout and its end stand in the log. A host that the command does
    /// not name has neither.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn places(
        &self,
        command: &CommandId,
        agent: &AgentName,
    ) -> Result<Places, ReadError> {
        self.caught_up().await?;
        let row = sqlx::query(
            "SELECT released_seq, over_seq FROM projections.executions
             WHERE command = $1 AND agent = $2",
        )
        .bind(command.as_bytes().as_slice())
        .bind(agent.as_str())
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else {
            return Ok(Places::default());
        };
        let seq = |column: &str| {
            let seq: Option<i64> = row.try_get(column)?;
            Ok::<_, sqlx::Error>(seq.and_then(|seq| u64::try_from(seq).ok()))
        };
        Ok(Places {
            released: seq("released_seq")?,
            over: seq("over_seq")?,
        })
    }
}

/// Where a host's part of a command stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Places {
    /// Its turn.
    pub released: Option<u64>,
    /// Its end.
    pub over: Option<u64>,
}

/// A host's part of an authorized command that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenWork {
    /// The command.
    pub command: CommandId,
    /// Not started; otherwise it runs.
    pub waiting: bool,
    /// In a rollout: it has its turn; otherwise always.
    pub may_start: bool,
    /// A person wants it stopped.
    pub cancelled: bool,
}

pub(super) fn id(row: &PgRow, column: &str) -> Result<StatementId, sqlx::Error> {
    let bytes: Vec<u8> = row.try_get(column)?;
    StatementId::from_slice(&bytes).ok_or_else(|| sqlx::Error::Decode("an id has 32 bytes".into()))
}

fn number(row: &PgRow, column: &str) -> Result<u64, sqlx::Error> {
    let number: i64 = row.try_get(column)?;
    u64::try_from(number).map_err(|error| sqlx::Error::Decode(error.into()))
}

fn command_item(row: &PgRow) -> Result<CommandItem, sqlx::Error> {
    let count = |column| {
        let number: Option<i32> = row.try_get(column)?;
        Ok::<_, sqlx::Error>(number.and_then(|number| u32::try_from(number).ok()))
    };
    let retry_of: Option<&[u8]> = row.try_get("retry_of")?;
    Ok(CommandItem {
        retry_of: retry_of.map(hex::encode),
        id: id(row, "id")?.to_string(),
        status: row.try_get("status")?,
        requester: row.try_get("requester")?,
        requested_us: number(row, "requested_us")?,
        seq: number(row, "seq")?,
        expires_us: number(row, "expires_us")?,
        approved_by: row.try_get("approved_by")?,
        approvals: count("approvals")?,
        needed: count("needed")?,
        hosts: count("hosts")?.unwrap_or(0),
        targets: row.try_get("targets")?,
    })
}

fn agent_item(row: &PgRow) -> Result<AgentItem, sqlx::Error> {
    let seq: Option<i64> = row.try_get("seq")?;
    Ok(AgentItem {
        presence: None,
        agent: row.try_get("agent")?,
        status: row.try_get("status")?,
        key_id: row.try_get("key_id")?,
        fingerprint: row.try_get("fingerprint")?,
        key: Base64(row.try_get("key")?),
        seq: seq.and_then(|seq| u64::try_from(seq).ok()),
        labels: row.try_get("labels")?,
        drained: row.try_get("drained")?,
        // Of the rights, which whoever answers holds.
        facts: BTreeMap::new(),
        sealing_key: row.try_get::<Option<_>, _>("sealing_key")?.map(Base64),
    })
}
