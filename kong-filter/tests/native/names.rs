//! Hosts, and the documents that are found under them.

use identity::assertion::{AUDIENCE, AssertionKeys};
use kong_filter::reply::Reply;
use serde_json::{Value, json};

use super::support::Sent;
use super::{ID, NOW, Site, forward, judge, reason, reply, request};

#[test]
fn an_organisations_own_host() {
    let mut site = Site::new();
    let patch = json!({"host": "tools.org1.example:8000", "path": "/mcp?a=b", "claims": {"aud": "http://tools.org1.example:8000/mcp"}});
    let sent = site.sent(&patch);
    let step = forward(site.judge(&sent, NOW));
    assert_eq!(step.target.as_deref(), Some("/api/v1/mcp/org-1?a=b"));
    let keys = AssertionKeys::parse(site.config["assertion"]["keys"].as_str().unwrap()).unwrap();
    assert_eq!(keys.verify(&step.identity, AUDIENCE, NOW).unwrap().path, "/api/v1/mcp/org-1");
    // The short path is that host's alone.
    let elsewhere = Sent { hosts: vec!["localhost:8000".into()], ..sent.clone() };
    assert_eq!(reason(site.judge(&elsewhere, NOW)), "not_found");
    let refused = reply(site.judge(&Sent { headers: vec![], ..sent }, NOW)).unwrap();
    let challenge = &refused.headers.iter().find(|(name, _)| *name == "www-authenticate").unwrap().1;
    let metadata =
        "resource_metadata=\"http://tools.org1.example:8000/.well-known/oauth-protected-resource/mcp\"";
    assert!(challenge.contains(metadata), "{challenge}");
    for (path, resource) in [
        ("", "http://tools.org1.example:8000/api/v1/mcp/org-1"),
        ("/mcp", "http://tools.org1.example:8000/mcp"),
        ("/api/v1/mcp/org-1", "http://tools.org1.example:8000/api/v1/mcp/org-1"),
    ] {
        let document = document(
            &mut site,
            "tools.org1.example",
            &format!("/.well-known/oauth-protected-resource{path}"),
        );
        assert_eq!(serde_json::from_str::<Value>(&document.body).unwrap()["resource"], resource);
    }
    let path = "/.well-known/oauth-protected-resource/api/v1/mcp/org-2";
    assert_eq!(document(&mut site, "tools.org1.example", path).status, 404);
}

#[test]
fn a_slash_too_many_is_told_with_the_right_address() {
    let mut site = Site::new();
    let message = |site: &mut Site, host: &str, path: &str| {
        let reply = document(site, host, path);
        assert_eq!(reply.status, 404, "{path}: {}", reply.body);
        serde_json::from_str::<Value>(&reply.body).unwrap()["message"].as_str().unwrap().to_owned()
    };
    for (path, right) in [
        ("/api/v1/mcp/org-1/", "/api/v1/mcp/org-1"),
        ("//api/v1/mcp/org-1", "/api/v1/mcp/org-1"),
        ("/api/v1//mcp/org-1?a=b", "/api/v1/mcp/org-1"),
        ("/api/v1/mcp/org-1/sse/", "/api/v1/mcp/org-1/sse"),
    ] {
        let said = message(&mut site, "localhost:8000", path);
        assert_eq!(said, format!("there is a slash too many in the path; use http://localhost:8000{right}"));
    }
    let short = message(&mut site, "tools.org1.example:8000", "/mcp/");
    assert!(short.ends_with("use http://tools.org1.example:8000/mcp"), "{short}");
    // No address of a session, and none that is no endpoint.
    let session = message(&mut site, "localhost:8000", "/api/v1/mcp/org-1/secret/messages/");
    assert_eq!(session, "there is no such endpoint");
    assert_eq!(message(&mut site, "localhost:8000", "/api/v1/mcp/"), "there is no such endpoint");
    assert_eq!(message(&mut site, "localhost:8000", "/mcp/"), "there is no such endpoint");
}

