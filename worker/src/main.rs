//! The stock Odin worker.

use std::process::ExitCode;

use clap::{FromArgMatches, Parser};
use odin::program::{self, CommonSettings, Runs, WorkerSettings};
use worker::toolbox::Toolbox;

/// A worker that runs the stock toolbox. Secrets come from the environment, or from files that it names, such as
/// ASGARD_STATE_KEY_FILE.
#[derive(Debug, Parser)]
#[command(version)]
struct Settings {
    /// Address for health checks.
    #[arg(long, env = "ASGARD_LISTEN", default_value = "127.0.0.1:8091")]
    listen: String,
    #[command(flatten)]
    common: CommonSettings,
    #[command(flatten)]
    worker: WorkerSettings,
}

/// A call makes many short-lived values: this allocator costs a call a sixth less CPU than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let matches = program::command::<Settings>().get_matches();
    let Settings { listen, common, worker: settings } =
        Settings::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    program::start_log(&common.log);
    let runtime = program::runtime(&common, Runs::Tools).map_err(|error| error.to_string());
    program::ended(runtime.and_then(|runtime| {
        let toolbox = Toolbox::from_env().map_err(|error| error.to_string())?;
        runtime.block_on(worker::worker(&listen, &common, &settings, toolbox))
    }))
}
