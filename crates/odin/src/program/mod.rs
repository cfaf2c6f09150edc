//! From a `ServerHandler` to a running program, in one line.
//!
//! ```no_run
//! # use rmcp::ServerHandler;
//! #[derive(Clone, Default)]
//! struct Greeter;
//! impl ServerHandler for Greeter {}
//!
//! #[tokio::main]
//! async fn main() -> std::process::ExitCode {
//!     odin::Program::from_args().serve(Greeter).await
//! }
//! ```
//!
//! Where `ASGARD_REDIS_URL` names a Redis, the program is a worker of a site: backends (`mcp-backend`) hand it
//! the calls. Without one it is the whole server, with the memory of its process as the store. The handler
//! is the same in both. `--help` shows all settings; each is also a variable of the environment. Secrets are
//! variables alone, or files that they name: `ASGARD_SESSION_KEY` or `ASGARD_SESSION_KEY_FILE`, and so on.

mod backend;
mod links;
pub mod process;
mod secrets;
mod settings;
mod site;
mod worker;

use std::fmt;
use std::process::ExitCode;
use std::sync::Arc;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches, Parser};
use rmcp::ServerHandler;
use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::EnvFilter;

pub use backend::backend;
pub use settings::{BackendSettings, CommonSettings, WorkerSettings};
pub use worker::worker;

use crate::call::Timing;
use crate::serve::{self, NoDelay};
use crate::store::RedisStore;

/// A server of its own, or a worker of a site: see the [module](self).
#[derive(Debug, Parser)]
#[command(about = "An MCP server: the whole of it, or with ASGARD_REDIS_URL a worker of a site.")]
pub struct Program {
    /// Address to listen on: of the server, or of a worker's health checks. A free port of this machine if
    /// the port is 0.
    #[arg(long, env = "ASGARD_LISTEN", default_value = "127.0.0.1:8081")]
    listen: String,
    #[command(flatten)]
    common: CommonSettings,
    #[command(flatten)]
    worker: WorkerSettings,
    #[command(flatten)]
    backend: BackendSettings,
}

impl Program {
    /// Reads the command line and the environment. Ends the process with a message when they can't be used.
    #[must_use]
    pub fn from_args() -> Self {
        let mut command = command::<Self>();
        let matches = command.get_matches_mut();
        let program = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        let why = match (program.common.redis(), given::<BackendSettings>(&matches)) {
            (Err(error), _) => error,
            (Ok(Some(_)), Some(option)) => format!(
                "{option} is for a backend, and with ASGARD_REDIS_URL this is a worker: give it to mcp-backend, or leave \
                 the Redis out"
            ),
            _ => return program,
        };
        command.error(ErrorKind::ArgumentConflict, why).exit()
    }

    /// Serves until the process is asked to stop, and tells how it ended. Logs and errors go to stderr.
    pub async fn serve<H: ServerHandler>(self, handler: H) -> ExitCode {
        ended(self.run(handler).await.map_err(|Failed(why)| why))
    }

    /// Serves until the process is asked to stop, for a `main` that gives a `Result`. Logs go to stderr.
    ///
    /// # Errors
    /// What keeps it from running.
    pub async fn run<H: ServerHandler>(self, handler: H) -> Result<(), Failed> {
        let Self { listen, common, worker: work, backend: front } = self;
        start_log(&common.log);
        if common.threads.is_some() {
            tracing::warn!(
                "ASGARD_THREADS: this program made its own threads; TOKIO_WORKER_THREADS says how many"
            );
        }
        let ended = match common.redis() {
            Ok(Some(_)) => worker(&listen, &common, &work, handler).await,
            Ok(None) => backend(&listen, &common, &front, Some((handler, &work))).await,
            Err(error) => Err(error),
        };
        ended.map_err(Failed)
    }
}

/// Why a program can't run, for people.
#[derive(thiserror::Error)]
#[error("{0}")]
pub struct Failed(String);

/// The text alone: a `main` that gives a `Result` prints its error in this form.
impl fmt::Debug for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The command line of a program. Its `--help` says which variables of the environment there are, not what is in them.
#[must_use]
pub fn command<P: CommandFactory>() -> Command {
    P::command().mut_args(|arg| arg.hide_env_values(true))
}

/// The first of a group's options that the command line names. (What the environment says is for those that it
/// concerns: a site's programs may share one.)
#[must_use]
pub fn given<A: clap::Args>(matches: &ArgMatches) -> Option<String> {
    let group = A::augment_args(Command::new(""));
    group
        .get_arguments()
        .find(|arg| is_given(matches, arg.get_id().as_str()))
        .map(|arg| format!("--{}", arg.get_long().unwrap_or_default()))
}

fn is_given(matches: &ArgMatches, name: &str) -> bool {
    matches.value_source(name) == Some(ValueSource::CommandLine)
}

/// Starts the log on stderr; `filter` as in `RUST_LOG`.
pub fn start_log(filter: &str) {
    tracing_subscriber::fmt().with_env_filter(EnvFilter::new(filter)).with_writer(std::io::stderr).init();
}

/// What the program runs in, with as many threads as the settings say, or as suits what it runs.
///
/// # Errors
/// The system has no thread, or no timer, for it.
pub fn runtime(common: &CommonSettings, runs: Runs) -> std::io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = common.threads.unwrap_or_else(|| match runs {
        Runs::Requests => 1,
        // One is left for links, beats and the rest of the machine.
        Runs::Tools => cores.saturating_sub(1).max(1),
        Runs::Both => cores,
    });
    match (runs, threads) {
        (Runs::Requests, 1) => Builder::new_current_thread().enable_all().build(),
        _ => Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
    }
}

/// What a program's threads do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// Requests, which block nothing.
    Requests,
    /// Tools, which may.
    Tools,
    /// Both: the whole server in one process.
    Both,
}

/// How the process ends: an error goes to stderr, after the program's name.
#[must_use]
pub fn ended(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let program = std::env::args().next().unwrap_or_default();
            eprintln!("{}: {error}", program.rsplit('/').next().unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}

/// The Redis of a site.
fn redis(common: &CommonSettings) -> Result<Arc<RedisStore>, String> {
    let url = common.redis()?.ok_or("ASGARD_REDIS_URL is missing: the Redis of the site")?;
    let store = RedisStore::connect(&url, Timing::default(), common.limits());
    Ok(Arc::new(store.map_err(|error| format!("ASGARD_REDIS_URL: {error}"))?))
}

async fn bind(address: &str) -> Result<NoDelay, String> {
    let taken = |error| format!("can't listen on {address}: {error}. Is another process there?");
    let listener = serve::listen(address).await.map_err(taken)?;
    tracing::info!(address = %listener.local_addr().map_err(taken)?, "listening");
    Ok(listener)
}
