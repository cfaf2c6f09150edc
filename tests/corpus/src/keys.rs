//! Keys of the issuer and of strangers, and tokens and assertions with and without faults.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use identity::{Assertion, AssertionKeys};
use p256::ecdsa;
use rsa::signature::{RandomizedSigner as _, SignatureEncoding as _, Signer};
use rsa::traits::PublicKeyParts as _;
use rsa::{pkcs1v15, pss};
use serde_json::{Map, Value, json};
use sha2::{Sha256, Sha384, Sha512};

use crate::rows::merge;

/// What the gateway and the backend share in the tests.
pub const ASSERTION_KEYS: &str = "test:c2VjcmV0LW9mLWF0LWxlYXN0LTMyLWJ5dGVzLWhlcmUh";

type RsaKey = pkcs1v15::SigningKey<Sha256>;

/// The issuer's keys, and a stranger's.
pub struct Keys {
    rsa: RsaKey,
    stranger: RsaKey,
    enc: RsaKey,
    ec: ecdsa::SigningKey,
    ec_stranger: ecdsa::SigningKey,
    ec384: p384::ecdsa::SigningKey,
    ed: ed25519_compact::KeyPair,
}

fn rsa_key() -> RsaKey {
    pkcs1v15::SigningKey::new(rsa::RsaPrivateKey::new(&mut rand::rng(), 2048).unwrap())
}

fn ec_key() -> ecdsa::SigningKey {
    let secret = std::iter::repeat_with(rand::random::<[u8; 32]>);
    secret.filter_map(|bytes| ecdsa::SigningKey::from_slice(&bytes).ok()).next().unwrap()
}

fn rsa_jwk(key: &RsaKey, id: &str, usage: &str) -> Value {
    let key: &rsa::RsaPrivateKey = key.as_ref();
    let encode = |number: &rsa::BoxedUint| URL_SAFE_NO_PAD.encode(number.to_be_bytes_trimmed_vartime());
    json!({"kty": "RSA", "kid": id, "use": usage, "n": encode(key.n()), "e": encode(key.e())})
}

impl Default for Keys {
    fn default() -> Self {
        Self::new()
    }
}

impl Keys {
    pub fn new() -> Self {
        let secret = std::iter::repeat_with(rand::random::<[u8; 48]>);
        let ec384 =
            secret.filter_map(|bytes| p384::ecdsa::SigningKey::from_slice(&bytes).ok()).next().unwrap();
        let ed = ed25519_compact::KeyPair::from_seed(ed25519_compact::Seed::new(rand::random()));
        let (ec, ec_stranger) = (ec_key(), ec_key());
        Self { rsa: rsa_key(), stranger: rsa_key(), enc: rsa_key(), ec, ec_stranger, ec384, ed }
    }

