//! What the admin routes show of pools and the cluster, and the doors behind which the ledger and the group answer.

use super::error::AdminError;
use futures_util::future::BoxFuture;
use ledger::model::{BucketLimit, Credential, PoolLimits, Rate};
use serde::{Deserialize, Serialize};

/// Pools, as the ledger has them. A pool's name is its label: a model or one wildcard pattern.
pub trait PoolAdmin: Send + Sync {
    /// Every pool.
    fn list(&self) -> BoxFuture<'_, Result<Vec<PoolView>, AdminError>>;
    /// Sets limits of a pool, making it when there is none.
    fn set(&self, pool: String, change: PoolChange) -> BoxFuture<'_, Result<PoolView, AdminError>>;
    /// Removes a pool's limits.
    fn remove(&self, pool: String) -> BoxFuture<'_, Result<(), AdminError>>;
}

/// What is to change of a pool: absent stays as it is, 0 means unlimited (for a burst: its default).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolChange {
    /// Tokens each second; not together with `tokens_per_min`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_sec: Option<u64>,
    /// Tokens each minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_min: Option<u64>,
    /// Requests each second; not together with `rpm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rps: Option<u64>,
    /// Requests each minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpm: Option<u64>,
    /// Requests in flight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<u64>,
    /// Longest context, in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<u64>,
    /// Tokens that the bucket saves up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst_tokens: Option<u64>,
    /// Requests that the bucket saves up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst_requests: Option<u64>,
}

impl PoolChange {
    /// These limits, as the ledger has them; what is in force stays where nothing is said. A new rate brings its default
    /// burst with it (four seconds of tokens, one of requests, at least 1), unless a burst is given too.
    ///
    /// # Errors
    /// [`AdminError::Invalid`] when two fields contradict each other or a burst has no rate.
    pub fn over(&self, now: PoolLimits) -> Result<PoolLimits, AdminError> {
        self.check()?;
        let tokens = rate(self.tokens_per_sec, self.tokens_per_min);
        let requests = rate(self.rps, self.rpm);
        Ok(PoolLimits {
            tokens: bucket(now.tokens, tokens, ("burst_tokens", self.burst_tokens), 4)?,
            requests: bucket(now.requests, requests, ("burst_requests", self.burst_requests), 1)?,
            concurrent: match self.concurrent {
                None => now.concurrent,
                Some(0) => None,
                concurrent => concurrent,
            },
        })
    }

    /// Says whether two fields contradict each other.
    ///
    /// # Errors
    /// [`AdminError::Invalid`], naming one of them.
    pub fn check(&self) -> Result<(), AdminError> {
        for (first, second, field, other) in [
            (self.tokens_per_sec, self.tokens_per_min, "tokens_per_min", "tokens_per_sec"),
            (self.rps, self.rpm, "rpm", "rps"),
        ] {
            if first.is_some() && second.is_some() {
                return Err(AdminError::invalid(field, format!("cannot be set together with {other}")));
            }
        }
        Ok(())
    }
}

/// The rate that is asked for, if one is; `Some(None)` is none at all.
#[expect(clippy::option_option, reason = "unsaid, unlimited and limited are three things")]
fn rate(per_sec: Option<u64>, per_min: Option<u64>) -> Option<Option<Rate>> {
    match (per_sec, per_min) {
        (None, None) => None,
        (Some(0), _) | (None, Some(0)) => Some(None),
        (Some(units), _) => Some(Some(Rate::per_sec(units))),
        (None, Some(units)) => Some(Some(Rate::per_min(units))),
    }
}

#[expect(clippy::option_option, reason = "unsaid, unlimited and limited are three things")]
fn bucket(
    now: Option<BucketLimit>,
    rate: Option<Option<Rate>>,
    (field, burst): (&str, Option<u64>),
    default_seconds: u64,
) -> Result<Option<BucketLimit>, AdminError> {
    let given = burst.filter(|burst| *burst > 0);
    let default = |rate: Rate| {
        let units = u128::from(rate.units) * u128::from(default_seconds) * 1_000_000 / u128::from(rate.per_us.max(1));
        u64::try_from(units).unwrap_or(u64::MAX).max(1)
    };
    match (rate, now) {
        (Some(Some(rate)), _) => Ok(Some(BucketLimit { rate, burst: given.unwrap_or_else(|| default(rate)) })),
        (None, Some(BucketLimit { rate, .. })) if burst.is_some() => {
            Ok(Some(BucketLimit { rate, burst: given.unwrap_or_else(|| default(rate)) }))
        }
        (None, Some(now)) => Ok(Some(now)),
        (Some(None), _) | (None, None) if given.is_some() => Err(AdminError::invalid(field, "needs a rate")),
        (Some(None), _) | (None, None) => Ok(None),
    }
}

/// A pool, its limits and its use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolView {
    /// Its label.
    pub model: String,
    /// Its limits; rates as they were set.
    pub limits: PoolChange,
    /// What is used now.
    pub usage: PoolUsage,
    /// Where the configuration file says otherwise: the file's values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_file: Option<PoolChange>,
}

/// What is used of a pool now; absent where there is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolUsage {
    /// Tokens left in the bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_level: Option<u64>,
    /// Requests left in the bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_level: Option<u64>,
    /// Requests in flight.
    pub in_flight: u64,
    /// Requests waiting.
    pub waiting: u64,
}

