//! A site: a real Redis, a real Pushpin, two fronts, one worker, and a small gateway that plays Bifrost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, Uri};
use identity::EntryPoint;
use kit::pushpin::{ISSUER, KEY, Pushpin};
use kit::site::{front_config, listener, memory, over, serve_at, worker};
use kit::values::{SERVER, TOKENS, assertion, assertion_keys, principal};
use kit::{RedisServer, wait};
use odin::admin::{self, AdminToken};
use odin::broadcast::{BroadcastKey, Broadcaster};
use odin::front::{Front, Handover};
use odin::program::process;
use odin::runner::RmcpRunner;
use odin::serve::NoDelay;
use odin::worker::Worker;
use tokio::sync::watch;

use super::server::Server;

/// The admin token.
pub const ADMIN: &str = "an-admin-token-of-more-than-32-characters";
/// Header by which a test's client says who it is; the gateway believes it.
pub const USER: &str = "x-test-user";

/// Keeps answers that Pushpin is to hold from it, as a slow network would.
pub struct Gate {
    open: watch::Sender<bool>,
    waiting: AtomicUsize,
}

impl Gate {
    pub fn close(&self) {
        self.open.send_replace(false);
    }

    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Answers that are kept.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    async fn pass(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What runs, and ends when it is dropped.
pub struct Deployment {
    /// Between the backends' holds and Pushpin.
    pub gate: Arc<Gate>,
    pub pushpin: Option<Pushpin>,
    /// Where clients of the bifrost entry point go.
    pub gateway: SocketAddr,
    pub admin: SocketAddr,
    pub fronts: Vec<Arc<Front>>,
    /// The worker's.
    pub broadcaster: Broadcaster,
    key: BroadcastKey,
    _worker: Worker,
    redis: Option<RedisServer>,
}

impl Deployment {
    pub async fn start() -> Self {
        let redis = RedisServer::start();
        let gateway = listener().await;
        let (mut fronts, mut backends) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            backends.push(listener().await);
        }
        let address = |listener: &NoDelay| listener.local_addr().unwrap().to_string();
        let names: Vec<String> = backends.iter().map(address).collect();
        // Holds too pass through the gateway here, so that they can be kept.
        let edge_address = address(&gateway);
        let pushpin = Pushpin::start(std::slice::from_ref(&edge_address), &edge_address).await.unwrap();
        let gate = Arc::new(Gate { open: watch::Sender::new(true), waiting: AtomicUsize::new(0) });
        let store = || over(&redis);
        let publisher = || process::publisher(vec![pushpin.endpoint()]);
        let key = BroadcastKey::random();
        for backend in backends {
            let publisher = publisher().map(|(publisher, _)| publisher);
            let mut config = front_config(key.clone());
            config.access = assertion_keys().into();
            config.handover = Handover::Envoy;
            config.grip = Some((ISSUER.into(), KEY.to_vec()));
            let front = Front::start(config, store(), publisher.clone());
            serve_at(backend, front.router());
            let publisher = publisher.unwrap();
            wait("the links stand", async || publisher.all_settled() && front.ready().is_ok()).await;
            fronts.push(front);
        }
        let pushpins = publisher();
        let links = pushpins.as_ref().map(|(publisher, _)| publisher.clone());
        let broadcaster = Broadcaster::new(SERVER, key.clone(), store(), links);
        let worker = worker(store(), store(), runner(&broadcaster), pushpins);
        let edge = Edge {
            http: reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .unwrap(),
            pushpin: pushpin.http(),
            backends: names,
            next: Arc::default(),
            gate: gate.clone(),
        };
        let (address, _) = serve_at(gateway, Router::new().fallback(pass).with_state(edge));
        let admin = admin(&fronts[0]).await;
        let (pushpin, redis, _worker) = (Some(pushpin), Some(redis), worker);
        Self { gate, pushpin, gateway: address, admin, fronts, broadcaster, key, _worker, redis }
    }

    /// A broadcaster of a process that has only just started: its link to Pushpin does not stand yet.
    pub fn newcomer(&self) -> Broadcaster {
        let (publisher, _) = process::publisher(vec![self.pushpin.as_ref().unwrap().endpoint()]).unwrap();
        Broadcaster::new(SERVER, self.key.clone(), over(self.redis.as_ref().unwrap()), Some(publisher))
    }

    /// One process: no gateway, no Pushpin, no Redis.
    pub async fn embedded() -> Self {
        let (store, key) = (memory(), BroadcastKey::random());
        let front = Front::start(front_config(key.clone()), store.clone(), None);
        let broadcaster = front.broadcaster().clone();
        let worker = worker(store.clone(), store, runner(&broadcaster), None);
        let (gateway, _) = serve_at(listener().await, front.router());
        let admin = admin(&front).await;
        let gate = Arc::new(Gate { open: watch::Sender::new(true), waiting: AtomicUsize::new(0) });
        let (fronts, _worker) = (vec![front], worker);
        Self { gate, pushpin: None, gateway, admin, fronts, broadcaster, key, _worker, redis: None }
    }

    /// Where clients of an entry point go.
    pub fn edge(&self, entry_point: EntryPoint) -> SocketAddr {
        match (entry_point, &self.pushpin) {
            (EntryPoint::Hermod, Some(pushpin)) => pushpin.http(),
            _ => self.gateway,
        }
    }

    /// Items that all fronts handed to Pushpin for notifications.
    pub fn items(&self) -> u64 {
        self.fronts.iter().map(|front| front.broadcaster().items()).sum::<u64>() + self.broadcaster.items()
    }

    /// Asks the admin API.
    pub async fn ask(&self, path: &str, body: &serde_json::Value) -> (u16, serde_json::Value) {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://{}{path}", self.admin);
        let answer = http.post(url).bearer_auth(ADMIN).body(body.to_string()).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Notifies by the admin API.
    pub async fn notify(&self, audience: serde_json::Value, method: &str, params: serde_json::Value) {
        let body = serde_json::json!({
            "audience": audience, "method": format!("notifications/{method}"), "params": params,
        });
        assert_eq!(self.ask("/notify", &body).await, (200, serde_json::json!({ "sent": true })));
    }
}

pub fn organisation(name: &str) -> serde_json::Value {
    serde_json::json!({ "organisation": { "issuer": TOKENS, "organisation": name } })
}

async fn admin(front: &Front) -> SocketAddr {
    let routes = admin::routes(front.broadcaster().clone(), AdminToken::new(ADMIN).unwrap());
    serve_at(listener().await, routes).0
}

fn runner(broadcaster: &Broadcaster) -> Arc<RmcpRunner<Server>> {
    Arc::new(RmcpRunner::new(Arc::new(Server)).with_broadcaster(broadcaster.clone()))
}

/// The gateway's state.
#[derive(Clone)]
struct Edge {
    http: reqwest::Client,
    pushpin: SocketAddr,
    backends: Vec<String>,
    next: Arc<AtomicUsize>,
    gate: Arc<Gate>,
}

/// What the gateway and its filter do: the assertion, a backend in turn, the hand-over.
async fn pass(
    State(edge): State<Edge>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let path = uri.path().to_owned();
    let backend = &edge.backends[edge.next.fetch_add(1, Ordering::Relaxed) % edge.backends.len()];
    if path.starts_with("/_hermod/") {
        let mut inner = headers.clone();
        for name in ["host", "content-length", "transfer-encoding", "connection"] {
            inner.remove(name);
        }
        let answer = edge.http.request(method, format!("http://{backend}{path}")).headers(inner);
        let answer = answer.send().await.unwrap();
        edge.gate.pass().await;
        return answered(answer);
    }
    let endpoint = identity::path::parse(&path).unwrap();
    let entry_point = if headers.contains_key("grip-sig") { EntryPoint::Hermod } else { EntryPoint::Bifrost };
    let (mcp_method, mcp_name) = (text("mcp-method"), text("mcp-name"));
    let assertion = assertion(
        principal(&text(USER).unwrap(), &endpoint.organisation),
        entry_point,
        method.as_str(),
        &path,
        (mcp_method.as_deref(), mcp_name.as_deref()),
    );
    let assertion = HeaderValue::try_from(assertion).unwrap();
    let mut inner = headers.clone();
    for name in ["host", "content-length", "transfer-encoding", "connection", USER] {
        inner.remove(name);
    }
    inner.insert(identity::assertion::HEADER, assertion.clone());
    let request = edge.http.request(method, format!("http://{backend}{path}")).headers(inner).body(body);
    let answer = request.send().await.unwrap();
    if answer.status() != 303 {
        if answer.headers().contains_key("grip-hold") {
            edge.gate.pass().await;
        }
        return answered(answer);
    }
    let location = answer.headers()["location"].to_str().unwrap().to_owned();
    let place = location.strip_prefix("http://hermod").unwrap();
    let mut second = HeaderMap::new();
    for name in ["accept", "mcp-session-id", "last-event-id", "mcp-protocol-version"] {
        second.extend(headers.get(name).map(|value| (http::HeaderName::from_static(name), value.clone())));
    }
    second.insert("host", HeaderValue::from_static("hermod"));
    second.insert(identity::assertion::HEADER, assertion);
    let hold = edge.http.get(format!("http://{}{place}", edge.pushpin)).headers(second);
    answered(hold.send().await.unwrap())
}

fn answered(answer: reqwest::Response) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status();
    for (name, value) in answer.headers() {
        if !["content-length", "transfer-encoding", "connection"].contains(&name.as_str()) {
            response.headers_mut().append(name, value.clone());
        }
    }
    *response.body_mut() = Body::from_stream(answer.bytes_stream());
    response
}
