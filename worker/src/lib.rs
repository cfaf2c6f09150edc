//! The stock Odin worker: a small toolbox, served by the distributed worker runtime.
//!
//! What serves the toolbox is compiled once, here, for the two programs that do: `worker`, and `mcp-backend` with the worker
//! in it.

pub mod toolbox;

use odin::program::{self, BackendSettings, CommonSettings, WorkerSettings};

use toolbox::Toolbox;

/// Serves the toolbox as a worker of a site: [`program::worker`].
///
/// # Errors
/// What keeps it from running, for people.
pub fn worker<'a>(
    listen: &'a str,
    common: &'a CommonSettings,
    settings: &'a WorkerSettings,
    toolbox: Toolbox,
) -> impl Future<Output = Result<(), String>> + Send + 'a {
    program::worker(listen, common, settings, toolbox)
}

/// Runs a backend, with a toolbox as the whole server: [`program::backend`].
///
/// # Errors
/// What keeps it from running, for people.
pub fn backend<'a>(
    listen: &'a str,
    common: &'a CommonSettings,
    settings: &'a BackendSettings,
    toolbox: Option<(Toolbox, &'a WorkerSettings)>,
) -> impl Future<Output = Result<(), String>> + Send + 'a {
    program::backend(listen, common, settings, toolbox)
}
