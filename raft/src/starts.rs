//! Counts the starts of a node, so that each life of its process has a number that only grows.

use std::io;
use std::path::Path;

/// Counts one more start in the node's data directory, and gives its number, from 1.
///
/// Shape: the number in decimal digits, in the file `starts`.
///
/// # Errors
/// When the file cannot be read or written, or holds no number.
pub fn next(data_dir: &Path) -> io::Result<u64> {
    let path = data_dir.join("starts");
    let before = match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| io::Error::other(format!("{} holds no number", path.display())))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let start: u64 = before + 1;
    crate::disk::write_atomic(&path, &[start.to_string().as_bytes()])?;
    Ok(start)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_start_has_a_higher_number() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(super::next(dir.path()).unwrap(), 1);
        assert_eq!(super::next(dir.path()).unwrap(), 2);
        std::fs::write(dir.path().join("starts"), "x").unwrap();
        assert!(super::next(dir.path()).is_err());
    }
}
