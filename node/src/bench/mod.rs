//! `gateway bench`: a load generator for any OpenAI-compatible endpoint, and a replay of traces of real traffic.
//!
//! Main path: [`BenchArgs`] -> [`plan`] (what is sent, and when) -> [`drive`] (closed or open loop) -> [`call`] (one
//! request) -> [`report`] (what it came to). The clock is tokio's; nothing here touches the ledger.

mod args;
mod call;
mod drive;
mod plan;
mod report;
mod table;
#[cfg(test)]
mod tests;
mod trace;

pub(crate) use args::BenchArgs;

use anyhow::{Context, bail};
use call::{Caller, Outcome, Sample};
use drive::Drive;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use plan::Plan;
use report::Summary;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Runs the load that `args` describe against `endpoint` (`http://HOST:PORT`, several with commas) and writes the
/// summary to stdout, as a table or as JSON.
///
/// # Errors
/// When the arguments make no sense, a file cannot be read or written, or not one request reached the endpoint.
pub(crate) async fn run(args: BenchArgs, endpoint: String, api_key: String, json: bool) -> anyhow::Result<()> {
    let plan = Arc::new(Plan::new(&args)?);
    let caller = Caller::new(&endpoint, &api_key, &args)?;
    if args.warmup > 0 {
        warm_up(&args, &plan, &caller).await?;
    }
    let bar = progress(&args, &plan);
    let drive = Drive::new(Arc::clone(&plan), caller);
    let run = drive.run(&bar).await;
    bar.finish_and_clear();
    if let Some(path) = &args.csv {
        write_csv(path, &run.samples)?;
    }
    let summary = Summary::new(&plan, &run);
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &summary)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{}", table::render(&summary))?;
    }
    unreachable_endpoint(&endpoint, &run.samples)
}

async fn warm_up(args: &BenchArgs, plan: &Plan, caller: &Caller) -> anyhow::Result<()> {
    let warmup = Arc::new(plan.closed(args.concurrency, args.warmup));
    let run = Drive::new(warmup, caller.clone()).run(&ProgressBar::hidden()).await;
    if run.stopped_early {
        bail!("stopped while warming up");
    }
    Ok(())
}

fn progress(args: &BenchArgs, plan: &Plan) -> ProgressBar {
    if args.quiet {
        return ProgressBar::hidden();
    }
    let bar = match plan.total() {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::no_length(),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    let template = if plan.total().is_some() {
        "{bar:30} {pos}/{len}  {rate}  {elapsed} (eta {eta})  {msg}"
    } else {
        "{spinner} {pos}  {rate}  {elapsed}  {msg}"
    };
    // A template that indicatif cannot read only costs its looks.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let style = style.with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        // There is nobody to tell when a line cannot be drawn.
        let _ = write!(out, "{:.0}/s", state.per_sec());
    });
    bar.with_style(style)
}

/// One line per request, in order of their ends.
fn write_csv(path: &Path, samples: &[Sample]) -> anyhow::Result<()> {
    let file = || format!("cannot write {}", path.display());
    let mut csv = csv::Writer::from_path(path).with_context(file)?;
    for sample in samples {
        csv.serialize(sample.row()).with_context(file)?;
    }
    csv.flush().with_context(file)
}

fn unreachable_endpoint(endpoint: &str, samples: &[Sample]) -> anyhow::Result<()> {
    let mut reasons = samples.iter().map(|sample| match &sample.outcome {
        Outcome::Broken(reason) if sample.status == 0 => Some(reason),
        _ => None,
    });
    match reasons.next() {
        Some(Some(reason)) if reasons.all(|reason| reason.is_some()) => {
            bail!("not one request reached {endpoint}: {reason}")
        }
        _ => Ok(()),
    }
}

/// Milliseconds with their fraction.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1_000.0
}
