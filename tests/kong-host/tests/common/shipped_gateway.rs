//! The shipped gateway with two backends and a Keycloak that is a table.

#![allow(dead_code, unreachable_pub, reason = "a module that each test uses a part of")]

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use asgard::config::Settings;
use asgard::gateway::Gateway::Kong;
use asgard::hosts::Hosts;
use asgard::ports::Ports;
use asgard::state::State;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kong_host::schema::Schema;
use kong_host::{Gateway, Setup};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::common::{Server, read, root};

pub const PUBLIC_URL: &str = "http://localhost:8000";
pub const ISSUER: &str = "http://localhost:8000/heimdall/realms/asgard";
pub const RESOURCE: &str = "http://localhost:8000/api/v1/mcp/org-1";
pub const ENDPOINT: &str = "/api/v1/mcp/org-1";
pub const ORIGIN: &str = "http://localhost:6274";
/// What the filter signs with.
pub const ASSERTION_KEYS: &str = "test:c2VjcmV0LW9mLWF0LWxlYXN0LTMyLWJ5dGVzLWhlcmUh";

/// The filter as built for gateways.
pub fn filter() -> Vec<u8> {
    let path = std::env::var_os("ASGARD_FILTER_WASM")
        .map_or_else(|| root().join("target/wasm/kong_filter.wasm"), PathBuf::from);
    std::fs::read(&path).unwrap_or_else(|e| {
        panic!("{}: {e}: run scripts/build-filter, or set ASGARD_FILTER_WASM", path.display())
    })
}

/// The schema of the filter's configuration.
pub fn schema() -> Schema {
    Schema::read(&read("kong/kong_filter.meta.json")).unwrap()
}

/// The module for Envoy, as `scripts/build-filter` leaves it beside the other.
pub fn envoys_filter() -> Vec<u8> {
    std::fs::read(root().join("target/wasm/kong_filter.envoy.wasm")).unwrap()
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key of the authorization server.
pub struct Key {
    pub id: &'static str,
    key: SigningKey,
}

impl Key {
    pub fn new(id: &'static str, seed: u8) -> Self {
        Self { id, key: SigningKey::from_slice(&[seed; 32]).unwrap() }
    }

    pub fn public(&self) -> Value {
        let point = self.key.verifying_key().to_sec1_point(false);
        let (x, y) = (b64(point.x().unwrap()), b64(point.y().unwrap()));
        json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.id, "x": x, "y": y})
    }

    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        let signature: Signature = self.key.sign(signed.as_bytes());
        format!("{signed}.{}", b64(signature.to_bytes()))
    }

    /// A token of good form with these claims.
    pub fn token(&self, claims: &Value) -> String {
        self.sign(&json!({"alg": "ES256", "typ": "JWT", "kid": self.id}), claims)
    }
}

/// The claims of a user of org-1, accepted.
pub fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": [RESOURCE], "sub": "f3b0", "azp": "inspector", "scope": "openid mcp:tools",
        "iat": now(), "exp": now() + 300, "preferred_username": "thor",
        "organization": {"org-1": {"id": "0a"}},
    })
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Type: text/plain\r\n\r\nbackend";

/// The gateway and all that is around it.
pub struct ShippedGateway {
    pub gateway: Gateway,
    pub backends: Vec<Server>,
    pub keycloak: Server,
    pub key: Key,
}

impl ShippedGateway {
    pub async fn start(filter: Option<Vec<u8>>) -> Self {
        Self::with(filter, |config| config).await
    }

    /// With another configuration of the filter.
    pub async fn with(filter: Option<Vec<u8>>, change: impl FnOnce(Value) -> Value) -> Self {
        Self::try_start(filter, |address| change(filter_config(address)).to_string()).await.unwrap()
    }

    pub async fn try_start(
        filter: Option<Vec<u8>>,
        config: impl FnOnce(&str) -> String,
    ) -> Result<Self, kong_host::config::ConfigError> {
        let key = Key::new("key-1", 7);
        let keys = json!({"keys": [key.public()]}).to_string();
        Self::with_keys(filter, key, keys, |_| (200, "{\"active\":false}".into()), config).await
    }

    /// With another key set at Keycloak, and answers of its own about tokens.
    pub async fn with_keys(
        filter: Option<Vec<u8>>,
        key: Key,
        keys: String,
        introspect: Introspect,
        config: impl FnOnce(&str) -> String,
    ) -> Result<Self, kong_host::config::ConfigError> {
        let backends = vec![Server::fixed(OK).await, Server::fixed(OK).await];
        let keycloak = keycloak(keys, introspect).await;
        let address = keycloak.address.to_string();
        let addresses = backends.iter().map(|b| b.address.to_string());
        let setup = setup(addresses, &address, config(&address), filter);
        let gateway = Gateway::start(setup).await?;
        Ok(Self { gateway, backends, keycloak, key })
    }

    /// How many requests reached a backend, and how many connections.
    pub fn reached(&self) -> (usize, usize) {
        self.backends.iter().fold((0, 0), |(r, c), b| (r + b.seen().len(), c + b.connections()))
    }
}

/// The shipped files, filled in for these addresses.
pub fn setup(
    backends: impl Iterator<Item = String>,
    keycloak: &str,
    filter_config: String,
    filter: Option<Vec<u8>>,
) -> Setup {
    let settings = Settings {
        backends: backends.collect(),
        keycloak: keycloak.to_owned(),
        ..kong_host::setup::settings(&root(), filter_config)
    };
    let mut setup = Setup::shipped(&settings).unwrap();
    setup.filters.extend(filter.map(|wasm| ("kong_filter".to_owned(), wasm)));
    // kong/kong_filter.meta.json is beside it.
    setup.schemas.insert("kong_filter".to_owned(), schema());
    setup
}

/// The filter's configuration as `./asgard` writes it for Kong.
pub fn filter_config(keycloak: &str) -> Value {
    let mut state = State::new(Ports::default());
    state.secrets.assertion_keys = ASSERTION_KEYS.to_owned();
    let config = asgard::config::filter::config(Kong, &state, &Hosts::none(), None, keycloak).unwrap();
    serde_json::from_str(&config).unwrap()
}

/// The answer (status, body) to a question about a token.
pub type Introspect = fn(&str) -> (u16, String);

/// Answers with the key set where it is, to questions about tokens under `/introspect`, and elsewhere with the path that was asked for.
async fn keycloak(keys: String, introspect: Introspect) -> Server {
    Server::start(move |seen, mut stream| {
        let (status, body) = if seen.target.ends_with("/certs") {
            (200, keys.clone())
        } else if seen.target == "/introspect" {
            introspect(&String::from_utf8_lossy(&seen.body))
        } else {
            (200, seen.target)
        };
        async move {
            let head = format!("HTTP/1.1 {status} OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).await.is_ok().then_some(stream)
        }
    })
    .await
}
