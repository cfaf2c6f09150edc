//! The signed identity assertion: what the gateway's filter tells the backend about a request.
//!
//! Form: `v1.{key id}.{base64url(JSON claims)}.{base64url(HMAC-SHA256)}`, the MAC over everything
//! before the last dot. HMAC because both ends are ours and signing with an elliptic curve in
//! WebAssembly costs more than the rest of the filter. An assertion lives some seconds and is bound to
//! caller, audience, entry point, method, path and the MCP headers, so that a copy is of no use elsewhere.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::{EntryPoint, Principal};

/// Name of the request header that carries an assertion.
pub const HEADER: &str = "x-asgard-identity";
/// The audience of the assertions that are meant for the MCP backend.
pub const AUDIENCE: &str = "odinmcp";
/// Life of an assertion as the filter issues it, in seconds.
pub const LIFE: u64 = 10;
/// Longest life that [`AssertionKeys::verify`] accepts, in seconds, whatever was signed.
pub const MAX_LIFE: u64 = 60;
/// How much the clocks of filter and backend may differ, in seconds.
pub const LEEWAY: u64 = 2;
/// Longest header value that is read, in bytes.
pub const MAX_LEN: usize = 8 * 1024;
/// Most keys in an [`AssertionKeys`]: the current one and, during a rotation, the one before.
pub const MAX_KEYS: usize = 2;
/// Shortest secret of a key, in bytes.
pub const MIN_SECRET: usize = 32;

const VERSION: &str = "v1";

/// What the filter says about one request: who sends it, and which request it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assertion {
    /// The caller.
    #[serde(flatten)]
    pub principal: Principal,
    /// For whom the assertion is meant: [`AUDIENCE`] for the MCP backend.
    #[serde(rename = "aud")]
    pub audience: String,
    /// The entry point that the request took.
    pub entry_point: EntryPoint,
    /// HTTP method, as received (`POST`).
    pub method: String,
    /// Path of the request without its query, as [`crate::path::parse`] accepted it.
    pub path: String,
    /// Value of the `Mcp-Method` header as received, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp_method: Option<String>,
    /// Value of the `Mcp-Name` header as received (not decoded), if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp_name: Option<String>,
    /// When it was signed, in seconds since 1970.
    #[serde(rename = "iat")]
    pub issued_at: u64,
    /// The first second in which it is no longer valid, in seconds since 1970.
    #[serde(rename = "exp")]
    pub expires_at: u64,
}

/// Why an assertion is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AssertionError {
    /// Longer than [`MAX_LEN`].
    #[error("the identity assertion is longer than {MAX_LEN} bytes")]
    TooLong,
    /// Not of the form that this module writes.
    #[error("the identity assertion is malformed")]
    Malformed,
    /// Signed with a key that is not among ours.
    #[error("the identity assertion is signed with an unknown key")]
    UnknownKey,
    /// The signature does not fit.
    #[error("the identity assertion's signature is wrong")]
    BadSignature,
    /// Meant for somebody else.
    #[error("the identity assertion is for another audience")]
    WrongAudience,
    /// Signed in the future, by more than [`LEEWAY`].
    #[error("the identity assertion is not valid yet: compare the clocks of gateway and backend")]
    NotYetValid,
    /// Past its life, by more than [`LEEWAY`].
    #[error("the identity assertion has expired")]
    Expired,
    /// Its life is longer than [`MAX_LIFE`].
    #[error("the identity assertion claims a life of more than {MAX_LIFE} seconds")]
    LifeTooLong,
}

/// Why a list of keys is not accepted. No variant shows any part of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// No key, or more than [`MAX_KEYS`].
    #[error("give one key, or two during a rotation, as `id:secret[,id:secret]`")]
    Count,
    /// An entry is not `id:secret`.
    #[error("key number {0} is not of the form `id:secret`, the id of 1 to 32 characters A-Z a-z 0-9 - _")]
    Form(usize),
    /// Two keys have one id.
    #[error("both keys have the same id")]
    SameId,
    /// The secret is not base64url without padding.
    #[error("the secret of key number {0} is not base64url without padding")]
    Base64(usize),
    /// The secret is too short.
    #[error("the secret of key number {0} has fewer than {MIN_SECRET} bytes")]
    TooShort(usize),
}

#[derive(Clone)]
struct Key {
    id: String,
    // The MAC's state after the secret was absorbed: a clone of it saves two of the four hash blocks.
    mac: Hmac<Sha256>,
}

/// The secrets that sign and verify assertions. The first is current: it signs. All verify.
#[derive(Clone)]
pub struct AssertionKeys {
    current: Key,
    previous: Option<Key>,
}

impl std::fmt::Debug for AssertionKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<&str> = self.keys().map(|key| key.id.as_str()).collect();
        f.debug_struct("AssertionKeys").field("ids", &ids).finish_non_exhaustive()
    }
}

impl std::str::FromStr for AssertionKeys {
    type Err = KeysError;

