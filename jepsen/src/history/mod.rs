//! The history: every operation, fault and observation of a run, one JSON object per line, in the order in which the
//! harness learned of it. Checkers see nothing else, so that a history can be checked again without its run.

mod folded;
mod writer;

pub(crate) use folded::{Fault, Folded, Op, Outcome};
pub(crate) use writer::Recorder;

use serde::{Deserialize, Serialize};

/// One line.
///
/// Units: microseconds of the boot clock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Event {
    /// When it happened.
    pub(crate) at_us: u64,
    /// What happened.
    #[serde(flatten)]
    pub(crate) what: What,
}

/// What a line tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum What {
    /// The first line: what runs, under which limits.
    Run(Header),
    /// A client begins an operation.
    Invoke {
        /// Number of the operation, unique in the run.
        op: u64,
        /// The client.
        process: u64,
        /// The node that it asks, from 1.
        node: u64,
        /// What it asks.
        call: Call,
    },
    /// The operation happened.
    Ok {
        /// Number of the operation.
        op: u64,
        /// What came back.
        value: Value,
    },
    /// The operation certainly did not happen.
    Fail {
        /// Number of the operation.
        op: u64,
        /// Why.
        error: String,
    },
    /// Whether the operation happened is unknown.
    Info {
        /// Number of the operation.
        op: u64,
        /// What is known.
        error: String,
    },
    /// A fault's begin, its strike or its end.
    Fault {
        /// Number of the fault, unique in the run.
        fault: u64,
        /// Which nemesis.
        nemesis: String,
        /// How far it is.
        phase: Phase,
        /// The nodes that it is about.
        nodes: Vec<u64>,
        /// What was done or seen.
        note: String,
    },
    /// A request as the upstream saw it, from its arrival (`at_us`) to its end.
    Arrival(Arrival),
    /// A usage row, read after the run.
    Row(Row),
    /// The longest time that the machine kept a 1 ms ticker of the harness waiting, since the line before.
    Stall {
        /// Beyond the millisecond.
        us: u64,
    },
    /// What a node said of itself.
    Node(NodeState),
    /// What a key's quota is said to have left, after the run.
    Quota {
        /// Name of the key.
        key: String,
        /// What it allows in the window.
        limit: u64,
        /// What is left; `None`: not even one more request's tokens.
        left: Option<u64>,
    },
    /// The run reached a new stage.
    Stage {
        /// Its name.
        name: String,
    },
}

/// How far a fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// It is about to strike.
    Begin,
    /// It was seen to strike.
    Struck,
    /// It is over, its damage mended.
    End,
    /// It did not come to strike.
    Missed,
}

/// What a run is made of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Header {
    /// Decides workloads and schedule.
    pub(crate) seed: u64,
    /// How many gateways.
    pub(crate) nodes: u64,
    /// How long clients and nemeses work, in seconds.
    pub(crate) time_s: u64,
    /// Names of the workloads.
    pub(crate) workloads: Vec<String>,
    /// The nemeses as they were asked for.
    pub(crate) nemesis: String,
    /// Those of them that can work here.
    pub(crate) asked: Vec<String>,
    /// How nodes are connected.
    pub(crate) fabric: String,
    /// The pools and their limits.
    pub(crate) pools: Vec<Pool>,
    /// Threads of a gateway that may each be stopped between its last look at the clock and the write.
    pub(crate) worker_threads: u64,
    /// What this machine cannot do, and why.
    pub(crate) skipped: Vec<(String, String)>,
}

/// A pool and its limits; 0 is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pool {
    /// The model's name.
    pub(crate) name: String,
    /// Tokens each second.
    pub(crate) tokens_per_sec: u64,
    /// Tokens saved up.
    pub(crate) burst_tokens: u64,
    /// Requests each second.
    pub(crate) rps: u64,
    /// Requests saved up.
    pub(crate) burst_requests: u64,
    /// Requests in flight.
    pub(crate) concurrent: u64,
    /// Time that the upstream takes for an answer, in milliseconds.
    pub(crate) answer_ms: u64,
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "snake_case")]
pub(crate) enum Call {
    /// A chat completion.
    Chat(Chat),
    /// Sets the limit of concurrent requests of a pool that nobody uses: an admin register.
    SetLimit {
        /// The pool.
        register: String,
        /// The new limit.
        value: u64,
    },
    /// Reads it.
    GetLimit {
        /// The pool.
        register: String,
    },
}

/// A chat completion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chat {
    /// The pool.
    pub(crate) model: String,
    /// Name of the key.
    pub(crate) key: String,
    /// How urgent.
    pub(crate) priority: u8,
    /// The cap on output tokens.
    pub(crate) max_tokens: u64,
    /// What the upstream will really write.
    pub(crate) output_tokens: u64,
    /// As an event stream.
    pub(crate) stream: bool,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", rename_all = "snake_case")]
pub(crate) enum Value {
    /// The whole reply of a chat completion.
    Chat(Answer),
    /// A register was set.
    Set,
    /// What a register held.
    Limit {
        /// The limit.
        value: u64,
    },
}

/// What the reply of a chat completion tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// `x-request-id`.
    pub(crate) request_id: String,
    /// Time in the queue.
    pub(crate) wait_ms: u64,
    /// When it was admitted, boot clock; 0 when the reply does not say.
    pub(crate) admitted_us: u64,
}

/// A request as the upstream saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Arrival {
    /// Number of the client's operation; `None` when the request carried none.
    pub(crate) op: Option<u64>,
    /// The model.
    pub(crate) model: String,
    /// When it was over.
    pub(crate) ended_us: Option<u64>,
    /// Whether the gateway closed before the end.
    pub(crate) closed_early: bool,
    /// The status that was sent.
    pub(crate) status: u16,
    /// Prompt tokens that were reported.
    pub(crate) prompt_tokens: Option<u64>,
    /// Output tokens that were reported.
    pub(crate) completion_tokens: Option<u64>,
    /// Output tokens that were really written.
    pub(crate) emitted_tokens: u64,
}

/// A usage row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Id of the request, with `.1` and so on for its later calls.
    pub(crate) request_id: String,
    /// `ok`, `cut` or `lost`.
    pub(crate) status: String,
    /// The pool.
    pub(crate) pool: String,
    /// Id of the key.
    #[serde(default)]
    pub(crate) key_id: String,
    /// Tokens of the prompt.
    pub(crate) prompt_tokens: u64,
    /// Tokens of the answer.
    pub(crate) completion_tokens: u64,
    /// Tokens charged.
    pub(crate) charged_tokens: u64,
}

/// What a node said of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeState {
    /// Its id.
    pub(crate) node: u64,
    /// Whether this is the look after everything came to rest.
    #[serde(rename = "final")]
    pub(crate) is_final: bool,
    /// The leader it knows.
    pub(crate) leader: Option<u64>,
    /// Its term.
    pub(crate) term: u64,
    /// How far its ledger is.
    pub(crate) applied_index: u64,
    /// Where in the log the digest was taken.
    #[serde(default)]
    pub(crate) digest_index: u64,
    /// Its ledger's digest at `digest_index`.
    pub(crate) digest: Option<String>,
    /// What is still taken or waiting, by metric; empty: nothing.
    pub(crate) outstanding: Vec<String>,
}
