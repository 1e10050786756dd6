//! The words of the journal: calls, what they hold, how they ended. No IO lives here.

use ledger::model::{Incarnation, Priority};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A request of a client; written as `req_` and 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub [u8; 16]);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "req_{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Gives out request ids: in order of time, unique over processes and nodes, without a system call.
#[derive(Debug)]
pub struct RequestIds {
    process: [u8; 6],
    next: AtomicU32,
}

impl RequestIds {
    /// Starts with randomness of its own.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn new() -> std::io::Result<Self> {
        let mut process = [0u8; 6];
        getrandom::fill(&mut process).map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok(Self { process, next: AtomicU32::new(0) })
    }

    /// The next id.
    ///
    /// Shape: 6 bytes of wall milliseconds, 6 of the process, 4 of a counter.
    pub fn next(&self) -> RequestId {
        let mut id = [0u8; 16];
        let millis = raft::clock::wall_us() / 1_000;
        id[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
        id[6..12].copy_from_slice(&self.process);
        id[12..].copy_from_slice(&self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        RequestId(id)
    }
}

/// One upstream call of a request: the first is 0, retries and fallbacks count on. The key of a usage row, written as
/// the request id, with `.1`, `.2` behind it from the second call on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId {
    /// The client's request.
    pub request: RequestId,
    /// Which of its upstream calls.
    pub call: u8,
}

impl From<RequestId> for CallId {
    fn from(request: RequestId) -> Self {
        Self { request, call: 0 }
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.call {
            0 => write!(f, "{}", self.request),
            call => write!(f, "{}.{call}", self.request),
        }
    }
}

/// What a call is about to use; written before the upstream hears of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// The call.
    pub call: CallId,
    /// The life of this node that makes it.
    pub incarnation: Incarnation,
    /// The ledger's number of the reservation that tenants' holds hang on; 0 when there is none.
    pub reservation: u64,
    /// Label of the pool whose units it holds.
    pub pool: Arc<str>,
    /// Model that the client asked for.
    pub model: Arc<str>,
    /// Target that is called; the `provider` of the usage row.
    pub target: Arc<str>,
    /// Id of the caller's key.
    pub key_id: [u8; 16],
    /// The caller's user.
    pub user: Option<[u8; 16]>,
    /// The caller's team.
    pub team: Option<[u8; 16]>,
    /// How urgent it is.
    pub priority: Priority,
    /// Tokens reserved of the pool and of every tenant bucket.
    pub tokens_reserved: u64,
    /// When the call began.
    ///
    /// Units: microseconds of the wall clock since the Unix epoch.
    pub started_wall_us: u64,
}

/// How an upstream call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// The upstream's answer was relayed to its end, whatever it said.
    Ok,
    /// The answer broke off, or none came: client gone, upstream gone, deadline.
    Cut,
    /// Nobody knows: the process ended in the middle. Charged in full.
    Lost,
}

impl Status {
    /// Its name in SQL and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Cut => "cut",
            Self::Lost => "lost",
        }
    }
}

/// What a call really used; written before the last byte of the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// How it ended.
    pub status: Status,
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens of the answer.
    pub completion_tokens: u64,
    /// Tokens charged to the pool and the tenants.
    pub charged_tokens: u64,
    /// The upstream's status; 0 when none came.
    pub http_status: u16,
    /// Whether the answer was streamed.
    pub streamed: bool,
    /// From the call's begin to its end.
    pub latency_us: u64,
    /// Time that the request waited for admission.
    pub wait_us: u64,
}
