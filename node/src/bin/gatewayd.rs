//! The daemon. Everything stands in `node/src/daemon.rs`.

use std::process::ExitCode;

fn main() -> ExitCode {
    node::daemon::main()
}
