//! Counts tokens before the upstream does: of the prompt for the reservation, of the answer when it breaks off. Knows
//! texts only; which texts of a request count is the dialect's business.

mod memo;

use crate::config::Tokenizer;
use memo::{BYTES_MIN, Memo};
use std::sync::LazyLock;

/// Tokens added for each message: its role and its marks.
pub const PER_MESSAGE: u64 = 4;
/// Tokens added to each request: the start of the answer, and a margin.
pub const PER_REQUEST: u64 = 8;
/// Tokens taken for an image: the most that OpenAI's tiling of one gives.
pub const PER_IMAGE: u64 = 1_445;
/// Bodies above this many bytes are counted off the reactor.
pub const INLINE_BYTES_MAX: usize = 64 << 10;

/// Text is handed to the tokenizer in slices of at most this, so that one endless word stays linear.
const SLICE: usize = 16 << 10;

impl Tokenizer {
    /// Counts the tokens of one text.
    pub fn count(self, text: &str) -> u64 {
        static MEMO: LazyLock<Memo> = LazyLock::new(Memo::new);
        let (salt, bpe) = match self {
            Self::Bytes => return text.len() as u64,
            Self::O200kBase => (0, bpe_openai::o200k_base()),
            Self::Cl100kBase => (1, bpe_openai::cl100k_base()),
        };
        let count = || slices(text).map(|slice| bpe.count(slice) as u64).sum();
        if text.len() < BYTES_MIN { count() } else { MEMO.count(salt, text, count) }
    }
}

/// Builds the tables of a tokenizer, which takes a moment at first use.
pub fn warm_up(tokenizer: Tokenizer) {
    tokenizer.count("a");
}

fn slices(mut rest: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (slice, left) = rest.split_at(rest.floor_char_boundary(SLICE));
        rest = left;
        Some(slice)
    })
}

/// Something in a request or an answer that costs tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// One message begins.
    Message,
    /// Text that the model reads or wrote.
    Text(&'a str),
    /// A picture.
    Image,
    /// Anything else, by its length in bytes.
    Opaque(usize),
}

/// A running count.
#[derive(Debug)]
pub(crate) struct Meter {
    tokenizer: Tokenizer,
    counted: u64,
    text: String,
}

impl Meter {
    pub(crate) fn new(tokenizer: Tokenizer) -> Self {
        Self { tokenizer, counted: 0, text: String::new() }
    }

    /// Adds a piece at once.
    pub(crate) fn add(&mut self, piece: Piece<'_>) {
        self.counted = self.counted.saturating_add(match piece {
            Piece::Message => PER_MESSAGE,
            Piece::Text(text) => self.tokenizer.count(text),
            Piece::Image => PER_IMAGE,
            Piece::Opaque(bytes) => bytes as u64 / 4 + 1,
        });
    }

    /// Adds a piece that may be a part of a word: texts are gathered, and counted only when needed or when many.
    pub(crate) fn gather(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Text(text) if self.text.len() + text.len() <= SLICE => self.text.push_str(text),
            Piece::Text(text) => {
                self.flush();
                self.add(Piece::Text(text));
            }
            other => self.add(other),
        }
    }

    /// The count so far.
    pub(crate) fn tokens(&mut self) -> u64 {
        self.flush();
        self.counted
    }

    fn flush(&mut self) {
        self.counted = self.counted.saturating_add(self.tokenizer.count(&self.text));
        self.text.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_the_vocabulary() {
        assert_eq!(Tokenizer::O200kBase.count("hello world"), 2);
        assert_eq!(Tokenizer::Cl100kBase.count("hello world"), 2);
        assert_eq!(Tokenizer::Bytes.count("hello wörld"), 12);
        assert_eq!(Tokenizer::O200kBase.count(""), 0);
    }

    #[test]
    fn one_endless_word_is_counted_in_linear_time() {
        let word = "é".repeat(200_000);
        assert!(Tokenizer::O200kBase.count(&word) > 1_000);
    }

    #[test]
    fn a_gathered_count_does_not_depend_on_the_cuts() {
        let mut meter = Meter::new(Tokenizer::O200kBase);
        for part in ["hel", "lo wo", "rld"] {
            meter.gather(Piece::Text(part));
        }
        assert_eq!(meter.tokens(), 2);
    }
}
