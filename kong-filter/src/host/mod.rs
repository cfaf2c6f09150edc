//! The only file that talks to the gateway, by the proxy-wasm ABI 0.2.1 (Kong, Envoy).
//!
//! Nothing here decides. Host calls whose answer the SDK would unwrap are made through its lower layer,
//! and what can't be read is taken as absent: a trap in here would take a gateway's worker down, or let
//! requests pass unseen.

mod phase;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, BufferType, ContextType, LogLevel, MapType};

use crate::filter::{Call, Forward, Service, Step};
use crate::jwks;
use crate::recent::RawRequest;
use crate::reply::Reply;
use crate::request::Request;
use crate::shared::SharedData;
use crate::tokens::{Awaited, Progress};

use self::phase::{Property, request_id};

pub use self::phase::RequestHeaders;

type Shared = Rc<RefCell<Service>>;

/// One configuration of the filter in one worker, with its caches.
pub struct Root {
    service: Shared,
}

impl Root {
    /// Without a configuration: it refuses everything until there is one.
    pub fn new() -> Self {
        Self { service: shared(Service::Refusing("configuration: there is none".into())) }
    }
}

impl Default for Root {
    fn default() -> Self {
        Self::new()
    }
}

fn shared(service: Service) -> Shared {
    Rc::new(RefCell::new(service))
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        let configuration = hostcalls::get_buffer(BufferType::PluginConfiguration, 0, usize::MAX);
        let configuration = configuration.ok().flatten().unwrap_or_default();
        let service = Service::sharing(&configuration, Some(Rc::new(Zone)));
        if let Service::Refusing(why) = &service {
            log(LogLevel::Critical, &format!("reason=misconfigured, every request is refused: {why}"));
        }
        // Requests under way keep the old one.
        self.service = shared(service);
        // Never false: Kong then passes requests on without any filter.
        true
    }

    fn create_http_context(&self, _id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Http { service: self.service.clone(), paused: None }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// The gateway's shared data.
struct Zone;

impl SharedData for Zone {
    fn get(&self, key: &str) -> (Option<Vec<u8>>, Option<u32>) {
        hostcalls::get_shared_data(key).unwrap_or_default()
    }

    fn set(&self, key: &str, value: &[u8], version: Option<u32>) {
        // When another worker was quicker, its keys are as good.
        let _ = hostcalls::set_shared_data(key, Some(value), version);
    }
}

/// One request.
struct Http {
    service: Shared,
    /// The request that waits for an issuer. Boxed, since hardly any does.
    paused: Option<Box<Paused>>,
}

struct Paused {
    request: Request,
    raw_request: RawRequest,
    awaited: Awaited,
    progress: Progress,
}

impl Context for Http {
    fn on_http_call_response(&mut self, _token: u32, _headers: usize, body_size: usize, _trailers: usize) {
        let Some(paused) = self.paused.take() else {
            return;
        };
        let Paused { request, raw_request, awaited, mut progress } = *paused;
        let status =
            hostcalls::get_map_value_bytes(MapType::HttpCallResponseHeaders, ":status").ok().flatten();
        let status = status.and_then(|status| std::str::from_utf8(&status).ok()?.parse().ok());
        // One byte more than is read tells "too large" apart.
        let body = match body_size.min(jwks::MAX_BODY.saturating_add(1)) {
            0 => None,
            size => hostcalls::get_buffer(BufferType::HttpCallResponseBody, 0, size).ok().flatten(),
        };
        self.answered(awaited, status, &body.unwrap_or_default(), &mut progress);
        if self.judge(request, raw_request, progress) == Action::Continue {
            let _ = hostcalls::resume_http_request();
        }
    }
}

impl Http {
    #[inline(always)]
    fn request_headers(&mut self, phase: &RequestHeaders) -> Action {
        // Kong's `:path` is normalised already; what the backend gets is the raw one.
        let in_kong = self.service.try_borrow().is_ok_and(|service| service.in_kong());
        let target = if in_kong { phase.property(&["request", "path"]) } else { None };
        let raw_request = RawRequest::new(hostcall::request_headers(), target);
        let passed = self
            .service
            .try_borrow_mut()
            .is_ok_and(|mut service| service.recent(&raw_request, now()).is_some_and(pass));
        if passed {
            return Action::Continue;
        }
        self.judge(Request::read(&raw_request, request_id(in_kong)), raw_request, Progress::default())
    }

    fn judge(&mut self, request: Request, raw_request: RawRequest, mut progress: Progress) -> Action {
        // Each call is made once for a request, and there are two.
        for _ in 0..3 {
            let step = match self.service.try_borrow_mut() {
                Ok(mut service) => service.decide(&request, &raw_request, now(), &mut progress),
                Err(_) => Step::Reply(unable("busy")),
            };
            match step {
                Step::Reply(reply) => return answer(&request, &reply),
                Step::Forward(forward) => return forwarded(&request, &forward),
                Step::Call(call) if dispatch(&call) => {
                    let awaited = call.awaited;
                    self.paused = Some(Box::new(Paused { request, raw_request, awaited, progress }));
                    return Action::Pause;
                }
                // No such upstream: as good as no answer.
                Step::Call(call) => self.answered(call.awaited, None, &[], &mut progress),
            }
        }
        answer(&request, &unable("no_decision"))
    }

    fn answered(&self, awaited: Awaited, status: Option<u16>, body: &[u8], progress: &mut Progress) {
        if let Ok(mut service) = self.service.try_borrow_mut()
            && let Err(error) = service.answered(awaited, status, body, now(), progress)
        {
            log(LogLevel::Error, &error);
        }
    }
}

fn dispatch(call: &Call) -> bool {
    let headers = call.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let timeout = Duration::from_millis(call.timeout_ms);
    let body = call.body.as_deref().map(str::as_bytes);
    hostcalls::dispatch_http_call(&call.upstream, headers, body, Vec::new(), timeout).is_ok()
}

/// 503: the gateway did not do what it should.
fn unable(reason: &str) -> Reply {
    let mut reply = Reply::empty(503);
    reply.log = Some(format!("status=503 error=unavailable reason={reason}"));
    reply
}

fn answer(request: &Request, reply: &Reply) -> Action {
    if let Some(refused) = &reply.log {
        let level = if reply.status >= 500 { LogLevel::Error } else { LogLevel::Warn };
        log(level, &format!("refused {refused} request={}", id(request)));
    }
    let headers = reply.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let body = (!reply.body.is_empty()).then_some(reply.body.as_bytes());
    let _ = hostcalls::send_http_response(u32::from(reply.status), headers, body);
    Action::Pause
}

fn forwarded(request: &Request, forward: &Forward) -> Action {
    if !pass(forward) {
        return answer(request, &unable("gateway_failed"));
    }
    if let Some(refused) = &forward.would_refuse {
        log(LogLevel::Warn, &format!("dry-run would-refuse {refused} request={}", id(request)));
    }
    Action::Continue
}

/// Changes the request as it goes on; whether the gateway did all of it.
#[inline(always)]
fn pass(forward: &Forward) -> bool {
    let set = |name: &str, value: &str| {
        hostcalls::set_map_value_bytes(MapType::HttpRequestHeaders, name, Some(value.as_bytes())).is_ok()
    };
    // No request with a header of that name, in any spelling, comes here (`Request::forged_identity`): so nothing has to be
    // looked for, which would make Envoy build an index of all headers.
    let add = |name: &str, value: &str| {
        hostcalls::add_map_value_bytes(MapType::HttpRequestHeaders, name, value.as_bytes()).is_ok()
    };
    // Kong can't remove a header, it can empty one.
    let mut done = set("authorization", "");
    if let Some(userinfo) = &forward.userinfo {
        done &= add("x-userinfo", userinfo);
    }
    done &= add(identity::assertion::HEADER, &forward.identity);
    if let (Some(target), None) = (&forward.target, forward.scheme) {
        // In Kong the route's own plugin does it.
        done &= set(":path", target);
    }
    if let Some(scheme) = forward.scheme {
        // Kong's balancer ran before the filter: `kong.service.target` would change the port alone.
        done &= Property::UpstreamScheme.set(scheme);
    }
    done
}

/// The gateway's id of a request, for a line of the log.
fn id(request: &Request) -> &str {
    request.id.as_deref().unwrap_or("-")
}

#[inline(always)]
fn now() -> u64 {
    let time = hostcalls::get_current_time().unwrap_or(UNIX_EPOCH);
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn log(level: LogLevel, message: &str) {
    let _ = hostcalls::log(level, &format!("asgard: {message}"));
}
