//! Starting a node's part in its group: lock, store, identity, snapshots, consensus; and what can be wrong with each.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use openraft::{Raft, ServerState};

use super::settings::Settings;
use crate::apply::Applier;
use crate::disk;
use crate::fault::Fault;
use crate::identity::{self, Identity, NO_CLUSTER};
use crate::machine::Machine;
use crate::network::{self, Dial, Network};
use crate::snapshot::{Snapshots, Unusable};
use crate::store::flusher::FsyncStats;
use crate::store::{OpenError, Store};
use crate::types::{Node, NodeId, TypeConfig};

/// Why a node could not take part; one sentence each, for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting does not make sense.
    #[error("the group's settings are wrong: {0}")]
    Config(String),
    /// Somebody else works on the same data.
    #[error("the data directory {} is in use by another process{holder}", path.display())]
    AlreadyRunning {
        /// The data directory.
        path: PathBuf,
        /// Names the process, where it can be told.
        holder: String,
    },
    /// The data cannot be written.
    #[error("{} cannot be written: {source}", path.display())]
    ReadOnly {
        /// What cannot be written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk has no room.
    #[error("the disk that holds {} is full", path.display())]
    DiskFull {
        /// What could not grow.
        path: PathBuf,
    },
    /// Another error of the file system.
    #[error("{} cannot be used: {source}", path.display())]
    Io {
        /// What cannot be used.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What stands on disk is not what this build wrote.
    #[error("the data in {} is damaged: {reason}", path.display())]
    Damaged {
        /// Where.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The identity says that there was a log here, and there is none.
    #[error("node {node} lost its data: remove it, add a new id")]
    LostData {
        /// Who it was.
        node: NodeId,
    },
    /// The data belongs to another node.
    #[error("the data directory {} belongs to node {found}, not to node {expected}", path.display())]
    OtherNode {
        /// The data directory.
        path: PathBuf,
        /// Who it belongs to.
        found: NodeId,
        /// Who was to be started.
        expected: NodeId,
    },
    /// Consensus ended before it began.
    #[error("consensus could not start: {0}")]
    Consensus(String),
    /// No leader was found in time.
    #[error("the group had no leader within {0} ms")]
    NoLeader(u64),
}

impl StartError {
    /// Sorts an error of the file system by what the operator does next.
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => Self::ReadOnly { path, source },
            _ => Self::Io { path, source },
        }
    }
}

impl From<OpenError> for StartError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Io { path, source } => Self::io(&path, source),
            OpenError::Damaged { path, reason } => Self::Damaged { path, reason },
        }
    }
}

/// Everything on disk, opened and found to belong together.
pub(crate) struct Opened {
    pub(crate) lock: File,
    pub(crate) store: Store,
    pub(crate) snapshots: Snapshots,
    pub(crate) identity: Identity,
}

/// Binds the listener for peers, where there is to be one; a taken port is found before anything starts.
pub(crate) async fn peer(
    settings: &Settings,
) -> Result<(Option<network::Tls>, Option<network::Listening>), StartError> {
    let Some(peer) = &settings.peer else { return Ok((None, None)) };
    let tls = peer.tls.as_ref().map(network::Tls::read).transpose();
    let tls = tls.map_err(|error| StartError::Config(format!("peer.tls: {error}")))?;
    let listening = network::listen(peer.listen, tls.clone()).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            StartError::Config(format!("peer.listen: {} is taken by another process", peer.listen))
        }
        _ => StartError::Config(format!("peer.listen: cannot listen on {}: {error}", peer.listen)),
    })?;
    Ok((tls, Some(listening)))
}

