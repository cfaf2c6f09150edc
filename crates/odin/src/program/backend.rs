//! A backend as a program.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{join, join3};
use identity::AssertionKeys;
use identity::policy::Policy;
use rmcp::ServerHandler;
use tokio_util::sync::CancellationToken;

use super::{BackendSettings, CommonSettings, WorkerSettings, bind, redis, worker};
use crate::admin::{self, AdminToken};
use crate::broadcast::BroadcastKey;
use crate::broker::{Broker, MemoryBroker};
use crate::call::Timing;
use crate::front::{Access, Front, FrontConfig, FrontLimits};
use crate::node;
use crate::protocol::origin::HostRules;
use crate::serve;

/// How long requests, and the running calls of an embedded worker, may take to end when the process is asked to
/// stop; and how long connections may take after that. Together they are below what supervisors allow.
const PATIENCE: Duration = Duration::from_secs(3);
const CONNECTIONS: Duration = Duration::from_secs(1);

/// Runs a backend until the process is asked to stop. With a handler it is the whole server: that is run in
/// the same process as a worker with these settings, and the broker is its memory.
///
/// # Errors
/// What keeps it from running, for people.
pub async fn backend<H: ServerHandler>(
    listen: &str,
    common: &CommonSettings,
    settings: &BackendSettings,
    handler: Option<(H, &WorkerSettings)>,
) -> Result<(), String> {
    let config = front_config(listen, common, settings, handler.is_some())?;
    let broker: Arc<dyn Broker> = match &handler {
        Some(_) => Arc::new(MemoryBroker::new(Timing::default(), common.limits())),
        None => redis(common)?,
    };
    let pushpins = node::pushpins(&common.pushpins).map_err(|error| format!("ASGARD_PUSHPINS: {error}"))?;
    let pushpins = node::publisher(pushpins);
    let publisher = pushpins.as_ref().map(|(publisher, _)| publisher.clone());
    let front = Front::start(config, broker.clone(), publisher);
    let worker = match handler {
        Some((handler, settings)) => {
            let broadcaster = front.broadcaster().clone();
            Some(worker::embedded(common, settings, broker, broadcaster, handler, pushpins).await?)
        }
        None => {
            // Events that nobody reads would fill their queue, and then hold the links up.
            drop(pushpins);
            None
        }
    };
    let listener = bind(listen).await?;
    let (stop, most) = (CancellationToken::new(), PATIENCE + CONNECTIONS);
    let admin = match settings.admin_listen.as_deref().filter(|address| !address.is_empty()) {
        Some(address) => {
            let token = settings.secrets.admin_token.as_deref().ok_or("ASGARD_ADMIN_TOKEN is missing")?;
            let token = AdminToken::new(token).map_err(|error| format!("ASGARD_ADMIN_TOKEN: {error}"))?;
            let listener = bind(address).await?;
            tracing::info!(address, "administrators may notify here");
            let routes = admin::routes(front.broadcaster().clone(), token);
            serve::serve(listener, routes, stop.clone(), CONNECTIONS).boxed()
        }
        None => std::future::ready(()).boxed(),
    };
    let serving = serve::serve(listener, front.router(), stop.clone(), most);
    let stopping = async {
        node::stop_signal().await;
        node::exit_within(most + CONNECTIONS);
        stop.cancel();
        let worker = async {
            if let Some(worker) = worker {
                worker.shut_down(PATIENCE).await;
            }
        };
        join(front.shut_down(PATIENCE), worker).await;
    };
    join3(serving, admin, stopping).await;
    Ok(())
}

fn front_config(
    listen: &str,
    common: &CommonSettings,
    settings: &BackendSettings,
    alone: bool,
) -> Result<FrontConfig, String> {
    let secrets = &settings.secrets;
    let access = match &secrets.assertion_keys {
        Some(keys) => {
            let keys =
                AssertionKeys::parse(keys).map_err(|error| format!("ASGARD_ASSERTION_KEYS: {error}"))?;
            Access::Gateway(Box::new(keys))
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
    Ok(FrontConfig {
        node: node::unique_name(settings.node.as_deref().unwrap_or("backend")),
        server: common.server.clone(),
        access,
        handover: settings.handover,
        hold_after: Duration::from_millis(settings.hold_after_ms),
        sessions: secrets.sessions(alone)?,
        grip: secrets.grip()?.map(|key| (settings.grip_iss.clone(), key)),
        broadcast: BroadcastKey::from_env().map_err(|error| format!("ASGARD_BROADCAST_KEY: {error}"))?,
        policy: settings.policy.as_deref().map(policy).transpose()?.unwrap_or_default(),
        limits: FrontLimits {
            calls_of_principal: common.calls_of_principal,
            calls_of_organisation: common.calls_of_organisation,
            ..settings.limits()
        },
        lease: Timing::default().lease,
    })
}

fn policy(file: &Path) -> Result<Policy, String> {
    let wrong = |error: String| format!("ASGARD_POLICY: {}: {error}", file.display());
    let text = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
    Policy::from_json(&text).map_err(|error| wrong(error.to_string()))
}

fn is_loopback(address: &str) -> bool {
    address.parse::<std::net::SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
}
