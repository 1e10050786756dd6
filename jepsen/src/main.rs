//! `tokligence-jepsen`: drives real gateways through faults, records every operation, and judges the history.
//!
//! It imports nothing of the gateway: HTTP and process control only.

mod chance;
mod checker;
mod client;
mod clock;
mod db;
mod fabric;
mod generator;
mod history;
mod nemesis;
mod report;
mod run;
mod workload;

use anyhow::Context;
use checker::Verdict;
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Fault injection with checked histories. Exit code 0: valid, 1: invalid, 2: unknown.
#[derive(Debug, Parser)]
#[command(name = "tokligence-jepsen", version)]
struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Run workloads under nemeses and judge what happened.
    Run(RunArgs),
    /// Judge the history of a report again.
    Check {
        /// The report's folder.
        dir: PathBuf,
    },
    /// List workloads, nemeses and checkers.
    List,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// How many gateways.
    #[arg(long, default_value_t = 1)]
    nodes: u64,
    /// How long clients and nemeses work, in seconds.
    #[arg(long, default_value_t = 60)]
    time: u64,
    /// Decides workloads and schedule [default: of the clock].
    #[arg(long)]
    seed: Option<u64>,
    /// Workloads, comma-separated, or `all`.
    #[arg(long, default_value = "all")]
    workload: String,
    /// Nemeses that take turns, comma-separated; `+` between those that strike side by side; `all`, `none`.
    #[arg(long, default_value = "all")]
    nemesis: String,
    /// Where gatewayd and scripted-upstream are [default: beside this program].
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// The report's folder [default: data/jepsen/SEED].
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    let outcome = match Command::parse().what {
        What::Run(args) => run(args),
        What::Check { dir } => {
            let command = format!("tokligence-jepsen check {}", dir.display());
            run::check_again(&dir, &command).and_then(|(verdict, text)| say(&text).map(|()| verdict))
        }
        What::List => say(&list()).map(|()| Verdict::Valid),
    };
    match outcome {
        Ok(Verdict::Valid) => ExitCode::SUCCESS,
        Ok(Verdict::Invalid) => ExitCode::from(1),
        Ok(Verdict::Unknown | Verdict::Skipped) => ExitCode::from(2),
        Err(error) => {
            // Standard error is the last resort: when it is closed there is nobody left to tell.
            let _ = writeln!(std::io::stderr(), "no verdict: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn say(text: &str) -> anyhow::Result<()> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn list() -> String {
    let mut text = String::new();
    let mut section = |title: &str, rows: Vec<(&str, &str)>| {
        text.push_str(&format!("{title}\n"));
        rows.iter().for_each(|(name, about)| text.push_str(&format!("  {name:<16} {about}\n")));
    };
    section("workloads", workload::WORKLOADS.iter().map(|workload| (workload.name, workload.about)).collect());
    section("nemeses", nemesis::NEMESES.iter().map(|nemesis| (nemesis.name, nemesis.about)).collect());
    section("checkers", checker::CHECKERS.iter().map(|checker| (checker.name, checker.claim)).collect());
    text
}

fn run(args: RunArgs) -> anyhow::Result<Verdict> {
    let plan = plan(args)?;
    // Any TLS provider will do: everything here is plain HTTP on loopback.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let bar = ProgressBar::new(plan.time.as_secs());
    bar.set_style(ProgressStyle::with_template("{elapsed_precise} [{bar:40}] {pos}/{len} s {msg}")?);
    say(&format!("seed {}, report in {}\n", plan.seed, plan.out.display()))?;
    // Threads that start children must live as long as these: the kernel kills a child when its starter's thread ends.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let verdict = runtime.block_on(async {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            verdict = run::run(&plan, &bar) => verdict,
            _ = interrupt.recv() => anyhow::bail!("interrupted"),
            _ = terminate.recv() => anyhow::bail!("terminated"),
        }
    });
    bar.finish_and_clear();
    // Children die with the tasks that hold them; then their files can go.
    runtime.shutdown_timeout(Duration::from_secs(5));
    let _ = std::fs::remove_dir_all(plan.out.join("nodes"));
    let verdict = verdict?;
    let text = std::fs::read_to_string(plan.out.join("verdict.txt")).context("the verdict cannot be read")?;
    say(&text)?;
    Ok(verdict)
}

fn plan(args: RunArgs) -> anyhow::Result<run::Plan> {
    anyhow::ensure!([1, 3, 5].contains(&args.nodes), "--nodes is 1, 3 or 5");
    let seed = args.seed.unwrap_or_else(clock::wall_us);
    let bin_dir = match args.bin_dir {
        Some(dir) => dir,
        None => std::env::current_exe()?.parent().context("this program has no directory")?.to_owned(),
    };
    let out = args.out.unwrap_or_else(|| PathBuf::from(format!("data/jepsen/{seed}")));
    anyhow::ensure!(
        !out.join(report::HISTORY).exists(),
        "{} holds a report already: name another --out",
        out.display()
    );
    let command = format!(
        "tokligence-jepsen run --nodes {} --time {} --seed {seed} --workload '{}' --nemesis '{}'",
        args.nodes, args.time, args.workload, args.nemesis
    );
    nemesis::named(&args.nemesis)?;
    Ok(run::Plan {
        seed,
        nodes: args.nodes,
        time: Duration::from_secs(args.time),
        workloads: workload::named(&args.workload)?,
        nemesis: args.nemesis,
        binaries: db::Binaries::in_dir(&bin_dir)?,
        out,
        command,
    })
}
