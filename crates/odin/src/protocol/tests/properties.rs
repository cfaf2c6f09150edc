//! What holds for all input.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use rmcp::model::{ClientJsonRpcMessage, ClientRequest, GetMeta};
use serde_json::Value;

use super::sse::read;
use crate::id::CallId;
use crate::protocol::{
    Body, Incoming, Limits, Message, Refusal, Revision, answer_status, classify, decode_value,
    origin::HostRules,
    read_body,
    session::{SessionInfo, SessionKeys},
    sse::{Event, EventId},
};

const HEADERS: [&str; 12] = [
    "content-type",
    "accept",
    "mcp-protocol-version",
    "mcp-session-id",
    "mcp-method",
    "mcp-name",
    "mcp-param-x",
    "last-event-id",
    "content-encoding",
    "host",
    "origin",
    "x-other",
];

/// Values that come near to what is right, and any others.
fn header_value() -> impl Strategy<Value = Vec<u8>> {
    let near = proptest::sample::select(vec![
        "application/json",
        "text/event-stream",
        "application/json, text/event-stream",
        "2026-07-28",
        "2025-11-25",
        "2025-03-26",
        "tools/call",
        "tools/list",
        "initialize",
        "a",
        "=?base64?YQ==?=",
        "=?base64?",
        "localhost",
        "http://localhost:1",
    ]);
    prop_oneof![
        4 => near.prop_map(|value| value.as_bytes().to_vec()),
        1 => proptest::collection::vec(prop_oneof![Just(9u8), 32u8..127, 128u8..=255], 0..40),
    ]
}

fn header_map() -> impl Strategy<Value = HeaderMap> {
    proptest::collection::vec((proptest::sample::select(HEADERS.to_vec()), header_value()), 0..12).prop_map(
        |all| {
            let mut headers = HeaderMap::new();
            for (name, value) in all {
                headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(&value).unwrap());
            }
            headers
        },
    )
}

/// Headers and body of a request of either era that is right but for what its arguments hold, and maybe for
/// one header.
fn good_request() -> impl Strategy<Value = (HeaderMap, String)> {
    let method = proptest::sample::select(vec!["tools/call", "tools/list", "initialize", "ping", "x"]);
    let id = proptest::sample::select(vec!["\"id\":1,", "\"id\":\"\\u0061\",", ""]);
    let extra = proptest::option::weighted(0.3, (proptest::sample::select(HEADERS.to_vec()), header_value()));
    (method, id, json(3), any::<bool>(), any::<bool>(), extra).prop_map(|(method, id, arguments, modern, batch, extra)| {
        let meta = if modern { format!(",{}", super::META) } else { String::new() };
        let message = format!(
            r#"{{"jsonrpc":"2.0",{id}"method":"{method}","params":{{"name":"\u0061","protocolVersion":"2025-06-18","capabilities":{{}},"clientInfo":{{"name":"c","version":"1"}},"arguments":{arguments}{meta}}}}}"#
        );
        let mut headers = if modern {
            super::modern_headers(method, Some("a"))
        } else {
            super::headers(&[("mcp-session-id", "s")])
        };
        if let Some((name, value)) = extra {
            headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(&value).unwrap());
        }
        (headers, if batch && !modern { format!("[{message}]") } else { message })
    })
}

fn method() -> impl Strategy<Value = Method> {
    prop_oneof![5 => Just(Method::POST), 1 => Just(Method::GET), 1 => Just(Method::DELETE), 1 => Just(Method::PUT)]
}

