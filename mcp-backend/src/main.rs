//! OdinMCP: the MCP front end behind the gateway.

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{FromArgMatches, Parser};
use odin::program::{self, BackendSettings, CommonSettings, Runs, WorkerSettings};
use worker::toolbox::Toolbox;

/// The MCP front end. Secrets come from the environment, or from files that it names, such as ASGARD_SESSION_KEY_FILE.
#[derive(Debug, Parser)]
#[command(version)]
struct Settings {
    /// Address to listen on.
    #[arg(long, env = "ASGARD_LISTEN", default_value = "127.0.0.1:8081")]
    listen: String,
    /// Run the stock worker in this process, with no Redis: one process, for development and small sites.
    #[arg(long, conflicts_with = "redis_url")]
    embedded_worker: bool,
    #[command(flatten)]
    common: CommonSettings,
    #[command(flatten, next_help_heading = "Of the embedded worker")]
    worker: WorkerSettings,
    #[command(flatten)]
    backend: BackendSettings,
}

/// A call makes many short-lived values: this allocator costs a call a sixth less CPU than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut command = program::command::<Settings>();
    let matches = command.get_matches_mut();
    let settings = Settings::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let Settings { listen, embedded_worker, common, worker: of_worker, backend } = settings;
    if !embedded_worker && let Some(option) = program::given::<WorkerSettings>(&matches) {
        let why = format!("{option} is for a worker: give it to that, or add --embedded-worker");
        command.error(ErrorKind::MissingRequiredArgument, why).exit();
    }
    match common.redis() {
        Ok(Some(_)) if embedded_worker => {
            let why = "--embedded-worker is a whole server: it cannot be used with ASGARD_REDIS_URL";
            command.error(ErrorKind::ArgumentConflict, why).exit();
        }
        Err(why) => command.error(ErrorKind::ArgumentConflict, why).exit(),
        Ok(_) => {}
    }
    program::start_log(&common.log);
    let runs = if embedded_worker { Runs::Both } else { Runs::Requests };
    let runtime = program::runtime(&common, runs).map_err(|error| error.to_string());
    program::ended(runtime.and_then(|runtime| {
        let toolbox =
            embedded_worker.then(Toolbox::from_env).transpose().map_err(|error| error.to_string())?;
        let toolbox = toolbox.map(|toolbox| (toolbox, &of_worker));
        runtime.block_on(worker::backend(&listen, &common, &backend, toolbox))
    }))
}
