//! The shipped `kong.yml` and `kong.env`, with and without the filter.
//!
//! Needs the filter's module: `scripts/build-filter`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may fail

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/shipped_gateway.rs"]
mod shipped_gateway;
mod short_paths;

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::{Answer, read, request, send};
use identity::assertion::AUDIENCE;
use identity::{Assertion, AssertionKeys};
use kong_host::Severity;
use serde_json::{Value, json};
use shipped_gateway::{
    ASSERTION_KEYS, ENDPOINT, Key, ORIGIN, PUBLIC_URL, ShippedGateway, claims, filter, now,
};

/// Paths at which somebody may hope to reach a backend.
const PATHS: [&str; 18] = [
    ENDPOINT,
    "/api/v1/mcp/org-1/sse",
    "/api/v1/mcp/org-1/0123/messages",
    "/api/v1/org-1/sse",
    "/api/v1/org-1/0123/messages",
    "/api/v1/",
    "/api/v1",
    "/",
    "/livez",
    "/readyz",
    "/_hermod/hold/0123456789abcdef0123456789abcdef",
    "/api/v1/mcp/../../../_hermod/hold/0123456789abcdef0123456789abcdef",
    "/heimdall/../api/v1/mcp/org-1",
    "/.well-known/oauth-protected-resource",
    "/.well-known/oauth-protected-resource/api/v1/mcp/org-1",
    "/.well-known/../api/v1/mcp/org-1",
    "//api//v1/mcp/org-1",
    "/%61pi/v1/mcp/org-1",
];

/// The assertion that a backend got, checked at the moment when it was signed: the host is slow, and it lives for
/// seconds.
fn assertion(header: &str) -> Assertion {
    let payload =
        header.split('.').nth(2).and_then(|p| URL_SAFE_NO_PAD.decode(p).ok()).expect("an assertion");
    let issued = serde_json::from_slice::<Value>(&payload).unwrap()["iat"].as_u64().unwrap();
    assert!(issued.abs_diff(now()) < 300);
    AssertionKeys::parse(ASSERTION_KEYS).unwrap().verify(header, AUDIENCE, issued).unwrap()
}

