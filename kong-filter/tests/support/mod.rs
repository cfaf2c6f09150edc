//! What the tests of the filter share: the table of faults, and tokens with and without faults.
//!
//! Another test (a host that imitates Kong) reads the same table by including this file.

#![allow(dead_code, unreachable_pub)] // each test uses a part

pub mod net;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use p256::ecdsa;
use rsa::signature::{RandomizedSigner as _, SignatureEncoding as _, Signer};
use rsa::traits::PublicKeyParts as _;
use rsa::{pkcs1v15, pss};
use serde_json::{Map, Value, json};
use sha2::{Sha256, Sha384, Sha512};

/// The issuer's keys, and a stranger's.
pub struct Keys {
    rsa: pkcs1v15::SigningKey<Sha256>,
    stranger: pkcs1v15::SigningKey<Sha256>,
    enc: pkcs1v15::SigningKey<Sha256>,
    ec: ecdsa::SigningKey,
    ec384: p384::ecdsa::SigningKey,
    ed: ed25519_compact::KeyPair,
}

fn rsa_key() -> pkcs1v15::SigningKey<Sha256> {
    pkcs1v15::SigningKey::new(rsa::RsaPrivateKey::new(&mut rand::rng(), 2048).unwrap())
}

fn rsa_jwk(key: &pkcs1v15::SigningKey<Sha256>, id: &str, usage: &str) -> Value {
    let key: &rsa::RsaPrivateKey = key.as_ref();
    let encode = |number: &rsa::BoxedUint| URL_SAFE_NO_PAD.encode(number.to_be_bytes_trimmed_vartime());
    json!({"kty": "RSA", "kid": id, "use": usage, "n": encode(key.n()), "e": encode(key.e())})
}

impl Keys {
    pub fn new() -> Self {
        let secret = std::iter::repeat_with(rand::random::<[u8; 32]>);
        let ec = secret.filter_map(|bytes| ecdsa::SigningKey::from_slice(&bytes).ok()).next().unwrap();
        let secret = std::iter::repeat_with(rand::random::<[u8; 48]>);
        let ec384 =
            secret.filter_map(|bytes| p384::ecdsa::SigningKey::from_slice(&bytes).ok()).next().unwrap();
        let ed = ed25519_compact::KeyPair::from_seed(ed25519_compact::Seed::new(rand::random()));
        Self { rsa: rsa_key(), stranger: rsa_key(), enc: rsa_key(), ec, ec384, ed }
    }

