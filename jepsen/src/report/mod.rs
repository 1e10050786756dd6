//! The report of a run: a folder with the verdict, the history, the plots, the logs, and the command that replays it.

mod plots;

use crate::checker::{Finding, Verdict, verdict};
use crate::history::Folded;
use anyhow::Context;
use serde_json::json;
use std::fmt::Write as _;
use std::path::Path;

/// The name of the history in a report's folder.
pub(crate) const HISTORY: &str = "history.jsonl";

/// Writes everything but the history and the logs, which are there already.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn write(dir: &Path, history: &Folded, findings: &[Finding], command: &str) -> anyhow::Result<Verdict> {
    let verdict = verdict(findings);
    let header = &history.header;
    let whole = json!({"verdict": verdict, "command": command, "run": header, "findings": findings});
    put(dir, "verdict.json", &serde_json::to_string_pretty(&whole)?)?;
    put(dir, "verdict.txt", &text(verdict, history, findings, command))?;
    put(dir, "timeline.svg", &plots::timeline(history))?;
    put(dir, "latency.svg", &plots::latency(history))?;
    Ok(verdict)
}

/// The verdict for people.
pub(crate) fn text(verdict: Verdict, history: &Folded, findings: &[Finding], command: &str) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}\n", word(verdict).to_uppercase());
    for finding in findings {
        let _ = writeln!(text, "{:<8} {:<24} {}", word(finding.verdict), finding.checker, finding.said);
    }
    let _ = writeln!(
        text,
        "\n{} operations, {} arrivals, {} faults; largest stall of the machine {:.1} ms\nreplay: {command}",
        history.ops.len(),
        history.arrivals.len(),
        history.faults.len(),
        history.stall_us as f64 / 1e3,
    );
    text
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Skipped => "skipped",
        Verdict::Valid => "valid",
        Verdict::Unknown => "unknown",
        Verdict::Invalid => "INVALID",
    }
}

fn put(dir: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let path = dir.join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
