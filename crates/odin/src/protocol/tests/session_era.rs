use http::{Method, StatusCode};

use super::{assert_code, assert_refused, headers, post};
use crate::id::CallId;
use crate::protocol::{Body, Incoming, Limits, Message, Refusal, Revision, accepted, classify, empty_result};

const LIST: &str = r#"{"jsonrpc":"2.0","id":9,"method":"tools/list"}"#;

#[test]
fn a_session_is_required() {
    assert_refused(
        post(&headers(&[("mcp-protocol-version", "2025-11-25")]), LIST),
        StatusCode::BAD_REQUEST,
        concat!(
            r#"{"jsonrpc":"2.0","id":9,"error":{"code":-32600,"message":"Mcp-Session-Id is missing. Send the id that "#,
            r#"the answer to `initialize` carried; or, for revision 2026-07-28, MCP-Protocol-Version and the "#,
            r#"per-request _meta."}}"#
        ),
    );
    for extra in [&[][..], &[("mcp-session-id", "")], &[("mcp-session-id", "a"), ("mcp-session-id", "b")]] {
        assert_code(post(&headers(extra), LIST), 400, -32600, "9");
    }
    // Not one of ours: as unknown as any other.
    assert_code(post(&headers(&[("mcp-session-id", "é")]), LIST), 404, -32600, "9");
}

