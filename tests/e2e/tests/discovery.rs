//! How clients of all revisions find the authorization server, and what opens with the token that they get there:
//! those that ask for the scopes of the challenge, and those that ask for none.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use e2e::http_sse::SseClient;
use e2e::keycloak::Keycloak;
use e2e::login::{Ask, Login, Person, register};
use e2e::{Client, EntryPoint, Stack};
use reqwest::Response;
use serde_json::{Value, json};

fn callback(stack: &Stack) -> String {
    format!("http://localhost:{}/oauth/callback", stack.state.ports.inspector)
}

/// A client that registers with that scope, or without one.
async fn registered(stack: &Stack, scope: Option<&str>) -> String {
    let mut metadata = json!({
        "client_name": "a test's client",
        "redirect_uris": [callback(stack)],
        "token_endpoint_auth_method": "none",
    });
    if let Some(scope) = scope {
        metadata["scope"] = json!(scope);
    }
    let (status, answer) = register(stack, &metadata, None).await;
    assert_eq!(status, 201, "{answer}");
    answer["client_id"].as_str().unwrap().to_owned()
}

async fn log_in(stack: &Stack, client: &str, person: &mut Person, scope: &str, resource: &str) -> Login {
    let redirect = callback(stack);
    person.log_in(stack, &Ask { client, redirect: &redirect, scope, resource: Some(resource) }).await
}

/// A quick call's status, and the scopes that its challenge names.
async fn call(endpoint: String, token: &str) -> (u16, Option<String>) {
    let exchange = Client::at(endpoint, token.to_owned()).tool("echo", json!({"text": "x"})).await;
    if exchange.status() == 200 {
        exchange.check_whole(0).unwrap();
    }
    let scope = exchange.header("www-authenticate").and_then(|text| text.split("scope=\"").nth(1));
    (exchange.status(), scope.map(|text| text.split('"').next().unwrap().to_owned()))
}

async fn get(url: &str) -> Response {
    e2e::client::http().get(url).send().await.unwrap()
}

