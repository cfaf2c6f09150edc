use serde_json::{Value, json};

use crate::protocol::{
    Body, Limits, Message, Refusal, Revision, read_body,
    session::{KeyError, SessionInfo, SessionKeys, Unknown},
};

const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const OTHER: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";
const NOW: u64 = 1_800_000_000;

fn info(capabilities: &Value, client_info: &Value) -> Result<SessionInfo, Refusal> {
    let body = json!({"jsonrpc": "2.0", "id": "init", "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": capabilities, "clientInfo": client_info}})
    .to_string();
    match read_body(body.as_bytes(), &Limits::default()) {
        Ok(Body::One(Message::Request(request))) => {
            SessionInfo::new([7; 16], Revision::V2025_06_18, &request, NOW)
        }
        other => panic!("{other:?}"),
    }
}

fn plain() -> SessionInfo {
    info(&json!({"roots": {"listChanged": true}, "sampling": {}}), &json!({"name": "c", "version": "1"}))
        .unwrap()
}

#[test]
fn opens_for_its_own_caller() {
    let keys = SessionKeys::parse(KEY).unwrap();
    let info = plain();
    let id = keys.mint("alice", &info);
    assert!(id.bytes().all(|b| b.is_ascii_graphic()) && id.len() < 400, "{id}");
    let opened = keys.open(&id, "alice", NOW + 5).unwrap();
    assert_eq!(opened.key(), "07070707070707070707070707070707");
    assert_eq!((opened.revision, opened.issued_at), (Revision::V2025_06_18, NOW));
    assert_eq!(
        opened.initialize_params().get(),
        r#"{"protocolVersion":"2025-06-18","capabilities":{"roots":{"listChanged":true},"sampling":{}},"clientInfo":{"name":"c","version":"1"}}"#
    );
}

#[test]
fn everything_else_is_unknown() {
    let keys = SessionKeys::parse(KEY).unwrap();
    let id = keys.mint("alice", &plain());
    for caller in ["bob", "", "alice ", "Alice"] {
        assert_eq!(keys.open(&id, caller, NOW).unwrap_err(), Unknown);
    }
    assert_eq!(SessionKeys::parse(OTHER).unwrap().open(&id, "alice", NOW).unwrap_err(), Unknown);
    let long = "x".repeat(5_000);
    for made_up in
        ["", ".", "a.b", &id[1..], &id[..id.len() - 1], &format!("{id}A"), &format!("{id}="), &long]
    {
        assert_eq!(keys.open(made_up, "alice", NOW).unwrap_err(), Unknown, "{made_up}");
    }
    for place in 0..id.len() {
        let mut damaged = id.clone().into_bytes();
        damaged[place] = if damaged[place] == b'A' { b'B' } else { b'A' };
        let damaged = String::from_utf8(damaged).unwrap();
        assert_eq!(keys.open(&damaged, "alice", NOW).unwrap_err(), Unknown);
    }
}

#[test]
fn expires() {
    let keys = SessionKeys::parse(KEY).unwrap().with_lifetime(100);
    assert_eq!(keys.lifetime(), 100);
    let id = keys.mint("alice", &plain());
    for (now, known) in [
        (NOW, true),
        (NOW + 99, true),
        (NOW + 100, false),
        (u64::MAX, false),
        // Another node's clock may be behind, but not by much.
        (NOW - 60, true),
        (NOW - 61, false),
        (0, false),
    ] {
        assert_eq!(keys.open(&id, "alice", now).is_ok(), known, "{now}");
    }
    let forever = SessionKeys::parse(KEY).unwrap().with_lifetime(u64::MAX);
    assert!(forever.open(&id, "alice", NOW * 2).is_ok());
}

#[test]
fn keys_rotate() {
    let old = SessionKeys::parse(KEY).unwrap();
    let both = SessionKeys::parse(&format!("{OTHER},{KEY}")).unwrap();
    let new = SessionKeys::parse(OTHER).unwrap();
    let before = old.mint("alice", &plain());
    let after = both.mint("alice", &plain());
    assert!(both.open(&before, "alice", NOW).is_ok() && both.open(&after, "alice", NOW).is_ok());
    assert!(new.open(&after, "alice", NOW).is_ok() && new.open(&before, "alice", NOW).is_err());
}