    /// The key set as an issuer publishes it: with a key for encryption, some of kinds and on curves that are not
    /// taken, and some that are no keys.
    pub fn jwks(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let point = self.ec.verifying_key().to_sec1_point(false);
        let (x, y) = point.as_bytes()[1..].split_at(32);
        let (x, y) = (encode(x), encode(y));
        let point = self.ec384.verifying_key().to_sec1_point(false);
        let (x384, y384) = point.as_bytes()[1..].split_at(48);
        let mut only_ps = rsa_jwk(&self.rsa, "rsa-ps", "sig");
        only_ps["alg"] = "PS256".into();
        json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "kid": "ed-0", "x": "AAAA"},
            {"kty": "OKP", "crv": "Ed448", "kid": "ed-2", "x": "AAAA"},
            {"kty": "OKP", "crv": "X25519", "kid": "x-1", "x": encode(&*self.ed.pk)},
            {"kty": "EC", "crv": "P-256", "kid": "ec-0", "x": y, "y": x},
            {"kty": "EC", "crv": "secp256k1", "kid": "ec-k1", "x": x, "y": y},
            rsa_jwk(&self.enc, "enc-1", "enc"),
            rsa_jwk(&self.rsa, "rsa-1", "sig"),
            {"kty": "EC", "crv": "P-256", "kid": "ec-1", "x": x, "y": y},
            {"kty": "EC", "crv": "P-384", "kid": "ec-3", "x": encode(x384), "y": encode(y384)},
            {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "ed-1", "x": encode(&*self.ed.pk)},
            only_ps,
        ]})
    }

    fn sign(&self, how: &str, message: &[u8]) -> Vec<u8> {
        let rsa = |key: &RsaKey| key.sign(message).to_vec();
        let ec = |key: &ecdsa::SigningKey| Signer::<ecdsa::Signature>::sign(key, message).to_bytes().to_vec();
        let flipped = |mut signature: Vec<u8>| {
            signature[10] ^= 1;
            signature
        };
        let hmac = |secret: &[u8]| {
            let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
            mac.update(message);
            mac.finalize().into_bytes().to_vec()
        };
        // The order of P-256.
        const ORDER: &str = "_____wAAAAD__________7zm-q2nF56E87nKwvxjJVE";
        match how {
            "rsa" | "other-payload" => rsa(&self.rsa),
            "rs384" => {
                let key: &rsa::RsaPrivateKey = self.rsa.as_ref();
                pkcs1v15::SigningKey::<Sha384>::new(key.clone()).sign(message).to_vec()
            }
            "rs512" => {
                let key: &rsa::RsaPrivateKey = self.rsa.as_ref();
                pkcs1v15::SigningKey::<Sha512>::new(key.clone()).sign(message).to_vec()
            }
            "ps256" | "ps256-flipped" => {
                let key: &rsa::RsaPrivateKey = self.rsa.as_ref();
                let key = pss::SigningKey::<Sha256>::new(key.clone());
                let signature = key.sign_with_rng(&mut rand::rng(), message).to_vec();
                if how == "ps256" { signature } else { flipped(signature) }
            }
            "es384" => Signer::<p384::ecdsa::Signature>::sign(&self.ec384, message).to_bytes().to_vec(),
            "es384-flipped" => {
                flipped(Signer::<p384::ecdsa::Signature>::sign(&self.ec384, message).to_bytes().to_vec())
            }
            "ed" => self.ed.sk.sign(message, None).to_vec(),
            "ed-flipped" => flipped(self.ed.sk.sign(message, None).to_vec()),
            "ec" => ec(&self.ec),
            "stranger" => rsa(&self.stranger),
            "ec-stranger" => ec(&self.ec_stranger),
            "enc" => rsa(&self.enc),
            "flipped" => flipped(rsa(&self.rsa)),
            "ec-flipped" => flipped(ec(&self.ec)),
            "ec-der" => {
                let signature: ecdsa::Signature = self.ec.sign(message);
                signature.to_der().as_bytes().to_vec()
            }
            // r = s = 0: what some verifiers took for a signature of anything (CVE-2022-21449).
            "zeros" => vec![0; 64],
            "orders" => URL_SAFE_NO_PAD.decode(ORDER).unwrap().repeat(2),
            "rsa-zeros" => vec![0; 256],
            "rsa-short" => rsa(&self.rsa)[..255].to_vec(),
            "empty" => Vec::new(),
            "hmac-public" => hmac(rsa_jwk(&self.rsa, "", "")["n"].as_str().unwrap().as_bytes()),
            "hmac-jwk" => hmac(rsa_jwk(&self.rsa, "rsa-1", "sig").to_string().as_bytes()),
            "hmac-empty" => hmac(b""),
            other => panic!("unknown way to sign: {other}"),
        }
    }

    /// A token. `now` is in seconds since 1970. `opaque` is one that only [`introspection`] can read.
    pub fn token(&self, how: &str, jose: &Value, claims: &Value, now: u64) -> String {
        self.token_of(how, (jose, "@"), (claims, "@"), now)
    }

    /// The same, header and payload written by templates: `@` is the object; in a longer text, `@all` is it, and
    /// `@inner` what stands between its braces.
    pub fn token_of(&self, how: &str, jose: (&Value, &str), claims: (&Value, &str), now: u64) -> String {
        if how == "opaque" {
            return format!("opaque-{}", URL_SAFE_NO_PAD.encode(filled(claims.0, now).to_string()));
        }
        let mut header = jose.0.clone();
        if header["jwk"] == "{stranger-jwk}" {
            header["jwk"] = rsa_jwk(&self.stranger, "rsa-1", "sig");
        }
        let encode = |value: &Value, template: &str| {
            let text = filled(value, now).to_string();
            let inner = &text[1..text.len() - 1];
            URL_SAFE_NO_PAD.encode(match template {
                "@" => text.clone(),
                _ => template.replace("@inner", inner).replace("@all", &text),
            })
        };
        let signed = format!("{}.{}", encode(&header, jose.1), encode(claims.0, claims.1));
        let signature = URL_SAFE_NO_PAD.encode(self.sign(how, signed.as_bytes()));
        let mut other = claims.0.clone();
        other["sub"] = "somebody-else".into();
        let signed = if how == "other-payload" {
            format!("{}.{}", encode(&header, jose.1), encode(&other, claims.1))
        } else {
            signed
        };
        format!("{signed}.{signature}")
    }
}

