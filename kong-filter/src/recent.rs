//! Requests that were let through a moment ago, so that the next one that is the same needs no thought.
//!
//! Clients call the same tool again and again: with the same token, method, target and MCP headers, only the
//! body differs, which the filter does not read. Such a request is let through as the one before, without a
//! look at its parts, while nothing can have changed: no second has come in which something expires or an
//! issuer must be asked, and no issuer has said anything but "still active" ([`crate::tokens::Tokens::epoch`]).
//! Only what was let through is kept, never a refusal. The same is what is equal byte for byte (`same`): the names of
//! all headers, and the values of all that the filter reads, in their order.
//!
//! What such a request goes through ([`crate::pairs`], this, and the gateway's calls) is inlined into one function
//! and as little as can be: in a gateway, where much else runs in between, cold code costs more than instructions.

use crate::cache::{Cache, Digest};
use crate::config;
use crate::filter::Forward;
use crate::pairs;
use crate::request::is_read;

/// Most requests that are kept: they are of use for seconds only.
const MAX: usize = 1024;

/// A request as the gateway tells of it.
#[derive(Debug, Clone)]
pub struct RawRequest {
    headers: Vec<u8>,
    target: Option<String>,
    place: Digest,
}

impl RawRequest {
    /// With these headers, `:method` and `:path` among them ([`pairs`]); and the raw target where the gateway's
    /// `:path` is not.
    #[inline(always)]
    pub fn new(headers: Vec<u8>, target: Option<String>) -> Self {
        let place = place(&headers);
        Self { headers, target, place }
    }

    /// Its headers ([`pairs`]).
    pub fn headers(&self) -> &[u8] {
        &self.headers
    }

    /// The raw target, where the gateway's `:path` is not.
    pub fn target(&self) -> Option<&str> {
        self.target.as_deref()
    }
}

/// A request that was let through.
struct Passed {
    raw_request: RawRequest,
    forward: Forward,
    /// The seconds in which it may be let through again, since 1970: the first one, and the first one after.
    seconds: std::ops::Range<u64>,
    epoch: u64,
}

/// The requests that were let through under one configuration, in one worker.
pub struct Recent {
    known: Cache<Passed>,
}

impl Recent {
    /// None so far. They take an eighth of the memory that the tokens may take.
    pub fn new(bounds: &config::TokenCache) -> Self {
        Self { known: Cache::new(bounds.entries.min(MAX), bounds.bytes / 8) }
    }

    /// How the same request was let through, if it may be so again at `now`.
    #[inline(always)]
    pub fn get(&mut self, raw_request: &RawRequest, epoch: u64, now: u64) -> Option<&Forward> {
        let passed = self.known.get(&raw_request.place)?;
        let again =
            passed.epoch == epoch && passed.seconds.contains(&now) && same(&passed.raw_request, raw_request);
        again.then_some(&passed.forward)
    }

    /// Keeps how a request was let through at `now`, to be used before the second `until`.
    pub fn keep(&mut self, raw_request: &RawRequest, forward: &Forward, epoch: u64, now: u64, until: u64) {
        let texts = [Some(&forward.identity), forward.userinfo.as_ref()];
        let weight = texts.iter().flatten().map(|text| text.len()).sum::<usize>();
        let targets =
            [&raw_request.target, &forward.target].into_iter().flatten().map(String::len).sum::<usize>();
        let weight =
            weight.saturating_add(targets).saturating_add(raw_request.headers.len()).saturating_add(512);
        let passed =
            Passed { raw_request: raw_request.clone(), forward: forward.clone(), seconds: now..until, epoch };
        self.known.put(raw_request.place, passed, weight);
    }
}

