//! A call by token at each entry point and in each era: quick ones as one JSON document, slow ones as a stream that
//! Pushpin holds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use e2e::exchange::End;
use e2e::{Client, EntryPoint, Era, Form, Stack};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test calls"]
async fn quick_calls_on_the_bifrost_entry_point_never_touch_pushpin() {
    let stack = Stack::claim().await;
    for era in [Era::Stateless, Era::Stateful] {
        let client = Client::of(era, &stack, EntryPoint::Bifrost, "thor", "org-1").await;
        // On a machine that stalls, a quick call may become a slow one: then the round does not count, but
        // even then the counter moves by those alone.
        for round in 1.. {
            let before = stack.pushpin_requests().await;
            let (mut json, mut held) = (0, 0);
            for number in 0..100 {
                let text = format!("call {number}");
                let exchange = client.tool("echo", json!({"text": text})).await;
                exchange.check_whole(0).unwrap();
                assert_eq!(exchange.result().unwrap()["content"][0]["text"], text);
                if exchange.form() == Form::Json { json += 1 } else { held += 1 }
            }
            let moved = stack.pushpin_requests().await - before;
            println!("{era:?}: {json} JSON, {held} held, Pushpin's counter moved by {moved}");
            assert_eq!(moved, held, "only held calls pass Pushpin");
            if held == 0 {
                break;
            }
            assert!(round < 5, "quick calls are slow on this machine");
        }
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test calls"]
async fn slow_calls_stream_their_progress_and_result() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        for era in [Era::Stateless, Era::Stateful] {
            let client = Client::of(era, &stack, entry_point, "thor", "org-1").await;
            let held = |counters: &std::collections::BTreeMap<
                String,
                std::collections::BTreeMap<String, u64>,
            >| { counters.values().map(|counts| counts["held"]).sum::<u64>() };
            let (requests, before) = (stack.pushpin_requests().await, held(&stack.counters().await));
            let journal = stack.journal();
            let exchange = client.tool_with_progress("report", json!({"steps": 12, "step_ms": 80})).await;
            exchange.check_whole(12).unwrap_or_else(|fault| panic!("{entry_point:?} {era:?}: {fault}"));
            assert_eq!(exchange.form(), Form::Stream);
            let groups = &exchange.result().unwrap()["structuredContent"]["groups"];
            assert_eq!(groups.as_array().map(Vec::len), Some(12), "{groups}");
            // It came while the tool worked, not at its end.
            let (first, last) = (exchange.messages[0].at, exchange.messages[12].at);
            assert!(last - first > Duration::from_millis(600), "{}", exchange.outline());
            assert_eq!(exchange.messages[0].id.is_some(), era == Era::Stateful, "event ids");
            let runs = journal.runs();
            assert_eq!(runs.len(), 1);
            assert!(runs.values().all(|run| run.starts.len() == 1 && run.ends == 1), "{runs:?}");
            assert_eq!(held(&stack.counters().await) - before, 1, "held by Pushpin, not by the backend");
            assert_eq!(stack.pushpin_requests().await - requests, 1, "one pass through Pushpin");
            println!(
                "{entry_point:?} {era:?}: head after {} ms, first event {} ms, result {} ms",
                (exchange.head.as_ref().unwrap().at - exchange.started).as_millis(),
                (first - exchange.started).as_millis(),
                exchange.took().as_millis()
            );
        }
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test calls"]
async fn a_silent_slow_call_streams_its_result_alone() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        let client = Client::modern(&stack, entry_point, "thor", "org-1").await;
        let exchange = client.tool("slow_echo", json!({"text": "late", "total_ms": 700, "events": 3})).await;
        exchange.check_whole(0).unwrap();
        assert_eq!(exchange.form(), Form::Stream, "{entry_point:?}");
        assert_eq!(exchange.result().unwrap()["structuredContent"]["text"], "late");
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test calls"]
async fn discovery_and_lists() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        let client = Client::modern(&stack, entry_point, "thor", "org-1").await;
        let discovered = client.request("server/discover", json!({})).await;
        let result = discovered.result().unwrap_or_else(|| panic!("{}", discovered.outline()));
        assert_eq!(result["resultType"], "complete", "{result}");
        let versions = result["supportedVersions"].as_array().unwrap_or_else(|| panic!("{result}"));
        assert!(versions.contains(&json!("2026-07-28")), "{versions:?}");
        assert!(result["capabilities"]["tools"].is_object(), "{result}");

        for era in [Era::Stateless, Era::Stateful] {
            let client = Client::of(era, &stack, entry_point, "thor", "org-1").await;
            let listed = client.request("tools/list", json!({})).await;
            assert_eq!(listed.form(), Form::Json);
            let tools = listed.result().unwrap()["tools"].as_array().unwrap().clone();
            let names: Vec<&str> = tools.iter().filter_map(|tool| tool["name"].as_str()).collect();
            for name in ["report", "echo", "slow_echo", "slow_count", "weather_on"] {
                assert!(names.contains(&name), "{names:?}");
            }
            let echo = tools.iter().find(|tool| tool["name"] == "echo").unwrap();
            assert_eq!(echo["annotations"]["readOnlyHint"], true);
            assert_eq!(echo["inputSchema"]["required"], json!(["text"]));
        }
        println!("{entry_point:?}: discovered {versions:?}");
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test calls"]
async fn a_session_lives_from_initialize_to_delete() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        let client = Client::session(&stack, entry_point, "thor", "org-1").await;
        assert_eq!(client.request("ping", json!({})).await.result(), Some(&json!({})));
        let level = client.request("logging/setLevel", json!({"level": "warning"})).await;
        assert_eq!(level.result(), Some(&json!({})), "{}", level.outline());
        let wrong = client.request("logging/setLevel", json!({"level": "loud"})).await;
        assert_eq!(wrong.error().map(|error| &error["code"]), Some(&json!(-32602)), "{}", wrong.outline());

        // Another one's session is as unknown as one that was made up.
        let mut stranger = Client::modern(&stack, entry_point, "freya", "org-1").await;
        for session in [client.session.clone().unwrap(), "made-up".to_owned()] {
            stranger.session = Some(session);
            assert_eq!(stranger.request("ping", json!({})).await.status(), 404);
        }
        assert_eq!(client.delete().await, 200);
        assert_eq!(client.request("ping", json!({})).await.status(), 404, "an ended session is unknown");
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test calls"]
async fn errors_of_a_tool_and_of_the_protocol_reach_the_client() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        for era in [Era::Stateless, Era::Stateful] {
            let client = Client::of(era, &stack, entry_point, "thor", "org-1").await;
            let code = async |method: &str, params: Value| {
                let exchange = client.request(method, params).await;
                assert_eq!(exchange.end.as_ref().map(|(end, _)| end), Some(&End::Whole));
                (exchange.status(), exchange.error().map_or(Value::Null, |error| error["code"].clone()))
            };
            let none = json!({"name": "no_such_tool", "arguments": {}});
            assert_eq!(code("tools/call", none).await.1, json!(-32602), "{era:?}");
            let (status, unknown) = code("no/such/method", json!({})).await;
            assert_eq!(unknown, json!(-32601));
            assert_eq!(status, if era == Era::Stateless { 404 } else { 200 });
            // A tool's own error is a result.
            let failed = client.tool("weather_on", json!({"date": "yesterday"})).await;
            assert_eq!(failed.result().unwrap()["isError"], true, "{}", failed.outline());
        }
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test calls"]
async fn the_caller_is_who_the_token_says() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        for (user, organisation) in
            [("thor", "org-1"), ("hel", "org-2"), ("freya", "org-1"), ("freya", "org-2")]
        {
            let client = Client::modern(&stack, entry_point, user, organisation).await;
            let who = client.tool("whoami", json!({})).await;
            let who = &who.result().unwrap_or_else(|| panic!("{}", who.outline()))["structuredContent"];
            assert_eq!((&who["username"], &who["organisation"]), (&json!(user), &json!(organisation)));
            assert_eq!(who["issuer"], stack.state.issuer());
        }
    }
}