/// Revokes, in the ledger.
pub trait Revoker: Send + Sync {
    /// Has every node refuse credentials, for ever. Done when this node's ledger has it; the others have it when they hear
    /// of it. `expires_wall_us` is the key's own end.
    ///
    /// # Errors
    /// [`AdminError::Unavailable`] without a leader, [`AdminError::Indeterminate`] when it may have happened.
    fn revoke(&self, what: Vec<Credential>, expires_wall_us: Option<u64>) -> BoxFuture<'_, Result<(), AdminError>>;
}

/// The group, as this node sees it.
pub trait ClusterView: Send + Sync {
    /// Its state now; every member is asked.
    fn status(&self) -> BoxFuture<'_, ClusterStatus>;

    /// Changes who is in the group; gives the state after it.
    fn change(&self, change: ClusterChange) -> BoxFuture<'_, Result<ClusterStatus, AdminError>>;
}

/// A change of who is in the group, or of who leads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterChange {
    /// Takes a node in that hears everything and has no vote.
    Add {
        /// Its id.
        id: u64,
        /// Its peer address.
        addr: String,
    },
    /// Gives a learner a vote.
    Promote(u64),
    /// Takes a member out.
    Remove(u64),
    /// Has another voter lead; none: any.
    Transfer(Option<u64>),
}

/// State of the group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The node that answers.
    pub node_id: u64,
    /// The leader, when one is known.
    pub leader_id: Option<u64>,
    /// Term of the leader.
    pub term: u64,
    /// Highest committed index known here.
    pub committed_index: u64,
    /// Index up to which this node's ledger has come.
    pub applied_index: u64,
    /// All members.
    pub nodes: Vec<ClusterNode>,
}

/// A member of the group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterNode {
    /// Its id.
    pub id: u64,
    /// Its peer address.
    pub addr: String,
    /// `voter` or `learner`.
    pub role: String,
    /// Whether it was heard of lately.
    pub alive: bool,
    /// How far its log is known to match the leader's; absent elsewhere than on the leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched_index: Option<u64>,
    /// Index up to which its ledger has come, as it says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_index: Option<u64>,
    /// Digest of its ledger at `digest_index`, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Where in the log the digest was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest_index: Option<u64>,
    /// Version of its build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl PoolView {
    /// A view of `limits` as the ledger has them, with nothing said of use and file.
    pub fn of(model: &str, limits: &PoolLimits, context: Option<u64>) -> Self {
        let (tokens_per_sec, tokens_per_min) = shown(limits.tokens);
        let (rps, rpm) = shown(limits.requests);
        let limits = PoolChange {
            tokens_per_sec,
            tokens_per_min,
            rps,
            rpm,
            concurrent: limits.concurrent,
            context,
            burst_tokens: limits.tokens.map(|bucket| bucket.burst),
            burst_requests: limits.requests.map(|bucket| bucket.burst),
        };
        Self { model: model.to_owned(), limits, ..Self::default() }
    }
}

/// A rate per second or per minute: as it was set, since the ledger keeps the fraction.
fn shown(bucket: Option<BucketLimit>) -> (Option<u64>, Option<u64>) {
    match bucket.map(|bucket| bucket.rate) {
        None => (None, None),
        Some(Rate { units, per_us: 1_000_000 }) => (Some(units), None),
        Some(Rate { units, per_us }) => {
            let per_min = u128::from(units) * 60_000_000 / u128::from(per_us.max(1));
            (None, Some(u64::try_from(per_min).unwrap_or(u64::MAX)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(now: PoolLimits, change: PoolChange) -> Result<PoolLimits, String> {
        change.over(now).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_said_stays_and_zero_is_unlimited() {
        let first =
            PoolChange { tokens_per_sec: Some(1_000), rpm: Some(30), concurrent: Some(5), ..Default::default() };
        let set = over(PoolLimits::default(), first).unwrap();
        assert_eq!(set.tokens, Some(BucketLimit { rate: Rate::per_sec(1_000), burst: 4_000 }));
        assert_eq!(set.requests, Some(BucketLimit { rate: Rate::per_min(30), burst: 1 }));
        assert_eq!(over(set, PoolChange::default()), Ok(set));
        let none = PoolChange { tokens_per_min: Some(0), rps: Some(0), concurrent: Some(0), ..Default::default() };
        assert_eq!(over(set, none), Ok(PoolLimits::default()));
    }

    #[test]
    fn a_burst_changes_alone_and_returns_to_its_default() {
        let rated = over(PoolLimits::default(), PoolChange { tokens_per_sec: Some(10), ..Default::default() }).unwrap();
        let own = over(rated, PoolChange { burst_tokens: Some(7), ..Default::default() }).unwrap();
        assert_eq!(own.tokens, Some(BucketLimit { rate: Rate::per_sec(10), burst: 7 }));
        assert_eq!(over(own, PoolChange { burst_tokens: Some(0), ..Default::default() }), Ok(rated));
    }

    #[test]
    fn contradictions_name_a_field() {
        let both = PoolChange { rps: Some(1), rpm: Some(1), ..Default::default() };
        assert_eq!(over(PoolLimits::default(), both), Err("rpm: cannot be set together with rps".into()));
        let alone = PoolChange { burst_requests: Some(1), ..Default::default() };
        assert_eq!(over(PoolLimits::default(), alone), Err("burst_requests: needs a rate".into()));
    }

    #[test]
    fn a_view_shows_what_was_set() {
        let change = PoolChange {
            tokens_per_min: Some(600),
            rps: Some(2),
            burst_tokens: Some(5),
            burst_requests: Some(3),
            concurrent: Some(4),
            context: Some(9),
            ..Default::default()
        };
        let view = PoolView::of("m", &change.over(PoolLimits::default()).unwrap(), Some(9));
        assert_eq!((view.model.as_str(), view.limits), ("m", change));
    }
}
