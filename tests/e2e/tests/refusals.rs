//! What must not get through: a table of faults in real tokens, forged headers, holds that a client asks for.
//! Faults that Keycloak can't be brought to sign are rows of the filter's own tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use asgard::supervisor::part::Kind;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use e2e::tokens::{self, Wish};
use e2e::{Client, EntryPoint, Exchange, Stack};
use identity::{Assertion, AssertionKeys, Principal, assertion};
use serde_json::{Value, json};

/// What the filter allows clocks to differ, in seconds.
const LEEWAY: u64 = 30;

struct Row {
    fault: &'static str,
    organisation: &'static str,
    token: String,
    status: u16,
    /// `error` and `reason` of the body.
    error: (&'static str, &'static str),
}

fn row(
    fault: &'static str,
    organisation: &'static str,
    token: String,
    status: u16,
    error: (&'static str, &'static str),
) -> Row {
    Row { fault, organisation, token, status, error }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test refusals"]
async fn every_fault_of_a_token_is_refused_and_no_backend_sees_it() {
    let stack = Stack::claim().await;
    let good = tokens::token(&stack, "thor", "org-1").await;
    let short = short_lived(&stack).await;
    let usual = |user| Wish::usual(&stack, user, "org-1");
    let sse = format!("{}/sse", stack.state.resource("org-2"));
    let foreign = tokens::fetch(
        &stack,
        &Wish { scope: "openid organization:*".into(), resource: Some(sse), ..usual("freya") },
    )
    .await;
    let no_organisation =
        tokens::fetch(&stack, &Wish { scope: "openid mcp:tools".into(), ..usual("thor") }).await;
    let invalid = |reason| ("invalid_token", reason);
    let mut rows = vec![
        row("no token", "org-1", String::new(), 401, ("missing_token", "token_missing")),
        row("garbage", "org-1", "garbage".into(), 401, invalid("token_malformed")),
        row("signature altered", "org-1", altered_signature(&good), 401, invalid("signature_wrong")),
        row("claims altered", "org-1", altered_claims(&good), 401, invalid("signature_wrong")),
        row("algorithm none", "org-1", with_header(&good, r#"{"alg":"none"}"#), 401, invalid("")),
        row("algorithm of a shared key", "org-1", with_header(&good, r#"{"alg":"HS256"}"#), 401, invalid("")),
        row("signature missing", "org-1", unsigned(&good), 401, invalid("")),
        row(
            "another realm's token",
            "org-1",
            tokens::administrator(&stack).await,
            401,
            invalid("issuer_wrong"),
        ),
        row("another resource's token", "org-2", good.clone(), 401, invalid("audience_wrong")),
        row(
            "another resource's token, of one who belongs to both",
            "org-2",
            tokens::token(&stack, "freya", "org-1").await,
            401,
            invalid("audience_wrong"),
        ),
        row("another HTTP+SSE endpoint's token", "org-1", foreign, 401, invalid("audience_wrong")),
        row(
            "organisation not the user's",
            "org-2",
            tokens::token(&stack, "thor", "org-2").await,
            403,
            ("insufficient_scope", "organisation_not_member"),
        ),
        row(
            "no organisation at all",
            "org-1",
            tokens::token(&stack, "surt", "org-1").await,
            403,
            ("insufficient_scope", "organisation_not_member"),
        ),
        row(
            "organisation not asked for",
            "org-1",
            no_organisation,
            403,
            ("insufficient_scope", "organisation_not_member"),
        ),
    ];
    rows.push(row("expired", "org-1", short.clone(), 401, invalid("token_expired")));

    // The twins without a fault. A backend sees each of them, so the counter would tell.
    for (user, organisation) in [("thor", "org-1"), ("freya", "org-1"), ("freya", "org-2"), ("hel", "org-2")]
    {
        for entry_point in EntryPoint::BOTH {
            let before = total(&stack).await;
            let client = Client::modern(&stack, entry_point, user, organisation).await;
            client.tool("echo", json!({"text": "x"})).await.check_whole(0).unwrap();
            assert_eq!(total(&stack).await - before, 1, "the backends count");
        }
    }
    let accepted = Client::at(stack.endpoint(EntryPoint::Bifrost, "org-1"), short.clone());
    assert!(accepted.tool("echo", json!({"text": "x"})).await.result().is_some(), "before it expires");

    let (seen, journal) = (total(&stack).await, stack.journal());
    for Row { fault, organisation, token, status, error } in &rows {
        if *fault == "expired" {
            let until = claims(token)["exp"].as_u64().unwrap() + LEEWAY + 1;
            tokio::time::sleep(Duration::from_secs(until.saturating_sub(now()))).await;
        }
        for entry_point in EntryPoint::BOTH {
            let client = Client::at(stack.endpoint(entry_point, organisation), token.clone());
            let exchange = client.tool("echo", json!({"text": "x"})).await;
            let case = format!(
                "{fault}, {entry_point:?}: {} {:?}",
                exchange.outline(),
                exchange.header("www-authenticate")
            );
            assert_eq!(exchange.status(), *status, "{case}");
            let body: Value = serde_json::from_str(&exchange.text).unwrap_or_else(|_| panic!("{case}"));
            assert_eq!(body["error"], error.0, "{case}");
            assert!(error.1.is_empty() || body["reason"] == error.1, "{case}");
            challenge(&stack, &exchange, organisation, error.0, &case);
            if entry_point == EntryPoint::Bifrost {
                println!("{fault}: {status} {} {}", error.0, body["reason"]);
            }
        }
    }
    assert_eq!(total(&stack).await, seen, "a refused request reached a backend");
    assert_eq!(journal.lines().len(), 0);
}

/// The challenge says where to learn more, and names an error unless there was no token to find fault with.
fn challenge(stack: &Stack, exchange: &Exchange, organisation: &str, error: &str, case: &str) {
    let challenge = exchange.header("www-authenticate").unwrap_or_else(|| panic!("{case}"));
    let metadata = format!(
        "Bearer resource_metadata=\"{}/.well-known/oauth-protected-resource/api/v1/mcp/{organisation}\"",
        stack.state.public_url
    );
    assert!(challenge.starts_with(&metadata), "{case}");
    assert!(challenge.contains("scope=\"") && !challenge.contains("offline_access"), "{case}");
    assert_eq!(challenge.contains("error="), error != "missing_token", "{case}");
    assert!(error == "missing_token" || challenge.contains(&format!("error=\"{error}\"")), "{case}");
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test refusals"]
async fn the_challenge_leads_to_a_token() {
    let stack = Stack::claim().await;
    let http = e2e::client::http();
    for entry_point in EntryPoint::BOTH {
        let client = Client::at(stack.endpoint(entry_point, "org-1"), String::new());
        let exchange = client.tool("echo", json!({"text": "x"})).await;
        let challenge = exchange.header("www-authenticate").unwrap();
        let url = challenge.split('"').nth(1).unwrap();
        let metadata: Value = http.get(url).send().await.unwrap().json().await.unwrap();
        assert_eq!(metadata["resource"], stack.state.resource("org-1"));
        let issuer = metadata["authorization_servers"][0].as_str().unwrap();
        assert_eq!(issuer, stack.state.issuer());
        // RFC 8414, section 3.1.
        let server = issuer.replace("/heimdall/", "/.well-known/oauth-authorization-server/heimdall/");
        let server: Value = http.get(server).send().await.unwrap().json().await.unwrap();
        assert_eq!(server["issuer"], issuer);
        assert!(server["code_challenge_methods_supported"].as_array().unwrap().contains(&json!("S256")));
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test refusals"]
async fn a_backend_believes_the_gateways_assertion_alone() {
    let stack = Stack::claim().await;
    let keys = AssertionKeys::parse(&stack.state.secrets.assertion_keys).unwrap();
    let (id, _) = stack.state.secrets.assertion_keys.split_once(':').unwrap();
    let others = AssertionKeys::parse(&format!("{id}:{}", BASE64_URL_SAFE_NO_PAD.encode([7; 32]))).unwrap();
    let good = assertion_of(&stack);
    let changed = |change: fn(&mut Assertion)| {
        let mut changed = good.clone();
        change(&mut changed);
        keys.sign(&changed)
    };
    let mut unknown = vec![
        ("signed by another", others.sign(&good)),
        ("altered", format!("{}x", keys.sign(&good))),
        ("for another audience", changed(|a| a.audience = "other".into())),
        ("expired", changed(|a| (a.issued_at, a.expires_at) = (a.issued_at - 60, a.issued_at - 50))),
        ("for another path", changed(|a| a.path = "/api/v1/mcp/org-2".into())),
        ("for another organisation", changed(|a| a.principal.organisation = "org-2".into())),
        ("for another HTTP method", changed(|a| a.method = "GET".into())),
        ("for another MCP method", changed(|a| a.mcp_method = Some("tools/list".into()))),
        ("for another tool", changed(|a| a.mcp_name = Some("slow_count".into()))),
        ("text", "thor".into()),
    ];
    unknown.push(("nothing", String::new()));
    for part in stack.of_kind(Kind::Backend).await {
        let client = Client::at(format!("http://{}/api/v1/mcp/org-1", part.address), String::new());
        let journal = stack.journal();
        for (what, value) in &unknown {
            let mut request =
                client.build(7, "tools/call", json!({"name": "echo", "arguments": {"text": "x"}}));
            if !value.is_empty() {
                request = request.header(assertion::HEADER, value);
            }
            // What the gateway would have said otherwise, and what a token says, count for nothing here.
            let userinfo = BASE64_URL_SAFE_NO_PAD.encode(r#"{"sub":"thor","organization":{"org-1":{}}}"#);
            let request = request.header("x-userinfo", userinfo);
            let request = request.bearer_auth(tokens::token(&stack, "thor", "org-1").await);
            let exchange = Exchange::of(request, 7).await.to_end().await;
            assert_eq!(exchange.status(), 401, "{what}: {}", exchange.outline());
        }
        assert_eq!(journal.lines().len(), 0, "no tool ran");
        // The twin: the very request with the right one.
        let request = client.build(7, "tools/call", json!({"name": "echo", "arguments": {"text": "x"}}));
        let exchange =
            Exchange::of(request.header(assertion::HEADER, keys.sign(&good)), 7).await.to_end().await;
        exchange.check_whole(0).unwrap();
        let twice = client.build(7, "tools/call", json!({"name": "echo", "arguments": {"text": "x"}}));
        let twice = twice.header(assertion::HEADER, keys.sign(&good)).header(assertion::HEADER, "thor");
        assert_eq!(Exchange::of(twice, 7).await.status(), 401, "two of them");
        println!("{}: {} forgeries refused", part.name, unknown.len() + 1);
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test refusals"]
async fn forged_headers_do_not_pass_the_gateway() {
    let stack = Stack::claim().await;
    let keys = AssertionKeys::parse(&stack.state.secrets.assertion_keys).unwrap();
    let mut forged = assertion_of(&stack);
    forged.principal.username = Some("somebody else".into());
    for entry_point in EntryPoint::BOTH {
        let client = Client::modern(&stack, entry_point, "thor", "org-1").await;
        for (name, value) in [
            (assertion::HEADER, keys.sign(&forged)),
            ("x-userinfo", "eyJzdWIiOiJ4In0=".into()),
            ("grip-sig", "x.y.z".into()),
            ("x-accel-redirect", "@hermod".into()),
            ("x-envoy-original-url", "/".into()),
        ] {
            let request = client.build(7, "tools/call", json!({"name": "whoami", "arguments": {}}));
            let exchange = Exchange::of(request.header(name, value), 7).await.to_end().await;
            // Taken off, or refused: both are fine; believed is not.
            let who = exchange.result().map(|result| result["structuredContent"]["username"].clone());
            let fine = who == Some(json!("thor")) || exchange.status() == 400;
            assert!(fine, "{entry_point:?} {name}: {}", exchange.outline());
        }
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test refusals"]
async fn a_client_can_not_ask_for_a_hold() {
    let stack = Stack::claim().await;
    let token = tokens::token(&stack, "thor", "org-1").await;
    let keys = AssertionKeys::parse(&stack.state.secrets.assertion_keys).unwrap();
    let ticket = "0023456789abcdef0123456789abcdef";
    for entry_point in EntryPoint::BOTH {
        for path in [
            format!("/_hermod/hold/{ticket}"),
            format!("//_hermod/hold/{ticket}"),
            format!("/_hermod//hold/{ticket}"),
            format!("/%5fhermod/hold/{ticket}"),
            "/_hermod/".into(),
            "/_hermod/hold/".into(),
            "/statz".into(),
            "/readyz".into(),
        ] {
            let own = stack.edge(entry_point).replace("http://", "");
            for host in ["hermod", "HERMOD", "hermod:80", "hermod.", &own] {
                let url = format!("{}{path}", stack.edge(entry_point));
                let request = e2e::client::http()
                    .get(&url)
                    .header("host", host)
                    .bearer_auth(&token)
                    .header("accept", "text/event-stream")
                    .header("x-envoy-original-url", "/")
                    .header(assertion::HEADER, keys.sign(&assertion_of(&stack)));
                let answer = request.send().await.unwrap();
                let (status, kind) =
                    (answer.status().as_u16(), answer.headers().get("content-type").cloned());
                let text = answer.text().await.unwrap_or_default();
                // 502: Pushpin knows no way there. 503: the assertion is the gateway's, so its client was let in, and
                // its stream is not there any more.
                let refused = [404, 400].contains(&status)
                    || ([502, 503].contains(&status) && entry_point == EntryPoint::Hermod);
                assert!(!text.contains("data:"), "{entry_point:?} {path} Host: {host}: {text}");
                assert!(refused, "{entry_point:?} {path} Host: {host}: {status} {kind:?} {text}");
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test refusals"]
async fn the_command_explains_refusals_and_rights() {
    let stack = Stack::claim().await;
    let asgard = async |args: &[&str]| {
        let program = std::env::var_os("ASGARD_BIN")
            .expect("ASGARD_BIN names the asgard command; ./asgard test sets it");
        let output = tokio::process::Command::new(program).args(args).output().await.unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for (entry_point, token, reason) in [
        (EntryPoint::Bifrost, String::new(), "401 token_missing"),
        (EntryPoint::Hermod, tokens::token(&stack, "thor", "org-2").await, "403 organisation_not_member"),
    ] {
        let organisation = if token.is_empty() { "org-1" } else { "org-2" };
        let client = Client::at(stack.endpoint(entry_point, organisation), token);
        let request = client.build(7, "tools/call", json!({"name": "echo", "arguments": {"text": "x"}}));
        let mine = "0123456789abcdef0123456789abcdef";
        let exchange = Exchange::of(request.header("x-request-id", mine), 7).await.to_end().await;
        let body: Value = serde_json::from_str(&exchange.text).unwrap();
        assert_ne!(body["request_id"], mine, "a client does not name its own request");
        let id = body["request_id"].as_str().unwrap_or_else(|| panic!("no request_id: {body}")).to_owned();
        e2e::stack::wait("the gateway's log has the refusal", Duration::from_secs(20), async || {
            let (ok, text) = asgard(&["why", &id]).await;
            (ok && text.contains(reason) && text.contains("fix:")).then_some(())
        })
        .await;
    }
    assert!(!asgard(&["why", "0123456789abcdef"]).await.0, "nobody knows that request");
    let (ok, text) = asgard(&["can", "thor", "org-1", "echo"]).await;
    assert!(ok && text.contains("yes") && text.contains("echo"), "{text}");
    let (ok, text) = asgard(&["can", "thor", "org-1"]).await;
    assert!(ok && text.contains("whoami"), "{text}");
    let (ok, text) = asgard(&["can", "thor", "org-2", "echo"]).await;
    assert!(!ok && text.contains("may use nothing in org-2"), "{text}");
}

/// What the gateway would sign for a call of `echo`.
fn assertion_of(stack: &Stack) -> Assertion {
    Assertion {
        principal: {
            let mut caller = Principal::new(stack.state.issuer(), "somebody", "org-1");
            caller.username = Some("thor".into());
            caller
        },
        audience: assertion::AUDIENCE.into(),
        entry_point: identity::EntryPoint::Bifrost,
        method: "POST".into(),
        path: "/api/v1/mcp/org-1".into(),
        mcp_method: Some("tools/call".into()),
        mcp_name: Some("echo".into()),
        issued_at: now(),
        expires_at: now() + assertion::LIFE,
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Requests that any backend has answered.
async fn total(stack: &Stack) -> u64 {
    stack.served().await.values().sum()
}

fn parts(token: &str) -> [&str; 3] {
    token.split('.').collect::<Vec<_>>().try_into().unwrap()
}

fn claims(token: &str) -> Value {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(parts(token)[1]).unwrap()).unwrap()
}

fn altered_signature(token: &str) -> String {
    let [header, claims, signature] = parts(token);
    let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
    bytes[17] ^= 1;
    format!("{header}.{claims}.{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

fn altered_claims(token: &str) -> String {
    let [header, _, signature] = parts(token);
    let mut claims = claims(token);
    claims["preferred_username"] = json!("odin");
    format!("{header}.{}.{signature}", BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn with_header(token: &str, header: &str) -> String {
    let [_, claims, signature] = parts(token);
    format!("{}.{claims}.{signature}", BASE64_URL_SAFE_NO_PAD.encode(header))
}

fn unsigned(token: &str) -> String {
    let [header, claims, _] = parts(token);
    format!("{header}.{claims}.")
}

/// A token that lives for one second. For it, the client `tests` gets such a lifespan for a moment.
async fn short_lived(stack: &Stack) -> String {
    let (http, secret) = (e2e::client::http(), &stack.state.secrets.tests_client);
    let administrator = tokens::administrator(stack).await;
    let realm = format!("{}/heimdall/admin/realms/asgard", stack.state.public_url);
    let found: Value = http
        .get(format!("{realm}/clients?clientId=tests"))
        .bearer_auth(&administrator)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let mut client = found[0].clone();
    let id = client["id"].as_str().unwrap_or_else(|| panic!("no client tests: {found}")).to_owned();
    let mut tokens = BTreeMap::new();
    for lifespan in ["1", ""] {
        client["attributes"]["access.token.lifespan"] = json!(lifespan);
        let changed = http
            .put(format!("{realm}/clients/{id}"))
            .bearer_auth(&administrator)
            .header("content-type", "application/json")
            .body(client.to_string())
            .send()
            .await
            .unwrap();
        assert!(changed.status().is_success(), "{}", changed.status());
        let token = tokens::fetch_as(stack, &Wish::usual(stack, "thor", "org-1"), ("tests", secret)).await;
        let life = claims(&token)["exp"].as_u64().unwrap() - claims(&token)["iat"].as_u64().unwrap();
        tokens.insert(lifespan, (token, life));
    }
    assert_eq!(tokens["1"].1, 1);
    assert!(tokens[""].1 > 60, "the lifespan is as before");
    tokens.remove("1").unwrap().0
}