/// Opens a data directory, or makes it.
pub(crate) async fn open(settings: &Settings, fault: &Fault, stats: &Arc<FsyncStats>) -> Result<Opened, StartError> {
    let (dir, fault, stats) = (settings.data_dir.clone(), fault.clone(), stats.clone());
    let opened = tokio::task::spawn_blocking(move || {
        let at = |error| StartError::io(&dir, error);
        fs::create_dir_all(&dir).map_err(at)?;
        disk::sync_dir(disk::parent(&dir)).map_err(at)?;
        let lock = lock(&dir)?;
        let store = Store::open(&dir.join("raft"), fault, stats)?;
        let snapshots = Snapshots::open(&dir.join("snapshots")).map_err(at)?;
        Ok::<_, StartError>((lock, store, snapshots))
    });
    let (lock, store, snapshots) = opened.await.map_err(|error| StartError::Consensus(error.to_string()))??;
    let identity = identify(settings, &store).await?;
    let (purged, _) = store.ends().map_err(|error| StartError::io(store.dir(), error))?;
    snapshots.settle(purged).map_err(|error| match error {
        Unusable::Io(reason) => StartError::Damaged { path: settings.data_dir.join("snapshots"), reason },
        gap @ Unusable::Gap { .. } => StartError::Damaged { path: settings.data_dir.clone(), reason: gap.to_string() },
    })?;
    Ok(Opened { lock, store, snapshots, identity })
}

/// Takes the data directory for this process; the system lets go of it when the process ends, however it ends.
fn lock(dir: &Path) -> Result<File, StartError> {
    let path = dir.join("lock");
    let at = |error| StartError::io(&path, error);
    let options = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
    let mut file = options.map_err(at)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            let known = file.read_to_string(&mut holder).is_ok() && !holder.is_empty();
            let holder = if known { format!(" (pid {})", holder.trim()) } else { String::new() };
            return Err(StartError::AlreadyRunning { path: dir.to_owned(), holder });
        }
        Err(error) => return Err(at(error.into())),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(at)?;
    Ok(file)
}

/// Finds out who this node is, and that its store is the one it had.
async fn identify(settings: &Settings, store: &Store) -> Result<Identity, StartError> {
    let path = settings.data_dir.join(identity::FILE);
    let known = Identity::read(&path).map_err(|reason| StartError::Damaged { path: path.clone(), reason })?;
    let at = |error| StartError::io(store.dir(), error);
    let uuid = store.uuid().map_err(at)?;
    match (known, uuid) {
        (Some(known), Some(uuid)) if known.store_uuid == uuid => {
            let (found, expected) = (known.node_id, settings.node_id);
            if found != expected {
                return Err(StartError::OtherNode { path: settings.data_dir.clone(), found, expected });
            }
            Ok(known)
        }
        (Some(known), None) => Err(StartError::LostData { node: known.node_id }),
        (Some(_), Some(_)) => {
            let reason = "it belongs to another store than the one beside it".to_owned();
            Err(StartError::Damaged { path, reason })
        }
        (None, uuid) => {
            // Written last at the first start, so a log without it is not a start that was cut off.
            if !store.is_blank().map_err(at)? {
                let reason = "it is missing beside a log that is in use".to_owned();
                return Err(StartError::Damaged { path, reason });
            }
            let store_uuid = match uuid {
                Some(uuid) => uuid,
                None => {
                    let uuid = random()?;
                    store.save_uuid(uuid).await.map_err(at)?;
                    uuid
                }
            };
            // Only who makes a new group draws its id; the others take it up from there.
            let cluster_id = if settings.founds() { random()? } else { NO_CLUSTER };
            let identity = Identity { cluster_id, node_id: settings.node_id, store_uuid };
            identity.write(&path).map_err(|error| StartError::io(&path, error))?;
            Ok(identity)
        }
    }
}

fn random() -> Result<[u8; 16], StartError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| StartError::Consensus(error.to_string()))?;
    Ok(bytes)
}

