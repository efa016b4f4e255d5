//! Which of the database's addresses leads to the primary: the one that takes writes.
//!
//! A standby answers like a primary until something is written, and what it holds may be old. So each
//! new connection is asked whether it takes writes, and while a server runs one more connection
//! watches the primary. When that one is lost the addresses are asked again, and new connections go
//! where writes are taken now. Whether the database there holds what was committed is not decided
//! here: the ledger compares it with its checkpoint file, wherever it is.

use std::fmt;
use std::time::Duration;

use futures_util::future::join_all;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, PgConnection, PgPool};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::ledger::OpenError;

/// How long one address may take to say what it is: a frozen machine says nothing for ever.
const ANSWER: Duration = Duration::from_secs(2);

/// How long a primary is looked for when a server starts, as long as some address does not answer.
const SEARCH: Duration = Duration::from_secs(5);

/// How long until the addresses are asked again.
const PAUSE: Duration = Duration::from_millis(250);

/// How often the primary is asked whether it still is one: a failover is noticed within this time,
/// and one row a second costs nothing.
const TICK: Duration = Duration::from_secs(1);

/// How long the primary may be silent before another one is looked for. Longer than a busy machine
/// needs for a word; whoever only paused is taken back.
const SILENCE: Duration = Duration::from_secs(3);

/// Says of a connection whether it is a standby's, and whether it takes writes.
const ASK: &str = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'off'";

/// On which timeline the primary writes: each promotion begins a higher one.
const TIMELINE: &str = "SELECT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)";

/// Where the database may be: one address or several, a comma between. May hold passwords.
#[derive(Clone)]
pub(crate) struct Addresses(Vec<PgConnectOptions>);

/// A connection that takes writes, and where it leads.
struct Found {
    index: usize,
    connection: PgConnection,
}

/// Why an address is not the primary's.
#[derive(Debug, thiserror::Error)]
enum Not {
    #[error("a standby, which is read-only")]
    Standby,
    #[error("it takes no writes (default_transaction_read_only is on)")]
    ReadOnly,
    #[error("no answer within {} s", ANSWER.as_secs())]
    Silent,
    #[error("{0}")]
    Away(#[from] sqlx::Error),
}

impl Not {
    /// Whether it may be otherwise in a moment without anybody's doing.
    fn may_pass(&self) -> bool {
        match self {
            Self::Standby | Self::ReadOnly => false,
            Self::Silent => true,
            Self::Away(sqlx::Error::Io(_)) => true,
            // Starting up, or shutting down.
            Self::Away(sqlx::Error::Database(error)) => {
                error.code().is_some_and(|code| code.starts_with("57P"))
            }
            Self::Away(_) => false,
        }
    }
}

/// What each address is instead of a primary.
#[derive(Debug, Default)]
pub struct Nowhere(Vec<(String, Not)>);

impl fmt::Display for Nowhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (place, not)) in self.0.iter().enumerate() {
            let between = if index == 0 { "" } else { "; " };
            write!(f, "{between}{place}: {not}")?;
        }
        Ok(())
    }
}

/// Why no primary was found.
#[derive(Debug, thiserror::Error)]
pub enum PrimaryError {
    /// Not an address.
    #[error(
        "the database's address cannot be read; it looks like postgres://user@host/name, and several have a comma between"
    )]
    Address,
    /// The one address there is does not answer, or lets nobody in.
    #[error(transparent)]
    Away(#[from] OpenError),
    /// Something answers, and takes no writes.
    #[error(
        "no address of the database takes writes ({0}). A ledger is served from the primary only. Give its address, or those of all its machines with a comma between; if the primary is lost, promote the standby first"
    )]
    Nowhere(Nowhere),
}

impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(place)).finish()
    }
}

impl Addresses {
    /// Reads them. A comma divides them where another address follows it, so that passwords may hold
    /// commas.
    ///
    /// # Errors
    /// [`PrimaryError::Address`].
    pub(crate) fn read(text: &SecretString) -> Result<Self, PrimaryError> {
        let is_next = |rest: &str| {
            let rest = rest.trim_start();
            rest.starts_with("postgres://") || rest.starts_with("postgresql://")
        };
        let mut addresses = Vec::new();
        let mut one = String::new();
        for part in text.expose_secret().split(',') {
            if is_next(part) && !one.is_empty() {
                addresses.push(address(&one)?);
                one.clear();
            } else if !one.is_empty() {
                one.push(',');
            }
            one.push_str(part);
        }
        addresses.push(address(&one)?);
        Ok(Self(addresses))
    }