/// Any JSON, as text with arbitrary spaces, and member names that matter, maybe twice.
fn json(depth: u32) -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|b| b.to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(|n| format!("{n:e}")),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        proptest::sample::select(vec![
            "2.0",
            "2026-07-28",
            "2025-11-25",
            "tools/call",
            "initialize",
            "a",
            "\\u0061"
        ])
        .prop_map(|text| format!("\"{text}\"")),
    ];
    let name = prop_oneof![
        1 => proptest::sample::select(vec![
            "jsonrpc", "id", "method", "params", "result", "error", "name", "uri", "taskId", "_meta", "arguments",
            "requestId", "protocolVersion", "capabilities", "clientInfo", "progressToken",
            "io.modelcontextprotocol/protocolVersion", "io.modelcontextprotocol/clientCapabilities", "\\u006eame",
            "$serde_json::private::RawValue", "$serde_json::private::Number",
        ]).prop_map(ToOwned::to_owned),
        3 => "[a-z]{0,3}",
    ];
    leaf.prop_recursive(depth, 60, 8, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6)
                .prop_map(|items| format!("[ {}]", items.join(" ,"))),
            proptest::collection::vec((name.clone(), inner), 0..8).prop_map(|members| {
                let members: Vec<String> =
                    members.into_iter().map(|(name, value)| format!("\"{name}\" :{value}")).collect();
                format!("{{{}\n}}", members.join(","))
            }),
        ]
    })
}

/// Messages that are nearly right.
fn near_message() -> impl Strategy<Value = String> {
    let version = proptest::sample::select(vec!["\"2.0\"", "\"2.0\"", "\"2.0\"", "2", "null"]);
    let id = proptest::sample::select(vec!["1", "\"a\"", "null", "1.5", "-0", ""]);
    let method = proptest::sample::select(vec!["tools/call", "tools/list", "initialize", "ping", "x"]);
    (version, id, method, json(3)).prop_map(|(version, id, method, params)| {
        let id = if id.is_empty() { String::new() } else { format!("\"id\":{id},") };
        format!("{{\"jsonrpc\":{version},{id}\"method\":\"{method}\",\"params\":{params}}}")
    })
}

fn assert_sound(refusal: &Refusal) -> Result<(), TestCaseError> {
    prop_assert!(refusal.status().is_client_error(), "{refusal}");
    let body: Value = serde_json::from_slice(&refusal.body()).unwrap();
    prop_assert_eq!(&body["error"]["code"], &Value::from(refusal.code()));
    prop_assert!(refusal.message().len() < 1_000, "{}", refusal.message());
    let _ = refusal.clone().into_response();
    Ok(())
}

/// What the scan read is what a full parse reads.
fn assert_same(message: &Message<'_>) -> Result<(), TestCaseError> {
    let (raw, id, method, params) = match message {
        Message::Request(m) => (m.raw, Some(m.id), Some(&m.method), Some(&m.params)),
        Message::Notification(m) => (m.raw, None, Some(&m.method), Some(&m.params)),
        Message::Reply(m) => (m.raw, Some(m.id), None, None),
    };
    let full: Value = serde_json::from_str(raw.get()).unwrap();
    let id = id.map(|id| serde_json::from_str::<Value>(id.as_json()).unwrap());
    prop_assert_eq!(full.get("id"), id.as_ref());
    prop_assert_eq!(full.get("method").and_then(Value::as_str), method.map(AsRef::as_ref));
    let Some(params) = params else { return Ok(()) };
    let full = full.get("params").cloned().unwrap_or_default();
    for (name, value) in [
        ("name", &params.name),
        ("uri", &params.uri),
        ("taskId", &params.task_id),
        ("level", &params.level),
        ("protocolVersion", &params.protocol_version),
    ] {
        prop_assert_eq!(full.get(name).and_then(Value::as_str), value.as_deref(), "{}", name);
    }
    let meta = full.get("_meta").cloned().unwrap_or_default();
    for (full, name, raw) in [
        (&full, "arguments", params.arguments),
        (&full, "capabilities", params.capabilities),
        (&full, "clientInfo", params.client_info),
        (&meta, "io.modelcontextprotocol/protocolVersion", params.meta.protocol_version),
        (&meta, "io.modelcontextprotocol/clientCapabilities", params.meta.client_capabilities),
        (&meta, "progressToken", params.meta.progress_token),
    ] {
        let raw = raw.map(|raw| serde_json::from_str::<Value>(raw.get()).unwrap()).unwrap_or_default();
        prop_assert_eq!(full.get(name).cloned().unwrap_or_default(), raw, "{}", name);
    }
    Ok(())
}

