//! `scripted-upstream`: the scripted upstream as a process of its own, told what to do over its control routes.

use anyhow::Context;
use clap::Parser;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use support::upstream::{Options, Script, Upstream};

/// A mock of an OpenAI-compatible upstream, for tests and benchmarks.
#[derive(Debug, Parser)]
struct Args {
    /// Address to bind; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:9999")]
    listen: SocketAddr,
    /// Counts only: keeps no headers, bodies or calls.
    #[arg(long)]
    lean: bool,
    /// A script as JSON, as `PUT /_control/script` takes it.
    #[arg(long)]
    script: Option<PathBuf>,
    /// Writes the bound address into this file once it is served.
    #[arg(long)]
    address_file: Option<PathBuf>,
    /// Worker threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    // One thread without a scheduler is the leanest; a benchmark's mock should cost as little as it can.
    let runtime = match args.threads {
        0 | 1 => tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        threads => tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?,
    };
    runtime.block_on(serve(args))
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let script = match &args.script {
        Some(path) => {
            let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            serde_json::from_slice(&text).with_context(|| format!("{} is no script", path.display()))?
        }
        None => Script::default(),
    };
    let options = Options { listen: Some(args.listen), lean: args.lean, script };
    let upstream = Upstream::start_with(options).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    if let Some(path) = &args.address_file {
        let part = path.with_extension("part");
        std::fs::write(&part, upstream.addr().to_string())?;
        std::fs::rename(&part, path)?;
    }
    writeln!(std::io::stdout(), "scripted upstream on {}", upstream.base_url())?;
    upstream.serve_forever().await;
    Ok(())
}
