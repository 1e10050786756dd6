//! `/api/v1/admin/usage`: usage rows in pages, or all of them as one stream of CSV or JSON.

use super::Admin;
use super::error::{AdminError, json, unavailable};
use super::fields::Fields;
use super::keys::moment;
use crate::identity::Database;
use crate::usage::{By, PAGE_MAX, UsageQuery, UsageRow, UsageSum, usage_page, usage_row_exists, usage_sums};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use std::fmt::Write as _;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime};

const PAGE_DEFAULT: u32 = 100;
const CSV: &str = "text/csv; charset=utf-8";
const HEAD: &str = "request_id,status,started_at,key_id,user_id,team_id,pool,model,provider,priority,reserved_tokens,\
                    prompt_tokens,completion_tokens,charged_tokens,cost_nano_usd,http_status,streamed,latency_us,\
                    queue_wait_us\n";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Csv,
    Json,
}

pub(super) async fn rows(State(admin): State<Admin>, request: Request) -> Result<Response, AdminError> {
    let mut fields = Fields::of_query(request.uri())?;
    let mut query = UsageQuery {
        from_wall_us: time(&mut fields, "from")?.unwrap_or(0),
        to_wall_us: time(&mut fields, "to")?.unwrap_or(u64::MAX),
        after: fields.text("after")?,
        limit: PAGE_DEFAULT,
    };
    let limit = fields.whole("limit", PAGE_MAX.into())?;
    let format = format(&mut fields)?;
    fields.done()?;
    let database = admin.identity.database().clone();
    if let Some(format) = format {
        if limit.is_some() || query.after.is_some() {
            return Err(AdminError::invalid("format", "gives all rows: not together with limit or after"));
        }
        query.limit = PAGE_MAX;
        return Ok(export(database, query, format));
    }
    query.limit = match limit {
        Some(0) => return Err(AdminError::invalid("limit", "must be at least 1")),
        Some(limit) => u32::try_from(limit).unwrap_or(PAGE_MAX),
        None => PAGE_DEFAULT,
    };
    if let Some(after) = &query.after
        && !usage_row_exists(&database, after).await.map_err(|cause| unavailable(&cause))?
    {
        return Err(AdminError::invalid("after", "must be the id of a usage row"));
    }
    let rows = usage_page(&database, &query).await.map_err(|cause| unavailable(&cause))?;
    let next = if rows.len() == query.limit as usize { rows.last().map(|row| row.request_id.clone()) } else { None };
    Ok(json(StatusCode::OK, &serde_json::json!({ "usage": rows, "next": next })))
}

/// `/api/v1/admin/usage/summary`: rows summed by key, user, team, model or day.
pub(super) async fn summary(State(admin): State<Admin>, request: Request) -> Result<Response, AdminError> {
    let mut fields = Fields::of_query(request.uri())?;
    let from = time(&mut fields, "from")?.unwrap_or(0);
    let to = time(&mut fields, "to")?.unwrap_or(u64::MAX);
    let names = By::ALL.map(By::as_str).join(", ");
    let by = fields.text("by")?.as_deref().and_then(By::parse);
    let by = by.ok_or_else(|| AdminError::invalid("by", format!("must be one of {names}")))?;
    let format = format(&mut fields)?;
    fields.done()?;
    let sums = usage_sums(admin.identity.database(), by, from, to).await.map_err(|cause| unavailable(&cause))?;
    match format {
        Some(Format::Csv) => Ok(([(CONTENT_TYPE, CSV)], csv_sums(by, &sums)).into_response()),
        Some(Format::Json) | None => Ok(json(StatusCode::OK, &serde_json::json!({ "by": by.as_str(), "sums": sums }))),
    }
}

fn csv_sums(by: By, sums: &[UsageSum]) -> String {
    let mut text = format!(
        "{},name,calls,ok,cut,lost,prompt_tokens,completion_tokens,charged_tokens,cost_nano_usd\n",
        by.as_str()
    );
    for sum in sums {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{},{},{},{},{},{},{},{},{},{}",
            quoted(&sum.of),
            quoted(sum.name.as_deref().unwrap_or("")),
            sum.calls,
            sum.ok,
            sum.cut,
            sum.lost,
            sum.prompt_tokens,
            sum.completion_tokens,
            sum.charged_tokens,
            sum.cost_nano_usd,
        );
    }
    text
}

