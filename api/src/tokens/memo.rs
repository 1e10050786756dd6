//! Remembers the counts of long texts. Conversations come again with every turn, and counting is the dearest step of the
//! main path, so that most of it can be saved. Holds no text: a tag of a keyed hash, and the count.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Shorter texts are counted faster than they are looked up.
pub(super) const BYTES_MIN: usize = 128;
const SLOTS: usize = 1 << 15;
const COUNT_BITS: u32 = 24;

/// A table of fixed size; a newer text takes the place of an older one.
///
/// Shape: each slot holds 40 bits of the hash above 24 bits of the count; 0 is empty. With the slot's own 15 bits, two
/// texts are mixed up once in 2^55 lookups, and nobody outside can bring that about, since the hash is keyed.
#[derive(Debug)]
pub(super) struct Memo {
    key: RandomState,
    slots: Box<[AtomicU64]>,
}

impl Memo {
    pub(super) fn new() -> Self {
        Self { key: RandomState::new(), slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }

    /// The count of `text`, from memory or by `count`. `salt` tells tokenizers apart.
    pub(super) fn count(&self, salt: u8, text: &str, count: impl FnOnce() -> u64) -> u64 {
        let mut hasher = self.key.build_hasher();
        hasher.write_u8(salt);
        hasher.write(text.as_bytes());
        let hash = hasher.finish();
        let slot = &self.slots[hash as usize % SLOTS];
        let tag = hash >> COUNT_BITS << COUNT_BITS;
        let found = slot.load(Ordering::Relaxed);
        let kept = found & ((1 << COUNT_BITS) - 1);
        if kept > 0 && found - kept == tag {
            return kept;
        }
        let counted = count();
        if counted < 1 << COUNT_BITS {
            slot.store(tag | counted, Ordering::Relaxed);
        }
        counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_counted_once_for_each_tokenizer() {
        let memo = Memo::new();
        assert_eq!(memo.count(0, "text", || 7), 7);
        assert_eq!(memo.count(0, "text", || panic!("it is known")), 7);
        assert_eq!(memo.count(1, "text", || 9), 9);
        assert_eq!(memo.count(0, "other", || 1 << 30), 1 << 30);
        assert_eq!(memo.count(0, "other", || 3), 3);
    }
}
