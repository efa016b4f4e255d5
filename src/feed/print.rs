//! Messages on a writer, line by line: what a sink would say, to try things.
//!
//! It reads the database as the serving role does, and moves no cursor.

use std::io::{self, Write};

use countersign_protocol::event::Event;
use countersign_protocol::hash::LedgerId;
use sqlx::{PgConnection, PgPool};

use super::config::{Format, Kinds};
use super::gather::Gatherer;
use super::message::Message;
use crate::ledger::{OpenError, history, store};

/// What to print.
#[derive(Debug, Clone)]
pub struct Printing {
    /// From this entry on.
    pub from: u64,
    /// How each is told.
    pub format: Format,
    /// Of which.
    pub kinds: Kinds,
    /// With free text.
    pub texts: bool,
}

/// Why nothing more is printed.
#[derive(Debug, thiserror::Error)]
pub enum PrintError {
    /// The log.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The database.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// Whoever reads is gone.
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
}

/// Prints all entries that are committed now.
///
/// # Errors
/// See [`PrintError`].
pub async fn print(
    pool: &PgPool,
    printing: Printing,
    out: &mut (dyn Write + Send),
) -> Result<(), PrintError> {
    let mut connection = pool.acquire().await?;
    let gatherer = gatherer(&mut connection, &printing).await?;
    let mut from = printing.from;
    loop {
        let page = gatherer.page(&mut connection, from, u64::MAX).await?;
        if page.leaf.is_none() {
            return Ok(());
        }
        for told in &page.told {
            let message = Message::new(told, &gatherer, printing.format);
            writeln!(out, "{}", message.body)?;
        }
        from = page.next;
    }
}

/// Whose entries they are, by the first of them.
async fn gatherer(
    connection: &mut PgConnection,
    printing: &Printing,
) -> Result<Gatherer, PrintError> {
    let rows = store::entries(connection, 0, 1, 1).await?;
    let first = rows.first().ok_or(OpenError::Empty)?;
    let entry = history::check(first)?;
    let Event::LedgerGenesis(genesis) = entry.verified.event() else {
        return Err(OpenError::Empty.into());
    };
    Ok(Gatherer {
        ledger: LedgerId::new(*entry.leaf.as_bytes()),
        origin: genesis.origin.clone(),
        kinds: printing.kinds.clone(),
        texts: printing.texts,
    })
}
