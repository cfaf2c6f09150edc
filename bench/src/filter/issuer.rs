//! An issuer of tokens that look like Keycloak's.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rsa::pkcs1v15::SigningKey;
use rsa::signature::{SignatureEncoding as _, Signer as _};
use rsa::traits::PublicKeyParts as _;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::Result;

pub const ISSUER: &str = "http://localhost:8000/heimdall/realms/asgard";
pub const PUBLIC_URL: &str = "http://localhost:8000";

/// The issuer, with its keys. Tokens are signed with RSA, as Keycloak does by default; where very
/// many are needed, with an elliptic curve, which is much quicker.
pub struct Issuer {
    key: SigningKey<Sha256>,
    ec: p256::ecdsa::SigningKey,
}

/// How to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Rsa,
    Ec,
}

impl Issuer {
    pub fn new() -> Result<Self> {
        let key = SigningKey::new(rsa::RsaPrivateKey::new(&mut rand::rng(), 2048)?);
        let ec = std::iter::repeat_with(rand::random::<[u8; 32]>)
            .find_map(|bytes| p256::ecdsa::SigningKey::from_slice(&bytes).ok())
            .ok_or("no key")?;
        Ok(Self { key, ec })
    }

    /// The key set.
    pub fn jwks(&self) -> String {
        let key: &rsa::RsaPrivateKey = self.key.as_ref();
        let number = |number: &rsa::BoxedUint| URL_SAFE_NO_PAD.encode(number.to_be_bytes_trimmed_vartime());
        let key = json!({"kty": "RSA", "kid": "k1", "use": "sig", "alg": "RS256", "n": number(key.n()), "e": number(key.e())});
        let point = self.ec.verifying_key().to_sec1_point(false);
        let number = |bytes: Option<&[u8]>| URL_SAFE_NO_PAD.encode(bytes.unwrap_or_default());
        let ec = json!({
            "kty": "EC", "crv": "P-256", "kid": "k2", "use": "sig", "alg": "ES256",
            "x": number(point.x().map(|x| &x[..])), "y": number(point.y().map(|y| &y[..])),
        });
        json!({ "keys": [key, ec] }).to_string()
    }

    /// A token of a user, good for an hour: as long as Keycloak's for the sample realm.
    pub fn token(&self, algorithm: Algorithm, user: usize) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let (name, kid) = match algorithm {
            Algorithm::Rsa => ("RS256", "k1"),
            Algorithm::Ec => ("ES256", "k2"),
        };
        let header = encode(json!({"alg": name, "typ": "JWT", "kid": kid}));
        let id = format!("{user:08x}-62d1-4f6c-9c1e-5ac0de000000");
        let claims = encode(json!({
            "exp": now + 3600, "iat": now, "auth_time": now, "jti": format!("onrtac:{id}"), "iss": ISSUER,
            "aud": [format!("{PUBLIC_URL}/api/v1/mcp/org-1")], "sub": id, "typ": "Bearer", "azp": "asgard-inspector",
            "sid": id, "acr": "1", "allowed-origins": ["http://localhost:6274", "http://127.0.0.1:6274"],
            "realm_access": {"roles": ["default-roles-asgard", "offline_access", "uma_authorization"]},
            "scope": "openid mcp:tools organization:org-1 profile email", "email_verified": true,
            "organization": {"org-1": {"id": id}}, "name": "Thor Odinson", "preferred_username": format!("thor{user}"),
            "given_name": "Thor", "family_name": "Odinson", "email": format!("thor{user}@org1.example"),
        }));
        let signed = format!("{header}.{claims}");
        let signature = match algorithm {
            Algorithm::Rsa => self.key.sign(signed.as_bytes()).to_vec(),
            Algorithm::Ec => {
                let signature: p256::ecdsa::Signature = self.ec.sign(signed.as_bytes());
                signature.to_bytes().to_vec()
            }
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