    /// The key set as an issuer publishes it: with a key for encryption, and one of an unknown kind.
    pub fn jwks(&self) -> Value {
        let point = self.ec.verifying_key().to_sec1_point(false);
        let (x, y) = point.as_bytes()[1..].split_at(32);
        let point = self.ec384.verifying_key().to_sec1_point(false);
        let (x384, y384) = point.as_bytes()[1..].split_at(48);
        let mut only_ps = rsa_jwk(&self.rsa, "rsa-ps", "sig");
        only_ps["alg"] = "PS256".into();
        json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "kid": "ed-0", "x": "AAAA"},
            {"kty": "OKP", "crv": "Ed448", "kid": "ed-2", "x": "AAAA"},
            {"kty": "EC", "crv": "P-256", "kid": "ec-0", "x": URL_SAFE_NO_PAD.encode(y), "y": URL_SAFE_NO_PAD.encode(x)},
            rsa_jwk(&self.enc, "enc-1", "enc"),
            rsa_jwk(&self.rsa, "rsa-1", "sig"),
            {"kty": "EC", "crv": "P-256", "kid": "ec-1", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)},
            {"kty": "EC", "crv": "P-384", "kid": "ec-3", "x": URL_SAFE_NO_PAD.encode(x384), "y": URL_SAFE_NO_PAD.encode(y384)},
            {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "ed-1", "x": URL_SAFE_NO_PAD.encode(*self.ed.pk)},
            only_ps,
        ]})
    }

    fn sign(&self, how: &str, message: &[u8]) -> Vec<u8> {
        let rsa = |key: &pkcs1v15::SigningKey<Sha256>| key.sign(message).to_vec();
        let ec = || Signer::<ecdsa::Signature>::sign(&self.ec, message).to_bytes().to_vec();
        let flipped = |mut signature: Vec<u8>| {
            signature[10] ^= 1;
            signature
        };
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
            "ec" => ec(),
            "ec-der" => Signer::<ecdsa::Signature>::sign(&self.ec, message).to_der().as_bytes().to_vec(),
            "ec-zero" => vec![0; 64],
            "es384" => Signer::<p384::ecdsa::Signature>::sign(&self.ec384, message).to_bytes().to_vec(),
            "es384-flipped" => {
                flipped(Signer::<p384::ecdsa::Signature>::sign(&self.ec384, message).to_bytes().to_vec())
            }
            "ed" => self.ed.sk.sign(message, None).to_vec(),
            "ed-flipped" => flipped(self.ed.sk.sign(message, None).to_vec()),
            "stranger" => rsa(&self.stranger),
            "enc" => rsa(&self.enc),
            "flipped" => flipped(rsa(&self.rsa)),
            "ec-flipped" => flipped(ec()),
            "empty" => Vec::new(),
            "hmac-public" => {
                let mut mac = Hmac::<Sha256>::new_from_slice(
                    rsa_jwk(&self.rsa, "", "")["n"].as_str().unwrap().as_bytes(),
                )
                .unwrap();
                mac.update(message);
                mac.finalize().into_bytes().to_vec()
            }
            other => panic!("unknown way to sign: {other}"),
        }
    }

    /// A token. `now` is in seconds since 1970. `opaque` is one that only [`introspection`] can read.
    pub fn token(&self, how: &str, jose: &Value, claims: &Value, now: u64) -> String {
        if how == "opaque" {
            return format!("opaque-{}", URL_SAFE_NO_PAD.encode(filled(claims, now).to_string()));
        }
        let mut jose = jose.clone();
        if jose["jwk"] == "{stranger-jwk}" {
            jose["jwk"] = rsa_jwk(&self.stranger, "rsa-1", "sig");
        }
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(filled(value, now).to_string());
        let signed = format!("{}.{}", encode(&jose), encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.sign(how, signed.as_bytes()));
        let mut other = claims.clone();
        other["sub"] = "somebody-else".into();
        let signed =
            if how == "other-payload" { format!("{}.{}", encode(&jose), encode(&other)) } else { signed };
        format!("{signed}.{signature}")
    }
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

/// Lays `patch` over `value`: objects member by member, `null` removes, everything else replaces.
pub fn merge(value: &mut Value, patch: &Value) {
    let (Value::Object(members), Value::Object(patches)) = (&mut *value, patch) else {
        *value = patch.clone();
        return;
    };
    for (name, patch) in patches {
        if patch.is_null() {
            members.remove(name);
        } else {
            merge(members.entry(name).or_insert(Value::Null), patch);
        }
    }
}

/// A request as the table describes it.
#[derive(Debug, Clone)]
pub struct Sent {
    pub method: String,
    pub host: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
}

/// One row.
pub struct Case {
    pub name: String,
    pub fault: Sent,
    pub twin: Sent,
    pub expect: Value,
    /// Whether a gateway may refuse the request itself, before the filter, in its own words.
    pub gateway_may_answer: bool,
    /// How long the fault does harm to other requests, in seconds.
    pub pause_s: u64,
    /// Whether the shipped Kong files remove the fault before the filter sees it.
    pub removed_in_kong: bool,
}

/// The table and the example configuration.
pub struct Table {
    raw: Value,
}

impl Table {
    pub fn read() -> Self {
        Self { raw: serde_json::from_str(include_str!("../faults.json")).unwrap() }
    }

    /// The example configuration with what the table wants; `upstream` stands for the issuers.
    pub fn config(&self, upstream: &str) -> Value {
        let mut config: Value = serde_json::from_str(include_str!("../../examples/config.json")).unwrap();
        merge(&mut config, &self.raw["config"]);
        for issuer in config["issuers"].as_array_mut().unwrap() {
            for way in ["jwks", "introspection"] {
                if issuer[way].is_object() {
                    issuer[way]["upstream"] = upstream.into();
                }
            }
        }
        config
    }