/// What a user says who wants it warm.
fn warm() -> Value {
    json!({"action": "accept", "content": {"wish": "warm"}})
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test calls"]
async fn in_a_session_a_tool_asks_and_any_backend_takes_the_answer() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        let client =
            Client::modern(&stack, entry_point, "thor", "org-1").await.with_user().initialized().await;
        let stranger = Client::session(&stack, entry_point, "freya", "org-1").await;
        for _ in 0..4 {
            let mut exchange = client.open_tool("plan_outing", json!({"month": 7}), false).await;
            exchange.read_messages(1).await;
            let asked = exchange.messages.first().map(|arrived| arrived.message.clone());
            let asked = asked.unwrap_or_else(|| panic!("{entry_point:?}: {}", exchange.outline()));
            assert_eq!(asked["method"], "elicitation/create", "{asked}");
            // Somebody else's answer counts for nothing, though it names the right question.
            let calm = json!({"action": "accept", "content": {"wish": "calm"}});
            assert_eq!(stranger.reply(&asked["id"], calm).await, 202);
            let elsewhere = client.moved(client.endpoint.clone());
            assert_eq!(elsewhere.reply(&asked["id"], warm()).await, 202);
            let exchange = exchange.to_end().await;
            let plan = exchange.result().unwrap_or_else(|| panic!("{entry_point:?}: {}", exchange.outline()));
            assert_eq!(plan["structuredContent"]["wish"], "warm", "{plan}");
            assert_eq!(exchange.messages.len(), 2, "{}", exchange.outline());
        }
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test calls"]
async fn in_the_modern_era_a_tool_asks_by_its_result_and_any_worker_takes_the_answer() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        let client = Client::modern(&stack, entry_point, "thor", "org-1").await.with_user();
        let stranger = Client::modern(&stack, entry_point, "freya", "org-1").await.with_user();
        let journal = stack.journal();
        let mut moved = 0;
        for month in 1..=12 {
            let plan = json!({"name": "plan_outing", "arguments": {"month": month}});
            let asked = client.request("tools/call", plan.clone()).await;
            let result = asked.result().unwrap_or_else(|| panic!("{}", asked.outline()));
            assert_eq!(result["resultType"], "input_required", "{result}");
            assert_eq!(result["inputRequests"]["wish"]["method"], "elicitation/create", "{result}");
            let state = result["requestState"].as_str().unwrap().to_owned();
            let answer = |state: &str, month: u64| {
                let mut answer = plan.clone();
                answer["arguments"]["month"] = json!(month);
                answer["requestState"] = json!(state);
                answer["inputResponses"] = json!({"wish": warm()});
                answer
            };
            // What the client carries is bound to who it is and what it asked for.
            if month == 1 {
                let wrong = [
                    client.request("tools/call", answer(&format!("{state}x"), month)).await,
                    client.request("tools/call", answer(&state, month + 1)).await,
                    stranger.request("tools/call", answer(&state, month)).await,
                ];
                for wrong in wrong {
                    let code = wrong.error().map(|error| error["code"].clone());
                    assert_eq!(code, Some(json!(-32602)), "{}", wrong.outline());
                }
            }
            let before = journal.lines().len();
            let planned = client.request("tools/call", answer(&state, month)).await;
            let result = planned.result().unwrap_or_else(|| panic!("{}", planned.outline()));
            assert_eq!(result["structuredContent"]["wish"], "warm", "{result}");
            assert_eq!(result["structuredContent"]["month"], month);
            let lines = journal.lines();
            moved += usize::from(lines[before - 1].pid != lines[before].pid);
        }
        println!("{entry_point:?}: 12 dialogues, {moved} of them moved from one worker to the other");
        assert!(moved > 0);
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test calls"]
async fn an_answer_may_be_as_large_as_what_carries_it_allows() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        for era in [Era::Stateless, Era::Stateful] {
            let client = Client::of(era, &stack, entry_point, "thor", "org-1").await;
            // One document: larger than any item of Pushpin's.
            let text = "x".repeat(1_500_000);
            let quick = client.tool("echo", json!({"text": text})).await;
            let result =
                quick.result().unwrap_or_else(|| panic!("{entry_point:?} {era:?}: {:.500}", quick.outline()));
            assert_eq!(result["content"][0]["text"].as_str().map(str::len), Some(text.len()));
            // More than is allowed at all: the text comes twice.
            let text = "x".repeat(2_200_000);
            let much = client.tool("slow_echo", json!({"text": text, "total_ms": 0})).await;
            let error =
                much.error().unwrap_or_else(|| panic!("{entry_point:?} {era:?}: {:.500}", much.outline()));
            let message = error["message"].as_str().unwrap();
            assert!(error["code"] == -32603 && message.contains("the limit is 4194304"), "{message}");
        }
    }
    // On a stream that Pushpin holds: few bytes, but each of them takes up to twelve on the way there.
    for era in [Era::Stateless, Era::Stateful] {
        let client = Client::of(era, &stack, EntryPoint::Bifrost, "thor", "org-1").await;
        let arguments = json!({"text": "\"".repeat(100_000), "total_ms": 300, "events": 3});
        let held = client.tool_with_progress("slow_echo", arguments).await;
        let error = held.error().unwrap_or_else(|| panic!("{era:?}: {:.500}", held.outline()));
        let message = error["message"].as_str().unwrap();
        assert!(error["code"] == -32603 && message.contains("a stream carries about 900,000"), "{message}");
        assert_eq!((held.form(), held.steps()), (Form::Stream, vec![1, 2, 3]));
    }
}

