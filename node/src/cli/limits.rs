//! Limits as arguments, of keys, users and teams alike.

use clap::Args;
use serde::Serialize;

const NANO_DIGITS: usize = 9;

/// Limits that are to be set; what is not given stays, or is none.
#[derive(Clone, Copy, Debug, Default, Args, Serialize)]
pub(super) struct Limits {
    /// Requests each second.
    #[arg(long, value_name = "N", conflicts_with = "rpm", value_parser = limit)]
    #[serde(skip_serializing_if = "Option::is_none")]
    rps: Option<u64>,
    /// Requests each minute.
    #[arg(long, value_name = "N", value_parser = limit)]
    #[serde(skip_serializing_if = "Option::is_none")]
    rpm: Option<u64>,
    /// Tokens each minute.
    #[arg(long, value_name = "N", value_parser = limit)]
    #[serde(skip_serializing_if = "Option::is_none")]
    tpm: Option<u64>,
    /// Requests in flight.
    #[arg(long, value_name = "N", value_parser = limit)]
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<u64>,
    /// Tokens each day.
    #[arg(long, value_name = "N", value_parser = limit)]
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_per_day: Option<u64>,
    /// US dollars each month, as 25 or 0.5.
    #[arg(long, value_name = "X", value_parser = nano_usd)]
    #[serde(rename = "budget_nano_usd", skip_serializing_if = "Option::is_none")]
    budget_usd: Option<u64>,
    /// Requests that may come at once.
    #[arg(long, value_name = "N", value_parser = limit)]
    #[serde(skip_serializing_if = "Option::is_none")]
    burst_requests: Option<u64>,
    /// Tokens that may come at once.
    #[arg(long, value_name = "N", value_parser = limit)]
    #[serde(skip_serializing_if = "Option::is_none")]
    burst_tokens: Option<u64>,
}

/// A limit, or `none`. One of 0 would read like "nothing at all" and mean "no limit".
fn limit(text: &str) -> Result<u64, String> {
    match text.parse() {
        _ if text == "none" => Ok(0),
        Ok(0) => Err("must be above 0; without a limit, leave the option out, or say none".to_owned()),
        Ok(limit) => Ok(limit),
        Err(_) => Err("must be a whole number above 0, or none".to_owned()),
    }
}

/// Dollars in billionths, exactly; `none` is no budget.
fn nano_usd(text: &str) -> Result<u64, String> {
    if text == "none" {
        return Ok(0);
    }
    let wrong = || "must be dollars above 0 with at most nine decimals, or none".to_owned();
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > NANO_DIGITS || !(whole.to_owned() + part).bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let nano = format!("{whole}{part:0<NANO_DIGITS$}").parse().ok().filter(|nano| *nano > 0);
    nano.ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_exact() {
        assert_eq!(nano_usd("25"), Ok(25_000_000_000));
        assert_eq!(nano_usd("0.000000001"), Ok(1));
        assert_eq!(nano_usd("none"), Ok(0));
        for wrong in ["", ".", "0", "-1", "1e3", "1.0000000001", "1.2.3"] {
            assert!(nano_usd(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_limit_of_nothing_is_refused_and_none_takes_it_away() {
        assert!(limit("0").unwrap_err().starts_with("must be above 0"));
        assert_eq!((limit("none"), limit("7")), (Ok(0), Ok(7)));
    }
}
