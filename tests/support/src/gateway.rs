//! The real gateway as a child process: started, killed, restarted, never left behind.

use crate::clock;
use crate::config::Config;
use anyhow::{Context, bail};
use serde_json::Value;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};

/// How to start `gatewayd`.
#[derive(Debug)]
pub struct GatewayBuilder {
    binary: PathBuf,
    dir: Option<PathBuf>,
    config: Option<Config>,
    args: Vec<OsString>,
    env: Vec<(String, String)>,
    patience: Duration,
}

impl GatewayBuilder {
    /// Runs `gatewayd dev`; `binary` is the caller's `env!("CARGO_BIN_EXE_gatewayd")`.
    pub fn dev(binary: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
            dir: None,
            config: None,
            args: Vec::new(),
            env: Vec::new(),
            patience: Duration::from_secs(30),
        }
    }

    /// Runs `gatewayd serve --config FILE`. The config's `node.data_dir` must be the directory that is given here.
    pub fn serve(binary: impl Into<PathBuf>, data_dir: impl Into<PathBuf>, config: Config) -> Self {
        Self { config: Some(config), ..Self::dev(binary) }.data_dir(data_dir)
    }

    /// Keeps the data here instead of in a temporary directory of its own.
    #[must_use]
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Sets a variable of the environment, which is otherwise free of `TOKLIGENCE_*`.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Waits so long for the gateway to be ready; 30 s unless told.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// When it cannot be run, ends, or is not ready in time; the message carries the end of its log.
    pub async fn start(self) -> anyhow::Result<GatewayProcess> {
        let (dir, kept) = match &self.dir {
            Some(dir) => (dir.clone(), None),
            None => {
                let temp = tempfile::tempdir().context("no temporary directory")?;
                (temp.path().join("data"), Some(temp))
            }
        };
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let mut process =
            GatewayProcess { builder: self, dir, _kept: kept, child: None, address: String::new(), ready_us: 0 };
        process.launch().await?;
        Ok(process)
    }
}

/// A running gateway; dropping it kills it.
#[derive(Debug)]
pub struct GatewayProcess {
    builder: GatewayBuilder,
    dir: PathBuf,
    _kept: Option<tempfile::TempDir>,
    child: Option<Child>,
    address: String,
    ready_us: u64,
}

impl GatewayProcess {
    /// `http://ADDR`, without a path.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `ADDR:PORT` of its HTTP listener.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where its data is.
    pub fn data_dir(&self) -> &Path {
        &self.dir
    }

    /// Its process id; `None` when it does not run.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// When it was seen ready, boot-clock microseconds.
    pub fn ready_us(&self) -> u64 {
        self.ready_us
    }

    /// The API key that `dev` made.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn key(&self) -> anyhow::Result<String> {
        read_key(&self.dir.join("key"))
    }

    /// The admin key: the config's, else the file that `dev` made.
    ///
    /// # Errors
    /// When there is neither.
    pub fn admin_key(&self) -> anyhow::Result<String> {
        let configured = self.builder.config.as_ref().and_then(|config| config.get("identity.admin_key"));
        match configured.and_then(|value| value.as_str()) {
            Some(key) => Ok(key.to_owned()),
            None => read_key(&self.dir.join("admin-key")),
        }
    }

    /// Everything it wrote to stdout and stderr, over all of its lives.
    pub fn log(&self) -> String {
        std::fs::read(self.log_path()).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
    }

    /// Where [`GatewayProcess::log`] reads.
    pub fn log_path(&self) -> PathBuf {
        self.dir.with_extension("log")
    }

    /// Memory in use, in kilobytes.
    ///
    /// # Errors
    /// When it does not run, or not on Linux.
    pub fn rss_kb(&self) -> anyhow::Result<u64> {
        let pid = self.pid().context("the gateway does not run")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    }

    /// Replaces the configuration for the next start.
    pub fn set_config(&mut self, config: Config) {
        self.builder.config = Some(config);
    }

    /// Sets a variable of the environment for the next start.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.builder.env.push((name.to_owned(), value.to_owned()));
    }

    /// Kills it with `SIGKILL` and waits until it is gone.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill9(&mut self) -> anyhow::Result<()> {
        let child = self.child.as_mut().context("the gateway does not run")?;
        child.kill().await?;
        self.child = None;
        Ok(())
    }

    /// Asks it to end, with `SIGTERM`.
    ///
    /// # Errors
    /// When it does not run.
    pub fn sigterm(&self) -> anyhow::Result<()> {
        self.signal(rustix::process::Signal::TERM)
    }

    /// Stops it in its tracks, with `SIGSTOP`.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(rustix::process::Signal::STOP)
    }

    /// Lets it go on after [`GatewayProcess::pause`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(rustix::process::Signal::CONT)
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it does not run, or not end in time.
    pub async fn wait_exit(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        let child = self.child.as_mut().context("the gateway does not run")?;
        let status =
            tokio::time::timeout(patience, child.wait()).await.context("the gateway did not end in time")??;
        self.child = None;
        Ok(status)
    }

    /// Starts it again on the same data; kills it first if it still runs. The port may be another one.
    ///
    /// # Errors
    /// As [`GatewayBuilder::start`].
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        if self.child.is_some() {
            self.kill9().await?;
        }
        self.launch().await
    }

    fn signal(&self, signal: rustix::process::Signal) -> anyhow::Result<()> {
        let pid = self.pid().context("the gateway does not run")?;
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid)?).context("a process id is not zero")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    async fn launch(&mut self) -> anyhow::Result<()> {
        let ready = self.dir.join("ready.json");
        // A file of an earlier life would name the wrong port.
        match std::fs::remove_file(&ready) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let mut command = Command::new(&self.builder.binary);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TOKLIGENCE_") {
                command.env_remove(name);
            }
        }
        match &self.builder.config {
            Some(config) => {
                let file = self.dir.with_extension("toml");
                std::fs::write(&file, config.to_toml())?;
                command.arg("serve").arg("--config").arg(file);
            }
            None => {
                command.arg("dev").arg("--data-dir").arg(&self.dir).args(["--listen", "127.0.0.1:0"]);
            }
        }
        let log: File = OpenOptions::new().create(true).append(true).open(self.log_path())?;
        command.args(&self.builder.args).envs(self.builder.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("cannot run {}", self.builder.binary.display()))?;
        self.child = Some(child);
        self.address = self.await_ready(&ready).await?;
        self.ready_us = clock::boot_us();
        Ok(())
    }

    async fn await_ready(&mut self, ready: &Path) -> anyhow::Result<String> {
        let started_us = clock::boot_us();
        loop {
            if let Ok(text) = std::fs::read(ready) {
                let value: Value = serde_json::from_slice(&text).context("ready.json is not JSON")?;
                return Ok(value["address"].as_str().context("ready.json names no address")?.to_owned());
            }
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().transpose()).transpose()? {
                self.child = None;
                bail!("the gateway ended with {status} before it was ready:\n{}", self.log_tail());
            }
            if clock::since(started_us) > self.builder.patience {
                bail!("the gateway was not ready in {:?}:\n{}", self.builder.patience, self.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

fn read_key(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.trim().to_owned())
}
