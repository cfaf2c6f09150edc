//! Keycloak's admin API, as far as organisations, users and registration policies need it.
//!
//! Everything here may be done again: what is there already stays as it is.

mod known;
mod organisations;
mod trust;
mod users;

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::Value;

pub use known::KnownClient;
pub use organisations::{Organisation, Wanted};
pub use users::NewUser;

use crate::health::{cause, http_client};
use crate::problem::{Problem, Result};
use crate::state::State;
use crate::token::encode;

/// Most entries that are read of a list.
const MOST: usize = 1_000;

/// Keycloak's realm, with its administrator logged in.
#[derive(Debug)]
pub struct Admin {
    http: reqwest::Client,
    realm: String,
    token: String,
}

/// What Keycloak answered, when it is no success.
struct Refusal {
    status: StatusCode,
    text: String,
}

impl Admin {
    /// Logs the administrator of the state file in, at the public address.
    ///
    /// # Errors
    /// When Keycloak does not answer, or knows another administrator.
    pub async fn log_in(state: &State) -> Result<Self> {
        let http = http_client(Duration::from_secs(30))?;
        let url = format!("{}/heimdall/realms/master/protocol/openid-connect/token", state.public_url);
        let body = format!(
            "grant_type=password&client_id=admin-cli&username={}&password={}",
            encode(&state.secrets.admin_user),
            encode(&state.secrets.admin_password)
        );
        let answer = http
            .post(&url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body)
            .send()
            .await
            .map_err(|e| {
                Problem::new(format!("cannot reach Keycloak at {url}: {}", cause(&e)))
                    .hint("start the stack with ./asgard up, or see what ./asgard status says")
            })?;
        let status = answer.status();
        let answer: Value = answer.json().await.unwrap_or_default();
        let token = answer.get("access_token").and_then(Value::as_str).map(str::to_owned);
        let token = token.ok_or_else(|| match status.as_u16() {
            400 | 401 => Problem::new(format!("Keycloak refuses the administrator {}", state.secrets.admin_user))
                .hint("write the administrator's name and password into the state file (admin_user, admin_password)"),
            status => Problem::new(format!("Keycloak answered {status} to the administrator's login"))
                .hint("see ./asgard logs keycloak"),
        })?;
        Ok(Self { http, realm: format!("{}/heimdall/admin/realms/asgard", state.public_url), token })
    }

    /// One request below the realm. `Ok(Err(…))` is what Keycloak refused.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<std::result::Result<Value, Refusal>> {
        let url = format!("{}{path}", self.realm);
        let mut request = self.http.request(method, &url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let lost = |e: &reqwest::Error| Problem::new(format!("Keycloak did not answer {url}: {}", cause(e)));
        let answer = request.send().await.map_err(|e| lost(&e))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|e| lost(&e))?;
        Ok(if status.is_success() {
            Ok(serde_json::from_str(&text).unwrap_or_default())
        } else {
            Err(Refusal { status, text })
        })
    }

    async fn get(&self, path: &str) -> Result<Value> {
        self.ask(Method::GET, path, None).await?.map_err(|refusal| refusal.problem(&format!("read {path}")))
    }

    async fn list(&self, path: &str) -> Result<Vec<Value>> {
        match self.get(path).await? {
            Value::Array(all) => Ok(all),
            _ => Err(Problem::new(format!("Keycloak's {path} is not a list"))),
        }
    }

    /// Changes something. `doing` is for the problem: `cannot …`.
    async fn change(&self, method: Method, path: &str, body: Option<&Value>, doing: &str) -> Result<()> {
        self.ask(method, path, body).await?.map(drop).map_err(|refusal| refusal.problem(doing))
    }
}

impl Refusal {
    fn problem(&self, doing: &str) -> Problem {
        let answer: Value = serde_json::from_str(&self.text).unwrap_or_default();
        let message = ["errorMessage", "error_description", "error"]
            .iter()
            .find_map(|name| answer.get(name).and_then(Value::as_str))
            .map_or_else(|| format!("status {}", self.status.as_u16()), str::to_owned);
        let problem = Problem::new(format!("cannot {doing}: Keycloak says: {message}"));
        match self.status.as_u16() {
            403 => problem.hint("the administrator of the state file needs the realm's administration role"),
            500.. => problem.hint("see ./asgard logs keycloak"),
            _ => problem,
        }
    }
}

/// A text member of a JSON object; empty when it is not there.
fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The strings of a list.
fn strings(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Sets a member of a JSON object.
fn set(value: &mut Value, name: &str, to: Value) {
    if let Some(object) = value.as_object_mut() {
        object.insert(name.to_owned(), to);
    }
}