    /// With settings that each connection asks of the database.
    pub(crate) fn with<const N: usize>(self, session: [(&str, &str); N]) -> Self {
        let with = |address: PgConnectOptions| address.options(session);
        Self(self.0.into_iter().map(with).collect())
    }

    /// A pool to the primary. It never holds a connection to a standby.
    ///
    /// # Errors
    /// There is no primary.
    pub(crate) async fn pool(&self, options: PgPoolOptions) -> Result<PgPool, PrimaryError> {
        let address = self.find().await?;
        Ok(only_primary(options).connect_lazy_with(address))
    }

    /// The address of the primary; looked for for some seconds, if it may come.
    ///
    /// # Errors
    /// There is none.
    pub(crate) async fn find(&self) -> Result<PgConnectOptions, PrimaryError> {
        let begun = Instant::now();
        loop {
            let nowhere = match self.search().await {
                Ok(found) => {
                    let address = self
                        .0
                        .get(found.index)
                        .ok_or(PrimaryError::Address)?
                        .clone();
                    let _gone = found.connection.close().await;
                    return Ok(address);
                }
                Err(nowhere) => nowhere,
            };
            if begun.elapsed() >= SEARCH || !nowhere.0.iter().any(|(_, not)| not.may_pass()) {
                return Err(nowhere.into());
            }
            sleep(PAUSE).await;
        }
    }

    /// Asks all of them at once. Of several that take writes, the one that was promoted last.
    async fn search(&self) -> Result<Found, Nowhere> {
        let answers = join_all(self.0.iter().map(ask)).await;
        let (mut found, mut nowhere) = (Vec::new(), Nowhere::default());
        for (index, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(connection) => found.push(Found { index, connection }),
                Err(not) => nowhere.0.push((self.place(index), not)),
            }
        }
        if found.len() > 1 {
            tracing::warn!(
                count = found.len(),
                "several of the database's addresses take writes; the one that was promoted last is taken"
            );
        }
        let mut best: Option<(String, Found)> = None;
        for mut found in found {
            let timeline = timeline(&mut found.connection).await;
            // Of two with the same one, the first in the list.
            if best.as_ref().is_none_or(|(best, _)| timeline > *best) {
                best = Some((timeline, found));
            }
        }
        best.map(|(_, found)| found).ok_or(nowhere)
    }

    /// Watches the primary until `shutdown`, and sends the pools to wherever it is.
    ///
    /// # Errors
    /// The primary fell silent, and there is another now, or the same anew. The connections to the
    /// silent one cannot be called back, and what waits on them waits for as long as the kernel
    /// believes in them: whoever holds them should end.
    pub(crate) async fn watch(
        self,
        pools: [PgPool; 3],
        shutdown: CancellationToken,
    ) -> Result<(), FellSilent> {
        tokio::select! {
            silent = self.follow(&pools) => Err(silent),
            () = shutdown.cancelled() => Ok(()),
        }
    }

    async fn follow(&self, pools: &[PgPool; 3]) -> FellSilent {
        let mut held = self.search_on().await;
        loop {
            self.lead(pools, held.index);
            let was_silent = until_lost(&mut held).await;
            let new = self.search_on().await;
            held = if was_silent {
                match outlived(held, new).await {
                    Ok(found) => found,
                    Err(new) => return FellSilent(self.place(new.index)),
                }
            } else {
                new
            };
        }
    }

    /// Asks all of them until one takes writes.
    async fn search_on(&self) -> Found {
        let mut is_told = false;
        loop {
            match self.search().await {
                Ok(found) => return found,
                Err(nowhere) if !is_told => {
                    tracing::warn!(why = %nowhere, "no address of the database takes writes");
                    is_told = true;
                }
                Err(_) => {}
            }
            sleep(PAUSE).await;
        }
    }

    fn place(&self, index: usize) -> String {
        self.0.get(index).map(place).unwrap_or_default()
    }

    /// Sends new connections to an address.
    fn lead(&self, pools: &[PgPool; 3], index: usize) {
        let Some(address) = self.0.get(index) else {
            return;
        };
        let is_new = pools
            .first()
            .is_none_or(|pool| place(&pool.connect_options()) != place(address));
        for pool in pools {
            pool.set_connect_options(address.clone());
        }
        if is_new {
            tracing::warn!(primary = place(address), "the database has another primary");
        }
    }
}

/// Watches the primary until it takes no writes any more or is silent. Says whether it is silent.
async fn until_lost(held: &mut Found) -> bool {
    loop {
        sleep(TICK).await;
        match timeout(SILENCE, takes_writes(&mut held.connection)).await {
            Ok(Ok(())) => {}
            Ok(Err(not)) => {
                tracing::warn!(why = %not, "the primary is lost; looking for it");
                return false;
            }
            Err(_) => {
                tracing::warn!("the primary is silent; looking for another");
                return true;
            }
        }
    }
}