/// A public document: any page may read it.
async fn document(url: &str) -> Value {
    let page = "http://any.example";
    let answer = e2e::client::http().get(url).header("origin", page).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{url}");
    let allowed = answer.headers()["access-control-allow-origin"].to_str().unwrap();
    assert!(["*", page].contains(&allowed), "{url}: {allowed}");
    answer.json().await.unwrap()
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test discovery"]
async fn the_authorization_servers_metadata_is_served_wherever_clients_look() {
    let stack = Stack::claim().await;
    let issuer = stack.state.issuer();
    let own = document(&format!("{issuer}/.well-known/openid-configuration")).await;
    assert_eq!(own["issuer"], json!(issuer));
    let ends = ["", "/api/v1/mcp/org-1", "/api/v1/mcp/org-1/sse", "/api/v1/org-1/sse"];
    for entry_point in EntryPoint::BOTH {
        let edge = stack.edge(entry_point);
        let mut places = vec![
            format!("/.well-known/openid-configuration{}", "/heimdall/realms/asgard"),
            format!("/.well-known/oauth-authorization-server{}", "/heimdall/realms/asgard"),
        ];
        for end in ends {
            places.push(format!("/.well-known/oauth-authorization-server{end}"));
            places.push(format!("/.well-known/openid-configuration{end}"));
        }
        places.extend(ends[1..].iter().map(|end| format!("{end}/.well-known/openid-configuration")));
        for place in &places {
            let found = document(&format!("{edge}{place}")).await;
            for member in ["issuer", "authorization_endpoint", "token_endpoint", "registration_endpoint"] {
                assert_eq!(found[member], own[member], "{place}: {member}");
            }
        }
        for nowhere in ["/.well-known/openid-configuration/x", "/.well-known/oauth-authorization-servers"] {
            assert_eq!(get(&format!("{edge}{nowhere}")).await.status(), 404, "{nowhere}");
        }
        println!("{entry_point:?}: the authorization server's metadata is served at {} places", places.len());
    }
    let short = stack.state.host_url("org-1.localhost").unwrap();
    for place in ["/.well-known/oauth-authorization-server/mcp", "/mcp/.well-known/openid-configuration"] {
        assert_eq!(document(&format!("{short}{place}")).await["issuer"], own["issuer"], "{place}");
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test discovery"]
async fn each_address_is_a_resource_of_its_own() {
    let stack = Stack::claim().await;
    let public = &stack.state.public_url;
    let own = stack.state.host_url("org-1.localhost").unwrap();
    let well_known = "/.well-known/oauth-protected-resource";
    let client = registered(&stack, Some("mcp:tools organization")).await;
    let mut thor = Person::sample("thor", "org-1");
    for base in [public, &own] {
        let stream = format!("{base}/api/v1/mcp/org-1/sse");
        let answer = get(&stream).await;
        let challenge = answer.headers()["www-authenticate"].to_str().unwrap().to_owned();
        let about = format!("{base}{well_known}/api/v1/mcp/org-1/sse");
        assert!(challenge.contains(&format!("resource_metadata=\"{about}\"")), "{challenge}");
        assert_eq!(document(&about).await["resource"], json!(stream));
        let login = log_in(&stack, &client, &mut thor, "mcp:tools organization", &stream).await;
        assert_eq!(login.claims()["aud"], json!(stream));
        let mut session = SseClient::connect(&stream, login.token()).await;
        let params = json!({"name": "echo", "arguments": {"text": "by HTTP+SSE"}});
        let result = session.request("tools/call", params).await;
        assert_eq!(result["result"]["content"][0]["text"], "by HTTP+SSE", "{result}");
        assert_eq!(call(stack.state.resource("org-1"), login.token()).await.0, 200, "the same organisation");
        assert_eq!(call(stack.state.resource("org-2"), login.token()).await.0, 401, "another one");
    }
    // At the root there is one only where there is one organisation.
    for entry_point in EntryPoint::BOTH {
        assert_eq!(get(&format!("{}{well_known}", stack.edge(entry_point))).await.status(), 404);
    }
    let only = document(&format!("{own}{well_known}")).await;
    assert_eq!(only["resource"], json!(format!("{own}/api/v1/mcp/org-1")));
    Keycloak::of(&stack).forget_client(&client).await;
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test discovery"]
async fn who_asks_for_no_scope_gets_a_token() {
    let stack = Stack::claim().await;
    let keycloak = Keycloak::of(&stack);
    let resource = stack.state.resource("org-1");
    for scope in [None, Some(""), Some("openid profile"), Some("mcp:tools organization")] {
        let client = registered(&stack, scope).await;
        for user in ["thor", "freya"] {
            let mut person = Person::sample(user, "org-1");
            let login = log_in(&stack, &client, &mut person, "", &resource).await;
            assert_eq!(login.claims()["aud"], json!(resource), "{user}, registered with {scope:?}");
            let (status, wanted) = call(resource.clone(), login.token()).await;
            // Without scopes of its own a client has the realm's, and the organisation is clear if there is one.
            if scope.is_none() && user == "thor" {
                assert_eq!(status, 200);
                continue;
            }
            assert_eq!(status, 403, "{user}, registered with {scope:?}");
            // What the challenge asks for opens it: a client that may ask for it gets in.
            let wanted = wanted.unwrap();
            assert_eq!(wanted, "mcp:tools organization");
            if scope.is_none_or(|scope| scope == wanted) {
                let mut person = Person::sample(user, "org-1");
                let login = log_in(&stack, &client, &mut person, &wanted, &resource).await;
                assert_eq!(login.saw("select-organization"), user == "freya", "{:?}", login.pages);
                assert_eq!(call(resource.clone(), login.token()).await.0, 200, "{user} {scope:?}");
            }
        }
        keycloak.forget_client(&client).await;
    }
}

/// Clients of revision 2025-03-26 know no resource: their token is for all addresses, and membership decides.
#[tokio::test]
#[ignore = "needs a running stack: ./asgard test discovery"]
async fn who_names_no_resource_reaches_the_organisations_of_the_user() {
    let stack = Stack::claim().await;
    let client = registered(&stack, None).await;
    let redirect = callback(&stack);
    let ask = Ask { client: &client, redirect: &redirect, scope: "", resource: None };
    let login = Person::sample("thor", "org-1").log_in(&stack, &ask).await;
    assert_eq!(call(stack.state.resource("org-1"), login.token()).await.0, 200);
    assert_eq!(call(stack.state.resource("org-2"), login.token()).await.0, 403);
    Keycloak::of(&stack).forget_client(&client).await;
}
