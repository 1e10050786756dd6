//! The end of this node's part in the group: the first fault wins, is logged once, and stays.

use tokio::sync::watch;

/// Remembers why this node can no longer take part; shared by everything that may find out.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    message: watch::Sender<Option<String>>,
    /// Makes the next syncs fail; only tests can set it.
    #[cfg(any(test, tokligence_faults))]
    pub(crate) syncs_fail: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl Fault {
    /// No fault so far.
    pub(crate) fn new() -> Self {
        Self {
            message: watch::Sender::new(None),
            #[cfg(any(test, tokligence_faults))]
            syncs_fail: std::sync::Arc::default(),
        }
    }

    /// Ends this node's part, unless it has ended already; returns the reason that counts.
    pub(crate) fn end(&self, message: impl Into<String>) -> String {
        let message = message.into();
        let mut counts = message.clone();
        self.message.send_if_modified(|current| match current {
            Some(earlier) => {
                counts.clone_from(earlier);
                false
            }
            None => {
                tracing::error!(reason = %message, "this node's part in the group ended");
                *current = Some(message);
                true
            }
        });
        counts
    }

    /// Why this node's part ended, if it did.
    pub(crate) fn reason(&self) -> Option<String> {
        self.message.borrow().clone()
    }

    /// The fault as an IO error, for calls that come after it.
    pub(crate) fn check(&self) -> std::io::Result<()> {
        match self.reason() {
            Some(reason) => Err(std::io::Error::other(reason)),
            None => Ok(()),
        }
    }

    /// Stands in for a disk that fails.
    #[cfg(any(test, tokligence_faults))]
    pub(crate) fn sync_may_fail(&self) -> std::io::Result<()> {
        let fails = self.syncs_fail.load(std::sync::atomic::Ordering::Relaxed);
        if fails { Err(std::io::Error::other("the disk is gone")) } else { Ok(()) }
    }

    /// Watches for the end.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<String>> {
        self.message.subscribe()
    }
}
