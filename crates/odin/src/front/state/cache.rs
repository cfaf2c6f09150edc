//! Results that may be answered again without asking a worker, as `ttlMs` and `cacheScope` say
//! (revision 2026-07-28, caching).
//!
//! A `public` result is kept for its organisation, a `private` one for its principal: neither ever crosses
//! from one organisation to another.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use identity::Principal;
use lru::LruCache;
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use sha2::{Digest, Sha256};

use crate::broadcast::changes;
use crate::call::Message;
use crate::protocol::{Request, Revision, jsonrpc};
use crate::store::Store;

/// Results that are kept, of all organisations together.
const RESULTS: usize = 1024;
/// Bytes of a result that is kept.
const RESULT_BYTES: usize = 128 * 1024;
/// The longest time that a result is kept, whatever its server says.
const LONGEST: Duration = Duration::from_secs(3600);
/// Members of `_meta` that are another request's own, and do not change a result.
const OWN_META: [&str; 4] = ["progressToken", "traceparent", "tracestate", "baggage"];
/// Methods whose results say how long they may be kept.
const CACHEABLE: [&str; 6] = [
    "server/discover",
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "resources/read",
];

type Name = [u8; 32];

/// How long to wait after the store did not answer.
const PAUSE: Duration = Duration::from_millis(500);