    fn from_str(text: &str) -> Result<Self, KeysError> {
        Self::parse(text)
    }
}

impl AssertionKeys {
    /// Reads `id:secret[,id:secret]`; each secret is base64url without padding, of at least
    /// [`MIN_SECRET`] bytes; the first key is the current one.
    ///
    /// # Errors
    /// [`KeysError`] says which entry is wrong and never shows a secret.
    pub fn parse(text: &str) -> Result<Self, KeysError> {
        let mut keys = Vec::new();
        for (index, entry) in text.split(',').enumerate() {
            if index >= MAX_KEYS || text.trim().is_empty() {
                return Err(KeysError::Count);
            }
            keys.push(Key::parse(entry.trim(), index.saturating_add(1))?);
        }
        let mut keys = keys.into_iter();
        let current = keys.next().ok_or(KeysError::Count)?;
        let previous = keys.next();
        if previous.as_ref().is_some_and(|key| key.id == current.id) {
            return Err(KeysError::SameId);
        }
        Ok(Self { current, previous })
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.current).chain(&self.previous)
    }

    /// Signs an assertion with the current key. The result is the header's value, plain ASCII.
    pub fn sign(&self, assertion: &Assertion) -> String {
        // Strings, numbers and lists of strings always have a JSON form; an empty one would not verify.
        let claims = serde_json::to_vec(assertion).unwrap_or_default();
        let mut text = format!("{VERSION}.{}.", self.current.id);
        URL_SAFE_NO_PAD.encode_string(claims, &mut text);
        let mut mac = self.current.mac.clone();
        mac.update(text.as_bytes());
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(mac.finalize().into_bytes(), &mut text);
        text
    }

    /// Verifies a header's value: form, key, signature, audience, times. `now` is in seconds since 1970.
    ///
    /// Whether the assertion fits the request (method, path, MCP headers) is the caller's to compare.
    ///
    /// # Errors
    /// [`AssertionError`], in the order form, key, signature, audience, times: what an unsigned
    /// assertion claims is never looked at.
    pub fn verify(&self, header: &str, audience: &str, now: u64) -> Result<Assertion, AssertionError> {
        if header.len() > MAX_LEN {
            return Err(AssertionError::TooLong);
        }
        let (signed, signature) = header.rsplit_once('.').ok_or(AssertionError::Malformed)?;
        let mut parts = signed.split('.');
        let (Some(VERSION), Some(id), Some(claims), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(AssertionError::Malformed);
        };
        let key = self.keys().find(|key| key.id == id).ok_or(AssertionError::UnknownKey)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| AssertionError::Malformed)?;
        let mut mac = key.mac.clone();
        mac.update(signed.as_bytes());
        mac.verify_slice(&signature).map_err(|_| AssertionError::BadSignature)?;
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| AssertionError::Malformed)?;
        let assertion: Assertion = serde_json::from_slice(&claims).map_err(|_| AssertionError::Malformed)?;
        if assertion.audience != audience {
            return Err(AssertionError::WrongAudience);
        }
        assertion.check_times(now)?;
        Ok(assertion)
    }
}

impl Assertion {
    /// Checks the times alone, for one whose signature was verified before. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// [`AssertionError`] when it lives too long, or is not valid now.
    pub fn check_times(&self, now: u64) -> Result<(), AssertionError> {
        if self.expires_at.saturating_sub(self.issued_at) > MAX_LIFE {
            return Err(AssertionError::LifeTooLong);
        }
        if self.issued_at > now.saturating_add(LEEWAY) {
            return Err(AssertionError::NotYetValid);
        }
        if self.expires_at.saturating_add(LEEWAY) <= now {
            return Err(AssertionError::Expired);
        }
        Ok(())
    }
}

