//! What clients send has a time; what they get has none.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use e2e::{Client, EntryPoint, Era, Form, Stack};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// More than any time that a request has, here or at the gateway (75 s in Envoy).
const LONG: u64 = 80_000;
/// More than a body may take.
const PATIENCE: Duration = Duration::from_secs(150);

/// Bytes of a body that Pushpin keeps to itself until it is whole; what is larger it passes on as it comes.
const PUSHPIN: usize = 100_000;

/// Sends a head and the beginning of a body, then a byte each second if it is to trickle. What comes back.
async fn upload(url: &str, content: &str, token: &str, first: usize, trickle: bool) -> String {
    let url = reqwest::Url::parse(url).unwrap();
    let address = format!("127.0.0.1:{}", url.port_or_known_default().unwrap());
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: localhost:{}\r\nauthorization: Bearer {}\r\ncontent-type: {content}\r\n\
         accept: application/json, text/event-stream\r\ncontent-length: {}\r\n\r\n",
        url.path(),
        url.port_or_known_default().unwrap(),
        token,
        first + 50_000
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b' '; first]).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let drip = async {
        while trickle && writer.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        std::future::pending::<()>().await;
    };
    // Whole: head and body may come apart, and who has answered need not end the connection.
    let mut answer = Vec::new();
    let read = async {
        while !is_whole(&answer) && reader.read_buf(&mut answer).await.is_ok_and(|count| count > 0) {}
    };
    tokio::select! {
        () = drip => {}
        read = tokio::time::timeout(PATIENCE, read) => read.expect("a slow upload ends"),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Whether an answer has all that its head announces.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer).to_lowercase();
    text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        length.is_some_and(|length| body.len() >= length.trim().parse().unwrap())
    })
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test uploads"]
async fn slow_bodies_end_and_long_answers_live() {
    let stack = Stack::claim().await;
    let probe = e2e::client::http().get(stack.endpoint(EntryPoint::Bifrost, "org-1")).send().await.unwrap();
    let kong = probe.headers().contains_key("x-kong-request-id");
    let mut long = Vec::new();
    for entry_point in EntryPoint::BOTH {
        for era in [Era::Stateless, Era::Stateful] {
            let client = Client::of(era, &stack, entry_point, "thor", "org-1").await;
            let arguments = json!({"total_ms": LONG, "events": 20});
            long.push(tokio::spawn(async move {
                let exchange = client.tool_with_progress("slow_echo", arguments).await;
                assert_eq!(exchange.form(), Form::Stream, "{}", exchange.outline());
                exchange.check_whole(20).unwrap_or_else(|fault| panic!("{entry_point:?} {era:?}: {fault}"));
            }));
        }
    }
    for (entry_point, trickle) in [
        (EntryPoint::Bifrost, false),
        (EntryPoint::Bifrost, true),
        (EntryPoint::Hermod, false),
        (EntryPoint::Hermod, true),
    ] {
        let client = Client::modern(&stack, entry_point, "hel", "org-2").await;
        // nginx has no time for a body as a whole, and sends no answer when it ends a connection.
        if kong && trickle {
            continue;
        }
        let why = if trickle { "took longer than 60 s" } else { "has come for 10 s" };
        long.push(tokio::spawn(async move {
            let answer =
                upload(&client.endpoint, "application/json", &client.token, PUSHPIN * 2, trickle).await;
            let (status, body) = answer.split_once("\r\n").unwrap_or_default();
            println!("{entry_point:?}, trickling: {trickle}: {status}");
            assert!(
                kong && answer.is_empty() || status.contains(" 408 ") && body.contains(why),
                "{entry_point:?}: {answer}"
            );
        }));
    }
    if !kong {
        // Envoy's own time, where no backend of ours has one.
        let keycloak = format!("{}/protocol/openid-connect/token", stack.state.issuer());
        long.push(tokio::spawn(async move {
            let answer = upload(&keycloak, "application/x-www-form-urlencoded", "", 1, true).await;
            println!("to Keycloak: {answer}");
            assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("request timeout"), "{answer}");
        }));
    }
    for task in long {
        task.await.unwrap();
    }
}
