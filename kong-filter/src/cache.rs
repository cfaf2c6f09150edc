//! Verified tokens, so that their signature is computed once.
//!
//! What a token says is kept, never what was decided about it: times, audience, organisation and
//! policy are judged anew ([`crate::recent`] says when that has just been done). There is one cache for
//! each configuration, in each worker; nothing is shared, so that a token accepted under one configuration
//! means nothing to another.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::rc::Rc;
use std::sync::OnceLock;

use identity::{Claims, EntryPoint};
use lru::LruCache;
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::jwks::Fingerprint;

/// Most assertions that are kept for a token, one for each request line.
const MAX_ASSERTIONS: usize = 4;

/// A place in a cache.
pub type Digest = u128;

/// The place of a token: of all its bytes, the signature included, by SipHash-1-3 of 128 bits with a random key. It finds
/// a place, and decides nothing: the token that is kept there is compared. Of tokens that are not active only the digest is
/// kept: one that shared it would be refused. (A plain SHA-256 takes several times as long.)
pub fn digest(token: &str) -> Digest {
    static KEY: OnceLock<(u64, u64)> = OnceLock::new();
    let (first, second) = *KEY.get_or_init(|| {
        let random = RandomState::new();
        (random.hash_one(0), random.hash_one(1))
    });
    let mut hasher = SipHasher13::new_with_keys(first, second);
    hasher.write(token.as_bytes());
    hasher.finish128().as_u128()
}

/// A verified token.
pub struct Verified {
    /// The token.
    pub token: Box<str>,
    /// Which of the configured issuers verified it.
    pub issuer: usize,
    /// The key that did; `None` when the issuer was only asked.
    pub key: Option<Fingerprint>,
    /// What it says itself, when the issuer is asked about it, too.
    pub own: Option<Rc<Claims>>,
    /// What it gives.
    pub claims: Rc<Claims>,
    /// The `X-Userinfo` made of it.
    pub userinfo: Rc<str>,
    /// The first second in which the issuer must be asked (again), in seconds since 1970.
    pub ask_at: u64,
    assertions: Vec<Made>,
}

/// What an assertion is bound to beside the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLine<'a> {
    /// The entry point.
    pub entry_point: EntryPoint,
    /// HTTP method.
    pub method: &'a str,
    /// Path without the query.
    pub path: &'a str,
    /// `Mcp-Method`.
    pub mcp_method: Option<&'a str>,
    /// `Mcp-Name`.
    pub mcp_name: Option<&'a str>,
}

/// An assertion that was made, and what it is bound to.
struct Made {
    entry_point: EntryPoint,
    method: String,
    path: String,
    mcp_method: Option<String>,
    mcp_name: Option<String>,
    assertion: Rc<str>,
    expires: u64,
}

impl Made {
    fn line(&self) -> RequestLine<'_> {
        RequestLine {
            entry_point: self.entry_point,
            method: &self.method,
            path: &self.path,
            mcp_method: self.mcp_method.as_deref(),
            mcp_name: self.mcp_name.as_deref(),
        }
    }
}

impl Verified {
    /// A token that was just verified.
    pub fn new(
        token: Box<str>,
        issuer: usize,
        key: Option<Fingerprint>,
        claims: Rc<Claims>,
        userinfo: Rc<str>,
        ask_at: u64,
    ) -> Self {
        Self { token, issuer, key, own: None, claims, userinfo, ask_at, assertions: Vec::new() }
    }

    /// The assertion that was made for the same request line, and when it expires, if it is good until
    /// `until` at least.
    pub fn assertion(&self, line: &RequestLine<'_>, until: u64) -> Option<(Rc<str>, u64)> {
        let found = self.assertions.iter().find(|made| made.expires >= until && made.line() == *line);
        found.map(|made| (made.assertion.clone(), made.expires))
    }

    /// About how many bytes it takes.
    pub fn weight(&self) -> usize {
        // Claims take about as much again as the token; an assertion carries them once more, in base64.
        let room = MAX_ASSERTIONS.saturating_add(3);
        self.token.len().saturating_mul(room).saturating_add(self.userinfo.len()).saturating_add(512)
    }

