//! Access tokens of real users, from the real Keycloak, through the gateway as a client gets them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::Stack;

/// Tokens live for five minutes; a client keeps one for less than this.
const KEEP: Duration = Duration::from_secs(120);

/// Tokens by user and organisation, with the time until which they are good.
type Cache = HashMap<(String, String), (String, Instant)>;

static CACHE: Mutex<Option<Cache>> = Mutex::const_new(None);

/// What to ask a token for.
#[derive(Debug, Clone)]
pub struct Wish<'a> {
    /// The user; the password is the name.
    pub user: &'a str,
    /// `scope`.
    pub scope: String,
    /// `resource` (RFC 8707).
    pub resource: Option<String>,
}

/// A user's token for an organisation; remembered for a while.
pub async fn token(stack: &Stack, user: &str, organisation: &str) -> String {
    let key = (user.to_owned(), format!("{organisation} {}", stack.state.public_url));
    let mut cache = CACHE.lock().await;
    let cache = cache.get_or_insert_default();
    if let Some((token, at)) = cache.get(&key).filter(|(_, at)| at.elapsed() < KEEP) {
        let _ = at;
        return token.clone();
    }
    let token = fetch(stack, &Wish::usual(stack, user, organisation)).await;
    cache.insert(key, (token.clone(), Instant::now()));
    token
}

impl<'a> Wish<'a> {
    /// What a client of an organisation asks for.
    #[must_use]
    pub fn usual(stack: &Stack, user: &'a str, organisation: &str) -> Self {
        Self {
            user,
            scope: format!("openid mcp:tools organization:{organisation}"),
            resource: Some(stack.state.resource(organisation)),
        }
    }
}

/// A fresh token by the password grant.
pub async fn fetch(stack: &Stack, wish: &Wish<'_>) -> String {
    fetch_as(stack, wish, ("asgard-cli", "")).await
}

/// The same where Keycloak or the gateway may be away.
///
/// # Errors
/// Why there is no token.
pub async fn try_fetch(stack: &Stack, wish: &Wish<'_>) -> Result<String, String> {
    try_fetch_as(stack, wish, ("asgard-cli", "")).await
}

/// The same as a client (id and secret) of one's own choice.
pub async fn fetch_as(stack: &Stack, wish: &Wish<'_>, client: (&str, &str)) -> String {
    try_fetch_as(stack, wish, client).await.unwrap_or_else(|why| panic!("no token: {why}"))
}

async fn try_fetch_as(stack: &Stack, wish: &Wish<'_>, client: (&str, &str)) -> Result<String, String> {
    let mut form = vec![
        ("grant_type", "password"),
        ("client_id", client.0),
        ("username", wish.user),
        ("password", wish.user),
        ("scope", &wish.scope),
    ];
    if !client.1.is_empty() {
        form.push(("client_secret", client.1));
    }
    form.extend(wish.resource.as_deref().map(|resource| ("resource", resource)));
    let url = format!("{}/protocol/openid-connect/token", stack.state.issuer());
    grant(&url, &form).await
}

/// A token of Keycloak's administrator (realm `master`).
pub async fn administrator(stack: &Stack) -> String {
    let url = format!("{}/heimdall/realms/master/protocol/openid-connect/token", stack.state.public_url);
    let secrets = &stack.state.secrets;
    let form = [
        ("grant_type", "password"),
        ("client_id", "admin-cli"),
        ("username", &secrets.admin_user),
        ("password", &secrets.admin_password),
    ];
    grant(&url, &form).await.unwrap_or_else(|why| panic!("no token: {why}"))
}

async fn grant(url: &str, form: &[(&str, &str)]) -> Result<String, String> {
    let body: Vec<String> = form.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    let request = crate::client::http()
        .post(url)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body.join("&"))
        .timeout(Duration::from_secs(30));
    let response = request.send().await.map_err(|error| error.to_string())?;
    let status = response.status();
    let body: Value = response.json().await.map_err(|error| format!("{status}, no JSON: {error}"))?;
    body["access_token"].as_str().map(str::to_owned).ok_or_else(|| format!("{status} {body}"))
}

/// The claims of a token, unverified.
#[must_use]
pub fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap_or_else(|| panic!("no JWT: {token}"));
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// Percent-encoding for a form.
#[must_use]
pub fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
