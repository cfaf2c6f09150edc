//! Signed tokens in the compact form (RFC 7515): taken apart strictly, verified by [`crate::jwks`].

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use identity::claims;
use serde_json::{Map, Value};
use sha2::Sha256;

use crate::config::Algorithm;

/// Longest key id (`kid`), in bytes.
const MAX_KID: usize = 256;

/// Why a text is not a token that can be verified here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// Not three parts of base64url, or not JSON in the first two.
    #[error("the token is malformed")]
    Malformed,
    /// `alg` is none of those that are accepted. `none` and the symmetric ones never are.
    #[error("the token's signature algorithm is not accepted")]
    Algorithm,
    /// The header has a `crit` (RFC 7515 section 4.1.11) or a `typ` that is no access token's.
    #[error("the token is of a kind that is not accepted")]
    Kind,
}

impl JwtError {
    /// A stable code for logs and answers.
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed => "token_malformed",
            Self::Algorithm => "algorithm_refused",
            Self::Kind => "token_kind",
        }
    }
}

/// A token, taken apart; nothing of it is verified.
#[derive(Debug)]
pub struct Jwt<'a> {
    /// `alg` of the header; `None` for one that can't be verified here.
    pub algorithm: Option<Algorithm>,
    /// `kid` of the header.
    pub key_id: Option<String>,
    /// The payload's members.
    pub payload: Map<String, Value>,
    /// What is signed: the first two parts, with the dot between.
    pub signed: &'a [u8],
    /// The signature's bytes.
    pub signature: Vec<u8>,
}

fn parts(token: &str) -> Option<(&str, &str, &str, &str)> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, payload) = signed.split_once('.')?;
    (!payload.contains('.')).then_some((signed, header, payload, signature))
}

fn json(part: &str) -> Result<Map<String, Value>, JwtError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtError::Malformed)?;
    claims::object(&bytes).map_err(|_| JwtError::Malformed)
}

/// Takes a token apart.
///
/// What could name a key by another way than `kid` (`jku`, `jwk`, `x5u`, `x5c`) is never looked at.
///
/// # Errors
/// [`JwtError`].
pub fn parse(token: &str) -> Result<Jwt<'_>, JwtError> {
    let (signed, header, payload, signature) = parts(token).ok_or(JwtError::Malformed)?;
    let header = json(header)?;
    let name = header.get("alg").and_then(Value::as_str);
    let name = name.filter(|name| !name.eq_ignore_ascii_case("none")).ok_or(JwtError::Algorithm)?;
    let algorithm = Algorithm::named(name);
    let access = |kind: &str| {
        let kind = kind.strip_prefix("application/").unwrap_or(kind);
        kind.eq_ignore_ascii_case("JWT") || kind.eq_ignore_ascii_case("at+jwt")
    };
    match header.get("typ") {
        None => {}
        Some(Value::String(kind)) if access(kind) => {}
        Some(_) => return Err(JwtError::Kind),
    }
    if header.contains_key("crit") {
        return Err(JwtError::Kind);
    }
    let key_id = match header.get("kid") {
        None => None,
        Some(Value::String(id)) if id.len() <= MAX_KID => Some(id.clone()),
        Some(_) => return Err(JwtError::Malformed),
    };
    Ok(Jwt {
        algorithm,
        key_id,
        payload: json(payload)?,
        signed: signed.as_bytes(),
        signature: URL_SAFE_NO_PAD.decode(signature).map_err(|_| JwtError::Malformed)?,
    })
}

/// How Pushpin signs what it passes on: a token with HS256, an issuer, and an expiry.
#[derive(Clone)]
pub struct GripKey {
    issuer: String,
    mac: Hmac<Sha256>,
}

impl GripKey {
    /// Takes the issuer (`sig_iss`) and the key's bytes (`sig_key`). `None` for an empty key.
    pub fn new(issuer: &str, key: &[u8]) -> Option<Self> {
        let mac = Hmac::new_from_slice(key).ok().filter(|_| !key.is_empty())?;
        Some(Self { issuer: issuer.to_owned(), mac })
    }

    /// Whether `value` is a `Grip-Sig` of our Pushpin's, now (in seconds since 1970).
    pub fn verifies(&self, value: &str, now: u64) -> bool {
        // A `Grip-Sig` has about 150 bytes.
        value.len() <= 1024 && self.check(value, now).is_some()
    }

