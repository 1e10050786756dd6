//! The summary as tables for a terminal.

use super::report::{Spread, Summary};
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table, TableComponent};

/// Draws the summary.
pub(crate) fn render(summary: &Summary) -> String {
    let mut parts = vec![counts(summary).to_string(), times(summary).to_string()];
    if summary.priorities.len() > 1 {
        parts.push(priorities(summary).to_string());
    }
    parts.join("\n")
}

fn counts(summary: &Summary) -> Table {
    let mut table = table(&["requests", "count", ""]);
    let mut row = |name: &str, count: u64, note: &str| {
        table.add_row([name.to_owned(), count.to_string(), note.to_owned()]);
    };
    let stopped = if summary.stopped_early { " (stopped early)" } else { "" };
    let mode = match (summary.mode, summary.concurrency) {
        ("closed", Some(concurrency)) => format!("{concurrency} at a time"),
        ("trace", _) => "started as the trace says".to_owned(),
        _ => "started at a steady rate".to_owned(),
    };
    row("ended", summary.requests, &format!("in {:.3} s, {mode}{stopped}", summary.seconds));
    row("ok", summary.ok, &format!("{:.1}/s", summary.ok_per_sec));
    for refused in &summary.refused {
        row(&format!("refused {}", refused.status), refused.count, &refused.code);
    }
    if summary.refused_too_large > 0 {
        row("  of these too large", summary.refused_too_large, "larger than a limit can ever hold, by design");
    }
    for broken in &summary.errors {
        row("broken", broken.count, &broken.reason);
    }
    if summary.aborted > 0 {
        row("given up in flight", summary.aborted, "");
    }
    row("peak in flight", summary.peak_in_flight, "");
    row("prompt tokens", summary.prompt_tokens, &format!("{:.0} tokens/s in all", summary.tokens_per_sec));
    row("output tokens", summary.completion_tokens, "");
    table
}

fn times(summary: &Summary) -> Table {
    let mut table = table(&["milliseconds", "p50", "p90", "p99", "max", "mean"]);
    let rows = [
        ("latency", &summary.latency),
        ("first byte", &summary.first_byte),
        ("queue wait", &summary.queue_wait),
        ("generator lag", &summary.generator_lag),
    ];
    for (name, spread) in rows {
        if spread.count > 0 {
            let mut cells = vec![name.to_owned()];
            cells.extend(quantiles(spread));
            cells.push(ms(spread.mean_ms));
            table.add_row(cells);
        }
    }
    table
}

fn priorities(summary: &Summary) -> Table {
    let names = ["priority", "requests", "ok", "p50", "p90", "p99", "max", "wait p50", "wait p99", "wait max"];
    let mut table = table(&names);
    for group in &summary.priorities {
        let name = group.priority.map_or_else(|| "the key's".to_owned(), |priority| priority.to_string());
        let mut cells = vec![name, group.requests.to_string(), group.ok.to_string()];
        cells.extend(quantiles(&group.latency));
        let wait = &group.queue_wait;
        cells.extend([ms(wait.p50_ms), ms(wait.p99_ms), ms(wait.max_ms)]);
        table.add_row(cells);
    }
    table
}

fn quantiles(spread: &Spread) -> [String; 4] {
    [ms(spread.p50_ms), ms(spread.p90_ms), ms(spread.p99_ms), ms(spread.max_ms)]
}

/// As exact as it was measured: to a thousandth.
fn ms(value: f64) -> String {
    match value {
        1_000.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

fn table(names: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY).set_header(names);
    // Lines around the head and the whole are enough.
    table.remove_style(TableComponent::HorizontalLines).remove_style(TableComponent::MiddleIntersections);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
