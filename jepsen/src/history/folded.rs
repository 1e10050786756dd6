//! The history put together for checkers: each operation with its end, each fault with its phases.

use super::{Arrival, Call, Event, Header, NodeState, Phase, Row, Value, What};
use anyhow::Context;
use std::collections::BTreeMap;
use std::path::Path;

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It happened.
    Ok(Value),
    /// It certainly did not happen.
    Fail(String),
    /// Nobody knows.
    Unknown(String),
}

/// An operation from its begin to its end.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    /// Its number.
    pub(crate) id: u64,
    /// The node that was asked.
    pub(crate) node: u64,
    /// What was asked.
    pub(crate) call: Call,
    /// When it began.
    pub(crate) invoked_us: u64,
    /// When it ended; `None`: it never did.
    pub(crate) ended_us: Option<u64>,
    /// How it ended.
    pub(crate) outcome: Outcome,
}

/// A fault from its begin to its end.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    /// Which nemesis.
    pub(crate) nemesis: String,
    /// The nodes that it struck.
    pub(crate) nodes: Vec<u64>,
    /// When it began.
    pub(crate) from_us: u64,
    /// When it was seen to strike.
    pub(crate) struck_us: Option<u64>,
    /// When it was mended.
    pub(crate) to_us: Option<u64>,
    /// What was done and seen.
    pub(crate) notes: Vec<String>,
}

/// Everything that checkers may look at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Folded {
    /// What ran.
    pub(crate) header: Header,
    /// Operations in order of their begin.
    pub(crate) ops: Vec<Op>,
    /// Requests at the upstream with the time of their arrival, in order.
    pub(crate) arrivals: Vec<(u64, Arrival)>,
    /// Usage rows.
    pub(crate) rows: Vec<Row>,
    /// Faults in order of their begin.
    pub(crate) faults: Vec<Fault>,
    /// What nodes said of themselves, with the time.
    pub(crate) states: Vec<(u64, NodeState)>,
    /// Quotas after the run: key, limit, left (`None`: less than one request).
    pub(crate) quotas: Vec<(String, u64, Option<u64>)>,
    /// The largest stall of the machine.
    pub(crate) stall_us: u64,
    /// Stages with the time at which they began.
    pub(crate) stages: Vec<(u64, String)>,
}

impl Folded {
    /// Reads a history file.
    ///
    /// # Errors
    /// When it cannot be read, or a line is none of a history.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let line = |(number, line): (usize, &str)| -> anyhow::Result<Event> {
            serde_json::from_str(line).with_context(|| format!("{}:{}: no event", path.display(), number + 1))
        };
        let events: Vec<Event> = text.lines().enumerate().map(line).collect::<anyhow::Result<_>>()?;
        Ok(Self::of(&events))
    }

    /// Puts events together.
    pub(crate) fn of(events: &[Event]) -> Self {
        let mut folded = Self::default();
        let mut ops: BTreeMap<u64, Op> = BTreeMap::new();
        let mut faults: BTreeMap<u64, Fault> = BTreeMap::new();
        let end = |op: &u64, at_us: u64, outcome: Outcome, ops: &mut BTreeMap<u64, Op>| {
            if let Some(op) = ops.get_mut(op) {
                (op.ended_us, op.outcome) = (Some(at_us), outcome);
            }
        };
        for Event { at_us, what } in events {
            let at_us = *at_us;
            match what {
                What::Run(header) => folded.header = header.clone(),
                What::Invoke { op, node, call, .. } => {
                    let outcome = Outcome::Unknown("never ended".to_owned());
                    let call = call.clone();
                    let begun = Op { id: *op, node: *node, call, invoked_us: at_us, ended_us: None, outcome };
                    ops.insert(*op, begun);
                }
                What::Ok { op, value } => end(op, at_us, Outcome::Ok(value.clone()), &mut ops),
                What::Fail { op, error } => end(op, at_us, Outcome::Fail(error.clone()), &mut ops),
                What::Info { op, error } => end(op, at_us, Outcome::Unknown(error.clone()), &mut ops),
                What::Fault { fault, nemesis, phase, nodes, note } => {
                    let fault = faults.entry(*fault).or_insert_with(|| Fault {
                        nemesis: nemesis.clone(),
                        nodes: Vec::new(),
                        from_us: at_us,
                        struck_us: None,
                        to_us: None,
                        notes: Vec::new(),
                    });
                    fault.advance(at_us, *phase, nodes, note);
                }
                What::Arrival(arrival) => folded.arrivals.push((at_us, arrival.clone())),
                What::Row(row) => folded.rows.push(row.clone()),
                What::Stall { us } => folded.stall_us = folded.stall_us.max(*us),
                What::Node(state) => folded.states.push((at_us, state.clone())),
                What::Quota { key, limit, left } => folded.quotas.push((key.clone(), *limit, *left)),
                What::Stage { name } => folded.stages.push((at_us, name.clone())),
            }
        }
        folded.ops = ops.into_values().collect();
        folded.faults = faults.into_values().collect();
        folded.arrivals.sort_by_key(|(at_us, _)| *at_us);
        folded
    }

    /// The number of an operation to the operation.
    pub(crate) fn op(&self, id: u64) -> Option<&Op> {
        self.ops.binary_search_by_key(&id, |op| op.id).ok().map(|place| &self.ops[place])
    }

    /// When clients began to work.
    pub(crate) fn began_us(&self) -> u64 {
        self.ops.first().map_or(0, |op| op.invoked_us)
    }

    /// When a stage began.
    pub(crate) fn stage_us(&self, name: &str) -> Option<u64> {
        self.stages.iter().find(|(_, stage)| stage == name).map(|(at_us, _)| *at_us)
    }
}

impl Fault {
    fn advance(&mut self, at_us: u64, phase: Phase, nodes: &[u64], note: &str) {
        if !nodes.is_empty() {
            self.nodes = nodes.to_vec();
        }
        if !note.is_empty() {
            self.notes.push(note.to_owned());
        }
        match phase {
            Phase::Begin => self.from_us = at_us,
            Phase::Struck => self.struck_us = Some(at_us),
            Phase::End | Phase::Missed => self.to_us = Some(at_us),
        }
    }
}

impl Op {
    /// The reply of a chat completion that came whole.
    pub(crate) fn answer(&self) -> Option<&super::Answer> {
        match &self.outcome {
            Outcome::Ok(Value::Chat(answer)) => Some(answer),
            _ => None,
        }
    }
}

impl Arrival {
    /// Tokens that the upstream used for it: as reported, else what it had read and written.
    pub(crate) fn tokens(&self, prompt_tokens: u64) -> u64 {
        if self.status >= 400 {
            return 0;
        }
        match (self.prompt_tokens, self.completion_tokens) {
            (Some(prompt), Some(completion)) => prompt + completion,
            _ => prompt_tokens + self.emitted_tokens,
        }
    }
}
