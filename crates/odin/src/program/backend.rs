//! A backend as a program.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join, join3};
use identity::policy::Policy;
use rmcp::ServerHandler;
use tokio_util::sync::CancellationToken;

use super::links;
use super::process;
use super::worker::MakeRunner;
use super::{BackendSettings, CommonSettings, WorkerSettings, bind, redis, secrets, site, worker};
use crate::admin::{self, AdminToken};
use crate::call::Timing;
use crate::front::{Access, Front, FrontConfig, FrontLimits, Handover};
use crate::link::LinkKeys;
use crate::protocol::origin::HostRules;
use crate::serve;
use crate::store::{Fact, MemoryStore, Store};

/// How long requests, and the running calls of an embedded worker, may take to end when the process is asked to
/// stop; and how long connections may take after that. Together they are below what supervisors allow.
const PATIENCE: Duration = Duration::from_secs(3);
const CONNECTIONS: Duration = Duration::from_secs(1);

/// Runs a backend until the process is asked to stop. With a handler it is the whole server: that is run in
/// the same process as a worker with these settings, and the store is its memory.
///
/// # Errors
/// What keeps it from running, for people.
pub fn backend<'a, H: ServerHandler>(
    listen: &'a str,
    common: &'a CommonSettings,
    settings: &'a BackendSettings,
    handler: Option<(H, &'a WorkerSettings)>,
) -> BoxFuture<'a, Result<(), String>> {
    boxed(listen, common, settings, handler.map(|(handler, settings)| (worker::maker(handler), settings)))
}

/// Boxed here, where nothing is generic: so it is compiled with this crate, and not again with each program.
fn boxed<'a>(
    listen: &'a str,
    common: &'a CommonSettings,
    settings: &'a BackendSettings,
    worker: Option<(MakeRunner, &'a WorkerSettings)>,
) -> BoxFuture<'a, Result<(), String>> {
    run(listen, common, settings, worker).boxed()
}

async fn run(
    listen: &str,
    common: &CommonSettings,
    settings: &BackendSettings,
    handler: Option<(MakeRunner, &WorkerSettings)>,
) -> Result<(), String> {
    let admin_token = admin_token(settings)?;
    let (mut config, mut facts) = front_config(listen, common, settings, handler.is_some())?;
    let keys = match handler {
        Some(_) => common.direct.then(LinkKeys::random),
        None => links::keys(common, &mut facts)?,
    };
    let (store, differs): (Arc<dyn Store>, _) = match &handler {
        Some(_) => {
            (Arc::new(MemoryStore::new(Timing::default(), common.limits())), std::future::pending().boxed())
        }
        None => {
            let store = redis(common)?;
            let differs = site::join(store.clone(), facts).await?.boxed();
            (store, differs)
        }
    };
    let pushpins =
        process::pushpins(&common.pushpins).map_err(|error| format!("ASGARD_PUSHPINS: {error}"))?;
    let pushpins = process::publisher(pushpins);
    let publisher = pushpins.as_ref().map(|(publisher, _)| publisher.clone());
    let keys = keys.map(|keys| (links::of(&config, keys.clone()), keys));
    config.links = keys.as_ref().map(|(links, _)| links.clone());
    let front = Front::start(config, store.clone(), publisher);
    let worker = match handler {
        Some((make, settings)) => {
            let broadcaster = front.broadcaster().clone();
            let of_links = store.clone();
            let worker = worker::embedded(common, settings, store, broadcaster, make, pushpins).await?;
            if let Some((links, keys)) = keys {
                links::to_own_worker(&links, keys, &worker, of_links)?;
            }
            Some(worker)
        }
        None => {
            if let Some((links, _)) = &keys {
                links::to_workers(links, store);
            }
            // Events that nobody reads would fill their queue, and then hold the links up.
            drop(pushpins);
            None
        }
    };
    let listener = bind(listen).await?;
    let (stop, most) = (CancellationToken::new(), PATIENCE + CONNECTIONS);
    let admin = match admin_token {
        Some((address, token)) => {
            let listener = bind(address).await?;
            tracing::info!(address, "administrators may notify here");
            let routes = admin::routes(front.broadcaster().clone(), token);
            serve::serve(listener, routes, stop.clone(), CONNECTIONS).boxed()
        }
        None => std::future::ready(()).boxed(),
    };
    let serving = serve::serve(listener, front.router(), stop.clone(), most);
    let stopping = async {
        let ended = process::stopped_or(differs).await;
        process::exit_within(most + CONNECTIONS);
        stop.cancel();
        let worker = async {
            if let Some(worker) = worker {
                worker.shut_down(PATIENCE).await;
            }
        };
        join(front.shut_down(PATIENCE), worker).await;
        ended
    };
    join3(serving, admin, stopping).await.2
}

