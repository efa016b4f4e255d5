//! Rows on their way into a table, some MiB at a time.

use serde::Serialize;
use sqlx::PgConnection;

/// Bytes of JSON in one statement, about. Postgres takes no array of 256 MiB, and a page on which some hundred
/// commands of some thousand hosts come to their end is more.
const PIECE_BYTES: usize = 8 * 1024 * 1024;

/// A statement that takes rows as JSON, an array of objects, in `$1`; and the rows that wait for it.
pub(super) struct Rows {
    sql: &'static str,
    is_kept: bool,
    waiting: String,
}

impl Rows {
    /// None yet.
    pub(super) const fn into(sql: &'static str) -> Self {
        Self {
            sql,
            is_kept: true,
            waiting: String::new(),
        }
    }

    /// As [`Rows::into`], planned each time: a plan of a day when there were few rows would read all of them for ever.
    pub(super) fn onto(sql: &'static str) -> Self {
        Self {
            is_kept: false,
            ..Self::into(sql)
        }
    }

    /// One more.
    ///
    /// # Errors
    /// It has no form in JSON.
    pub(super) fn push<T: Serialize>(&mut self, row: &T) -> Result<(), sqlx::Error> {
        let row = serde_json::to_string(row).map_err(|error| sqlx::Error::Encode(error.into()))?;
        self.waiting
            .push(if self.waiting.is_empty() { '[' } else { ',' });
        self.waiting.push_str(&row);
        Ok(())
    }

    /// Whether as many wait as go at once.
    const fn is_full(&self) -> bool {
        self.waiting.len() >= PIECE_BYTES
    }

    /// Writes those that wait, if they are many.
    ///
    /// # Errors
    /// The database's.
    pub(super) async fn write_many(
        &mut self,
        connection: &mut PgConnection,
    ) -> Result<(), sqlx::Error> {
        if self.is_full() {
            self.write(connection).await?;
        }
        Ok(())
    }

    /// Writes those that wait.
    ///
    /// # Errors
    /// The database's.
    pub(super) async fn write(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let mut rows = std::mem::take(&mut self.waiting);
        rows.push(']');
        let query = sqlx::query(self.sql).persistent(self.is_kept).bind(rows);
        query.execute(connection).await.map(drop)
    }

    /// Writes these, of which a page has no more than entries.
    ///
    /// # Errors
    /// The database's.
    pub(super) async fn write_all<T: Serialize>(
        mut self,
        connection: &mut PgConnection,
        rows: Vec<T>,
    ) -> Result<(), sqlx::Error> {
        for row in rows {
            self.push(&row)?;
            self.write_many(connection).await?;
        }
        self.write(connection).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_wait_as_one_array_until_they_are_many() {
        let mut rows = Rows::into("");
        let long = "x".repeat(PIECE_BYTES / 4);
        for count in 1..=4_usize {
            assert!(!rows.is_full(), "{count}");
            rows.push(&long).unwrap();
        }
        assert!(rows.is_full());
        let all: Vec<String> = serde_json::from_str(&format!("{}]", rows.waiting)).unwrap();
        assert_eq!(all, [(); 4].map(|()| long.clone()));
    }
}
