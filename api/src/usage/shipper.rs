//! Carries ended calls from the journal to the database, each once, however often either of them fails.

use super::codec::Record;
use super::journal::Journal;
use super::position;
use super::record::{Intent, Settled};
use super::rows;
use super::segment::{self, JournalError, Position, Reader};
use crate::identity::Database;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const BATCH_MAX: usize = 512;
const IDLE: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Why rows are not shipped now. They stay in the journal.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    /// The database does not take them.
    #[error("the database does not take usage rows: {0}")]
    Database(#[from] sqlx::Error),
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Ships a journal's rows. One for each journal, started once what earlier lives left behind is written off.
pub struct Shipper {
    journal: Journal,
    database: Database,
    /// Everything before this is in the database.
    at: Position,
    /// Stands at `at`; none when it has to be opened first.
    reader: Option<Reader>,
    batch: Vec<(Intent, Settled)>,
}

impl Shipper {
    /// Goes on where the last one came to.
    pub fn new(journal: Journal, database: Database) -> Self {
        let at = position::load(journal.writer().dir());
        Self { journal, database, at, reader: None, batch: Vec::with_capacity(BATCH_MAX) }
    }

    /// Ships until `stop`, and then what is there still, unless the database is down.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut pause = IDLE;
        while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            pause = match self.ship().await {
                Ok(_) => IDLE,
                Err(error) => {
                    tracing::warn!(%error, retry_in = ?pause, "usage rows wait in the journal");
                    (pause * 2).min(BACKOFF_MAX)
                }
            };
        }
        if let Err(error) = self.ship().await {
            tracing::warn!(%error, "usage rows stay in the journal until the next start");
        }
    }

    /// Ships all that the journal holds now; says how many ends of calls that were.
    ///
    /// # Errors
    /// See [`ShipError`]; it can be tried again at any time.
    pub async fn ship(&mut self) -> Result<usize, ShipError> {
        let end = self.journal.writer().end();
        let mut shipped = 0;
        while self.at < end {
            // Taken out, so that after a failure, or when this future is dropped, reading begins at `at` again.
            let (next, reader) = self.read(end)?;
            if !self.batch.is_empty() {
                rows::insert(&self.database, &self.batch).await?;
            }
            shipped += self.batch.len();
            (self.at, self.reader) = (next, reader);
            self.acknowledge();
        }
        Ok(shipped)
    }

    /// Reads a batch; says where it ends, and what goes on reading there.
    fn read(&mut self, end: Position) -> Result<(Position, Option<Reader>), JournalError> {
        self.batch.clear();
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => self.open()?,
        };
        let limit = if self.at.segment == end.segment { end.offset } else { reader.length()? };
        while self.batch.len() < BATCH_MAX {
            match reader.next(limit)? {
                Some((Record::Settled(intent, settled), _)) => self.batch.push((intent, settled)),
                Some(_) => {}
                None if self.at.segment == end.segment => break,
                None => return Ok((Position { segment: self.at.segment + 1, offset: 0 }, None)),
            }
        }
        Ok((Position { offset: reader.offset(), ..self.at }, Some(reader)))
    }

    /// Opens the segment of the position, or the first there is behind it.
    fn open(&mut self) -> Result<Reader, JournalError> {
        let dir = self.journal.writer().dir();
        let there = segment::list(dir)?.into_iter().find(|&segment| segment >= self.at.segment);
        if let Some(segment) = there.filter(|&segment| segment > self.at.segment) {
            self.at = Position { segment, offset: 0 };
        }
        Reader::open(dir, self.at)
    }

    fn acknowledge(&self) {
        let writer = self.journal.writer();
        if let Err(error) = position::save(writer.dir(), self.at) {
            tracing::warn!(%error, "cannot note how far usage rows are shipped");
        }
        if let Err(error) = writer.trim(self.at) {
            tracing::warn!(%error, "cannot remove a shipped segment of the usage journal");
        }
    }
}