    /// The request of the base, changed by patches, one after the other.
    pub fn request(&self, keys: &Keys, patches: &[&Value], now: u64) -> Sent {
        let mut request = self.raw["base"].clone();
        for patch in patches.iter().filter(|patch| !patch.is_null()) {
            merge(&mut request, patch);
        }
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let token = keys.token(request["sign"].as_str().unwrap(), &request["jose"], &request["claims"], now);
        let authorization = request["authorization"].as_array().unwrap().iter();
        let mut headers: Vec<_> = authorization
            .map(|value| ("Authorization".to_owned(), text(value).replace("{token}", &token)))
            .collect();
        let more = request["headers"].as_array().unwrap().iter();
        headers.extend(more.map(|header| (text(&header[0]), text(&header[1]))));
        let count = request["more_headers"].as_u64().unwrap_or_default();
        headers.extend((0..count).map(|number| (format!("X-{number}"), number.to_string())));
        Sent {
            method: text(&request["method"]),
            host: text(&request["host"]),
            target: text(&request["path"]).replace("{token}", &token),
            headers,
        }
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.raw["cases"].as_array().unwrap().len()
    }

    /// A row, its tokens made now: some expire soon.
    pub fn case(&self, number: usize, keys: &Keys, now: u64) -> Case {
        let row = &self.raw["cases"][number];
        Case {
            name: row["name"].as_str().unwrap().to_owned(),
            fault: self.request(keys, &[&row["also"], &row["fault"]], now),
            twin: self.request(keys, &[&row["also"]], now),
            expect: row["expect"].clone(),
            gateway_may_answer: row["gateway_may_answer"] == true,
            pause_s: row["pause_s"].as_u64().unwrap_or_default(),
            removed_in_kong: row["removed_in_kong"] == true,
        }
    }
}

/// An answer to compare with a row's expectation.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// What is wrong with the answer to a row's fault; `None` when it is as expected.
pub fn difference(case: &Case, answer: &Answer) -> Option<String> {
    let expect = &case.expect;
    if json!(answer.status) != expect["status"] {
        return Some(format!("status {} for {}: {}", answer.status, expect["status"], answer.json()));
    }
    let body = answer.json();
    if case.gateway_may_answer && body["reason"].is_null() {
        return None;
    }
    for member in ["error", "reason"] {
        if body[member] != expect[member] {
            return Some(format!("{member} {} for {}", body[member], expect[member]));
        }
    }
    let challenge = answer.header("www-authenticate").unwrap_or_default();
    if expect["challenge"] != true {
        return (!challenge.is_empty()).then(|| format!("a challenge: {challenge}"));
    }
    let organisation = if case.fault.target.contains("org-2") { "org-2" } else { "org-1" };
    let scope = expect["scope"].as_str().unwrap_or("mcp:tools organization");
    let metadata = match expect["metadata"].as_str() {
        Some(metadata) => metadata.to_owned(),
        None => {
            format!("http://localhost:8000/.well-known/oauth-protected-resource/api/v1/mcp/{organisation}")
        }
    };
    let mut parts = vec![format!("Bearer resource_metadata=\"{metadata}\""), format!(", scope=\"{scope}\"")];
    let error = expect["error"].as_str().unwrap();
    if error != "missing_token" {
        parts.push(format!(", error=\"{error}\""));
    } else if challenge.contains("error=") {
        return Some(format!("an error in the challenge of a request without token: {challenge}"));
    }
    parts
        .into_iter()
        .find(|part| !challenge.contains(part.as_str()))
        .map(|part| format!("no {part} in {challenge}"))
}

/// A `Grip-Sig` as Pushpin makes it for the example configuration.
pub fn grip_sig(config: &Value, expires: u64) -> String {
    let key = URL_SAFE_NO_PAD.decode(config["grip"]["key"].as_str().unwrap()).unwrap();
    let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = encode(json!({"typ": "JWT", "alg": "HS256"}));
    let signed = format!("{header}.{}", encode(json!({"iss": config["grip"]["issuer"], "exp": expires})));
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

/// The JSON inside an `X-Userinfo`.
pub fn userinfo(header: &str) -> Value {
    serde_json::from_slice(&STANDARD.decode(header).unwrap()).unwrap()
}

/// Now, in seconds since 1970.
pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}
