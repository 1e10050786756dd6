//! Writes the history as it grows, and keeps it for the checkers.

use super::{Call, Event, Folded, Outcome, Phase, What};
use crate::clock;
use anyhow::Context;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where every part of the harness tells what it does and sees.
#[derive(Debug)]
pub(crate) struct Recorder {
    book: Mutex<Book>,
    next_op: AtomicU64,
    next_fault: AtomicU64,
}

#[derive(Debug)]
struct Book {
    file: BufWriter<File>,
    events: Vec<Event>,
    /// The first write that failed: from then on the history is not whole.
    broken: Option<std::io::Error>,
}

impl Recorder {
    /// Begins a history in a new file.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub(crate) fn new(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
        let book = Book { file: BufWriter::new(file), events: Vec::new(), broken: None };
        Ok(Self { book: Mutex::new(book), next_op: AtomicU64::new(1), next_fault: AtomicU64::new(1) })
    }

    /// Adds a line of now.
    pub(crate) fn note(&self, what: What) {
        self.note_at(clock::boot_us(), what);
    }

    /// Adds a line of another time.
    pub(crate) fn note_at(&self, at_us: u64, what: What) {
        let event = Event { at_us, what };
        let mut guard = self.book();
        let book = &mut *guard;
        let line = serde_json::to_vec(&event).map_err(std::io::Error::from);
        let written = line.and_then(|line| book.file.write_all(&line).and_then(|()| book.file.write_all(b"\n")));
        if let Err(error) = written {
            book.broken.get_or_insert(error);
        }
        book.events.push(event);
    }

    /// A client begins an operation; gives its number.
    pub(crate) fn begin(&self, process: u64, node: u64, call: impl FnOnce(u64) -> Call) -> u64 {
        let op = self.next_op.fetch_add(1, Ordering::Relaxed);
        self.note(What::Invoke { op, process, node, call: call(op) });
        op
    }

    /// The operation ended.
    pub(crate) fn end(&self, op: u64, outcome: Outcome) {
        self.note(match outcome {
            Outcome::Ok(value) => What::Ok { op, value },
            Outcome::Fail(error) => What::Fail { op, error },
            Outcome::Unknown(error) => What::Info { op, error },
        });
    }

    /// A number for a new fault.
    pub(crate) fn fault(&self) -> u64 {
        self.next_fault.fetch_add(1, Ordering::Relaxed)
    }

    /// A fault came so far.
    pub(crate) fn phase(&self, fault: u64, nemesis: &str, phase: Phase, nodes: &[u64], note: impl Into<String>) {
        let (nemesis, nodes) = (nemesis.to_owned(), nodes.to_vec());
        self.note(What::Fault { fault, nemesis, phase, nodes, note: note.into() });
    }

    /// The run reached a new stage.
    pub(crate) fn stage(&self, name: &str) {
        self.note(What::Stage { name: name.to_owned() });
    }

    /// How many operations have begun.
    pub(crate) fn ops(&self) -> u64 {
        self.next_op.load(Ordering::Relaxed) - 1
    }

    /// The whole history so far, for the checkers.
    ///
    /// # Errors
    /// When a line could not be written.
    pub(crate) fn finish(&self) -> anyhow::Result<Folded> {
        let mut book = self.book();
        book.file.flush().context("the history cannot be written")?;
        if let Some(error) = book.broken.take() {
            return Err(error).context("the history cannot be written");
        }
        Ok(Folded::of(&book.events))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
