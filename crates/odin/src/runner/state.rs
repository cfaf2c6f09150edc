//! `requestState`: what a handler gives a client to bring back with the answers (2026-07-28, multi round-trip
//! requests).
//!
//! A client may read, change, replay or pass on whatever it is given. So the runner seals what a handler puts
//! there, on the way out, and opens it on the way in: XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha), bound to the
//! principal, the named server, the method and its parameters, and expiring. The handler sees its own text, or
//! is not asked at all. The same keys sign the cursors of lists.

use std::{collections::BTreeMap, fmt, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce, aead::Aead, aead::Payload};
use hmac::{Hmac, Mac};
use serde_json::{Value, value::RawValue};
use sha2::{Digest, Sha256};

use crate::call::Job;

/// Begins every sealed state; the number goes up when the format changes.
const VERSION: &str = "s1.";
/// What the cipher's key is derived for, so that one secret can serve several purposes.
const PURPOSE: &[u8] = b"asgard request state 1";
const CURSORS: &[u8] = b"asgard cursor 1";
const NONCE: usize = 24;
const EXPIRY: usize = 8;
const KEY: usize = 32;

/// How long a client may take to bring the answers, unless the keys say otherwise.
pub const STATE_LIFETIME: Duration = Duration::from_secs(3600);

/// Keys that seal `requestState`; the same for all workers of a server.
#[derive(Clone)]
pub struct StateKeys {
    /// Opens states; the first one seals as well.
    ciphers: Vec<XChaCha20Poly1305>,
    /// Sign cursors; the same order.
    cursors: Vec<Hmac<Sha256>>,
    lifetime: Duration,
}

/// Why keys can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateKeyError {
    /// Not base64url.
    #[error("a key must be base64url")]
    Encoding,
    /// Too short.
    #[error("a key must have at least {KEY} bytes")]
    Length,
    /// Too many.
    #[error("there can be two keys: the current and the previous one")]
    Count,
}

/// A state that a client brought back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opened {
    /// What the handler put there.
    pub(super) state: String,
    /// Names this state among all: no two are sealed under one name.
    pub(super) name: String,
    /// Seconds until it expires.
    pub(super) left: u64,
}

/// A state that was not made here for this request, or that is too old. One and the same error for every cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it was not issued for this request, or has expired")]
pub(super) struct NotOurs;

impl StateKeys {
    /// Keys written as base64url, at least 32 bytes each: the current one, and after a comma the previous one,
    /// whose states are still taken.
    ///
    /// # Errors
    /// [`StateKeyError`].
    pub fn parse(text: &str) -> Result<Self, StateKeyError> {
        let (mut ciphers, mut cursors) = (Vec::new(), Vec::new());
        for key in text.split(',') {
            let key = BASE64_URL_SAFE_NO_PAD
                .decode(key.trim().trim_end_matches('='))
                .map_err(|_| StateKeyError::Encoding)?;
            if key.len() < KEY {
                return Err(StateKeyError::Length);
            }
            ciphers.push(cipher(&key)?);
            cursors.push(derived(&key, CURSORS)?);
        }
        if ciphers.len() > 2 {
            return Err(StateKeyError::Count);
        }
        Ok(Self { ciphers, cursors, lifetime: STATE_LIFETIME })
    }

    /// A key that nobody else has: a client must come back to this process.
    pub fn random() -> Self {
        let key = rand::random::<[u8; KEY]>();
        let ciphers = cipher(&key).into_iter().collect();
        let cursors = derived(&key, CURSORS).into_iter().collect();
        Self { ciphers, cursors, lifetime: STATE_LIFETIME }
    }

    /// The same keys for states that live so long, in whole seconds.
    #[must_use]
    pub fn with_lifetime(self, lifetime: Duration) -> Self {
        Self { lifetime, ..self }
    }

    /// Keys for the signatures of cursors; the first one signs.
    pub(super) fn cursors(&self) -> &[Hmac<Sha256>] {
        &self.cursors
    }

    /// Seals a handler's state. `now` is in seconds since 1970.
    pub(super) fn seal(&self, state: &str, bound: &Bound, now: u64) -> Option<String> {
        let nonce = rand::random::<[u8; NONCE]>();
        let expires = now.saturating_add(self.lifetime.as_secs());
        let mut plain = Vec::with_capacity(EXPIRY + state.len());
        plain.extend_from_slice(&expires.to_be_bytes());
        plain.extend_from_slice(state.as_bytes());
        let payload = Payload { msg: &plain, aad: &bound.0 };
        let sealed = self.ciphers.first()?.encrypt(&XNonce::from(nonce), payload).ok()?;
        let mut text = VERSION.to_owned();
        BASE64_URL_SAFE_NO_PAD.encode_string([nonce.as_slice(), &sealed].concat(), &mut text);
        Some(text)
    }

