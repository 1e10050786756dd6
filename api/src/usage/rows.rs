//! Usage rows in SQL: writing them in batches, each once, and reading them in pages.

use super::record::{Intent, Settled};
use crate::identity::Database;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{QueryBuilder, Row};

/// Rows on one page.
pub const PAGE_MAX: u32 = 1_000;

/// Most rows of one statement; a power of two.
const STATEMENT_MAX: usize = 256;

/// Writes rows in one transaction; those that are there already stay as they are.
pub(super) async fn insert(database: &Database, rows: &[(Intent, Settled)]) -> Result<(), sqlx::Error> {
    let mut change = database.pool().begin_with("BEGIN IMMEDIATE").await?;
    let mut rest = rows;
    while !rest.is_empty() {
        // Powers of two, so that few statements are prepared.
        let count = (1 << rest.len().ilog2()).min(STATEMENT_MAX);
        let (now, later) = rest.split_at(count);
        insert_some(&mut change, now).await?;
        rest = later;
    }
    change.commit().await
}

async fn insert_some(change: &mut SqliteConnection, rows: &[(Intent, Settled)]) -> Result<(), sqlx::Error> {
    let mut query = QueryBuilder::new(
        "INSERT INTO usage_entries (request_id, status, incarnation, key_id, user_id, team_id, pool, model, provider, \
         priority, reserved_tokens, prompt_tokens, completion_tokens, charged_tokens, http_status, streamed, \
         latency_us, queue_wait_us, started_at) ",
    );
    query.push_values(rows, |mut row, (intent, settled)| {
        row.push_bind(intent.call.to_string())
            .push_bind(settled.status.as_str())
            .push_bind(integer(intent.incarnation.0))
            .push_bind(intent.key_id.to_vec())
            .push_bind(intent.user.map(|id| id.to_vec()))
            .push_bind(intent.team.map(|id| id.to_vec()))
            .push_bind(intent.pool.to_string())
            .push_bind(intent.model.to_string())
            .push_bind(intent.target.to_string())
            .push_bind(intent.priority.0)
            .push_bind(integer(intent.tokens_reserved))
            .push_bind(integer(settled.prompt_tokens))
            .push_bind(integer(settled.completion_tokens))
            .push_bind(integer(settled.charged_tokens))
            .push_bind(settled.http_status)
            .push_bind(settled.streamed)
            .push_bind(integer(settled.latency_us))
            .push_bind(integer(settled.wait_us))
            .push_bind(integer(intent.started_wall_us));
    });
    query.push(" ON CONFLICT (request_id) DO NOTHING");
    query.build().execute(change).await.map(drop)
}

/// One upstream call, as it is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRow {
    /// Id of the request, with `.1` and so on for its later calls.
    pub request_id: String,
    /// `ok`, `cut` or `lost`.
    pub status: String,
    /// When the call began, in microseconds of the wall clock since the Unix epoch.
    pub started_at: u64,
    /// Id of the key, in hexadecimal.
    pub key_id: String,
    /// Id of the user.
    pub user_id: Option<String>,
    /// Id of the team.
    pub team_id: Option<String>,
    /// Label of the pool.
    pub pool: String,
    /// Model that was asked for.
    pub model: String,
    /// Target that was called.
    pub provider: String,
    /// How urgent it was.
    pub priority: u8,
    /// Tokens reserved.
    pub reserved_tokens: u64,
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens of the answer.
    pub completion_tokens: u64,
    /// Tokens charged.
    pub charged_tokens: u64,
    /// What it cost; absent until prices are known.
    pub cost_nano_usd: Option<u64>,
    /// The upstream's status; 0 when none came.
    pub http_status: u16,
    /// Whether the answer was streamed.
    pub streamed: bool,
    /// From the call's begin to its end.
    pub latency_us: u64,
    /// Time in the queue.
    pub queue_wait_us: u64,
}

/// Which rows are read.
#[derive(Clone, Debug)]
pub struct UsageQuery {
    /// Begun at this time or later, in microseconds of the wall clock.
    pub from_wall_us: u64,
    /// Begun before this time.
    pub to_wall_us: u64,
    /// Behind this row, in the order of time.
    pub after: Option<String>,
    /// At most so many, and never more than [`PAGE_MAX`].
    pub limit: u32,
}

/// One page of rows in the order of time; a full page may be followed by another.
///
/// # Errors
/// When the database does not answer.
pub async fn usage_page(database: &Database, query: &UsageQuery) -> Result<Vec<UsageRow>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT * FROM usage_entries WHERE started_at >= ? AND started_at < ? AND (?3 IS NULL OR \
         (started_at, request_id) > (SELECT started_at, request_id FROM usage_entries WHERE request_id = ?3)) \
         ORDER BY started_at, request_id LIMIT ?4",
    )
    .bind(integer(query.from_wall_us))
    .bind(integer(query.to_wall_us))
    .bind(query.after.as_deref())
    .bind(query.limit.min(PAGE_MAX))
    .fetch_all(database.pool())
    .await?;
    rows.iter().map(read).collect()
}

/// Whether there is a row of that id.
pub(crate) async fn usage_row_exists(database: &Database, request_id: &str) -> Result<bool, sqlx::Error> {
    let query = sqlx::query("SELECT 1 FROM usage_entries WHERE request_id = ?").bind(request_id);
    Ok(query.fetch_optional(database.pool()).await?.is_some())
}

fn read(row: &SqliteRow) -> Result<UsageRow, sqlx::Error> {
    let unsigned = |column: &str| row.try_get::<i64, _>(column).map(i64::unsigned_abs);
    let id = |column: &str| row.try_get::<Option<&[u8]>, _>(column).map(|id| id.map(hex::encode));
    Ok(UsageRow {
        request_id: row.try_get("request_id")?,
        status: row.try_get("status")?,
        started_at: unsigned("started_at")?,
        key_id: id("key_id")?.unwrap_or_default(),
        user_id: id("user_id")?,
        team_id: id("team_id")?,
        pool: row.try_get("pool")?,
        model: row.try_get("model")?,
        provider: row.try_get("provider")?,
        priority: row.try_get("priority")?,
        reserved_tokens: unsigned("reserved_tokens")?,
        prompt_tokens: unsigned("prompt_tokens")?,
        completion_tokens: unsigned("completion_tokens")?,
        charged_tokens: unsigned("charged_tokens")?,
        cost_nano_usd: row.try_get::<Option<i64>, _>("cost_nano_usd")?.map(i64::unsigned_abs),
        http_status: row.try_get("http_status")?,
        streamed: row.try_get("streamed")?,
        latency_us: unsigned("latency_us")?,
        queue_wait_us: unsigned("queue_wait_us")?,
    })
}

/// As SQL has it; an amount beyond its range, which only a lying upstream can report, is its largest.
fn integer(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}
