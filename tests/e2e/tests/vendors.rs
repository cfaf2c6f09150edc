//! The clients of docs/clients.md that come with a registration of their own: what each sends, at the real Keycloak, as
//! the sample lets it in or `asgard host add --client` does. The registrations and documents are those that the
//! clients sent or published in 2026; a document is served from here, under an address of here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use e2e::documents::{Served, serve};
use e2e::keycloak::Keycloak;
use e2e::login::{Ask, Login, Person, register};
use e2e::{Client, Stack};
use reqwest::Method;
use serde_json::{Value, json};

/// The scopes of the challenge.
const SCOPE: &str = "mcp:tools organization";
const GRANTS: [&str; 2] = ["authorization_code", "refresh_token"];

/// Runs the command on trusted hosts.
async fn host(stack: &Stack, arguments: &[&str]) -> String {
    let output = tokio::process::Command::new(asgard::stack::program(&stack.paths))
        .arg("host")
        .args(arguments)
        .current_dir(&stack.paths.root)
        .env("ASGARD_ROOT", &stack.paths.root)
        .env("ASGARD_HOME", &stack.paths.home)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

/// Whom Keycloak trusts: as it was, to be put back.
struct Trust {
    hosts: Value,
    profiles: Value,
    policies: Value,
}

impl Trust {
    async fn of(stack: &Stack) -> Self {
        let keycloak = Keycloak::of(stack);
        let kind = "org.keycloak.services.clientregistration.policy.ClientRegistrationPolicy";
        let all = keycloak.get(&format!("/components?type={kind}")).await;
        let is = |one: &&Value| one["providerId"] == "trusted-hosts" && one["subType"] == "anonymous";
        let hosts = all.as_array().unwrap().iter().find(is).unwrap().clone();
        let mut profiles = keycloak.get("/client-policies/profiles").await;
        let mut policies = keycloak.get("/client-policies/policies").await;
        // What Keycloak brings itself is not to be sent back.
        profiles.as_object_mut().unwrap().remove("globalProfiles");
        policies.as_object_mut().unwrap().remove("globalPolicies");
        Self { hosts, profiles, policies }
    }

    async fn restore(self, stack: &Stack) {
        let keycloak = Keycloak::of(stack);
        let hosts = format!("/components/{}", self.hosts["id"].as_str().unwrap());
        for (path, value) in [
            (hosts.as_str(), &self.hosts),
            ("/client-policies/profiles", &self.profiles),
            ("/client-policies/policies", &self.policies),
        ] {
            keycloak.change(Method::PUT, path, Some(value)).await;
        }
    }
}

async fn log_in(stack: &Stack, client: &str, redirect: &str, scope: &str) -> Login {
    let resource = stack.state.resource("org-1");
    let ask = Ask { client, redirect, scope, resource: Some(&resource) };
    Person::sample("thor", "org-1").log_in(stack, &ask).await
}

/// The person agrees when it is asked for the first time, the token is for the organisation, and a tool can be called.
async fn gets_in(stack: &Stack, client: &str, redirect: &str, scope: &str, first: bool) {
    let login = log_in(stack, client, redirect, scope).await;
    assert_eq!(login.saw("oauth-grant"), first, "{client} {redirect}: consent: {:?}", login.pages);
    let resource = stack.state.resource("org-1");
    assert_eq!(login.claims()["aud"], json!(resource));
    let call = Client::at(resource, login.token().to_owned()).tool("echo", json!({"text": "x"})).await;
    assert_eq!(call.status(), 200, "{client} {redirect}: {}", call.outline());
}

/// A client, what it registers (RFC 7591), and each address to which it may have the person sent back.
struct Registration {
    name: &'static str,
    metadata: Value,
    redirects: Vec<&'static str>,
}

fn registration(name: &'static str, redirects: &[&'static str], more: Value) -> Registration {
    let mut metadata = json!({
        "redirect_uris": redirects,
        "grant_types": GRANTS,
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    });
    for (member, value) in more.as_object().unwrap() {
        metadata[member] = value.clone();
    }
    Registration { name, metadata, redirects: redirects.to_vec() }
}

