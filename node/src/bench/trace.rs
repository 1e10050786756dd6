//! Reads traces in the Azure LLM inference format.
//!
//! Source: github.com/Azure/AzurePublicDataset, `AzureLLMInferenceTrace_*.csv`: columns `TIMESTAMP`, `ContextTokens`,
//! `GeneratedTokens`; stamps as `2023-11-16 18:15:46.6805900`, the 2024 traces with an offset behind.

use anyhow::{Context, bail};
use serde::Deserialize;
use std::path::Path;
use std::time::Duration;
use time::PrimitiveDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

const SECONDS: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");

/// One request of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// When it came, from the first one on.
    pub(crate) at: Duration,
    /// Tokens of its prompt.
    pub(crate) prompt_tokens: u64,
    /// Tokens that were generated.
    pub(crate) output_tokens: u64,
}

#[derive(Deserialize)]
struct Row {
    #[serde(rename = "TIMESTAMP")]
    at: String,
    #[serde(rename = "ContextTokens")]
    prompt_tokens: u64,
    #[serde(rename = "GeneratedTokens")]
    output_tokens: u64,
}

/// Reads a trace, at most `limit` requests of it, in the file's order; a stamp that goes backwards counts as the one
/// before it.
///
/// # Errors
/// When the file cannot be read or a line is not as the format says.
pub(crate) fn read(path: &Path, limit: Option<usize>) -> anyhow::Result<Vec<Arrival>> {
    let reader = csv::Reader::from_path(path).with_context(|| format!("cannot read {}", path.display()))?;
    let arrivals = parse(reader, limit).with_context(|| format!("in {}", path.display()))?;
    if arrivals.is_empty() {
        bail!("{} holds no requests", path.display());
    }
    Ok(arrivals)
}

fn parse<R: std::io::Read>(mut reader: csv::Reader<R>, limit: Option<usize>) -> anyhow::Result<Vec<Arrival>> {
    let mut arrivals: Vec<Arrival> = Vec::new();
    let mut first = None;
    for row in reader.deserialize().take(limit.unwrap_or(usize::MAX)) {
        let row: Row = row?;
        let at = stamp(&row.at).with_context(|| format!("`{}` is no time stamp", row.at))?;
        let since_first = (at - *first.get_or_insert(at)).try_into().unwrap_or(Duration::ZERO);
        let before = arrivals.last().map_or(Duration::ZERO, |last| last.at);
        arrivals.push(Arrival {
            at: since_first.max(before),
            prompt_tokens: row.prompt_tokens,
            output_tokens: row.output_tokens,
        });
    }
    Ok(arrivals)
}

fn stamp(text: &str) -> Option<PrimitiveDateTime> {
    let whole = text.get(..19)?.replace('T', " ");
    let at = PrimitiveDateTime::parse(&whole, SECONDS).ok()?;
    let Some(fraction) = text[19..].strip_prefix('.') else { return Some(at) };
    let digits: String = fraction.chars().take_while(char::is_ascii_digit).take(9).collect();
    let nanos: u64 = format!("{digits:0<9}").parse().ok()?;
    Some(at + Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_of_both_years_are_read_and_never_go_back() {
        let text = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
                    2023-11-16 23:59:59.6805900,374,44\n\
                    2023-11-17 00:00:01.1805900,396,109\n\
                    2023-11-17 00:00:00.0000000+00:00,8,1\n";
        let arrivals = parse(csv::Reader::from_reader(text.as_bytes()), None).unwrap();
        let at: Vec<u128> = arrivals.iter().map(|arrival| arrival.at.as_micros()).collect();
        assert_eq!(at, [0, 1_500_000, 1_500_000]);
        assert_eq!((arrivals[1].prompt_tokens, arrivals[1].output_tokens), (396, 109));
        assert_eq!(parse(csv::Reader::from_reader(text.as_bytes()), Some(1)).unwrap().len(), 1);
        let broken = "TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,1\n";
        assert!(parse(csv::Reader::from_reader(broken.as_bytes()), None).is_err());
    }
}
