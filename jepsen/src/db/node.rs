//! One gateway: started, killed, stopped, resumed, started again on its data.

use super::config::node_file;
use super::process::{Launch, signal};
use super::{Home, READY_WITHIN, Setup, Upstream};
use crate::clock;
use crate::fabric::Fabric;
use crate::history::Pool;
use anyhow::{Context, bail};
use rustix::process::Signal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::process::Child;
use tokio::sync::Mutex;

/// A gateway and its process, when it has one.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its id.
    pub(crate) id: u64,
    /// Where clients reach it.
    pub(crate) http: SocketAddr,
    /// Its data directory.
    pub(crate) data: PathBuf,
    launch: Launch,
    child: Mutex<Option<Child>>,
    /// Held by the one fault that works on this node.
    taken: AtomicBool,
}

impl Node {
    /// Writes the node's configuration; starts nothing.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn new(
        setup: &Setup,
        dir: &Path,
        id: u64,
        (home, fabric): (&Home, &Fabric),
        upstream: &Upstream,
        pools: &[Pool],
    ) -> anyhow::Result<Self> {
        let file = dir.join(format!("n{id}.toml"));
        let text = node_file(setup, dir, id, (home, fabric), upstream.address, pools);
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        let launch = Launch {
            program: setup.binaries.gatewayd.clone(),
            args: vec!["serve".into(), "--config".into(), file.into()],
            env: Vec::new(),
            log: dir.join(format!("n{id}.log")),
        };
        let data = dir.join(format!("n{id}"));
        Ok(Self { id, http: home.http(id), data, launch, child: Mutex::new(None), taken: AtomicBool::new(false) })
    }

    /// Takes the node for one fault; `false` when another one works on it.
    pub(crate) fn take(&self) -> bool {
        !self.taken.swap(true, Ordering::AcqRel)
    }

    /// Gives it back.
    pub(crate) fn give_back(&self) {
        self.taken.store(false, Ordering::Release);
    }

    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// When it ends or is not ready in time; the message carries the end of its log.
    pub(crate) async fn start(&self) -> anyhow::Result<()> {
        self.begin().await?;
        self.ready().await
    }

    /// Starts it without waiting.
    ///
    /// # Errors
    /// When it cannot be run.
    pub(crate) async fn begin(&self) -> anyhow::Result<()> {
        let mut child = self.child.lock().await;
        // A file of an earlier life would say that it serves.
        let _ = std::fs::remove_file(self.ready_file());
        *child = Some(self.launch.spawn()?);
        Ok(())
    }

    /// Waits until it serves.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub(crate) async fn ready(&self) -> anyhow::Result<()> {
        let began_us = clock::boot_us();
        loop {
            if self.ready_file().exists() {
                return Ok(());
            }
            if let Some(status) = self.exit_status().await? {
                bail!("node {} ended with {status} before it served:\n{}", self.id, self.log_tail());
            }
            if clock::since(began_us) > READY_WITHIN {
                bail!("node {} did not serve within {READY_WITHIN:?}:\n{}", self.id, self.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Starts it when it does not run, and waits until it serves.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub(crate) async fn ensure_running(&self) -> anyhow::Result<()> {
        if self.exit_status().await?.is_some() || self.child.lock().await.is_none() {
            return self.start().await;
        }
        self.ready().await
    }

    /// Kills it with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// When it does not run.
    pub(crate) async fn kill(&self) -> anyhow::Result<()> {
        let mut guard = self.child.lock().await;
        let child = guard.as_mut().with_context(|| format!("node {} does not run", self.id))?;
        anyhow::ensure!(child.try_wait()?.is_none(), "node {} had ended by itself", self.id);
        child.kill().await?;
        *guard = None;
        Ok(())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub(crate) async fn signal(&self, number: Signal) -> anyhow::Result<()> {
        let child = self.child.lock().await;
        signal(child.as_ref().with_context(|| format!("node {} does not run", self.id))?, number)
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it does not run, or not end in time.
    pub(crate) async fn wait_exit(&self, patience: Duration) -> anyhow::Result<ExitStatus> {
        let mut guard = self.child.lock().await;
        let child = guard.as_mut().with_context(|| format!("node {} does not run", self.id))?;
        let ended = tokio::time::timeout(patience, child.wait()).await;
        let status = ended.with_context(|| format!("node {} did not end within {patience:?}", self.id))??;
        *guard = None;
        Ok(status)
    }

    /// Lets it go on, if it is stopped.
    pub(crate) async fn resume(&self) {
        if let Some(child) = self.child.lock().await.as_ref() {
            // A child that has just ended needs no signal.
            let _ = signal(child, Signal::CONT);
        }
    }

    /// The state letter of the process, as `proc(5)` has it: `T` is stopped.
    pub(crate) async fn state(&self) -> Option<char> {
        let pid = self.pid().await?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    /// Its process id.
    pub(crate) async fn pid(&self) -> Option<u32> {
        self.child.lock().await.as_ref().and_then(Child::id)
    }

    /// Ends it for good.
    pub(super) async fn end(&self) {
        if let Some(mut child) = self.child.lock().await.take() {
            // It may have ended already.
            let _ = child.kill().await;
        }
    }

    async fn exit_status(&self) -> anyhow::Result<Option<ExitStatus>> {
        match self.child.lock().await.as_mut() {
            Some(child) => Ok(child.try_wait()?),
            None => Ok(None),
        }
    }

    fn ready_file(&self) -> PathBuf {
        self.data.join("ready.json")
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read(&self.launch.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}
