//! Key sets (RFC 7517) and the verification of signatures with their keys.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::ecdsa;
use rsa::pkcs1v15;
use rsa::signature::Verifier as _;
use rsa::{BoxedUint, RsaPublicKey};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::config::Algorithm;

/// Largest key set that is read, in bytes.
pub const MAX_BODY: usize = 256 * 1024;
/// Most keys that are kept of a set.
pub const MAX_KEYS: usize = 32;
/// Sizes of RSA keys that are used, in bits. Below, they are weak; above, verification would take long.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// What tells two keys apart whatever their ids: a hash of algorithm and public key.
pub type Fingerprint = [u8; 32];

/// A public key that verifies tokens.
pub struct Key {
    /// `kid`.
    pub id: Option<String>,
    /// Hash of the key itself.
    pub fingerprint: Fingerprint,
    public: Public,
}

enum Public {
    Rsa(Box<pkcs1v15::VerifyingKey<Sha256>>),
    P256(Box<ecdsa::VerifyingKey>),
}

/// Why a key set is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// Larger than [`MAX_BODY`].
    #[error("the key set is larger than {MAX_BODY} bytes")]
    TooLarge,
    /// Not a JSON object with a list `keys`.
    #[error("the key set is not a JSON object with a list of keys")]
    Malformed,
    /// No key in it that can verify a token here.
    #[error("the key set has no RSA key (2048 to 4096 bits) and no P-256 key for signatures")]
    NoKeys,
}

/// Reads a key set. Keys of other kinds or for other uses are passed over, and so are malformed ones:
/// one bad key must not lock everybody out.
///
/// # Errors
/// [`JwksError`].
pub fn parse(json: &[u8]) -> Result<Vec<Key>, JwksError> {
    if json.len() > MAX_BODY {
        return Err(JwksError::TooLarge);
    }
    let set = identity::json::read(json).map_err(|_| JwksError::Malformed)?;
    let jwks = set.get("keys").and_then(Value::as_array).ok_or(JwksError::Malformed)?;
    let keys: Vec<Key> = jwks.iter().filter_map(key).take(MAX_KEYS).collect();
    if keys.is_empty() {
        return Err(JwksError::NoKeys);
    }
    Ok(keys)
}

fn key(jwk: &Value) -> Option<Key> {
    // A member that should be a string and is none makes the key malformed.
    let text = |name: &str| match jwk.get(name) {
        None => Some(None),
        Some(value) => value.as_str().map(Some),
    };
    if text("use")?.is_some_and(|usage| usage != "sig") {
        return None;
    }
    let decode = |name: &str| URL_SAFE_NO_PAD.decode(text(name)??).ok();
    let (public, name, parts) = match (text("kty")??, text("crv")?) {
        ("RSA", _) => {
            let (n, e) = (decode("n")?, decode("e")?);
            if n.len().saturating_mul(8) > RSA_BITS.end().saturating_add(8) || e.len() > 8 {
                return None;
            }
            let modulus = BoxedUint::from_be_slice_vartime(&n);
            let exponent = BoxedUint::from_be_slice_vartime(&e);
            let public = RsaPublicKey::new_with_size_limits(modulus, exponent, RSA_BITS).ok()?;
            (Public::Rsa(Box::new(pkcs1v15::VerifyingKey::new(public))), "RS256", [n, e])
        }
        ("EC", Some("P-256")) => {
            let (x, y) = (decode("x")?, decode("y")?);
            if x.len() != 32 || y.len() != 32 {
                return None;
            }
            let point = [&[4u8], x.as_slice(), y.as_slice()].concat();
            let public = ecdsa::VerifyingKey::from_sec1_bytes(&point).ok()?;
            (Public::P256(Box::new(public)), "ES256", [x, y])
        }
        _ => return None,
    };
    if text("alg")?.is_some_and(|alg| alg != name) {
        return None;
    }
    let mut hash = Sha256::new();
    hash.update(name);
    for part in &parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let id = text("kid")?.map(str::to_owned);
    Some(Key { id, fingerprint: hash.finalize().into(), public })
}

impl Key {
    /// The one algorithm that this key is for.
    pub fn algorithm(&self) -> Algorithm {
        match self.public {
            Public::Rsa(_) => Algorithm::RS256,
            Public::P256(_) => Algorithm::ES256,
        }
    }

    /// Whether `signature` is this key's over `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.public {
            Public::Rsa(key) => pkcs1v15::Signature::try_from(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
            Public::P256(key) => ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
        }
    }
}