fn messages<'a, 'b>(body: &'b Body<'a>) -> Vec<&'b Message<'a>> {
    match body {
        Body::One(message) => vec![message],
        Body::Batch(messages) => messages.iter().flatten().collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_answered(method in method(), headers in header_map(), body in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Err(refusal) = classify(&method, &headers, &body, &Limits::default()) {
            assert_sound(&refusal)?;
        }
    }

    #[test]
    fn any_json_is_answered(
        method in method(),
        (headers, body) in prop_oneof![
            1 => (header_map(), prop_oneof![json(4), near_message()]),
            4 => good_request(),
        ],
    ) {
        match classify(&method, &headers, body.as_bytes(), &Limits::default()) {
            Err(refusal) => assert_sound(&refusal)?,
            Ok(Incoming::Stateless { message, .. }) => {
                prop_assert!(!matches!(message, Message::Reply(_)));
                assert_same(&message)?;
            }
            Ok(Incoming::Stateful { session, body, .. }) => {
                prop_assert!(!session.is_empty());
                for message in messages(&body) {
                    assert_same(message)?;
                }
                if let Body::Batch(all) = &body {
                    all.iter().filter_map(|message| message.as_ref().err()).try_for_each(assert_sound)?;
                }
            }
            Ok(Incoming::Initialize { request, revision }) => {
                prop_assert!(!revision.is_stateless());
                assert_same(&Message::Request(request.clone()))?;
                if let Err(refusal) = SessionInfo::new([0; 16], revision, &request, 0) {
                    assert_sound(&refusal)?;
                }
            }
            Ok(Incoming::Listen { .. } | Incoming::End { .. }) => {}
        }
    }

    #[test]
    fn the_scan_reads_what_a_full_parse_reads(body in prop_oneof![json(5), near_message(), good_request().prop_map(|(_, body)| body)]) {
        match read_body(body.as_bytes(), &Limits::default()) {
            Err(refusal) => assert_sound(&refusal)?,
            Ok(body) => for message in messages(&body) {
                assert_same(message)?;
            },
        }
    }

    #[test]
    fn the_scan_reads_what_the_worker_reads((_, body) in good_request()) {
        let Ok(Body::One(Message::Request(request))) = read_body(body.as_bytes(), &Limits::default()) else {
            return Ok(());
        };
        // What rmcp can't read the worker refuses; what it reads has to be the same.
        let Ok(ClientJsonRpcMessage::Request(read)) = serde_json::from_str(request.raw.get()) else {
            return Ok(());
        };
        let id = serde_json::to_value(&read.id).unwrap();
        prop_assert_eq!(id, serde_json::from_str::<Value>(request.id.as_json()).unwrap());
        prop_assert_eq!(read.request.method(), &*request.method);
        let version = read.request.get_meta().protocol_version().map(|version| version.to_string());
        let own = request.params.meta.protocol_version.map(|raw| serde_json::from_str::<String>(raw.get()).unwrap());
        prop_assert_eq!(version, own);
        match read.request {
            ClientRequest::CallToolRequest(call) => {
                prop_assert_eq!(&*call.params.name, request.params.name.as_deref().unwrap());
                let arguments = request.params.arguments.map(|raw| serde_json::from_str::<Value>(raw.get()).unwrap());
                let read = call.params.arguments.map(Value::Object);
                prop_assert_eq!(read, arguments.filter(|arguments| !arguments.is_null()));
            }
            ClientRequest::InitializeRequest(initialize) => {
                prop_assert_eq!(
                    initialize.params.protocol_version.as_str(),
                    request.params.protocol_version.as_deref().unwrap()
                );
            }
            _ => {}
        }
    }

    #[test]
    fn what_the_structure_pass_accepts_is_plain_json(body in json(6)) {
        let Ok(value) = serde_json::from_str::<Value>(&body) else {
            prop_assert!(crate::protocol::structure::check(&body, 64).is_err());
            return Ok(());
        };
        if crate::protocol::structure::check(&body, 64).is_ok() {
            // Printed again it has as many members as before: none was dropped, none hid another document.
            let members = |text: &str| text.replace("\" :", "\":").matches("\":").count();
            let printed = serde_json::to_string(&value).unwrap();
            if !body.contains('\\') {
                prop_assert_eq!(members(&printed), members(&body), "{}", body);
            }
        }
    }

    #[test]
    fn sessions_come_back(
        random in any::<[u8; 16]>(), now in 0u64..1 << 40, caller in any::<String>(), other in any::<String>(),
        name in any::<String>(), capabilities in json(3),
    ) {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"protocolVersion":"x","capabilities":{{"a":{capabilities}}},"clientInfo":{{"name":{},"version":"1"}}}}}}"#,
            serde_json::to_string(&name).unwrap()
        );
        let Ok(Body::One(Message::Request(request))) = read_body(body.as_bytes(), &Limits::default()) else {
            return Ok(());
        };
        let Ok(info) = SessionInfo::new(random, Revision::V2025_11_25, &request, now) else { return Ok(()) };
        let keys = SessionKeys::parse("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap();
        let id = keys.mint(&caller, &info);
        prop_assert!(HeaderValue::from_str(&id).is_ok() && id.len() < 1_900);
        let opened = keys.open(&id, &caller, now).unwrap();
        prop_assert_eq!(opened.random, random);
        let (before, after) = (info.initialize_params(), opened.initialize_params());
        prop_assert_eq!(before.get(), after.get());
        prop_assert_eq!(keys.open(&id, &other, now).is_ok(), caller == other);
    }

    #[test]
    fn made_up_sessions_are_unknown(id in ".{0,200}", caller in any::<String>(), now in any::<u64>()) {
        let keys = SessionKeys::parse("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap();
        prop_assert!(keys.open(&id, &caller, now).is_err());
    }

    #[test]
    fn events_come_back(datas in proptest::collection::vec(("[a-z:\n\r {}\u{2028}é]{0,30}", any::<u32>(), any::<Option<u32>>()), 0..5)) {
        let call = CallId::from_bits([1; 16]);
        let mut out = Vec::new();
        for (data, number, retry) in &datas {
            let event = Event { retry: *retry, ..Event::message(data).with_id(EventId { call, number: *number }) };
            event.write(&mut out, 1_000).unwrap();
        }
        let events = read(&String::from_utf8(out).unwrap());
        prop_assert_eq!(events.len(), datas.len());
        for (event, (data, number, retry)) in events.iter().zip(&datas) {
            prop_assert_eq!(&event.data, &data.replace("\r\n", "\n").replace('\r', "\n"));
            prop_assert_eq!(&event.id, &format!("{call}-{number}"));
            prop_assert_eq!(event.retry, *retry);
        }
    }

    #[test]
    fn event_ids_come_back(text in prop_oneof!["[0-9a-f]{34}-[0-9]{1,11}", ".{0,40}"]) {
        if let Ok(id) = text.parse::<EventId>() {
            prop_assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn small_functions_take_anything(text in ".{0,60}", bytes in proptest::collection::vec(any::<u8>(), 0..60), headers in header_map()) {
        let _ = decode_value(&text);
        let _ = answer_status(Revision::V2026_07_28, &bytes);
        let _ = Revision::negotiate(&text);
        let _ = SessionKeys::parse(&text);
        if let Err(refusal) = HostRules::default().check(&headers, Some(&text)) {
            prop_assert_eq!(refusal.status().as_u16(), 403);
        }
        let _ = HostRules::default().allow_host(&text);
        let _ = HostRules::default().allow_origin(&text);
    }
}
