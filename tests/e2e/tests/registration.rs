//! Clients of the real Keycloak that nobody has prepared: they register themselves (RFC 7591), or their id is the
//! address of their metadata. What the realm lets them do, and what it does not; who reaches what with their tokens.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use e2e::documents::serve;
use e2e::keycloak::Keycloak;
use e2e::login::{Ask, Person, post_form, register};
use e2e::{Client, EntryPoint, Stack, tokens};
use reqwest::Method;
use serde_json::{Value, json};

/// What the Inspector of this stack would register.
fn metadata(stack: &Stack, scope: Option<&str>) -> Value {
    let mut metadata = json!({
        "client_name": "a test's client",
        "client_uri": "https://github.com/modelcontextprotocol/inspector",
        "redirect_uris": [callback(stack)],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    });
    if let Some(scope) = scope {
        metadata["scope"] = json!(scope);
    }
    metadata
}

fn callback(stack: &Stack) -> String {
    format!("http://localhost:{}/oauth/callback", stack.state.ports.inspector)
}

async fn registered(stack: &Stack, scope: Option<&str>) -> String {
    let (status, answer) = register(stack, &metadata(stack, scope), None).await;
    assert_eq!(status, 201, "{answer}");
    answer["client_id"].as_str().unwrap().to_owned()
}

