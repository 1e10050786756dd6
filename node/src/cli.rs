//! `gateway`: the command line, from the arguments to the exit code. It speaks the admin routes' JSON over HTTP and
//! holds no rule of its own.

mod client;
mod cluster;
mod failure;
mod key;
mod limits;
mod output;
mod people;
mod pool;
mod usage;

use crate::bench::{self, BenchArgs};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use client::{Client, Endpoints};
use failure::Failure;
use output::Output;
use std::io::{BufRead, Write, stderr, stdin};
use std::process::ExitCode;
use std::time::Duration;

/// Runs and inspects a Tokligence Gateway.
#[derive(Debug, Parser)]
#[command(name = "gateway", version, arg_required_else_help = true, after_help = EXIT_CODES)]
pub struct Command {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    run: Run,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 refused, 2 usage, 3 unhealthy, 4 unreachable, 5 no quorum, 6 conflict, \
                          7 not allowed, 8 outcome unknown";

/// The heading of these in every command's help.
const EVERYWHERE: &str = "Options of every command";

/// What every command takes.
#[derive(Debug, Args)]
struct Global {
    /// Where the gateway is; several with commas between them, tried in order.
    #[arg(
        long,
        global = true,
        env = "TOKLIGENCE_ENDPOINT",
        default_value = "http://127.0.0.1:8081",
        value_name = "URL",
        help_heading = EVERYWHERE
    )]
    endpoint: String,
    /// The admin key; on loopback ./data/dev/admin-key when not given.
    #[arg(long, global = true, env = "TOKLIGENCE_ADMIN_KEY", hide_env_values = true, value_name = "KEY", help_heading = EVERYWHERE)]
    admin_key: Option<String>,
    /// A table for people, or JSON.
    #[arg(long, global = true, value_enum, default_value_t = Format::Table, help_heading = EVERYWHERE)]
    output: Format,
    /// How long to wait for an answer, as in 500ms, 10s, 2m.
    #[arg(long, global = true, default_value = "10s", value_parser = humantime::parse_duration, help_heading = EVERYWHERE)]
    timeout: Duration,
    /// Do not ask before something is destroyed.
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    yes: bool,
}

/// How results are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
enum Run {
    /// API keys.
    Key {
        #[command(subcommand)]
        run: key::KeyCommand,
    },
    /// Users.
    User {
        #[command(subcommand)]
        run: people::UserCommand,
    },
    /// Teams.
    Team {
        #[command(subcommand)]
        run: people::TeamCommand,
    },
    /// Pools: the capacity behind each model.
    Pool {
        #[command(subcommand)]
        run: pool::PoolCommand,
    },
    /// Usage rows.
    Usage {
        #[command(subcommand)]
        run: usage::UsageCommand,
    },
    /// The group of nodes.
    Cluster {
        #[command(subcommand)]
        run: cluster::ClusterCommand,
    },
    /// Send load and say how it went.
    Bench {
        #[command(flatten)]
        args: Box<BenchArgs>,
        /// The API key to call with; on loopback ./data/dev/key when not given.
        #[arg(long, value_name = "KEY", hide_env_values = true)]
        api_key: Option<String>,
    },
    /// Print completions for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// What a command works with.
struct Context {
    client: Client,
    output: Output,
    yes: bool,
}

impl Context {
    /// Has the user type the name of what is to be destroyed, unless `--yes` was given.
    fn confirm(&self, what: &str, name: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        let asked = write!(stderr(), "{what}. Type {name} to go on: ").and_then(|()| stderr().flush());
        let mut typed = String::new();
        asked.and_then(|()| stdin().lock().read_line(&mut typed)).map_err(Failure::io)?;
        if !typed.ends_with('\n') {
            // Nobody typed: what follows begins on a line of its own. When it cannot be told, nobody reads.
            let _ = writeln!(stderr());
        }
        if typed.trim() == name {
            return Ok(());
        }
        Err(Failure::Refused("not confirmed, nothing was changed; --yes goes on without asking".to_owned()))
    }
}

/// Runs the command of the process's arguments.
pub fn main() -> ExitCode {
    let command = Command::parse();
    // Installed once, here: with two providers compiled in, rustls would not choose one by itself.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(command)),
        Err(error) => Err(Failure::io(error)),
    };
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    // Standard error is the last resort: when it is closed there is nobody left to tell.
    let _ = writeln!(stderr(), "gateway: {failure}");
    ExitCode::from(failure.exit_code())
}

async fn run(command: Command) -> Result<(), Failure> {
    let Global { endpoint, admin_key, output, timeout, yes } = command.global;
    let endpoints = Endpoints::parse(&endpoint)?;
    let context = |endpoints: Endpoints| -> Result<Context, Failure> {
        let admin_key = match admin_key {
            Some(key) => Some(key),
            None => endpoints.dev_file("admin-key"),
        };
        Ok(Context { client: Client::new(endpoints, admin_key, timeout)?, output: Output::new(output), yes })
    };
    match command.run {
        Run::Key { run } => run.run(&context(endpoints)?).await,
        Run::User { run } => run.run(&context(endpoints)?).await,
        Run::Team { run } => run.run(&context(endpoints)?).await,
        Run::Pool { run } => run.run(&context(endpoints)?).await,
        Run::Usage { run } => run.run(&context(endpoints)?).await,
        Run::Cluster { run } => run.run(&context(endpoints)?).await,
        Run::Bench { args, api_key } => {
            let key = api_key.or_else(|| endpoints.dev_file("key")).ok_or_else(|| {
                Failure::NotAllowed("no API key: give --api-key, or make one with `gateway key create`".to_owned())
            })?;
            let run = bench::run(*args, endpoint, key, output == Format::Json).await;
            run.map_err(|error| Failure::Refused(format!("{error:#}")))
        }
        Run::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Command::command(), "gateway", &mut script);
            output::write(&script)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Command::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_before_or_behind_the_command() {
        for line in ["gateway --output json key list", "gateway key list --output json"] {
            let command = Command::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(command.global.output, Format::Json);
        }
    }
}
