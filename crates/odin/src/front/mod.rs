//! The front end: MCP over HTTP on one side, the store on the other.
//!
//! A request is judged by its headers ([`Access`]), read ([`crate::protocol`]), put into the queue, and answered: as one JSON
//! document when that is all there is, else as a stream, which Pushpin holds where there is one, so that this
//! process can forget it.

mod calls;
mod config;
mod error;
mod http;
mod methods;
mod routes;
mod state;
mod streams;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::future::join3;
use grip::Publisher;
use state::{Counters, HoldBudget, forget_changed, ping, wake_waiters};
use tokio_util::sync::CancellationToken;

use crate::broadcast::Broadcaster;
use crate::health::{self, Degraded, health_routes};
use crate::link::Links;
use crate::store::Store;

pub use config::{FrontLimits, Handover};
pub use http::Access;
pub use state::{Front, FrontConfig};

impl Front {
    /// Starts a front end in the current runtime. `publisher` tells whether the links to the Pushpins stand, and
    /// sends notifications; calls are published by their workers.
    pub fn start(config: FrontConfig, store: Arc<dyn Store>, publisher: Option<Publisher>) -> Arc<Self> {
        let broadcaster = Broadcaster::new(
            config.server.clone(),
            config.broadcast.clone(),
            store.clone(),
            publisher.clone(),
        );
        let ended = CancellationToken::new();
        let front = Arc::new(Self {
            broadcaster,
            waiters: Arc::default(),
            config,
            store,
            publisher,
            in_flight: Mutex::default(),
            bodies: Arc::default(),
            cache: Arc::default(),
            holds: HoldBudget::default(),
            counters: Counters::default(),
            announced: Arc::default(),
            stopping: ended.child_token(),
            _alive: ended.clone().drop_guard(),
            ended: ended.clone(),
        });
        // None of them holds the front end itself: it goes when its owner and the last request let go of it.
        let (store, node) = (front.store.clone(), front.config.node.clone());
        let every = front.config.lease / 3;
        let pings = ping(store.clone(), every, front.announced.clone());
        let hints = wake_waiters(store.clone(), node, front.waiters.clone());
        let changes = forget_changed(store, front.config.server.clone(), front.cache.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = ended.cancelled() => {}
                _ = join3(pings, hints, changes) => {}
            }
        });
        front
    }

    /// Ends the front end, in order: streams that stand by themselves end at once, so that their clients go to
    /// another node; requests and calls' streams may end for at most `patience`, and are then told that the
    /// server stops. Streams that Pushpin holds go on.
    pub async fn shut_down(&self, patience: Duration) {
        self.stopping.cancel();
        let deadline = Instant::now() + patience;
        while self.waiters.len() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.ended.cancel();
    }

    /// The routes: MCP, holds, health.
    pub fn router(self: &Arc<Self>) -> Router {
        let front = self.clone();
        let health = health_routes(move || front.ready());
        Router::new()
            .route("/statz", get(statz))
            .route("/_hermod/hold/{ticket}", get(routes::hold))
            .fallback(routes::serve)
            .with_state(self.clone())
            .merge(health)
    }

    /// Notifies the clients of this front end's server, whichever node their streams are on.
    pub fn broadcaster(&self) -> &Broadcaster {
        &self.broadcaster
    }

    /// Whether it can do useful work; this alone decides about it. What it can't do beside that is in the list.
    ///
    /// # Errors
    /// The reason, for people.
    pub fn ready(&self) -> Result<Vec<Degraded>, String> {
        if self.stopping.is_cancelled() {
            return Err("it is stopping".into());
        }
        let announced = *self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        let is_silent = announced.is_none_or(|at| at.elapsed() > self.config.lease);
        // Direct calls need no store.
        let has_workers = self.config.links.as_ref().is_some_and(|links| !links.workers().is_empty());
        if is_silent && !has_workers {
            return Err("the store does not answer: is Redis running?".into());
        }
        let meaning = "slow calls and streams go through this backend and end with it, HTTP+SSE is refused; \
                       quick calls work";
        let mut degraded = health::lost_pushpins(self.publisher.as_ref(), meaning);
        degraded.extend(is_silent.then(|| Degraded {
            part: "redis".into(),
            reason: "it does not answer: sessions, slow calls and streams fail; quick calls without a session work".into(),
        }));
        Ok(degraded)
    }
}

/// How requests were answered since the start.
async fn statz(State(front): State<Arc<Front>>) -> Response {
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let counters = &front.counters;
    let body = serde_json::json!({
        "node": front.config.node,
        "json": of(&counters.json),
        "held": of(&counters.held),
        "streamed": of(&counters.streamed),
        "cached": of(&counters.cached),
        "direct": of(&counters.direct),
        "errors": of(&counters.errors),
        "refused": *counters.refused.lock().unwrap_or_else(PoisonError::into_inner),
        "waiting": front.waiters.len(),
        "links": front.config.links.as_ref().map(Links::waiting),
        "notified": front.broadcaster.items(),
    });
    ([(axum::http::header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