/// The place in the cache for a request: of the ends of those values in which requests differ most (a token's end is
/// its signature's). Requests with the same place push each other out, nothing else.
#[inline(always)]
fn place(headers: &[u8]) -> Digest {
    let mut place = 0_u64;
    for pair in pairs::read(headers) {
        if [&b":path"[..], b"authorization", b"mcp-method", b"mcp-name"]
            .iter()
            .any(|name| name.eq_ignore_ascii_case(pair.name))
        {
            let (rest, last) = pair.value.as_rchunks::<8>();
            let words = last.iter().rev().take(3).map(|word| u64::from_le_bytes(*word));
            let rest = rest.iter().fold(pair.value.len() as u64, |rest, byte| rest << 8 | u64::from(*byte));
            for word in words.chain([rest]) {
                // As Firefox's hash does it: an odd number with bits all over.
                place = (place.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
            }
        }
    }
    place.into()
}

/// Whether the filter must decide the same about two requests: they have headers of the same names in the same order,
/// with the same values where it reads them ([`is_read`]), and the same raw target.
#[inline(always)]
fn same(known: &RawRequest, raw_request: &RawRequest) -> bool {
    let mut others = pairs::read(&raw_request.headers);
    let headers = pairs::read(&known.headers).all(|one| {
        others.next().is_some_and(|other| {
            equal(one.name, other.name) && (equal(one.value, other.value) || !is_read(one.name))
        })
    });
    headers && others.next().is_none() && known.target == raw_request.target
}

/// Whether two texts are equal. (`==` is a call of C's `memcmp`, which compares one byte at a time here.)
#[inline(always)]
fn equal(one: &[u8], other: &[u8]) -> bool {
    let ((words, rest), (other_words, other_rest)) = (one.as_chunks::<8>(), other.as_chunks::<8>());
    one.len() == other.len()
        && words.iter().zip(other_words).all(|(one, other)| one == other)
        && rest.iter().zip(other_rest).all(|(one, other)| one == other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn forward(identity: &str) -> Forward {
        Forward { identity: identity.into(), userinfo: None, target: None, scheme: None, would_refuse: None }
    }

    fn recent(entries: usize, bytes: usize) -> Recent {
        Recent::new(&config::TokenCache { entries, bytes })
    }

    fn raw_request(method: &str, target: &str, headers: &[(&str, &str)]) -> RawRequest {
        let headers =
            headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
        Request { method: method.into(), target: target.into(), headers, ..Request::default() }.raw_request()
    }

    const GOOD: [(&str, &str); 4] =
        [("host", "a"), ("authorization", "Bearer x"), ("mcp-name", "echo"), ("accept", "b")];

    #[test]
    fn for_its_seconds_and_until_an_issuer_speaks() {
        let mut recent = recent(9, 80_000);
        let one = raw_request("POST", "/a", &GOOD);
        recent.keep(&one, &forward("one"), 0, 100, 105);
        let mut found = |raw_request: &RawRequest, epoch, now| {
            recent.get(raw_request, epoch, now).map(|forward| forward.identity.clone())
        };
        assert_eq!(found(&one, 0, 100).as_deref(), Some("one"));
        assert_eq!(found(&one, 0, 104).as_deref(), Some("one"));
        let other = raw_request("POST", "/b", &GOOD);
        // Nor when the clock was set back.
        for (raw_request, epoch, now) in [(&other, 0, 100), (&one, 1, 100), (&one, 0, 99), (&one, 0, 105)] {
            assert_eq!(found(raw_request, epoch, now), None, "{epoch} {now}");
        }
    }

    #[test]
    fn whatever_is_read_makes_a_difference() {
        let with =
            |method, target, more: &[(&str, &str)]| raw_request(method, target, &[&GOOD[..], more].concat());
        let but = |at: usize, header: (&'static str, &'static str)| {
            let mut headers = GOOD;
            headers[at] = header;
            raw_request("POST", "/a", &headers)
        };
        let raw =
            |target: &str| RawRequest::new(raw_request("POST", "/a", &GOOD).headers, Some(target.into()));
        let mut all = vec![
            raw_request("POST", "/a", &GOOD),
            with("GET", "/a", &[]),
            with("POS", "T/a", &[]),
            with("POST", "/a?b", &[]),
            with("POST", "/a", &[("x-userinfo", "")]),
            with("POST", "/a", &[("authorization", "Bearer x")]),
            with("POST", "/a", &[("X-Unread", "")]),
            raw_request("POST", "/a", &GOOD[1..]),
            raw_request("POST", "/a", &[&GOOD[1..], &GOOD[..1]].concat()),
            raw("/a"),
            raw("/b"),
            RawRequest::new(Vec::new(), None),
        ];
        all.extend([
            but(0, ("host", "b")),
            but(1, ("authorization", "Bearer y")),
            but(1, ("authorization", "bearer x")),
            but(2, ("mcp-name", "echo2")),
            but(2, ("mcp-name", "")),
            but(2, ("Mcp-Name", "echo")),
        ]);
        // Each byte counts.
        let long = [b'a'; 50];
        for at in 0..long.len() {
            let mut long = long;
            long[at] = b'b';
            all.push(with("POST", "/a", &[("origin", std::str::from_utf8(&long).unwrap())]));
        }
        for (at, one) in all.iter().enumerate() {
            for (other_at, other) in all.iter().enumerate() {
                assert_eq!(same(one, other), at == other_at, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn what_is_not_read_makes_none() {
        let with = |more: [(&str, &str); 3]| raw_request("POST", "/a", &[&GOOD[..], &more].concat());
        let one = with([("content-length", "7"), ("x-request-id", "1"), ("cookie", "a")]);
        let other = with([("content-length", "12"), ("x-request-id", "2"), ("cookie", "")]);
        assert!(same(&one, &other) && one.place == other.place);
    }

    #[test]
    fn a_request_with_the_place_of_another_one_is_not_taken_for_it() {
        let mut recent = recent(9, 80_000);
        let (one, other) = (raw_request("POST", "/a", &GOOD), raw_request("GET", "/a", &GOOD));
        assert_eq!(one.place, other.place);
        recent.keep(&one, &forward("one"), 0, 1, 9);
        assert_eq!(recent.get(&other, 0, 1), None);
        recent.keep(&other, &forward("other"), 0, 1, 9);
        assert_eq!(recent.get(&one, 0, 1), None);
    }

    #[test]
    fn most_requests_have_places_of_their_own() {
        let mut places = std::collections::HashSet::new();
        for number in 0..1000 {
            let name = format!("tool-{number}");
            let path = format!("/api/v1/mcp/org-{number}");
            let token = format!("Bearer a.b.{number:0>40}");
            places.extend([
                raw_request("POST", "/a", &[("Mcp-Name", &name)]).place,
                raw_request("POST", &path, &GOOD).place,
                raw_request("POST", "/a", &[("Authorization", &token)]).place,
            ]);
        }
        assert!(places.len() > 2990, "{}", places.len());
    }

    #[test]
    fn memory_stays_bounded() {
        for mut recent in [recent(100_000, 100_000_000), recent(100_000, 8 * 2_000_000), recent(0, 1 << 30)] {
            let long = "x".repeat(10_000);
            for number in 0..3000 {
                let raw_request = raw_request("POST", &format!("/{number}"), &[("cookie", &long)]);
                recent.keep(&raw_request, &forward(&long), 0, 1, 9);
            }
            assert!(recent.known.len() <= MAX, "{}", recent.known.len());
        }
    }
}
