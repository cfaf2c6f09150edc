//! A backend whose Pushpin is away does what it can, and says what it can't.

use std::net::TcpListener;

use serde_json::json;
use tokio::process::Command;

use super::process::{Backend, PATH};

#[tokio::test(flavor = "multi_thread")]
async fn without_pushpin_it_is_ready_and_degraded() {
    // Nobody listens there.
    let pushpin = format!("tcp://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let env = [
        ("ASGARD_HANDOVER", "envoy"),
        ("ASGARD_GRIP_KEY", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE"),
        ("ASGARD_PUSHPINS", &pushpin),
    ];
    let backend = Backend::start(&[], &env).await;
    let (status, body) = backend.ready().await.unwrap();
    assert_eq!((status, &body["ready"]), (200, &json!(true)));
    let degraded = body["degraded"].as_array().unwrap();
    assert!(degraded.len() == 1 && degraded[0]["part"] == format!("pushpin {pushpin}"), "{body}");
    assert!(degraded[0]["reason"].as_str().unwrap().contains("quick calls work"), "{body}");

    let quick = backend.call("a", "echo", json!({"text": "x"})).send().await.unwrap();
    assert_eq!(
        (quick.status().as_u16(), &quick.headers()["content-type"]),
        (200, &"application/json".parse().unwrap())
    );
    // A slow call has its events and its answer, by the backend's own stream.
    let slow = backend.call("a", "slow_echo", json!({"total_ms": 500, "events": 5})).send().await.unwrap();
    assert_eq!(slow.headers()["content-type"], "text/event-stream");
    let slow = slow.text().await.unwrap();
    assert_eq!(
        (slow.matches("notifications/progress").count(), slow.matches(r#""result""#).count()),
        (5, 1),
        "{slow}"
    );
    // What can't be done without it says so.
    let sse = backend.get("a", &format!("{PATH}/sse")).send().await.unwrap();
    assert_eq!((sse.status().as_u16(), &sse.headers()["retry-after"]), (503, &"2".parse().unwrap()));
    let error = sse.text().await.unwrap();
    assert!(error.contains("The link to Pushpin") && error.contains("HTTP+SSE"), "{error}");

    // The compose file's own health check, as its image runs it.
    let compose =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docker-compose.yml")).unwrap();
    let check = compose.lines().find(|line| line.contains("/dev/tcp/127.0.0.1/8081")).unwrap();
    let check: Vec<String> = serde_json::from_str(check.trim().strip_prefix("test: ").unwrap()).unwrap();
    let script = check[3].replace("$$", "$").replace("8081", &backend.address.port().to_string());
    let output = Command::new(&check[1]).args([&check[2], &script]).output().await.unwrap();
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success() && printed == body, "{printed}");
}
