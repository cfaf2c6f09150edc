//! Requests that may be repeated: the header `Idempotency-Key`.
//!
//! A client that lost its connection sends the request again, with the same key and the same parameters, and
//! gets the answer of the first one, also while that still runs. (The header's form is that of
//! draft-ietf-httpapi-idempotency-key-header; any visible ASCII is taken, with or without quotes.)

use http::{HeaderMap, HeaderName};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::front::error::{Error, Result};
use crate::id::hex;

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Bytes of a key.
const KEY_BYTES: usize = 255;

/// The request's key.
///
/// # Errors
/// 400 when it is empty, too long, not visible ASCII, or there twice.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<String>> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let fits = |key: &&str| (1..=KEY_BYTES).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
    match value.to_str().ok().filter(fits) {
        Some(key) if values.next().is_none() => Ok(Some(key.to_owned())),
        _ => Err(Error::InvalidKey(KEY_BYTES)),
    }
}

/// The name of a retry: a hash of its parts, in hexadecimal.
pub(crate) fn name(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())
}

/// A hash of the request's parameters, `_meta` left out: progress token and trace context are another attempt's
/// own.
pub(crate) fn fingerprint(message: &RawValue) -> String {
    let mut value: serde_json::Value = serde_json::from_str(message.get()).unwrap_or_default();
    let mut params = value.get_mut("params").map(serde_json::Value::take).unwrap_or_default();
    if let Some(params) = params.as_object_mut() {
        params.remove("_meta");
    }
    hex(&Sha256::digest(params.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.into()).unwrap()
    }

    #[test]
    fn only_the_parameters_make_the_fingerprint() {
        let first =
            raw(r#"{"id":1,"method":"tools/call","params":{"name":"a","_meta":{"progressToken":1}}}"#);
        let again = raw(r#"{"id":"x","method":"tools/call","params":{"_meta":{}, "name":"a"}}"#);
        let other = raw(r#"{"id":1,"method":"tools/call","params":{"name":"b"}}"#);
        assert_eq!(fingerprint(&first), fingerprint(&again));
        assert_ne!(fingerprint(&first), fingerprint(&other));
    }

    #[test]
    fn parts_of_a_name_do_not_run_together() {
        assert_ne!(name(&["a", "bc"]), name(&["ab", "c"]));
    }

    #[test]
    fn keys_are_bounded() {
        let mut headers = HeaderMap::new();
        assert_eq!(key(&headers).unwrap(), None);
        headers.insert(HEADER, "k-1".parse().unwrap());
        assert_eq!(key(&headers).unwrap().as_deref(), Some("k-1"));
        headers.append(HEADER, "k-2".parse().unwrap());
        assert!(key(&headers).is_err());
        headers.insert(HEADER, "a b".parse().unwrap());
        assert!(key(&headers).is_err());
        headers.insert(HEADER, "k".repeat(256).parse().unwrap());
        assert!(key(&headers).is_err());
    }
}
