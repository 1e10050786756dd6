//! How far the shipper came, in a small file of its own. Losing it costs time, not rows: shipping again adds none.
//!
//! Shape: `segment offset crc32` in decimal, the checksum in hexadecimal over what is before it.

use super::segment::Position;
use std::fs;
use std::io;
use std::path::Path;

const NAME: &str = "shipped";
const NEW_NAME: &str = "shipped.new";

/// The position in a folder; the very beginning when there is none that can be read.
pub(super) fn load(dir: &Path) -> Position {
    match fs::read_to_string(dir.join(NAME)) {
        Ok(text) => parse(&text).unwrap_or_else(|| {
            tracing::warn!("the position of the usage journal cannot be read, it is shipped anew");
            Position::default()
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Position::default(),
        Err(error) => {
            tracing::warn!(%error, "the position of the usage journal cannot be read, it is shipped anew");
            Position::default()
        }
    }
}

/// Replaces the position, in whole or not at all.
pub(super) fn save(dir: &Path, at: Position) -> io::Result<()> {
    let place = format!("{} {}", at.segment, at.offset);
    fs::write(dir.join(NEW_NAME), format!("{place} {:08x}\n", crc32fast::hash(place.as_bytes())))?;
    fs::rename(dir.join(NEW_NAME), dir.join(NAME))
}

/// Begins anew; for a journal that begins anew.
pub(super) fn reset(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(NAME)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn parse(text: &str) -> Option<Position> {
    let (place, crc) = text.trim_end().rsplit_once(' ')?;
    if u32::from_str_radix(crc, 16).ok()? != crc32fast::hash(place.as_bytes()) {
        return None;
    }
    let (segment, offset) = place.split_once(' ')?;
    Some(Position { segment: segment.parse().ok()?, offset: offset.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_kept_and_a_damaged_one_is_the_beginning() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()), Position::default());
        let at = Position { segment: 3, offset: 4_567 };
        save(dir.path(), at).unwrap();
        save(dir.path(), at).unwrap();
        assert_eq!(load(dir.path()), at);
        let file = dir.path().join(NAME);
        let text = fs::read_to_string(&file).unwrap();
        for damaged in [text.replace('3', "4"), String::new(), "x".to_owned(), text[..5].to_owned()] {
            fs::write(&file, &damaged).unwrap();
            assert_eq!(load(dir.path()), Position::default(), "{damaged:?}");
        }
    }
}
