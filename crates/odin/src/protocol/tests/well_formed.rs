//! JSON-RPC itself, and bodies that two readers could read differently.

use http::StatusCode;

use super::{assert_code, assert_refused, headers, post};
use crate::protocol::{Body, Incoming, Limits, Message, read_body};

fn session() -> http::HeaderMap {
    headers(&[("mcp-session-id", "s")])
}

#[test]
fn not_json() {
    for body in [
        "",
        " ",
        "{",
        "nonsense",
        "{\"a\":1}}",
        "{'a':1}",
        "\u{feff}{}",
        "{\"a\":1,}",
        "{\"a\":01}",
        "{\"a\":\"\n\"}",
        "NaN",
        "{} {}",
    ] {
        assert_code(post(&session(), body), 400, -32700, "");
    }
    assert_refused(
        post(&session(), ""),
        StatusCode::BAD_REQUEST,
        r#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"The body is not JSON: it is empty. Send one JSON-RPC message in UTF-8."}}"#,
    );
    let latin1 = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xe9\"}";
    assert_eq!(read_body(latin1, &Limits::default()).unwrap_err().code(), -32700);
}

#[test]
fn not_json_rpc() {
    for (body, id) in [
        ("1", ""),
        ("null", ""),
        (r#""x""#, ""),
        ("{}", ""),
        (r#"{"jsonrpc":"2.0"}"#, ""),
        (r#"{"jsonrpc":"2.0","id":1}"#, "1"),
        (r#"{"id":1,"method":"ping"}"#, "1"),
        (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, "1"),
        (r#"{"jsonrpc":2.0,"id":"a","method":"ping"}"#, r#""a""#),
        (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, "1"),
        (r#"{"jsonrpc":"2.0","id":1,"method":""}"#, "1"),
        (r#"{"jsonrpc":"2.0","id":1,"method":null}"#, "1"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#, "1"),
        (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#, "1"),
        (r#"{"jsonrpc":"2.0","id":1,"error":"x"}"#, "1"),
        (r#"{"jsonrpc":"2.0","result":{}}"#, ""),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, ""),
        (r#"{"jsonrpc":"2.0","id":null,"result":{}}"#, ""),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, ""),
        (r#"{"jsonrpc":"2.0","id":1e2,"method":"ping"}"#, ""),
        (r#"{"jsonrpc":"2.0","id":-0,"method":"ping"}"#, ""),
        (r#"{"jsonrpc":"2.0","id":9223372036854775808,"method":"ping"}"#, ""),
        (r#"{"jsonrpc":"2.0","id":true,"method":"ping"}"#, ""),
        (r#"{"jsonrpc":"2.0","id":[1],"method":"ping"}"#, ""),
        (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, ""),
    ] {
        assert_code(post(&session(), body), 400, -32600, id);
    }
    let long = "m".repeat(257);
    assert_code(
        post(&session(), &format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{long}"}}"#)),
        400,
        -32600,
        "1",
    );
    let long = "i".repeat(511);
    assert_code(
        post(&session(), &format!(r#"{{"jsonrpc":"2.0","id":"{long}","method":"m"}}"#)),
        400,
        -32600,
        "",
    );
    assert_code(post(&session(), r#"{"jsonrpc":"2.0","id":2,"method":"m","params":[1]}"#), 400, -32602, "2");
}

#[test]
fn ids_are_kept() {
    for id in ["0", "-7", "9223372036854775807", "-9223372036854775808", r#""""#, r#""x y""#, r#""\u00e9\n""#]
    {
        let body = format!(r#"{{"jsonrpc":"2.0","id": {id} ,"method":"ping"}}"#);
        let Ok(Body::One(Message::Request(request))) = read_body(body.as_bytes(), &Limits::default()) else {
            panic!("{id}")
        };
        assert_eq!(request.id.as_json(), id);
    }
}

#[test]
fn a_member_twice_is_refused() {
    for body in [
        r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","\u006dethod":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":1,"x":2}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{"a":1},"_meta":{}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":[{"y":{"z":1,"z":1}}]}}}"#,
    ] {
        let refusal = post(&session(), body).unwrap_err();
        let code = if body.contains("params") { -32602 } else { -32600 };
        assert_eq!((refusal.status(), refusal.code()), (StatusCode::BAD_REQUEST, code));
        assert_eq!(refusal.has_id(), code == -32602, "{body}");
        assert!(refusal.message().contains("two members of one name"), "{refusal}");
    }
    // Beyond the number up to which they are compared one by one, and beside equal names in other objects.
    let members = |names: &[usize]| {
        let members: Vec<String> =
            names.iter().map(|name| format!(r#""m{name}":{{"m1":1,"m2":{{"m1":0}}}}"#)).collect();
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{{{}}}}}"#, members.join(","))
    };
    let mut names: Vec<usize> = (0..100).collect();
    assert!(post(&session(), &members(&names)).is_ok());
    for repeated in [0, 15, 16, 17, 99] {
        names.push(repeated);
        assert_code(post(&session(), &members(&names)), 400, -32602, "1");
        names.pop();
    }
}

#[test]
fn names_that_serde_json_keeps_for_itself_are_refused() {
    // serde_json would read the first as the number or document inside the string.
    for name in [
        "$serde_json::private::RawValue",
        "$serde_json::private::Number",
        r"\u0024serde_json::private::RawValue",
    ] {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"{name}":"{{\"name\":\"evil\"}}"}}}}"#
        );
        assert_code(post(&session(), &body), 400, -32602, "1");
    }
}

#[test]
fn depth() {
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{{"a":{open}{close}}}}}"#)
    };
    // The message and its params are two.
    assert!(post(&session(), &nested(62)).is_ok());
    assert_code(post(&session(), &nested(63)), 400, -32602, "1");
    assert_eq!(post(&session(), &nested(100_000)).unwrap_err().status(), StatusCode::BAD_REQUEST);
    let limits = Limits { depth: 1_000, ..Limits::default() };
    assert_eq!(read_body(nested(500).as_bytes(), &limits).unwrap_err().status(), StatusCode::BAD_REQUEST);
}

#[test]
fn arrays_do_not_pass_for_objects() {
    // A batch, none of whose elements is a message; and a batch of one.
    let positional = r#"["2.0",1,"tools/list",null]"#;
    for body in [positional.to_owned(), format!("[{positional}]")] {
        let Ok(Body::Batch(items)) = read_body(body.as_bytes(), &Limits::default()) else { panic!("{body}") };
        assert!(
            items.iter().all(|item| item.as_ref().is_err_and(|refusal| refusal.code() == -32600)),
            "{body}"
        );
    }
    let params = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":["2026-07-28"]}}"#;
    assert_code(post(&session(), params), 400, -32602, "1");
}

#[test]
fn half_a_character_is_called_by_its_name_and_answered_under_its_id() {
    let call = |text: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{{"name":"t","arguments":{{"x":"{text}"}}}}}}"#
        )
    };
    for (text, half) in [
        (r"\ud83d", r"\ud83d"),
        (r"say \ud83d!", r"\ud83d"),
        (r"\uDE00", r"\uDE00"),
        (r"\ud83d\ud83d\ude00", r"\ud83d"),
        (r"\ud83d\u0041", r"\ud83d"),
        (r"\ud83d\n", r"\ud83d"),
        (r"\\\ud83d", r"\ud83d"),
    ] {
        let refusal = post(&session(), &call(text)).unwrap_err();
        let body: serde_json::Value = serde_json::from_slice(&refusal.body()).unwrap();
        assert_eq!((&body["id"], refusal.code()), (&"a".into(), -32602), "{text}");
        assert!(refusal.message().contains(&format!("lone surrogate, {half}:")), "{text}: {refusal}");
    }
    for text in [r"\ud83d\ude00", r"\\ud83d", r"\uD83D\uDE00\u0041", "\u{1F600}"] {
        assert!(post(&session(), &call(text)).is_ok(), "{text}");
    }
    // Where it is in the id itself, there is none to answer under; a reply is nothing to be answered.
    for body in [
        r#"{"jsonrpc":"2.0","id":"\ud800","method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"x":"\ud800"}}"#,
        r#"{"jsonrpc":"2.0","\ud800":1,"id":1,"method":"ping"}"#,
    ] {
        assert_code(post(&session(), body), 400, -32600, "");
    }
    assert_code(post(&session(), r#"{"jsonrpc":"2.0","id":1,"method":"\ud800"}"#), 400, -32600, "1");
    // Numbers that no reader can hold are of the same kind: JSON by its grammar.
    let refusal = post(&session(), &call(r#"","y":1e999,"z":""#)).unwrap_err();
    assert!(refusal.has_id() && refusal.message().contains("number out of range"), "{refusal}");
}

#[test]
fn null_is_not_an_object_but_params_may_be_absent() {
    for body in [
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":null}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#,
    ] {
        let headers = session();
        let Ok(Incoming::Stateful { body: Body::One(Message::Request(request)), .. }) = post(&headers, body)
        else {
            panic!()
        };
        assert!(request.params.raw.is_none());
    }
}
