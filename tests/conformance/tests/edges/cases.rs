//! Requests that come near to right ones: each is a right one, changed in a few places.

use http::{HeaderName, HeaderValue, Method};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::client::{Ask, PATH};

/// Stands for a number that JSON allows and no integer holds.
const HUGE: &str = "@@huge@@";

/// One change.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    SetHeader(&'static str, Vec<u8>),
    AddHeader(&'static str, Vec<u8>),
    DropHeader(&'static str),
    /// The nth value of the body, counted in depth.
    SetValue(usize, Value),
    DropMember(usize),
    RepeatMember(usize),
    Wrap(usize),
    Truncate(usize),
    Insert(usize, Vec<u8>),
    Replace(Vec<u8>),
    Method(Method),
    Path(&'static str),
}

/// A right request by its number, and what is changed in it.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    right: usize,
    changes: Vec<Change>,
}

const HEADERS: [&str; 14] = [
    "content-type",
    "accept",
    "mcp-protocol-version",
    "mcp-session-id",
    "mcp-method",
    "mcp-name",
    "mcp-param-region",
    "mcp-param-count",
    "last-event-id",
    "content-encoding",
    "idempotency-key",
    "origin",
    "host",
    "x-asgard-identity",
];

const NEAR: [&str; 22] = [
    "application/json",
    "text/event-stream",
    "*/*",
    "text/plain",
    "2026-07-28",
    "2025-11-25",
    "2025-03-26",
    "2024-11-05",
    "1999-01-01",
    "tools/call",
    "tools/list",
    "initialize",
    "ping",
    "test_simple_text",
    "=?base64?ZXU=?=",
    "=?base64?",
    "gzip",
    "localhost",
    "http://localhost:1",
    "https://evil.example",
    "0123456789abcdef0123456789abcdef-3",
    "",
];

fn header_value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => select(NEAR.to_vec()).prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(prop_oneof![Just(9_u8), 32_u8..127, 128_u8..=255], 0..60),
        1 => Just(vec![b'a'; 4000]),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let long = "x".repeat(20_000);
    prop_oneof![
        6 => select(vec![
            json!(null), json!(true), json!(0), json!(-1), json!(1.5), json!(u64::MAX), json!(i64::MIN), json!(HUGE),
            json!(""), json!("2026-07-28"), json!("2025-11-25"), json!("test_simple_text"), json!("tools/call"),
            json!("subscriptions/listen"), json!("resources/subscribe"), json!("notifications/cancelled"),
            json!("notifications/progress"), json!("notifications/initialized"), json!("tasks/get"), json!("1.0"),
            json!("\u{0}\u{1f}\"\\\u{2028}\u{fffd}"), json!("🦀é"), json!([]), json!({}), json!([[[]]]),
            json!({"$serde_json::private::RawValue": "1"}), json!({"io.modelcontextprotocol/protocolVersion": 7}),
            json!({"": {"": []}}),
        ]),
        1 => Just(json!(long)),
        1 => ".{0,20}".prop_map(Value::from),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let header = || select(HEADERS.to_vec());
    let place = || 0_usize..60;
    prop_oneof![
        3 => (header(), header_value()).prop_map(|(name, value)| Change::SetHeader(name, value)),
        1 => (header(), header_value()).prop_map(|(name, value)| Change::AddHeader(name, value)),
        2 => header().prop_map(Change::DropHeader),
        6 => (place(), value()).prop_map(|(place, value)| Change::SetValue(place, value)),
        3 => place().prop_map(Change::DropMember),
        1 => place().prop_map(Change::RepeatMember),
        1 => place().prop_map(Change::Wrap),
        1 => (0_usize..600).prop_map(Change::Truncate),
        1 => (0_usize..600, vec(any::<u8>(), 1..5)).prop_map(|(place, bytes)| Change::Insert(place, bytes)),
        1 => prop_oneof![vec(any::<u8>(), 0..80), Just(b"[]".to_vec()), Just(b"null".to_vec()), Just(vec![b'['; 500])]
            .prop_map(Change::Replace),
        1 => select(vec![Method::GET, Method::DELETE, Method::PUT, Method::OPTIONS, Method::PATCH]).prop_map(Change::Method),
        1 => select(vec!["/", "/api/v1/mcp/", "/api/v1/mcp/ORG", "/api/v1/mcp/org-1/", "/api/v1/mcp/org-1/sse",
            "/api/v1/mcp/org-1/x/messages", "/api/v1/mcp/%6frg-1", "/api/v1/mcp/..%2f", "/api/v1/mcp/org-1;a=b",
            "/api/v1//mcp/org-1", "/_hermod/hold/0123456789abcdef0123456789abcdef", "/api/v1/mcp/org-1?x=%00"])
            .prop_map(Change::Path),
    ]
}

/// Any case.
pub(crate) fn case() -> impl Strategy<Value = Case> {
    (0_usize..1000, vec(change(), 0..4)).prop_map(|(right, changes)| Case { right, changes })
}

/// Right requests of both eras, and one batch. `session` is the id of a session that is there.
fn right(session: &str) -> Vec<(Ask, Value)> {
    let client = json!({"protocolVersion": "2025-11-25", "capabilities": {"elicitation": {}},
        "clientInfo": {"name": "edges", "version": "1"}});
    let calls = [
        ("server/discover", json!({})),
        ("tools/list", json!({})),
        ("tools/call", json!({"name": "test_simple_text", "arguments": {}})),
        ("tools/call", json!({"name": "test_mirrored_parameter", "arguments": {"region": "eu"}})),
        ("tools/call", json!({"name": "test_input_required_result_request_state", "arguments": {}})),
        (
            "prompts/get",
            json!({"name": "test_prompt_with_arguments", "arguments": {"arg1": "a", "arg2": "b"}}),
        ),
        ("resources/read", json!({"uri": "test://template/1/data"})),
        (
            "completion/complete",
            json!({"ref": {"type": "ref/prompt", "name": "p"}, "argument": {"name": "a", "value": "t"}}),
        ),
        ("tasks/get", json!({"taskId": "0123"})),
        ("subscriptions/listen", json!({"notifications": {"toolsListChanged": true}})),
    ];
    let message = |id: u64, method: &str, params: &Value| json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
    let mut all = Vec::new();
    for (method, params) in &calls {
        let mut ask = Ask::modern(method, params.clone(), &json!({"progressToken": 7}));
        if params["name"] == "test_mirrored_parameter" {
            ask = ask.with("mcp-param-region", "eu");
        }
        all.push((serde_json::from_slice(&ask.body).unwrap(), ask));
        let body = message(2, method, params);
        all.push((body.clone(), Ask::post(&body).with("mcp-session-id", session)));
    }
    for (method, params) in [
        ("initialize", &client),
        ("logging/setLevel", &json!({"level": "info"})),
        ("ping", &json!({})),
        ("resources/subscribe", &json!({"uri": "test://static-text"})),
        ("tools/call", &json!({"name": "test_elicitation", "arguments": {"message": "m"}})),
    ] {
        let body = message(3, method, params);
        let ask = Ask::post(&body);
        let ask = if method == "initialize" { ask } else { ask.with("mcp-session-id", session) };
        all.push((body, ask));
    }
    for body in [
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 3, "reason": "r"}}),
        json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": "0:0", "progress": 1}}),
        json!({"jsonrpc": "2.0", "id": "00:0", "result": {"action": "accept", "content": {}}}),
        json!({"jsonrpc": "2.0", "id": "00:0", "error": {"code": -1, "message": "no"}}),
        json!([message(4, "ping", &json!({})), message(5, "tools/list", &json!({}))]),
    ] {
        all.push((body.clone(), Ask::post(&body).with("mcp-session-id", session)));
    }
    all.into_iter().map(|(body, ask)| (ask, body)).collect()
}

