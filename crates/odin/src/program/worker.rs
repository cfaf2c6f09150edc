//! A worker as a program.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join};
use rmcp::ServerHandler;
use tokio_util::sync::CancellationToken;

use super::process;
use super::{CommonSettings, WorkerSettings, bind, redis, secrets, site};
use crate::broadcast::Broadcaster;
use crate::health;
use crate::runner::{RmcpRunner, StateKeys};
use crate::serve;
use crate::store::Store;
use crate::worker::{Runner, Shares, Worker, WorkerConfig};

/// How long running calls may take to end when the worker is asked to stop.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the connections of health checks may take after that.
const CONNECTIONS: Duration = Duration::from_secs(1);

/// Runs a handler as a worker of a site until the process is asked to stop. At `listen` it answers health
/// checks alone.
///
/// # Errors
/// What keeps it from running, for people.
pub fn worker<'a, H: ServerHandler>(
    listen: &'a str,
    common: &'a CommonSettings,
    settings: &'a WorkerSettings,
    handler: H,
) -> BoxFuture<'a, Result<(), String>> {
    boxed(listen, common, settings, maker(handler))
}

/// Boxed here, where nothing is generic: so it is compiled with this crate, and not again with each program.
fn boxed<'a>(
    listen: &'a str,
    common: &'a CommonSettings,
    settings: &'a WorkerSettings,
    make: MakeRunner,
) -> BoxFuture<'a, Result<(), String>> {
    run(listen, common, settings, make).boxed()
}

async fn run(
    listen: &str,
    common: &CommonSettings,
    settings: &WorkerSettings,
    make: MakeRunner,
) -> Result<(), String> {
    let (store, broadcast, state) =
        (redis(common)?, secrets::broadcast_key(false)?, secrets::state_keys(false)?);
    let mut facts = site::common(common, broadcast.fingerprints());
    facts.push((secrets::STATE_KEY, state.fingerprints()));
    let differs = site::join(store.clone(), facts).await?;
    let pushpins =
        process::pushpins(&common.pushpins).map_err(|error| format!("ASGARD_PUSHPINS: {error}"))?;
    let pushpins = process::publisher(pushpins);
    let publisher = pushpins.as_ref().map(|(publisher, _)| publisher.clone());
    let broadcaster = Broadcaster::new(&common.server, broadcast.key, store.clone(), publisher);
    let runner = make(broadcaster, state.key).await?;
    // The leases' own connection; the address was checked above.
    let (of, fallback) = (common.clone(), store.clone());
    let beats = move || -> Arc<dyn Store> { redis(&of).unwrap_or(fallback) };
    let worker = Worker::start(config(common, settings), store, Box::new(beats), runner, pushpins)
        .map_err(|error| format!("the worker can't start: {error}"))?;
    let (ready, stop) = (worker.clone(), CancellationToken::new());
    let health = health::health_routes(move || ready.ready());
    let serving = serve::serve(bind(listen).await?, health, stop.clone(), CONNECTIONS);
    let stopping = async {
        let ended = process::stopped_or(differs).await;
        process::exit_within(PATIENCE + CONNECTIONS * 2);
        worker.shut_down(PATIENCE).await;
        stop.cancel();
        ended
    };
    join(serving, stopping).await.1
}

/// Starts a worker in the process of a backend.
pub(super) async fn embedded(
    common: &CommonSettings,
    settings: &WorkerSettings,
    store: Arc<dyn Store>,
    broadcaster: Broadcaster,
    make: MakeRunner,
    pushpins: Option<crate::worker::Pushpins>,
) -> Result<Worker, String> {
    let runner = make(broadcaster, secrets::state_keys(true)?.key).await?;
    let beats = store.clone();
    Worker::start(config(common, settings), store, Box::new(move || beats), runner, pushpins)
        .map_err(|error| format!("the embedded worker can't start: {error}"))
}

fn config(common: &CommonSettings, settings: &WorkerSettings) -> WorkerConfig {
    let name = process::unique_name(settings.name.as_deref().unwrap_or("worker"));
    let WorkerSettings { concurrency, task_concurrency, .. } = *settings;
    tracing::info!(worker = name, concurrency, task_concurrency, "taking calls");
    let shares = Shares { organisation: settings.organisation_share, principal: settings.principal_share };
    let answer_bytes = settings.answer_bytes as usize;
    WorkerConfig {
        name,
        concurrency,
        task_concurrency,
        shares,
        answer_bytes,
        ..WorkerConfig::new(&common.server)
    }
}

/// Makes the runner, once there is what sends its notifications and what seals its states.
pub(super) type MakeRunner =
    Box<dyn FnOnce(Broadcaster, StateKeys) -> BoxFuture<'static, Result<Arc<dyn Runner>, String>> + Send>;

/// All that is compiled anew for each handler.
pub(super) fn maker<H: ServerHandler>(handler: H) -> MakeRunner {
    Box::new(move |broadcaster, keys| runner(handler, broadcaster, keys).boxed())
}

async fn runner<H: ServerHandler>(
    handler: H,
    broadcaster: Broadcaster,
    keys: StateKeys,
) -> Result<Arc<dyn Runner>, String> {
    let runner = RmcpRunner::new(Arc::new(handler)).with_state_keys(keys).with_broadcaster(broadcaster);
    runner.learn().await.map_err(|error| format!("the server can't list its tools: {error:?}"))?;
    Ok(Arc::new(runner))
}
