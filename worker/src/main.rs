//! The stock Odin worker.

use std::process::ExitCode;

use clap::{FromArgMatches, Parser};
use odin::program::{self, CommonSettings, WorkerSettings};
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

#[tokio::main]
async fn main() -> ExitCode {
    let matches = program::command::<Settings>().get_matches();
    let Settings { listen, common, worker: settings } =
        Settings::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    program::start_log(&common.log);
    program::ended(match Toolbox::from_env() {
        Ok(toolbox) => worker::worker(&listen, &common, &settings, toolbox).await,
        Err(error) => Err(error.to_string()),
    })
}