    /// Opens what a client brought back.
    pub(super) fn open(&self, sealed: &str, bound: &Bound, now: u64) -> Result<Opened, NotOurs> {
        let bytes = sealed.strip_prefix(VERSION).and_then(|text| BASE64_URL_SAFE_NO_PAD.decode(text).ok());
        let bytes = bytes.ok_or(NotOurs)?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE>().ok_or(NotOurs)?;
        let open = |cipher: &XChaCha20Poly1305| {
            cipher.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: &bound.0 }).ok()
        };
        let plain = self.ciphers.iter().find_map(open).ok_or(NotOurs)?;
        let (expires, state) = plain.split_first_chunk::<EXPIRY>().ok_or(NotOurs)?;
        let left = u64::from_be_bytes(*expires).saturating_sub(now);
        if left == 0 {
            return Err(NotOurs);
        }
        let state = String::from_utf8(state.to_vec()).map_err(|_| NotOurs)?;
        Ok(Opened { state, name: BASE64_URL_SAFE_NO_PAD.encode(nonce), left })
    }
}

/// The cipher's key is derived, so that a secret of any length and of other uses will do.
fn cipher(secret: &[u8]) -> Result<XChaCha20Poly1305, StateKeyError> {
    let key = derived(secret, PURPOSE)?.finalize().into_bytes();
    XChaCha20Poly1305::new_from_slice(&key).map_err(|_| StateKeyError::Length)
}

fn derived(secret: &[u8], purpose: &[u8]) -> Result<Hmac<Sha256>, StateKeyError> {
    let mut mac =
        <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(secret).map_err(|_| StateKeyError::Length)?;
    mac.update(purpose);
    Ok(mac)
}

impl fmt::Debug for StateKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateKeys")
            .field("keys", &self.ciphers.len())
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

/// What a state is bound to: a hash over the principal, the named server, the method and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bound([u8; 32]);

impl Bound {
    /// Of a request. The answers, the state itself and `_meta` are left out of the parameters: they differ from
    /// round to round.
    pub(super) fn of(job: &Job, method: &str, params: Option<&RawValue>) -> Self {
        let mut hash = Sha256::new();
        for part in [job.principal.key().as_str(), &job.server, method] {
            text(&mut hash, part);
        }
        let params =
            params.and_then(|params| serde_json::from_str::<BTreeMap<String, Value>>(params.get()).ok());
        for (name, value) in params.iter().flatten() {
            if !matches!(name.as_str(), "_meta" | "inputResponses" | "requestState") {
                text(&mut hash, name);
                canonical(&mut hash, value);
            }
        }
        Self(hash.finalize().into())
    }
}

/// With its length before it, so that no part can pass for another.
fn text(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_be_bytes());
    hash.update(text.as_bytes());
}

