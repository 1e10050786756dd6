//! How urgent a request is, and how long it waits: its key's word, its headers, OpenAI's `service_tier`. Never more
//! urgent than its key may be.

use crate::chat::Service;
use crate::error::Error;
use crate::identity::Caller;
use http::HeaderMap;
use ledger::model::Priority;
use std::time::Duration;

/// The header by which a request chooses.
pub(crate) const HEADER: &str = "x-tokligence-priority";
/// The header by which a request bounds its wait.
pub(crate) const TIMEOUT_HEADER: &str = "x-tokligence-timeout-ms";

/// Chooses the priority of a request, clamped to the configured levels.
///
/// # Errors
/// When the header holds no priority.
pub(crate) fn choose(caller: &Caller, headers: &HeaderMap, service: Service, levels: u8) -> Result<Priority, Error> {
    let wanted = match (asked(headers)?, service) {
        (Some(asked), _) => asked,
        (None, Service::Priority) => caller.ceiling.0,
        (None, Service::Flex) => caller.priority.0.saturating_add(2),
        (None, Service::Usual) => caller.priority.0,
    };
    let may = caller.ceiling.0.min(caller.priority.0);
    Ok(Priority(wanted.max(may).min(levels.saturating_sub(1))))
}

/// How long a request may wait for capacity: as its header says, at most `most`; else `usual`.
///
/// # Errors
/// When the header holds no time.
pub(crate) fn max_wait(headers: &HeaderMap, usual: Duration, most: Duration) -> Result<Duration, Error> {
    let Some(value) = headers.get(TIMEOUT_HEADER) else { return Ok(usual) };
    let millis = value.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok());
    let problem = "the header X-Tokligence-Timeout-Ms must be a whole number of milliseconds";
    millis.map(|millis| Duration::from_millis(millis).min(most)).ok_or_else(|| Error::invalid(TIMEOUT_HEADER, problem))
}

fn asked(headers: &HeaderMap) -> Result<Option<u8>, Error> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.trim().parse::<u8>().ok()).filter(|number| *number < 32);
    number
        .map(Some)
        .ok_or_else(|| Error::invalid(HEADER, "the header X-Tokligence-Priority must be a whole number from 0 to 31"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{ModelPatterns, Tier};
    use http::HeaderValue;

    pub(crate) fn caller(priority: u8, ceiling: u8) -> Caller {
        Caller {
            key_id: [1; 16],
            key_name: "k".into(),
            key_prefix: "tok_".into(),
            user: None,
            team: None,
            tier: Tier::Standard,
            priority: Priority(priority),
            ceiling: Priority(ceiling),
            tenants: [].into(),
            models: ModelPatterns::default(),
            scopes: Default::default(),
            role: None,
            expires_at: None,
            versions: [1, 0, 0],
            request_tokens_max: None,
            degraded: None,
        }
    }

    #[test]
    fn a_request_lowers_itself_and_rises_only_to_its_ceiling() {
        for (header, service, levels, expected) in [
            (None, Service::Usual, 10, 5),
            (Some("9"), Service::Usual, 10, 9),
            (Some("31"), Service::Usual, 10, 9),
            (Some("0"), Service::Usual, 10, 3),
            (Some("4"), Service::Priority, 10, 4),
            (None, Service::Priority, 10, 3),
            (None, Service::Flex, 10, 7),
            (None, Service::Flex, 6, 5),
            (None, Service::Usual, 3, 2),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(header) = header {
                headers.insert(HEADER, HeaderValue::from_static(header));
            }
            let got = choose(&caller(5, 3), &headers, service, levels).unwrap();
            assert_eq!(got, Priority(expected), "{header:?} {service:?} {levels}");
        }
    }

    #[test]
    fn a_header_that_is_no_priority_is_refused() {
        for bad in ["", "-1", "high", "1.5", "256", "32"] {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, HeaderValue::from_static(bad));
            assert!(choose(&caller(5, 5), &headers, Service::Usual, 10).is_err(), "{bad}");
        }
    }
}
