//! The request-headers phase, and which of the gateway's properties may be touched where.
//!
//! In Kong a property `kong.*` is a Lua function, which ngx_wasm_module calls on whatever coroutine used its FFI last.
//! In the request-headers phase that is the request's own. From the answer to a callout it is any sleeping one, whose
//! memory is overwritten: the worker crashes seconds later. So there is [`RequestHeaders`], which that phase alone has,
//! and for everywhere else [`Property`], which has no such name. Nothing else may call the SDK's functions for
//! properties (`clippy.toml` beside this crate).

use proxy_wasm::hostcalls;
use proxy_wasm::traits::HttpContext;
use proxy_wasm::types::Action;

use super::Http;

/// The request-headers phase. Nobody else can make one:
///
/// ```compile_fail,E0423
/// let phase = kong_filter::host::RequestHeaders(());
/// ```
///
/// and since a request's context lives longer, none can keep it.
pub struct RequestHeaders(());

impl HttpContext for Http {
    fn on_http_request_headers(&mut self, _count: usize, _end: bool) -> Action {
        self.request_headers(&RequestHeaders(()))
    }
}

impl RequestHeaders {
    /// Any property of the request as text, those of Kong's own (`kong.*`) too.
    #[inline(always)]
    pub fn property(&self, path: &[&str]) -> Option<String> {
        read(path)
    }
}

/// A property that may be touched in every phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Property {
    /// nginx's variable: the scheme that Kong proxies with. (Kong's `kong.service.request.scheme` sets it, and does
    /// nothing else.)
    UpstreamScheme,
    /// nginx's variable: the id that Kong gave the request. Not the client's `X-Request-Id`.
    KongRequestId,
    /// The id that Envoy gave the request: `x-request-id`, which Envoy sets anew when it comes from outside.
    EnvoyRequestId,
}

impl Property {
    const ALL: [Self; 3] = [Self::UpstreamScheme, Self::KongRequestId, Self::EnvoyRequestId];

    const fn path(self) -> &'static [&'static str] {
        match self {
            Self::UpstreamScheme => &["ngx", "upstream_scheme"],
            Self::KongRequestId => &["ngx", "kong_request_id"],
            Self::EnvoyRequestId => &["request", "id"],
        }
    }

    /// Sets it; whether the gateway took it.
    #[inline(always)]
    #[allow(clippy::disallowed_methods, reason = "no property of Kong's own has a variant")]
    pub(super) fn set(self, value: &str) -> bool {
        hostcalls::set_property(self.path().to_vec(), Some(value.as_bytes())).is_ok()
    }

    /// Its value, as text.
    pub(super) fn read(self) -> Option<String> {
        read(self.path())
    }
}

// A variant for one of Kong's own properties does not compile.
const _: () = {
    let mut rest = Property::ALL.as_slice();
    while let [first, others @ ..] = rest {
        assert!(!matches!(first.path(), [root, ..] if matches!(root.as_bytes(), b"kong")));
        rest = others;
    }
};

#[allow(clippy::disallowed_methods, reason = "the callers' types say what may be read where")]
fn read(path: &[&str]) -> Option<String> {
    let value = hostcalls::get_property(path.to_vec()).ok().flatten()?;
    String::from_utf8(value).ok()
}

/// The gateway's own id of a request, which its log has: never what a client sent. This alone knows where each gateway
/// keeps it. `in_kong`: what the configuration says of the gateway.
pub(super) fn request_id(in_kong: bool) -> Option<String> {
    let harmless = |id: &String| {
        (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    // A wrong configuration says nothing of the gateway; Envoy knows no such property.
    let kongs = Property::KongRequestId.read().filter(harmless);
    if in_kong || kongs.is_some() {
        return kongs;
    }
    Property::EnvoyRequestId.read().filter(harmless)
}
