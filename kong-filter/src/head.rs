//! What the decision about a request depends on, as digests.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::OnceLock;

use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::cache::Digest;
use crate::pairs::Pair;
use crate::request::is_read;

/// What stands before a token, as clients write it.
const USUAL: &[u8] = b"Bearer ";

/// Digests of a request, by SipHash-1-3 of 128 bits with a random key. Neither key nor digests ever leave this
/// process, so that nobody can look for a request with the digest of another one, but by trying at the gateway itself.
/// (A plain SHA-256 took a third of the filter's time for a known token.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Of all bytes of the first `Authorization` header, the token's signature included: the token's own where
    /// the header is written as usual ([`token`]).
    pub token: Digest,
    /// Of the names of all headers, and the values of all that the filter reads ([`is_read`]), in their order;
    /// and of the raw target where the gateway tells it beside them.
    pub whole: Digest,
}

impl Head {
    /// The digests of a request's headers, with `:method` and `:path` among them.
    #[inline(always)]
    pub fn of<'a>(pairs: impl Iterator<Item = Pair<'a>>, target: Option<&str>) -> Self {
        let mut whole = hasher();
        let mut token = None;
        for Pair { name, value, both } in pairs {
            let read = is_read(name);
            // The lengths, so that no bytes can be taken for others.
            let length = if read { value.len() as u64 } else { u64::from(u32::MAX) };
            whole.write_u64((name.len() as u64) << 32 | length);
            if name.eq_ignore_ascii_case(b"authorization") {
                let digest = digest(value);
                token.get_or_insert(digest);
                whole.write(name);
                whole.write_u128(digest);
            } else {
                whole.write(if read { both } else { name });
            }
        }
        whole.write(target.unwrap_or_default().as_bytes());
        Self { token: token.unwrap_or_default(), whole: whole.finish128().as_u128() }
    }
}

#[inline(always)]
/// The digest of a token, however its header is written: with many spellings nobody makes the issuer answer, or
/// the cache keep, more than one token.
pub fn token(token: &str) -> Digest {
    let mut hasher = hasher();
    hasher.write(USUAL);
    hasher.write(token.as_bytes());
    hasher.finish128().as_u128()
}

/// Whether a header's value is written so that its digest is its token's.
pub fn is_usual(value: &[u8], token: &str) -> bool {
    value.strip_prefix(USUAL) == Some(token.as_bytes())
}

fn digest(bytes: &[u8]) -> Digest {
    let mut hasher = hasher();
    hasher.write(bytes);
    hasher.finish128().as_u128()
}

#[inline(always)]
fn hasher() -> SipHasher13 {
    static KEY: OnceLock<(u64, u64)> = OnceLock::new();
    let (first, second) = *KEY.get_or_init(|| {
        let random = RandomState::new();
        (random.hash_one(0), random.hash_one(1))
    });
    SipHasher13::new_with_keys(first, second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairs;
    use crate::request::Request;

    fn head(method: &str, target: &str, headers: &[(&str, &str)]) -> Head {
        let headers =
            headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
        let request = Request { method: method.into(), target: target.into(), headers };
        Head::of(pairs::read(&request.written()), None)
    }

    #[test]
    fn whatever_is_read_makes_a_difference() {
        let good = [("host", "a"), ("authorization", "Bearer x"), ("mcp-name", "echo"), ("accept", "b")];
        let known = head("POST", "/a", &good);
        assert_eq!(known, head("POST", "/a", &good));
        let mut seen = vec![known.whole];
        let mut differs = |other: Head| {
            assert!(!seen.contains(&other.whole), "{seen:?}");
            seen.push(other.whole);
        };
        differs(head("GET", "/a", &good));
        differs(head("POS", "T/a", &good));
        differs(head("POST", "/a?b", &good));
        differs(head("POST", "/a", &good[1..]));
        differs(head("POST", "/a", &[&good[..], &[("x-userinfo", "")]].concat()));
        differs(head("POST", "/a", &[&good[..], &[("authorization", "Bearer x")]].concat()));
        differs(head("POST", "/a", &[&good[..], &[("X-Unread", "")]].concat()));
        differs(head("POST", "/a", &[&good[1..], &good[..1]].concat()));
        for (at, value) in [(0, "b"), (1, "Bearer y"), (1, "bearer x"), (2, "echo2"), (2, "")] {
            let mut other = good;
            other[at].1 = value;
            differs(head("POST", "/a", &other));
        }
        let path = pairs::write([(&b":path"[..], &b"/a"[..])].into_iter());
        let raw = |target| Head::of(pairs::read(&path), target);
        for target in [None, Some("/a"), Some("/b")] {
            differs(raw(target));
        }
        let mut name = good;
        name[2].0 = "Mcp-Name";
        differs(head("POST", "/a", &name));
    }

    #[test]
    fn what_is_not_read_makes_none() {
        let one = head("POST", "/a", &[("content-length", "7"), ("x-request-id", "1"), ("accept", "a")]);
        assert_eq!(
            one,
            head("POST", "/a", &[("content-length", "12"), ("x-request-id", "2"), ("accept", "")])
        );
        assert_eq!(one.token, Digest::default());
    }

    #[test]
    fn a_token_has_one_digest() {
        let usual = head("GET", "/", &[("authorization", "Bearer x")]).token;
        assert!(is_usual(b"Bearer x", "x") && usual == token("x") && usual != token("y"));
        for other in ["bearer x", "Bearer  x", " Bearer x", "Bearer x "] {
            assert!(!is_usual(other.as_bytes(), "x"), "{other}");
        }
    }

    #[test]
    fn the_token_is_the_first() {
        let both = head("POST", "/a", &[("Authorization", "Bearer x"), ("authorization", "Bearer y")]);
        assert_eq!(both.token, head("GET", "/", &[("authorization", "Bearer x")]).token);
    }
}
