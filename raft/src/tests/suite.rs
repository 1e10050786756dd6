//! openraft's own suite for log stores and state machines, run against ours.

use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use super::Tape;
use crate::apply::Applier;
use crate::fault::Fault;
use crate::snapshot::Snapshots;
use crate::store::Store;
use crate::store::flusher::FsyncStats;
use crate::types::TypeConfig;

struct Builder;

impl StoreBuilder<TypeConfig, Store, Applier<Tape>, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, Store, Applier<Tape>), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let fault = Fault::new();
        let store = Store::open(&dir.path().join("raft"), fault.clone(), Arc::new(FsyncStats::default())).unwrap();
        let snapshots = Snapshots::open(&dir.path().join("snapshots")).unwrap();
        Ok((dir, store, Applier::new(Tape::default(), snapshots, fault)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_passes_openrafts_suite() {
    Suite::test_all(Builder).await.unwrap();
}
