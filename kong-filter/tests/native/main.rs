//! The filter's decisions, without any gateway: the table of faults and what has to do with time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod names;
mod repeated;
mod shared;
#[path = "../support/mod.rs"]
mod support;
mod tokens;

use identity::assertion::{AUDIENCE, AssertionKeys};
use identity::{EntryPoint, assertion};
use kong_filter::filter::{Forward, Service, Step};
use kong_filter::reply::Reply;
use kong_filter::request::Request;
use kong_filter::tokens::{Awaited, Progress};
use serde_json::{Value, json};
use support::{Answer, Keys, Sent, Table};

const NOW: u64 = 1_800_000_000;
/// The gateway's id of every request.
const ID: &str = "0123-abcd";

fn request(sent: &Sent, more: &[(&str, &str)]) -> Request {
    let own = sent.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let hosts: Vec<&str> = match sent.hosts.as_slice() {
        [] => vec!["localhost:8000"],
        hosts => hosts.iter().map(String::as_str).collect(),
    };
    let authority = hosts.first().map(|host| (":authority", *host));
    let own = own.chain(authority).chain(hosts.into_iter().map(|host| ("Host", host)));
    Request {
        method: sent.method.clone(),
        target: sent.target.clone(),
        headers: own
            .chain(more.iter().copied())
            .map(|(name, value)| (name.to_lowercase(), value.as_bytes().to_vec()))
            .collect(),
        id: Some(ID.to_owned()),
    }
}

/// Judges, and asks the issuer as a gateway would. `jwks` is its key set; `None`: it does not answer.
fn judge(service: &mut Service, request: &Request, now: u64, jwks: Option<&str>) -> Step {
    let mut progress = Progress::default();
    for _ in 0..3 {
        match service.judge(request, now, &mut progress) {
            Step::Call(call) => {
                let answer = match call.awaited {
                    Awaited::Keys(_) => jwks.map(|jwks| (200, jwks.to_owned())),
                    Awaited::Introspection(..) => {
                        jwks.map(|_| support::introspection(call.body.as_deref().unwrap()))
                    }
                };
                let (status, body) = answer.map_or((None, String::new()), |(s, b)| (Some(s), b));
                let _ = service.answered(call.awaited, status, body.as_bytes(), now, &mut progress);
            }
            step => return step,
        }
    }
    panic!("a request asks again and again");
}

/// What a request is raw_request at first, before anybody is asked.
fn first(service: &mut Service, request: &Request, now: u64) -> Step {
    service.judge(request, now, &mut Progress::default())
}

/// The end of a question that [`first`] led to.
fn end(service: &mut Service, status: Option<u16>, body: &str, now: u64) -> (Result<(), String>, Progress) {
    let mut progress = Progress::default();
    (service.answered(Awaited::Keys(0), status, body.as_bytes(), now, &mut progress), progress)
}

fn reply(step: Step) -> Option<Reply> {
    match step {
        Step::Reply(reply) => Some(reply),
        _ => None,
    }
}

fn forward(step: Step) -> Forward {
    match step {
        Step::Forward(forward) => forward,
        Step::Reply(reply) => panic!("refused: {} {}", reply.status, reply.body),
        Step::Call(call) => panic!("wants {:?}", call.awaited),
    }
}

fn reason(step: Step) -> String {
    let reply = reply(step).expect("it went through");
    serde_json::from_str::<Value>(&reply.body).unwrap()["reason"].as_str().unwrap().to_owned()
}

struct Site {
    table: Table,
    keys: Keys,
    jwks: String,
    config: Value,
    service: Service,
}

impl Site {
    fn new() -> Self {
        Self::with(&json!({}))
    }

    fn with(patch: &Value) -> Self {
        let (table, keys) = (Table::read(), Keys::new());
        let mut config = table.config("keycloak");
        support::merge(&mut config, patch);
        let service = Service::new(config.to_string().as_bytes());
        Self { jwks: keys.jwks().to_string(), table, keys, config, service }
    }

    fn sent(&self, patch: &Value) -> Sent {
        self.table.request(&self.keys, &[patch], NOW)
    }

    fn judge(&mut self, sent: &Sent, now: u64) -> Step {
        judge(&mut self.service, &request(sent, &[]), now, Some(&self.jwks))
    }
}

