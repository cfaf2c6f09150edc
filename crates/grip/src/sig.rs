//! `Grip-Sig`: the proof that a request came through Pushpin.
//!
//! Pushpin signs every request that it proxies with a JWT (RFC 7519) of algorithm HS256 whose claims are `iss`
//! and `exp`, an hour ahead. It proves no more than that: no path, no body, no nonce. Every origin behind the
//! same Pushpin sees it and could replay it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// The longest `Grip-Sig` that is looked at, in bytes. Pushpin's own has about 150.
pub const MAX_GRIP_SIG: usize = 2048;

/// Why a `Grip-Sig` was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GripSigError {
    /// Not a compact JWT with the two claims, or longer than [`MAX_GRIP_SIG`].
    #[error("the Grip-Sig is not a JWT with iss and exp")]
    Malformed,
    /// The algorithm is not HS256.
    #[error("the Grip-Sig is not signed with HS256")]
    Algorithm,
    /// The signature was not made with the key.
    #[error("the Grip-Sig was made with another key")]
    Signature,
    /// The issuer is not the expected one.
    #[error("the Grip-Sig names another issuer")]
    Issuer,
    /// It has expired.
    #[error("the Grip-Sig has expired")]
    Expired,
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    exp: u64,
}

/// Checks the value of a `Grip-Sig` header. `iss` and `key` are Pushpin's `sig_iss` and `sig_key` (the raw
/// bytes, decoded if the configuration gives them as `base64:…`); `now` is in seconds since 1970.
///
/// The signature is compared in constant time, before anything that it covers is read.
///
/// # Errors
/// [`GripSigError`] says what is wrong; the caller should not tell the client.
///
/// ```
/// let sig = grip::sign_grip_sig("pushpin", b"secret", 1_700_000_060);
/// assert!(grip::verify_grip_sig(&sig, "pushpin", b"secret", 1_700_000_000).is_ok());
/// assert!(grip::verify_grip_sig(&sig, "pushpin", b"another", 1_700_000_000).is_err());
/// ```
pub fn verify_grip_sig(value: &str, iss: &str, key: &[u8], now: u64) -> Result<(), GripSigError> {
    if value.len() > MAX_GRIP_SIG {
        return Err(GripSigError::Malformed);
    }
    let (signed, signature) = value.rsplit_once('.').ok_or(GripSigError::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(GripSigError::Malformed)?;
    let header: Header = part(header)?;
    if header.alg != "HS256" {
        return Err(GripSigError::Algorithm);
    }
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| GripSigError::Malformed)?;
    mac(key, signed).verify_slice(&signature).map_err(|_| GripSigError::Signature)?;
    let claims: Claims = part(claims)?;
    if claims.iss != iss {
        return Err(GripSigError::Issuer);
    }
    if claims.exp <= now {
        return Err(GripSigError::Expired);
    }
    Ok(())
}

/// Makes a `Grip-Sig` as Pushpin does. For tests, and for a publisher that signs its own requests; `exp` is in
/// seconds since 1970.
#[must_use]
pub fn sign_grip_sig(iss: &str, key: &[u8], exp: u64) -> String {
    let claims = serde_json::json!({ "iss": iss, "exp": exp }).to_string();
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"HS256"}"#),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let signature = URL_SAFE_NO_PAD.encode(mac(key, &signed).finalize().into_bytes());
    format!("{signed}.{signature}")
}

fn part<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, GripSigError> {
    let json = URL_SAFE_NO_PAD.decode(text).map_err(|_| GripSigError::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| GripSigError::Malformed)
}

fn mac(key: &[u8], signed: &str) -> Hmac<Sha256> {
    // HMAC takes a key of any length (RFC 2104), so the error can't happen; an empty key is as good as any
    // other in a branch that is never taken, and it accepts nothing that was signed with `key`.
    let mut mac = Hmac::<Sha256>::new_from_slice(key)
        .unwrap_or_else(|_| Hmac::<Sha256>::new(&hmac::digest::Key::<Hmac<Sha256>>::default()));
    mac.update(signed.as_bytes());
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn verify(value: &str) -> Result<(), GripSigError> {
        verify_grip_sig(value, "pushpin", KEY, 1000)
    }

    #[test]
    fn its_own_signature_verifies() {
        assert_eq!(verify(&sign_grip_sig("pushpin", KEY, 1001)), Ok(()));
    }

    #[test]
    fn a_token_of_another_implementation_verifies() {
        // The example of RFC 7515, appendix A.1: made elsewhere, with a key of 64 bytes.
        let key = URL_SAFE_NO_PAD
            .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
            .unwrap();
        let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQog\
                     Imh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(verify_grip_sig(token, "joe", &key, 1_300_819_379), Ok(()));
        assert_eq!(verify_grip_sig(token, "joe", &key, 1_300_819_380), Err(GripSigError::Expired));
    }

    #[test]
    fn each_fault_is_told_apart() {
        assert_eq!(verify(&sign_grip_sig("other", KEY, 1001)), Err(GripSigError::Issuer));
        assert_eq!(verify(&sign_grip_sig("pushpin", KEY, 1000)), Err(GripSigError::Expired));
        assert_eq!(verify(&sign_grip_sig("pushpin", b"other", 1001)), Err(GripSigError::Signature));
        assert_eq!(verify(&sign_grip_sig("pushpin", b"", 1001)), Err(GripSigError::Signature));
        for value in ["", ".", "..", "a.b.c", "e30.e30.", &"a".repeat(MAX_GRIP_SIG + 1)] {
            assert_eq!(verify(value), Err(GripSigError::Malformed), "{value}");
        }
    }

    #[test]
    fn another_algorithm_is_refused_before_the_signature() {
        let claims = URL_SAFE_NO_PAD.encode(r#"{"iss":"pushpin","exp":1001}"#);
        for alg in ["none", "HS384", "RS256", "hs256"] {
            let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{alg}"}}"#));
            assert_eq!(verify(&format!("{header}.{claims}.")), Err(GripSigError::Algorithm));
        }
    }

    #[test]
    fn a_cut_or_changed_signature_is_refused() {
        let sig = sign_grip_sig("pushpin", KEY, 1001);
        let (signed, signature) = sig.rsplit_once('.').unwrap();
        assert_eq!(verify(&format!("{signed}.")), Err(GripSigError::Signature));
        assert_eq!(verify(&format!("{signed}.{}", &signature[..20])), Err(GripSigError::Signature));
        let claims = URL_SAFE_NO_PAD.encode(r#"{"iss":"pushpin","exp":9999}"#);
        let header = signed.split_once('.').unwrap().0;
        assert_eq!(verify(&format!("{header}.{claims}.{signature}")), Err(GripSigError::Signature));
    }
}
