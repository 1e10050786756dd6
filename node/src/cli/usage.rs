//! `gateway usage`: usage rows, one per upstream call.

use super::Context;
use super::client::Call;
use super::failure::Failure;
use clap::{Subcommand, ValueEnum};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(super) enum UsageCommand {
    /// Write usage rows as CSV or JSON.
    Export {
        /// The first moment, as 2026-11-23 or 2026-11-23T10:00:00Z.
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
        /// The first moment that is left out.
        #[arg(long, value_name = "TIME")]
        to: Option<String>,
        /// Sum the rows by this instead of writing each.
        #[arg(long, value_enum)]
        by: Option<By>,
        /// How rows are written.
        #[arg(long, value_enum, default_value_t = RowFormat::Csv)]
        format: RowFormat,
        /// Where to write them instead of standard output.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum RowFormat {
    Csv,
    Json,
}

/// What rows are summed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum By {
    Key,
    User,
    Team,
    Model,
    Day,
}

impl By {
    fn as_str(self) -> &'static str {
        match self {
            By::Key => "key",
            By::User => "user",
            By::Team => "team",
            By::Model => "model",
            By::Day => "day",
        }
    }
}

impl UsageCommand {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let UsageCommand::Export { from, to, by, format, out } = self;
        let format = match format {
            RowFormat::Csv => "csv",
            RowFormat::Json => "json",
        };
        let path: &[&str] = if by.is_some() { &["usage", "summary"] } else { &["usage"] };
        let call = Call::get(path)
            .query("by", by.map(By::as_str))
            .query("from", from)
            .query("to", to)
            .query("format", Some(format));
        let mut answer = context.client.stream(call).await?;
        let mut rows: Box<dyn Write + Send> = match &out {
            None => Box::new(std::io::stdout()),
            Some(path) => Box::new(BufWriter::new(
                File::create(path).map_err(|error| Failure::Refused(format!("{}: {error}", path.display())))?,
            )),
        };
        loop {
            let chunk = answer.chunk().await;
            let chunk = chunk.map_err(|error| {
                Failure::Unreachable(format!("the export broke off, what is written so far is not all: {error}"))
            })?;
            let Some(chunk) = chunk else { break };
            rows.write_all(&chunk).map_err(Failure::io)?;
        }
        rows.flush().map_err(Failure::io)
    }
}
