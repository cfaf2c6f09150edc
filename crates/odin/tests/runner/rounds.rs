//! Requests in rounds (2026-07-28): what a handler gives its client to bring back. And headers that repeat a tool's
//! arguments.

use std::{sync::Arc, time::Duration};

use odin::call::Job;
use odin::runner::{RmcpRunner, StateKeys};
use odin::worker::Runner;
use serde_json::{Value, json};

use super::{
    handler::Handler,
    support::{modern, run, session, tool},
};

fn with(keys: &StateKeys) -> Arc<RmcpRunner<Handler>> {
    let handler = Handler::new(Arc::default());
    Arc::new(RmcpRunner::new(Arc::new(handler)).with_state_keys(keys.clone()))
}

fn call(arguments: Value, state: Option<&str>) -> Job {
    let mut params = tool("remembers", arguments);
    if let Some(state) = state {
        params["requestState"] = json!(state);
        params["inputResponses"] = json!({});
    }
    modern(json!(1), "tools/call", params)
}

#[tokio::test]
async fn a_state_finds_its_way_to_another_worker_and_nobody_else_can_use_it() {
    let keys = StateKeys::random();
    let (one, other) = (with(&keys), with(&keys));
    let (asked, _) = run(&one, call(json!({ "n": 1 }), None)).await;
    let state = asked["result"]["requestState"].as_str().unwrap().to_owned();
    assert!(!state.contains("secret"), "{state}");

    let (answer, _) = run(&other, call(json!({ "n": 1 }), Some(&state))).await;
    assert_eq!(answer["result"]["content"][0]["text"], r#"state: Some("a secret of the handler")"#);

    let refused = async |job: Job| {
        let (answer, _) = run(&other, job).await;
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
        answer["error"]["message"].as_str().unwrap().to_owned()
    };
    let mut messages = vec![
        refused(call(json!({ "n": 2 }), Some(&state))).await,
        refused(call(json!({ "n": 1 }), Some(&format!("{state}x")))).await,
        refused(call(json!({ "n": 1 }), Some("a secret of the handler"))).await,
        refused(call(json!({ "n": 1 }), Some(""))).await,
    ];
    let mut theirs = call(json!({ "n": 1 }), Some(&state));
    theirs.principal.subject = "someone-else".into();
    messages.push(refused(theirs).await);
    let mut elsewhere = call(json!({ "n": 1 }), Some(&state));
    elsewhere.principal.organisation = "org-2".into();
    messages.push(refused(elsewhere).await);
    messages.dedup();
    assert_eq!(messages.len(), 1, "no difference tells why: {messages:?}");

    let stale = with(&keys.clone().with_lifetime(Duration::ZERO));
    let (asked, _) = run(&stale, call(json!({}), None)).await;
    refused(call(json!({}), asked["result"]["requestState"].as_str())).await;
    let (answer, _) = run(&with(&StateKeys::random()), call(json!({ "n": 1 }), Some(&state))).await;
    assert_eq!(answer["error"]["code"], -32602, "another key: {answer}");
}

#[tokio::test]
async fn a_session_brings_no_state() {
    let runner = with(&StateKeys::random());
    let mut params = tool("remembers", json!({}));
    params["requestState"] = json!("forged");
    params["inputResponses"] = json!({});
    let (answer, _) = run(&runner, session(json!(1), "tools/call", params)).await;
    assert_eq!(answer["result"]["content"][0]["text"], "state: None", "{answer}");
}

#[tokio::test]
async fn headers_repeat_the_arguments_that_the_schema_names() {
    let (known, mut shy) = (Handler::new(Arc::default()), Handler::new(Arc::default()));
    shy.shy = true;
    let shy = Arc::new(RmcpRunner::new(Arc::new(shy)));
    shy.learn().await.unwrap();
    check_headers(&Arc::new(RmcpRunner::new(Arc::new(known)))).await;
    check_headers(&shy).await;
}

async fn check_headers<R: Runner>(runner: &Arc<R>) {
    let call = |headers: &[(&str, &str)]| {
        let mut job = modern(json!(1), "tools/call", tool("mirrors", json!({ "region": "eu" })));
        job.headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        job
    };
    for right in
        [&[("mcp-param-region", "eu")][..], &[("mcp-param-region", "=?base64?ZXU=?="), ("mcp-param-x", "y")]]
    {
        let (answer, _) = run(runner, call(right)).await;
        assert_eq!(answer["result"]["content"][0]["text"], "mirrored", "{answer}");
    }
    for wrong in [
        &[][..],
        &[("mcp-param-region", "us")],
        &[("mcp-param-region", "eu"), ("mcp-param-region", "eu")],
        &[("mcp-param-region", "=?base64?%?=")],
        &[("mcp-param-region", "\u{fffd}")],
    ] {
        let (answer, _) = run(runner, call(wrong)).await;
        assert_eq!(answer["error"]["code"], -32020, "{wrong:?}: {answer}");
    }
    // Sessions know nothing of this.
    let (answer, _) =
        run(runner, session(json!(1), "tools/call", tool("mirrors", json!({ "region": "eu" })))).await;
    assert_eq!(answer["result"]["content"][0]["text"], "mirrored", "{answer}");
}
