//! Verified tokens, so that their signature is computed once.
//!
//! What a token says is kept, never what was decided about it: times, audience, organisation and
//! policy are judged anew on each request. There is one cache for each configuration, in each worker;
//! nothing is shared, so that a token accepted under one configuration means nothing to another.

use std::hash::{BuildHasher as _, RandomState};
use std::rc::Rc;
use std::sync::OnceLock;

use identity::{Claims, Road};
use lru::LruCache;
use siphasher::sip128::SipHasher24;

use crate::jwks::Fingerprint;

/// Most assertions that are kept for a token, one for each request line.
const MAX_ASSERTIONS: usize = 4;

/// A token's place in the cache: a keyed hash of all its bytes, signature included.
pub type Digest = u128;

/// A verified token.
pub struct Verified {
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
    /// The road.
    pub road: Road,
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
    road: Road,
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
            road: self.road,
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
        issuer: usize,
        key: Option<Fingerprint>,
        claims: Rc<Claims>,
        userinfo: Rc<str>,
        ask_at: u64,
    ) -> Self {
        Self { issuer, key, own: None, claims, userinfo, ask_at, assertions: Vec::new() }
    }

    /// The assertion that was made for the same request line, if it is good until `until` at least.
    pub fn assertion(&self, line: &RequestLine<'_>, until: u64) -> Option<Rc<str>> {
        let found = self.assertions.iter().find(|made| made.expires >= until && made.line() == *line);
        found.map(|made| made.assertion.clone())
    }

    /// Keeps an assertion for the next request with the same line.
    pub fn keep(&mut self, line: &RequestLine<'_>, assertion: Rc<str>, expires: u64) {
        self.assertions.retain(|made| made.line() != *line);
        if self.assertions.len() >= MAX_ASSERTIONS {
            self.assertions.remove(0);
        }
        self.assertions.push(Made {
            road: line.road,
            method: line.method.to_owned(),
            path: line.path.to_owned(),
            mcp_method: line.mcp_method.map(str::to_owned),
            mcp_name: line.mcp_name.map(str::to_owned),
            assertion,
            expires,
        });
    }
}

/// The cache: the least recently used token goes when one of the two bounds is reached.
pub struct TokenCache {
    tokens: LruCache<Digest, (Verified, usize)>,
    entries: usize,
    bytes: usize,
    used: usize,
}

/// The digest of a token: SipHash-2-4 of 128 bits with a random key that never leaves this process, so that
/// nobody can look for a token with the digest of another one. (A plain SHA-256 took a third of the filter's
/// time for a known token.)
pub fn digest(token: &str) -> Digest {
    static KEY: OnceLock<(u64, u64)> = OnceLock::new();
    let (first, second) = *KEY.get_or_init(|| {
        let random = RandomState::new();
        (random.hash_one(0), random.hash_one(1))
    });
    SipHasher24::new_with_keys(first, second).hash(token.as_bytes()).as_u128()
}

impl TokenCache {
    /// An empty cache for at most so many tokens, and about so many bytes.
    pub fn new(entries: usize, bytes: usize) -> Self {
        Self { tokens: LruCache::unbounded(), entries, bytes, used: 0 }
    }

    /// A token, which is now the most recently used.
    pub fn get(&mut self, digest: &Digest) -> Option<&mut Verified> {
        self.tokens.get_mut(digest).map(|(verified, _)| verified)
    }

    /// Adds a token of a certain length.
    pub fn put(&mut self, digest: Digest, verified: Verified, token_len: usize) {
        // Claims take about as much again as the token; an assertion carries them once more, in base64.
        let room = MAX_ASSERTIONS.saturating_add(2);
        let weight =
            token_len.saturating_mul(room).saturating_add(verified.userinfo.len()).saturating_add(512);
        if self.entries == 0 || weight > self.bytes {
            return;
        }
        self.remove(&digest);
        while self.tokens.len() >= self.entries || self.used.saturating_add(weight) > self.bytes {
            match self.tokens.pop_lru() {
                Some((_, (_, freed))) => self.used = self.used.saturating_sub(freed),
                None => break,
            }
        }
        self.used = self.used.saturating_add(weight);
        self.tokens.put(digest, (verified, weight));
    }

    /// Forgets a token.
    pub fn remove(&mut self, digest: &Digest) {
        if let Some((_, freed)) = self.tokens.pop(digest) {
            self.used = self.used.saturating_sub(freed);
        }
    }

    /// How many tokens are kept.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use identity::ClaimNames;

    fn verified(subject: &str) -> Verified {
        let claims = serde_json::json!({"iss": "i", "sub": subject, "exp": 1});
        let claims = Claims::from_object(claims.as_object().unwrap(), &ClaimNames::default()).unwrap();
        Verified::new(0, None, Rc::new(claims), "".into(), u64::MAX)
    }

    fn line(path: &str) -> RequestLine<'_> {
        RequestLine { road: Road::Bifrost, method: "POST", path, mcp_method: None, mcp_name: None }
    }

    #[test]
    fn the_least_recently_used_goes() {
        let mut cache = TokenCache::new(2, 1 << 20);
        for token in ["a", "b"] {
            cache.put(digest(token), verified(token), 1);
        }
        assert!(cache.get(&digest("a")).is_some());
        cache.put(digest("c"), verified("c"), 1);
        assert_eq!(cache.get(&digest("a")).unwrap().claims.subject, "a");
        assert!(cache.get(&digest("b")).is_none());
    }

    #[test]
    fn memory_stays_bounded() {
        let mut cache = TokenCache::new(1000, 100_000);
        for number in 0..10_000 {
            cache.put(digest(&number.to_string()), verified("x"), 1000);
            assert!(cache.used <= 100_000 && cache.len() <= 1000);
        }
        assert!(!cache.is_empty());
        cache.put(digest("huge"), verified("x"), 100_000);
        assert!(cache.get(&digest("huge")).is_none());
        let mut none = TokenCache::new(0, 100_000);
        none.put(digest("a"), verified("a"), 1);
        assert!(none.is_empty());
    }

    #[test]
    fn assertions_are_kept_for_their_line_and_life() {
        let mut token = verified("x");
        token.keep(&line("/a"), "one".into(), 10);
        assert_eq!(token.assertion(&line("/a"), 10).as_deref(), Some("one"));
        assert_eq!(token.assertion(&line("/a"), 11), None);
        assert_eq!(token.assertion(&line("/b"), 5), None);
        token.keep(&line("/a"), "two".into(), 20);
        assert_eq!(token.assertion(&line("/a"), 5).as_deref(), Some("two"));
        for path in ["/b", "/c", "/d", "/e"] {
            token.keep(&line(path), "x".into(), 20);
        }
        assert_eq!(token.assertion(&line("/a"), 5), None);
    }
}