/// Starts consensus, and a group of one where there was none; tells where this node stands. Elections by timeout stay
/// off until [`settle`], so that none crosses the one asked for here.
pub(crate) async fn consensus<M: Machine>(
    settings: &Settings,
    identity: &Identity,
    store: Store,
    applier: Applier<M>,
    dial: &Dial,
) -> Result<(Raft<TypeConfig, Applier<M>>, Standing), StartError> {
    let fatal = |error: &dyn std::fmt::Display| StartError::Consensus(error.to_string());
    let openraft = settings.to_openraft("tokligence")?;
    let network = Network::new(dial.clone());
    let raft = Raft::new(settings.node_id, openraft, network, store, applier).await.map_err(|error| fatal(&error))?;
    let standing = if raft.is_initialized().await.map_err(|error| fatal(&error))? {
        // Asked of consensus itself, since its metrics lag behind at this point.
        let me = settings.node_id;
        let voters = raft.with_raft_state(move |state| state.membership_state.effective().voter_ids().eq([me])).await;
        let alone = voters.map_err(|error| fatal(&error))?;
        if alone {
            // Nobody else could be the leader, so there is no election timeout to sit out.
            raft.trigger().elect(false).await.map_err(|error| fatal(&error))?;
        }
        if alone { Standing::Alone } else { Standing::Member }
    } else if let [(id, addr)] = settings.members.as_slice() {
        let node = Node { addr: addr.clone(), store_uuid: identity.store_uuid };
        raft.initialize(BTreeMap::from([(*id, node)])).await.map_err(|error| fatal(&error))?;
        Standing::Alone
    } else if settings.founds() {
        Standing::Founder
    } else {
        Standing::Member
    };
    Ok((raft, standing))
}

/// Waits until a group of one leads itself and has applied what it had before. A larger group is not waited for: its
/// other members may still be down, and this node serves as soon as there is a leader.
pub(crate) async fn settle<M: Machine>(
    settings: &Settings,
    raft: &Raft<TypeConfig, Applier<M>>,
    fault: &Fault,
    standing: Standing,
) -> Result<(), StartError> {
    let stopped = |error: String| StartError::Consensus(fault.reason().unwrap_or(error));
    if standing != Standing::Alone {
        raft.runtime_config().elect(true);
        return Ok(());
    }
    let within = Duration::from_millis(settings.start_ms_max);
    let leads = raft.wait(Some(within)).state(ServerState::Leader, "a group of one leads itself").await;
    raft.runtime_config().elect(true);
    leads.map_err(|error| match fault.reason() {
        None => StartError::NoLeader(settings.start_ms_max),
        Some(_) => stopped(error.to_string()),
    })?;
    let recovered = raft.wait_for_recovery(Some(within)).await;
    recovered.map(|_| ()).map_err(|error| stopped(error.to_string()))
}

/// Where a node stands when consensus has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is the only voter.
    Alone,
    /// It is, or will be, one of several.
    Member,
    /// It is to make a group of several that does not exist yet.
    Founder,
}

/// How soon first members that are not there yet are asked again.
const AGAIN: Duration = Duration::from_millis(200);

/// Makes a group of the first members, once every one of them is there and has taken up the cluster's id.
pub(crate) async fn found<M: Machine>(
    raft: Raft<TypeConfig, Applier<M>>,
    dial: Dial,
    members: Vec<(NodeId, String)>,
    fault: Fault,
    closing: Arc<std::sync::atomic::AtomicBool>,
) {
    let Some(cluster) = dial.pass.cluster().get() else { return };
    while fault.reason().is_none() && !closing.load(std::sync::atomic::Ordering::Acquire) {
        match network::gather(&dial, &members, cluster).await {
            Ok(nodes) => {
                if let Err(error) = raft.initialize(nodes).await {
                    tracing::error!(%error, "the group could not be made");
                }
                return;
            }
            Err(status) if status.code() == tonic::Code::FailedPrecondition => {
                fault.end(status.message());
            }
            Err(status) => {
                tracing::debug!(%status, "a first member is not there yet");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}
