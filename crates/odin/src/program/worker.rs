//! A worker as a program.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join};
use rmcp::ServerHandler;
use tokio_util::sync::CancellationToken;

use super::{CommonSettings, WorkerSettings, bind, redis, secrets, site};
use super::{links, process};
use crate::broadcast::Broadcaster;
use crate::health;
use crate::link::{LinkKeys, Listener};
use crate::runner::{RmcpRunner, StateKeys};
use crate::serve;
use crate::store::Store;
use crate::worker::{DirectCalls, MakeStore, Runner, Shares, Worker, WorkerConfig};

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
    let direct = direct_calls(common, settings, links::keys(common, &mut facts)?)?;
    let differs = site::join(store.clone(), facts).await?;
    let pushpins =
        process::pushpins(&common.pushpins).map_err(|error| format!("ASGARD_PUSHPINS: {error}"))?;
    let pushpins = process::publisher(pushpins);
    let publisher = pushpins.as_ref().map(|(publisher, _)| publisher.clone());
    let broadcaster = Broadcaster::new(&common.server, broadcast.key, store.clone(), publisher);
    let runner = make(broadcaster, state.key).await?;
    let store: Arc<dyn Store> = store;
    let (beats, registers) = (own_store(common, &store), own_store(common, &store));
    let worker = Worker::start(config(common, settings), store, beats, runner, pushpins)
        .map_err(|error| format!("the worker can't start: {error}"))?;
    if let Some(direct) = direct {
        worker.take_direct(direct, registers).map_err(|error| format!("the links can't start: {error}"))?;
    }
    let (ready, stop) = (worker.clone(), CancellationToken::new());
    let load = worker.clone();
    let statz = async move || {
        let load = serde_json::to_string(&load.load()).unwrap_or_default();
        ([(http::header::CONTENT_TYPE, "application/json")], load)
    };
    let health = health::health_routes(move || ready.ready()).route("/statz", axum::routing::get(statz));
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

/// A connection of a thread's own; the address was checked when the first one was made.
fn own_store(common: &CommonSettings, fallback: &Arc<dyn Store>) -> MakeStore {
    let (of, fallback) = (common.clone(), fallback.clone());
    Box::new(move || -> Arc<dyn Store> { redis(&of).map_or(fallback, |store| store) })
}

/// Where calls come straight from backends; `None` where they don't.
fn direct_calls(
    common: &CommonSettings,
    settings: &WorkerSettings,
    keys: Option<LinkKeys>,
) -> Result<Option<DirectCalls>, String> {
    let Some(address) = settings.links.as_ref().filter(|_| common.direct) else { return Ok(None) };
    let keys = keys.ok_or(
        "ASGARD_LINK_KEY is missing: 32 random bytes in base64url, the same on all backends and workers. Without it,          leave out ASGARD_LINKS: then all calls come through the queue",
    )?;
    let anywhere =
        address.to_string().parse::<SocketAddr>().is_ok_and(|address| address.ip().is_unspecified());
    if anywhere && settings.links_at.is_none() {
        return Err(format!(
            "ASGARD_LINKS={address} tells backends no address: say by ASGARD_LINKS_AT where they find this worker"
        ));
    }
    let listener = Listener::bind(address).map_err(|error| format!("ASGARD_LINKS={address}: {error}"))?;
    let announced = settings.links_at.clone().unwrap_or_else(|| listener.address().clone());
    tracing::info!(%announced, "backends may send calls straight here");
    Ok(Some(DirectCalls::new(keys).with_listener(listener, announced)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        common: CommonSettings,
        #[command(flatten)]
        settings: WorkerSettings,
    }

    fn direct(line: &[&str], key: bool) -> Result<Option<DirectCalls>, String> {
        let line = [&["worker"], line].concat();
        let line = <Line as clap::Parser>::try_parse_from(line).map_err(|error| error.to_string())?;
        direct_calls(&line.common, &line.settings, key.then(LinkKeys::random))
    }

    #[test]
    fn direct_calls_come_where_an_address_and_a_key_are_given() {
        assert!(direct(&[], true).unwrap().is_none(), "off without an address");
        assert!(direct(&["--links", "127.0.0.1:0"], true).unwrap().is_some());
        assert!(direct(&["--links", "127.0.0.1:0", "--direct", "false"], true).unwrap().is_none());
        for (line, key, why) in [
            (&["--links", "127.0.0.1:0"][..], false, "ASGARD_LINK_KEY is missing"),
            (&["--links", "nowhere"], true, "HOST:PORT"),
            (&["--links", "0.0.0.0:0"], true, "ASGARD_LINKS_AT"),
            (&["--links", "192.0.2.1:1"], true, "ASGARD_LINKS=192.0.2.1:1"),
        ] {
            let error = direct(line, key).err().unwrap_or_default();
            assert!(error.contains(why), "{line:?}: {error}");
        }
        let anywhere = ["--links", "0.0.0.0:0", "--links-at", "worker-1:7000"];
        assert!(direct(&anywhere, true).unwrap().is_some());
    }
}