/// The value, whatever the order of its members and the space between them.
fn canonical(hash: &mut Sha256, value: &Value) {
    match value {
        Value::Array(items) => {
            hash.update(b"[");
            hash.update((items.len() as u64).to_be_bytes());
            items.iter().for_each(|item| canonical(hash, item));
        }
        Value::Object(members) => {
            hash.update(b"{");
            hash.update((members.len() as u64).to_be_bytes());
            let sorted: BTreeMap<&String, &Value> = members.iter().collect();
            for (name, member) in sorted {
                text(hash, name);
                canonical(hash, member);
            }
        }
        Value::String(string) => {
            hash.update(b"\"");
            text(hash, string);
        }
        other => {
            hash.update(b"=");
            text(hash, &other.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn key(byte: u8) -> String {
        BASE64_URL_SAFE_NO_PAD.encode([byte; 32])
    }

    fn job() -> Job {
        serde_json::from_str(
            r#"{"call":"0","server":"default","era":"stateless","protocol":"2026-07-28",
                "principal":{"issuer":"i","subject":"s","organisation":"o"},"message":{}}"#,
        )
        .unwrap()
    }

    fn bound(job: &Job, method: &str, params: &str) -> Bound {
        Bound::of(job, method, Some(&RawValue::from_string(params.into()).unwrap()))
    }

    fn opened(keys: &StateKeys, sealed: &str, bound: &Bound) -> Result<String, NotOurs> {
        keys.open(sealed, bound, NOW).map(|opened| opened.state)
    }

    #[test]
    fn each_state_has_a_name_of_its_own_and_the_time_that_is_left() {
        let keys = StateKeys::random().with_lifetime(Duration::from_secs(60));
        let bound = Bound::of(&job(), "tools/call", None);
        let open = |sealed: &str, now| keys.open(sealed, &bound, now).unwrap();
        let (one, other) =
            (keys.seal("state", &bound, NOW).unwrap(), keys.seal("state", &bound, NOW).unwrap());
        assert_ne!(open(&one, NOW).name, open(&other, NOW).name);
        assert_eq!(open(&one, NOW).name, open(&one, NOW + 10).name);
        assert_eq!((open(&one, NOW).left, open(&one, NOW + 10).left), (60, 50));
    }

    #[test]
    fn a_state_comes_back_as_it_went_and_shows_nothing() {
        let keys = StateKeys::random();
        let bound = bound(&job(), "tools/call", r#"{"name":"t"}"#);
        for state in ["", "x", "a secret {\"n\":1}", &"é".repeat(10_000)] {
            let sealed = keys.seal(state, &bound, NOW).unwrap();
            assert!(state.is_empty() || state == "x" || !sealed.contains(state));
            assert_eq!(opened(&keys, &sealed, &bound), Ok(state.to_owned()));
            // Twice the same is not twice the same text.
            assert_ne!(sealed, keys.seal(state, &bound, NOW).unwrap());
        }
    }

    #[test]
    fn it_holds_for_one_principal_server_method_and_parameters() {
        let keys = StateKeys::random();
        let params = r#"{"name":"t","arguments":{"a":1,"b":[true,null]}}"#;
        let here = bound(&job(), "tools/call", params);
        let sealed = keys.seal("state", &here, NOW).unwrap();
        // Space, order, answers, state and metadata don't count.
        let same = r#"{"requestState":"x","inputResponses":{"q":1},"_meta":{"progressToken":7},
            "arguments":{ "b":[true, null], "a":1 },"name":"t"}"#;
        assert_eq!(opened(&keys, &sealed, &bound(&job(), "tools/call", same)), Ok("state".into()));
        let mut others = vec![
            bound(&job(), "prompts/get", params),
            bound(&job(), "tools/call", r#"{"name":"u","arguments":{"a":1,"b":[true,null]}}"#),
            bound(&job(), "tools/call", r#"{"name":"t","arguments":{"a":2,"b":[true,null]}}"#),
            bound(&job(), "tools/call", r#"{"name":"t","arguments":{"a":1,"b":[true]}}"#),
            bound(&job(), "tools/call", r#"{"name":"t"}"#),
            Bound::of(&job(), "tools/call", None),
        ];
        for change in [
            |job: &mut Job| job.principal.subject = "t".into(),
            |job: &mut Job| job.principal.organisation = "p".into(),
            |job: &mut Job| job.principal.issuer = "j".into(),
            |job: &mut Job| job.server = "other".into(),
        ] {
            let mut job = job();
            change(&mut job);
            others.push(bound(&job, "tools/call", params));
        }
        for other in others {
            assert_eq!(keys.open(&sealed, &other, NOW), Err(NotOurs));
        }
    }

    #[test]
    fn it_expires() {
        let keys = StateKeys::random().with_lifetime(Duration::from_secs(60));
        let bound = Bound::of(&job(), "tools/call", None);
        let sealed = keys.seal("state", &bound, NOW).unwrap();
        assert!(keys.open(&sealed, &bound, NOW + 59).is_ok());
        assert_eq!(keys.open(&sealed, &bound, NOW + 60), Err(NotOurs));
    }

    #[test]
    fn what_was_changed_or_made_up_does_not_open() {
        let keys = StateKeys::random();
        let bound = Bound::of(&job(), "tools/call", None);
        let sealed = keys.seal("state", &bound, NOW).unwrap();
        for made_up in ["", "s1.", "s1.AAAA", "state", "s1.%%%", &sealed[3..], &format!("{sealed}-TAMPERED")]
        {
            assert_eq!(keys.open(made_up, &bound, NOW), Err(NotOurs), "{made_up}");
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(&sealed[3..]).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let changed = format!("s1.{}", BASE64_URL_SAFE_NO_PAD.encode(&changed));
            assert_eq!(keys.open(&changed, &bound, NOW), Err(NotOurs), "byte {at}");
        }
        assert_eq!(StateKeys::random().open(&sealed, &bound, NOW), Err(NotOurs), "another's key");
    }

    #[test]
    fn keys_rotate() {
        let bound = Bound::of(&job(), "tools/call", None);
        let old = StateKeys::parse(&key(1)).unwrap().seal("state", &bound, NOW).unwrap();
        let both = StateKeys::parse(&format!("{},{}=", key(2), key(1))).unwrap();
        assert!(both.open(&old, &bound, NOW).is_ok());
        let new = both.seal("state", &bound, NOW).unwrap();
        assert!(StateKeys::parse(&key(2)).unwrap().open(&new, &bound, NOW).is_ok());
        assert!(StateKeys::parse(&key(1)).unwrap().open(&new, &bound, NOW).is_err());
    }

    #[test]
    fn keys_are_checked_and_not_shown() {
        let error = |text: &str| StateKeys::parse(text).unwrap_err();
        assert_eq!(error("%"), StateKeyError::Encoding);
        assert_eq!(error(""), StateKeyError::Length);
        assert_eq!(error(&BASE64_URL_SAFE_NO_PAD.encode([1; 31])), StateKeyError::Length);
        assert_eq!(error(&[key(1), key(2), key(3)].join(",")), StateKeyError::Count);
        assert_eq!(format!("{:?}", StateKeys::random()), "StateKeys { keys: 1, lifetime: 3600s, .. }");
    }
}