async fn scopes_of_challenge(stack: &Stack, organisation: &str) -> String {
    let answer =
        e2e::client::http().post(stack.endpoint(EntryPoint::Bifrost, organisation)).send().await.unwrap();
    assert_eq!(answer.status(), 401);
    let challenge = answer.headers()["www-authenticate"].to_str().unwrap().to_owned();
    challenge.split("scope=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

/// The token opens that organisation's tools.
async fn opens(stack: &Stack, organisation: &str, token: &str) -> u16 {
    let client = Client::at(stack.endpoint(EntryPoint::Bifrost, organisation), token.to_owned());
    let exchange = client.tool("echo", json!({"text": "x"})).await;
    if exchange.status() == 200 {
        exchange.check_whole(0).unwrap();
    }
    exchange.status()
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test registration"]
async fn a_registered_client_reaches_each_organisation_of_its_user() {
    let stack = Stack::claim().await;
    let keycloak = Keycloak::of(&stack);
    let redirect = callback(&stack);
    // As MCP clients do it: the scopes of the challenge, for the registration too.
    let scope = scopes_of_challenge(&stack, "org-1").await;
    let client = registered(&stack, Some(&scope)).await;
    for (user, organisation, other) in [
        ("thor", "org-1", "org-2"),
        ("freya", "org-1", "org-2"),
        ("freya", "org-2", "org-1"),
        ("hel", "org-2", "org-1"),
    ] {
        let mut person = Person::sample(user, organisation);
        let resource = stack.state.resource(organisation);
        let ask = Ask { client: &client, redirect: &redirect, scope: &scope, resource: Some(&resource) };
        let login = person.log_in(&stack, &ask).await;
        let claims = login.claims();
        assert_eq!(claims["aud"], json!(resource), "the resource asked for, and no other");
        assert_eq!(claims["organization"].as_object().unwrap().keys().collect::<Vec<_>>(), [organisation]);
        assert_eq!(login.saw("select-organization"), user == "freya");
        assert_eq!(opens(&stack, organisation, login.token()).await, 200, "{user} {organisation}");
        assert_eq!(opens(&stack, other, login.token()).await, 401, "{user} {other}: another audience");
        // The same person, logged in already, goes on to the other organisation.
        if user == "freya" {
            person.organisation = other.to_owned();
            let resource = stack.state.resource(other);
            let login = person.log_in(&stack, &Ask { resource: Some(&resource), ..ask.clone() }).await;
            assert!(!login.saw("password") && login.saw("select-organization"), "{:?}", login.pages);
            assert_eq!(opens(&stack, other, login.token()).await, 200);
        }
        println!("{user} at {organisation}: {:?}", login.pages);
    }
    // Somebody without an organisation may log in, and reaches nothing.
    let resource = stack.state.resource("org-1");
    let ask = Ask { client: &client, redirect: &redirect, scope: &scope, resource: Some(&resource) };
    let login = Person::sample("surt", "org-1").log_in(&stack, &ask).await;
    assert_eq!(opens(&stack, "org-1", login.token()).await, 403);
    keycloak.forget_client(&client).await;
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test registration"]
async fn the_page_of_consent_comes_first_and_no_is_no() {
    let stack = Stack::claim().await;
    let redirect = callback(&stack);
    let client = registered(&stack, Some("mcp:tools organization")).await;
    let resource = stack.state.resource("org-1");
    let ask = Ask {
        client: &client,
        redirect: &redirect,
        scope: "mcp:tools organization",
        resource: Some(&resource),
    };
    let mut person = Person::sample("thor", "org-1");
    let login = person.log_in(&stack, &ask).await;
    assert!(login.saw("oauth-grant"), "consent: {:?}", login.pages);
    assert!(login.text.contains("Use all MCP tools"), "the page says what for");
    // Given once; asked again for more only.
    assert!(!person.log_in(&stack, &ask).await.saw("oauth-grant"));
    Keycloak::of(&stack).forget_client(&client).await;
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test registration"]
async fn the_login_wears_the_dress_of_the_organisation() {
    let stack = Stack::claim().await;
    let redirect = callback(&stack);
    for (user, organisation, dress) in [("thor", "org-1", "aurora"), ("hel", "org-2", "ember")] {
        let client = registered(&stack, None).await;
        let resource = stack.state.resource(organisation);
        let named = format!("mcp:tools organization:{organisation}");
        for (scope, whole) in [("mcp:tools organization", false), (&named, true)] {
            let ask = Ask { client: &client, redirect: &redirect, scope, resource: Some(&resource) };
            let login = Person::sample(user, organisation).log_in(&stack, &ask).await;
            let link = format!("/organisations/{dress}/theme.css");
            // From the first page when the organisation is named, else from where Keycloak knows it.
            let pages = login.text.matches("<html").count();
            let dressed = login.text.matches(&link).count();
            assert!(dressed >= 1 && (!whole || dressed == pages), "{scope}: {dressed} of {pages}");
            let start = login.text.find(&link).unwrap();
            let path = &login.text[login.text[..start].rfind('"').unwrap() + 1..start + link.len()];
            let url = format!("{}{path}", stack.state.public_url);
            let css = e2e::client::http().get(&url).send().await.unwrap();
            assert_eq!(css.status(), 200, "{url}");
            assert!(css.text().await.unwrap().contains("logo.svg"));
        }
        Keycloak::of(&stack).forget_client(&client).await;
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test registration"]
async fn who_may_not_register_is_told_why() {
    let stack = Stack::claim().await;
    let good = metadata(&stack, Some("mcp:tools organization"));
    let with = |name: &str, value: Value| {
        let mut metadata = good.clone();
        metadata[name] = value;
        metadata
    };
    let page = format!("http://localhost:{}", stack.state.ports.inspector);
    let evil = "https://evil.example";
    let rows = [
        ("another host in redirect_uris", with("redirect_uris", json!([format!("{evil}/cb")])), None),
        (
            "one of two in redirect_uris",
            with("redirect_uris", json!([callback(&stack), format!("{evil}/cb")])),
            None,
        ),
        ("another host in client_uri", with("client_uri", json!(evil)), None),
        ("a scope that grants more", with("scope", json!("mcp:tools offline_access")), None),
        ("a scope that is none", with("scope", json!("mcp:everything")), None),
        ("a page of another origin", good.clone(), Some(evil)),
        ("a page of no origin", good.clone(), Some("null")),
    ];
    for (what, metadata, origin) in &rows {
        let (status, answer) = register(&stack, metadata, *origin).await;
        assert_eq!(status, 403, "{what}: {answer}");
        assert!(answer["error"].is_string(), "{what}: {answer}");
    }
    // The twins.
    for (metadata, origin) in [
        (good.clone(), None),
        (good.clone(), Some(page.as_str())),
        (with("scope", json!("openid mcp:tools:read organization")), None),
        (with("redirect_uris", json!(["http://127.0.0.1:39999/callback"])), None),
    ] {
        let (status, answer) = register(&stack, &metadata, origin).await;
        assert_eq!(status, 201, "{answer}");
        let client = answer["client_id"].as_str().unwrap();
        let keycloak = Keycloak::of(&stack);
        let made = keycloak.get(&format!("/clients?clientId={client}")).await;
        assert_eq!(made[0]["consentRequired"], true, "nobody gets a token without the user's yes");
        assert_eq!(made[0]["fullScopeAllowed"], false, "no roles by default");
        assert_eq!(made[0]["directAccessGrantsEnabled"], false);
        keycloak.forget_client(client).await;
    }
    println!("{} registrations refused", rows.len());
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test registration"]
async fn there_is_an_end_of_registrations() {
    let stack = Stack::claim().await;
    let keycloak = Keycloak::of(&stack);
    let kind = "org.keycloak.services.clientregistration.policy.ClientRegistrationPolicy";
    let policies = keycloak.get(&format!("/components?type={kind}")).await;
    let policies = policies.as_array().unwrap();
    let limit = policies.iter().find(|policy| policy["providerId"] == "max-clients").unwrap();
    let shipped = limit["config"]["max-clients"][0].as_str().unwrap();
    assert!(shipped.parse::<u32>().unwrap() <= 1_000, "{shipped}");
    // Naming one policy drops Keycloak's own ones: all that keep strangers out are named.
    for needed in [
        "trusted-hosts",
        "consent-required",
        "scope",
        "max-clients",
        "allowed-protocol-mappers",
        "allowed-client-templates",
        "registration-web-origins",
    ] {
        assert!(
            policies.iter().any(|p| p["providerId"] == needed && p["subType"] == "anonymous"),
            "{needed} is not named"
        );
    }
    let clients = keycloak.get("/clients?max=1000").await.as_array().unwrap().len();
    let mut tight = limit.clone();
    tight["config"]["max-clients"] = json!([(clients + 1).to_string()]);
    let path = format!("/components/{}", limit["id"].as_str().unwrap());
    keycloak.change(Method::PUT, &path, Some(&tight)).await;
    let wanted = metadata(&stack, None);
    let (last, answer) = register(&stack, &wanted, None).await;
    let (over, refusal) = register(&stack, &wanted, None).await;
    keycloak.change(Method::PUT, &path, Some(limit)).await;
    keycloak.forget_client(answer["client_id"].as_str().unwrap_or("none")).await;
    assert_eq!((last, over), (201, 403), "{answer} {refusal}");
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test registration"]
async fn the_scope_of_administrators_is_for_those_with_the_role() {
    let stack = Stack::claim().await;
    let redirect = callback(&stack);
    let client = registered(&stack, Some("mcp:tools mcp:admin organization")).await;
    let resource = stack.state.resource("org-1");
    for (user, may) in [("thor", false), ("freya", true)] {
        let ask = Ask {
            client: &client,
            redirect: &redirect,
            scope: "mcp:tools mcp:admin organization",
            resource: Some(&resource),
        };
        let login = Person::sample(user, "org-1").log_in(&stack, &ask).await;
        let scopes = login.claims()["scope"].as_str().unwrap().to_owned();
        assert_eq!(scopes.split(' ').any(|scope| scope == "mcp:admin"), may, "{user}: {scopes}");
        assert!(scopes.contains("mcp:tools"));
    }
    Keycloak::of(&stack).forget_client(&client).await;
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test registration"]
async fn a_machine_is_a_member_like_a_person() {
    let stack = Stack::claim().await;
    let secret = &stack.state.secrets.tests_client;
    let url = format!("{}/protocol/openid-connect/token", stack.state.issuer());
    let (status, answer) = post_form(
        &url,
        &[
            ("grant_type", "client_credentials"),
            ("client_id", "tests"),
            ("client_secret", secret),
            ("scope", "mcp:tools organization:org-1"),
            ("resource", &stack.state.resource("org-1")),
        ],
    )
    .await;
    assert_eq!(status, 200, "{answer}");
    let token = answer["access_token"].as_str().unwrap();
    assert_eq!(tokens::claims(token)["aud"], json!(stack.state.resource("org-1")));
    assert_eq!(opens(&stack, "org-1", token).await, 200);
    assert_eq!(opens(&stack, "org-2", token).await, 401, "another audience");
    // Without a resource the token is for all of them, and membership decides.
    let (_, answer) = post_form(
        &url,
        &[
            ("grant_type", "client_credentials"),
            ("client_id", "tests"),
            ("client_secret", secret),
            ("scope", "mcp:tools organization:*"),
        ],
    )
    .await;
    let token = answer["access_token"].as_str().unwrap();
    assert_eq!(opens(&stack, "org-1", token).await, 200);
    assert_eq!(opens(&stack, "org-2", token).await, 403, "it belongs to org-1 alone");

    // The gateway may ask about it; others may not.
    let url = format!("{url}/introspect");
    let gateway = &stack.state.secrets.gateway_client;
    let asked = |client: &'static str, secret: String| {
        let (url, token) = (url.clone(), token.to_owned());
        async move {
            post_form(&url, &[("token", &token), ("client_id", client), ("client_secret", &secret)]).await
        }
    };
    let (status, answer) = asked("bifrost", gateway.clone()).await;
    assert_eq!((status, &answer["active"]), (200, &json!(true)), "{answer}");
    let (status, answer) = asked("bifrost", "wrong".into()).await;
    assert_eq!(status, 401, "{answer}");
    let (_, answer) = asked("asgard-cli", String::new()).await;
    assert_ne!(answer["active"], json!(true), "a public client learns nothing: {answer}");
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test registration"]
async fn a_client_may_be_the_address_of_its_metadata() {
    let stack = Stack::claim().await;
    let redirect = callback(&stack);
    let served = serve(|client| {
        json!({
            "client_id": client,
            "client_name": "A client with a document",
            "redirect_uris": [redirect],
            // Without the second, Keycloak 26.7 fails on `resource` (keycloak/README.md).
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
            "scope": "mcp:tools organization",
        })
    })
    .await;
    let client = served.url.clone();
    let resource = stack.state.resource("org-1");
    let ask = Ask {
        client: &client,
        redirect: &redirect,
        scope: "mcp:tools organization",
        resource: Some(&resource),
    };
    let login = Person::sample("freya", "org-1").log_in(&stack, &ask).await;
    assert!(login.saw("oauth-grant"), "consent: {:?}", login.pages);
    assert!(login.text.contains("A client with a document"));
    assert_eq!(opens(&stack, "org-1", login.token()).await, 200);
    drop(served);
    Keycloak::of(&stack).forget_client(&client).await;
    // The provider says so to clients.
    let about = format!("{}/.well-known/openid-configuration", stack.state.issuer());
    let about: Value = e2e::client::http().get(about).send().await.unwrap().json().await.unwrap();
    assert_eq!(about["client_id_metadata_document_supported"], true);
    assert!(!about["scopes_supported"].as_array().unwrap().contains(&json!("offline_access")));
}
