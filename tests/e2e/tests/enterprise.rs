//! Enterprise-managed authorization (docs/enterprise.md): an agent gives Keycloak an assertion of the company's own
//! identity provider (an ID-JAG) and gets a token for its user, who sees no page. The provider is this test.
//!
//! What Keycloak 26.7 lacks is asserted too: should it come, this notices, and docs/enterprise.md changes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use corpus::{Keys, now};
use e2e::documents::{Served, serve};
use e2e::keycloak::Keycloak;
use e2e::login::post_form;
use e2e::{Client, Stack, tokens};
use reqwest::Method;
use serde_json::{Value, json};

const PROVIDER: &str = "https://idp.acme.example";
const TYPE: &str = "oauth-id-jag+jwt";
const AGENT: &str = "an-agent";
const SECRET: &str = "the secret of an agent in a test";

/// The provider with its keys, and Keycloak set up as docs/enterprise.md says.
struct Company<'a> {
    stack: &'a Stack,
    keys: Keys,
    _jwks: Served,
}

impl<'a> Company<'a> {
    async fn of(stack: &'a Stack) -> Self {
        let (keys, keycloak) = (Keys::new(), Keycloak::of(stack));
        let all = keys.jwks();
        let key = all["keys"].as_array().unwrap().iter().find(|key| key["kid"] == "rsa-1").unwrap().clone();
        let jwks = serve(|_| json!({"keys": [key]})).await;
        leave(stack).await;
        let provider = json!({
            "alias": "acme",
            "providerId": "jwt-authorization-grant",
            "enabled": true,
            "config": {
                "issuer": PROVIDER,
                "useJwksUrl": "true",
                "jwksUrl": jwks.url,
                "jwtAuthorizationGrantEnabled": "true",
                "jwtAuthorizationGrantAssertionSignatureAlg": "RS256",
                "jwtAuthorizationGrantLimitAccessTokenExp": "true",
            },
        });
        keycloak.change(Method::POST, "/identity-provider/instances", Some(&provider)).await;
        let agent = json!({
            "clientId": AGENT,
            "secret": SECRET,
            "publicClient": false,
            "standardFlowEnabled": false,
            "directAccessGrantsEnabled": false,
            "fullScopeAllowed": false,
            "attributes": {
                "oauth2.jwt.authorization.grant.enabled": "true",
                "oauth2.jwt.authorization.grant.idp": "acme",
            },
        });
        keycloak.change(Method::POST, "/clients", Some(&agent)).await;
        let thor = keycloak.user("thor").await;
        let link = json!({"identityProvider": "acme", "userId": "thor@acme", "userName": "thor"});
        let path = format!("/users/{thor}/federated-identity/acme");
        keycloak.change(Method::POST, &path, Some(&link)).await;
        Self { stack, keys, _jwks: jwks }
    }

    /// An assertion for thor, with changes; `null` removes a claim.
    fn assertion(&self, sign: &str, kind: &str, changes: &Value) -> String {
        let mut claims = json!({
            "iss": PROVIDER,
            "sub": "thor@acme",
            "aud": self.stack.state.issuer(),
            "client_id": AGENT,
            "jti": format!("{:032x}", rand::random::<u128>()),
            "iat": now(),
            "exp": now() + 120,
            "resource": self.stack.state.resource("org-1"),
            "scope": "mcp:tools organization",
        });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        self.keys.token(sign, &json!({"alg": "RS256", "typ": kind, "kid": "rsa-1"}), &claims, now())
    }

    async fn redeem(&self, assertion: &str, more: &[(&str, &str)]) -> (u16, Value) {
        let url = format!("{}/protocol/openid-connect/token", self.stack.state.issuer());
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", assertion),
            ("client_id", AGENT),
            ("client_secret", SECRET),
            ("scope", "mcp:tools organization"),
        ];
        post_form(&url, &[&form[..], more].concat()).await
    }

    async fn token(&self, assertion: &str) -> String {
        let (status, answer) = self.redeem(assertion, &[]).await;
        assert_eq!(status, 200, "{answer}");
        assert!(answer["refresh_token"].is_null(), "the assertion is asked for again instead");
        answer["access_token"].as_str().unwrap().to_owned()
    }
}

