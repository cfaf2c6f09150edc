//! The front end: MCP over HTTP on one side, the store on the other.
//!
//! A request is judged ([`access`]), read ([`crate::protocol`]), put into the queue, and answered: as one JSON
//! document when that is all there is, else as a stream, which Pushpin holds where there is one, so that this
//! process can forget it.

mod access;
mod answer;
mod batch;
mod body;
mod cache;
mod ending;
mod hold;
mod http_sse;
mod listen;
mod policy;
mod request;
mod retry;
mod session;
mod standing;
mod stream;
mod tasks;
mod waiting;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::future::join3;
use grip::Publisher;
use identity::policy::Policy;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use access::Access;

use crate::broadcast::{BroadcastKey, Broadcaster};
use crate::health::{self, Degraded, health_routes};
use crate::protocol::{Limits, Refusal, Revision, session::SessionKeys};
use crate::store::Store;
use waiting::Waiters;

/// How a client's connection is handed over to Pushpin on the bifrost road.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handover {
    /// `X-Accel-Redirect` to the named location `@hermod`, for the nginx in Kong.
    Kong,
    /// A 303 to `http://hermod/_hermod/hold/{ticket}`, for Envoy's `internal_redirect_policy`.
    Envoy,
    /// Not at all: the backend streams by itself.
    None,
}

impl std::str::FromStr for Handover {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "kong" => Ok(Self::Kong),
            "envoy" => Ok(Self::Envoy),
            "none" => Ok(Self::None),
            other => Err(format!("{other:?} is no way to hand over: use kong, envoy or none")),
        }
    }
}

/// Bounds of what the front end takes on, each with an error of its own.
#[derive(Debug, Clone)]
pub struct FrontLimits {
    /// Of a request's body and structure.
    pub request: Limits,
    /// Calls in flight for one principal on this node (429).
    pub calls_of_principal: usize,
    /// Calls in flight for one organisation on this node (429).
    pub calls_of_organisation: usize,
    /// Streams handed to Pushpin in a second. What is over it waits a little.
    pub holds_per_second: u64,
    /// Bytes of a body up to which a request can be held on the hermod road: Pushpin's own limit.
    pub held_body: usize,
    /// Bytes of a body up to which a request can be handed over: Envoy's default limit.
    pub handover_body: usize,
    /// How long a call may wait in the queue before the client is told that no worker took it (503).
    pub queue_patience: Duration,
    /// Bytes of all bodies that are being read, or whose requests are not yet answered (503). One organisation has
    /// at most half of it, one principal a quarter (429).
    pub bodies: usize,
    /// How long a body may take to arrive (408).
    pub body_time: Duration,
    /// How long nothing of a body may come meanwhile (408).
    pub body_pause: Duration,
}

impl Default for FrontLimits {
    fn default() -> Self {
        Self {
            request: Limits::default(),
            calls_of_principal: 256,
            calls_of_organisation: 4096,
            holds_per_second: 1000,
            held_body: grip::MAX_REQUEST_BODY,
            handover_body: 1024 * 1024,
            queue_patience: Duration::from_secs(20),
            bodies: 128 * 1024 * 1024,
            body_time: Duration::from_secs(60),
            body_pause: Duration::from_secs(10),
        }
    }
}

/// Configuration of a front end.
pub struct FrontConfig {
    /// Name of this node, unique among all that ever shared this store: a restarted one needs a new one.
    pub node: String,
    /// Named server that requests are for.
    pub server: String,
    /// Who is believed.
    pub access: Access,
    /// How clients are handed over.
    pub handover: Handover,
    /// How long to wait for a result before the client is handed over.
    pub hold_after: Duration,
    /// Keys of session ids.
    pub sessions: SessionKeys,
    /// Issuer and key of `Grip-Sig`; none where no Pushpin is used.
    pub grip: Option<(String, Vec<u8>)>,
    /// Names of the channels that notifications go out on; the same on all backends and workers.
    pub broadcast: BroadcastKey,
    /// Who may use what; the same as the gateway's.
    pub policy: Policy,
    /// Bounds.
    pub limits: FrontLimits,
    /// The lease of [`crate::call::Timing`].
    pub lease: Duration,
}

