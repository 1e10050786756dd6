//! Usage rows in SQL: writing them in batches, each once, and reading them in pages.

use super::record::{Intent, Settled};
use crate::identity::Database;
use crate::identity::sql::{Query, Row, sql, sql_of};
use serde::{Deserialize, Serialize};

/// Rows on one page.
pub const PAGE_MAX: u32 = 1_000;

/// Most rows of one statement; a power of two.
const STATEMENT_MAX: usize = 256;

const COLUMNS: &str = "request_id, status, incarnation, key_id, user_id, team_id, pool, model, provider, priority, \
                       reserved_tokens, prompt_tokens, completion_tokens, charged_tokens, http_status, streamed, \
                       latency_us, queue_wait_us, started_at";

/// Writes rows in one transaction; those that are there already stay as they are.
pub(super) async fn insert(database: &Database, rows: &[(Intent, Settled)]) -> Result<(), sqlx::Error> {
    let mut change = database.begin().await?;
    let mut rest = rows;
    while !rest.is_empty() {
        // Powers of two, so that few statements are prepared.
        let count = (1 << rest.len().ilog2()).min(STATEMENT_MAX);
        let (now, later) = rest.split_at(count);
        change.run(insertion(now)).await?;
        rest = later;
    }
    change.commit().await
}

fn insertion(rows: &[(Intent, Settled)]) -> Query {
    let columns = COLUMNS.split(", ").count();
    let mut text = format!("INSERT INTO usage_entries ({COLUMNS}) VALUES ");
    for row in 0..rows.len() {
        let parameters: Vec<String> = (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
        text.push_str(if row == 0 { "(" } else { ", (" });
        text.push_str(&parameters.join(", "));
        text.push(')');
    }
    text.push_str(" ON CONFLICT (request_id) DO NOTHING");
    rows.iter().fold(sql_of(text), |query, (intent, settled)| {
        query
            .bind(intent.call.to_string().as_str())
            .bind(settled.status.as_str())
            .bind(intent.incarnation.0)
            .bind(intent.key_id)
            .bind(intent.user)
            .bind(intent.team)
            .bind(&*intent.pool)
            .bind(&*intent.model)
            .bind(&*intent.target)
            .bind(u64::from(intent.priority.0))
            .bind(intent.tokens_reserved)
            .bind(settled.prompt_tokens)
            .bind(settled.completion_tokens)
            .bind(settled.charged_tokens)
            .bind(u64::from(settled.http_status))
            .bind(u64::from(settled.streamed))
            .bind(settled.latency_us)
            .bind(settled.wait_us)
            .bind(intent.started_wall_us)
    })
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
    let query = sql("SELECT * FROM usage_entries WHERE started_at >= $1 AND started_at < $2 AND ($3 IS NULL OR \
                     (started_at, request_id) > (SELECT started_at, request_id FROM usage_entries WHERE request_id = $3)) \
                     ORDER BY started_at, request_id LIMIT $4")
    .bind(query.from_wall_us)
    .bind(query.to_wall_us)
    .bind(query.after.as_deref())
    .bind(u64::from(query.limit.min(PAGE_MAX)));
    database.all(query).await?.iter().map(read).collect()
}

/// Whether there is a row of that id.
pub(crate) async fn usage_row_exists(database: &Database, request_id: &str) -> Result<bool, sqlx::Error> {
    let query = sql("SELECT request_id FROM usage_entries WHERE request_id = $1").bind(request_id);
    Ok(database.first(query).await?.is_some())
}

fn read(row: &Row) -> Result<UsageRow, sqlx::Error> {
    let id = |column: &str| row.optional_bytes::<16>(column).map(|id| id.map(hex::encode));
    let small = |column: &str| row.whole(column).map(|value| u16::try_from(value).unwrap_or(u16::MAX));
    Ok(UsageRow {
        request_id: row.text("request_id")?,
        status: row.text("status")?,
        started_at: row.whole("started_at")?,
        key_id: id("key_id")?.unwrap_or_default(),
        user_id: id("user_id")?,
        team_id: id("team_id")?,
        pool: row.text("pool")?,
        model: row.text("model")?,
        provider: row.text("provider")?,
        priority: u8::try_from(small("priority")?).unwrap_or(u8::MAX),
        reserved_tokens: row.whole("reserved_tokens")?,
        prompt_tokens: row.whole("prompt_tokens")?,
        completion_tokens: row.whole("completion_tokens")?,
        charged_tokens: row.whole("charged_tokens")?,
        cost_nano_usd: row.optional_whole("cost_nano_usd")?,
        http_status: small("http_status")?,
        streamed: small("streamed")? > 0,
        latency_us: row.whole("latency_us")?,
        queue_wait_us: row.whole("queue_wait_us")?,
    })
}