    /// Keeps an assertion for the next request with the same line.
    pub fn keep(&mut self, line: &RequestLine<'_>, assertion: Rc<str>, expires: u64) {
        self.assertions.retain(|made| made.line() != *line);
        if self.assertions.len() >= MAX_ASSERTIONS {
            self.assertions.remove(0);
        }
        self.assertions.push(Made {
            entry_point: line.entry_point,
            method: line.method.to_owned(),
            path: line.path.to_owned(),
            mcp_method: line.mcp_method.map(str::to_owned),
            mcp_name: line.mcp_name.map(str::to_owned),
            assertion,
            expires,
        });
    }
}

/// Values of bounded size in all: the least recently used go when one of the two bounds is reached.
pub struct Cache<V> {
    kept: LruCache<Digest, (V, usize)>,
    entries: usize,
    bytes: usize,
    used: usize,
}

impl<V> Cache<V> {
    /// An empty cache for at most so many values, and about so many bytes.
    pub fn new(entries: usize, bytes: usize) -> Self {
        Self { kept: LruCache::unbounded(), entries, bytes, used: 0 }
    }

    /// A value, which is now the most recently used.
    pub fn get(&mut self, digest: &Digest) -> Option<&mut V> {
        self.kept.get_mut(digest).map(|(value, _)| value)
    }

    /// Adds a value that takes about `weight` bytes.
    pub fn put(&mut self, digest: Digest, value: V, weight: usize) {
        if self.entries == 0 || weight > self.bytes {
            return;
        }
        self.remove(&digest);
        while self.kept.len() >= self.entries || self.used.saturating_add(weight) > self.bytes {
            match self.kept.pop_lru() {
                Some((_, (_, freed))) => self.used = self.used.saturating_sub(freed),
                None => break,
            }
        }
        self.used = self.used.saturating_add(weight);
        self.kept.put(digest, (value, weight));
    }

    /// Forgets a value.
    pub fn remove(&mut self, digest: &Digest) {
        if let Some((_, freed)) = self.kept.pop(digest) {
            self.used = self.used.saturating_sub(freed);
        }
    }

    /// How many values are kept.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use identity::ClaimNames;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn verified(subject: &str) -> Verified {
        let claims = serde_json::json!({"iss": "i", "sub": subject, "exp": 1});
        let claims = Claims::from_object(claims.as_object().unwrap(), &ClaimNames::default()).unwrap();
        Verified::new("x".repeat(1000).into(), 0, None, Rc::new(claims), "".into(), u64::MAX)
    }

    fn line(path: &str) -> RequestLine<'_> {
        RequestLine {
            entry_point: EntryPoint::Bifrost,
            method: "POST",
            path,
            mcp_method: None,
            mcp_name: None,
        }
    }

    #[test]
    fn the_least_recently_used_goes() {
        let mut cache = Cache::new(2, 1 << 20);
        for (digest, subject) in [(1, "a"), (2, "b")] {
            cache.put(digest, verified(subject), 1);
        }
        assert!(cache.get(&1).is_some());
        cache.put(3, verified("c"), 1);
        assert_eq!(cache.get(&1).unwrap().claims.subject, "a");
        assert!(cache.get(&2).is_none());
    }

    #[test]
    fn memory_stays_bounded() {
        let mut cache = Cache::new(1000, 100_000);
        for number in 0..10_000 {
            let token = verified("x");
            let weight = token.weight();
            cache.put(number, token, weight);
            assert!(cache.used <= 100_000 && cache.len() <= 1000);
        }
        assert!(!cache.is_empty());
        cache.put(10_000, verified("x"), 100_001);
        assert!(cache.get(&10_000).is_none());
        let mut none = Cache::new(0, 100_000);
        none.put(1, verified("a"), 1);
        assert!(none.is_empty());
    }

    #[test]
    fn assertions_are_kept_for_their_line_and_life() {
        let mut token = verified("x");
        token.keep(&line("/a"), "one".into(), 10);
        assert_eq!(token.assertion(&line("/a"), 10), Some(("one".into(), 10)));
        assert_eq!(token.assertion(&line("/a"), 11), None);
        assert_eq!(token.assertion(&line("/b"), 5), None);
        token.keep(&line("/a"), "two".into(), 20);
        assert_eq!(token.assertion(&line("/a"), 5), Some(("two".into(), 20)));
        for path in ["/b", "/c", "/d", "/e"] {
            token.keep(&line(path), "x".into(), 20);
        }
        assert_eq!(token.assertion(&line("/a"), 5), None);
    }
}