/// Where the admin API listens, and its token; `None` where there is none.
fn admin_token(settings: &BackendSettings) -> Result<Option<(&str, AdminToken)>, String> {
    let address = settings.admin_listen.as_deref().filter(|address| !address.is_empty());
    let Some(address) = address else { return Ok(None) };
    if !settings.admin_remote && !is_loopback(address) {
        return Err(format!(
            "ASGARD_ADMIN_LISTEN={address} can be reached from other machines, and the admin API has no TLS: give an \
             address such as 127.0.0.1:8181, or say --admin-remote (ASGARD_ADMIN_REMOTE=true)"
        ));
    }
    let token = secrets::secret(secrets::ADMIN_TOKEN)?.ok_or("ASGARD_ADMIN_TOKEN is missing")?;
    let token = AdminToken::new(&token).map_err(|error| format!("ASGARD_ADMIN_TOKEN: {error}"))?;
    Ok(Some((address, token)))
}

/// The front end's configuration, and what the other nodes of a site must have as well.
fn front_config(
    listen: &str,
    common: &CommonSettings,
    settings: &BackendSettings,
    alone: bool,
) -> Result<(FrontConfig, Vec<Fact>), String> {
    let (sessions, broadcast) = (secrets::session_keys(alone)?, secrets::broadcast_key(alone)?);
    let mut facts = site::common(common, broadcast.fingerprints());
    facts.push((secrets::SESSION_KEY, sessions.fingerprints()));
    let access = match secrets::assertion_keys()? {
        Some(keys) => {
            facts.push((secrets::ASSERTION_KEYS, keys.fingerprints()));
            keys.key.into()
        }
        None if alone && is_loopback(listen) => {
            tracing::warn!("no ASGARD_ASSERTION_KEYS: everybody on this machine may call, as one local user");
            Access::Open(HostRules::default())
        }
        None => {
            return Err("ASGARD_ASSERTION_KEYS is missing: the key that the gateway's filter signs \
                        identities with. Only a whole server on a loopback address does without."
                .into());
        }
    };
    let grip = secrets::grip_key()?;
    if grip.is_none() && settings.handover != Handover::None {
        return Err("ASGARD_GRIP_KEY is missing: the key of Pushpin's sig_key, in base64url. Without it no stream can be \
                    handed over (ASGARD_HANDOVER)."
            .into());
    }
    let fingerprint = grip.as_ref().map_or_else(|| "none".to_owned(), secrets::Shared::fingerprints);
    facts.extend([
        (secrets::GRIP_KEY, fingerprint),
        ("ASGARD_GRIP_ISS", settings.grip_iss.escape_default().to_string()),
    ]);
    let config = FrontConfig {
        links: None,
        node: process::unique_name(settings.node.as_deref().unwrap_or("backend")),
        server: common.server.clone(),
        access,
        handover: settings.handover,
        hold_after: Duration::from_millis(settings.hold_after_ms),
        sessions: sessions.key,
        grip: grip.map(|grip| (settings.grip_iss.clone(), grip.key)),
        broadcast: broadcast.key,
        policy: settings.policy.as_deref().map(policy).transpose()?.unwrap_or_default(),
        limits: FrontLimits {
            calls_of_principal: common.calls_of_principal,
            calls_of_organisation: common.calls_of_organisation,
            ..settings.limits()
        },
        lease: Timing::default().lease,
    };
    Ok((config, facts))
}

fn policy(file: &Path) -> Result<Policy, String> {
    let wrong = |error: String| format!("ASGARD_POLICY: {}: {error}", file.display());
    let text = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
    Policy::from_json(&text).map_err(|error| wrong(error.to_string()))
}

fn is_loopback(address: &str) -> bool {
    address.parse::<std::net::SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
}