/// Sends a request as a proxy does that speaks HTTP/1.0 to its upstream, as nginx does by itself. What comes back.
async fn by_http_1_0(client: &Client, id: u64, name: &str, arguments: &Value) -> (String, String) {
    let url = reqwest::Url::parse(&client.endpoint).unwrap();
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "progressToken": id,
    });
    let params = json!({"name": name, "arguments": arguments, "_meta": meta});
    let body = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}).to_string();
    let port = url.port_or_known_default().unwrap();
    let head = format!(
        "POST {} HTTP/1.0\r\nhost: localhost:{port}\r\nconnection: close\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\naccept: application/json, text/event-stream\r\n\
         mcp-protocol-version: 2026-07-28\r\nmcp-method: tools/call\r\nmcp-name: {name}\r\ncontent-length: {}\r\n\r\n",
        url.path(),
        client.token,
        body.len()
    );
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let whole = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    whole.expect("the answer ends with its connection").unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test calls"]
async fn a_proxy_in_front_may_speak_http_1_0() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        let client = Client::modern(&stack, entry_point, "thor", "org-1").await;
        let (head, body) = by_http_1_0(&client, 1, "echo", &json!({"text": "quick"})).await;
        assert!(
            head.contains(" 200 ") && !head.contains("transfer-encoding"),
            "{entry_point:?}: {head} {body}"
        );
        assert!(body.contains("quick"), "{entry_point:?}: {head} {body}");
        let slow = json!({"text": "slow", "total_ms": 600, "events": 6});
        let (head, body) = by_http_1_0(&client, 2, "slow_echo", &slow).await;
        assert!(
            head.contains(" 200 ") && head.contains("text/event-stream"),
            "{entry_point:?}: {head} {body}"
        );
        assert!(!head.contains("transfer-encoding"), "{entry_point:?}: {head}");
        let events: Vec<Value> =
            body.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect();
        assert_eq!(events.len(), 7, "{entry_point:?}: {body}");
        assert_eq!(events[6]["result"]["structuredContent"]["text"], "slow", "{entry_point:?}: {body}");
    }
}
