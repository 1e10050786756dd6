//! What servers of a test need: a port, a signal, a wait.

use crate::clock;
use anyhow::{Context, bail};
use rustix::process::{Pid, Signal};
use std::net::TcpListener;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// A port that nobody has now.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

pub(crate) fn signal(process: i32, what: Signal) -> anyhow::Result<()> {
    let process = Pid::from_raw(process).context("a process id is not zero")?;
    Ok(rustix::process::kill_process(process, what)?)
}

pub(crate) fn wait_until(server: &str, is_so: impl Fn() -> bool) -> anyhow::Result<()> {
    let began_us = clock::boot_us();
    while !is_so() {
        if clock::since(began_us) > PATIENCE {
            bail!("{server} does not answer");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
