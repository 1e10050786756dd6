//! `gatewayd`: its command line, from the arguments to the exit code. What it runs is put together in `compose.rs`.

mod data_dir;
mod dev;
mod log;
mod ready;
mod signal;

pub(crate) use data_dir::DataDir;

use crate::compose::Node;
use crate::config::{self, Config, DEFAULT_FILE, Fault, Loaded, Sources};
use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use std::io::{Write, stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

/// The exit code of a start that cannot succeed: a taken port, a broken configuration, a data directory in use.
const CANNOT_START: u8 = 2;

/// The exit code of a node that served and did not end in good order.
const BROKE_OFF: u8 = 1;

/// The gateway's daemon: one endpoint in front of every model, with limits that hold exactly.
#[derive(Debug, Parser)]
#[command(name = "gatewayd", version, arg_required_else_help = true)]
pub struct Command {
    #[command(subcommand)]
    run: Run,
}

#[derive(Debug, Subcommand)]
enum Run {
    /// Run one node on loopback that needs nothing else: makes its keys, answers by a built-in model.
    Dev(dev::DevArgs),
    /// Run a node as configured.
    Serve(FileArgs),
    /// Show or check configuration.
    Config {
        #[command(subcommand)]
        show: Show,
    },
}

#[derive(Debug, Subcommand)]
enum Show {
    /// Print the documented file with every key and its default.
    Default,
    /// Print every problem with the layer that it is in; exit 2 when there is one.
    Check(FileArgs),
}

#[derive(Debug, Args)]
struct FileArgs {
    /// The configuration file, or a directory that holds ENV/gateway.toml [default: config].
    #[arg(long, value_name = "DIR_OR_FILE")]
    config: Option<PathBuf>,
    /// Which environment's file: dev, test, live.
    #[arg(long, env = "TOKLIGENCE_ENV", default_value = "live")]
    env: String,
}

/// What is about to run: a checked configuration, the locked data directory, and whether dev mode adds its own.
struct Plan {
    config: Config,
    data: DataDir,
    dev: bool,
}

/// Runs the command of the process's arguments.
pub fn main() -> ExitCode {
    let outcome = match Command::parse().run {
        Run::Config { show: Show::Default } => print(DEFAULT_FILE),
        Run::Config { show: Show::Check(args) } => {
            args.load().map(drop).and_then(|()| print("the configuration is in order\n"))
        }
        Run::Serve(args) => args.load().and_then(|loaded| {
            let data = DataDir::open(&loaded.config.raft.node.data_dir).map_err(one)?;
            run(Plan { config: loaded.config, data, dev: false })
        }),
        Run::Dev(args) => args.plan().and_then(run),
    };
    let sentences = match outcome {
        Ok(code) => return code,
        Err(sentences) => sentences,
    };
    for sentence in sentences {
        // Standard error is the last resort: when it is closed there is nobody left to tell.
        let _ = writeln!(stderr(), "gatewayd: {sentence}");
    }
    ExitCode::from(CANNOT_START)
}

impl FileArgs {
    fn load(&self) -> Result<Loaded, Vec<String>> {
        let file = config::find_file(self.config.as_deref(), &self.env).map_err(|fault| vec![fault.to_string()])?;
        let sources = Sources { file: Some(file), environment: std::env::vars_os().collect(), flags: Vec::new() };
        config::load(&sources).map_err(sentences)
    }
}

fn sentences(faults: Vec<Fault>) -> Vec<String> {
    faults.iter().map(Fault::to_string).collect()
}

fn one(error: anyhow::Error) -> Vec<String> {
    vec![format!("{error:#}")]
}

fn print(text: &str) -> Result<ExitCode, Vec<String>> {
    stdout().write_all(text.as_bytes()).map(|()| ExitCode::SUCCESS).map_err(|error| one(error.into()))
}

fn run(plan: Plan) -> Result<ExitCode, Vec<String>> {
    log::start(&plan.config.log).map_err(one)?;
    // Installed once, here: with two providers compiled in, rustls would not choose one by itself.
    let _ = rustls::crypto::ring::default_provider().install_default();
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("gatewayd")
        .build()
        .context("cannot start the runtime")
        .map_err(one)?;
    let outcome = runtime.block_on(serve(plan)).map_err(one);
    // Blocking work left over (a disk that hangs) must not keep a stopped node alive.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    outcome
}

/// Serves until a signal or a fault ends it.
///
/// # Errors
/// When it cannot start; from then on the exit code tells.
async fn serve(plan: Plan) -> anyhow::Result<ExitCode> {
    let stop = signal::Stop::listen()?;
    let data_dir = plan.data.path().to_owned();
    ready::Ready::clear(&data_dir);
    let node_id = plan.config.raft.node.id;
    let banner = if plan.dev { Some(dev::Banner::of(&plan.config)) } else { None };
    let node = Node::open(plan.config, plan.data).await?;
    let key = if plan.dev { Some(dev::key(node.identity(), &data_dir).await?) } else { None };
    let mut serving = node.serve()?;
    let ready = ready::Ready::write(&data_dir, serving.address(), node_id)?;
    tracing::info!(address = %serving.address(), node_id, version = env!("CARGO_PKG_VERSION"), "serving");
    if let (Some(banner), Some(key)) = (banner, key) {
        banner.print(serving.address(), &key, &data_dir);
    }
    let broke_off = tokio::select! {
        () = stop.first() => {
            tracing::info!("stopping: running requests may finish");
            false
        }
        cause = serving.ended() => {
            tracing::error!(cause, "the node cannot go on");
            true
        }
    };
    ready.remove();
    if broke_off {
        return Ok(ExitCode::from(BROKE_OFF));
    }
    tokio::select! {
        () = serving.drain() => {
            tracing::info!("stopped");
            Ok(ExitCode::SUCCESS)
        }
        () = stop.second() => {
            tracing::warn!("second signal: stopped at once");
            Ok(ExitCode::from(BROKE_OFF))
        }
    }
}

/// Lifts the soft limit of open files to the hard one: each client and each upstream call holds a socket.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Failing is fine: the limit then stays what the system's owner chose.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
