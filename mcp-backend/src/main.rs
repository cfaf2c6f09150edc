//! OdinMCP: the MCP front end behind the gateway.

use std::process::ExitCode;

use clap::Parser;
use odin::program::{self, BackendSettings, CommonSettings};
use worker::toolbox::Toolbox;

/// The MCP front end. Secrets come from the environment alone.
#[derive(Debug, Parser)]
#[command(version)]
struct Settings {
    /// Address to listen on.
    #[arg(long, env = "ASGARD_LISTEN", default_value = "127.0.0.1:8081")]
    listen: String,
    /// Run the stock worker in this process, with no Redis: one process, for development and small sites.
    #[arg(long)]
    embedded_worker: bool,
    #[command(flatten)]
    common: CommonSettings,
    #[command(flatten)]
    backend: BackendSettings,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Settings { listen, embedded_worker, common, backend } = Settings::parse();
    program::start_log(&common.log);
    let toolbox = match embedded_worker.then(Toolbox::from_env).transpose() {
        Ok(toolbox) => toolbox,
        Err(error) => return program::ended(Err(error.to_string())),
    };
    program::ended(program::backend(&listen, &common, &backend, toolbox).await)
}
