//! What the host knows while a module runs.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock};

use super::shared::SharedData;
use crate::headers::Headers;
use crate::log::Log;

pub use crate::log::Severity;

/// A request as a filter sees and changes it.
#[derive(Clone, Debug, Default)]
pub struct RequestState {
    /// The id that Kong gave it.
    pub id: String,
    /// Method.
    pub method: String,
    /// Path and query as the client wrote them.
    pub target: String,
    /// The path as Kong's router sees it.
    pub path: String,
    /// `Host`.
    pub authority: String,
    /// The header lines.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
    /// The client's address, and its port.
    pub source: (String, u16),
    /// Names of Service and route.
    pub names: (String, String),
    /// The variable `upstream_scheme` of nginx.
    pub scheme: String,
    /// The port that `kong.service.target` has set. The address of the first try was found before the filter ran,
    /// and stays.
    pub port: Option<u16>,
    /// `kong.ctx.shared.…`
    pub shared: BTreeMap<String, Vec<u8>>,
}

/// An answer that a filter gives itself.
#[derive(Clone, Debug, Default)]
pub struct LocalReply {
    /// Status.
    pub status: u16,
    /// Headers; of duplicate names the last counts.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Body.
    pub body: Vec<u8>,
}

/// A request that a filter makes (`dispatch_http_call`).
#[derive(Clone, Debug)]
pub struct Callout {
    /// Its id.
    pub token: u32,
    /// `host:port`.
    pub upstream: String,
    /// With `:method`, `:path`, `:authority`.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Body.
    pub body: Vec<u8>,
    /// Milliseconds.
    pub timeout: u32,
}

/// The answer to a [`Callout`]. A failure has no headers but `:dispatch_status`.
#[derive(Clone, Debug, Default)]
pub struct CalloutReply {
    /// Headers, with `:status`.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Body.
    pub body: Vec<u8>,
}

/// Why the memory of the worker processes is no longer what it was. Kong crashes some seconds after that; here
/// no filter runs any more, and the test fails ([`crate::Gateway`]).
#[derive(Clone, Debug, Default)]
pub struct Poison(Arc<OnceLock<String>>);

impl Poison {
    /// What did it, if it was done.
    pub fn get(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

/// Where in its life a module is: some calls are allowed only there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Start,
    RequestHeaders,
    RequestBody,
    CalloutReply,
    Tick,
    Done,
}

/// One request in one filter.
#[derive(Debug, Default)]
pub(super) struct HttpContext {
    pub request: RequestState,
    pub reply: Option<LocalReply>,
    pub resumed: bool,
    /// Made since the filter was called last.
    pub callouts: Vec<Callout>,
    /// How many are under way.
    pub waiting: usize,
}

/// The data of a store.
pub(super) struct State {
    pub log: Log,
    pub shared: Arc<Mutex<SharedData>>,
    pub poison: Poison,
    pub phase: Phase,
    /// The context that host calls are about.
    pub context: u32,
    pub configurations: HashMap<u32, Vec<u8>>,
    pub requests: HashMap<u32, HttpContext>,
    pub callout_reply: CalloutReply,
    pub next_token: u32,
    /// By root context.
    pub ticks: HashMap<u32, u32>,
    pub metrics: Vec<i64>,
}

impl State {
    pub(super) fn request(&self) -> Option<&HttpContext> {
        self.requests.get(&self.context)
    }

    pub(super) fn request_mut(&mut self) -> Option<&mut HttpContext> {
        self.requests.get_mut(&self.context)
    }

    /// A module reads or sets a property. Those named `kong.*` are Lua functions, which Kong calls on whatever coroutine
    /// was there last: the request's own in request headers, and elsewhere any sleeping one.
    pub(super) fn touch(&self, path: &str) {
        if path.starts_with("kong.") && self.phase != Phase::RequestHeaders {
            let why = format!("the property {path} was touched outside request headers: {:?}", self.phase);
            let _ = self.poison.0.set(why);
        }
    }
}

/// A property that a filter reads. `path` has dots between its parts.
pub(super) fn property(state: &State, path: &str) -> Option<Vec<u8>> {
    let request = &state.request()?.request;
    let query = request.target.split_once('?').map(|(_, q)| q);
    let text = match path {
        "request.path" | "ngx.request_uri" => &request.target,
        "request.url_path" | "ngx.uri" => &request.path,
        "ngx.kong_request_id" => &request.id,
        // What the client says.
        "request.id" => return request.headers.get("x-request-id").map(<[u8]>::to_vec),
        "request.method" | "kong.request.method" => &request.method,
        "request.query" => query?,
        // Neither honours X-Forwarded-Proto nor Host.
        "request.scheme" | "kong.client.protocol" => "http",
        "request.host" => "kong",
        "kong.request.forwarded_scheme" => "http",
        "kong.request.forwarded_host" => request.authority.split(':').next()?,
        "source.address" => &request.source.0,
        "source.port" => return Some(request.source.1.to_string().into_bytes()),
        "kong.service_name" => &request.names.0,
        "kong.route_name" => &request.names.1,
        "kong.version" => "3.9.3",
        "ngx.upstream_scheme" => &request.scheme,
        other => return request.shared.get(other.strip_prefix("kong.ctx.shared.")?).cloned(),
    };
    Some(text.as_bytes().to_vec())
}

/// A property that a filter sets. Tells whether there is such a property.
///
/// # Errors
/// Kong traps.
pub(super) fn set_property(state: &mut State, path: &str, value: &[u8]) -> Result<bool, String> {
    let text = String::from_utf8_lossy(value).into_owned();
    let Some(context) = state.request_mut() else { return Err("outside of a request".into()) };
    let request = &mut context.request;
    match path {
        "kong.service.request.scheme" if text == "http" || text == "https" => request.scheme = text,
        "kong.service.request.scheme" => return Err(format!("invalid scheme: {text}")),
        "ngx.upstream_scheme" => request.scheme = text,
        "kong.service.target" => {
            let port = text.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
            // The host counts for a second try alone, which has the same address here.
            request.port = Some(port.ok_or("unknown error")?);
        }
        // Too late: the balancer has chosen.
        "kong.service.upstream" => {}
        other => match other.strip_prefix("kong.ctx.shared.") {
            Some(name) => drop(request.shared.insert(name.to_owned(), value.to_vec())),
            None => return Ok(false),
        },
    }
    Ok(true)
}
