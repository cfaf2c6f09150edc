//! Key sets (RFC 7517) and the verification of signatures with their keys.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::elliptic_curve::FieldBytes;
use p256::elliptic_curve::point::AffineCoordinates;
use rsa::traits::SignatureScheme as _;
use rsa::{BoxedUint, Pkcs1v15Sign, Pss, RsaPublicKey};
use serde_json::Value;
use sha2::{Digest as _, Sha256, Sha384, Sha512};

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
    /// `alg`: the one algorithm that it is for, if the set says so.
    algorithm: Option<Algorithm>,
    public: Public,
}

enum Public {
    Rsa(Box<RsaPublicKey>),
    P256(Box<p256::ecdsa::VerifyingKey>),
    P384(Box<p384::ecdsa::VerifyingKey>),
    Ed25519(Box<ed25519_compact::PublicKey>),
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
    #[error("the key set has no RSA (2048 to 4096 bits), P-256, P-384 or Ed25519 key for signatures")]
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

/// The members of a key that all may know (RFC 7518 section 6).
const PUBLIC: [&str; 9] = ["kty", "use", "alg", "kid", "crv", "n", "e", "x", "y"];

/// The set with the public members of its keys, and no others.
pub fn public(json: &[u8]) -> Option<String> {
    let set = identity::json::read(json).ok()?;
    let mut out = String::from("{\"keys\":[");
    for jwk in set.get("keys")?.as_array()?.iter().take(MAX_KEYS) {
        let mut before = if out.ends_with('[') { "{" } else { ",{" };
        for name in PUBLIC {
            if let Some(value @ Value::String(_)) = jwk.get(name) {
                out.push_str(&format!("{before}\"{name}\":{value}"));
                before = ",";
            }
        }
        if before == "," {
            out.push('}');
        }
    }
    out.push_str("]}");
    Some(out)
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
    let (public, parts) = match (text("kty")??, text("crv")?) {
        ("RSA", _) => {
            let (n, e) = (decode("n")?, decode("e")?);
            if n.len().saturating_mul(8) > RSA_BITS.end().saturating_add(8) || e.len() > 8 {
                return None;
            }
            let modulus = BoxedUint::from_be_slice_vartime(&n);
            let exponent = BoxedUint::from_be_slice_vartime(&e);
            let public = RsaPublicKey::new_with_size_limits(modulus, exponent, RSA_BITS).ok()?;
            (Public::Rsa(Box::new(public)), [n, e])
        }
        ("EC", Some("P-256")) => {
            let (x, y) = (decode("x")?, decode("y")?);
            let (x_field, y_field) =
                (FieldBytes::<p256::NistP256>::try_from(x.as_slice()), y.as_slice().try_into());
            // A point that is not on the curve is none.
            let point = p256::AffinePoint::from_coordinates(&x_field.ok()?, &y_field.ok()?).into_option()?;
            (Public::P256(Box::new(p256::ecdsa::VerifyingKey::from_affine(point).ok()?)), [x, y])
        }
        ("EC", Some("P-384")) => {
            let (x, y) = (decode("x")?, decode("y")?);
            let (x_field, y_field) =
                (FieldBytes::<p384::NistP384>::try_from(x.as_slice()), y.as_slice().try_into());
            let point = p384::AffinePoint::from_coordinates(&x_field.ok()?, &y_field.ok()?).into_option()?;
            (Public::P384(Box::new(p384::ecdsa::VerifyingKey::from_affine(point).ok()?)), [x, y])
        }
        ("OKP", Some("Ed25519")) => {
            let x = decode("x")?;
            let public = ed25519_compact::PublicKey::from_slice(&x).ok()?;
            (Public::Ed25519(Box::new(public)), [x, Vec::new()])
        }
        _ => return None,
    };
    let algorithm = match text("alg")? {
        None => None,
        // For an algorithm that is not of this key's kind, or not known, a key is of no use.
        Some(name) => Some(Algorithm::named(name).filter(|algorithm| public.fits(*algorithm))?),
    };
    let mut hash = Sha256::new();
    hash.update([public.kind()]);
    for part in &parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let id = text("kid")?.map(str::to_owned);
    Some(Key { id, fingerprint: hash.finalize().into(), algorithm, public })
}

impl Public {
    fn kind(&self) -> u8 {
        match self {
            Self::Rsa(_) => 1,
            Self::P256(_) => 2,
            Self::P384(_) => 3,
            Self::Ed25519(_) => 4,
        }
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        use Algorithm::{ES256, ES384, EdDSA, PS256, RS256, RS384, RS512};
        match self {
            Self::Rsa(_) => matches!(algorithm, RS256 | RS384 | RS512 | PS256),
            Self::P256(_) => algorithm == ES256,
            Self::P384(_) => algorithm == ES384,
            Self::Ed25519(_) => algorithm == EdDSA,
        }
    }
}

/// The hash of a message that an algorithm signs; the message itself for EdDSA.
fn hash(algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
    match algorithm {
        Algorithm::RS256 | Algorithm::PS256 | Algorithm::ES256 => Sha256::digest(message).to_vec(),
        Algorithm::RS384 | Algorithm::ES384 => Sha384::digest(message).to_vec(),
        Algorithm::RS512 => Sha512::digest(message).to_vec(),
        Algorithm::EdDSA => message.to_vec(),
    }
}

impl Key {
    /// Whether it can be the key of a signature by this algorithm.
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        self.algorithm.is_none_or(|own| own == algorithm) && self.public.fits(algorithm)
    }

    /// Whether it can be the key of a signature by this algorithm, in a token that names the key `id`, or none.
    pub fn is_for(&self, id: Option<&str>, algorithm: Algorithm) -> bool {
        self.fits(algorithm) && (id.is_none() || self.id.as_deref() == id)
    }

    /// Whether `signature` is this key's over `message`, by an algorithm that fits it.
    pub fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
        if !self.fits(algorithm) {
            return false;
        }
        let hash = hash(algorithm, message);
        match &self.public {
            Public::Rsa(key) => {
                let scheme = match algorithm {
                    Algorithm::PS256 => {
                        return Pss::<Sha256>::new().verify(key, &hash, signature).is_ok();
                    }
                    Algorithm::RS384 => Pkcs1v15Sign::new::<Sha384>(),
                    Algorithm::RS512 => Pkcs1v15Sign::new::<Sha512>(),
                    _ => Pkcs1v15Sign::new::<Sha256>(),
                };
                scheme.verify(key, &hash, signature).is_ok()
            }
            Public::P256(key) => p256::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_prehash(&hash, &signature).is_ok()),
            Public::P384(key) => p384::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_prehash(&hash, &signature).is_ok()),
            Public::Ed25519(key) => ed25519_compact::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(&hash, &signature).is_ok()),
        }
    }
}