#[test]
fn the_corpus() {
    let mut site = Site::new();
    let mut wrong = Vec::new();
    for row in site.table.clone().rows() {
        let case = &site.table.case(row, &site.keys, NOW);
        if !case.by_filter {
            continue;
        }
        // The third time the filter remembers the whole request, and the fault follows at once.
        for _ in 0..3 {
            if let Step::Reply(reply) = site.judge(&case.twin, NOW) {
                wrong.push(format!("{}: the twin is refused: {} {}", case.name, reply.status, reply.body));
            }
        }
        let Some(reply) = reply(site.judge(&case.fault, NOW)) else {
            wrong.push(format!("{}: accepted", case.name));
            continue;
        };
        let headers = reply.headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let answer = Answer { status: reply.status, headers, body: reply.body.into_bytes() };
        wrong.extend(support::difference(case, &answer).map(|what| format!("{}: {what}", case.name)));
        if case.pause_s > 0 {
            site.service = Service::new(site.config.to_string().as_bytes());
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn what_is_accepted_says_who_calls() {
    let mut site = Site::new();
    let sent = site.sent(&json!({"headers": [["MCP-Protocol-Version", "2026-07-28"], ["Mcp-Method", "tools/call"], ["Mcp-Name", "report"]]}));
    let first = forward(site.judge(&sent, NOW));
    let keys = AssertionKeys::parse(site.config["assertion"]["keys"].as_str().unwrap()).unwrap();
    let says = keys.verify(&first.identity, AUDIENCE, NOW).unwrap();
    assert_eq!(
        (says.principal.subject.as_str(), says.principal.organisation.as_str()),
        ("7a1c-thor", "org-1")
    );
    assert_eq!(
        (says.method.as_str(), says.path.as_str(), says.entry_point),
        ("POST", "/api/v1/mcp/org-1", EntryPoint::Bifrost)
    );
    assert_eq!((says.mcp_method.as_deref(), says.mcp_name.as_deref()), (Some("tools/call"), Some("report")));
    assert_eq!(support::userinfo(first.userinfo.as_deref().unwrap())["username"], "thor");

    let mut without = Site::with(&json!({"userinfo": false}));
    let plain = without.sent(&json!({}));
    assert!(forward(without.judge(&plain, NOW)).userinfo.is_none());

    // Used again for half of its life, and never for another request line.
    assert_eq!(forward(site.judge(&sent, NOW + assertion::LIFE / 2)).identity, first.identity);
    assert_ne!(forward(site.judge(&sent, NOW + assertion::LIFE / 2 + 1)).identity, first.identity);
    let other = Sent { target: "/api/v1/mcp/org-1/sse".into(), ..sent.clone() };
    let other = keys.verify(&forward(site.judge(&other, NOW)).identity, AUDIENCE, NOW).unwrap();
    assert_eq!(other.path, "/api/v1/mcp/org-1/sse");
}

#[test]
fn the_entry_point_is_what_pushpin_signed() {
    let mut site = Site::new();
    let keys = AssertionKeys::parse(site.config["assertion"]["keys"].as_str().unwrap()).unwrap();
    let sent = site.sent(&json!({}));
    let (good, old) = (support::grip_sig(&site.config, NOW + 60), support::grip_sig(&site.config, NOW));
    for (headers, entry_point) in [
        (vec![("Grip-Sig", good.as_str())], EntryPoint::Hermod),
        (vec![("Grip-Sig", old.as_str())], EntryPoint::Bifrost),
        (vec![("Grip-Sig", "x.y.z")], EntryPoint::Bifrost),
        (vec![("Grip-Sig", good.as_str()), ("Grip-Sig", good.as_str())], EntryPoint::Bifrost),
        (vec![], EntryPoint::Bifrost),
    ] {
        let step = judge(&mut site.service, &request(&sent, &headers), NOW, Some(&site.jwks));
        assert_eq!(
            keys.verify(&forward(step).identity, AUDIENCE, NOW).unwrap().entry_point,
            entry_point,
            "{headers:?}"
        );
    }
}

#[test]
fn a_cached_token_is_judged_anew() {
    let mut site = Site::new();
    let both = json!(["http://localhost:8000/api/v1/mcp/org-1", "http://localhost:8000/api/v1/mcp/org-2"]);
    let sent = site.sent(&json!({"claims": {"aud": both, "exp": "@100"}}));
    forward(site.judge(&sent, NOW));
    let other = Sent { target: "/api/v1/mcp/org-2".into(), ..sent.clone() };
    assert_eq!(reason(site.judge(&other, NOW)), "organisation_not_member");
    forward(site.judge(&sent, NOW + 129));
    assert_eq!(reason(site.judge(&sent, NOW + 130)), "token_expired");
}

#[test]
fn keys_are_refreshed_and_outlive_an_outage_for_a_while() {
    let mut site = Site::with(&json!({"max_token_bytes": 4096}));
    let sent = site.table.request(&site.keys, &[&json!({"claims": {"exp": "@100000"}})], NOW);
    let asked = request(&sent, &[]);
    let service = &mut site.service;
    assert_eq!(reason(judge(service, &asked, NOW, None)), "keys_unavailable");
    // Not asked again at once, but after the pause.
    assert_eq!(reason(first(service, &asked, NOW + 1)), "keys_unavailable");
    forward(judge(service, &asked, NOW + 2, Some(&site.jwks)));
    assert!(matches!(first(service, &asked, NOW + 301), Step::Forward(_)));
    // Old keys: one request fetches, the others go on with what there is.
    assert!(matches!(first(service, &asked, NOW + 302), Step::Call(_)));
    assert!(matches!(first(service, &asked, NOW + 302), Step::Forward(_)));
    let (ended, mut progress) = end(service, Some(500), "", NOW + 302);
    assert!(ended.unwrap_err().starts_with("reason=jwks_unavailable issuer=http://localhost:8000/heimdall"));
    assert!(matches!(service.judge(&asked, NOW + 302, &mut progress), Step::Forward(_)));
    assert!(matches!(first(service, &asked, NOW + 304), Step::Call(_)));
    assert!(end(service, None, "", NOW + 305).0.is_err());
    forward(judge(service, &asked, NOW + 3601, None));
    assert_eq!(reason(judge(service, &asked, NOW + 3610, None)), "keys_unavailable");
    forward(judge(service, &asked, NOW + 3620, Some(&site.jwks)));
}

#[test]
fn a_new_key_is_found_and_unknown_ids_are_not_asked_for_again_and_again() {
    let mut site = Site::new();
    let old = site.sent(&json!({}));
    forward(site.judge(&old, NOW));
    let new = Keys::new();
    let both = new.jwks().to_string();
    let table = Table::read();
    // The issuer now has other keys under other ids; here under the same, so the old ones are gone.
    let rotated = table.request(&new, &[&json!({"jose": {"kid": "rsa-2"}})], NOW);
    let jwks = both.replace("rsa-1", "rsa-2");
    let asked = request(&rotated, &[]);
    // Many at once: each may fetch, since none can wait for another.
    assert!(matches!(first(&mut site.service, &asked, NOW + 20), Step::Call(_)));
    assert!(matches!(first(&mut site.service, &asked, NOW + 20), Step::Call(_)));
    for _ in 0..2 {
        let (ended, mut progress) = end(&mut site.service, Some(200), &jwks, NOW + 20);
        ended.unwrap();
        forward(site.service.judge(&asked, NOW + 20, &mut progress));
    }
    // The token of the key that was taken back is refused though it was cached.
    assert_eq!(reason(first(&mut site.service, &request(&old, &[]), NOW + 20)), "key_unknown");
    let unknown = request(&site.sent(&json!({"jose": {"kid": "x"}})), &[]);
    assert_eq!(reason(first(&mut site.service, &unknown, NOW + 25)), "key_unknown");
    assert!(matches!(first(&mut site.service, &unknown, NOW + 31), Step::Call(_)));
    let (ended, mut progress) = end(&mut site.service, None, "", NOW + 31);
    assert!(ended.is_err());
    // While the issuer can't be asked, nobody knows.
    assert_eq!(reason(site.service.judge(&unknown, NOW + 31, &mut progress)), "keys_unavailable");
}

#[test]
fn a_wrong_configuration_refuses_everything_and_says_why() {
    for (patch, why) in [
        (json!({"public_url": "localhost"}), "public_url: give scheme"),
        (json!({"issuers": {}}), "issuers: give 1 to 8"),
        (json!({"assertion": {"keys": "a:c2hvcnQ"}}), "assertion.keys: the secret of key number 1"),
        (json!({"grip": {"key": "***"}}), "grip.key: give the bytes"),
        (json!({"clock_leeway_s": "30"}), "clock_leeway_s: this is a string; give a whole number"),
        (json!({"clock_leeway_s": 301}), "clock_leeway_s: 301 is out of range"),
        (json!({"scope": {}}), "scope: there is no such setting; the settings here are public_url, "),
        (
            json!({"policy": {"rules": [{"effect": "maybe"}]}}),
            "policy.rules[0].effect: this is not one of allow, deny",
        ),
        (json!({"policy": {"rules": [{"effect": "deny", "names": [""]}]}}), "policy: rules[0].names[0]"),
        (json!({"public_url": null}), "configuration: the setting public_url is missing"),
        (json!({"kong_scheme": "ftp"}), "kong_scheme: this is not one of http, https"),
    ] {
        let mut site = Site::with(&patch);
        match &site.service {
            Service::Refusing(reason) => assert!(reason.starts_with(why), "{reason}"),
            Service::Ready(_) => panic!("accepted {patch}"),
        }
        let sent = site.sent(&json!({}));
        assert_eq!(reason(site.judge(&sent, NOW)), "misconfigured");
    }
    for bad in ["", "{", "[]", "{\"a\":1,\"a\":2}"] {
        assert!(matches!(Service::new(bad.as_bytes()), Service::Refusing(_)), "{bad}");
    }
}

#[test]
fn kongs_ways_of_writing_are_read() {
    let patch =
        json!({"origins": {}, "policy": {"rules": {}}, "clock_leeway_s": 30.0, "kong_scheme": "http"});
    let mut site = Site::with(&patch);
    let sent = site.sent(&json!({}));
    assert_eq!(forward(site.judge(&sent, NOW)).scheme, Some("http"));
    let escaped = site.config.to_string().replace('/', "\\/");
    assert!(matches!(Service::new(escaped.as_bytes()), Service::Ready(_)));
}

#[test]
fn metadata_in_both_forms() {
    let mut site = Site::new();
    let document = |site: &mut Site, path: &str, method: &str| {
        let sent = Sent {
            method: method.into(),
            target: path.into(),
            headers: vec![("Origin".into(), "http://any.example".into())],
            ..Sent::default()
        };
        reply(site.judge(&sent, NOW)).unwrap()
    };
    let root = "/.well-known/oauth-protected-resource";
    // The document of an address names that address, to the byte (RFC 9728 section 3.3).
    for path in ["/api/v1/mcp/org-1", "/api/v1/mcp/org-1/sse"] {
        let reply = document(&mut site, &format!("{root}{path}"), "GET");
        assert_eq!(reply.status, 200);
        assert!(reply.headers.contains(&("access-control-allow-origin", "*".to_owned())));
        let realms =
            ["asgard", "both", "asked"].map(|name| format!("http://localhost:8000/heimdall/realms/{name}"));
        let wanted = json!({
            "resource": format!("http://localhost:8000{path}"),
            "authorization_servers": realms,
            "bearer_methods_supported": ["header"],
            "scopes_supported": ["mcp:tools", "organization"],
        });
        assert_eq!(serde_json::from_str::<Value>(&reply.body).unwrap(), wanted);
    }
    // Nobody gets a token for the gateway as a whole, and what is no resource has no document.
    for path in ["", "/", "/api/v1/org-1/sse", "/api/v1/mcp/org-1/0123/messages", "/api/v1/mcp/org-1/"] {
        let reply = document(&mut site, &format!("{root}{path}"), "GET");
        assert_eq!(reply.status, 404, "{path}");
        assert!(reply.body.contains("/api/v1/mcp/NAME"), "{}", reply.body);
    }
    let one = format!("{root}/api/v1/mcp/org-1");
    assert_eq!(document(&mut site, &one, "OPTIONS").status, 204);
    assert_eq!(document(&mut site, &one, "POST").status, 405);
    assert_eq!(document(&mut site, &format!("{root}x"), "GET").status, 404);
    assert_eq!(document(&mut site, &format!("{root}/x"), "GET").status, 404);
    assert_eq!(document(&mut site, &format!("{root}/api/v1/mcp/%2e"), "GET").status, 400);
}

#[test]
fn preflights_of_known_origins_are_answered() {
    let mut site = Site::new();
    let sent = |origin: &str| Sent {
        method: "OPTIONS".into(),
        target: "/api/v1/mcp/org-1".into(),
        headers: [
            ("Origin", origin),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "mcp-method"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
        ..Sent::default()
    };
    let reply_to = |site: &mut Site, origin: &str| reply(site.judge(&sent(origin), NOW)).unwrap();
    let good = reply_to(&mut site, "http://localhost:6274");
    assert_eq!(good.status, 204);
    assert!(good.headers.contains(&("access-control-allow-headers", "mcp-method".to_owned())));
    assert_eq!(reply_to(&mut site, "http://attacker.example").status, 403);
}

#[test]
fn a_dry_run_only_tells() {
    let mut site = Site::with(&json!({"policy": {"dry_run": true}}));
    let headers = json!({"headers": [["MCP-Protocol-Version", "2026-07-28"], ["Mcp-Method", "tools/call"], ["Mcp-Name", "drop_all"]]});
    let sent = site.sent(&headers);
    let line = "reason=policy_denied organisation=org-1 rule=\"no drops\"";
    assert_eq!(forward(site.judge(&sent, NOW)).would_refuse.as_deref(), Some(line));
    // Headers of a revision in which they bind nothing decide nothing here.
    let mut strict = Site::new();
    let sent = strict.sent(&json!({"headers": [["MCP-Protocol-Version", "2025-11-25"], ["Mcp-Method", "tools/call"], ["Mcp-Name", "drop_all"]]}));
    forward(strict.judge(&sent, NOW));
}