async fn ask(site: &ShippedGateway, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
    let body: &[u8] = if method == "POST" { br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"# } else { b"" };
    send(site.gateway.address(), request(method, target, headers, body)).await
}

async fn call(site: &ShippedGateway, token: &str, more: &[(&str, &str)]) -> Answer {
    let bearer = format!("Bearer {token}");
    let mut headers = vec![("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    headers.extend(more);
    ask(site, "POST", ENDPOINT, &headers).await
}

/// No request reaches a backend, whatever is asked, with a good token or without.
async fn assert_closed(site: &ShippedGateway, expected: &[u16]) {
    let bearer = format!("Bearer {}", site.key.token(&claims()));
    for path in PATHS {
        for method in ["GET", "POST", "DELETE", "PUT"] {
            for headers in [vec![], vec![("Authorization", bearer.as_str())]] {
                let answer = ask(site, method, path, &headers).await;
                assert!(expected.contains(&answer.status), "{method} {path}: {}", answer.status);
            }
        }
    }
    assert_eq!(site.reached(), (0, 0), "requests and connections at the backends");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the filter's module: ./asgard test kong"]
async fn without_the_filter_no_request_reaches_a_backend() {
    // A module without the ABI: Kong starts all the same.
    let site = ShippedGateway::start(Some(NO_ABI.to_vec())).await;
    assert!(!site.gateway.filters_loaded());
    assert_closed(&site, &[404, 500, 502]).await;
    assert!(site.gateway.log().has(Severity::Error, "closed-until-the-filter-ran"));
    // What does not concern the backends is served: Kong is up, and only they are out of reach.
    assert_eq!(ask(&site, "GET", "/heimdall/realms/asgard", &[]).await.status, 200);
}

/// A module that is none of a filter.
const NO_ABI: &[u8] = b"\0asm\x01\0\0\0";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the filter's module: ./asgard test kong"]
async fn without_a_whole_module_kong_does_not_start() {
    let start =
        async |wasm| ShippedGateway::try_start(wasm, |k| shipped_gateway::filter_config(k).to_string()).await;
    let error = start(None).await.err().unwrap();
    assert!(error.to_string().contains("no such filter: kong_filter"));
    let truncated = filter()[..100_000].to_vec();
    for broken in [Vec::new(), b"not wasm at all".to_vec(), truncated] {
        let error = start(Some(broken)).await.err().unwrap();
        assert!(error.to_string().contains("not a WebAssembly module"), "{error}");
    }
    // The module for Envoy has not all that Kong calls.
    let lean = shipped_gateway::envoys_filter();
    let site = start(Some(lean)).await.unwrap();
    assert!(!site.gateway.filters_loaded());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the filter's module: ./asgard test kong"]
async fn with_a_wrong_configuration_every_request_is_refused() {
    // What the schema can tell, Kong does.
    for (config, why) in [
        ("", "config: type"),
        ("{}", "config: required"),
        ("not json", "config: type"),
        (r#"{"public_url":"http://localhost:8000","issuers":{},"assertion":{},"unknown":1}"#, "config"),
    ] {
        let error = ShippedGateway::try_start(Some(filter()), |_| config.to_owned()).await.err().unwrap();
        assert!(error.to_string().contains(why), "{error}");
    }
    for (name, wrong) in [
        ("public_url", json!("nonsense")),
        ("issuers", json!({})),
        ("assertion", json!({"keys": "short:c2hvcnQ"})),
    ] {
        let change = |mut config: Value| {
            config[name] = wrong;
            config
        };
        let site = ShippedGateway::with(Some(filter()), change).await;
        assert!(site.gateway.filters_loaded(), "the filter stays, and refuses");
        assert_closed(&site, &[200, 404, 503]).await;
        let bearer = format!("Bearer {}", site.key.token(&claims()));
        assert_eq!(ask(&site, "POST", ENDPOINT, &[("Authorization", &bearer)]).await.status, 503);
        assert!(site.gateway.log().has(Severity::Crit, "misconfigured"));
    }
    // The lock of another gateway's configuration: the filter passes, and Kong's lock holds.
    let site = ShippedGateway::with(Some(filter()), |mut config| {
        config.as_object_mut().unwrap().remove("kong_scheme");
        config
    })
    .await;
    assert_eq!(call(&site, &site.key.token(&claims()), &[]).await.status, 500);
    assert_eq!(site.reached(), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the filter's module: ./asgard test kong"]
async fn an_accepted_request_reaches_both_backends_with_a_signed_identity() {
    let site = ShippedGateway::start(Some(filter())).await;
    let token = site.key.token(&claims());
    for _ in 0..6 {
        let answer = call(&site, &token, &[("MCP-Protocol-Version", "2025-11-25")]).await;
        assert_eq!(answer.status, 200, "{:?}", site.gateway.log().lines());
        assert_eq!(answer.body().await, "backend");
    }
    for backend in &site.backends {
        assert_eq!(backend.seen().len(), 3, "balanced by the gateway");
        for seen in backend.seen() {
            let [identity] = seen.all("x-asgard-identity")[..] else { panic!("{seen:?}") };
            let assertion = assertion(identity);
            assert_eq!((assertion.method.as_str(), assertion.path.as_str()), ("POST", ENDPOINT));
            assert_eq!(seen.all("authorization"), [""], "the token stays in the gateway");
            assert_eq!(seen.all("x-userinfo").len(), 1);
        }
    }
    let asked = site.keycloak.seen();
    assert_eq!(asked.iter().filter(|s| s.target.ends_with("/certs")).count(), 1, "the keys are kept");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the filter's module: ./asgard test kong"]
async fn forged_identity_headers_never_arrive() {
    let site = ShippedGateway::start(Some(filter())).await;
    let token = site.key.token(&claims());
    let spellings = |parts: &[&str]| -> Vec<String> {
        let ways = 1 << (parts.len() - 1);
        let spell = |way: usize| {
            let join = |i: usize| if way >> i & 1 == 1 { "_" } else { "-" };
            let mut name = parts[0].to_owned();
            parts[1..].iter().enumerate().for_each(|(i, part)| name += &format!("{}{part}", join(i)));
            name
        };
        (0..ways).map(spell).collect()
    };
    let mut names = spellings(&["x", "asgard", "identity"]);
    names.extend(spellings(&["x", "userinfo"]));
    names.extend(names.clone().iter().map(|n| n.to_uppercase()));
    assert_eq!(names.len(), 12);
    let filler: Vec<(String, &str)> = (0..80).map(|i| (format!("filler-{i}"), "x")).collect();
    let filler: Vec<(&str, &str)> = filler.iter().map(|(n, v)| (n.as_str(), *v)).collect();

    for name in &names {
        for before in [&filler[..], &[]] {
            for times in [1, 2] {
                let mut headers = before.to_vec();
                headers.extend(vec![(name.as_str(), "forged"); times]);
                let answer = call(&site, &token, &headers).await;
                assert_eq!(answer.status, 200, "{name}: removed, and the request goes on");
            }
        }
    }
    let seen: Vec<_> = site.backends.iter().flat_map(common::Server::seen).collect();
    assert_eq!(seen.len(), names.len() * 4);
    for seen in seen {
        let like = |n: &str| n.replace('_', "-").eq_ignore_ascii_case("x-asgard-identity");
        let like: Vec<_> = seen.headers.iter().filter(|(n, _)| like(n)).collect();
        assert_eq!(like.len(), 1, "{:?}", seen.headers);
        assertion(&like[0].1);
        assert!(!seen.headers.iter().any(|(_, value)| value == "forged"), "{:?}", seen.headers);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the filter's module: ./asgard test kong"]
async fn nothing_hides_behind_many_headers() {
    let site = ShippedGateway::start(Some(filter())).await;
    let token = site.key.token(&claims());
    let names: Vec<String> = (0..120).map(|i| format!("filler-{i}")).collect();
    for count in [100, 120] {
        let mut headers: Vec<_> = names.iter().take(count).map(|n| (n.as_str(), "x")).collect();
        // The filter would not see these.
        headers.extend([("Origin", "http://evil.example"), ("X-Userinfo", "forged")]);
        assert_eq!(call(&site, &token, &headers).await.status, 431);
        let metadata = ask(&site, "GET", "/.well-known/oauth-protected-resource", &headers).await;
        assert_eq!(metadata.status, 431);
    }
    assert_eq!(site.reached(), (0, 0));
}

/// A fault: what is wrong with a request whose twin is accepted, and what it is answered.
struct Fault {
    name: &'static str,
    status: u16,
    error: Option<&'static str>,
    token: String,
}

fn faults(key: &Key) -> Vec<Fault> {
    let with = |change: Value| {
        let mut claims = claims();
        for (name, value) in change.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        key.token(&claims)
    };
    let stranger = Key::new("key-1", 9);
    let none = {
        let token = key.sign(&json!({"alg": "none", "kid": "key-1"}), &claims());
        format!("{}.", token.rsplit_once('.').unwrap().0)
    };
    let invalid = Some("invalid_token");
    let row = |name, status, error, token| Fault { name, status, error, token };
    vec![
        row("bad signature", 401, invalid, stranger.token(&claims())),
        row("no signature", 401, invalid, none),
        row("unknown key", 401, invalid, Key::new("key-2", 9).token(&claims())),
        row(
            "wrong issuer",
            401,
            invalid,
            with(json!({"iss": "http://localhost:8000/heimdall/realms/other"})),
        ),
        row("no issuer", 401, invalid, with(json!({"iss": null}))),
        row("wrong audience", 401, invalid, with(json!({"aud": ["http://localhost:8000/api/v1/mcp/org-2"]}))),
        row("no audience", 401, invalid, with(json!({"aud": null}))),
        row("expired", 401, invalid, with(json!({"exp": now() - 60, "iat": now() - 600}))),
        row("no expiry", 401, invalid, with(json!({"exp": null}))),
        row("not yet valid", 401, invalid, with(json!({"nbf": now() + 120}))),
        row("other organisation", 403, None, with(json!({"organization": {"org-2": {"id": "0b"}}}))),
        row("no organisation", 403, None, with(json!({"organization": null}))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the filter's module: ./asgard test kong"]
async fn each_fault_is_refused_and_its_twin_is_not() {
    let site = ShippedGateway::start(Some(filter())).await;
    let good = site.key.token(&claims());
    let challenge = |answer: &Answer| answer.header("www-authenticate").map(str::to_owned);
    let metadata =
        format!("resource_metadata=\"{PUBLIC_URL}/.well-known/oauth-protected-resource{ENDPOINT}\"");

    let answer = ask(&site, "POST", ENDPOINT, &[]).await;
    assert_eq!(answer.status, 401, "no token");
    let text = challenge(&answer).unwrap();
    assert!(text.starts_with("Bearer ") && text.contains(&metadata) && !text.contains("error="), "{text}");

    for (accepted, fault) in faults(&site.key).into_iter().enumerate() {
        let answer = call(&site, &fault.token, &[]).await;
        assert_eq!(answer.status, fault.status, "{}", fault.name);
        if let Some(error) = fault.error {
            let text = challenge(&answer).unwrap();
            assert!(
                text.contains(&format!("error=\"{error}\"")) && text.contains(&metadata),
                "{}: {text}",
                fault.name
            );
        }
        assert_eq!(site.reached().0, accepted, "{}: the backend saw it", fault.name);
        assert_eq!(call(&site, &good, &[]).await.status, 200, "the twin of {}", fault.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the filter's module: ./asgard test kong"]
async fn origins_preflights_and_what_a_browser_may_read() {
    let site = ShippedGateway::start(Some(filter())).await;
    let token = site.key.token(&claims());
    let asks =
        [("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "authorization")];
    let preflight = |origin: &'static str| [[("Origin", origin)].as_slice(), &asks].concat();

    let answer = ask(&site, "OPTIONS", ENDPOINT, &preflight(ORIGIN)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some(ORIGIN));
    let allowed = answer.header("access-control-allow-headers").unwrap().to_lowercase();
    let allowed: BTreeSet<&str> = allowed.split(',').collect();
    for name in [
        "authorization",
        "content-type",
        "mcp-protocol-version",
        "mcp-session-id",
        "mcp-method",
        "mcp-name",
        "last-event-id",
        "idempotency-key",
    ] {
        assert!(allowed.contains(name), "{name}");
    }
    assert!(answer.header("access-control-allow-methods").unwrap().contains("DELETE"));

    let foreign = ask(&site, "OPTIONS", ENDPOINT, &preflight("http://evil.example")).await;
    assert_eq!(foreign.header("access-control-allow-origin"), None);

    // A challenge can be read by the page that got it.
    let refused = ask(&site, "POST", ENDPOINT, &[("Origin", ORIGIN)]).await;
    assert_eq!(refused.status, 401);
    assert_eq!(refused.all("access-control-allow-origin"), [ORIGIN]);
    assert_eq!(refused.all("vary"), ["Origin"]);
    let exposed = refused.header("access-control-expose-headers").unwrap().to_lowercase();
    assert!(exposed.contains("www-authenticate") && exposed.contains("mcp-session-id"), "{exposed}");

    let answer = call(&site, &token, &[("Origin", "http://evil.example")]).await;
    assert_eq!(answer.status, 403);
    assert_eq!(answer.header("access-control-allow-origin"), None);
    assert_eq!(site.reached().0, 0);
    let answer = call(&site, &token, &[("Origin", ORIGIN)]).await;
    assert_eq!((answer.status, answer.all("vary")), (200, vec!["Origin"]));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the filter's module: ./asgard test kong"]
async fn metadata_is_served_by_the_filter_and_keycloak_by_keycloak() {
    let site = ShippedGateway::start(Some(filter())).await;
    let page = [("Origin", "http://anywhere.example")];
    let answer = ask(&site, "GET", &format!("/.well-known/oauth-protected-resource{ENDPOINT}"), &page).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("*")));
    let metadata: Value = serde_json::from_str(&answer.body().await).unwrap();
    assert_eq!(metadata["resource"], shipped_gateway::RESOURCE);
    assert_eq!(metadata["authorization_servers"], json!([shipped_gateway::ISSUER]));
    assert_eq!(site.reached(), (0, 0));

    let keycloak = [
        ("/heimdall/admin/", "/heimdall/admin/"),
        (
            "/heimdall/realms/asgard/protocol/openid-connect/auth?x=1",
            "/heimdall/realms/asgard/protocol/openid-connect/auth?x=1",
        ),
        (
            "/.well-known/oauth-authorization-server/heimdall/realms/asgard",
            "/heimdall/realms/asgard/.well-known/oauth-authorization-server",
        ),
        (
            "/.well-known/openid-configuration/heimdall/realms/asgard",
            "/heimdall/realms/asgard/.well-known/openid-configuration",
        ),
        (
            "/heimdall/realms/asgard/.well-known/openid-configuration",
            "/heimdall/realms/asgard/.well-known/openid-configuration",
        ),
    ];
    // The metadata of the authorization server at the places that belong to the MCP server.
    let ends = ["", "/mcp", ENDPOINT, "/api/v1/mcp/org-1/sse", "/api/v1/org-1/sse"];
    let first = ["oauth-authorization-server", "openid-configuration"].map(|document| {
        let got = format!("/heimdall/realms/asgard/.well-known/{document}");
        ends.map(|end| (format!("/.well-known/{document}{end}"), got.clone()))
    });
    let last = ends.into_iter().skip(1).map(|end| {
        let document = "/.well-known/openid-configuration";
        (format!("{end}{document}"), format!("/heimdall/realms/asgard{document}"))
    });
    let keycloak = keycloak.map(|(asked, got)| (asked.to_owned(), got.to_owned())).into_iter();
    for (asked, got) in keycloak.chain(first.into_iter().flatten()).chain(last) {
        let answer = ask(&site, "GET", &asked, &page).await;
        let any = asked.contains(".well-known").then_some("*");
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, any), "{asked}");
        assert_eq!(answer.body().await, got);
    }
    let host: Vec<_> = site
        .keycloak
        .seen()
        .iter()
        .flat_map(|s| s.all("host").into_iter().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert!(host.iter().all(|h| h == "localhost"), "{host:?}");
    let before = site.keycloak.seen().len();
    for nowhere in [
        "/.well-known/oauth-authorization-server/heimdall/realms/a/b",
        "/.well-known/openid-configuration/x",
        "/.well-known/openid-configurationx",
        "/.well-known/oauth-authorization-server/api/v1/mcp/org-1/0123/messages",
        "/api/v1/mcp/org-1/.well-known/oauth-protected-resource",
    ] {
        assert_eq!(ask(&site, "GET", nowhere, &page).await.status, 404, "{nowhere}");
    }
    assert_eq!(site.keycloak.seen().len(), before);
}

#[test]
fn the_environment_keeps_kong_closed() {
    let text = read("kong/kong.env.in");
    let has = |line: &str| text.lines().any(|l| l == line);
    for line in [
        "KONG_WASM=on",
        "KONG_WASM_FILTERS=user",
        "KONG_ADMIN_LISTEN=off",
        "KONG_ADMIN_GUI_LISTEN=off",
        "KONG_ANONYMOUS_REPORTS=off",
        "KONG_DATABASE=off",
        "KONG_LUA_MAX_REQ_HEADERS=1000",
    ] {
        assert!(has(line), "{line}");
    }
    // As large as ./asgard, ./setup.sh and the tests tell the filter: it would trap if there were none.
    assert!(has("KONG_NGINX_WASM_SHM_KV=2m"));
    assert_eq!(shipped_gateway::filter_config("-")["shared_data_bytes"], 2 << 20);
}

#[test]
fn every_name_in_the_templates_is_explained() {
    let readme = read("kong/README.md");
    for file in
        ["kong.yml.in", "host-route.yml.in", "kong.env.in", "nginx-http.conf.in", "nginx-proxy.conf.in"]
    {
        let text = read(&format!("kong/{file}"));
        for name in text.split("${").skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name) {
            assert!(
                readme.contains(&format!("`{name}`")),
                "kong/README.md does not explain {name} of {file}"
            );
        }
    }
}
