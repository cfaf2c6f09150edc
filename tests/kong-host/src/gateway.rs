//! The gateway: an HTTP server that does with a request what Kong does.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::config::{Config, ConfigError, Environment, Service};
use crate::headers::Headers;
use crate::log::{Log, Severity};
use crate::plugins::Plugins;
use crate::proxy::{ProxyError, callout, exchange, without_hop_by_hop};
use crate::router::{Match, Router, normalise};
use crate::setup::Setup;
use crate::wasm::{
    Chain, LoadError, LocalReply, Poison, RequestState, SharedData, Step, Ticket, Worker, Zone,
};

type Body = BoxBody<Bytes, hyper::Error>;

/// How long a request may wait in a filter that will never be called again. (In Kong it waits for ever.)
const HANGING: Duration = Duration::from_secs(30);

/// A running gateway; it ends with the value.
pub struct Gateway {
    address: SocketAddr,
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

struct Inner {
    config: Config,
    router: Router,
    /// By Service and route.
    plugins: BTreeMap<(usize, usize), Plugins>,
    /// By Service.
    chains: BTreeMap<usize, Chain>,
    /// The worker processes; none: no filter could be loaded, and all routes are served without.
    workers: Vec<Arc<Mutex<Worker>>>,
    poison: Poison,
    /// Somebody has asked about the poison: the test wants it.
    poison_seen: AtomicBool,
    max_headers: usize,
    max_body: usize,
    turn: AtomicUsize,
    requests: AtomicU64,
    log: Log,
}

/// An answer before the upstream was asked.
struct Early(StatusCode, HeaderMap, Vec<u8>);

impl Gateway {
    /// Starts as `kong start` does.
    ///
    /// # Errors
    /// [`ConfigError`] where Kong would not start: with a file that is no module, too, but not with one that can't be
    /// used as a filter.
    pub async fn start(setup: Setup) -> Result<Self, ConfigError> {
        let environment = Environment::parse(&setup.environment)?;
        let known = setup.filters.keys().map(|n| (n.clone(), setup.schemas.get(n).cloned())).collect();
        let config = Config::parse(&setup.config, &known)?;
        let chains = chains(&config)?;
        if !chains.is_empty() && !environment.on("KONG_WASM") {
            return Err(ConfigError("filter chains, but wasm support is not enabled".into()));
        }
        let router = Router::new(&config)?;
        let plugins = plugins(&config)?;
        let log = Log::default();
        let zone = environment.get("KONG_NGINX_WASM_SHM_KV").and_then(bytes_of).map(Zone::new);
        let list: Vec<Chain> = chains.values().cloned().collect();
        let poison = Poison::default();
        // `auto` is one here.
        let count = environment.number("KONG_NGINX_WORKER_PROCESSES", 1).unwrap_or(1);
        let loaded = {
            let (filters, log, poison) = (setup.filters, log.clone(), poison.clone());
            let shared = Arc::new(Mutex::new(SharedData::new(zone)));
            let one = move |_| Worker::new(&filters, &list, shared.clone(), poison.clone(), log.clone());
            blocking(move || (0..count).map(one).collect::<Result<Vec<_>, _>>()).await?
        };
        let workers = match loaded {
            Ok(workers) => workers.into_iter().map(|worker| Arc::new(Mutex::new(worker))).collect(),
            Err(error @ LoadError::Broken(..)) => return Err(ConfigError(error.to_string())),
            Err(error) => {
                log.write(Severity::Crit, format!("wasm nginx worker initialization failed: {error}"));
                Vec::new()
            }
        };
        let listen =
            environment.get("KONG_PROXY_LISTEN").and_then(|l| l.split(' ').next()).unwrap_or_default();
        let fail = |e: std::io::Error| ConfigError(format!("proxy_listen {listen:?}: {e}"));
        let listener = TcpListener::bind(listen).await.map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        let inner = Arc::new(Inner {
            router,
            plugins,
            chains,
            workers,
            poison,
            poison_seen: AtomicBool::new(false),
            max_headers: environment.number("KONG_LUA_MAX_REQ_HEADERS", 100)?,
            max_body: environment
                .get("KONG_NGINX_HTTP_CLIENT_MAX_BODY_SIZE")
                .and_then(bytes_of)
                .unwrap_or(usize::MAX),
            turn: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            log,
            config,
        });
        let task = tokio::spawn(accept(listener, inner.clone()));
        Ok(Self { address, inner, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its error log.
    pub fn log(&self) -> &Log {
        &self.inner.log
    }

    /// Whether filters run; without, every route is served all the same.
    pub fn filters_loaded(&self) -> bool {
        !self.inner.workers.is_empty()
    }

    /// Lets the filters' timers go off.
    pub async fn tick(&self) {
        for worker in self.inner.workers.clone() {
            let _ = blocking(move || worker.lock().unwrap_or_else(PoisonError::into_inner).tick()).await;
        }
    }

    /// What a filter did that corrupts the memory of a real worker. Who asks wants it; else the test fails.
    pub fn poison(&self) -> Option<String> {
        self.inner.poison_seen.store(true, Ordering::Relaxed);
        self.inner.poison.get().map(str::to_owned)
    }
}

impl Drop for Gateway {
    #[allow(clippy::panic, reason = "whatever a test looks at, it must not pass")]
    fn drop(&mut self) {
        self.task.abort();
        let seen = self.inner.poison_seen.load(Ordering::Relaxed) || std::thread::panicking();
        if let (Some(why), false) = (self.inner.poison.get(), seen) {
            panic!("a worker of a real Kong would have crashed: {why}");
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ConfigError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| ConfigError(e.to_string()))
}

/// `2m`, `128k`, `100`.
fn bytes_of(text: &str) -> Option<usize> {
    let (number, factor) = match text.chars().last()? {
        'k' | 'K' => (text.get(..text.len() - 1)?, 1 << 10),
        'm' | 'M' => (text.get(..text.len() - 1)?, 1 << 20),
        _ => (text, 1),
    };
    number.parse::<usize>().ok()?.checked_mul(factor)
}

fn chains(config: &Config) -> Result<BTreeMap<usize, Chain>, ConfigError> {
    let mut chains = BTreeMap::new();
    for (index, service) in config.services.iter().enumerate() {
        if let Some(chain) = service.filter_chains.first() {
            let filters = chain.filters.iter().map(|f| {
                let configuration = match &f.config {
                    None => Vec::new(),
                    Some(serde_json::Value::String(text)) => text.clone().into_bytes(),
                    Some(other) => cjson(other).into_bytes(),
                };
                (f.name.clone(), configuration)
            });
            chains.insert(index, Chain { filters: filters.collect() });
        }
    }
    Ok(chains)
}

/// JSON as Kong writes it: `[]` becomes `{}`, and `/` becomes `\/`.
fn cjson(value: &serde_json::Value) -> String {
    use serde_json::Value;
    let quoted = |s: &str| Value::from(s).to_string().replace('/', "\\/");
    match value {
        Value::Array(list) if list.is_empty() => "{}".into(),
        Value::Array(list) => format!("[{}]", list.iter().map(cjson).collect::<Vec<_>>().join(",")),
        Value::Object(map) => {
            let parts: Vec<_> = map.iter().map(|(k, v)| format!("{}:{}", quoted(k), cjson(v))).collect();
            format!("{{{}}}", parts.join(","))
        }
        Value::String(text) => quoted(text),
        other => other.to_string(),
    }
}

fn plugins(config: &Config) -> Result<BTreeMap<(usize, usize), Plugins>, ConfigError> {
    let mut all = BTreeMap::new();
    for (s, service) in config.services.iter().enumerate() {
        for (r, route) in service.routes.iter().enumerate() {
            all.insert((s, r), Plugins::new(route.plugins.iter().chain(&service.plugins))?);
        }
    }
    Ok(all)
}

async fn accept(listener: TcpListener, inner: Arc<Inner>) {
    // The connections end with the gateway.
    let mut connections = JoinSet::new();
    // The worker processes take connections in turns.
    for turn in 0_usize.. {
        let Ok((stream, peer)) = listener.accept().await else { return };
        let _ = stream.set_nodelay(true);
        let inner = inner.clone();
        let worker = turn.checked_rem(inner.workers.len()).and_then(|n| inner.workers.get(n)).cloned();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let (inner, worker) = (inner.clone(), worker.clone());
                async move { Ok::<_, Infallible>(inner.serve(peer, worker.as_ref(), request).await) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .max_headers(1000)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

impl Inner {
    async fn serve(
        &self,
        peer: SocketAddr,
        worker: Option<&Arc<Mutex<Worker>>>,
        request: Request<Incoming>,
    ) -> Response<Body> {
        // Hexadecimal, and not one that a test makes up.
        let id = format!("{:032x}", 0xa5 << 120 | u128::from(self.requests.fetch_add(1, Ordering::Relaxed)));
        let asked = request.headers().clone();
        let path = normalise(request.uri().path());
        let host = asked.get("host").and_then(|h| h.to_str().ok()).unwrap_or_default();
        let found = self.router.find(&self.config, request.method().as_str(), host, &path);
        let mut response = match found {
            None => early(Early::error(StatusCode::NOT_FOUND, "no Route matched with those values", &id)),
            Some(found) => {
                let plugins = self.plugins.get(&(found.service, found.route));
                let limit = plugins.and_then(|p| p.function.as_ref()).and_then(|f| f.max_headers);
                if limit.is_some_and(|limit| asked.len() > limit) {
                    let refused = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                    return early(Early::error(refused, "Too many request headers", &id));
                }
                let preflight = plugins
                    .and_then(|p| p.cors.as_ref())
                    .and_then(|c| c.preflight(request.method().as_str(), &asked));
                match preflight {
                    Some((status, headers)) => return early(Early(status, headers, Vec::new())),
                    None => {
                        let answer = self.access(peer, worker, request, path, &found, &id).await;
                        let mut response = answer.unwrap_or_else(early);
                        if let Some(cors) = plugins.and_then(|p| p.cors.as_ref()) {
                            cors.answer(&asked, response.headers_mut());
                        }
                        response
                    }
                }
            }
        };
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert("x-kong-request-id", id);
        }
        response
    }

    /// nginx's own checks, plugins, balancer, filters, upstream: in this order.
    async fn access(
        &self,
        peer: SocketAddr,
        worker: Option<&Arc<Mutex<Worker>>>,
        request: Request<Incoming>,
        path: String,
        found: &Match,
        id: &str,
    ) -> Result<Response<Body>, Early> {
        let (parts, body) = request.into_parts();
        let none = || Early::error(StatusCode::INTERNAL_SERVER_ERROR, "An unexpected error occurred", id);
        let service = self.config.services.get(found.service).ok_or_else(none)?;
        let route = service.routes.get(found.route).ok_or_else(none)?;
        for unique in ["host", "authorization", "content-length"] {
            if parts.headers.get_all(unique).iter().count() > 1 {
                return Err(Early::error(StatusCode::BAD_REQUEST, "Bad request", id));
            }
        }
        let body = match Limited::new(body, self.max_body).collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => return Err(Early::error(StatusCode::PAYLOAD_TOO_LARGE, "Request body too large", id)),
        };

        let mut headers = Headers::from_map(&parts.headers);
        let mut scheme = service.protocol().to_owned();
        let target = parts.uri.path_and_query().map_or("/", |t| t.as_str()).to_owned();
        let mut upstream_path = path.clone();
        if let Some(plugins) = self.plugins.get(&(found.service, found.route)) {
            if let Some(closed) = plugins.function.as_ref().and_then(|f| f.scheme.as_ref()) {
                scheme.clone_from(closed);
            }
            if let Some(transformer) = &plugins.transformer {
                for name in &transformer.remove.headers {
                    headers.remove_by_plugin(name, self.max_headers);
                }
                if let Some(other) = transformer.path(&found.captures) {
                    upstream_path = other;
                }
            }
        }

        let addresses = self.balance(service).map_err(|e| {
            self.log.write(Severity::Error, e.to_string());
            Early::error(StatusCode::SERVICE_UNAVAILABLE, "failure to get a peer from the ring-balancer", id)
        })?;

        let host = parts.headers.get("host").and_then(|h| h.to_str().ok()).unwrap_or_default().to_owned();
        let mut state = RequestState {
            id: id.to_owned(),
            method: parts.method.as_str().to_owned(),
            target: target.clone(),
            path,
            authority: host.clone(),
            headers,
            body: body.to_vec(),
            source: (peer.ip().to_string(), peer.port()),
            names: (service.name.clone(), route.name.clone()),
            scheme,
            ..RequestState::default()
        };
        if let (Some(worker), Some(chain)) = (worker, self.chains.get(&found.service)) {
            state = self.filter(worker, chain, state, id).await?;
        }
        let query = parts.uri.query().map(|q| format!("?{q}")).unwrap_or_default();
        let forward = Forward {
            host: route.preserve_host.then_some(host),
            uri: format!("{upstream_path}{query}"),
            body,
            retries: usize::from(service.retries),
        };
        self.forward(state, addresses, forward, id).await
    }

    /// The targets in the order in which they are tried. This comes before the filters.
    fn balance(&self, service: &Service) -> Result<Vec<(String, u16)>, ConfigError> {
        let (host, port) = service.address()?;
        let Some(upstream) = self.config.upstreams.iter().find(|u| u.name == host) else {
            return Ok(vec![(host, port)]);
        };
        let split = |t: &str| t.rsplit_once(':').and_then(|(h, p)| Some((h.to_owned(), p.parse().ok()?)));
        let mut targets: Vec<_> = upstream.targets.iter().filter_map(|t| split(&t.target)).collect();
        if targets.is_empty() {
            return Err(ConfigError(format!("upstream {host} has no targets")));
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % targets.len();
        targets.rotate_left(turn);
        Ok(targets)
    }

    async fn filter(
        &self,
        worker: &Arc<Mutex<Worker>>,
        chain: &Chain,
        mut state: RequestState,
        id: &str,
    ) -> Result<RequestState, Early> {
        let broken = || Early::error(StatusCode::INTERNAL_SERVER_ERROR, "An unexpected error occurred", id);
        for filter in chain.filters.clone() {
            let called = on(worker, move |w| w.request(&filter, state)).await.ok_or_else(broken)?;
            let (ticket, mut step) = called.map_err(|_| broken())?;
            let mut waiting = JoinSet::new();
            let reply = loop {
                match step {
                    Step::Continue => break None,
                    Step::Reply(reply) => break Some(reply),
                    Step::Pause(callouts) => {
                        for request in callouts {
                            waiting.spawn(async move { (request.token, callout(request).await) });
                        }
                    }
                }
                let Some(Ok((token, answer))) = waiting.join_next().await else {
                    tokio::time::sleep(HANGING).await;
                    self.log.write(Severity::Error, "a request waits in a filter for nothing");
                    return Err(broken());
                };
                let ticket: Ticket = ticket.clone();
                let called = on(worker, move |w| w.answered(&ticket, token, answer)).await;
                step = called.ok_or_else(broken)?.map_err(|_| broken())?.1;
            };
            let after = on(worker, move |w| w.finish(&ticket)).await.flatten();
            if let Some(reply) = reply {
                return Err(Early::from(reply));
            }
            state = after.ok_or_else(broken)?;
        }
        Ok(state)
    }

    async fn forward(
        &self,
        state: RequestState,
        addresses: Vec<(String, u16)>,
        forward: Forward,
        id: &str,
    ) -> Result<Response<Body>, Early> {
        match state.scheme.as_str() {
            "http" => {}
            "https" => {
                // A TLS handshake with who does not speak it: the other side sees no request.
                self.log
                    .write(Severity::Error, "SSL_do_handshake() failed while SSL handshaking to upstream");
                return Err(Early::error(StatusCode::BAD_GATEWAY, "invalid response", id));
            }
            other => {
                self.log.write(Severity::Error, format!("invalid URL prefix in \"{other}://kong_upstream\""));
                return Err(Early::error(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "An unexpected error occurred",
                    id,
                ));
            }
        }
        let mut headers = state.headers.to_map();
        without_hop_by_hop(&mut headers);
        let forwarded = [
            ("x-forwarded-for", state.source.0.as_str()),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", state.authority.split(':').next().unwrap_or_default()),
            ("x-forwarded-path", state.target.split('?').next().unwrap_or_default()),
            ("x-real-ip", &state.source.0),
            ("x-kong-request-id", id),
        ];
        for (name, value) in forwarded {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
        let tries = addresses.iter().cycle().take(forward.retries + 1);
        for (number, (host, port)) in tries.enumerate() {
            // `kong.service.target` sets the port of the first try; the address was found before the filter ran.
            let port = state.port.filter(|_| number == 0).unwrap_or(*port);
            let address = format!("{host}:{port}");
            let authority = forward.host.clone().unwrap_or_else(|| address.clone());
            let mut request = Request::builder()
                .method(state.method.as_str())
                .uri(&forward.uri)
                .body(Full::new(forward.body.clone()))
                .map_err(|_| Early::error(StatusCode::BAD_REQUEST, "Bad request", id))?;
            *request.headers_mut() = headers.clone();
            if let Ok(value) = HeaderValue::from_str(&authority) {
                request.headers_mut().insert("host", value);
            }
            match exchange(&address, request).await {
                Ok(response) => {
                    let (mut parts, body) = response.into_parts();
                    without_hop_by_hop(&mut parts.headers);
                    return Ok(Response::from_parts(parts, body.boxed()));
                }
                Err(error @ ProxyError::Connect(_)) => {
                    self.log.write(Severity::Error, format!("{address}: {error}"))
                }
                Err(error) => {
                    self.log.write(Severity::Error, format!("{address}: {error}"));
                    break;
                }
            }
        }
        Err(Early::error(
            StatusCode::BAD_GATEWAY,
            "An invalid response was received from the upstream server",
            id,
        ))
    }
}

struct Forward {
    host: Option<String>,
    uri: String,
    body: Bytes,
    retries: usize,
}

/// Runs something in the worker, which does one thing at a time.
async fn on<T: Send + 'static>(
    worker: &Arc<Mutex<Worker>>,
    work: impl FnOnce(&mut Worker) -> T + Send + 'static,
) -> Option<T> {
    let worker = worker.clone();
    let run = move || work(&mut worker.lock().unwrap_or_else(PoisonError::into_inner));
    tokio::task::spawn_blocking(run).await.ok()
}

impl Early {
    fn error(status: StatusCode, message: &str, id: &str) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/json; charset=utf-8"));
        let body = serde_json::json!({ "message": message, "request_id": id }).to_string();
        Self(status, headers, body.into_bytes())
    }
}

impl From<LocalReply> for Early {
    fn from(reply: LocalReply) -> Self {
        let mut headers = HeaderMap::new();
        for (name, value) in reply.headers {
            let name = http::HeaderName::from_bytes(name.as_bytes());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(&value)) {
                // Of duplicate names the last counts.
                headers.insert(name, value);
            }
        }
        let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self(status, headers, reply.body)
    }
}

fn early(early: Early) -> Response<Body> {
    let Early(status, headers, body) = early;
    let body = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_written_as_kong_writes_it() {
        let value = serde_json::json!({"a": [], "b": ["http://x"], "c": {}, "d": 1.5});
        assert_eq!(cjson(&value), r#"{"a":{},"b":["http:\/\/x"],"c":{},"d":1.5}"#);
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(
            (bytes_of("2m"), bytes_of("128k"), bytes_of("7"), bytes_of("x")),
            (Some(2 << 20), Some(128 << 10), Some(7), None)
        );
    }
}