fn vscode() -> Registration {
    let redirects = [
        "https://insiders.vscode.dev/redirect",
        "https://vscode.dev/redirect",
        "http://127.0.0.1/",
        "http://127.0.0.1:33418/",
    ];
    let more = json!({
        "client_name": "Visual Studio Code",
        "client_uri": "https://code.visualstudio.com",
        "grant_types": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
        "scope": SCOPE,
        "application_type": "native",
    });
    let mut vscode = registration("vscode", &redirects, more);
    // Any port, when its own is taken.
    vscode.redirects = vec![redirects[1], redirects[3], "http://127.0.0.1:50123/"];
    vscode
}

fn cursor() -> Registration {
    let redirects = [
        "cursor://anysphere.cursor-mcp/oauth/callback",
        "https://www.cursor.com/agents/mcp/oauth/callback",
        "http://localhost:8787/callback",
    ];
    registration("cursor", &redirects, json!({"client_name": "Cursor"}))
}

fn claude() -> Registration {
    let redirects = ["https://claude.ai/api/mcp/auth_callback"];
    registration("claude", &redirects, json!({"client_name": "Claude", "scope": SCOPE}))
}

fn chatgpt() -> Registration {
    let redirects = ["https://chatgpt.com/connector_platform_oauth_redirect"];
    registration("chatgpt", &redirects, json!({"client_name": "ChatGPT", "scope": SCOPE}))
}

