//! Refresh tokens rotate (OAuth 2.1, section 4.3.1), and a client keeps its login where two of its requests refresh at
//! once and a reply is lost. Keycloak 26.7 ends the whole login of a client that uses a token once too often.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use e2e::Stack;
use e2e::keycloak::Keycloak;
use e2e::login::{Ask, Person, callback, post_form, public_client};
use reqwest::Method;
use serde_json::{Value, json};

/// A client that registered itself, with a person who has logged in there.
struct Login<'a> {
    stack: &'a Stack,
    client: String,
    person: Person,
}

impl<'a> Login<'a> {
    async fn new(stack: &'a Stack) -> Self {
        Self { stack, client: public_client(stack).await, person: Person::sample("thor", "org-1") }
    }

    /// A refresh token of a new login.
    async fn token(&mut self) -> String {
        let (redirect, resource) = (callback(self.stack), self.stack.state.resource("org-1"));
        let scope = "mcp:tools organization";
        let ask = Ask { client: &self.client, redirect: &redirect, scope, resource: Some(&resource) };
        let login = self.person.log_in(self.stack, &ask).await;
        login.outcome.unwrap()["refresh_token"].as_str().unwrap().to_owned()
    }

    /// Uses a refresh token: the next one, or why there is none.
    async fn refresh(&self, token: &str) -> Result<String, String> {
        let url = format!("{}/protocol/openid-connect/token", self.stack.state.issuer());
        let resource = self.stack.state.resource("org-1");
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", token),
            ("client_id", &self.client),
            ("resource", &resource),
        ];
        let (status, answer) = post_form(&url, &form).await;
        if status == 200 {
            assert_eq!(e2e::tokens::claims(answer["access_token"].as_str().unwrap())["aud"], json!(resource));
            return Ok(answer["refresh_token"].as_str().unwrap().to_owned());
        }
        assert_eq!((status, &answer["error"]), (400, &json!("invalid_grant")), "{answer}");
        Err(answer["error_description"].as_str().unwrap().to_owned())
    }

    /// Two requests refresh at once; one reply is lost, so its token is used once more. Whether the login lives on.
    async fn survives_a_bad_moment(&mut self) -> bool {
        let first = self.token().await;
        let (one, other) = tokio::join!(self.refresh(&first), self.refresh(&first));
        let again = self.refresh(&first).await;
        let lives = one.is_ok() && other.is_ok() && again.is_ok();
        if let Ok(next) = again {
            self.refresh(&next).await.unwrap();
        }
        lives
    }
}

async fn reuse(keycloak: &Keycloak<'_>, times: &Value) {
    keycloak.change(Method::PUT, "", Some(&json!({"refreshTokenMaxReuse": times}))).await;
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test refresh"]
async fn a_refresh_token_is_replaced_and_the_old_one_ends() {
    let stack = Stack::claim().await;
    let mut login = Login::new(&stack).await;
    let first = login.token().await;
    let second = login.refresh(&first).await.unwrap();
    assert_ne!(first, second);
    // Keycloak counts in seconds: what was replaced in this second is not yet old.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let third = login.refresh(&second).await.unwrap();
    assert_eq!(login.refresh(&first).await, Err("Stale token".to_owned()));
    // And whoever has the newest one, the thief or the owner, has to log in.
    login.refresh(&third).await.unwrap_err();
    let fresh = login.token().await;
    login.refresh(&fresh).await.unwrap();
    Keycloak::of(&stack).forget_client(&login.client).await;
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test refresh"]
async fn the_realm_has_the_smallest_reuse_with_which_a_bad_moment_is_survived() {
    let stack = Stack::claim().await;
    let keycloak = Keycloak::of(&stack);
    let realm = keycloak.get("").await;
    assert_eq!(realm["revokeRefreshToken"], true);
    let shipped = &realm["refreshTokenMaxReuse"];
    let mut login = Login::new(&stack).await;
    for _ in 0..3 {
        assert!(login.survives_a_bad_moment().await, "with {shipped}");
    }
    reuse(&keycloak, &json!(shipped.as_u64().unwrap() - 1)).await;
    let survived = login.survives_a_bad_moment().await;
    reuse(&keycloak, shipped).await;
    assert!(!survived, "less than {shipped} would do");
    println!("Bifrost: refresh tokens rotate; {shipped} is the smallest reuse that a bad moment needs");
    keycloak.forget_client(&login.client).await;
}