/// The state of a front end.
pub struct Front {
    config: FrontConfig,
    store: Arc<dyn Store>,
    publisher: Option<Publisher>,
    broadcaster: Broadcaster,
    waiters: Arc<Waiters>,
    in_flight: Mutex<HashMap<String, usize>>,
    bodies: Arc<body::Bodies>,
    cache: Arc<cache::Cache>,
    holds: HoldBudget,
    /// Counters since the start.
    counters: Counters,
    /// When the store last answered an announcement.
    announced: Arc<Mutex<Option<Instant>>>,
    /// Streams that stand by themselves end, and nothing new is to come here.
    stopping: CancellationToken,
    /// All requests and streams, and the tasks, end. Implies `stopping`.
    ended: CancellationToken,
    /// The tasks end with the last reference to the front end.
    _alive: DropGuard,
}

#[derive(Default)]
struct Counters {
    json: AtomicU64,
    held: AtomicU64,
    streamed: AtomicU64,
    cached: AtomicU64,
    errors: AtomicU64,
    /// How often each HTTP status was refused with, also where the answer went out with another one: in a session, or
    /// as an event of a stream. The statuses are those of this code: a few.
    refused: Mutex<BTreeMap<u16, u64>>,
}

impl Counters {
    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn refused(&self, refusal: &Refusal) {
        Self::count(&self.errors);
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        *refused.entry(refusal.status().as_u16()).or_default() += 1;
    }
}

/// Streams handed to Pushpin in the current second.
#[derive(Default)]
struct HoldBudget {
    second: AtomicU64,
    used: AtomicU64,
}

impl HoldBudget {
    /// Whether there is room for one more in this second.
    fn has_room(&self, now: u64, most: u64) -> bool {
        if self.second.swap(now, Ordering::Relaxed) != now {
            self.used.store(0, Ordering::Relaxed);
        }
        self.used.load(Ordering::Relaxed) < most
    }

    fn count(&self) {
        self.used.fetch_add(1, Ordering::Relaxed);
    }
}

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
        let pings = waiting::ping(store.clone(), every, front.announced.clone());
        let hints = waiting::heed(store.clone(), node, front.waiters.clone());
        let changes = cache::heed(store, front.config.server.clone(), front.cache.clone());
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
            .route("/_hermod/hold/{ticket}", get(hold::hold))
            .fallback(request::serve)
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
        if announced.is_none_or(|at| at.elapsed() > self.config.lease) {
            return Err("the store does not answer: is Redis running?".into());
        }
        let meaning = "slow calls and streams go through this backend and end with it, HTTP+SSE is refused; \
                       quick calls work";
        Ok(health::lost_pushpins(self.publisher.as_ref(), meaning))
    }

    /// Whether the links to all Pushpins stand. Without them a call that begins now is not to wait for a hold.
    fn links_stand(&self) -> bool {
        self.publisher.as_ref().is_none_or(Publisher::all_up)
    }

    /// Whether a stream could be held now.
    fn can_hold(&self) -> bool {
        self.publisher.as_ref().is_some_and(Publisher::all_settled)
            && self.holds.has_room(unix_seconds(), self.config.limits.holds_per_second)
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
        "errors": of(&counters.errors),
        "refused": *counters.refused.lock().unwrap_or_else(PoisonError::into_inner),
        "waiting": front.waiters.len(),
        "notified": front.broadcaster.items(),
    });
    ([(http::header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn refuse(front: &Front, refusal: Refusal) -> Response {
    front.counters.refused(&refusal);
    into_axum(refusal.into_response())
}

/// Refuses a request of a revision, in the form that its era has for that.
fn refuse_in(front: &Front, revision: Revision, refusal: Refusal) -> Response {
    front.counters.refused(&refusal);
    into_axum(in_era(revision, refusal).into_response())
}

/// A refusal in the form of the revision's era.
fn in_era(revision: Revision, refusal: Refusal) -> Refusal {
    if revision.is_modern() { refusal } else { refusal.in_session() }
}

fn into_axum(response: http::Response<bytes::Bytes>) -> Response {
    response.map(axum::body::Body::from)
}
