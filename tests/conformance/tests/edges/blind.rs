//! Where the conformance suite is blind: it sends removed methods without parameters, never asks for a log level,
//! never sends parameters of a wrong type, and does not look for the server's name in results.

use http::StatusCode;
use serde_json::{Value, json};

use crate::client::{Ask, Said};
use crate::server::Server;

async fn ask(server: &Server, method: &str, params: Value) -> Said {
    Ask::modern(method, params, &json!({})).send(server.address).await
}

#[tokio::test]
async fn methods_that_a_revision_has_removed_are_not_found() {
    let server = Server::in_memory().await;
    let whole = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}});
    for (method, params) in [
        ("initialize", json!({})),
        ("initialize", whole),
        ("ping", json!({})),
        ("logging/setLevel", json!({})),
        ("logging/setLevel", json!({"level": "debug"})),
        ("resources/subscribe", json!({"uri": "test://watched-resource"})),
        ("resources/unsubscribe", json!({"uri": "test://watched-resource"})),
    ] {
        let said = ask(&server, method, params).await;
        assert_eq!((said.status, said.code()), (StatusCode::NOT_FOUND, -32601), "{method}: {said:?}");
        assert_eq!(said.json()["id"], 1);
        assert!(!said.headers.contains_key("mcp-session-id"), "{method}: {said:?}");
    }
}

#[tokio::test]
async fn parameters_that_do_not_fit_are_invalid_and_not_an_unknown_method() {
    let server = Server::in_memory().await;
    for (method, params) in [
        ("tools/call", json!({})),
        ("tools/call", json!({"name": 7})),
        ("tools/call", json!({"name": "test_simple_text", "arguments": []})),
        ("tools/call", json!({"name": "test_simple_text", "inputResponses": 7})),
        ("tools/call", json!({"name": "test_simple_text", "requestState": {}})),
        ("tools/list", json!({"cursor": 7})),
        ("prompts/list", json!({"cursor": {}})),
        ("prompts/get", json!({"name": null})),
        ("prompts/get", json!({"name": "test_simple_prompt", "arguments": "x"})),
        ("resources/read", json!({})),
        ("resources/read", json!({"uri": []})),
        ("resources/templates/list", json!({"cursor": false})),
        ("completion/complete", json!({})),
        (
            "completion/complete",
            json!({"ref": {"type": "ref/other"}, "argument": {"name": "a", "value": "b"}}),
        ),
        ("completion/complete", json!({"ref": {"type": "ref/prompt", "name": "p"}, "argument": "x"})),
    ] {
        let said = ask(&server, method, params.clone()).await;
        assert_eq!(said.code(), -32602, "{method} {params}: {said:?}");
        assert!(said.json()["error"]["message"].as_str().is_some_and(|text| text.len() > 10), "{said:?}");
    }
    // What is no method at all stays that.
    let said = ask(&server, "tools/unknown", json!({"name": 7})).await;
    assert_eq!((said.status, said.code()), (StatusCode::NOT_FOUND, -32601));
}

#[tokio::test]
async fn a_request_gets_the_log_messages_that_it_asks_for() {
    let server = Server::in_memory().await;
    let logged = async |meta: Value| {
        let ask = Ask::modern("tools/call", json!({"name": "test_logging_tool"}), &meta);
        let said = ask.send(server.address).await;
        let messages = said.messages();
        assert!(messages.last().unwrap()["result"]["content"].is_array(), "{said:?}");
        messages.iter().filter(|message| message["method"] == "notifications/message").count()
    };
    let level = |level: &str| json!({"io.modelcontextprotocol/logLevel": level});
    assert_eq!(logged(json!({})).await, 0);
    for (wanted, count) in [("debug", 3), ("info", 3), ("notice", 0), ("emergency", 0)] {
        assert_eq!(logged(level(wanted)).await, count, "{wanted}");
    }
    for wrong in [json!("loud"), json!(7), json!("INFO"), json!({})] {
        let meta = json!({"io.modelcontextprotocol/logLevel": wrong});
        let said =
            Ask::modern("tools/call", json!({"name": "test_logging_tool"}), &meta).send(server.address).await;
        assert_eq!((said.status, said.code()), (StatusCode::BAD_REQUEST, -32602), "{wrong}: {said:?}");
    }
}

#[tokio::test]
async fn every_result_says_whose_it_is_and_what_it_is() {
    let server = Server::in_memory().await;
    for (method, params, kind) in [
        ("server/discover", json!({}), "complete"),
        ("tools/list", json!({}), "complete"),
        ("tools/call", json!({"name": "test_simple_text"}), "complete"),
        ("tools/call", json!({"name": "test_error_handling"}), "complete"),
        ("tools/call", json!({"name": "test_input_required_result_elicitation"}), "input_required"),
        ("prompts/list", json!({}), "complete"),
        ("prompts/get", json!({"name": "test_simple_prompt"}), "complete"),
        ("prompts/get", json!({"name": "test_input_required_result_prompt"}), "input_required"),
        ("resources/list", json!({}), "complete"),
        ("resources/templates/list", json!({}), "complete"),
        ("resources/read", json!({"uri": "test://static-text"}), "complete"),
        (
            "completion/complete",
            json!({"ref": {"type": "ref/prompt", "name": "p"}, "argument": {"name": "a", "value": "te"}}),
            "complete",
        ),
    ] {
        let said = ask(&server, method, params).await;
        let result = &said.json()["result"];
        assert_eq!(said.status, StatusCode::OK, "{method}: {said:?}");
        assert_eq!(result["resultType"], kind, "{method}: {said:?}");
        let name = &result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"];
        assert_eq!(name, "asgard-conformance", "{method}: {said:?}");
        // What a client may keep says for how long and for whom.
        let cacheable =
            method.ends_with("/list") || method == "resources/read" || method == "server/discover";
        assert_eq!(result["ttlMs"].is_u64(), cacheable, "{method}: {said:?}");
        let scope = result["cacheScope"].as_str();
        assert_eq!(
            scope.is_some_and(|scope| ["public", "private"].contains(&scope)),
            cacheable,
            "{method}: {said:?}"
        );
    }
}

#[tokio::test]
async fn only_tools_prompts_and_resources_take_answers() {
    let server = Server::in_memory().await;
    // A state that this server never made is refused wherever a state counts, and means nothing elsewhere.
    let forged = json!({"requestState": "forged", "inputResponses": {}});
    for (method, mut params) in [
        ("tools/call", json!({"name": "test_simple_text"})),
        ("prompts/get", json!({"name": "test_simple_prompt"})),
        ("resources/read", json!({"uri": "test://static-text"})),
    ] {
        params.as_object_mut().unwrap().extend(forged.as_object().unwrap().clone());
        let said = ask(&server, method, params).await;
        assert_eq!(said.code(), -32602, "{method}: {said:?}");
    }
    let said = ask(&server, "tools/list", forged).await;
    assert!(said.json()["result"]["tools"].is_array(), "{said:?}");
}
