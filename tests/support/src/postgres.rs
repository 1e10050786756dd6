//! A real PostgreSQL of a test's own: on its own port and folder, killed when dropped.

use crate::process::{free_port, signal, wait_until};
use anyhow::{Context, bail};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The name of the databases' owner.
const OWNER: &str = "postgres";

/// A PostgreSQL server.
#[derive(Debug)]
pub struct PostgresServer {
    dir: tempfile::TempDir,
    bin: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl PostgresServer {
    /// Makes a cluster and starts it; `make services` installs what it needs.
    ///
    /// # Errors
    /// When PostgreSQL is not installed or does not start.
    pub fn start() -> anyhow::Result<Self> {
        let bin = bin_dir().context("no PostgreSQL server is installed: run `make services`")?;
        let dir = tempfile::tempdir()?;
        if is_root() {
            let status = Command::new("chown").arg(OWNER).arg(dir.path()).status()?;
            anyhow::ensure!(status.success(), "the folder cannot be given to {OWNER}");
        }
        let mut server = Self { dir, bin, port: free_port()?, child: None };
        let data = server.data();
        server.run(server.command("initdb").args(["-A", "trust", "-U", OWNER, "--no-sync", "-D"]).arg(&data))?;
        server.launch()?;
        Ok(server)
    }

    /// The address of one of its databases.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{OWNER}@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes an empty database, and gives its address.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(&self, database: &str) -> anyhow::Result<String> {
        self.run(self.client("createdb").arg(database))?;
        Ok(self.url(database))
    }

    /// Runs statements in a database; gives what they print, without decoration.
    ///
    /// # Errors
    /// When one of them fails.
    pub fn sql(&self, database: &str, statements: &str) -> anyhow::Result<String> {
        let text = self.run(
            self.client("psql")
                .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"])
                .args(["-d", database, "-c", statements]),
        )?;
        Ok(text.trim().to_owned())
    }

    /// Dumps a database.
    ///
    /// # Errors
    /// When it cannot be dumped.
    pub fn dump(&self, database: &str) -> anyhow::Result<String> {
        self.run(self.client("pg_dump").args(["--clean", "--if-exists", database]))
    }

    /// Puts a dump in place of what a database holds.
    ///
    /// # Errors
    /// When it cannot be restored.
    pub fn restore(&self, database: &str, dump: &str) -> anyhow::Result<()> {
        let file = self.dir.path().join("dump.sql");
        std::fs::write(&file, dump)?;
        self.run(self.client("psql").args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database, "-f"]).arg(file))?;
        Ok(())
    }

    /// Kills it, as a crash would.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        // Ends it with all of its processes at once, without a checkpoint.
        signal(self.postmaster()?, Signal::QUIT)?;
        self.child.take().context("PostgreSQL does not run")?.wait()?;
        Ok(())
    }

    /// Starts it again on its data and its port.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        if self.child.is_some() {
            self.kill()?;
        }
        self.launch()
    }

    /// Stops all of its processes in their tracks.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.each(Signal::STOP)
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.each(Signal::CONT)
    }

    fn each(&self, what: Signal) -> anyhow::Result<()> {
        let postmaster = self.postmaster()?;
        signal(postmaster, what)?;
        let children = std::fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children"))?;
        for child in children.split_whitespace() {
            // One that has just ended needs no signal.
            let _ = signal(child.parse()?, what);
        }
        Ok(())
    }

    fn launch(&mut self) -> anyhow::Result<()> {
        let log = std::fs::File::create(self.dir.path().join("log"))?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).arg("-p").arg(self.port.to_string());
        for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "shared_buffers=16MB"] {
            command.args(["-c", setting]);
        }
        self.child = Some(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?);
        let ready = || self.client("pg_isready").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
        wait_until("PostgreSQL", ready)
    }

    fn postmaster(&self) -> anyhow::Result<i32> {
        let file = std::fs::read_to_string(self.data().join("postmaster.pid")).context("PostgreSQL does not run")?;
        Ok(file.lines().next().context("no process id")?.parse()?)
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A program of the server's, which refuses to run as root.
    fn command(&self, program: &str) -> Command {
        if !is_root() {
            return Command::new(self.bin.join(program));
        }
        let mut command = Command::new("runuser");
        command.args(["-u", OWNER, "--"]).arg(self.bin.join(program)).current_dir("/");
        command
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.args(["-h", "127.0.0.1", "-U", OWNER, "-p"]).arg(self.port.to_string());
        command
    }

    fn run(&self, command: &mut Command) -> anyhow::Result<String> {
        let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
        if !output.status.success() {
            bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if let Ok(postmaster) = self.postmaster() {
            // Paused processes hear nothing else.
            let _ = self.each(Signal::KILL);
            let _ = signal(postmaster, Signal::KILL);
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Where the server's programs are: Debian keeps them out of the path.
fn bin_dir() -> Option<PathBuf> {
    let of_debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = of_debian.map(|version| version.path().join("bin")).collect();
    found.sort();
    found.reverse();
    let path = std::env::var_os("PATH").unwrap_or_default();
    found.extend(std::env::split_paths(&path).map(|dir| dir.to_path_buf()));
    found.into_iter().find(|dir: &PathBuf| is_there(&dir.join("initdb")) && is_there(&dir.join("postgres")))
}

fn is_there(path: &Path) -> bool {
    path.is_file()
}
