//! Random bytes, and good requests with something random in them: nothing panics, nothing is accepted that
//! should not be. `PROPTEST_CASES=100000` for a long run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::cell::RefCell;

use kong_filter::filter::{Service, Step};
use kong_filter::request::Request;
use kong_filter::tokens::Progress;
use proptest::prelude::*;
use serde_json::{Value, json};
use support::{Keys, Table};

const NOW: u64 = 1_800_000_000;

/// A filter with its keys, and a good token.
struct Site {
    service: RefCell<Service>,
    config: Value,
    jwks: String,
    token: String,
}

thread_local! {
    /// Keys are costly to make.
    static SITE: Site = Site::new();
}

impl Site {
    fn new() -> Self {
        let (table, keys) = (Table::read(), Keys::new());
        // The issuer that only asks would ask about anything; here no question is answered.
        let mut config = table.config("keycloak");
        config["token_cache"] = json!({"entries": 16});
        let service = Service::new(config.to_string().as_bytes());
        let sent = table.request(&keys, &[&json!({"claims": {"exp": "@1000000"}})], NOW);
        let token = sent.headers[0].1.strip_prefix("Bearer ").unwrap().to_owned();
        let site = Self { service: RefCell::new(service), config, jwks: keys.jwks().to_string(), token };
        assert!(site.accepts(&site.request(&site.token)), "the good token is accepted");
        site
    }

    fn request(&self, token: &str) -> Request {
        request("POST", "/api/v1/mcp/org-1", &[("authorization", format!("Bearer {token}").into_bytes())])
    }

    fn accepts(&self, request: &Request) -> bool {
        accepts(&mut self.service.borrow_mut(), request, &self.jwks)
    }
}

fn request(method: &str, target: &str, headers: &[(&str, Vec<u8>)]) -> Request {
    let own = [(":authority", b"localhost:8000".to_vec()), ("host", b"localhost:8000".to_vec())];
    let headers = own.iter().chain(headers).map(|(name, value)| ((*name).to_owned(), value.clone()));
    Request {
        method: method.to_owned(),
        target: target.to_owned(),
        headers: headers.collect(),
        ..Request::default()
    }
}

/// Whether a request goes on to the backend; every question to an issuer is answered with `answer`.
fn accepts(service: &mut Service, request: &Request, answer: &str) -> bool {
    let mut progress = Progress::default();
    for _ in 0..4 {
        match service.judge(request, NOW, &mut progress) {
            Step::Reply(reply) => {
                assert!((400..600).contains(&reply.status) || reply.status < 300, "{}", reply.status);
                return false;
            }
            Step::Forward(_) => return true,
            Step::Call(call) => {
                let _ = service.answered(call.awaited, Some(200), answer.as_bytes(), NOW, &mut progress);
            }
        }
    }
    panic!("a request asks again and again");
}

/// A change of a text at a place: another byte there, a byte more, or the rest cut off.
fn changed(text: &str, at: usize, kind: u8, byte: u8) -> String {
    let at = at % text.len();
    let mut bytes = text.as_bytes().to_vec();
    match kind % 4 {
        0 => bytes[at] = byte,
        1 => bytes.insert(at, byte),
        2 => bytes.truncate(at),
        _ => {
            bytes.remove(at);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Some JSON, not deep.
fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ -~]{0,12}|\\PC{0,4}|[a-z:/.*%{}-]{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{0,8}", inner, 0..4)
                .prop_map(|members| members.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

/// All places in a document, as JSON pointers.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            places(value, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), found);
        }),
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, value)| places(value, &format!("{at}/{index}"), found));
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn no_token_of_random_parts_is_accepted(text in "[A-Za-z0-9_.=-]{0,80}|\\PC{0,30}|([A-Za-z0-9_-]{1,40}[.]){2}[A-Za-z0-9_-]{1,40}") {
        SITE.with(|site| {
            prop_assert!(!site.accepts(&site.request(&text)));
            Ok(())
        })?;
    }

    #[test]
    fn no_changed_token_is_accepted(at in any::<usize>(), kind in any::<u8>(), byte in any::<u8>()) {
        SITE.with(|site| {
            let text = changed(&site.token, at, kind, byte);
            // A blank at the end is no part of the token.
            prop_assert!(text.trim() == site.token || !site.accepts(&site.request(&text)), "{}", text);
            Ok(())
        })?;
    }

    #[test]
    fn no_claims_under_another_signature_are_accepted(payload in json_value(), header in json_value(), mix in any::<bool>()) {
        use base64::Engine as _;
        let encode = |value: &Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
        SITE.with(|site| {
            let mut parts: Vec<String> = site.token.split('.').map(str::to_owned).collect();
            parts[1] = encode(&payload);
            if mix {
                parts[0] = encode(&header);
            }
            prop_assert!(!site.accepts(&site.request(&parts.join("."))));
            Ok(())
        })?;
    }

    #[test]
    fn no_request_breaks_the_filter(
        method in "[A-Z]{0,8}|\\PC{0,8}",
        target in "/api/v1/(mcp/)?[a-z0-9./%;\\\\-]{0,20}(\\?[a-z_=&;%]{0,20})?|/\\PC{0,30}|\\PC{0,10}",
        names in prop::collection::vec("authorization|origin|host|mcp-(method|name)|mcp-protocol-version|grip-sig|x[-_]userinfo|x-asgard-identity|[a-z:-]{0,10}", 0..6),
        values in prop::collection::vec(prop_oneof![prop::collection::vec(any::<u8>(), 0..40), "[ -~]{0,40}".prop_map(String::into_bytes)], 6),
        with_token in any::<bool>(),
    ) {
        SITE.with(|site| {
            let mut headers: Vec<(&str, Vec<u8>)> = names.iter().map(String::as_str).zip(values.clone()).collect();
            if with_token {
                headers.push(("authorization", format!("Bearer {}", site.token).into_bytes()));
            }
            let asked = request(&method, &target, &headers);
            if site.accepts(&asked) {
                // What passes has the token, once, and a path that is an endpoint of its organisation.
                prop_assert!(with_token && !names.iter().any(|name| name == "authorization"));
                let path = target.split('?').next().unwrap();
                prop_assert_eq!(identity::path::parse(path).unwrap().organisation, "org-1");
            }
            Ok(())
        })?;
    }

    #[test]
    fn no_answer_of_an_issuer_opens_the_gate(bytes in prop_oneof!["\\PC{0,60}", json_value().prop_map(|value| value.to_string()), json_value().prop_map(|value| json!({"keys": [value]}).to_string())]) {
        SITE.with(|site| {
            // A filter that has no keys yet.
            let mut service = Service::new(site.config.to_string().as_bytes());
            prop_assert!(!accepts(&mut service, &site.request(&site.token), &bytes));
            Ok(())
        })?;
    }

    #[test]
    fn no_configuration_opens_the_gate(at in any::<usize>(), value in json_value(), raw in "\\PC{0,40}", whole in any::<bool>()) {
        SITE.with(|site| {
            let mut config = site.config.clone();
            let mut found = Vec::new();
            places(&config, "", &mut found);
            *config.pointer_mut(&found[at % found.len()]).unwrap() = value.clone();
            let text = if whole { raw.clone() } else { config.to_string() };
            let mut service = Service::new(text.as_bytes());
            // Neither without a token, nor with one of nobody's.
            for headers in [vec![], vec![("authorization", b"Bearer e30.e30.e30".to_vec())]] {
                let asked = request("POST", "/api/v1/mcp/org-1", &headers);
                prop_assert!(!accepts(&mut service, &asked, &site.jwks), "{}", text);
            }
            Ok(())
        })?;
    }
}
