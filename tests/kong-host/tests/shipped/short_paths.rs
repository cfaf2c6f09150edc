//! Organisations' own hosts, and the short path of the endpoint there.

use serde_json::{Value, json};

use super::common::Answer;
use super::shipped_gateway::{ShippedGateway, claims, filter};
use super::*;

/// Where an organisation's own host is, and its short path there.
const ACME: &str = "acme.localhost:8000";
const SHORT: &str = "/mcp";

/// Two organisations with a host of their own each.
fn with_hosts(mut config: Value) -> Value {
    config["hosts"] = json!([
        {"url": format!("http://{ACME}"), "organisation": "acme", "path": SHORT},
        {"url": "http://org-1.localhost:8000", "organisation": "org-1", "path": SHORT},
    ]);
    config
}

/// The claims of a user of `organisation`, for the resource `audience`.
fn member(organisation: &str, audience: &str) -> Value {
    let mut claims = claims();
    claims["organization"] = json!({ organisation: {"id": "0c"} });
    claims["aud"] = json!(audience);
    claims
}

async fn call_at(
    site: &ShippedGateway,
    host: &str,
    target: &str,
    token: Option<&str>,
    more: &[(&str, &str)],
) -> Answer {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let mut headers = vec![("Host", host), ("Content-Type", "application/json")];
    headers.extend(bearer.as_ref().map(|bearer| ("Authorization", bearer.as_str())));
    headers.extend(more);
    ask(site, "POST", target, &headers).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the filter's module: ./asgard test kong"]
async fn a_short_path_leads_to_the_organisation_of_its_host() {
    let site = ShippedGateway::with(Some(filter()), with_hosts).await;
    let token = site.key.token(&member("acme", "http://acme.localhost:8000/mcp"));
    for (host, target, upstream) in [
        (ACME, SHORT, "/api/v1/mcp/acme"),
        ("acme.localhost", "/mcp?a=b&c", "/api/v1/mcp/acme?a=b&c"),
        ("acme.localhost:7999", SHORT, "/api/v1/mcp/acme"),
        (ACME, "/api/v1/mcp/acme", "/api/v1/mcp/acme"),
        (ACME, "/api/v1/mcp/acme/sse", "/api/v1/mcp/acme/sse"),
    ] {
        let before: Vec<usize> = site.backends.iter().map(|b| b.seen().len()).collect();
        let answer = call_at(&site, host, target, Some(&token), &[]).await;
        assert_eq!(answer.status, 200, "{host}{target}: {:?}", site.gateway.log().lines());
        assert_eq!(answer.body().await, "backend");
        let new: Vec<_> =
            site.backends.iter().zip(before).flat_map(|(b, before)| b.seen().split_off(before)).collect();
        let [seen] = &new[..] else { panic!("{new:?}") };
        assert_eq!(seen.target, upstream, "{host}{target}");
        let [identity] = seen.all("x-asgard-identity")[..] else { panic!("{seen:?}") };
        let assertion = assertion(identity);
        // What the backend compares with its own request's.
        assert_eq!(assertion.path, upstream.split('?').next().unwrap());
        assert_eq!(assertion.principal.organisation, "acme");
        assert_eq!((seen.all("authorization"), seen.all("x-userinfo").len()), (vec![""], 1));
    }
    assert!(site.backends.iter().all(|b| !b.seen().is_empty()), "balanced by the gateway");
    let org_1 = site.key.token(&member("org-1", "http://org-1.localhost:8000/mcp"));
    assert_eq!(call_at(&site, "org-1.localhost:8000", SHORT, Some(&org_1), &[]).await.status, 200);

    // A page of the host itself, and others.
    let asks = [("Host", ACME), ("Origin", ORIGIN), ("Access-Control-Request-Method", "POST")];
    let preflight = ask(&site, "OPTIONS", SHORT, &asks).await;
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (200, Some(ORIGIN)));
    for (origin, status) in [("http://acme.localhost:8000", 200), ("http://evil.example", 403)] {
        let answer = call_at(&site, ACME, SHORT, Some(&token), &[("Origin", origin)]).await;
        assert_eq!(answer.status, status, "{origin}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the filter's module: ./asgard test kong"]
async fn a_short_path_is_for_its_own_organisation_alone() {
    let site = ShippedGateway::with(Some(filter()), with_hosts).await;
    let short = "http://acme.localhost:8000/mcp";
    let own = site.key.token(&member("acme", short));
    let metadata = |host: &str, path: &str| {
        format!("resource_metadata=\"http://{host}/.well-known/oauth-protected-resource{path}\"")
    };
    let org_1 = "org-1.localhost:8000";
    // Token, host, path; status, and whose metadata the challenge names.
    let rows = [
        (None, ACME, SHORT, 401, Some((ACME, SHORT))),
        (None, ACME, "/api/v1/mcp/acme", 401, Some((ACME, "/api/v1/mcp/acme"))),
        (None, org_1, SHORT, 401, Some((org_1, SHORT))),
        // Of another organisation: by its audience, and by its member.
        (Some(member("org-1", "http://org-1.localhost:8000/mcp")), ACME, SHORT, 401, Some((ACME, SHORT))),
        (Some(member("org-1", short)), ACME, SHORT, 403, Some((ACME, SHORT))),
        (Some(member("acme", short)), org_1, SHORT, 401, Some((org_1, SHORT))),
        // Other organisations do not exist there, nor the short path elsewhere.
        (Some(claims()), ACME, ENDPOINT, 404, None),
        (Some(member("acme", short)), "localhost:8000", SHORT, 404, None),
        (Some(member("acme", short)), "127.0.0.1:8000", SHORT, 404, None),
        (Some(member("acme", short)), "evil.example", SHORT, 404, None),
        (Some(member("acme", short)), "evil-acme.localhost:8000", SHORT, 404, None),
        (Some(member("acme", short)), "acme.localhost.", SHORT, 404, None),
        (Some(member("acme", short)), "localhost:8000", "/api/v1/mcp/../../../mcp", 404, None),
    ];
    for (claims, host, path, status, challenge) in rows {
        let token = claims.map(|claims| site.key.token(&claims));
        let answer = call_at(&site, host, path, token.as_deref(), &[]).await;
        assert_eq!(answer.status, status, "{host}{path}");
        let text = answer.header("www-authenticate").unwrap_or_default();
        match challenge {
            Some((host, path)) => assert!(text.contains(&metadata(host, path)), "{host}{path}: {text}"),
            None => assert_eq!(text, "", "{host}{path}"),
        }
    }
    // Kong's router reads a path more freely than the filter, and would write the good one in its place.
    for (path, status) in [
        ("//mcp", 404),
        ("/%6dcp", 400),
        ("/%6Dcp?x", 400),
        ("/./mcp", 400),
        ("/x/../mcp", 400),
        ("/api/v1/mcp/acme/../../../../mcp", 400),
        ("/mcp/.", 404),
        ("/mcp/", 404),
        ("/mcp/x", 404),
        ("/mcp;x", 404),
        ("/mcp%2f", 404),
        ("/mcp%0a", 404),
        ("/MCP", 404),
        ("/mcpx", 404),
    ] {
        assert_eq!(call_at(&site, ACME, path, Some(&own), &[]).await.status, status, "{path}");
    }
    assert_eq!(site.reached(), (0, 0));
    assert_eq!(call_at(&site, ACME, SHORT, Some(&own), &[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the filter's module: ./asgard test kong"]
async fn a_host_has_metadata_in_its_own_name() {
    let site = ShippedGateway::with(Some(filter()), with_hosts).await;
    let get = async |host: &str, path: &str| ask(&site, "GET", path, &[("Host", host)]).await;
    let resource = "/.well-known/oauth-protected-resource";
    for (path, about) in
        [("", "/api/v1/mcp/acme"), ("/mcp", "/mcp"), ("/api/v1/mcp/acme", "/api/v1/mcp/acme")]
    {
        let answer = get(ACME, &format!("{resource}{path}")).await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("*")), "{path}");
        let document: Value = serde_json::from_str(&answer.body().await).unwrap();
        assert_eq!(document["resource"], format!("http://{ACME}{about}"), "{path}");
        assert_eq!(document["authorization_servers"], json!([shipped_gateway::ISSUER]));
    }
    for (host, path) in [
        (ACME, "/.well-known/oauth-protected-resource/api/v1/mcp/org-1"),
        ("localhost:8000", "/.well-known/oauth-protected-resource/mcp"),
        ("localhost:8000", "/.well-known/oauth-protected-resource"),
    ] {
        assert_eq!(get(host, path).await.status, 404, "{host}{path}");
    }
    assert_eq!(site.reached(), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the filter's module: ./asgard test kong"]
async fn forged_identity_headers_never_arrive_by_a_short_path() {
    let site = ShippedGateway::with(Some(filter()), with_hosts).await;
    let token = site.key.token(&member("acme", "http://acme.localhost:8000/mcp"));
    let names = [
        "X-Asgard-Identity",
        "X_Asgard_Identity",
        "X-Asgard_Identity",
        "X_Asgard-Identity",
        "X-Userinfo",
        "X_Userinfo",
    ];
    for name in names {
        let forged = [(name, "forged"), (name, "forged")];
        let answer = call_at(&site, ACME, SHORT, Some(&token), &forged).await;
        assert_eq!(answer.status, 200, "{name}: removed, and the request goes on");
    }
    let seen: Vec<_> = site.backends.iter().flat_map(common::Server::seen).collect();
    assert_eq!(seen.len(), names.len());
    for seen in seen {
        let like = |n: &str, ours: &str| n.replace('_', "-").eq_ignore_ascii_case(ours);
        for ours in ["x-asgard-identity", "x-userinfo"] {
            assert_eq!(seen.headers.iter().filter(|(n, _)| like(n, ours)).count(), 1, "{:?}", seen.headers);
        }
        assert!(!seen.headers.iter().any(|(_, value)| value == "forged"), "{:?}", seen.headers);
    }
    // And as many headers as would hide some from the filter are refused here too.
    let names: Vec<String> = (0..100).map(|i| format!("filler-{i}")).collect();
    let many: Vec<_> = names.iter().map(|n| (n.as_str(), "x")).collect();
    assert_eq!(call_at(&site, ACME, SHORT, Some(&token), &many).await.status, 431);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the filter's module: ./asgard test kong"]
async fn without_the_filter_nothing_reaches_a_backend_by_a_short_path() {
    let closed = async |site: &ShippedGateway, status: u16| {
        let token = site.key.token(&member("acme", "http://acme.localhost:8000/mcp"));
        for method in ["GET", "POST", "DELETE", "PUT"] {
            for path in [SHORT, "//mcp", "/%6dcp", "/mcp?x", "/api/v1/mcp/acme"] {
                let bearer = format!("Bearer {token}");
                let answer = ask(site, method, path, &[("Host", ACME), ("Authorization", &bearer)]).await;
                assert_eq!(answer.status, status, "{method} {path}");
            }
        }
        assert_eq!(site.reached(), (0, 0), "requests and connections at the backends");
    };
    let site = ShippedGateway::with(Some(NO_ABI.to_vec()), with_hosts).await;
    assert!(!site.gateway.filters_loaded());
    closed(&site, 500).await;
    assert!(site.gateway.log().has(Severity::Error, "closed-until-the-filter-ran"));
    let path = "/.well-known/oauth-protected-resource/mcp";
    let metadata = ask(&site, "GET", path, &[("Host", ACME)]).await;
    assert_eq!(metadata.status, 502, "a dead port");
    // The filter is there, and its configuration is wrong.
    let wrong = |mut config: Value| {
        config["assertion"]["keys"] = json!("none");
        with_hosts(config)
    };
    closed(&ShippedGateway::with(Some(filter()), wrong).await, 503).await;
}