#[test]
fn messages_of_a_session() {
    for (version, revision) in [
        (None, None),
        (Some("2025-03-26"), Some(Revision::V2025_03_26)),
        (Some("2025-11-25"), Some(Revision::V2025_11_25)),
    ] {
        let mut all = vec![("mcp-session-id", "token.sig")];
        all.extend(version.map(|version| ("mcp-protocol-version", version)));
        let headers = headers(&all);
        let Ok(Incoming::Stateful {
            session: "token.sig",
            header,
            body: Body::One(Message::Request(request)),
        }) = post(&headers, LIST)
        else {
            panic!("{version:?}")
        };
        assert_eq!((header, request.id.as_json()), (revision, "9"));
    }
    let headers = headers(&[("mcp-session-id", "s")]);
    let cancelled =
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"a\u0062"}}"#;
    let Ok(Incoming::Stateful { body: Body::One(Message::Notification(notification)), .. }) =
        post(&headers, cancelled)
    else {
        panic!()
    };
    assert_eq!(notification.params.request_id.unwrap().key(), r#""ab""#);
    let call = CallId::from_bits([0xab; 16]);
    let reply = format!(r#"{{"jsonrpc":"2.0","id":"{call}:0","error":{{"code":-1,"message":"no"}}}}"#);
    let Ok(Incoming::Stateful { body: Body::One(Message::Reply(reply)), .. }) = post(&headers, &reply) else {
        panic!()
    };
    assert_eq!((reply.id.call(), reply.is_error), (Some(call), true));
    let progress = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":"{call}:1","progress":1}}}}"#
    );
    let Ok(Incoming::Stateful { body: Body::One(Message::Notification(notification)), .. }) =
        post(&headers, &progress)
    else {
        panic!()
    };
    assert_eq!(notification.params.progress_token.unwrap().call(), Some(call));
    for foreign in ["7", r#""7""#, r#""x:0""#, &format!(r#""{call}""#)] {
        let reply = format!(r#"{{"jsonrpc":"2.0","id":{foreign},"result":{{}}}}"#);
        let Ok(Incoming::Stateful { body: Body::One(Message::Reply(reply)), .. }) = post(&headers, &reply)
        else {
            panic!()
        };
        assert_eq!(reply.id.call(), None);
    }
}

#[test]
fn an_unsupported_version_header_is_refused() {
    for version in ["1.0", "2025-11-26", "2027-01-01", "2025-03-26, 2025-03-26", ""] {
        let headers = headers(&[("mcp-session-id", "s"), ("mcp-protocol-version", version)]);
        assert_code(post(&headers, LIST), 400, -32022, "9");
        for method in [Method::GET, Method::DELETE] {
            assert_code(classify(&method, &headers, b"", &Limits::default()), 400, -32022, "");
        }
    }
}

#[test]
fn batches_only_in_the_first_revision() {
    let batch = r#" [{"jsonrpc":"2.0","id":1,"method":"tools/list"}, {"jsonrpc":"2.0","method":"notifications/initialized"},{"jsonrpc":"2.0","id":2,"result":{}}]"#;
    let session = ("mcp-session-id", "s");
    for extra in [&[session][..], &[session, ("mcp-protocol-version", "2025-03-26")]] {
        let headers = headers(extra);
        let incoming = post(&headers, batch).unwrap();
        let Incoming::Stateful { body: Body::Batch(messages), .. } = &incoming else { panic!() };
        assert!(matches!(
            messages[..],
            [Ok(Message::Request(_)), Ok(Message::Notification(_)), Ok(Message::Reply(_))]
        ));
        assert!(incoming.check_session(Revision::V2025_03_26).is_ok());
        let refusal: Refusal = incoming.check_session(Revision::V2025_06_18).unwrap_err();
        assert_eq!(refusal.status(), StatusCode::BAD_REQUEST);
    }
    for version in ["2024-11-05", "2025-06-18", "2025-11-25", "2026-07-28"] {
        assert_code(post(&headers(&[session, ("mcp-protocol-version", version)]), batch), 400, -32600, "");
    }
    let headers = headers(&[session]);
    assert_code(post(&headers, "[]"), 400, -32600, "");
    assert_code(post(&headers, r#"[{"jsonrpc":"2.0","id":1,"method":"initialize"}]"#), 400, -32600, "");
    let many = format!("[{}]", vec![LIST; 51].join(","));
    assert_code(post(&headers, &many), 400, -32600, "");
    let enough = format!("[{}]", vec![LIST; 50].join(","));
    assert!(post(&headers, &enough).is_ok());
    // A single message is right in every revision.
    assert!(post(&headers, LIST).unwrap().check_session(Revision::V2025_11_25).is_ok());
}

#[test]
fn a_bad_element_of_a_batch_costs_that_element() {
    let headers = headers(&[("mcp-session-id", "s")]);
    for (bad, code, id) in [
        ("1", -32600, None),
        ("[]", -32600, None),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, -32600, None),
        (r#"{"jsonrpc":"2.0","id":7,"method":7}"#, -32600, Some("7")),
        (r#"{"jsonrpc":"2.0","id":7,"method":"x","params":[1]}"#, -32602, Some("7")),
        (r#"{"jsonrpc":"2.0","id":7,"method":"x","params":{"a":1,"a":2}}"#, -32602, Some("7")),
        (r#"{"jsonrpc":"2.0","id":7,"method":"x","params":{"a":"\ud800"}}"#, -32602, Some("7")),
        (r#"{"jsonrpc":"2.0","id":7,"method":"x","params":{"a":1e999}}"#, -32602, Some("7")),
    ] {
        let body = format!("[{LIST},{bad},{LIST}]");
        let Ok(Incoming::Stateful { body: Body::Batch(messages), .. }) = post(&headers, &body) else {
            panic!("{bad}")
        };
        let [Ok(Message::Request(_)), Err(refusal), Ok(Message::Request(_))] = &messages[..] else {
            panic!("{bad}: {messages:?}")
        };
        let answer: serde_json::Value = serde_json::from_slice(&refusal.body()).unwrap();
        assert_eq!(answer["error"]["code"], code, "{bad}");
        assert_eq!(answer.get("id").map(ToString::to_string).as_deref(), id, "{bad}");
    }
    // What is no JSON has no elements.
    assert_code(post(&headers, &format!("[{LIST},{{]")), 400, -32700, "");
}

#[test]
fn initialize_needs_its_parameters() {
    let initialize = |params: &str| format!(r#"{{"jsonrpc":"2.0","id":"i","method":"initialize"{params}}}"#);
    for params in [
        "",
        r#","params":{}"#,
        r#","params":{"protocolVersion":1,"capabilities":{},"clientInfo":{}}"#,
        r#","params":{"protocolVersion":"2025-11-25","clientInfo":{}}"#,
        r#","params":{"protocolVersion":"2025-11-25","capabilities":[],"clientInfo":{}}"#,
        r#","params":{"protocolVersion":"2025-11-25","capabilities":{}}"#,
    ] {
        assert_code(post(&headers(&[]), &initialize(params)), 400, -32602, r#""i""#);
    }
    let notification = r#"{"jsonrpc":"2.0","method":"initialize","params":{"protocolVersion":"x","capabilities":{},"clientInfo":{}}}"#;
    assert_code(post(&headers(&[]), notification), 400, -32600, "");
}

#[test]
fn streams_and_ends() {
    let limits = Limits::default();
    let with = headers(&[("mcp-session-id", "s"), ("last-event-id", " 0123456789abcdef-1 ")]);
    let Ok(Incoming::Listen { session: "s", header: None, last_event_id: Some("0123456789abcdef-1") }) =
        classify(&Method::GET, &with, b"", &limits)
    else {
        panic!()
    };
    let with = headers(&[("mcp-session-id", "s"), ("mcp-protocol-version", "2025-06-18")]);
    assert!(matches!(
        classify(&Method::GET, &with, b"", &limits),
        Ok(Incoming::Listen { last_event_id: None, header: Some(Revision::V2025_06_18), .. })
    ));
    assert!(matches!(
        classify(&Method::DELETE, &with, b"", &limits),
        Ok(Incoming::End { session: "s", header: Some(Revision::V2025_06_18) })
    ));
    assert_code(classify(&Method::DELETE, &headers(&[]), b"", &limits), 400, -32600, "");
    let early = classify(&Method::GET, &headers(&[]), b"", &limits).unwrap_err();
    assert!(early.message().contains("`initialize`"), "{early}");
    let early = early.into_response();
    assert_eq!((early.status().as_u16(), &early.headers()["allow"]), (405, &"POST".parse().unwrap()));
    let twice = headers(&[("mcp-session-id", "s"), ("last-event-id", "a"), ("last-event-id", "b")]);
    assert_code(classify(&Method::GET, &twice, b"", &limits), 400, -32600, "");
}

#[test]
fn answers_without_a_worker() {
    let headers = headers(&[("mcp-session-id", "s")]);
    let level = |level: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":"\u0041","method":"logging/setLevel","params":{{"level":{level}}}}}"#
        )
    };
    let body = level(r#""warning""#);
    let Ok(Incoming::Stateful { body: Body::One(Message::Request(request)), .. }) = post(&headers, &body)
    else {
        panic!()
    };
    assert_eq!(request.set_level().unwrap(), "warning");
    assert_eq!(&empty_result(request.id)[..], br#"{"jsonrpc":"2.0","id":"\u0041","result":{}}"#);
    for wrong in [r#""loud""#, "3", "null"] {
        let body = level(wrong);
        let Ok(Incoming::Stateful { body: Body::One(Message::Request(request)), .. }) = post(&headers, &body)
        else {
            panic!()
        };
        let refusal = request.set_level().unwrap_err();
        assert_eq!((refusal.status(), refusal.code()), (StatusCode::OK, -32602));
    }
    let refusal = Refusal::method_not_found(Revision::V2025_11_25, "server/discover");
    assert_eq!((refusal.status(), refusal.code()), (StatusCode::OK, -32601));
    let response = accepted();
    assert_eq!((response.status(), response.body().len()), (StatusCode::ACCEPTED, 0));
    assert!(response.headers().is_empty());
}

#[test]
fn a_session_refuses_one_request_alone() {
    let id: Box<serde_json::value::RawValue> = serde_json::from_str("7").unwrap();
    let refused = |refusal: Refusal| {
        let response = refusal.for_raw_id(&id).in_session().into_response();
        assert!(!response.headers().contains_key("retry-after"), "{response:?}");
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body["id"], 7);
        (response.status().as_u16(), body["error"]["code"].as_i64().unwrap(), body["error"]["data"].clone())
    };
    let data = |status: u16| serde_json::json!({ "httpStatus": status });
    let again = |status: u16, after: u32| serde_json::json!({ "httpStatus": status, "retryAfter": after });
    assert_eq!(refused(Refusal::too_many("m", 3)), (200, -32603, again(429, 3)));
    assert_eq!(refused(Refusal::unavailable("m", 2)), (200, -32603, again(503, 2)));
    assert_eq!(refused(Refusal::body_too_large(1)), (200, -32603, data(413)));
    assert_eq!(refused(Refusal::forbidden("m")), (200, -32603, data(403)));
    assert_eq!(refused(Refusal::invalid_params("m")), (200, -32602, data(400)));
    let new = |status: StatusCode, code: i32| Refusal::new(status, code, "m");
    assert_eq!(refused(new(StatusCode::CONFLICT, -32600)), (200, -32603, data(409)));
    assert_eq!(refused(new(StatusCode::UNPROCESSABLE_ENTITY, -32602)), (200, -32602, data(422)));

    // What ends the session, or is a fault of the exchange, stays; and so does what has no id.
    let null = serde_json::Value::Null;
    assert_eq!(refused(Refusal::unknown_session()), (404, -32600, null.clone()));
    assert_eq!(refused(Refusal::missing_session()), (400, -32600, null.clone()));
    assert_eq!(refused(Refusal::header_mismatch("m")), (400, -32020, null.clone()));
    assert_eq!(refused(Refusal::method_not_allowed("POST")).0, 405);
    assert_eq!(refused(new(StatusCode::UNAUTHORIZED, -32600)).0, 401);
    assert_eq!(refused(Refusal::unsupported_version("x")).0, 400);
    let unread = Refusal::too_many("m", 3).in_session().into_response();
    assert_eq!((unread.status().as_u16(), unread.headers()["retry-after"].as_bytes()), (429, &b"3"[..]));
}

#[test]
fn refusals_of_the_front_end() {
    let busy = Refusal::unavailable("The queue is full. Try again later.", 2).into_response();
    assert_eq!(
        (busy.status(), &busy.headers()["retry-after"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"2".parse().unwrap())
    );
    let many = Refusal::too_many("Too many calls in flight. Wait for some to end.", 1).into_response();
    assert_eq!(
        (many.status(), &many.headers()["retry-after"]),
        (StatusCode::TOO_MANY_REQUESTS, &"1".parse().unwrap())
    );
    let gone = Refusal::unknown_session();
    assert_eq!(
        gone.body(),
        r#"{"jsonrpc":"2.0","error":{"code":-32600,"message":"Unknown session: it has ended, or never was. Send `initialize` without Mcp-Session-Id to start a new one."}}"#
    );
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);
    let data = serde_json::value::to_raw_value(&serde_json::json!({"uri": "x"})).unwrap();
    let with_data = Refusal::invalid_params("m").with_data(data);
    assert_eq!(
        with_data.body(),
        r#"{"jsonrpc":"2.0","error":{"code":-32602,"message":"m","data":{"uri":"x"}}}"#
    );
}
