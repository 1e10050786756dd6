//! The command line. Everything stands in `node/src/cli.rs`.

use std::process::ExitCode;

fn main() -> ExitCode {
    node::cli::main()
}
