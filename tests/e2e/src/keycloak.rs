//! Keycloak's admin API, as far as the tests change something there.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use crate::{Stack, tokens};

/// Keycloak with its administrator.
#[derive(Debug)]
pub struct Keycloak<'a> {
    stack: &'a Stack,
}

impl<'a> Keycloak<'a> {
    /// That of a stack.
    #[must_use]
    pub fn of(stack: &'a Stack) -> Self {
        Self { stack }
    }

    /// One request below `/admin/realms/asgard`. Gives status and answer; the answer's `Location` when it has no body.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        let url = format!("{}/heimdall/admin/realms/asgard{path}", self.stack.state.public_url);
        let mut request = crate::client::http()
            .request(method, url)
            .bearer_auth(tokens::administrator(self.stack).await)
            .timeout(Duration::from_secs(30));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let location =
            answer.headers().get("location").and_then(|value| value.to_str().ok()).map(Value::from);
        let text = answer.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or_else(|_| location.unwrap_or(Value::Null));
        (status, body)
    }

    /// Reads something that is there.
    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask(Method::GET, path, None).await;
        assert_eq!(status, 200, "GET {path}: {body}");
        body
    }

    /// Changes something; it must succeed.
    pub async fn change(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.ask(method.clone(), path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    /// The id of a user.
    pub async fn user(&self, name: &str) -> String {
        let found = self.get(&format!("/users?exact=true&username={name}")).await;
        found[0]["id"].as_str().unwrap_or_else(|| panic!("no user {name}: {found}")).to_owned()
    }

    /// The id of an organisation.
    pub async fn organisation(&self, alias: &str) -> String {
        let all = self.get("/organizations?max=1000").await;
        let found = all.as_array().unwrap().iter().find(|one| one["alias"] == alias);
        found.unwrap_or_else(|| panic!("no organisation {alias}: {all}"))["id"].as_str().unwrap().to_owned()
    }

    /// Forgets a client, by its client id.
    pub async fn forget_client(&self, client: &str) {
        let found = self.get(&format!("/clients?clientId={}", tokens::encode(client))).await;
        if let Some(id) = found[0]["id"].as_str() {
            self.change(Method::DELETE, &format!("/clients/{id}"), None).await;
        }
    }
}
