//! The stock Odin worker.

use std::process::ExitCode;

use clap::Parser;
use odin::program::{self, CommonSettings, WorkerSettings};
use worker::toolbox::Toolbox;

/// A worker that runs the stock toolbox.
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
    let Settings { listen, common, worker } = Settings::parse();
    program::start_log(&common.log);
    program::ended(match Toolbox::from_env() {
        Ok(toolbox) => program::worker(&listen, &common, &worker, toolbox).await,
        Err(error) => Err(error.to_string()),
    })
}