/// An assertion with these claims, signed as asked: `right`, or by a `stranger` with the same key id.
pub(crate) fn assertion(how: &str, claims: &Value, now: u64) -> String {
    let secret = match how {
        "right" => ASSERTION_KEYS.to_owned(),
        "stranger" => format!("test:{}", URL_SAFE_NO_PAD.encode([7; 32])),
        "other-id" => format!("other:{}", URL_SAFE_NO_PAD.encode([7; 32])),
        other => panic!("unknown way to sign an assertion: {other}"),
    };
    let claims: Assertion = serde_json::from_value(filled(claims, now)).expect("an assertion's claims");
    AssertionKeys::parse(&secret).unwrap().sign(&claims)
}

/// What the issuers answer to a question about a token (RFC 7662): its claims, with the patch that its
/// claim `answer` has laid over; `{"status": 400}` in there is the HTTP status of the answer.
pub fn introspection(question: &str) -> (u16, String) {
    let token = question.split('&').find_map(|pair| pair.strip_prefix("token=")).unwrap_or_default();
    let payload = match token.strip_prefix("opaque-") {
        Some(rest) => rest,
        None => token.split('.').nth(1).unwrap_or_default(),
    };
    let payload = URL_SAFE_NO_PAD.decode(payload).ok();
    let payload: Option<Value> = payload.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let Some(mut answer) = payload.filter(Value::is_object) else {
        return (200, json!({"active": false}).to_string());
    };
    let patch = answer.as_object_mut().and_then(|members| members.remove("answer")).unwrap_or(json!({}));
    answer["active"] = true.into();
    merge(&mut answer, &patch);
    let status = answer["status"].as_u64().map_or(200, |status| status.try_into().unwrap());
    (status, answer.to_string())
}

/// Puts times in for `"@-31"`, and long texts for `"#9000"`.
fn filled(value: &Value, now: u64) -> Value {
    match value {
        Value::String(text) if text.starts_with('@') => {
            json!(now.checked_add_signed(text[1..].parse().unwrap()).unwrap())
        }
        Value::String(text) if text.starts_with('#') => json!("x".repeat(text[1..].parse().unwrap())),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (name.clone(), filled(value, now)))
            .collect::<Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

/// A `Grip-Sig` as Pushpin makes it for a configuration of the filter.
pub fn grip_sig(config: &Value, expires: u64) -> String {
    let key = URL_SAFE_NO_PAD.decode(config["grip"]["key"].as_str().unwrap()).unwrap();
    let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = encode(json!({"typ": "JWT", "alg": "HS256"}));
    let signed = format!("{header}.{}", encode(json!({"iss": config["grip"]["issuer"], "exp": expires})));
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}