/// What goes on being used after a silence: the connections there are, if it was a pause and nobody
/// took over meanwhile; new ones, if the old ones have ended.
///
/// # Errors
/// The old ones still hang, or lead to another machine than writes go to now.
async fn outlived(mut old: Found, new: Found) -> Result<Found, Found> {
    match timeout(ANSWER, takes_writes(&mut old.connection)).await {
        Ok(Ok(())) if old.index == new.index => Ok(old),
        Ok(Err(_)) => Ok(new),
        Ok(Ok(())) | Err(_) => Err(new),
    }
}

/// The primary fell silent and writes are taken elsewhere, or there anew.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "the database fell silent, and {0} takes writes now. What waits for the silent one cannot be called back: this server ends, and is to be started again"
)]
pub struct FellSilent(String);

impl From<Nowhere> for PrimaryError {
    fn from(nowhere: Nowhere) -> Self {
        let mut told = nowhere.0;
        match told.pop() {
            Some((_, Not::Away(error))) if told.is_empty() => Self::Away(error.into()),
            last => {
                told.extend(last);
                Self::Nowhere(Nowhere(told))
            }
        }
    }
}

fn address(text: &str) -> Result<PgConnectOptions, PrimaryError> {
    let address: PgConnectOptions = text.trim().parse().map_err(|_| PrimaryError::Address)?;
    // Several hosts in one address, as libpq reads them, would be looked up as one name.
    if address.get_host().contains(',') {
        return Err(PrimaryError::Address);
    }
    Ok(address)
}

/// A pool whose connections are asked, each when it is new, whether they take writes.
fn only_primary(options: PgPoolOptions) -> PgPoolOptions {
    options.after_connect(|connection, _meta| {
        Box::pin(async move {
            match takes_writes(connection).await {
                Ok(()) => Ok(()),
                Err(Not::Away(error)) => Err(error),
                Err(not) => Err(sqlx::Error::Configuration(not.into())),
            }
        })
    })
}

async fn ask(address: &PgConnectOptions) -> Result<PgConnection, Not> {
    let asked = async {
        let mut connection = PgConnection::connect_with(address).await?;
        takes_writes(&mut connection).await?;
        Ok(connection)
    };
    timeout(ANSWER, asked).await.unwrap_or(Err(Not::Silent))
}

async fn takes_writes(connection: &mut PgConnection) -> Result<(), Not> {
    let (standby, writes): (bool, bool) = sqlx::query_as(ASK).fetch_one(connection).await?;
    match (standby, writes) {
        (true, _) => Err(Not::Standby),
        (false, false) => Err(Not::ReadOnly),
        (false, true) => Ok(()),
    }
}

/// Eight hexadecimal digits, or nothing where the service does not tell: then the list's order counts.
async fn timeline(connection: &mut PgConnection) -> String {
    let asked = sqlx::query_scalar(TIMELINE).fetch_one(connection);
    match timeout(ANSWER, asked).await {
        Ok(Ok(timeline)) => timeline,
        Ok(Err(_)) | Err(_) => String::new(),
    }
}

/// Where an address leads, without user, password or database.
fn place(address: &PgConnectOptions) -> String {
    match address.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => format!("{}:{}", address.get_host(), address.get_port()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<String>, PrimaryError> {
        let addresses = Addresses::read(&SecretString::from(text))?;
        Ok(addresses.0.iter().map(place).collect())
    }

    #[test]
    fn addresses_are_divided_where_another_one_begins() {
        let two = "postgres://a:p,w@db1/x, postgresql://b@db2:6000/x";
        for text in [two, &two.replace(", ", ",")] {
            assert_eq!(read(text).unwrap(), ["db1:5432", "db2:6000"], "{text}");
        }
        let one = "postgresql:///x?host=%2Frun%2Fpg&user=a";
        assert_eq!(read(one).unwrap(), ["/run/pg"]);
    }

    #[test]
    fn what_is_no_address_is_told_without_repeating_it() {
        for text in ["", "secret", "postgres://a:secret@db1,db2/x"] {
            let told = read(text).unwrap_err();
            assert!(matches!(told, PrimaryError::Address), "{text}: {told}");
            assert!(!told.to_string().contains("secret"), "{told}");
        }
    }

    #[test]
    fn a_debug_form_holds_no_password() {
        let addresses = Addresses::read(&SecretString::from("postgres://a:secret@db1/x")).unwrap();
        assert_eq!(format!("{addresses:?}"), "[\"db1:5432\"]");
    }
}
