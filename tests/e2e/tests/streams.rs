//! Streams that are resumed, on whichever backend the request reaches; HTTP+SSE; sessions' own streams.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use e2e::breaks::Breaks;
use e2e::random::{self, RngExt};
use e2e::{Client, EntryPoint, Era, Exchange, Form, SseClient, Stack};
use futures::future::join_all;
use serde_json::json;

/// Connections that are cut at each entry point; on both together 200.
const CUT: usize = 100;
const EVENTS: u64 = 50;

/// Reads on, cutting the connection at drawn moments, until the answer is there.
async fn through_cuts(client: &Client, mut exchange: Exchange, mut cuts: Vec<usize>) -> (Exchange, usize) {
    let mut resumed = 0;
    loop {
        while exchange.end.is_none() {
            let due = cuts.last().is_some_and(|cut| exchange.messages.len() >= *cut);
            // Not before there is an event to resume from.
            if due && exchange.last_id.is_some() && exchange.answer().is_none() {
                cuts.pop();
                exchange.cut();
                break;
            }
            exchange.more().await;
        }
        if exchange.answer().is_some() {
            return (exchange, resumed);
        }
        resumed += 1;
        assert!(resumed < 30, "{}", exchange.outline());
        exchange = client.resume(exchange).await;
        assert_eq!(exchange.status(), 200, "{}", exchange.outline());
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test streams"]
async fn cut_streams_are_resumed_without_gap_or_double() {
    let stack = Stack::claim().await;
    let mut random = random::generator(random::seed(41));
    for entry_point in EntryPoint::BOTH {
        let client = Client::session(&stack, entry_point, "thor", "org-1").await;
        let calls: Vec<_> = (0..CUT)
            .map(|_| {
                let mut cuts: Vec<usize> =
                    (0..random.random_range(1..4)).map(|_| random.random_range(0..50)).collect();
                cuts.sort_unstable_by(|a, b| b.cmp(a));
                (random.random_range(600..2_000_u64), cuts)
            })
            .collect();
        let mut resumed = 0;
        // In groups, so that they overlap and the machine still keeps up.
        for group in calls.chunks(25) {
            let all = group.iter().map(|(total, cuts)| {
                let client = &client;
                async move {
                    let arguments = json!({"total_ms": total, "events": EVENTS});
                    let exchange = client.open_tool("slow_echo", arguments, true).await;
                    let (exchange, resumed) = through_cuts(client, exchange, cuts.clone()).await;
                    (exchange.check_whole(EVENTS), resumed)
                }
            });
            for (whole, times) in join_all(all).await {
                whole.unwrap();
                resumed += times;
            }
        }
        assert!(resumed >= CUT, "only {resumed} resumptions");
        println!("{entry_point:?}: {CUT} streams of {EVENTS} events, {resumed} times resumed");
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test streams"]
async fn a_finished_call_is_replayed_whole_from_any_event() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        let client = Client::session(&stack, entry_point, "thor", "org-1").await;
        let whole = client.tool_with_progress("slow_echo", json!({"total_ms": 300, "events": 5})).await;
        whole.check_whole(5).unwrap();
        let ids: Vec<String> = whole.messages.iter().filter_map(|message| message.id.clone()).collect();
        assert_eq!(ids.len(), 6, "{}", whole.outline());
        for (index, id) in ids.iter().enumerate() {
            let again = Exchange::of(client.get(Some(id)), whole.id).await.to_end().await;
            // A client that has all of it is not to come again.
            let status = if index + 1 == ids.len() { 405 } else { 200 };
            assert_eq!(again.status(), status, "{}", again.outline());
            if status == 405 {
                assert_eq!(again.header("allow"), Some("POST, DELETE"));
                assert_eq!(again.messages[0].message["error"]["code"], -32600);
                continue;
            }
            let got: Vec<_> = again.messages.iter().map(|arrived| &arrived.message).collect();
            let wanted: Vec<_> = whole.messages[index + 1..].iter().map(|arrived| &arrived.message).collect();
            assert_eq!(got, wanted);
        }
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test streams"]
async fn what_is_not_ones_own_is_unknown() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        let thor = Client::session(&stack, entry_point, "thor", "org-1").await;
        let freya = Client::session(&stack, entry_point, "freya", "org-1").await;
        let other = Client::session(&stack, entry_point, "freya", "org-2").await;
        let call = thor.tool_with_progress("slow_echo", json!({"total_ms": 300, "events": 3})).await;
        let event = call.messages[0].id.clone().unwrap();
        let made_up = "00aabbccddeeff00112233445566778899-1".to_owned();

        // Another's event, one of another session of one's own, a made-up one, and no id at all.
        let own_other_session = Client::session(&stack, entry_point, "thor", "org-1").await;
        let mut seen = Vec::new();
        for (client, id) in [
            (&freya, event.as_str()),
            (&other, event.as_str()),
            (&own_other_session, event.as_str()),
            (&thor, made_up.as_str()),
            (&thor, "nonsense"),
        ] {
            seen.push(fingerprint(client.get(Some(id))).await);
        }
        assert!(seen.iter().all(|answer| *answer == seen[0]), "{seen:#?}");
        assert_eq!(seen[0].0, 400, "{seen:#?}");

        // Another's session, the same user's in another organisation, a made-up one, an ended one.
        let ended = Client::session(&stack, entry_point, "thor", "org-1").await;
        assert_eq!(ended.delete().await, 200);
        let mut seen = Vec::new();
        for session in [&freya.session, &other.session, &Some("made-up".to_owned()), &ended.session] {
            let mut client = thor.moved(thor.endpoint.clone());
            client.session.clone_from(session);
            let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
            seen.push(fingerprint(client.post().body(ping)).await);
            assert_eq!(fingerprint(client.get(None)).await.0, 404);
            assert_eq!(client.delete().await, 404);
        }
        assert!(seen.iter().all(|answer| *answer == seen[0]), "{seen:#?}");
        assert_eq!(seen[0].0, 404, "{seen:#?}");
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test streams"]
async fn a_request_state_is_its_callers_own() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        let of = async |user, organisation| {
            Client::modern(&stack, entry_point, user, organisation).await.with_user()
        };
        let (thor, freya, other) =
            (of("thor", "org-1").await, of("freya", "org-1").await, of("freya", "org-2").await);
        let plan = |month: u64| json!({"name": "plan_outing", "arguments": {"month": month}});
        let asked = freya.request("tools/call", plan(7)).await;
        let state = asked.result().unwrap()["requestState"].as_str().unwrap().to_owned();
        let answer = |state: &str, month: u64| {
            let mut params = plan(month);
            params["requestState"] = json!(state);
            params["inputResponses"] = json!({"wish": {"action": "accept", "content": {"wish": "warm"}}});
            params
        };
        // Another user's, the same user's in another organisation, for other parameters, changed, made up.
        let mut seen = Vec::new();
        for (client, state, month) in [
            (&thor, state.clone(), 7),
            (&other, state.clone(), 7),
            (&freya, state.clone(), 8),
            (&freya, format!("{state}x"), 7),
            (&freya, "made-up".to_owned(), 7),
        ] {
            seen.push(fingerprint(client.build(7, "tools/call", answer(&state, month))).await);
        }
        assert!(seen.iter().all(|answer| *answer == seen[0]), "{seen:#?}");
        assert!(seen[0].2.contains("-32602"), "{seen:#?}");
        let own = freya.request("tools/call", answer(&state, 7)).await;
        assert_eq!(own.result().unwrap()["structuredContent"]["wish"], "warm");
    }
}

/// Status, headers but what the gateway says of each request, and body.
async fn fingerprint(request: reqwest::RequestBuilder) -> (u16, Vec<String>, String) {
    let answer = request.send().await.unwrap();
    let headers = e2e::comparable_headers(answer.headers());
    (answer.status().as_u16(), headers, answer.text().await.unwrap())
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test streams"]
async fn a_session_has_up_to_four_streams_of_its_own() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        let client = Client::session(&stack, entry_point, "thor", "org-1").await;
        let mut streams = Vec::new();
        for _ in 0..5 {
            let stream = client.listen().await;
            assert_eq!((stream.status(), stream.form()), (200, Form::Stream), "{}", stream.outline());
            streams.push(stream);
        }
        // The fifth made the first one end. The others stay until the session ends.
        let first = tokio::time::timeout(Duration::from_secs(10), streams.remove(0).to_end()).await;
        let first = first.expect("the first stream ends when there are too many");
        assert!(first.messages.is_empty(), "{}", first.outline());
        for stream in &mut streams {
            let more = tokio::time::timeout(Duration::from_millis(100), stream.more()).await;
            assert!(more.is_err() || stream.end.is_none(), "{}", stream.outline());
        }
        assert_eq!(client.delete().await, 200);
        for stream in &mut streams {
            while tokio::time::timeout(Duration::from_secs(10), stream.more()).await.expect("it ends") {}
        }
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test streams"]
async fn sixty_four_calls_with_one_id_each_get_their_own_answer() {
    let stack = Stack::claim().await;
    let mut breaks = Breaks::from_now(&stack);
    for entry_point in EntryPoint::BOTH {
        for era in [Era::Stateless, Era::Stateful] {
            let one = Client::of(era, &stack, entry_point, "thor", "org-1").await;
            let two = Client::of(era, &stack, entry_point, "freya", "org-1").await;
            let calls = (0..64_u64).map(|number| {
                let client = if number % 2 == 0 { &one } else { &two };
                async move {
                    let params = json!({
                        "name": "slow_echo",
                        "arguments": {"text": number.to_string(), "total_ms": 50 + number * 5, "events": number % 4},
                        "_meta": {"progressToken": "p-7"},
                    });
                    (number, Exchange::of(client.build(7, "tools/call", params), 7).await.to_end().await)
                }
            });
            for (number, exchange) in join_all(calls).await {
                match exchange.check_whole(number % 4) {
                    Err(_) if breaks.excuses(&exchange) => continue,
                    whole => whole.unwrap(),
                }
                let text = &exchange.result().unwrap()["structuredContent"]["text"];
                assert_eq!(*text, number.to_string());
            }
        }
    }
    // Of 128 holds.
    assert!(breaks.excused() <= 3);
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test streams"]
async fn http_sse_carries_a_whole_session() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        for path in ["/api/v1/mcp/org-1/sse", "/api/v1/org-1/sse"] {
            let url = format!("{}{path}", stack.edge(entry_point));
            let token = e2e::tokens::token(&stack, "thor", "org-1").await;
            let mut client = SseClient::connect(&url, &token).await;
            let base = url.trim_end_matches("/sse");
            assert!(client.endpoint.starts_with(base) && client.endpoint.ends_with("/messages"));

            assert_eq!(client.request("ping", json!({})).await["result"], json!({}));
            assert_eq!(
                client.request("logging/setLevel", json!({"level": "error"})).await["result"],
                json!({})
            );
            let tools = client.request("tools/list", json!({})).await;
            assert!(tools["result"]["tools"].as_array().unwrap().len() > 5, "{tools}");

            // A call with progress; everything comes on the one stream, in order.
            let from = client.messages.len();
            let params = json!({
                "name": "slow_echo", "arguments": {"text": "x", "total_ms": 400, "events": 8},
                "_meta": {"progressToken": "t"},
            });
            let answer = client.request("tools/call", params).await;
            assert_eq!(answer["result"]["structuredContent"]["text"], "x", "{answer}");
            let steps: Vec<u64> = client.messages[from..]
                .iter()
                .filter(|message| message["params"]["progressToken"] == "t")
                .map(|message| message["params"]["progress"].as_f64().unwrap() as u64)
                .collect();
            assert_eq!(steps, (1..=8).collect::<Vec<_>>());

            // A message that is too large to be held, on a stream that is held.
            let large = "x".repeat(150_000);
            let params = json!({"name": "echo", "arguments": {"text": large}});
            let answer = client.request("tools/call", params).await;
            assert_eq!(answer["result"]["content"][0]["text"], large, "{}", answer["error"]);

            // The server asks, the client answers.
            let from = client.messages.len();
            let id =
                client.send("tools/call", json!({"name": "plan_outing", "arguments": {"month": 7}})).await;
            let asked = client.until(from, |message| message["method"] == "elicitation/create").await;
            let accept = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "decline"}});
            assert_eq!(client.post(&accept).await, 202);
            let answer =
                client.until(from, |message| message["id"] == id && message.get("method").is_none()).await;
            assert!(answer.get("result").is_some(), "{answer}");

            // Many at once, and an unknown method.
            let mut ids = Vec::new();
            for number in 0..20 {
                let params =
                    json!({"name": "slow_echo", "arguments": {"text": number.to_string(), "total_ms": 20}});
                ids.push((client.send("tools/call", params).await, number));
            }
            for (id, number) in ids {
                let answer =
                    client.until(0, |message| message["id"] == id && message.get("method").is_none());
                assert_eq!(answer.await["result"]["structuredContent"]["text"], number.to_string());
            }
            let unknown = client.request("no/such", json!({})).await;
            assert_eq!(unknown["error"]["code"], -32601, "{unknown}");

            // The address is the session's owner's alone.
            let freya = e2e::tokens::token(&stack, "freya", "org-1").await;
            let post = e2e::client::http().post(&client.endpoint).bearer_auth(freya);
            let post = post.header("content-type", "application/json");
            let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
            assert_eq!(post.body(ping).send().await.unwrap().status().as_u16(), 404);
        }
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test streams"]
async fn http_sse_cancels_by_notification_and_keeps_its_stream() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        let journal = stack.journal();
        let token = e2e::tokens::token(&stack, "thor", "org-1").await;
        let mut client =
            SseClient::connect(&format!("{}/api/v1/mcp/org-1/sse", stack.edge(entry_point)), &token).await;
        let params = json!({
            "name": "slow_echo", "arguments": {"total_ms": 20_000, "events": 400}, "_meta": {"progressToken": 1},
        });
        let id = client.send("tools/call", params).await;
        client.until(0, |message| message["method"] == "notifications/progress").await;
        let cancel =
            json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}});
        assert_eq!(client.post(&cancel).await, 202);
        journal.wait_for("the tool is dropped", Duration::from_secs(1), |run| run.drops > 0).await;
        assert_eq!(client.request("ping", json!({})).await["result"], json!({}));
        assert!(!client.messages.iter().any(|message| message["id"] == id), "a cancelled call has no answer");
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test streams"]
async fn http_sse_refuses_on_its_stream_and_does_nothing_without_it() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        let token = e2e::tokens::token(&stack, "thor", "org-1").await;
        let url = format!("{}/api/v1/mcp/org-1/sse", stack.edge(entry_point));
        // What a client sends first that speaks 2026-07-28 as well.
        let mut client = SseClient::open(&url, &token).await;
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let probed = client.request("server/discover", json!({"_meta": meta})).await;
        assert_eq!(probed["error"]["code"], -32601, "{probed}");
        let early = client.request("tools/call", json!({"name": "echo", "arguments": {"text": "x"}})).await;
        assert_eq!(early["error"]["code"], -32600, "{early}");

        let mut client = SseClient::connect(&url, &token).await;
        let wrong = client.request("logging/setLevel", json!({"level": "loud"})).await;
        assert_eq!(wrong["error"]["code"], -32602, "{wrong}");
        let large = json!({"name": "echo", "arguments": {"text": "x".repeat(5 * 1024 * 1024)}});
        let refused = client.request("tools/call", large).await;
        assert_eq!(refused["error"]["data"], json!({"httpStatus": 413}), "{refused}");
        let journal = stack.journal();
        let params = json!({"name": "slow_count", "arguments": {"total_ms": 10, "events": 0}});
        let heard = client.request("tools/call", params.clone()).await;
        assert!(heard.get("result").is_some(), "{heard}");
        client.leave();
        let ping = json!({"jsonrpc": "2.0", "id": 900, "method": "ping"});
        e2e::stack::wait("the client is known to be gone", Duration::from_secs(20), async || {
            (client.post(&ping).await == 404).then_some(())
        })
        .await;
        let call = json!({"jsonrpc": "2.0", "id": 901, "method": "tools/call", "params": params});
        assert_eq!(client.post(&call).await, 404);
        // A later call has run: what was queued before it has as well.
        let other = Client::modern(&stack, entry_point, "thor", "org-1").await;
        assert!(other.tool("slow_count", json!({"total_ms": 10, "events": 0})).await.result().is_some());
        assert_eq!(journal.runs().len(), 2, "{entry_point:?}");
    }
}
