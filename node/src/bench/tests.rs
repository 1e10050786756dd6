//! The load generator against the scripted upstream.

use super::args::BenchArgs;
use super::call::Caller;
use super::drive::Drive;
use super::plan::Plan;
use super::report::Summary;
use clap::Parser;
use indicatif::ProgressBar;
use std::sync::Arc;
use support::{Act, Reply, Script, Upstream};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    bench: BenchArgs,
}

async fn bench(upstream: &Upstream, args: &[&str]) -> Summary {
    let args = Cli::parse_from([&["bench", "--model", "m"], args].concat()).bench;
    let plan = Arc::new(Plan::new(&args).unwrap());
    let caller = Caller::new(&format!("http://{}", upstream.addr()), "key", &args).unwrap();
    let run = Drive::new(Arc::clone(&plan), caller).run(&ProgressBar::hidden()).await;
    Summary::new(&plan, &run)
}

#[tokio::test]
async fn a_closed_loop_keeps_its_concurrency_and_its_mix() {
    let upstream = Upstream::start().await;
    upstream.set(Script::from(Reply::default()).first(4, Reply::default().held()));
    let release = async {
        upstream.in_flight(4).await;
        upstream.open();
    };
    let args = ["-c", "4", "-n", "40", "--priority-mix", "0:1,5:3", "--max-tokens", "3"];
    let (summary, ()) = tokio::join!(bench(&upstream, &args), release);
    assert_eq!((summary.requests, summary.ok, summary.completion_tokens), (40, 40, 120));
    assert_eq!((upstream.stats().peak_in_flight, summary.peak_in_flight), (4, 4));
    let shares: Vec<_> = summary.priorities.iter().map(|group| (group.priority, group.requests)).collect();
    assert_eq!(shares, [(Some(0), 10), (Some(5), 30)]);
    let first = upstream.calls().iter().filter(|call| call.header("x-tokligence-priority") == Some("0")).count();
    assert_eq!(first, 10);
}

#[tokio::test]
async fn refusals_and_broken_streams_are_counted_apart() {
    let upstream = Upstream::start().await;
    let large = r#"{"error":{"message":"m","type":"t","code":"request_exceeds_limit"}}"#;
    let large = Reply { act: Act::Status { status: 400, body: Some(large.to_owned()) }, ..Reply::default() };
    let script = Script::from(Reply::tokens(2));
    upstream.set(script.first(2, large).first(3, Reply::too_many(1)).first(1, Reply::cut_after(1)));
    let summary = bench(&upstream, &["-c", "1", "-n", "10", "--stream"]).await;
    let refused: Vec<_> = summary.refused.iter().map(|r| (r.status, r.code.as_str(), r.count)).collect();
    assert_eq!(refused, [(400, "request_exceeds_limit", 2), (429, "rate_limit_exceeded", 3)]);
    assert_eq!((summary.refused_too_large, summary.ok, summary.errors.len()), (2, 4, 1));
    assert_eq!((summary.first_byte.count, summary.latency.count, summary.completion_tokens), (4, 4, 8));
}

#[tokio::test]
async fn a_trace_arrives_in_its_order_with_its_tokens() {
    let upstream = Upstream::start().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let rows = (0..20).map(|i| format!("2023-11-16 00:00:{i:02}.5,{},{}\n", i + 1, i + 2)).collect::<String>();
    std::fs::write(file.path(), format!("TIMESTAMP,ContextTokens,GeneratedTokens\n{rows}")).unwrap();
    let path = file.path().to_str().unwrap();
    let summary = bench(&upstream, &["--trace", path, "--time-scale", "50", "--token-text", "x"]).await;
    assert_eq!((summary.mode, summary.ok), ("trace", 20));
    assert_eq!(summary.completion_tokens, (2..22).sum::<u64>());
    let prompts: Vec<usize> =
        upstream.calls().iter().map(|call| call.json()["messages"][0]["content"].as_str().unwrap().len()).collect();
    assert_eq!(prompts, (1..=20).collect::<Vec<_>>());
    assert!(summary.seconds >= 0.37);
}
