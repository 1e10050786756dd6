//! Follows consensus: tells who leads, and turns its end into this node's end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Raft, ServerState};
use tokio::sync::watch;

use crate::apply::Applier;
use crate::fault::Fault;
use crate::machine::Machine;
use crate::types::{NodeId, TypeConfig};

/// Who leads the group, as far as this node knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The newest term this node knows.
    pub term: u64,
    /// The leader of that term, if there is one.
    pub leader: Option<NodeId>,
    /// Whether that is this node.
    pub is_leader: bool,
}

/// Starts to follow; ends with consensus.
pub(super) fn spawn<M: Machine>(
    raft: Raft<TypeConfig, Applier<M>>,
    node: NodeId,
    fault: Fault,
    closing: Arc<AtomicBool>,
) -> watch::Receiver<Leadership> {
    let (sender, receiver) = watch::channel(Leadership::default());
    tokio::spawn(follow(raft, node, fault, closing, sender));
    receiver
}

async fn follow<M: Machine>(
    raft: Raft<TypeConfig, Applier<M>>,
    node: NodeId,
    fault: Fault,
    closing: Arc<AtomicBool>,
    sender: watch::Sender<Leadership>,
) {
    let (mut metrics, mut faults) = (raft.metrics(), fault.watch());
    loop {
        let (leadership, ended) = {
            let now = metrics.borrow_watched();
            let leads = now.state == ServerState::Leader && now.current_leader == Some(node);
            let leadership = Leadership { term: now.current_term, leader: now.current_leader, is_leader: leads };
            (leadership, now.running_state.as_ref().err().map(ToString::to_string))
        };
        let ended = ended.or_else(|| fault.reason());
        if let Some(reason) = ended {
            sender.send_replace(Leadership { term: leadership.term, ..Leadership::default() });
            if !closing.load(Ordering::Acquire) {
                fault.end(reason);
                // A fault found outside of consensus, such as a failed deletion, must end its leadership, too.
                let _ = raft.shutdown().await;
            }
            return;
        }
        sender.send_if_modified(|current| std::mem::replace(current, leadership) != leadership);
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() && fault.reason().is_none() {
                sender.send_replace(Leadership { term: leadership.term, ..Leadership::default() });
                return;
            },
            _ = faults.changed() => {}
        }
    }
}
