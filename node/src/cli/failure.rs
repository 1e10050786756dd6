//! Why a command did not do its work: one variant per exit code, each with what to do next.

use serde_json::Value;
use std::fmt;

/// Why a command did not do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The gateway said no, or there was nothing to do it to.
    Refused(String),
    /// The arguments make no sense together.
    Usage(String),
    /// It answers, and it is not well.
    Unhealthy(String),
    /// Nobody answers.
    Unreachable(String),
    /// It answers, and cannot decide without a majority.
    NoQuorum(String),
    /// It would clash with what is there.
    Conflict(String),
    /// The key is missing, wrong, or not enough.
    NotAllowed(String),
    /// It may or may not have happened.
    OutcomeUnknown(String),
}

impl Failure {
    /// The process's exit code.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Failure::Refused(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Unhealthy(_) => 3,
            Failure::Unreachable(_) => 4,
            Failure::NoQuorum(_) => 5,
            Failure::Conflict(_) => 6,
            Failure::NotAllowed(_) => 7,
            Failure::OutcomeUnknown(_) => 8,
        }
    }

    /// A local read or write failed.
    #[expect(clippy::needless_pass_by_value, reason = "stands in map_err")]
    pub(super) fn io(error: std::io::Error) -> Self {
        Failure::Refused(error.to_string())
    }

    /// Reads an answer that is not a success.
    pub(super) fn of_answer(status: u16, body: &str) -> Self {
        let json: Value = serde_json::from_str(body).unwrap_or(Value::Null);
        let error = &json["error"];
        let said = error["message"].as_str().or_else(|| error.as_str()).unwrap_or_else(|| body.trim());
        let code = error["code"].as_str().unwrap_or("");
        let said = if said.is_empty() { format!("status {status}") } else { said.to_owned() };
        match status {
            401 | 403 => {
                Failure::NotAllowed(format!("{said}; give the admin key with --admin-key or TOKLIGENCE_ADMIN_KEY"))
            }
            409 | 412 => Failure::Conflict(said),
            _ if status == 504 || ["outcome_unknown", "indeterminate"].contains(&code) => {
                Failure::OutcomeUnknown(format!("{said}; look before you try again"))
            }
            503 => Failure::NoQuorum(format!("{said}; `gateway cluster status` shows who is there")),
            500.. => Failure::Unhealthy(format!("{said} (status {status}); the node's log says more")),
            _ => Failure::Refused(said),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused(said)
            | Failure::Usage(said)
            | Failure::Unhealthy(said)
            | Failure::Unreachable(said)
            | Failure::NoQuorum(said)
            | Failure::Conflict(said)
            | Failure::NotAllowed(said) => f.write_str(said),
            Failure::OutcomeUnknown(said) => write!(f, "the outcome is unknown: {said}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_has_its_exit_code() {
        let envelope = r#"{"error":{"message":"no such key","type":"x","code":"y"}}"#;
        let codes = [(412, 6), (404, 1), (400, 1), (401, 7), (403, 7), (409, 6), (503, 5), (504, 8), (500, 3)];
        for (status, code) in codes {
            let failure = Failure::of_answer(status, envelope);
            assert_eq!(failure.exit_code(), code, "{status}");
            assert!(failure.to_string().contains("no such key"));
        }
    }

    #[test]
    fn an_unknown_outcome_is_never_folded_into_failure() {
        let failure = Failure::of_answer(503, r#"{"error":{"message":"lost the leader","code":"outcome_unknown"}}"#);
        assert_eq!(failure.exit_code(), 8);
    }

    #[test]
    fn an_answer_that_is_no_json_is_shown_as_it_is() {
        assert_eq!(Failure::of_answer(404, "not here\n"), Failure::Refused("not here".into()));
        assert_eq!(Failure::of_answer(404, ""), Failure::Refused("status 404".into()));
    }
}
