//! A site: a real Redis, a real Pushpin, two fronts, one worker, and a small gateway that plays Bifrost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, Uri};
use identity::{Assertion, AssertionKeys, Principal, Road};
use odin::admin::{self, AdminToken};
use odin::broadcast::{BroadcastKey, Broadcaster};
use odin::call::Timing;
use odin::front::{Access, Front, FrontConfig, FrontLimits, Handover};
use odin::program::process;
use odin::protocol::{origin::HostRules, session::SessionKeys};
use odin::runner::RmcpRunner;
use odin::serve;
use odin::store::{MemoryStore, RedisStore, Store, StoreLimits};
use odin::worker::{Worker, WorkerConfig};
use tokio::sync::watch;

use super::pushpin::{ISSUER, KEY, Pushpin};
use super::redis_server::RedisServer;
use super::server::Server;

/// Issuer of everybody's tokens.
pub const TOKENS: &str = "https://issuer.example";
/// The admin token.
pub const ADMIN: &str = "an-admin-token-of-more-than-32-characters";
/// Header by which a test's client says who it is; the gateway believes it.
pub const USER: &str = "x-test-user";

const KEYS: &str = "k1:YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE";
const SESSIONS: &str = "YmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmI";

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
pub struct Site {
    /// Between the backends' holds and Pushpin.
    pub gate: Arc<Gate>,
    pub pushpin: Option<Pushpin>,
    /// Where clients of the bifrost road go.
    pub gateway: SocketAddr,
    pub admin: SocketAddr,
    pub fronts: Vec<Arc<Front>>,
    /// The worker's.
    pub broadcaster: Broadcaster,
    key: BroadcastKey,
    _worker: Worker,
    redis: Option<RedisServer>,
}

