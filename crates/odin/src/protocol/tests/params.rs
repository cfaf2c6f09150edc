use http::StatusCode;
use serde_json::{Value, json};

use super::{META, modern_headers, post};
use crate::protocol::{Incoming, Message, ParamRules, Refusal, header_map, param_headers};

fn of(schema: &Value) -> ParamRules {
    ParamRules::of_schema(schema.as_object().unwrap())
}

fn rules() -> ParamRules {
    of(&json!({
        "type": "object",
        "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "limit": {"type": "integer", "x-mcp-header": "Limit"},
            "dry": {"type": "boolean", "x-mcp-header": "Dry-Run"},
            "query": {"type": "string"},
            "where": {"type": "object", "properties": {"zone": {"type": "string", "x-mcp-header": "Zone"}}}
        }
    }))
}

fn check(arguments: &str, extra: &[(&'static str, &str)]) -> Result<(), Refusal> {
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":8,"method":"tools/call","params":{{"name":"t","arguments":{arguments},{META}}}}}"#
    );
    let mut headers = modern_headers("tools/call", Some("t"));
    for (name, value) in extra {
        headers.append(*name, value.parse().unwrap());
    }
    match post(&headers, &body) {
        // By the way that a job takes.
        Ok(Incoming::Stateless { message, .. }) => {
            let headers = header_map(&param_headers(&headers, &message));
            let Message::Request(request) = message else { panic!("{body}") };
            rules().check(&headers, request.params.arguments)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn equal_values_pass() {
    for (arguments, headers) in [
        ("{}", &[][..]),
        ("null", &[]),
        (r#"{"region":null,"where":null,"query":"x"}"#, &[]),
        (r#"{"region":"us-west1"}"#, &[("mcp-param-region", "us-west1")]),
        (r#"{"region":"us-west1"}"#, &[("Mcp-Param-REGION", " us-west1 ")]),
        (r#"{"region":"Hello, 世界"}"#, &[("mcp-param-region", "=?base64?SGVsbG8sIOS4lueVjA==?=")]),
        (r#"{"region":" padded "}"#, &[("mcp-param-region", "=?base64?IHBhZGRlZCA=?=")]),
        (r#"{"region":""}"#, &[("mcp-param-region", "")]),
        (r#"{"limit":42}"#, &[("mcp-param-limit", "42")]),
        (r#"{"limit":42}"#, &[("mcp-param-limit", "42.0")]),
        (r#"{"limit":42.0}"#, &[("mcp-param-limit", "42")]),
        (r#"{"limit":4.2e1}"#, &[("mcp-param-limit", "420E-1")]),
        (r#"{"limit":-0.0}"#, &[("mcp-param-limit", "0")]),
        (r#"{"limit":-7}"#, &[("mcp-param-limit", "-7.00")]),
        (r#"{"limit":9007199254740993}"#, &[("mcp-param-limit", "9007199254740993.0")]),
        (r#"{"dry":true}"#, &[("mcp-param-dry-run", "true")]),
        (r#"{"where":{"zone":"b"}}"#, &[("mcp-param-zone", "b")]),
        (r#"{"region":"a"}"#, &[("mcp-param-region", "a"), ("mcp-param-unknown", "ignored")]),
    ] {
        check(arguments, headers).unwrap_or_else(|refusal| panic!("{arguments} {headers:?}: {refusal}"));
    }
}

#[test]
fn unequal_values_are_refused() {
    for (arguments, headers, message) in [
        (
            r#"{"region":"us-west1"}"#,
            &[][..],
            "Header mismatch: Mcp-Param-Region is missing. Send the value of params.arguments.region in it; tools/list has the tool's schema.",
        ),
        (
            "{}",
            &[("mcp-param-region", "x")],
            "Header mismatch: Mcp-Param-Region was sent, but the body has no params.arguments.region.",
        ),
        (
            r#"{"region":null}"#,
            &[("mcp-param-region", "null")],
            "Header mismatch: Mcp-Param-Region was sent, but the body has no params.arguments.region.",
        ),
        (
            r#"{"region":"a"}"#,
            &[("mcp-param-region", "=?base64?YQ=?=")],
            "Header mismatch: Mcp-Param-Region is not base64 of UTF-8 inside =?base64?…?=.",
        ),
        (
            r#"{"where":{"zone":"b"}}"#,
            &[("mcp-param-zone", "c")],
            r#"Header mismatch: Mcp-Param-Zone is "c", but params.arguments.where.zone is "b". Send the same in both."#,
        ),
    ] {
        let refusal = check(arguments, headers).unwrap_err();
        assert_eq!(refusal.message(), message);
        assert_eq!((refusal.status(), refusal.code()), (StatusCode::BAD_REQUEST, -32020));
    }
    for (arguments, name, value) in [
        (r#"{"limit":42}"#, "mcp-param-limit", "42.01"),
        (r#"{"limit":42}"#, "mcp-param-limit", "forty-two"),
        (r#"{"limit":42}"#, "mcp-param-limit", "+42"),
        (r#"{"limit":42}"#, "mcp-param-limit", "-42"),
        (r#"{"limit":42}"#, "mcp-param-limit", "4.2e99999999999"),
        (r#"{"limit":9007199254740993}"#, "mcp-param-limit", "9007199254740992"),
        (r#"{"limit":"42"}"#, "mcp-param-limit", "42.0"),
        (r#"{"dry":true}"#, "mcp-param-dry-run", "True"),
        (r#"{"dry":true}"#, "mcp-param-dry-run", "1"),
        (r#"{"region":{"a":1}}"#, "mcp-param-region", r#"{"a":1}"#),
        (r#"{"region":"a"}"#, "mcp-param-region", "A"),
    ] {
        assert_eq!(check(arguments, &[(name, value)]).unwrap_err().code(), -32020, "{arguments} {value}");
    }
    let twice = [("mcp-param-region", "a"), ("mcp-param-region", "a")];
    assert_eq!(check(r#"{"region":"a"}"#, &twice).unwrap_err().code(), -32020);
}

#[test]
fn only_valid_annotations_count() {
    assert!(!rules().is_empty());
    for schema in [
        json!({}),
        json!({"properties": {"a": {"type": "number", "x-mcp-header": "A"}}}),
        json!({"properties": {"a": {"type": "string", "x-mcp-header": ""}}}),
        json!({"properties": {"a": {"type": "string", "x-mcp-header": "a b"}}}),
        json!({"properties": {"a": {"type": "string", "x-mcp-header": "a\r\nb"}}}),
        json!({"properties": {"a": {"type": "string", "x-mcp-header": 1}}}),
        json!({"properties": {"a": {"type": "array", "items": {"properties": {"b": {"type": "string", "x-mcp-header": "B"}}}}}}),
        json!({"anyOf": [{"properties": {"b": {"type": "string", "x-mcp-header": "B"}}}]}),
        json!({"type": "string", "x-mcp-header": "Root"}),
    ] {
        assert!(of(&schema).is_empty(), "{schema}");
    }
    let twice = json!({"properties": {
        "a": {"type": "string", "x-mcp-header": "X"}, "b": {"type": "string", "x-mcp-header": "x"}}});
    let once = json!({"properties": {"a": {"type": "string", "x-mcp-header": "X"}}});
    assert_eq!(of(&twice), of(&once));
}

#[test]
fn only_a_tool_call_has_parameters_in_headers() {
    let mut headers = modern_headers("tools/call", Some("t"));
    headers.append("mcp-param-a", "1".parse().unwrap());
    headers.append("mcp-param-a", "2".parse().unwrap());
    headers.append("mcp-param-b", http::HeaderValue::from_bytes(b"\xff").unwrap());
    let body = format!(r#"{{"jsonrpc":"2.0","id":8,"method":"tools/call","params":{{"name":"t",{META}}}}}"#);
    let Ok(Incoming::Stateless { message, .. }) = post(&headers, &body) else { panic!("{body}") };
    let lines = param_headers(&headers, &message);
    let named = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        lines,
        [named("mcp-param-a", "1"), named("mcp-param-a", "2"), named("mcp-param-b", "\u{fffd}")]
    );
    assert!(header_map(&lines)["mcp-param-b"].to_str().is_err());

    headers.insert("mcp-method", "prompts/get".parse().unwrap());
    let body = format!(r#"{{"jsonrpc":"2.0","id":8,"method":"prompts/get","params":{{"name":"t",{META}}}}}"#);
    let Ok(Incoming::Stateless { message, .. }) = post(&headers, &body) else { panic!("{body}") };
    assert!(param_headers(&headers, &message).is_empty());
}
