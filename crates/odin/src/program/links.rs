//! A backend's links to workers: over the network, or to the one in its own process.

use std::sync::Arc;
use std::time::Duration;

use super::CommonSettings;
use super::secrets::{self, LINK_KEY};
use crate::front::FrontConfig;
use crate::link::{Identity, LinkKeys, LinkLimits, Links};
use crate::store::{Fact, Store};
use crate::worker::{DirectCalls, Worker};

/// How long to wait before the link within the process is made again.
const AGAIN: Duration = Duration::from_millis(200);

/// The keys of links, where calls may go straight to workers. Nodes compare them.
///
/// # Errors
/// Why the keys can't be used.
pub(super) fn keys(common: &CommonSettings, facts: &mut Vec<Fact>) -> Result<Option<LinkKeys>, String> {
    if !common.direct {
        return Ok(None);
    }
    let Some(keys) = secrets::link_keys()? else {
        tracing::info!("no {LINK_KEY}: all calls go through the queue in Redis");
        return Ok(None);
    };
    facts.push((LINK_KEY, keys.fingerprints()));
    Ok(Some(keys.key))
}

/// The links of a front end; nothing carries them yet.
pub(super) fn of(config: &FrontConfig, keys: LinkKeys) -> Links {
    let own = Identity { name: config.node.clone(), server: config.server.clone(), keys };
    Links::new(own, LinkLimits::default())
}

/// Keeps links to the workers that are announced in the store, in the current runtime: nothing blocks a backend's, and a
/// call that stays in one thread costs its backend a sixth less.
pub(super) fn to_workers(links: &Links, store: Arc<dyn Store>) {
    tokio::spawn(links.clone().follow(store));
}

/// Keeps a link to the worker of the same process.
///
/// # Errors
/// A thread can't be started.
pub(super) fn to_own_worker(
    links: &Links,
    keys: LinkKeys,
    worker: &Worker,
    store: Arc<dyn Store>,
) -> Result<(), String> {
    let pipes = worker.take_direct(DirectCalls::new(keys), Box::new(move || store)).map_err(not_started)?;
    let attached = links.clone();
    let carry = move || async move {
        loop {
            if let Err(error) = attached.attach(pipes.open()).await {
                tracing::debug!(%error, "no link to the own worker");
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    links.carry_in_thread(carry).map_err(not_started)
}

fn not_started(error: std::io::Error) -> String {
    format!("the links can't start: {error}")
}