fn format(fields: &mut Fields) -> Result<Option<Format>, AdminError> {
    match fields.text("format")?.as_deref() {
        None => Ok(None),
        Some("csv") => Ok(Some(Format::Csv)),
        Some("json") => Ok(Some(Format::Json)),
        Some(_) => Err(AdminError::invalid("format", "must be csv or json")),
    }
}

/// All rows. When the database breaks off in the middle, so does the answer: it never looks whole when it is not.
fn export(database: Database, query: UsageQuery, format: Format) -> Response {
    let content_type = match format {
        Format::Csv => CSV,
        Format::Json => "application/json",
    };
    ([(CONTENT_TYPE, content_type)], Body::from_stream(pages(database, query, format))).into_response()
}

/// Where an export has come to.
enum Step {
    Begin(UsageQuery),
    Next(UsageQuery),
    End,
}

fn pages(
    database: Database,
    query: UsageQuery,
    format: Format,
) -> impl Stream<Item = Result<String, sqlx::Error>> + Send {
    futures_util::stream::try_unfold(Step::Begin(query), move |step| {
        let database = database.clone();
        async move {
            let (is_first, mut query) = match step {
                Step::Begin(query) => (true, query),
                Step::Next(query) => (false, query),
                Step::End => return Ok(None),
            };
            let rows = usage_page(&database, &query).await?;
            let is_last = rows.len() < query.limit as usize;
            let text = match format {
                Format::Csv => csv_page(&rows, is_first),
                Format::Json => json_page(&rows, is_first, is_last),
            };
            query.after = rows.last().map(|row| row.request_id.clone()).or(query.after);
            Ok(Some((text, if is_last { Step::End } else { Step::Next(query) })))
        }
    })
}

fn json_page(rows: &[UsageRow], is_first: bool, is_last: bool) -> String {
    let mut text = String::from(if is_first { "[" } else { "" });
    for (place, row) in rows.iter().enumerate() {
        text.push_str(if is_first && place == 0 { "\n" } else { ",\n" });
        text.push_str(&serde_json::to_string(row).unwrap_or_default());
    }
    text.push_str(if is_last { "\n]\n" } else { "" });
    text
}

fn csv_page(rows: &[UsageRow], is_first: bool) -> String {
    let mut text = String::from(if is_first { HEAD } else { "" });
    for row in rows {
        let cost = row.cost_nano_usd.map(|cost| cost.to_string()).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{cost},{},{},{},{}",
            row.request_id,
            row.status,
            moment(row.started_at),
            row.key_id,
            row.user_id.as_deref().unwrap_or(""),
            row.team_id.as_deref().unwrap_or(""),
            quoted(&row.pool),
            quoted(&row.model),
            quoted(&row.provider),
            row.priority,
            row.reserved_tokens,
            row.prompt_tokens,
            row.completion_tokens,
            row.charged_tokens,
            row.http_status,
            row.streamed,
            row.latency_us,
            row.queue_wait_us,
        );
    }
    text
}

/// A name as CSV has it; a first character that spreadsheets run as a formula is defused.
fn quoted(name: &str) -> String {
    let formula = if name.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    if formula.is_empty() && !name.contains([',', '"', '\n', '\r']) {
        return name.to_owned();
    }
    format!("\"{formula}{}\"", name.replace('"', "\"\""))
}

/// A day or a moment, in microseconds of the wall clock.
fn time(fields: &mut Fields, field: &str) -> Result<Option<u64>, AdminError> {
    let Some(text) = fields.text(field)? else { return Ok(None) };
    let day = Date::parse(&text, format_description!("[year]-[month]-[day]")).map(|day| day.midnight().assume_utc());
    let at = day.or_else(|_| OffsetDateTime::parse(&text, &Rfc3339));
    let wall_us = at.ok().and_then(|at| u64::try_from(at.unix_timestamp_nanos() / 1_000).ok());
    let problem = || AdminError::invalid(field, "must be like 2026-11-23 or 2026-11-23T10:00:00Z");
    wall_us.map(Some).ok_or_else(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_break_its_row_or_become_a_formula() {
        assert_eq!(quoted("gpt-4"), "gpt-4");
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(quoted("=1+1"), "\"'=1+1\"");
    }
}
