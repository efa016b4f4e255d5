//! How far a sink is, and the right to feed it: one server at a time, on a connection of its own.
//!
//! The right is an advisory lock that ends with the connection. Entries are read and the cursor is
//! moved through the same connection, so whoever has lost the right notices before the next message.

use countersign_protocol::hash::Hash;
use sha2::{Digest as _, Sha256};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection, Row as _};

use super::config::{Begin, SinkName};
use super::outlet::Trouble;
use crate::ledger::history;
use crate::ledger::store::{self, signed};

/// Keeps the lock's number apart from every other use of such a hash.
const LOCK_DOMAIN: &[u8] = b"countersign/feed-lock/v1\n";

/// A sink that this server feeds.
#[derive(Debug)]
pub(super) struct Cursor {
    connection: PgConnection,
    name: SinkName,
    next: u64,
}

fn lock_number(name: &SinkName) -> i64 {
    let hash = Sha256::new()
        .chain_update(LOCK_DOMAIN)
        .chain_update(name.as_str())
        .finalize();
    let mut bytes = [0; 8];
    for (byte, from) in bytes.iter_mut().zip(hash) {
        *byte = from;
    }
    i64::from_be_bytes(bytes)
}

impl Cursor {
    /// Takes the right to feed a sink; none while another server has it. A sink without a cursor
    /// begins where `begin` says, with a log of `size` entries.
    pub(super) async fn take(
        options: &PgConnectOptions,
        name: &SinkName,
        begin: Begin,
        size: u64,
    ) -> Result<Option<Self>, Trouble> {
        let options = options.clone().application_name("countersign feed");
        let mut connection = options.connect().await?;
        let is_ours: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
            .bind(lock_number(name))
            .fetch_one(&mut connection)
            .await?;
        if !is_ours {
            return Ok(None);
        }
        let mut cursor = Self {
            connection,
            name: name.clone(),
            next: 0,
        };
        cursor.load(begin, size).await?;
        Ok(Some(cursor))
    }

    /// Reads the cursor, or begins one; it must continue this log.
    async fn load(&mut self, begin: Begin, size: u64) -> Result<(), Trouble> {
        let row = sqlx::query("SELECT next, leaf FROM feed_cursors WHERE name = $1")
            .bind(self.name.as_str())
            .fetch_optional(&mut self.connection)
            .await?;
        let Some(row) = row else {
            self.next = match begin {
                Begin::Start => 0,
                Begin::Now => size,
            };
            let leaf = self.leaf_before().await?;
            sqlx::query("INSERT INTO feed_cursors (name, next, leaf) VALUES ($1, $2, $3)")
                .bind(self.name.as_str())
                .bind(signed(self.next))
                .bind(leaf.map(|leaf| leaf.as_bytes().to_vec()))
                .execute(&mut self.connection)
                .await?;
            return Ok(());
        };
        let next: i64 = row.try_get("next")?;
        let leaf: Option<Vec<u8>> = row.try_get("leaf")?;
        self.next = u64::try_from(next).unwrap_or(0);
        let known = leaf.as_deref().and_then(Hash::from_slice);
        if self.leaf_before().await? == known {
            Ok(())
        } else {
            Err(Trouble::History(self.next.saturating_sub(1)))
        }
    }

    /// The leaf of the last entry that was delivered.
    async fn leaf_before(&mut self) -> Result<Option<Hash>, Trouble> {
        let Some(last) = self.next.checked_sub(1) else {
            return Ok(None);
        };
        let rows = store::entries(&mut self.connection, last, self.next, 1).await?;
        let leaf = rows
            .first()
            .map(|row| history::check(row).map(|entry| entry.leaf));
        Ok(leaf.transpose()?)
    }

    /// The first entry that was not delivered.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// The connection that holds the right; what is read through it is read by right.
    pub(super) const fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Asks whether the right is still ours: after a wait, before anything is sent again.
    pub(super) async fn check(&mut self) -> Result<(), Trouble> {
        let next: i64 = sqlx::query_scalar("SELECT next FROM feed_cursors WHERE name = $1")
            .bind(self.name.as_str())
            .fetch_one(&mut self.connection)
            .await?;
        if next == signed(self.next) {
            Ok(())
        } else {
            Err(Trouble::Taken)
        }
    }

    /// Moves behind an entry that is delivered, or not told of.
    pub(super) async fn advance(&mut self, next: u64, leaf: Hash) -> Result<(), Trouble> {
        let moved = sqlx::query(
            "UPDATE feed_cursors SET next = $3, leaf = $4, updated = now()
             WHERE name = $1 AND next = $2",
        )
        .bind(self.name.as_str())
        .bind(signed(self.next))
        .bind(signed(next))
        .bind(leaf.as_bytes().as_slice())
        .execute(&mut self.connection)
        .await?;
        if moved.rows_affected() != 1 {
            return Err(Trouble::Taken);
        }
        self.next = next;
        Ok(())
    }
}
