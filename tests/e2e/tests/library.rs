//! The examples of the library, unchanged: as a whole server in one process, and as workers of a site.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use asgard::stack::{Options, Stack};
use asgard::supervisor::part::Kind;
use e2e::{Client, Form};
use serde_json::json;
use tokio::process::{Child, Command};

/// An example, as `cargo build --all-targets` left it beside this test.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let example = test.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(
        example.exists(),
        "{} is not built: run ./asgard test, or cargo build --all-targets",
        example.display()
    );
    example
}

/// What the example promises, in both eras.
async fn greets(endpoint: &str, token: &str, subject: &str) {
    let arguments = json!({"times": 5});
    let client = Client::at(endpoint.to_owned(), token.to_owned()).with_user().initialized().await;
    let mut exchange = client.open_tool("greet", arguments.clone(), true).await;
    exchange.read_messages(1).await;
    let asked = exchange.messages.first().unwrap_or_else(|| panic!("{}", exchange.outline())).message.clone();
    assert_eq!(asked["method"], "elicitation/create", "{asked}");
    let answer = json!({"action": "accept", "content": {"language": "is"}});
    assert_eq!(client.reply(&asked["id"], answer.clone()).await, 202);
    let exchange = exchange.to_end().await;
    assert_eq!(
        (exchange.form(), exchange.steps()),
        (Form::Stream, vec![1, 2, 3, 4, 5]),
        "{}",
        exchange.outline()
    );
    let text = exchange.result().unwrap()["content"][0]["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with("Sæl, ") && text.contains(subject) && text.ends_with("of org-1!"), "{text}");

    let client = Client::at(endpoint.to_owned(), token.to_owned()).with_user();
    let asked = client.tool("greet", arguments.clone()).await;
    let asked = asked.result().unwrap_or_else(|| panic!("{}", asked.outline()));
    assert_eq!(asked["inputRequests"]["language"]["method"], "elicitation/create", "{asked}");
    let params = json!({
        "name": "greet", "arguments": arguments, "requestState": asked["requestState"],
        "inputResponses": {"language": answer},
    });
    let answer = client.request("tools/call", params).await;
    assert_eq!(answer.result().unwrap_or_else(|| panic!("{}", answer.outline()))["content"][0]["text"], text);

    // A client without a user to ask.
    let client = Client::at(endpoint.to_owned(), token.to_owned());
    let answer = client.tool("greet", json!({"times": 0})).await;
    assert!(answer.result().unwrap()["content"][0]["text"].as_str().unwrap().starts_with("Hello, "));
}

/// An example that runs as a whole server, and its endpoint.
async fn alone(name: &str) -> (Child, String) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let process = Command::new(example(name))
        .env_clear()
        .env("ASGARD_LISTEN", format!("127.0.0.1:{port}"))
        .env("ASGARD_LOG", "warn")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let ready = format!("http://127.0.0.1:{port}/readyz");
    e2e::stack::wait("the example is ready", Duration::from_secs(20), async || {
        let answer = e2e::client::http().get(&ready).send().await.ok()?;
        answer.status().is_success().then_some(())
    })
    .await;
    (process, format!("http://127.0.0.1:{port}/api/v1/mcp/org-1"))
}

#[tokio::test]
#[ignore = "needs the programs of a stack: ./asgard test library"]
async fn the_greeter_is_a_whole_server() {
    let (_process, endpoint) = alone("greeter").await;
    greets(&endpoint, "", "local").await;
}

#[tokio::test]
#[ignore = "needs the programs of a stack: ./asgard test library"]
async fn a_server_written_for_stdio_is_a_whole_server() {
    let (_process, endpoint) = alone("counter").await;
    let session = Client::at(endpoint.clone(), String::new()).initialized().await;
    for (client, value) in [(session, "2"), (Client::at(endpoint, String::new()), "4")] {
        let added = client.tool("add", json!({"by": 2})).await;
        assert_eq!(added.result().unwrap()["content"][0]["text"], value, "{}", added.outline());
        let read = client.tool("value", json!({})).await;
        assert_eq!(read.result().unwrap()["content"][0]["text"], value, "{}", read.outline());
    }
}

#[test]
fn the_greeter_is_short() {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/greeter.rs")).unwrap();
    let lines = text.lines().skip_while(|line| line.starts_with("//!") || line.is_empty());
    assert!(lines.count() <= 40, "the documentation promises 40 lines");
}

#[tokio::test]
#[ignore = "needs the programs of a stack: ./asgard test library"]
async fn the_greeter_is_a_worker_of_a_site() {
    let options = Options { programs: [(Kind::Worker, example("greeter"))].into(), ..Options::default() };
    let stack = Stack::up(options).await.unwrap();
    let token = stack.token("thor", Some("org-1")).await.unwrap();
    for endpoint in [stack.bifrost("org-1"), stack.hermod("org-1")] {
        greets(&endpoint, &token, "").await;
    }
    stack.down().await.unwrap();
}
