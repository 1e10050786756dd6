//! Sums of usage rows by key, user, team, model or day, and how long rows are kept.

use crate::identity::Database;
use crate::identity::sql::{Row, sql, sql_of};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const AMOUNT_MAX: u64 = 1_000_000_000_000;
const DAY_US: u64 = 86_400_000_000;
/// Rows that one statement removes, so that it holds no lock for long.
const REMOVED_MAX: u64 = 5_000;
const LOOK_EVERY: Duration = Duration::from_secs(3_600);

/// What rows are summed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The API key.
    Key,
    /// The user.
    User,
    /// The team.
    Team,
    /// The model that was asked for.
    Model,
    /// The day in UTC in which the call began.
    Day,
}

impl By {
    /// Every way.
    pub const ALL: [Self; 5] = [Self::Key, Self::User, Self::Team, Self::Model, Self::Day];

    /// Its name, as in addresses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::User => "user",
            Self::Team => "team",
            Self::Model => "model",
            Self::Day => "day",
        }
    }

    /// The way of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.as_str() == name)
    }

    fn column(self) -> &'static str {
        match self {
            Self::Key => "key_id",
            Self::User => "user_id",
            Self::Team => "team_id",
            Self::Model => "model",
            Self::Day => "started_at / 86400000000",
        }
    }

    fn name_of(self) -> &'static str {
        match self {
            Self::Key => "(SELECT name FROM api_keys WHERE id = what)",
            Self::User => "(SELECT name FROM users WHERE id = what)",
            Self::Team => "(SELECT name FROM teams WHERE id = what)",
            Self::Model | Self::Day => "NULL",
        }
    }
}

/// The sum of some rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageSum {
    /// The key's, user's or team's id, the model, or the day; empty for calls of no user or team.
    pub of: String,
    /// The name of that key, user or team.
    pub name: Option<String>,
    /// Upstream calls.
    pub calls: u64,
    /// Of these, those that were relayed to their end.
    pub ok: u64,
    /// Those that broke off.
    pub cut: u64,
    /// Those of which nobody knows the end.
    pub lost: u64,
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Tokens of answers.
    pub completion_tokens: u64,
    /// Tokens charged.
    pub charged_tokens: u64,
    /// What they cost, as far as prices were known.
    pub cost_nano_usd: u64,
}

/// Sums the rows that began in a time, the largest first; days in their order.
///
/// # Errors
/// When the database does not answer.
pub async fn usage_sums(
    database: &Database,
    by: By,
    from_wall_us: u64,
    to_wall_us: u64,
) -> Result<Vec<UsageSum>, sqlx::Error> {
    let order = if by == By::Day { "what" } else { "charged_tokens DESC, calls DESC" };
    let text = format!(
        "SELECT s.*, {} AS name FROM (SELECT {} AS what, count(*) AS calls, \
         CAST(sum(CASE WHEN status = 'ok' THEN 1 ELSE 0 END) AS BIGINT) AS ok, \
         CAST(sum(CASE WHEN status = 'cut' THEN 1 ELSE 0 END) AS BIGINT) AS cut, \
         CAST(sum(CASE WHEN status = 'lost' THEN 1 ELSE 0 END) AS BIGINT) AS lost, \
         {prompt_tokens}, \
         {completion_tokens}, \
         {charged_tokens}, \
         {cost_nano_usd} \
         FROM usage_entries WHERE started_at >= $1 AND started_at < $2 GROUP BY 1) AS s ORDER BY {order}",
        by.name_of(),
        by.column(),
        prompt_tokens = capped("prompt_tokens"),
        completion_tokens = capped("completion_tokens"),
        charged_tokens = capped("charged_tokens"),
        cost_nano_usd = capped("cost_nano_usd"),
    );
    let rows = database.all(sql_of(text).bind(from_wall_us).bind(to_wall_us)).await?;
    rows.iter().map(|row| read(row, by)).collect()
}

/// The sum of a column. An amount that only a lying upstream can report counts for so much that the sum cannot overflow.
fn capped(column: &str) -> String {
    format!(
        "CAST(coalesce(sum(CASE WHEN {column} > {AMOUNT_MAX} THEN {AMOUNT_MAX} ELSE {column} END), 0) AS BIGINT) AS {column}"
    )
}

fn read(row: &Row, by: By) -> Result<UsageSum, sqlx::Error> {
    let of = match by {
        By::Key | By::User | By::Team => row.optional_bytes::<16>("what")?.map(hex::encode).unwrap_or_default(),
        By::Model => row.text("what")?,
        By::Day => day(row.whole("what")?),
    };
    let name = match by {
        By::Key | By::User | By::Team => row.optional_text("name")?,
        By::Model | By::Day => None,
    };
    Ok(UsageSum {
        of,
        name,
        calls: row.whole("calls")?,
        ok: row.whole("ok")?,
        cut: row.whole("cut")?,
        lost: row.whole("lost")?,
        prompt_tokens: row.whole("prompt_tokens")?,
        completion_tokens: row.whole("completion_tokens")?,
        charged_tokens: row.whole("charged_tokens")?,
        cost_nano_usd: row.whole("cost_nano_usd")?,
    })
}

/// A day as people write it.
fn day(days: u64) -> String {
    let at = i64::try_from(days).ok().and_then(|days| time::OffsetDateTime::from_unix_timestamp(days * 86_400).ok());
    at.map(|at| at.date().to_string()).unwrap_or_default()
}

/// Removes rows older than so many days now and then; 0 days keeps them for ever. Every node may run this.
pub async fn keep_for(database: Database, days: u64, stop: CancellationToken) {
    if days == 0 {
        return;
    }
    loop {
        match remove_before(&database, raft::clock::wall_us().saturating_sub(days * DAY_US)).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, days, "usage rows were removed: they are older than is kept"),
            Err(error) => tracing::warn!(%error, "old usage rows are not removed"),
        }
        if stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_none() {
            return;
        }
    }
}

/// Removes the rows that began before a time; says how many.
pub(crate) async fn remove_before(database: &Database, wall_us: u64) -> Result<u64, sqlx::Error> {
    let mut removed = 0;
    loop {
        let some = sql("DELETE FROM usage_entries WHERE request_id IN \
                        (SELECT request_id FROM usage_entries WHERE started_at < $1 LIMIT $2)");
        let now = database.run(some.bind(wall_us).bind(REMOVED_MAX)).await?;
        removed += now;
        if now < REMOVED_MAX {
            return Ok(removed);
        }
    }
}
