//! Opening the store: what rules R1 and R2 ask for before and around sled's own open.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::record::Broken;
use crate::{clock, disk};

/// Fixed for the store's life: sled refuses to open with another one.
const SEGMENT_BYTES: usize = 8 << 20;
const CACHE_BYTES: u64 = 64 << 20;
/// How long a store that this very process has just closed may still hold its lock.
const CLOSING: Duration = Duration::from_secs(2);

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The file system said no.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// What stands there is not what this build wrote.
    #[error("the store in {} is damaged: {reason}", path.display())]
    Damaged {
        /// Where.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl OpenError {
    pub(super) fn sled(path: &Path, error: sled::Error) -> Self {
        match error {
            sled::Error::Io(source) => Self::Io { path: path.to_owned(), source },
            other => Self::Damaged { path: path.to_owned(), reason: other.to_string() },
        }
    }

    pub(super) fn broken(path: &Path, error: Broken) -> Self {
        Self::Damaged { path: path.to_owned(), reason: error.to_string() }
    }
}

/// Opens sled, and a handle of our own on its data file.
pub(super) fn open(dir: &Path) -> Result<(sled::Db, File), OpenError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, source }
    };
    prepare(dir).map_err(at(dir))?;
    let db = open_sled(dir)?;
    let file = seal(dir).map_err(at(dir))?;
    alarm_on_blobs(dir);
    Ok((db, file))
}

/// Clears what a crash during an earlier open left behind, and makes what a killed process wrote durable.
fn prepare(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    disk::sync_dir(disk::parent(dir))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path())?;
        }
    }
    let conf = dir.join("conf");
    if conf.exists() && !is_whole(&fs::read(&conf)?) {
        // A power loss during the very first open; sled writes the same content again.
        fs::remove_file(&conf)?;
    }
    let data = dir.join("db");
    if data.exists() {
        // sled syncs a summary of this file during open. Were the file itself only in the page cache, as a killed
        // process leaves it, then a power loss could keep the summary and lose what it summarizes.
        OpenOptions::new().read(true).write(true).open(data)?.sync_all()?;
    }
    disk::sync_dir(dir)
}

/// Whether sled's settings file ends in the CRC-32 of what stands before it.
fn is_whole(conf: &[u8]) -> bool {
    conf.split_last_chunk::<4>().is_some_and(|(body, crc)| crc32fast::hash(body) == u32::from_le_bytes(*crc))
}

fn open_sled(dir: &Path) -> Result<sled::Db, OpenError> {
    let config = sled::Config::default()
        .path(dir)
        .mode(sled::Mode::HighThroughput)
        .flush_every_ms(None)
        .segment_size(SEGMENT_BYTES)
        .cache_capacity(CACHE_BYTES);
    let deadline = clock::boot() + CLOSING;
    loop {
        // sled answers some kinds of damage with a panic; one sentence serves the operator better.
        let opened = catch_unwind(AssertUnwindSafe(|| config.open()))
            .map_err(|_| OpenError::Damaged { path: dir.to_owned(), reason: "sled panicked over it".to_owned() })?;
        match opened {
            Ok(db) => return Ok(db),
            // The data directory's own lock is ours, so whoever holds sled's is a thread of this process that is
            // about to let it go.
            Err(error) if error.to_string().contains("could not acquire lock") && clock::boot() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(OpenError::sled(dir, error)),
        }
    }
}

/// Makes the names and settings that open wrote durable.
fn seal(dir: &Path) -> io::Result<File> {
    File::open(dir.join("conf"))?.sync_all()?;
    let file = OpenOptions::new().read(true).write(true).open(dir.join("db"))?;
    file.sync_all()?;
    disk::sync_dir(dir)?;
    disk::sync_dir(disk::parent(dir))?;
    Ok(file)
}

/// Rule R4: what stands in `blobs/` is never synced, so nothing may ever stand there.
pub(super) fn alarm_on_blobs(dir: &Path) {
    if fs::read_dir(dir.join("blobs")).is_ok_and(|mut entries| entries.next().is_some()) {
        tracing::error!(dir = %dir.display(), "the store holds blobs, which a power loss may take");
    }
}
