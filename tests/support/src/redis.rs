//! A real Redis of a test's own: on its own port, empty at every start, killed when dropped.

use crate::process::{free_port, signal, wait_until};
use anyhow::Context;
use rustix::process::Signal;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

/// A Redis server.
#[derive(Debug)]
pub struct RedisServer {
    dir: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
}

impl RedisServer {
    /// Starts it; `make services` installs what it needs.
    ///
    /// # Errors
    /// When Redis is not installed or does not start.
    pub fn start() -> anyhow::Result<Self> {
        let mut server = Self { dir: tempfile::tempdir()?, port: free_port()?, child: None };
        server.launch()?;
        Ok(server)
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// How many keys it holds.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn keys(&self) -> anyhow::Result<u64> {
        let output = Command::new("redis-cli").arg("-p").arg(self.port.to_string()).arg("dbsize").output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
    }

    /// Kills it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().context("Redis does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Starts it again on its port, empty.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        if self.child.is_some() {
            self.kill()?;
        }
        self.launch()
    }

    /// Stops it in its tracks.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, what: Signal) -> anyhow::Result<()> {
        let child = self.child.as_ref().context("Redis does not run")?;
        signal(i32::try_from(child.id())?, what)
    }

    fn launch(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new("redis-server");
        command.args(["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--port"]).arg(self.port.to_string());
        command.arg("--dir").arg(self.dir.path()).stdin(Stdio::null()).stdout(Stdio::null());
        self.child = Some(command.spawn().context("no Redis server is installed: run `make services`")?);
        wait_until("Redis", || TcpStream::connect(("127.0.0.1", self.port)).is_ok())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
