//! The SQL database behind keys and usage rows: opening it and bringing its schema up to date.

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use std::path::Path;
use std::time::Duration;

const CONNECTIONS: u32 = 4;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The configuration names none that we know.
    #[error("database_url must be `sqlite:PATH`, not `{0}`")]
    Url(String),
    /// Its folder cannot be made.
    #[error("cannot make the folder of {path}: {source}")]
    Folder {
        /// The database's file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It cannot be opened.
    #[error("cannot open the database {path}: {source}")]
    Open {
        /// The database's file.
        path: String,
        /// Why.
        source: sqlx::Error,
    },
    /// Its schema cannot be brought up to date.
    #[error("cannot migrate the database {path}: {source}")]
    Migrate {
        /// The database's file.
        path: String,
        /// Why.
        source: sqlx::migrate::MigrateError,
    },
}

/// An open database with the present schema. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Database {
    pool: SqlitePool,
}

impl Database {
    /// Opens `sqlite:PATH`, making the file and its folder where there is none, and migrates it. A commit is on disk
    /// when it returns.
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub async fn open(url: &str) -> Result<Self, DatabaseError> {
        let path = sqlite_path(url)?;
        if let Some(folder) = Path::new(path).parent() {
            std::fs::create_dir_all(folder)
                .map_err(|source| DatabaseError::Folder { path: path.to_owned(), source })?;
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_with(options)
            .await
            .map_err(|source| DatabaseError::Open { path: path.to_owned(), source })?;
        sqlx::migrate!("../migrations/sqlite")
            .run(&pool)
            .await
            .map_err(|source| DatabaseError::Migrate { path: path.to_owned(), source })?;
        Ok(Self { pool })
    }

    /// Its connections.
    pub(crate) fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    /// Says whether it answers.
    pub async fn answers(&self) -> bool {
        sqlx::query("SELECT 1").execute(&self.pool).await.is_ok()
    }

    /// Closes its connections, after what they are doing.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

fn sqlite_path(url: &str) -> Result<&str, DatabaseError> {
    let path = url.strip_prefix("sqlite:").map(|path| path.strip_prefix("//").unwrap_or(path));
    match path {
        Some(path) if !path.is_empty() && !path.contains('?') => Ok(path),
        _ => Err(DatabaseError::Url(scheme_only(url))),
    }
}

/// The part of a URL that holds no password.
fn scheme_only(url: &str) -> String {
    url.split_once(':').map_or_else(|| "..".to_owned(), |(scheme, _)| format!("{scheme}:.."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_database_opens_twice_and_keeps_its_schema() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", dir.path().join("new/identity.db").display());
        for _ in 0..2 {
            let database = Database::open(&url).await.unwrap();
            assert!(database.answers().await);
            for table in ["users", "teams", "api_keys", "token_metadata", "usage_entries", "prices", "outbox"] {
                let found = sqlx::query("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?").bind(table);
                assert!(found.fetch_optional(database.pool()).await.unwrap().is_some(), "{table}");
            }
            database.close().await;
        }
    }

    #[tokio::test]
    async fn another_kind_of_database_is_refused_without_showing_its_password() {
        for url in ["postgres://user:secret@host/db", "sqlite:", "identity.db"] {
            let error = Database::open(url).await.unwrap_err();
            assert!(matches!(error, DatabaseError::Url(_)), "{error}");
            assert!(!error.to_string().contains("secret"));
        }
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_made_is_one_sentence() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let url = format!("sqlite:{}", dir.path().join("file/identity.db").display());
        assert!(matches!(Database::open(&url).await, Err(DatabaseError::Folder { .. })));
    }
}