#[test]
fn keys_are_checked_and_never_shown() {
    assert!(SessionKeys::parse(&format!(" {KEY}= ")).is_ok());
    for (text, error) in [
        ("", KeyError::Length),
        ("AAAA", KeyError::Length),
        ("not base64!", KeyError::Encoding),
        (&format!("{KEY},"), KeyError::Length),
        (&format!("{KEY},{KEY},{KEY}"), KeyError::Count),
    ] {
        assert_eq!(SessionKeys::parse(text).unwrap_err(), error, "{text}");
    }
    let keys = SessionKeys::parse(&format!("{OTHER},{KEY}")).unwrap();
    assert_eq!(format!("{keys:?}"), r#"SessionKeys { current: "…", previous: Some("…"), lifetime: 86400 }"#);
}

#[test]
fn large_clients_are_reduced() {
    let pad = "x".repeat(2_000);
    let keys = SessionKeys::parse(KEY).unwrap();
    let cases = [
        (
            json!({"roots": {}}),
            json!({"name": "c", "version": "1", "title": "C", "icons": [{"src": pad}]}),
            r#"{"protocolVersion":"2025-06-18","capabilities":{"roots":{}},"clientInfo":{"name":"c","title":"C","version":"1"}}"#,
        ),
        (
            json!({"experimental": {"e": {}}}),
            json!({"name": "c", "version": "1", "title": "C", "description": pad}),
            r#"{"protocolVersion":"2025-06-18","capabilities":{"experimental":{"e":{}}},"clientInfo":{"name":"c","version":"1"}}"#,
        ),
        (
            json!({"experimental": {"e": {"p": pad}}, "extensions": {"x/y": {"a": 1}}}),
            json!({"name": "c", "version": "1"}),
            r#"{"protocolVersion":"2025-06-18","capabilities":{"extensions":{"x/y":{"a":1}}},"clientInfo":{"name":"c","version":"1"}}"#,
        ),
        (
            json!({"extensions": {"x/y": {"a": pad}}, "elicitation": {"url": {}}}),
            json!({"name": "c", "version": "1"}),
            r#"{"protocolVersion":"2025-06-18","capabilities":{"elicitation":{"url":{}},"extensions":{"x/y":{}}},"clientInfo":{"name":"c","version":"1"}}"#,
        ),
        (
            json!({}),
            json!({"name": pad, "version": "1"}),
            &format!(
                r#"{{"protocolVersion":"2025-06-18","capabilities":{{}},"clientInfo":{{"name":"{}","version":"1"}}}}"#,
                &pad[..64]
            ),
        ),
    ];
    for (capabilities, client_info, expected) in cases {
        let info = info(&capabilities, &client_info).unwrap();
        assert_eq!(info.initialize_params().get(), expected);
        assert!(keys.mint("alice", &info).len() < 1_900);
    }
    let refusal = info(&json!({"unknown": pad}), &json!({"name": "c", "version": "1"})).unwrap_err();
    assert_eq!((refusal.status().as_u16(), refusal.code()), (400, -32602));
    assert!(refusal.body().starts_with(br#"{"jsonrpc":"2.0","id":"init","#));
    for client_info in [json!({}), json!({"name": "c"}), json!({"name": "c", "version": 1})] {
        assert_eq!(info(&json!({}), &client_info).unwrap_err().code(), -32602);
    }
}

#[test]
fn the_largest_id_fits_into_a_header() {
    // 1,200 bytes of client, to the byte.
    let empty = r#"{"u":""}{"name":"c","version":"1"}"#.len();
    let fit = info(&json!({"u": "x".repeat(1_200 - empty)}), &json!({"name": "c", "version": "1"})).unwrap();
    let id = SessionKeys::parse(KEY).unwrap().mint("alice", &fit);
    assert!(id.len() < 1_900, "{}", id.len());
    assert!(info(&json!({"u": "x".repeat(1_201 - empty)}), &json!({"name": "c", "version": "1"})).is_err());
}
