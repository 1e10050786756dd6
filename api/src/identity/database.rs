//! The SQL database behind keys and usage rows, SQLite or Postgres: opening it and bringing its schema up to date.

use super::sql::{Query, Row};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Postgres, Sqlite, Transaction};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use tokio::sync::OnceCell;

const SQLITE_CONNECTIONS: u32 = 4;
const POSTGRES_CONNECTIONS: u32 = 10;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a start waits for a Postgres that does not answer, before it goes on without it.
const FIRST_WAIT: Duration = Duration::from_secs(5);

/// Why a database cannot be used. No message holds a password.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The configuration names none that we know.
    #[error("database_url must be `sqlite:PATH` or `postgres://HOST/NAME`, not `{0}`")]
    Url(String),
    /// The address of Redis cannot be read.
    #[error("redis_url must be like `redis://HOST:PORT`")]
    Redis,
    /// Its folder cannot be made.
    #[error("cannot make the folder of {path}: {source}")]
    Folder {
        /// The database's file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It cannot be opened.
    #[error("cannot open the database {name}: {source}")]
    Open {
        /// The database's file, or its host and name.
        name: String,
        /// Why.
        source: sqlx::Error,
    },
    /// Its schema cannot be brought up to date.
    #[error("cannot migrate the database {name}: {source}")]
    Migrate {
        /// The database's file, or its host and name.
        name: String,
        /// Why.
        source: MigrateError,
    },
}

/// A database. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Database {
    pool: Pool,
    name: String,
    /// Set once the schema is up to date.
    migrated: std::sync::Arc<OnceCell<()>>,
}

#[derive(Clone, Debug)]
enum Pool {
    Sqlite(SqlitePool, PathBuf),
    Postgres(PgPool),
}