/// Forgets what has changed, as long as the node lives.
pub(crate) async fn forget_changed(store: Arc<dyn Store>, server: String, cache: Arc<Cache>) {
    let topics = [changes(&server)];
    loop {
        match store.follow(&topics).await {
            Ok(mut changes) => {
                while let Some((_, prefix)) = changes.recv().await {
                    cache.forget(&prefix);
                }
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
        // Something may have been missed.
        cache.forget("");
    }
}

/// The results that this node keeps.
pub(crate) struct Cache {
    results: Mutex<LruCache<Name, Kept>>,
}

struct Kept {
    method: String,
    out: Message,
    until: Instant,
}

/// The names that a request's result has: for its organisation, and for its principal alone.
pub(crate) struct Names {
    public: Name,
    private: Name,
}

impl Default for Cache {
    fn default() -> Self {
        let most = NonZeroUsize::new(RESULTS).unwrap_or(NonZeroUsize::MIN);
        Self { results: Mutex::new(LruCache::new(most)) }
    }
}

impl Cache {
    /// The names of a request whose result may be kept at all.
    pub(crate) fn names(
        server: &str,
        principal: &Principal,
        revision: Revision,
        request: &Request<'_>,
    ) -> Option<Names> {
        if !revision.is_stateless() || !CACHEABLE.contains(&&*request.method) {
            return None;
        }
        let mut message: serde_json::Value = serde_json::from_str(request.raw.get()).ok()?;
        let mut params = message.get_mut("params").map(serde_json::Value::take).unwrap_or_default();
        if let Some(meta) = params.get_mut("_meta").and_then(serde_json::Value::as_object_mut) {
            OWN_META.iter().for_each(|own| drop(meta.remove(*own)));
        }
        let params = params.to_string();
        let name = |whose: &str| {
            let mut hash = Sha256::new();
            let organisation = [&principal.issuer, &principal.organisation];
            let parts = [
                server,
                organisation[0],
                organisation[1],
                whose,
                revision.as_str(),
                &request.method,
                &params,
            ];
            for part in parts {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
            hash.finalize().into()
        };
        Some(Names { public: name(""), private: name(&principal.key()) })
    }

    /// The kept answer, under the request's id and with what is left of its time.
    pub(crate) fn get(&self, names: &Names, request: &Request<'_>) -> Option<Message> {
        let now = Instant::now();
        let (out, left) = {
            let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = [&names.private, &names.public].into_iter().find_map(|name| {
                let kept = results.get(name)?;
                (now < kept.until).then(|| (kept.out.clone(), kept.until - now))
            });
            kept?
        };
        let out = with_ttl(&out, left)?;
        Some(jsonrpc::with_id(&out, request.id.as_json()).into())
    }

    /// Keeps an answer, if it says that it may be kept.
    pub(crate) fn put(&self, names: &Names, method: &str, out: &Message) {
        let Some((public, ttl)) = caching(out).filter(|(_, ttl)| !ttl.is_zero()) else { return };
        let kept =
            Kept { method: method.to_owned(), out: out.clone(), until: Instant::now() + ttl.min(LONGEST) };
        let name = if public { names.public } else { names.private };
        self.results.lock().unwrap_or_else(PoisonError::into_inner).put(name, kept);
    }

    /// Forgets the results of methods that begin with `prefix`: what they list has changed.
    pub(crate) fn forget(&self, prefix: &str) {
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        let stale: Vec<Name> = results
            .iter()
            .filter(|(_, kept)| kept.method.starts_with(prefix))
            .map(|(name, _)| *name)
            .collect();
        for name in stale {
            results.pop(&name);
        }
    }
}

/// Whether a result is public, and how long it may be kept.
fn caching(out: &str) -> Option<(bool, Duration)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Caching<'a> {
        ttl_ms: Option<f64>,
        #[serde(borrow)]
        cache_scope: Option<std::borrow::Cow<'a, str>>,
    }
    if out.len() > RESULT_BYTES {
        return None;
    }
    let caching: Caching<'_> = jsonrpc::result_of(out)?;
    let ttl = Duration::try_from_secs_f64(caching.ttl_ms? / 1000.0).ok()?;
    Some((caching.cache_scope.as_deref() == Some("public"), ttl))
}

/// The answer with another `ttlMs`.
fn with_ttl(out: &str, left: Duration) -> Option<String> {
    let mut result: BTreeMap<&str, &RawValue> = jsonrpc::result_of(out)?;
    let left = to_raw_value(&u64::try_from(left.as_millis()).ok()?).ok()?;
    result.insert("ttlMs", &left);
    Some(jsonrpc::result("null", serde_json::to_string(&result).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Message as Read;
    use crate::protocol::{Body, Limits, read_body};

    fn principal(subject: &str, organisation: &str) -> Principal {
        Principal::new("i", subject, organisation)
    }

    fn with<T>(message: &str, test: impl FnOnce(&Request<'_>) -> T) -> T {
        let Ok(Body::One(Read::Request(request))) = read_body(message.as_bytes(), &Limits::default()) else {
            panic!("not a request: {message}");
        };
        test(&request)
    }

    fn names(principal: &Principal, request: &Request<'_>) -> Option<Names> {
        Cache::names("default", principal, Revision::V2026_07_28, request)
    }

    const LIST: &str =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"progressToken":1}}}"#;

    #[test]
    fn a_private_result_is_for_its_principal_and_a_public_one_for_its_organisation() {
        for (scope, for_others) in [("private", false), ("public", true)] {
            let cache = Cache::default();
            let out = format!(
                r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":[],"ttlMs":60000,"cacheScope":"{scope}"}}}}"#
            );
            with(LIST, |request| {
                cache.put(&names(&principal("a", "o"), request).unwrap(), "tools/list", &out.as_str().into());
            });
            let again = LIST.replace(r#""id":1"#, r#""id":"again""#).replace("1}}", "2}}");
            with(&again, |request| {
                let hit = |subject: &str, organisation: &str| {
                    cache.get(&names(&principal(subject, organisation), request).unwrap(), request)
                };
                let own = hit("a", "o").unwrap();
                assert!(own.starts_with(r#"{"jsonrpc":"2.0","id":"again","result":{"#), "{own}");
                let (public, left) = caching(&own).unwrap();
                assert!(public == for_others && left <= Duration::from_secs(60));
                assert_eq!(hit("b", "o").is_some(), for_others, "{scope}");
                assert!(hit("a", "p").is_none() && hit("b", "p").is_none(), "{scope}");
            });
            cache.forget("prompts/");
            with(LIST, |request| {
                assert!(cache.get(&names(&principal("a", "o"), request).unwrap(), request).is_some());
                cache.forget("tools/");
                assert!(cache.get(&names(&principal("a", "o"), request).unwrap(), request).is_none());
            });
        }
    }

    #[test]
    fn other_parameters_are_another_result_and_errors_are_none() {
        let cache = Cache::default();
        let me = principal("a", "o");
        let out = r#"{"jsonrpc":"2.0","id":1,"result":{"ttlMs":60000,"cacheScope":"public"}}"#;
        with(LIST, |request| cache.put(&names(&me, request).unwrap(), "tools/list", &out.into()));
        let page = LIST.replace(r#""params":{"#, r#""params":{"cursor":"x","#);
        with(&page, |request| assert!(cache.get(&names(&me, request).unwrap(), request).is_none()));
        for out in [
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"ttlMs"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{"ttlMs":0,"cacheScope":"public"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{"ttlMs":-5,"cacheScope":"public"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        ] {
            with(&page, |request| {
                cache.put(&names(&me, request).unwrap(), "tools/list", &out.into());
                assert!(cache.get(&names(&me, request).unwrap(), request).is_none(), "{out}");
            });
        }
        let call = LIST.replace("tools/list", "tools/call");
        with(&call, |request| assert!(names(&me, request).is_none()));
    }
}
