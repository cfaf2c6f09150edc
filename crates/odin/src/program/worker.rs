//! A worker as a program.

use std::sync::Arc;
use std::time::Duration;

use rmcp::ServerHandler;

use super::{CommonSettings, WorkerSettings, bind, redis};
use crate::broadcast::{BroadcastKey, Broadcaster};
use crate::broker::Broker;
use crate::node;
use crate::runner::{RmcpRunner, StateKeys};
use crate::worker::{Worker, WorkerConfig};

/// How long running calls may take to end when the worker is asked to stop.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a handler as a worker of a site until the process is asked to stop. At `listen` it answers health
/// checks alone.
///
/// # Errors
/// What keeps it from running, for people.
pub async fn worker<H: ServerHandler>(
    listen: &str,
    common: &CommonSettings,
    settings: &WorkerSettings,
    handler: H,
) -> Result<(), String> {
    let broker = redis(common)?;
    let pushpins = node::pushpins(&common.pushpins).map_err(|error| format!("ASGARD_PUSHPINS: {error}"))?;
    let pushpins = node::publisher(pushpins);
    let broadcast = BroadcastKey::from_env().map_err(|error| format!("ASGARD_BROADCAST_KEY: {error}"))?;
    let publisher = pushpins.as_ref().map(|(publisher, _)| publisher.clone());
    let broadcaster = Broadcaster::new(&common.server, broadcast, broker.clone(), publisher);
    let runner = runner(handler, broadcaster).await?;
    let config = WorkerConfig {
        concurrency: settings.concurrency.max(1),
        task_concurrency: settings.task_concurrency,
        ..config(common, settings)
    };
    // The leases' own connection; the address was checked above.
    let (of, fallback) = (common.clone(), broker.clone());
    let beats = move || redis(&of).unwrap_or(fallback);
    let worker = Worker::start(config, broker, Box::new(beats), runner, pushpins)
        .map_err(|error| format!("the worker can't start: {error}"))?;
    let ready = worker.clone();
    axum::serve(bind(listen).await?, node::health_routes(move || ready.ready()))
        .with_graceful_shutdown(async move {
            node::stop_signal().await;
            worker.shut_down(PATIENCE).await;
        })
        .await
        .map_err(|error| format!("serving failed: {error}"))
}

/// Starts a worker in the process of a backend.
pub(super) async fn embedded<H: ServerHandler>(
    common: &CommonSettings,
    broker: Arc<dyn Broker>,
    broadcaster: Broadcaster,
    handler: H,
    pushpins: Option<crate::worker::Pushpins>,
) -> Result<Worker, String> {
    let runner = runner(handler, broadcaster).await?;
    let settings = WorkerSettings { name: None, concurrency: 0, task_concurrency: 0 };
    let beats = broker.clone();
    Worker::start(config(common, &settings), broker, Box::new(move || beats), runner, pushpins)
        .map_err(|error| format!("the embedded worker can't start: {error}"))
}

fn config(common: &CommonSettings, settings: &WorkerSettings) -> WorkerConfig {
    let name = node::unique_name(settings.name.as_deref().unwrap_or("worker"));
    WorkerConfig { name, ..WorkerConfig::new(&common.server) }
}

async fn runner<H: ServerHandler>(
    handler: H,
    broadcaster: Broadcaster,
) -> Result<Arc<RmcpRunner<H>>, String> {
    let keys = StateKeys::from_env().map_err(|error| format!("ASGARD_STATE_KEY: {error}"))?;
    let runner = RmcpRunner::new(Arc::new(handler)).with_state_keys(keys).with_broadcaster(broadcaster);
    runner.learn().await.map_err(|error| format!("the server can't list its tools: {error:?}"))?;
    Ok(Arc::new(runner))
}
