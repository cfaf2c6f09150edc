//! What a client gets back: its own id, and the form of its era.

use odin::protocol::Era;
use serde_json::{Value, json};

use super::support::{MODERN, Running, SESSION, modern, modern_meta, run, runner, session, text_job, tool};

const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

#[tokio::test]
async fn answers_carry_the_id_as_it_was_written() {
    let (runner, _) = runner();
    for id in ["0", "-7", "1.0", "2.5", "1e3", "12345678901234567890123", r#""a\u0062c""#, r#""""#, r#""7""#]
    {
        for (era, params) in [(Era::Stateful, String::new()), (Era::Stateless, format!(",{META}"))] {
            for name in ["reads", "nothing"] {
                let text = format!(
                    r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{name}"{params}}}}}"#
                );
                let answer = Running::start(&runner, text_job(era, &text)).text().await.unwrap();
                assert!(answer.starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{id},""#)), "{answer}");
                assert_eq!(answer.contains(r#""result""#), name == "reads", "{answer}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_no_request_is_an_invalid_request() {
    let (runner, _) = runner();
    for text in ["[]", "{}", r#"{"id":1}"#, r#"{"id":1,"method":"a","method":"b"}"#, "7"] {
        let answer = Running::start(&runner, text_job(Era::Stateful, text)).answer().await.unwrap();
        assert_eq!(answer["error"]["code"], -32600, "{text}");
    }
}

#[tokio::test]
async fn each_era_refuses_the_methods_of_the_other() {
    let (runner, _) = runner();
    let initialize = json!({ "protocolVersion": SESSION, "capabilities": {}, "clientInfo": { "name": "n", "version": "1" } });
    for (method, params) in [
        ("initialize", initialize.clone()),
        ("ping", json!({})),
        ("logging/setLevel", json!({ "level": "info" })),
        ("resources/subscribe", json!({ "uri": "a:b" })),
        ("resources/unsubscribe", json!({ "uri": "a:b" })),
    ] {
        let (answer, _) = run(&runner, modern(json!(1), method, params)).await;
        assert_eq!(answer["error"]["code"], -32601, "{method}: {answer}");
    }
    for method in ["server/discover", "subscriptions/listen"] {
        let (answer, _) = run(&runner, session(json!(1), method, json!({ "notifications": {} }))).await;
        assert_eq!(answer["error"]["code"], -32601, "{method}: {answer}");
    }
    // Their own era serves them.
    for (method, params) in [("ping", json!({})), ("logging/setLevel", json!({ "level": "info" }))] {
        let (answer, _) = run(&runner, session(json!(1), method, params)).await;
        assert_eq!(answer["result"], json!({}), "{method}");
    }
    let (answer, _) = run(&runner, modern(json!(1), "server/discover", json!({}))).await;
    assert!(answer["result"]["supportedVersions"].as_array().unwrap().contains(&json!(MODERN)), "{answer}");
}

#[tokio::test]
async fn initialize_negotiates_without_a_session() {
    let (runner, _) = runner();
    for (asked, agreed) in
        [(SESSION, SESSION), ("2025-03-26", "2025-03-26"), (MODERN, SESSION), ("1999-01-01", SESSION)]
    {
        let params = json!({ "protocolVersion": asked, "capabilities": {}, "clientInfo": { "name": "n", "version": "1" } });
        let mut job = session(json!("init"), "initialize", params);
        (job.session, job.peer, job.protocol) = (None, None, asked.into());
        let (answer, _) = run(&runner, job).await;
        assert_eq!(answer["result"]["protocolVersion"], agreed, "{answer}");
        assert_eq!(answer["result"]["serverInfo"]["name"], "test-server");
        assert!(answer["result"].get("resultType").is_none());
    }
}

#[tokio::test]
async fn parameters_that_do_not_fit_are_invalid_params() {
    let (runner, _) = runner();
    let bad = [
        ("tools/call", json!({ "arguments": {} })),
        ("tools/call", json!({ "name": 7 })),
        ("tools/list", json!({ "cursor": 7 })),
        ("resources/read", json!({})),
        ("prompts/get", json!({ "name": [] })),
        ("completion/complete", json!({})),
    ];
    for (method, params) in bad {
        for job in [modern(json!(1), method, params.clone()), session(json!(1), method, params.clone())] {
            let (answer, _) = run(&runner, job).await;
            assert_eq!(answer["error"]["code"], -32602, "{method}: {answer}");
        }
    }
    for text in [
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[1]}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}"#,
    ] {
        let answer = Running::start(&runner, text_job(Era::Stateful, text)).answer().await.unwrap();
        assert_eq!(answer["error"]["code"], -32602, "{text}: {answer}");
    }
    // A method that nobody knows stays unknown, and an own one works.
    let (answer, _) = run(&runner, modern(json!(1), "x/other", json!({}))).await;
    assert_eq!(answer["error"]["code"], -32601);
    let (answer, _) = run(&runner, modern(json!(1), "x/own", json!({}))).await;
    assert_eq!(answer["result"]["own"], true);
    assert_eq!(answer["result"]["resultType"], "complete");
}

#[tokio::test]
async fn a_modern_request_must_say_who_speaks_what() {
    let (runner, _) = runner();
    let missing = [
        json!({ "io.modelcontextprotocol/clientCapabilities": {} }),
        json!({ "io.modelcontextprotocol/protocolVersion": MODERN }),
        json!({}),
    ];
    for meta in missing {
        let message =
            json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": { "_meta": meta } });
        let answer =
            Running::start(&runner, text_job(Era::Stateless, &message.to_string())).answer().await.unwrap();
        assert_eq!(answer["error"]["code"], -32602, "{meta}");
    }
    let unknown = json!({ "io.modelcontextprotocol/protocolVersion": "2030-01-01" });
    let (answer, _) = run(&runner, modern_meta(json!(1), "tools/list", json!({}), unknown)).await;
    assert_eq!(answer["error"]["code"], -32022);
    assert_eq!(answer["error"]["data"]["requested"], "2030-01-01");
    // A session has its revision: a message can't change it.
    let meta = json!({ "_meta": { "io.modelcontextprotocol/protocolVersion": "2030-01-01" } });
    let (answer, _) = run(&runner, session(json!(1), "tools/list", meta)).await;
    assert!(answer["result"]["tools"].is_array(), "{answer}");
}

#[tokio::test]
async fn results_have_the_form_of_their_era() {
    let (runner, _) = runner();
    let server = |answer: &Value| answer["result"]["_meta"]["io.modelcontextprotocol/serverInfo"].clone();
    for (method, params) in [
        ("tools/list", json!({})),
        ("tools/call", tool("reads", json!({}))),
        ("server/discover", json!({})),
        ("x/own", json!({})),
        // A handler that passes on what another server said: without resultType.
        ("tools/call", tool("bare", json!({}))),
    ] {
        let (answer, _) = run(&runner, modern(json!(1), method, params)).await;
        assert_eq!(answer["result"]["resultType"], "complete", "{answer}");
        assert_eq!(server(&answer)["name"], "test-server", "{answer}");
        assert_eq!(server(&answer)["version"], "1.2.3", "{answer}");
    }
    let (answer, _) = run(&runner, modern(json!(1), "tools/list", json!({}))).await;
    assert_eq!(answer["result"]["ttlMs"], 0);
    assert_eq!(answer["result"]["cacheScope"], "private");
    for (method, params) in [("tools/list", json!({})), ("tools/call", tool("reads", json!({})))] {
        let (answer, _) = run(&runner, session(json!(1), method, params)).await;
        assert!(answer["result"].get("resultType").is_none(), "{answer}");
        assert!(answer["result"].get("_meta").is_none(), "{answer}");
        assert!(answer["result"].get("ttlMs").is_none(), "{answer}");
    }
}

#[tokio::test]
async fn handlers_see_caller_and_client() {
    let (runner, _) = runner();
    let capable = json!({ "io.modelcontextprotocol/clientCapabilities": { "elicitation": {} } });
    let (answer, _) =
        run(&runner, modern_meta(json!(1), "tools/call", tool("who", json!({})), capable)).await;
    let seen = &answer["result"]["structuredContent"];
    assert_eq!(
        *seen,
        json!({ "subject": "f3a1", "call": super::support::CALL, "path": "/api/v1/mcp/org-1", "authorization": false,
            "client": "modern-test", "peer": "modern-test", "peerProtocol": MODERN, "protocol": MODERN,
            "elicitation": true })
    );
    let (answer, _) = run(&runner, session(json!(1), "tools/call", tool("who", json!({})))).await;
    let seen = &answer["result"]["structuredContent"];
    assert_eq!(seen["client"], "test");
    // The negotiated revision, not the one that the client's initialize asked for.
    assert_eq!(seen["peerProtocol"], SESSION);
    assert_eq!(seen["elicitation"], true);
    // A session whose initialize is not known.
    let mut job = session(json!(1), "tools/call", tool("who", json!({})));
    job.peer = None;
    let (answer, _) = run(&runner, job).await;
    assert_eq!(answer["result"]["structuredContent"]["elicitation"], false);
}

#[tokio::test]
async fn input_is_asked_only_of_modern_clients_that_can_give_it() {
    let (runner, _) = runner();
    let capable = json!({ "io.modelcontextprotocol/clientCapabilities": { "elicitation": {} } });
    let (answer, _) =
        run(&runner, modern_meta(json!(1), "tools/call", tool("input", json!({})), capable)).await;
    assert_eq!(answer["result"]["resultType"], "input_required", "{answer}");
    assert!(
        answer["result"]["requestState"].as_str().is_some_and(|state| !state.contains("state")),
        "{answer}"
    );
    assert_eq!(answer["result"]["inputRequests"]["name"]["method"], "elicitation/create");
    assert_eq!(answer["result"]["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "test-server");

    let (answer, _) = run(&runner, modern(json!(1), "tools/call", tool("input", json!({})))).await;
    assert_eq!(answer["error"]["code"], -32021, "{answer}");
    assert!(answer["error"]["data"]["requiredCapabilities"]["elicitation"].is_object(), "{answer}");

    let (answer, _) = run(&runner, session(json!(1), "tools/call", tool("input", json!({})))).await;
    assert_eq!(answer["error"]["code"], -32600, "{answer}");

    let (answer, _) = run(&runner, modern(json!(1), "tools/call", tool("needs-sampling", json!({})))).await;
    assert_eq!(answer["error"]["code"], -32021, "{answer}");
}