/// Registers, and comes in by each of the addresses.
async fn registers(stack: &Stack, client: &Registration) {
    let scope = client.metadata["scope"].as_str().unwrap_or_default();
    for redirect in &client.redirects {
        let (status, answer) = register(stack, &client.metadata, None).await;
        assert_eq!(status, 201, "{}: {answer}", client.name);
        let id = answer["client_id"].as_str().unwrap();
        gets_in(stack, id, redirect, scope, true).await;
        Keycloak::of(stack).forget_client(id).await;
    }
    println!("Bifrost: {} registers, {} ways back", client.name, client.redirects.len());
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test vendors"]
async fn local_clients_register_at_the_sample_as_it_is() {
    let stack = Stack::claim().await;
    let six = ["http://[::1]:39999/callback"];
    let claude_code = ["http://localhost:54012/callback"];
    for client in [
        vscode(),
        cursor(),
        registration("claude-code", &claude_code, json!({"client_name": "Claude Code (asgard)"})),
        registration("[::1]", &six, json!({"client_name": "by IPv6", "scope": SCOPE})),
    ] {
        registers(&stack, &client).await;
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test vendors"]
async fn one_command_lets_the_others_in() {
    let stack = Stack::claim().await;
    let trust = Trust::of(&stack).await;
    for client in [claude(), chatgpt()] {
        assert_eq!(register(&stack, &client.metadata, None).await.0, 403, "{}", client.name);
        let said = host(&stack, &["add", "--client", client.name]).await;
        assert!(said.contains("may register from now on"), "{said}");
        assert!(host(&stack, &["add", "--client", client.name]).await.contains("could already"));
        registers(&stack, &client).await;
        assert!(host(&stack, &["remove", "--client", client.name]).await.contains("no longer"));
        assert_eq!(register(&stack, &client.metadata, None).await.0, 403, "{}", client.name);
    }
    // The others by name, too, where the sample's hosts are not trusted.
    for client in [vscode(), cursor()] {
        host(&stack, &["remove", "--client", client.name]).await;
        assert_eq!(register(&stack, &client.metadata, None).await.0, 403, "{}", client.name);
        host(&stack, &["add", "--client", client.name]).await;
        registers(&stack, &client).await;
    }
    trust.restore(&stack).await;
}

/// Publishes a client's metadata; the client's id is the document's address.
async fn publish(mut document: Value) -> Served {
    serve(|client| {
        document["client_id"] = json!(client);
        document
    })
    .await
}

fn document(name: &str, redirects: &[&str], more: Value) -> Value {
    let mut document = registration("", &[], more).metadata;
    document["client_name"] = json!(name);
    document["redirect_uris"] = json!(redirects);
    document
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test vendors"]
async fn local_clients_documents_are_accepted() {
    let stack = Stack::claim().await;
    let vscode = json!({
        "client_uri": "https://code.visualstudio.com",
        "grant_types": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
        "application_type": "native",
    });
    let rows = [
        (
            document(
                "Visual Studio Code",
                &["http://127.0.0.1:33418/", "https://vscode.dev/redirect"],
                vscode,
            ),
            vec!["http://127.0.0.1:33418/", "https://vscode.dev/redirect"],
        ),
        (
            document("Claude Code", &["http://localhost/callback", "http://127.0.0.1/callback"], json!({})),
            vec!["http://localhost:3118/callback", "http://127.0.0.1:54321/callback"],
        ),
    ];
    for (document, redirects) in rows {
        for redirect in redirects {
            for scope in [SCOPE, ""] {
                let client = publish(document.clone()).await;
                gets_in(&stack, &client.url, redirect, scope, true).await;
                Keycloak::of(&stack).forget_client(&client.url).await;
            }
        }
    }
    // The addresses of the documents are on hosts that the sample trusts.
    let keycloak = Keycloak::of(&stack);
    for path in ["/client-policies/profiles", "/client-policies/policies"] {
        let trusted = keycloak.get(path).await.to_string();
        assert!(trusted.contains("\"vscode.dev\"") && trusted.contains("\"claude.ai\""), "{path}");
    }
}

/// Upstream: Keycloak 26.7 refuses `jwt-bearer` in the document of a public client, which Claude's has. So it has to
/// have Claude beforehand, as the command puts it there. Should the document be accepted one day, drop that.
#[tokio::test]
#[ignore = "needs a running stack: ./asgard test vendors"]
async fn claude_is_known_beforehand_as_its_document_is_refused() {
    let stack = Stack::claim().await;
    let trust = Trust::of(&stack).await;
    let redirect = "https://claude.ai/api/mcp/auth_callback";
    host(&stack, &["add", "--client", "claude"]).await;
    let bearer = "urn:ietf:params:oauth:grant-type:jwt-bearer";
    for (more, good) in [(json!({"grant_types": [GRANTS[0], GRANTS[1], bearer]}), false), (json!({}), true)] {
        let client = publish(document("Claude", &[redirect], more)).await;
        let start = format!(
            "{}/protocol/openid-connect/auth?response_type=code&client_id={}&redirect_uri={}&state=a&scope=openid\
             &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256",
            stack.state.issuer(),
            e2e::tokens::encode(&client.url),
            e2e::tokens::encode(redirect),
        );
        let answer = e2e::client::http().get(start).send().await.unwrap();
        assert_eq!(answer.status() == 400, !good, "{}", answer.status());
        Keycloak::of(&stack).forget_client(&client.url).await;
    }
    let claude = "https://claude.ai/oauth/mcp-oauth-client-metadata";
    for (redirect, first) in [(redirect, true), ("https://claude.com/api/mcp/auth_callback", false)] {
        gets_in(&stack, claude, redirect, SCOPE, first).await;
    }
    host(&stack, &["remove", "--client", "claude"]).await;
    trust.restore(&stack).await;
}

/// Upstream: Keycloak 26.7 does not read a document with a member that it does not know, and ChatGPT's has one.
#[tokio::test]
#[ignore = "needs a running stack: ./asgard test vendors"]
async fn chatgpt_is_known_beforehand_and_has_to_prove_itself() {
    let stack = Stack::claim().await;
    host(&stack, &["add", "--client", "chatgpt"]).await;
    let redirect = "https://chatgpt.com/connector_platform_oauth_redirect";
    // The person agrees and a code is given; the token is for who has ChatGPT's key.
    let login = log_in(&stack, "https://chatgpt.com/oauth/client.json", redirect, SCOPE).await;
    assert!(login.saw("oauth-grant"), "{:?}", login.pages);
    let refused = login.outcome.unwrap_err();
    assert!(
        ["invalid_client", "unauthorized_client"].contains(&refused["error"].as_str().unwrap()),
        "{refused}"
    );
    host(&stack, &["remove", "--client", "chatgpt"]).await;
    let keycloak = Keycloak::of(&stack);
    assert!(!keycloak.get("/clients?max=1000").await.to_string().contains("chatgpt.com"), "it is gone");
}
