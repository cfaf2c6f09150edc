//! What all nodes of a site must have alike, compared in their Redis.
//!
//! A node with another key, another server or other times than the rest would not fail: calls would wait for nobody,
//! sessions would be unknown to half of the backends, leases would end too early. So it does not start.

use std::sync::Arc;
use std::time::Duration;

use super::CommonSettings;
use crate::call::Timing;
use crate::store::{Fact, RedisStore, SITE_LIFE};

/// How often the facts are stored again: two failures in a row do no harm.
const RENEW: Duration = Duration::from_secs(SITE_LIFE.as_secs() / 3);
/// How often a Redis is asked again that was away when the node started.
const RETRY: Duration = Duration::from_millis(500);

/// The facts that hold for backends and workers.
pub(super) fn common(settings: &CommonSettings, broadcast: String) -> Vec<Fact> {
    vec![
        ("ASGARD_SERVER", settings.server.escape_default().to_string()),
        ("the timing of calls (of this version)", timing(&Timing::default())),
        (super::secrets::BROADCAST_KEY, broadcast),
    ]
}

fn timing(timing: &Timing) -> String {
    let Timing { lease, silence, offer, gate, start, keep, tombstone, undelivered } = timing;
    [
        ("lease", lease),
        ("silence", silence),
        ("offer", offer),
        ("gate", gate),
        ("start", start),
        ("keep", keep),
        ("tombstone", tombstone),
        ("undelivered", undelivered),
    ]
    .map(|(name, time)| format!("{name}={}ms", time.as_millis()))
    .join(",")
}

/// Compares the facts with those of the nodes that run, and stores them. The future that it gives back keeps them
/// there, and ends only when they turn out to differ after all: where Redis was away at the start.
///
/// # Errors
/// What differs, and what to do.
pub(super) async fn join(
    store: Arc<RedisStore>,
    facts: Vec<Fact>,
) -> Result<impl Future<Output = String>, String> {
    let joined = match store.join_site(&facts).await {
        Ok(None) => true,
        Ok(Some(difference)) => return Err(difference.to_string()),
        Err(error) => {
            tracing::warn!(%error, "Redis is away: whether this node fits its site is looked at when it is back");
            false
        }
    };
    Ok(keep(store, facts, joined))
}

async fn keep(store: Arc<RedisStore>, facts: Vec<Fact>, mut joined: bool) -> String {
    loop {
        tokio::time::sleep(if joined { RENEW } else { RETRY }).await;
        match store.join_site(&facts).await {
            Ok(None) => joined = true,
            Ok(Some(difference)) if !joined => return difference.to_string(),
            // It was here first, and others differ from it since Redis lost its memory: this one goes on.
            Ok(Some(difference)) => tracing::error!(%difference, "another node of this site differs"),
            Err(error) => tracing::debug!(%error, "the site's facts could not be stored again"),
        }
    }
}