/// A transaction. Dropping it undoes it.
pub(crate) enum Change {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

impl Database {
    /// Opens `sqlite:PATH`, making the file and its folder where there is none, or `postgres://..`, and migrates it. A
    /// Postgres that does not answer now is no error: it is migrated when it does, see [`Database::prepare`].
    ///
    /// # Errors
    /// See [`DatabaseError`].
    pub async fn open(url: &str) -> Result<Self, DatabaseError> {
        let database = if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Self::postgres(url)?
        } else {
            Self::sqlite(url).await?
        };
        match tokio::time::timeout(FIRST_WAIT, database.prepare()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) if !database.is_absent(&error) => return Err(error),
            Ok(Err(error)) => tracing::warn!(%error, "the database does not answer; going on without it until it does"),
            Err(_) => tracing::warn!(database = %database.name, "the database does not answer; going on without it"),
        }
        Ok(database)
    }

    async fn sqlite(url: &str) -> Result<Self, DatabaseError> {
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
            .max_connections(SQLITE_CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_with(options)
            .await
            .map_err(|source| DatabaseError::Open { name: path.to_owned(), source })?;
        Ok(Self { pool: Pool::Sqlite(pool, path.into()), name: path.to_owned(), migrated: Default::default() })
    }

    fn postgres(url: &str) -> Result<Self, DatabaseError> {
        let options = PgConnectOptions::from_str(url).map_err(|_| DatabaseError::Url(scheme_only(url)))?;
        let options = options.application_name("tokligence");
        let name = format!("{}:{}/{}", options.get_host(), options.get_port(), options.get_database().unwrap_or(""));
        let pool = PgPoolOptions::new()
            .max_connections(POSTGRES_CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_lazy_with(options);
        Ok(Self { pool: Pool::Postgres(pool), name, migrated: Default::default() })
    }

    /// Sees that it answers and that its schema is up to date. Of several nodes that do so at once, one migrates and
    /// the others wait.
    ///
    /// # Errors
    /// [`DatabaseError::Open`] when it does not answer, [`DatabaseError::Migrate`] when its schema cannot be mended.
    pub async fn prepare(&self) -> Result<(), DatabaseError> {
        self.migrated.get_or_try_init(|| self.migrate()).await?;
        let answers = self.run(super::sql::sql("SELECT 1")).await;
        answers.map(drop).map_err(|source| DatabaseError::Open { name: self.name.clone(), source })
    }

    /// Whether its schema is known to be up to date.
    pub fn is_prepared(&self) -> bool {
        self.migrated.initialized()
    }

    async fn migrate(&self) -> Result<(), DatabaseError> {
        let failed = |source| DatabaseError::Migrate { name: self.name.clone(), source };
        match &self.pool {
            Pool::Sqlite(pool, path) => {
                // SQLite has no advisory locks; a lock on a file beside it does the same for the processes of a machine.
                let _only_one = lock_beside(path).await.map_err(|error| failed(sqlx::Error::Io(error).into()))?;
                tolerant(sqlx::migrate!("../migrations/sqlite")).run(pool).await.map_err(failed)
            }
            // Holds `pg_advisory_lock` while it works.
            Pool::Postgres(pool) => tolerant(sqlx::migrate!("../migrations/postgres")).run(pool).await.map_err(failed),
        }
    }

    /// Whether an error says that nobody is there, rather than that something is wrong.
    fn is_absent(&self, error: &DatabaseError) -> bool {
        let cause = match error {
            DatabaseError::Open { source, .. } => source,
            DatabaseError::Migrate { source: MigrateError::Execute(source), .. } => source,
            _ => return false,
        };
        let absent = match cause {
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => true,
            // Class 57: starting up, or shutting down; class 53: no connection is left.
            sqlx::Error::Database(error) => error.code().is_some_and(|code| ["57", "53"].contains(&&code[..2])),
            _ => false,
        };
        absent && matches!(self.pool, Pool::Postgres(_))
    }

    /// Every row that a query gives.
    pub(crate) async fn all(&self, query: Query) -> Result<Vec<Row>, sqlx::Error> {
        match &self.pool {
            Pool::Sqlite(pool, _) => Ok(rows(query.for_sqlite().fetch_all(pool).await?, Row::Sqlite)),
            Pool::Postgres(pool) => Ok(rows(query.for_postgres().fetch_all(pool).await?, Row::Postgres)),
        }
    }

    /// The first row that a query gives.
    pub(crate) async fn first(&self, query: Query) -> Result<Option<Row>, sqlx::Error> {
        match &self.pool {
            Pool::Sqlite(pool, _) => Ok(query.for_sqlite().fetch_optional(pool).await?.map(Row::Sqlite)),
            Pool::Postgres(pool) => Ok(query.for_postgres().fetch_optional(pool).await?.map(Row::Postgres)),
        }
    }

    /// Runs a statement; says how many rows it touched.
    pub(crate) async fn run(&self, query: Query) -> Result<u64, sqlx::Error> {
        match &self.pool {
            Pool::Sqlite(pool, _) => Ok(query.for_sqlite().execute(pool).await?.rows_affected()),
            Pool::Postgres(pool) => Ok(query.for_postgres().execute(pool).await?.rows_affected()),
        }
    }

    /// Begins a transaction that writes. In SQLite it takes the write lock at once, so that two of them queue up instead
    /// of failing at their first write.
    pub(crate) async fn begin(&self) -> Result<Change, sqlx::Error> {
        match &self.pool {
            Pool::Sqlite(pool, _) => pool.begin_with("BEGIN IMMEDIATE").await.map(Change::Sqlite),
            Pool::Postgres(pool) => pool.begin().await.map(Change::Postgres),
        }
    }

    /// Closes its connections, after what they are doing.
    pub async fn close(&self) {
        match &self.pool {
            Pool::Sqlite(pool, _) => pool.close().await,
            Pool::Postgres(pool) => pool.close().await,
        }
    }
}

impl Change {
    /// Every row that a query gives.
    pub(crate) async fn all(&mut self, query: Query) -> Result<Vec<Row>, sqlx::Error> {
        match self {
            Self::Sqlite(change) => Ok(rows(query.for_sqlite().fetch_all(&mut **change).await?, Row::Sqlite)),
            Self::Postgres(change) => Ok(rows(query.for_postgres().fetch_all(&mut **change).await?, Row::Postgres)),
        }
    }

    /// The first row that a query gives.
    pub(crate) async fn first(&mut self, query: Query) -> Result<Option<Row>, sqlx::Error> {
        Ok(self.all(query).await?.into_iter().next())
    }

    /// Runs a statement; says how many rows it touched.
    pub(crate) async fn run(&mut self, query: Query) -> Result<u64, sqlx::Error> {
        match self {
            Self::Sqlite(change) => Ok(query.for_sqlite().execute(&mut **change).await?.rows_affected()),
            Self::Postgres(change) => Ok(query.for_postgres().execute(&mut **change).await?.rows_affected()),
        }
    }

    /// Makes it so. When this fails, the change may or may not be there.
    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(change) => change.commit().await,
            Self::Postgres(change) => change.commit().await,
        }
    }
}

fn rows<R>(rows: Vec<R>, wrap: impl Fn(R) -> Row) -> Vec<Row> {
    rows.into_iter().map(wrap).collect()
}

/// A schema with migrations of a newer version is no obstacle: migrations expand before they contract.
fn tolerant(mut schema: Migrator) -> Migrator {
    schema.set_ignore_missing(true);
    schema
}

/// Waits for the lock; dropping the file gives it back.
async fn lock_beside(path: &Path) -> std::io::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push("-migrating");
    let locked = tokio::task::spawn_blocking(move || {
        let file = File::create(name)?;
        file.lock()?;
        Ok(file)
    });
    locked.await.map_err(std::io::Error::other)?
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
    async fn another_kind_of_database_is_refused_without_showing_its_password() {
        for url in ["mysql://user:secret@host/db", "sqlite:", "identity.db", "postgres://user:secret@host:port/db"] {
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
