//! What the command line offers. One file a command.

pub mod bench;
pub mod call;
pub mod can;
pub mod doctor;
pub mod down;
pub mod logs;
pub mod notify;
pub mod org;
pub mod reload;
pub mod render;
pub mod status;
pub mod summary;
pub mod supervise;
pub mod test;
pub mod token;
pub mod up;
pub mod why;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::paths::Paths;
use crate::problem::{Problem, Result};
use crate::supervisor::control::{self, Request};

/// Runs the command line of this process.
///
/// The runtime has one thread, the main one: processes must be started from a thread that lives as long as
/// the command (see [`crate::process`]).
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(cli)),
        Err(e) => Err(Problem::new(format!("cannot start: {e}"))),
    };
    outcome.unwrap_or_else(|problem| {
        crate::ui::say(format!("asgard: {problem}"));
        ExitCode::FAILURE
    })
}

async fn run(cli: Cli) -> Result<ExitCode> {
    let paths = Paths::discover()?;
    match cli.command {
        Command::Up(up) => up::run(&paths, up).await,
        Command::Down => down::run(&paths).await,
        Command::Status { json } => status::run(&paths, json).await,
        Command::Logs { part, follow, lines } => logs::run(&paths, part.as_deref(), follow, lines).await,
        Command::Supervise(up) => supervise::detached(&paths, &up).await,
        Command::Stop { part } => order(&paths, Request::Stop(part)).await,
        Command::Start { part } => order(&paths, Request::Start(part)).await,
        Command::Token { user, org } => token::run(&paths, &user, org.as_deref()).await,
        Command::Call(call) => call::run(&paths, &call).await,
        Command::Render(target) => render::run(&paths, &target),
        Command::Reload => reload::run(&paths).await,
        Command::Org { command } => org::organisations(&paths, command).await,
        Command::User { command } => org::users(&paths, command).await,
        Command::Host { command } => org::hosts(&paths, command).await,
        Command::Notify(news) => notify::run(&paths, &news).await,
        Command::Doctor => doctor::run(&paths).await,
        Command::Why { id } => why::run(&paths, &id).await,
        Command::Can { user, org, tool } => can::run(&paths, &user, &org, tool.as_deref()).await,
        Command::Bench { arguments } => bench::run(&paths, &arguments),
        Command::Test { names, list, all } => test::run(&paths, &names, list, all).await,
    }
}

async fn order(paths: &Paths, request: Request) -> Result<ExitCode> {
    match control::ask(paths, &request).await? {
        Some(_) => Ok(ExitCode::SUCCESS),
        None => Err(Problem::new("no stack is running").hint("run ./asgard up first")),
    }
}
