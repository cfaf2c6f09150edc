//! Access tokens of the sample setup: the password grant at Keycloak, through the gateway.
//!
//! Only the client `asgard-cli` of the sample realm allows that grant; real clients use the authorization code
//! flow with PKCE.

use std::time::Duration;

use base64::Engine as _;
use serde::Deserialize;
use serde_json::Value;

use crate::health::{cause, http_client};
use crate::problem::{Problem, Result};
use crate::samples::USERS;
use crate::state::State;

/// What to ask for.
#[derive(Debug, Clone)]
pub struct Grant<'a> {
    /// The client; public unless it has a secret.
    pub client: &'a str,
    /// Its secret.
    pub secret: Option<&'a str>,
    /// The user.
    pub user: &'a str,
    /// The password.
    pub password: &'a str,
    /// Scopes, separated by spaces.
    pub scope: String,
    /// The resource (RFC 8707) that the token is for; without it the token is for all of the realm's.
    pub resource: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    access_token: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

/// A token of a user for an organisation (default: the user's first), and that organisation.
///
/// # Errors
/// When Keycloak does not answer, or refuses.
pub async fn for_user(
    state: &State,
    user: &str,
    organisation: Option<&str>,
) -> Result<(String, Option<String>)> {
    let organisation = match organisation {
        Some(organisation) => Some(organisation.to_owned()),
        None => first_organisation(state, user).await?,
    };
    let grant = Grant {
        client: "asgard-cli",
        secret: None,
        user,
        password: user,
        scope: match &organisation {
            Some(organisation) => format!("openid mcp:tools organization:{organisation}"),
            None => "openid mcp:tools".to_owned(),
        },
        resource: organisation.as_deref().map(|organisation| state.resource(organisation)),
    };
    Ok((request(state, &grant).await?, organisation))
}

async fn first_organisation(state: &State, user: &str) -> Result<Option<String>> {
    if let Some((_, organisations)) = USERS.iter().find(|(name, _)| *name == user) {
        return Ok(organisations.first().map(|organisation| (*organisation).to_owned()));
    }
    // Not one of the samples: Keycloak tells all of the user's organisations.
    let scope = "openid mcp:tools organization:*".to_owned();
    let grant = Grant { client: "asgard-cli", secret: None, user, password: user, scope, resource: None };
    let claims = claims(&request(state, &grant).await?)?;
    Ok(claims.get("organization").and_then(Value::as_object).and_then(|all| all.keys().next().cloned()))
}

/// Asks Keycloak for a token.
///
/// # Errors
/// When it does not answer, or refuses.
pub async fn request(state: &State, grant: &Grant<'_>) -> Result<String> {
    let url = format!("{}/protocol/openid-connect/token", state.issuer());
    let mut form = vec![
        ("grant_type", "password"),
        ("client_id", grant.client),
        ("username", grant.user),
        ("password", grant.password),
        ("scope", &grant.scope),
    ];
    form.extend(grant.secret.map(|secret| ("client_secret", secret)));
    form.extend(grant.resource.as_deref().map(|resource| ("resource", resource)));
    let body =
        form.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect::<Vec<_>>().join("&");
    let response = http_client(Duration::from_secs(30))?
        .post(&url)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body)
        .send()
        .await
        .map_err(|e| {
            Problem::new(format!("cannot reach Keycloak at {url}: {}", cause(&e)))
                .hint("start the stack with ./asgard up, or see what ./asgard status says")
        })?;
    let status = response.status();
    let answer = response.json::<Answer>().await.map_err(|_| {
        Problem::new(format!("{url} answered {} without a token", status.as_u16()))
            .hint("see ./asgard logs keycloak")
    })?;
    answer.access_token.ok_or_else(|| {
        let error = answer.error.unwrap_or_else(|| format!("status {}", status.as_u16()));
        let description = answer.error_description.map(|text| format!(": {text}")).unwrap_or_default();
        let problem = Problem::new(format!("Keycloak gives {} no token: {error}{description}", grant.user));
        match error.as_str() {
            "invalid_grant" => {
                problem.hint("the sample users are thor, hel, freya and surt; the password is the name")
            }
            "invalid_target" => problem.hint("the sample organisations are org-1 and org-2"),
            _ => problem,
        }
    })
}

/// The claims of a JWT, unverified.
///
/// # Errors
/// When it is no JWT.
pub fn claims(token: &str) -> Result<Value> {
    let decode = |part: &str| {
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).ok()?;
        serde_json::from_slice(&bytes).ok()
    };
    token.split('.').nth(1).and_then(decode).ok_or_else(|| Problem::new("that is no JSON web token"))
}

/// Percent-encoding of a form's value (application/x-www-form-urlencoded).
#[must_use]
pub fn encode(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_encoded() {
        assert_eq!(encode("a b:c/ü"), "a%20b%3Ac%2F%C3%BC");
    }

    #[test]
    fn claims_are_read() {
        let token =
            format!("h.{}.s", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(br#"{"sub":"x"}"#));
        assert_eq!(claims(&token).unwrap()["sub"], "x");
        assert!(claims("nonsense").is_err());
    }
}
