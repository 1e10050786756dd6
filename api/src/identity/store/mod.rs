//! Keys, users and teams in SQL: the durable layer, the only one that makes, changes and revokes them.
//!
//! Every change is one transaction: the row, what the ledger is still to hear of it, and who did it.

mod audit;
mod keys;
mod once;
mod outbox;
mod people;
mod rows;

pub use audit::{Actor, AuditEvent};
pub use once::Once;
pub(crate) use outbox::{OutboxRow, Told};

use super::database::{Change, Database};
use super::sql::{Query, Row};
use sqlx::error::ErrorKind;

/// Rows on one page of a list.
pub const PAGE: u32 = 500;

/// Why the store does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A field does not hold what it must.
    #[error("{field}: {problem}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// It would clash with what is there.
    #[error("{field}: {problem}")]
    Conflict {
        /// Which field.
        field: &'static str,
        /// With what it clashes.
        problem: &'static str,
    },
    /// Somebody else has changed it meanwhile.
    #[error("version: is stale, the present one is {now}")]
    Stale {
        /// The present version.
        now: u64,
    },
    /// There is no such thing.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// The database does not answer; nothing was changed.
    #[error("the key store does not answer: {0}")]
    Down(#[source] sqlx::Error),
    /// The database broke off while it committed.
    #[error("the key store broke off, the change may or may not be there: {0}")]
    Indeterminate(#[source] sqlx::Error),
    /// A row holds what we never write.
    #[error("the key store holds a row that cannot be read: {0}")]
    Corrupt(String),
    /// The system has no randomness to give.
    #[error("no randomness: {0}")]
    Random(#[source] std::io::Error),
}

impl StoreError {
    pub(super) fn invalid(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Invalid { field, problem: problem.into() }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if let Some(field) = taken(&error) {
            return Self::Conflict { field, problem: "another one has it" };
        }
        match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) => Self::Corrupt(error.to_string()),
            other => Self::Down(other),
        }
    }
}

/// The field whose value another row has already.
fn taken(error: &sqlx::Error) -> Option<&'static str> {
    let error = error.as_database_error().filter(|error| error.kind() == ErrorKind::UniqueViolation)?;
    // Postgres names the index (users_email), SQLite the column (users.email).
    let place = error.constraint().map_or_else(|| error.message().to_owned(), str::to_owned);
    Some(["email", "name"].into_iter().find(|field| place.contains(field)).unwrap_or("id"))
}

/// Keys, users and teams in a database.
#[derive(Clone, Debug)]
pub(super) struct Store {
    database: Database,
}

impl Store {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    async fn all(&self, query: Query) -> Result<Vec<Row>, StoreError> {
        Ok(self.database.all(query).await?)
    }

    async fn begin(&self) -> Result<Change, StoreError> {
        Ok(self.database.begin().await?)
    }
}

async fn commit(change: Change) -> Result<(), StoreError> {
    change.commit().await.map_err(StoreError::Indeterminate)
}

/// Fails when what is to be changed is no longer what its changer saw.
fn fresh(asked: Option<u64>, now: u64) -> Result<(), StoreError> {
    match asked {
        Some(version) if version != now => Err(StoreError::Stale { now }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;

fn new_id() -> Result<[u8; 16], StoreError> {
    let mut id = [0u8; 16];
    getrandom::fill(&mut id).map_err(|error| StoreError::Random(std::io::Error::other(error.to_string())))?;
    Ok(id)
}