impl Case {
    /// The request.
    pub(crate) fn ask(&self, session: &str) -> Ask {
        let mut all = right(session);
        let (mut ask, mut body) = all.swap_remove(self.right % all.len());
        let mut repeat = None;
        for change in &self.changes {
            match change {
                Change::SetHeader(name, value) => {
                    if let Ok(value) = HeaderValue::from_bytes(value) {
                        ask.headers.insert(HeaderName::from_static(name), value);
                    }
                }
                Change::AddHeader(name, value) => {
                    if let Ok(value) = HeaderValue::from_bytes(value) {
                        ask.headers.append(HeaderName::from_static(name), value);
                    }
                }
                Change::DropHeader(name) => drop(ask.headers.remove(*name)),
                Change::SetValue(place, value) => change_nth(&mut body, *place, |at| *at = value.clone()),
                Change::Wrap(place) => change_nth(&mut body, *place, |at| *at = json!([at.take()])),
                Change::DropMember(place) => {
                    change_nth(&mut body, *place, |at| {
                        if let Some(object) = at.as_object_mut()
                            && let Some(name) = object.keys().nth(place % object.len().max(1)).cloned()
                        {
                            object.remove(&name);
                        }
                    });
                }
                Change::RepeatMember(place) => repeat = Some(*place),
                Change::Method(method) => ask.method = method.clone(),
                Change::Path(path) => ask.path = (*path).into(),
                Change::Truncate(_) | Change::Insert(..) | Change::Replace(_) => {}
            }
        }
        let mut text = body.to_string().replace(&format!("\"{HUGE}\""), "1e999");
        if let Some(place) = repeat
            && let Some((at, _)) = text.match_indices('{').nth(place % text.matches('{').count().max(1))
        {
            text.insert_str(at + 1, r#""method":"a","name":"b","#);
        }
        ask.body = text.into_bytes();
        for change in &self.changes {
            match change {
                Change::Truncate(length) => ask.body.truncate(*length),
                Change::Insert(place, bytes) => {
                    let place = (*place).min(ask.body.len());
                    ask.body.splice(place..place, bytes.iter().copied());
                }
                Change::Replace(bytes) => ask.body.clone_from(bytes),
                _ => {}
            }
        }
        if ask.path.is_empty() {
            ask.path = PATH.into();
        }
        ask
    }
}

/// Changes the nth value, counted in depth.
fn change_nth(value: &mut Value, place: usize, change: impl FnOnce(&mut Value)) {
    fn count(value: &Value) -> usize {
        1 + match value {
            Value::Array(items) => items.iter().map(count).sum(),
            Value::Object(members) => members.values().map(count).sum(),
            _ => 0,
        }
    }
    fn at(value: &mut Value, mut place: usize) -> &mut Value {
        if place == 0 {
            return value;
        }
        place -= 1;
        let children: Vec<usize> = match &*value {
            Value::Array(items) => items.iter().map(count).collect(),
            Value::Object(members) => members.values().map(count).collect(),
            _ => Vec::new(),
        };
        let mut child = 0;
        while place >= children[child] {
            place -= children[child];
            child += 1;
        }
        let next = match value {
            Value::Array(items) => &mut items[child],
            Value::Object(members) => members.values_mut().nth(child).unwrap(),
            _ => unreachable!("only these have children"),
        };
        at(next, place)
    }
    let place = place % count(value);
    change(at(value, place));
}
