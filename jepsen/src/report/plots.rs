//! Two plots as SVG, written by hand: who did what when, and how long it took, with the faults shaded.

use crate::history::{Folded, Outcome};
use std::fmt::Write as _;

const WIDTH: f64 = 1200.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 30.0;

/// Latency of every operation over time, on a logarithmic scale.
pub(super) fn latency(history: &Folded) -> String {
    let mut plot = Plot::new(history, 420.0, "latency of operations: ok green, failed orange, unknown red");
    let height = |us: u64| {
        let decades = (us.max(100) as f64 / 100.0).log10().min(6.0);
        TOP + (1.0 - decades / 6.0) * 360.0
    };
    for (label, us) in [
        ("0.1 ms", 100),
        ("1 ms", 1_000),
        ("10 ms", 10_000),
        ("0.1 s", 100_000),
        ("1 s", 1_000_000),
        ("10 s", 10_000_000),
    ] {
        plot.line_across(height(us), label);
    }
    for op in &history.ops {
        let Some(ended_us) = op.ended_us else { continue };
        plot.dot(op.invoked_us, height(ended_us.saturating_sub(op.invoked_us)), color(&op.outcome));
    }
    plot.finish()
}

/// Completions each second by node and outcome, and the faults by name.
pub(super) fn timeline(history: &Folded) -> String {
    let nodes = history.header.nodes.max(1);
    let mut plot = Plot::new(history, 70.0 + 60.0 * nodes as f64, "operations by node, one dot each at its end");
    for node in 1..=nodes {
        plot.line_across(TOP + 60.0 * node as f64 - 10.0, &format!("node {node}"));
    }
    for op in &history.ops {
        let Some(ended_us) = op.ended_us else { continue };
        // Spread over the lane by number, so that dots do not cover each other.
        let offset = (op.id % 40) as f64;
        plot.dot(ended_us, TOP + 60.0 * op.node as f64 - 12.0 - offset, color(&op.outcome));
    }
    plot.finish()
}

fn color(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Ok(_) => "#2a9d4a",
        Outcome::Fail(_) => "#e08a1e",
        Outcome::Unknown(_) => "#c1272d",
    }
}

struct Plot {
    text: String,
    from_us: u64,
    span_us: u64,
    height: f64,
}

impl Plot {
    fn new(history: &Folded, height: f64, title: &str) -> Self {
        let from_us = history.began_us();
        let ends = history.ops.iter().filter_map(|op| op.ended_us);
        let span_us = ends.max().unwrap_or(from_us).saturating_sub(from_us).max(1);
        let mut plot = Self { text: String::new(), from_us, span_us, height };
        plot.put(&format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" \
             font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"16\">{title}</text>\n"
        ));
        for fault in &history.faults {
            plot.shade(fault.from_us, fault.to_us.unwrap_or(from_us + span_us), &fault.nemesis);
        }
        let step_s = (span_us / 1_000_000 / 12).max(1);
        for second in (0..=span_us / 1_000_000).step_by(usize::try_from(step_s).unwrap_or(1)) {
            let x = plot.x(from_us + second * 1_000_000);
            plot.put(&format!("<text x=\"{x:.1}\" y=\"{:.1}\">{second} s</text>\n", height - 6.0));
        }
        plot
    }

    fn x(&self, at_us: u64) -> f64 {
        let part = at_us.saturating_sub(self.from_us) as f64 / self.span_us as f64;
        LEFT + part.min(1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn shade(&mut self, from_us: u64, to_us: u64, name: &str) {
        let (from, to) = (self.x(from_us), self.x(to_us));
        let (width, height) = ((to - from).max(2.0), self.height - TOP - 20.0);
        self.put(&format!(
            "<rect x=\"{from:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"#4466cc\" \
             fill-opacity=\"0.15\"><title>{name}</title></rect>\n<text x=\"{from:.1}\" y=\"{:.1}\" fill=\"#334499\" \
             font-size=\"9\">{name}</text>\n",
            TOP - 2.0
        ));
    }

    fn line_across(&mut self, y: f64, label: &str) {
        let end = WIDTH - RIGHT;
        self.put(&format!(
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{end}\" y2=\"{y:.1}\" stroke=\"#ddd\"/><text x=\"6\" y=\"{y:.1}\">{label}</text>\n"
        ));
    }

    fn dot(&mut self, at_us: u64, y: f64, color: &str) {
        let x = self.x(at_us);
        self.put(&format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"1.3\" fill=\"{color}\" fill-opacity=\"0.6\"/>\n"));
    }

    fn put(&mut self, text: &str) {
        // Writing to a string cannot fail.
        let _ = self.text.write_str(text);
    }

    fn finish(mut self) -> String {
        self.put("</svg>\n");
        self.text
    }
}