    fn check(&self, value: &str, now: u64) -> Option<()> {
        let (signed, header, payload, signature) = parts(value)?;
        let mut mac = self.mac.clone();
        mac.update(signed.as_bytes());
        mac.verify_slice(&URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
        let header = json(header).ok()?;
        let payload = json(payload).ok()?;
        let expires = payload.get("exp").and_then(Value::as_u64)?;
        (header.get("alg").and_then(Value::as_str) == Some("HS256")
            && payload.get("iss").and_then(Value::as_str) == Some(self.issuer.as_str())
            && expires > now)
            .then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn token(header: &str) -> String {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.{}", encode(header), encode("{}"), encode("s"))
    }

    fn error(header: &str) -> Option<JwtError> {
        match parse(&token(header)) {
            Ok(Jwt { algorithm: None, .. }) => Some(JwtError::Algorithm),
            Ok(_) => None,
            Err(error) => Some(error),
        }
    }

    #[test]
    fn only_known_algorithms_and_kinds() {
        for good in [
            r#"{"alg":"RS256"}"#,
            r#"{"alg":"ES256","typ":"JWT","kid":"k"}"#,
            r#"{"alg":"RS256","typ":"at+jwt"}"#,
            r#"{"alg":"RS256","typ":"application/AT+JWT","jku":"https://evil.example"}"#,
            r#"{"alg":"EdDSA"}"#,
        ] {
            assert_eq!(error(good), None, "{good}");
        }
        for bad in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"None"}"#,
            r#"{"alg":"HS256"}"#,
            r#"{"alg":"rs256"}"#,
            r#"{"alg":["RS256"]}"#,
            r#"{"alg":null}"#,
            "{}",
            r#"{"alg":"PS384"}"#,
            r#"{"alg":"ES256K"}"#,
            r#"{"alg":"EDDSA"}"#,
        ] {
            assert_eq!(error(bad), Some(JwtError::Algorithm), "{bad}");
        }
        for bad in [
            r#"{"alg":"RS256","typ":"dpop+jwt"}"#,
            r#"{"alg":"RS256","crit":["b64"]}"#,
            r#"{"alg":"RS256","typ":1}"#,
        ] {
            assert_eq!(error(bad), Some(JwtError::Kind), "{bad}");
        }
        for bad in [r#"{"alg":"none","alg":"RS256"}"#, r#"{"alg":"RS256","kid":1}"#, "[]", "x"] {
            assert_eq!(error(bad), Some(JwtError::Malformed), "{bad}");
        }
    }

    #[test]
    fn the_form_is_strict() {
        let good = token(r#"{"alg":"RS256"}"#);
        for bad in [
            String::new(),
            ".".into(),
            "..".into(),
            "a.b".into(),
            format!("{good}="),
            format!("{good}.x"),
            format!(" {good}"),
            good.replace('.', ".."),
            format!("{good}!"),
            format!("{good}\n"),
        ] {
            assert_eq!(parse(&bad).err(), Some(JwtError::Malformed), "{bad}");
        }
    }

    fn grip(header: &str, payload: &str, key: &[u8]) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    }

    #[test]
    fn grip_signatures() {
        let key = GripKey::new("pushpin", b"secret").unwrap();
        let (header, payload) = (r#"{"typ":"JWT","alg":"HS256"}"#, r#"{"iss":"pushpin","exp":200}"#);
        assert!(key.verifies(&grip(header, payload, b"secret"), 199));
        assert!(!key.verifies(&grip(header, payload, b"secret"), 200));
        assert!(!key.verifies(&grip(header, payload, b"other"), 199));
        assert!(!key.verifies(&grip(r#"{"alg":"none"}"#, payload, b"secret"), 199));
        assert!(!key.verifies(&grip(header, r#"{"iss":"other","exp":200}"#, b"secret"), 199));
        assert!(!key.verifies(&grip(header, r#"{"iss":"pushpin"}"#, b"secret"), 199));
        assert!(!key.verifies("", 199));
        assert!(GripKey::new("pushpin", b"").is_none());
    }

    proptest! {
        #[test]
        fn never_panics(text in "[A-Za-z0-9_.=-]{0,60}|\\PC{0,30}") {
            let _ = parse(&text);
            prop_assert!(!GripKey::new("pushpin", b"secret").unwrap().verifies(&text, 0));
        }
    }
}