impl Site {
    pub async fn start() -> Self {
        let redis = RedisServer::start();
        let gateway = listener().await;
        let (mut fronts, mut backends) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            backends.push(listener().await);
        }
        let names: Vec<String> = backends.iter().map(|backend| address(backend).to_string()).collect();
        // Holds too pass through the gateway here, so that they can be kept.
        let edge_address = address(&gateway).to_string();
        let pushpin = Pushpin::start(std::slice::from_ref(&edge_address), &edge_address).await.unwrap();
        let gate = Arc::new(Gate { open: watch::Sender::new(true), waiting: AtomicUsize::new(0) });
        let store = || store(&redis);
        let publisher = || process::publisher(vec![pushpin.endpoint()]);
        let key = BroadcastKey::random();
        for backend in backends {
            let publisher = publisher().map(|(publisher, _)| publisher);
            let access = Access::Gateway(Box::new(AssertionKeys::parse(KEYS).unwrap()));
            let config = config(access, Handover::Envoy, Some((ISSUER.into(), KEY.to_vec())), key.clone());
            let front = Front::start(config, store(), publisher.clone());
            serve(backend, front.router());
            let publisher = publisher.unwrap();
            wait("the links stand", async || publisher.all_settled() && front.ready().is_ok()).await;
            fronts.push(front);
        }
        let pushpins = publisher();
        let links = pushpins.as_ref().map(|(publisher, _)| publisher.clone());
        let broadcaster = Broadcaster::new("s", key.clone(), store(), links);
        let worker = worker(store(), pushpins, broadcaster.clone());
        let edge = Edge {
            http: reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .unwrap(),
            pushpin: pushpin.http(),
            backends: names,
            next: Arc::default(),
            keys: Arc::new(AssertionKeys::parse(KEYS).unwrap()),
            gate: gate.clone(),
        };
        let address = address(&gateway);
        serve(gateway, Router::new().fallback(pass).with_state(edge));
        let admin = admin(&fronts[0]).await;
        let (pushpin, redis, _worker) = (Some(pushpin), Some(redis), worker);
        Self { gate, pushpin, gateway: address, admin, fronts, broadcaster, key, _worker, redis }
    }

    /// A broadcaster of a process that has only just started: its link to Pushpin does not stand yet.
    pub fn newcomer(&self) -> Broadcaster {
        let (publisher, _) = process::publisher(vec![self.pushpin.as_ref().unwrap().endpoint()]).unwrap();
        Broadcaster::new("s", self.key.clone(), store(self.redis.as_ref().unwrap()), Some(publisher))
    }

    /// One process: no gateway, no Pushpin, no Redis.
    pub async fn embedded() -> Self {
        let limits = StoreLimits::default();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Timing::default(), limits));
        let key = BroadcastKey::random();
        let config = config(Access::Open(HostRules::default()), Handover::None, None, key.clone());
        let front = Front::start(config, store.clone(), None);
        let broadcaster = front.broadcaster().clone();
        let worker = worker(store, None, broadcaster.clone());
        let listener = listener().await;
        let gateway = address(&listener);
        serve(listener, front.router());
        let admin = admin(&front).await;
        let gate = Arc::new(Gate { open: watch::Sender::new(true), waiting: AtomicUsize::new(0) });
        let (fronts, _worker) = (vec![front], worker);
        Self { gate, pushpin: None, gateway, admin, fronts, broadcaster, key, _worker, redis: None }
    }

    /// Where clients of a road go.
    pub fn edge(&self, road: Road) -> SocketAddr {
        match (road, &self.pushpin) {
            (Road::Hermod, Some(pushpin)) => pushpin.http(),
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

fn store(redis: &RedisServer) -> Arc<dyn Store> {
    let limits = StoreLimits::default();
    Arc::new(RedisStore::connect(&redis.url(), Timing::default(), limits).unwrap())
}

pub fn organisation(name: &str) -> serde_json::Value {
    serde_json::json!({ "organisation": { "issuer": TOKENS, "organisation": name } })
}

/// Waits until it is so, for at most half a minute.
pub async fn wait(what: &str, mut so: impl AsyncFnMut() -> bool) {
    for _ in 0..1500 {
        if so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what}: not within half a minute");
}

async fn listener() -> serve::NoDelay {
    serve::listen("127.0.0.1:0").await.unwrap()
}

fn address(listener: &serve::NoDelay) -> SocketAddr {
    listener.local_addr().unwrap()
}

fn serve(listener: serve::NoDelay, app: Router) {
    tokio::spawn(async move { axum::serve(listener, app).await });
}

async fn admin(front: &Front) -> SocketAddr {
    let listener = listener().await;
    let at = address(&listener);
    serve(listener, admin::routes(front.broadcaster().clone(), AdminToken::new(ADMIN).unwrap()));
    at
}

fn config(
    access: Access,
    handover: Handover,
    grip: Option<(String, Vec<u8>)>,
    broadcast: BroadcastKey,
) -> FrontConfig {
    FrontConfig {
        node: process::unique_name("front"),
        server: "s".into(),
        access,
        handover,
        hold_after: Duration::from_millis(100),
        sessions: SessionKeys::parse(SESSIONS).unwrap(),
        grip,
        broadcast,
        policy: Default::default(),
        limits: FrontLimits::default(),
        lease: Timing::default().lease,
    }
}

fn worker(
    store: Arc<dyn Store>,
    pushpins: Option<odin::worker::Pushpins>,
    broadcaster: Broadcaster,
) -> Worker {
    let runner = Arc::new(RmcpRunner::new(Arc::new(Server)).with_broadcaster(broadcaster));
    let config = WorkerConfig { name: process::unique_name("worker"), ..WorkerConfig::new("s") };
    let beats = store.clone();
    Worker::start(config, store, Box::new(move || beats), runner, pushpins).unwrap()
}

/// The gateway's state.
#[derive(Clone)]
struct Edge {
    http: reqwest::Client,
    pushpin: SocketAddr,
    backends: Vec<String>,
    next: Arc<AtomicUsize>,
    keys: Arc<AssertionKeys>,
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
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let assertion = edge.keys.sign(&Assertion {
        principal: principal(&text(USER).unwrap(), &endpoint.organisation),
        audience: identity::assertion::AUDIENCE.into(),
        road: if headers.contains_key("grip-sig") { Road::Hermod } else { Road::Bifrost },
        method: method.to_string(),
        path: path.clone(),
        mcp_method: text("mcp-method"),
        mcp_name: text("mcp-name"),
        issued_at: now,
        expires_at: now + identity::assertion::LIFE,
    });
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

fn principal(subject: &str, organisation: &str) -> Principal {
    Principal {
        issuer: TOKENS.into(),
        subject: subject.into(),
        organisation: organisation.into(),
        client: None,
        username: None,
        scopes: Vec::new(),
        roles: Vec::new(),
        groups: Vec::new(),
    }
}
