//! Log lines on standard error: JSON for machines, or lines for people. `RUST_LOG` beats the configuration.

use crate::config::{Log, LogFormat};
use anyhow::Context;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Starts logging for the life of the process.
///
/// # Errors
/// When the filter cannot be read.
pub(super) fn start(log: &Log) -> anyhow::Result<()> {
    let (directives, source) = match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => (directives, "RUST_LOG"),
        _ => (log.level.clone(), "log.level"),
    };
    let filter = EnvFilter::builder()
        .parse(&directives)
        .with_context(|| format!("{source}: `{directives}` is not a filter of log lines"))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init(),
        LogFormat::Human => lines.with_target(false).with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("logging cannot start: {error}"))
}
