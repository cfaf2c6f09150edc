use http::StatusCode;

use super::{META, assert_code, assert_refused, headers, modern_headers, post};
use crate::protocol::{Incoming, Message, Revision, answer_status, code, error_status};

fn call(name: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":{name},{META}}}}}"#)
}

#[track_caller]
fn accepted(headers: &http::HeaderMap, body: &str) {
    match post(headers, body) {
        Ok(Incoming::Stateless { revision: Revision::V2026_07_28, message: Message::Request(request) }) => {
            assert_eq!(request.raw.get(), body.trim());
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn takes_a_complete_request_and_keeps_its_bytes() {
    let body = format!(
        r#" {{"id": "a\u0062c" , "method":"tools\/call","jsonrpc":"2.0","params":{{"name":"gr\u00fc\u00df","arguments":{{"x":[1,{{}}]}},{META}}} }} "#
    );
    let headers = modern_headers("tools/call", Some("=?base64?Z3LDvMOf?="));
    let Ok(Incoming::Stateless { message: Message::Request(request), .. }) = post(&headers, &body) else {
        panic!("refused")
    };
    assert_eq!(request.raw.get(), body.trim());
    assert_eq!(request.id.as_json(), r#""a\u0062c""#);
    assert_eq!(request.id.key(), r#""abc""#);
    assert_eq!(request.method, "tools/call");
    assert_eq!(request.params.name.as_deref(), Some("grüß"));
    assert_eq!(request.params.arguments.unwrap().get(), r#"{"x":[1,{}]}"#);
    assert!(request.params.meta.progress_token.is_none());
}

#[test]
fn ignores_sessions_and_event_ids() {
    let mut headers = modern_headers("tools/call", Some("a"));
    headers.insert("mcp-session-id", "whatever".parse().unwrap());
    headers.insert("last-event-id", "whatever".parse().unwrap());
    accepted(&headers, &call(r#""a""#));
}

#[test]
fn name_and_method_must_match() {
    let cases: &[(Option<&str>, Option<&str>, &str, &str)] = &[
        (None, Some("a"), r#""a""#, "Header mismatch: Mcp-Method is missing. Send Mcp-Method: tools/call."),
        (
            Some("TOOLS/CALL"),
            Some("a"),
            r#""a""#,
            r#"Header mismatch: Mcp-Method is \"TOOLS/CALL\", but the body says \"tools/call\". Send the same in both."#,
        ),
        (
            Some("tools/call"),
            None,
            r#""a""#,
            "Header mismatch: Mcp-Name is missing. Send the value of params.name in it.",
        ),
        (
            Some("tools/call"),
            Some("b"),
            r#""a""#,
            r#"Header mismatch: Mcp-Name is \"b\", but the body says \"a\". Send the same in both."#,
        ),
        (
            Some("tools/call"),
            Some("=?base64?Yg==?="),
            r#""a""#,
            r#"Header mismatch: Mcp-Name is \"b\", but the body says \"a\". Send the same in both."#,
        ),
        (
            Some("tools/call"),
            Some("=?base64?YQ?="),
            r#""a""#,
            "Header mismatch: Mcp-Name is not base64 of UTF-8 inside =?base64?…?=.",
        ),
        (
            Some("tools/call"),
            Some("a"),
            "7",
            "Header mismatch: Mcp-Name was sent, but the body has no string params.name.",
        ),
        (
            Some("tools/call"),
            Some("gr\u{fc}n"),
            r#""grün""#,
            "Header mismatch: Mcp-Name has characters that a header can't carry. Send it as =?base64?…?=.",
        ),
    ];
    for (method, name, body_name, message) in cases {
        let mut all = vec![("mcp-protocol-version", "2026-07-28")];
        all.extend(method.map(|method| ("mcp-method", method)));
        all.extend(name.map(|name| ("mcp-name", name)));
        assert_refused(
            post(&headers(&all), &call(body_name)),
            StatusCode::BAD_REQUEST,
            &format!(r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":-32020,"message":"{message}"}}}}"#),
        );
    }
}

#[test]
fn equal_values_in_any_form_are_taken() {
    for (header, body) in [
        ("a", r#""a""#),
        ("  a\t", r#""a""#),
        ("=?base64?YQ==?=", r#""a""#),
        ("a", r#""\u0061""#),
        ("=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=", r#""=?base64?literal?=""#),
        // Not the form: wrong case, or no room for both marks.
        ("=?BASE64?YQ==?=", r#""=?BASE64?YQ==?=""#),
        ("=?base64?=", r#""=?base64?=""#),
    ] {
        accepted(&modern_headers("tools/call", Some(header)), &call(body));
    }
}

#[test]
fn the_name_comes_from_another_member_by_method() {
    for (method, member) in [
        ("prompts/get", "name"),
        ("resources/read", "uri"),
        ("tasks/get", "taskId"),
        ("tasks/update", "taskId"),
        ("tasks/cancel", "taskId"),
    ] {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"{member}":"x:1","z":0,{META}}}}}"#
        );
        accepted(&modern_headers(method, Some("x:1")), &body);
        assert_code(post(&modern_headers(method, Some("x:2")), &body), 400, code::HEADER_MISMATCH, "1");
        assert_code(post(&modern_headers(method, None), &body), 400, code::HEADER_MISMATCH, "1");
    }
    // Without the member the parameters are wrong, not the headers: the worker says so.
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{{META}}}}}"#);
    accepted(&modern_headers("tools/call", None), &body);
    // Methods without a name take no notice of the header.
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{{META}}}}}"#);
    accepted(&modern_headers("tools/list", Some("x")), &body);
}

#[test]
fn repeated_headers_are_refused() {
    for (name, value) in
        [("mcp-method", "tools/call"), ("mcp-name", "a"), ("mcp-protocol-version", "2026-07-28")]
    {
        let mut headers = modern_headers("tools/call", Some("a"));
        headers.append(name, value.parse().unwrap());
        assert_code(post(&headers, &call(r#""a""#)), 400, code::HEADER_MISMATCH, "1");
    }
}

#[test]
fn versions() {
    let discover = |version: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":3,"method":"server/discover","params":{{"_meta":{{"io.modelcontextprotocol/protocolVersion":{version},"io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
        )
    };
    let with =
        |version: &str| headers(&[("mcp-protocol-version", version), ("mcp-method", "server/discover")]);
    assert_refused(
        post(&with("v999.0.0"), &discover(r#""v999.0.0""#)),
        StatusCode::BAD_REQUEST,
        concat!(
            r#"{"jsonrpc":"2.0","id":3,"error":{"code":-32022,"message":"Unsupported protocol version \"v999.0.0\". "#,
            r#"Send 2026-07-28 with the request, or start with `initialize` to use an earlier one of those in "#,
            r#"data.supported.","data":{"supported":["2026-07-28","2025-11-25","2025-06-18","2025-03-26","#,
            r#""2024-11-05"],"requested":"v999.0.0"}}}"#
        ),
    );
    assert_refused(
        post(&with("2026-07-28"), &discover(r#""v999.0.0""#)),
        StatusCode::BAD_REQUEST,
        concat!(
            r#"{"jsonrpc":"2.0","id":3,"error":{"code":-32020,"message":"Header mismatch: MCP-Protocol-Version is "#,
            r#"\"2026-07-28\", but _meta says \"v999.0.0\". Send the same in both."}}"#
        ),
    );
    assert_refused(
        post(&headers(&[("mcp-method", "server/discover")]), &discover(r#""2026-07-28""#)),
        StatusCode::BAD_REQUEST,
        concat!(
            r#"{"jsonrpc":"2.0","id":3,"error":{"code":-32020,"message":"Header mismatch: MCP-Protocol-Version is "#,
            r#"missing. Send it with the version that _meta has."}}"#
        ),
    );
    // A later revision, a session's revision without a session, nothing in _meta but a header from the future.
    assert_code(post(&with("2027-01-01"), &discover(r#""2027-01-01""#)), 400, -32022, "3");
    assert_code(post(&with("2025-11-25"), &discover(r#""2025-11-25""#)), 400, -32022, "3");
    let bare = r#"{"jsonrpc":"2.0","id":3,"method":"server/discover"}"#;
    assert_code(post(&with("2027-01-01"), bare), 400, -32022, "3");
    assert_code(post(&headers(&[]), bare), 400, -32020, "3");
    assert_code(post(&with("2026-07-28"), &discover("7")), 400, -32602, "3");
    assert_code(post(&with("2026-07-28"), &discover("null")), 400, -32602, "3");
}

#[test]
fn meta_must_be_complete() {
    let list = |params: &str| format!(r#"{{"jsonrpc":"2.0","id":4,"method":"tools/list"{params}}}"#);
    let headers = modern_headers("tools/list", None);
    let version = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""#;
    let capabilities = r#""io.modelcontextprotocol/clientCapabilities":{}"#;
    assert_refused(
        post(&headers, &list("")),
        StatusCode::BAD_REQUEST,
        concat!(
            r#"{"jsonrpc":"2.0","id":4,"error":{"code":-32602,"message":"Invalid params: missing or malformed in "#,
            r#"params._meta: io.modelcontextprotocol/protocolVersion (a string), "#,
            r#"io.modelcontextprotocol/clientCapabilities (an object)."}}"#
        ),
    );
    for params in [
        r#","params":null"#.to_owned(),
        r#","params":[]"#.to_owned(),
        r#","params":"x""#.to_owned(),
        r#","params":{}"#.to_owned(),
        r#","params":{"_meta":null}"#.to_owned(),
        r#","params":{"_meta":[]}"#.to_owned(),
        format!(r#","params":{{"_meta":{{{version}}}}}"#),
        format!(r#","params":{{"_meta":{{{capabilities}}}}}"#),
        format!(r#","params":{{"_meta":{{{version},"io.modelcontextprotocol/clientCapabilities":null}}}}"#),
        format!(r#","params":{{"_meta":{{{version},"io.modelcontextprotocol/clientCapabilities":[]}}}}"#),
        format!(
            r#","params":{{"_meta":{{{version},{capabilities},"io.modelcontextprotocol/clientInfo":"x"}}}}"#
        ),
        format!(
            r#","params":{{"_meta":{{{version},{capabilities},"io.modelcontextprotocol/logLevel":"loud"}}}}"#
        ),
        format!(r#","params":{{"_meta":{{{version},{capabilities},"io.modelcontextprotocol/logLevel":3}}}}"#),
    ] {
        assert_code(post(&headers, &list(&params)), 400, code::INVALID_PARAMS, "4");
    }
    accepted(&headers, &list(&format!(r#","params":{{"_meta":{{{version},{capabilities}}}}}"#)));
    let full = format!(
        r#","params":{{"_meta":{{{version},{capabilities},"io.modelcontextprotocol/clientInfo":{{"name":"c"}},"io.modelcontextprotocol/logLevel":"info","progressToken":0}}}}"#
    );
    accepted(&headers, &list(&full));
}

#[test]
fn removed_methods_are_not_found() {
    for method in [
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "resources/unsubscribe",
        "tasks/list",
        "tasks/result",
    ] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":5,"method":"{method}","params":{{{META}}}}}"#);
        assert_refused(
            post(&modern_headers(method, None), &body),
            StatusCode::NOT_FOUND,
            &format!(
                r#"{{"jsonrpc":"2.0","id":5,"error":{{"code":-32601,"message":"Method not found: revision 2026-07-28 has no \"{method}\"."}}}}"#
            ),
        );
    }
    let body = format!(r#"{{"jsonrpc":"2.0","id":5,"method":"initialize","params":{{{META}}}}}"#);
    assert_code(post(&modern_headers("initialize", None), &body), 404, code::METHOD_NOT_FOUND, "5");
    // Only a worker knows whether a server has methods of its own.
    let body = format!(r#"{{"jsonrpc":"2.0","id":5,"method":"unknown/method","params":{{{META}}}}}"#);
    accepted(&modern_headers("unknown/method", None), &body);
}

#[test]
fn only_requests_and_notifications() {
    let version = [("mcp-protocol-version", "2026-07-28")];
    assert_code(post(&headers(&version), r#"{"jsonrpc":"2.0","id":6,"result":{}}"#), 400, -32600, "");
    assert_code(
        post(&headers(&version), r#"[{"jsonrpc":"2.0","id":6,"method":"tools/list"}]"#),
        400,
        -32600,
        "",
    );
    let cancelled = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    for headers in [headers(&version), modern_headers("notifications/cancelled", None)] {
        let Ok(Incoming::Stateless { message: Message::Notification(notification), .. }) =
            post(&headers, cancelled)
        else {
            panic!("refused")
        };
        assert_eq!(notification.raw.get(), cancelled);
    }
    assert_code(post(&modern_headers("tools/call", None), cancelled), 400, -32020, "");
}

#[test]
fn status_of_a_workers_answer() {
    let error = |code: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":{code},"message":"m"}}}}"#);
    for (code, status) in [
        ("-32601", 404),
        ("-32020", 400),
        ("-32021", 400),
        ("-32022", 400),
        ("-32602", 200),
        ("-32603", 200),
        ("-32700", 200),
        ("7", 200),
        ("-99999999999999", 200),
    ] {
        assert_eq!(answer_status(Revision::V2026_07_28, error(code).as_bytes()).as_u16(), status, "{code}");
        assert_eq!(answer_status(Revision::V2025_11_25, error(code).as_bytes()), StatusCode::OK);
        assert_eq!(error_status(code.parse().unwrap()).as_u16(), status);
    }
    for answer in [r#"{"jsonrpc":"2.0","id":1,"result":{"error":{"code":-32601}}}"#, "", "[]", "{"] {
        assert_eq!(answer_status(Revision::V2026_07_28, answer.as_bytes()), StatusCode::OK);
    }
}
