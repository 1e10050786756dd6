//! A child process that does not outlive the harness.

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use tokio::process::{Child, Command};

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) log: PathBuf,
}

impl Launch {
    /// Starts it. It is killed when the handle is dropped, and by the kernel when the harness itself is killed.
    ///
    /// # Errors
    /// When it cannot be run.
    pub(crate) fn spawn(&self) -> anyhow::Result<Child> {
        let mut command = self.command();
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TOKLIGENCE_") {
                command.env_remove(name);
            }
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("cannot write {}", self.log.display()))?;
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        // A group of its own: Ctrl-C in the terminal reaches the harness, which ends its children in order.
        command.process_group(0);
        command.spawn().with_context(|| format!("cannot run {}", self.program.display()))
    }

    fn command(&self) -> Command {
        // The kernel's word, so that even `kill -9` of the harness leaves nothing behind. setpriv becomes the program,
        // under the same process id.
        match setpriv() {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "--"]).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        }
    }
}

/// Sends a signal to a child.
///
/// # Errors
/// When it is gone.
pub(crate) fn signal(child: &Child, signal: Signal) -> anyhow::Result<()> {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    Ok(kill_process(pid.context("the process is gone")?, signal)?)
}

fn setpriv() -> Option<&'static Path> {
    static SETPRIV: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|dir| dir.join("setpriv")).find(|file| file.exists())
    };
    SETPRIV.get_or_init(find).as_deref()
}
