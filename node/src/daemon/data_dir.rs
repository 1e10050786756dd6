//! The node's data directory: made, locked against a second process, and the home of small private files.

use anyhow::{Context, bail};
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A data directory that is this process's alone for as long as the value lives.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory when it is not there, and locks it.
    ///
    /// # Errors
    /// When it cannot be made or written, or another process holds it.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("the data directory {shown} cannot be made"))?;
        let lock =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path.join("gatewayd.lock"));
        let lock = lock.with_context(|| format!("the data directory {shown} cannot be written to"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => bail!("the data directory {shown} is in use by another process"),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("the data directory {shown} cannot be locked"))
            }
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Writes a file that only its owner may read, whole or not at all.
///
/// # Errors
/// Whatever the file system says, with the file's name.
pub(super) fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let temporary = path.with_extension("tmp");
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_directory_is_held_by_one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/data");
        let held = DataDir::open(&path).unwrap();
        let error = DataDir::open(&path).unwrap_err();
        assert_eq!(format!("{error:#}"), format!("the data directory {} is in use by another process", path.display()));
        drop(held);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_one_sentence() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "").unwrap();
        let error = format!("{:#}", DataDir::open(&path.join("data")).unwrap_err());
        assert!(error.ends_with("cannot be made: Not a directory (os error 20)"), "{error}");
    }

    #[test]
    fn a_private_file_is_its_owners_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write_private(&path, "secret\n").unwrap();
        write_private(&path, "other\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "other\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