/// Takes away what [`Company::of`] makes.
async fn leave(stack: &Stack) {
    let keycloak = Keycloak::of(stack);
    keycloak.forget_client(AGENT).await;
    let (status, _) = keycloak.ask(Method::DELETE, "/identity-provider/instances/acme", None).await;
    assert!([204, 404].contains(&status), "{status}");
}

async fn opens(stack: &Stack, organisation: &str, token: &str) -> u16 {
    let client = Client::at(stack.state.resource(organisation), token.to_owned());
    client.tool("echo", json!({"text": "x"})).await.status()
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test enterprise"]
async fn the_companys_assertion_gives_a_token_and_its_faults_do_not() {
    let stack = Stack::claim().await;
    let company = Company::of(&stack).await;
    let good = company.assertion("rsa", TYPE, &json!({}));
    let token = company.token(&good).await;
    let claims = tokens::claims(&token);
    assert_eq!(claims["azp"], AGENT);
    assert!(claims["exp"].as_u64().unwrap() <= now() + 120, "no longer than the assertion");
    assert_eq!(opens(&stack, "org-1", &token).await, 200);
    assert_eq!(opens(&stack, "org-2", &token).await, 403, "no member");

    let issuer = stack.state.issuer();
    let rows = [
        ("used twice", good),
        ("of a stranger", company.assertion("stranger", TYPE, &json!({}))),
        ("for another client", company.assertion("rsa", TYPE, &json!({"client_id": "inspector"}))),
        ("for no client", company.assertion("rsa", TYPE, &json!({"client_id": null}))),
        ("for another server", company.assertion("rsa", TYPE, &json!({"aud": "https://other.example"}))),
        (
            "for two servers",
            company.assertion("rsa", TYPE, &json!({"aud": [issuer, "https://other.example"]})),
        ),
        ("expired", company.assertion("rsa", TYPE, &json!({"iat": now() - 120, "exp": now() - 60}))),
        ("without a time", company.assertion("rsa", TYPE, &json!({"iat": null}))),
        ("of another provider", company.assertion("rsa", TYPE, &json!({"iss": "https://other.example"}))),
        ("about somebody unknown", company.assertion("rsa", TYPE, &json!({"sub": "nobody@acme"}))),
        ("about nobody", company.assertion("rsa", TYPE, &json!({"sub": null}))),
    ];
    for (fault, assertion) in &rows {
        let (status, answer) = company.redeem(assertion, &[]).await;
        assert_eq!((status, &answer["error"]), (400, &json!("invalid_grant")), "{fault}: {answer}");
    }
    println!("Bifrost: the company's assertion gives a token; {} faulty ones do not", rows.len());
    leave(&stack).await;
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test enterprise"]
async fn what_keycloak_lacks_is_as_documented() {
    let stack = Stack::claim().await;
    let company = Company::of(&stack).await;
    // The assertion's resource and scope do not narrow the token: membership decides.
    let other = json!({"resource": "https://other.example/mcp", "scope": "nothing"});
    let token = company.token(&company.assertion("rsa", TYPE, &other)).await;
    assert!(tokens::claims(&token)["aud"].as_array().unwrap().len() > 1);
    assert_eq!(opens(&stack, "org-1", &token).await, 200);
    // The parameter `resource` fails.
    let resource = stack.state.resource("org-1");
    let assertion = company.assertion("rsa", TYPE, &json!({}));
    let (status, _) = company.redeem(&assertion, &[("resource", &resource)]).await;
    assert_eq!(status, 400);
    // A JWT of the provider of another kind is taken as well, and then nobody compares the client.
    company.token(&company.assertion("rsa", "JWT", &json!({"client_id": "inspector"}))).await;
    // The metadata does not say that it is possible.
    let about = format!("{}/.well-known/oauth-authorization-server", stack.state.issuer());
    let about: Value = e2e::client::http().get(about).send().await.unwrap().json().await.unwrap();
    assert!(about["authorization_grant_profiles_supported"].is_null());
    leave(&stack).await;
}