/// What `GET` gives at a host.
fn document(site: &mut Site, host: &str, path: &str) -> Reply {
    let sent =
        Sent { method: "GET".into(), hosts: vec![host.into()], target: path.into(), ..Sent::default() };
    reply(site.judge(&sent, NOW)).unwrap()
}

/// The resource that a challenge leads to is the address that was asked for, or the one that its messages belong to.
#[test]
fn a_challenge_names_the_document_of_its_address() {
    let mut site = Site::new();
    for (path, about) in [
        ("/api/v1/mcp/org-1", "/api/v1/mcp/org-1"),
        ("/api/v1/mcp/org-1/sse", "/api/v1/mcp/org-1/sse"),
        ("/api/v1/org-1/sse", "/api/v1/mcp/org-1/sse"),
        ("/api/v1/mcp/org-1/0123/messages", "/api/v1/mcp/org-1/sse"),
        ("/api/v1/org-1/0123/messages", "/api/v1/mcp/org-1/sse"),
    ] {
        let sent = Sent { target: path.into(), headers: vec![], ..site.sent(&json!({})) };
        let refused = reply(site.judge(&sent, NOW)).unwrap();
        let challenge = &refused.headers.iter().find(|(name, _)| *name == "www-authenticate").unwrap().1;
        let wanted = format!(
            "resource_metadata=\"http://localhost:8000/.well-known/oauth-protected-resource{about}\""
        );
        assert!(challenge.contains(&wanted), "{path}: {challenge}");
    }
    for audience in ["http://localhost:8000/api/v1/mcp/org-1/sse", "http://localhost:8000/api/v1/mcp/org-1"] {
        for path in ["/api/v1/mcp/org-1/sse", "/api/v1/mcp/org-1/0123/messages", "/api/v1/mcp/org-1"] {
            let sent = site.sent(&json!({"path": path, "claims": {"aud": audience}}));
            forward(site.judge(&sent, NOW));
        }
    }
}

#[test]
fn a_root_organisation_has_the_root_document() {
    let mut site = Site::with(&json!({"root_organisation": "org-2"}));
    let root = document(&mut site, "localhost", "/.well-known/oauth-protected-resource");
    let root: Value = serde_json::from_str(&root.body).unwrap();
    assert_eq!(root["resource"], "http://localhost:8000/api/v1/mcp/org-2");
}

#[test]
fn advertised_scopes_name_the_organisation() {
    let mut site =
        Site::with(&json!({"scopes": {"advertised": ["mcp:tools", "organization:{organisation}"]}}));
    let scopes =
        |reply: Reply| serde_json::from_str::<Value>(&reply.body).unwrap()["scopes_supported"].clone();
    let path = "/.well-known/oauth-protected-resource";
    let org = document(&mut site, "localhost", &format!("{path}/api/v1/mcp/org-2"));
    assert_eq!(scopes(org), json!(["mcp:tools", "organization:org-2"]));
    let refused = reply(site.judge(&Sent { headers: vec![], ..site.sent(&json!({})) }, NOW)).unwrap();
    let challenge = &refused.headers.iter().find(|(name, _)| *name == "www-authenticate").unwrap().1;
    assert!(challenge.contains("scope=\"mcp:tools organization:org-1\""), "{challenge}");
    assert_eq!(
        refused.log.as_deref(),
        Some("status=401 error=missing_token reason=token_missing organisation=org-1")
    );
}

#[test]
fn a_refusal_has_the_gateways_id_and_never_the_clients() {
    let mut site = Site::new();
    let elsewhere = json!({"path": "/elsewhere"});
    let no_token = json!({"authorization": []});
    for patch in [json!({"claims": {"aud": "x"}}), elsewhere, no_token] {
        let mut asked = request(&site.sent(&patch), &[("X-Request-Id", "the-clients")]);
        for id in [Some(ID.to_owned()), None] {
            asked.id.clone_from(&id);
            let reply = reply(judge(&mut site.service, &asked, NOW, Some(&site.jwks))).unwrap();
            let body: Value = serde_json::from_str(&reply.body).unwrap();
            assert_eq!(body["request_id"], json!(id), "{body}");
        }
    }
}