impl Key {
    fn parse(entry: &str, number: usize) -> Result<Self, KeysError> {
        let (id, secret) = entry.split_once(':').ok_or(KeysError::Form(number))?;
        let is_id = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if !(1..=32).contains(&id.len()) || !id.bytes().all(is_id) {
            return Err(KeysError::Form(number));
        }
        let secret = URL_SAFE_NO_PAD.decode(secret).map_err(|_| KeysError::Base64(number))?;
        if secret.len() < MIN_SECRET {
            return Err(KeysError::TooShort(number));
        }
        let mac = Hmac::new_from_slice(&secret).map_err(|_| KeysError::TooShort(number))?;
        Ok(Self { id: id.to_owned(), mac })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const NOW: u64 = 1_800_000_000;

    fn key(id: &str, byte: u8) -> String {
        format!("{id}:{}", URL_SAFE_NO_PAD.encode([byte; 32]))
    }

    fn keys(text: &str) -> AssertionKeys {
        AssertionKeys::parse(text).unwrap()
    }

    fn assertion() -> Assertion {
        Assertion {
            principal: Principal {
                issuer: "https://id.example".into(),
                subject: "1".into(),
                organisation: "org-1".into(),
                client: Some("cli".into()),
                username: None,
                scopes: vec!["mcp:tools".into()],
                roles: vec![],
                groups: vec![],
            },
            audience: AUDIENCE.into(),
            entry_point: EntryPoint::Bifrost,
            method: "POST".into(),
            path: "/api/v1/mcp/org-1".into(),
            mcp_method: Some("tools/call".into()),
            mcp_name: Some("report".into()),
            issued_at: NOW,
            expires_at: NOW + LIFE,
        }
    }

    #[test]
    fn what_is_signed_verifies() {
        let keys = keys(&key("a", 1));
        let header = keys.sign(&assertion());
        assert_eq!(keys.verify(&header, AUDIENCE, NOW + 5), Ok(assertion()));
        assert!(header.bytes().all(|byte| byte.is_ascii_graphic()));
    }

    #[test]
    fn keys_rotate() {
        let (old, new) = (key("a", 1), key("b", 2));
        let header = keys(&old).sign(&assertion());
        let both = keys(&format!("{new},{old}"));
        assert!(both.verify(&header, AUDIENCE, NOW).is_ok());
        assert!(both.sign(&assertion()).starts_with("v1.b."));
        assert_eq!(keys(&new).verify(&header, AUDIENCE, NOW), Err(AssertionError::UnknownKey));
        // The same id with another secret.
        assert_eq!(keys(&key("a", 2)).verify(&header, AUDIENCE, NOW), Err(AssertionError::BadSignature));
    }

    #[test]
    fn times_and_audience_hold() {
        let keys = keys(&key("a", 1));
        let header = keys.sign(&assertion());
        assert_eq!(keys.verify(&header, "other", NOW), Err(AssertionError::WrongAudience));
        assert!(keys.verify(&header, AUDIENCE, NOW - LEEWAY).is_ok());
        assert_eq!(keys.verify(&header, AUDIENCE, NOW - LEEWAY - 1), Err(AssertionError::NotYetValid));
        assert!(keys.verify(&header, AUDIENCE, NOW + LIFE + LEEWAY - 1).is_ok());
        assert_eq!(keys.verify(&header, AUDIENCE, NOW + LIFE + LEEWAY), Err(AssertionError::Expired));
        let eternal = keys.sign(&Assertion { expires_at: NOW + MAX_LIFE + 1, ..assertion() });
        assert_eq!(keys.verify(&eternal, AUDIENCE, NOW), Err(AssertionError::LifeTooLong));
    }

    #[test]
    fn malformed_ones_are_refused() {
        let keys = keys(&key("a", 1));
        let good = keys.sign(&assertion());
        for bad in [
            "",
            "v1",
            "v1.a.e30",
            "v2.a.e30.AAAA",
            "v1.a.e30.x.AAAA",
            "v1.a.e30.!!!!",
            ".",
            "...",
            &good.replace("v1.", "v2."),
        ] {
            assert_eq!(keys.verify(bad, AUDIENCE, NOW), Err(AssertionError::Malformed), "{bad}");
        }
        assert_eq!(keys.verify("v1.a.e30.AAAA", AUDIENCE, NOW), Err(AssertionError::BadSignature));
        assert_eq!(keys.verify(&"a".repeat(MAX_LEN + 1), AUDIENCE, NOW), Err(AssertionError::TooLong));
    }

    #[test]
    fn key_lists_are_checked_and_never_shown() {
        let count = |text: &str| AssertionKeys::parse(text).map(|_| ());
        assert_eq!(count(""), Err(KeysError::Count));
        assert_eq!(count(&[key("a", 1), key("b", 2), key("c", 3)].join(",")), Err(KeysError::Count));
        assert_eq!(count("abc"), Err(KeysError::Form(1)));
        assert_eq!(count(&format!("{},b c:AAAA", key("a", 1))), Err(KeysError::Form(2)));
        assert_eq!(count("a:AAAA"), Err(KeysError::TooShort(1)));
        assert_eq!(count("a:+/=="), Err(KeysError::Base64(1)));
        assert_eq!(count(&[key("a", 1), key("a", 2)].join(",")), Err(KeysError::SameId));
        let secret = URL_SAFE_NO_PAD.encode([1; 32]);
        let shown = format!("{:?}", keys(&key("a", 1)));
        assert!(shown.contains("\"a\"") && !shown.contains(&secret), "{shown}");
    }

    proptest! {
        #[test]
        fn any_change_of_a_byte_is_seen(at in 0usize..1000, with in 1u8..=255) {
            let keys = keys(&key("a", 1));
            let mut bytes = keys.sign(&assertion()).into_bytes();
            let at = at % bytes.len();
            bytes[at] ^= with;
            if let Ok(text) = String::from_utf8(bytes) {
                prop_assert!(keys.verify(&text, AUDIENCE, NOW).is_err());
            }
        }

        #[test]
        fn reading_never_panics(text in "\\PC{0,80}") {
            let _ = keys(&key("a", 1)).verify(&text, AUDIENCE, NOW);
            let _ = AssertionKeys::parse(&text);
        }
    }
}
