//! The publisher against a real Pushpin.

#![allow(clippy::unwrap_used)] // Helpers may fail as tests do.

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Http, origin, percentile, publisher, pushpin};
use futures::StreamExt as _;
use grip::{HttpPublisher, Item, MIN_CLOSE_DELAY, Response, SendError};
use kit::pushpin::{ISSUER, KEY, Pushpin};
use tokio::time::sleep;

#[tokio::test]
#[ignore = "needs Pushpin: ./asgard test grip"]
async fn at_concurrency_50_nothing_is_lost_and_all_is_in_order_by_tcp() {
    at_concurrency_50_nothing_is_lost_and_all_is_in_order(false).await;
}

#[tokio::test]
#[ignore = "needs Pushpin: ./asgard test grip"]
async fn at_concurrency_50_nothing_is_lost_and_all_is_in_order_by_socket() {
    at_concurrency_50_nothing_is_lost_and_all_is_in_order(true).await;
}

async fn at_concurrency_50_nothing_is_lost_and_all_is_in_order(by_socket: bool) {
    let (address, seen) = origin().await;
    let pushpin = Pushpin::start_with(std::slice::from_ref(&address), &address, by_socket).await.unwrap();
    let (publisher, tracker) = publisher(vec![pushpin.endpoint()]).await;
    let http = Http::new();
    let call = async |n: usize| {
        let channel = format!("call-{n}");
        let client = tokio::spawn({
            let (http, server, path) = (http.clone(), pushpin.http(), format!("/hold/{channel}"));
            async move {
                let mut stream = http.open(server, &path).await;
                assert!(stream.finish().await);
                stream.text
            }
        });
        let gate = tracker.gate(0, &channel).await;
        for part in 0..5 {
            let item =
                Item::content(&channel, format!("data: {n}.{part}\n\n")).id(format!("{channel}-{part}"));
            publisher.send(0, vec![item]).await.unwrap();
        }
        sleep((gate + MIN_CLOSE_DELAY).saturating_duration_since(Instant::now())).await;
        publisher.send(0, vec![Item::close(&channel)]).await.unwrap();
        let text = client.await.unwrap();
        assert_eq!(text, (0..5).map(|part| format!("data: {n}.{part}\n\n")).collect::<String>());
        tracker.left(0, &channel).await;
        let path = format!("/hold/{channel}");
        let answered = seen.lock().unwrap().iter().find(|(uri, ..)| uri.path() == path).unwrap().2;
        gate - answered
    };
    let started = Instant::now();
    let mut times: Vec<Duration> =
        futures::stream::iter(0..1000).map(call).buffer_unordered(50).collect().await;
    let rate = 1000.0 / started.elapsed().as_secs_f64();
    println!(
        "1000 calls, 50 at a time ({rate:.0}/s): answer to gate p50 {:?}, p99 {:?}",
        percentile(&mut times, 50),
        percentile(&mut times, 99)
    );
}

#[tokio::test]
#[ignore = "needs Pushpin: ./asgard test grip"]
async fn a_request_alone_has_its_gate_at_once() {
    let pushpin = pushpin().await;
    let (publisher, tracker) = publisher(vec![pushpin.endpoint()]).await;
    let http = Http::new();
    let (mut gates, mut deliveries) = (Vec::new(), Vec::new());
    for n in 0..100 {
        let channel = format!("alone-{n}");
        let started = Instant::now();
        let mut stream = http.open(pushpin.http(), &format!("/hold/{channel}")).await;
        let gate = tracker.gate(0, &channel).await;
        gates.push(gate - started);
        let sent = Instant::now();
        publisher.send(0, vec![Item::content(&channel, "x")]).await.unwrap();
        stream.expect("x").await;
        deliveries.push(sent.elapsed());
    }
    for (what, times) in [("request to gate", &mut gates), ("send to client", &mut deliveries)] {
        println!("alone: {what} p50 {:?}, p99 {:?}", percentile(times, 50), percentile(times, 99));
    }
}

#[tokio::test]
#[ignore = "needs Pushpin: ./asgard test grip"]
async fn an_id_seen_before_is_dropped_even_if_the_first_was_a_comment() {
    let pushpin = pushpin().await;
    let (publisher, tracker) = publisher(vec![pushpin.endpoint()]).await;
    let mut stream = Http::new().open(pushpin.http(), "/hold/burn").await;
    tracker.gate(0, "burn").await;
    let send = async |content: &'static str, id: &str| {
        publisher.send(0, vec![Item::content("burn", content).id(id)]).await.unwrap();
    };
    send("data: 1\n\n", "burn-1").await;
    send("data: 1 again\n\n", "burn-1").await;
    send(":\n\n", "burn-2").await;
    stream.expect("data: 1\n\n:\n\n").await;
    send("data: 2 of a worker that was paused\n\n", "burn-2").await;
    // The same over the other way in.
    let http = HttpPublisher::new(&pushpin.http_endpoint(), common::PATIENCE).unwrap();
    http.send(&[Item::content("burn", "data: 2 by HTTP\n\n").id("burn-2")]).await.unwrap();
    send("data: 3\n\n", "burn-3").await;
    stream.expect("data: 1\n\n:\n\ndata: 3\n\n").await;
}

#[tokio::test]
#[ignore = "needs Pushpin: ./asgard test grip"]
async fn an_id_belongs_to_its_channel() {
    let pushpin = pushpin().await;
    let (publisher, tracker) = publisher(vec![pushpin.endpoint()]).await;
    let http = Http::new();
    for channel in ["one", "two"] {
        let mut stream = http.open(pushpin.http(), &format!("/hold/{channel}")).await;
        tracker.gate(0, channel).await;
        publisher.send(0, vec![Item::content(channel, "x").id("same")]).await.unwrap();
        stream.expect("x").await;
    }
}

#[tokio::test]
#[ignore = "needs Pushpin: ./asgard test grip"]
async fn two_pushpins_are_told_apart_and_reached_both() {
    let (first, second) = (pushpin().await, pushpin().await);
    let (publisher, tracker) = publisher(vec![first.endpoint(), second.endpoint()]).await;
    assert_eq!(publisher.pushpins(), 2);
    let http = Http::new();
    let mut streams = Vec::new();
    for (n, pushpin) in [&first, &second].into_iter().enumerate() {
        let own = http.open(pushpin.http(), &format!("/hold/own-{n}")).await;
        let shared = http.open(pushpin.http(), "/hold/shared").await;
        tracker.gate(n, &format!("own-{n}")).await;
        tracker.gate(n, "shared").await;
        streams.push((own, shared));
    }
    assert!(tracker.with(|state| !state.subscribed.contains_key(&(1, "own-0".to_owned()))));
    for result in publisher.broadcast(&[Item::content("shared", "all ")]).await {
        result.unwrap();
    }
    for (n, (own, shared)) in streams.iter_mut().enumerate() {
        publisher.send(n, vec![Item::content(format!("own-{n}"), "mine")]).await.unwrap();
        publisher.send(n, vec![Item::content("shared", format!("only {n}"))]).await.unwrap();
        own.expect("mine").await;
        shared.expect(&format!("all only {n}")).await;
    }
    assert_eq!(publisher.send(2, vec![]).await, Err(SendError::UnknownPushpin(2)));
}

#[tokio::test]
#[ignore = "needs Pushpin: ./asgard test grip"]
async fn a_client_that_leaves_is_reported() {
    let pushpin = pushpin().await;
    let (_publisher, tracker) = publisher(vec![pushpin.endpoint()]).await;
    let stream = Http::new().open(pushpin.http(), "/hold/gone").await;
    tracker.gate(0, "gone").await;
    drop(stream);
    tracker.left(0, "gone").await;
}

#[tokio::test]
#[ignore = "needs Pushpin: ./asgard test grip"]
async fn http_publishing_delivers_in_order_and_splits() {
    let pushpin = pushpin().await;
    let (_zmq, tracker) = publisher(vec![pushpin.endpoint()]).await;
    let (by_http, events) = publisher(vec![pushpin.http_endpoint()]).await;
    assert!(!by_http.endpoint(0).unwrap().is_gated());
    let alone = HttpPublisher::new(&pushpin.http_endpoint(), common::PATIENCE).unwrap();
    let http = Http::new();
    let mut streams = Vec::new();
    for n in 0..30 {
        streams.push(http.open(pushpin.http(), &format!("/hold/http-{n}")).await);
        tracker.gate(0, &format!("http-{n}")).await;
    }
    // 1.5 MB: more than one request takes.
    let items: Vec<Item> =
        (0..30).map(|n| Item::content(format!("http-{n}"), format!("{n:05}").repeat(10_000))).collect();
    alone.send(&items).await.unwrap();
    let end = (0..30).flat_map(|n| {
        let channel = format!("http-{n}");
        [Item::content(&channel, Bytes::from_static(b"\xc3\xa9 end")), Item::close(&channel)]
    });
    sleep(MIN_CLOSE_DELAY).await;
    by_http.send(0, end.collect()).await.unwrap();
    for (n, stream) in streams.iter_mut().enumerate() {
        let whole = stream.finish().await;
        assert!(whole, "stream {n} was cut after {} bytes: {}", stream.text.len(), pushpin.logs());
        assert_eq!(stream.text, format!("{n:05}").repeat(10_000) + "é end");
    }
    assert!(events.with(|state| state.subscribed.is_empty()));
    let huge = Item::content("http-0", "x".repeat(1_000_000));
    assert!(matches!(alone.send(&[huge]).await, Err(SendError::Item(_))));
}

#[tokio::test]
#[ignore = "needs Pushpin: ./asgard test grip"]
async fn a_response_hold_is_answered() {
    let pushpin = pushpin().await;
    let (publisher, tracker) = publisher(vec![pushpin.endpoint()]).await;
    let server = pushpin.http();
    let client = tokio::spawn(async move {
        let mut stream = Http::new().open(server, "/response/answer").await;
        stream.finish().await;
        stream
    });
    tracker.gate(0, "answer").await;
    let response = Response {
        status: 202,
        headers: vec![("Content-Type".into(), "application/json".into())],
        body: Bytes::from_static(b"{}"),
    };
    publisher.send(0, vec![Item::response("answer", response)]).await.unwrap();
    let stream = client.await.unwrap();
    assert_eq!(stream.head.status, 202);
    assert_eq!(stream.head.headers["content-type"], "application/json");
    assert_eq!(stream.text, "{}");
}

#[tokio::test]
#[ignore = "needs Pushpin: ./asgard test grip"]
async fn nothing_is_written_after_its_time_or_by_a_dropped_send() {
    let pushpin = pushpin().await;
    let (publisher, tracker) = publisher(vec![pushpin.endpoint()]).await;
    let mut stream = Http::new().open(pushpin.http(), "/hold/late").await;
    tracker.gate(0, "late").await;
    let late = vec![Item::content("late", "late")];
    assert_eq!(
        publisher.send_until(0, late.clone(), Instant::now()).await,
        Err(SendError::Expired { written: 0 })
    );
    // Polled once, so that it is queued, and dropped before the link can look at it.
    let mut send = Box::pin(publisher.send(0, late));
    assert!(futures::poll!(&mut send).is_pending());
    drop(send);
    let soon = Instant::now() + Duration::from_secs(60);
    publisher.send_until(0, vec![Item::content("late", "in time")], soon).await.unwrap();
    stream.expect("in time").await;
}

#[tokio::test]
#[ignore = "needs Pushpin: ./asgard test grip"]
async fn the_routes_of_the_template() {
    let (backend, at_backend) = origin().await;
    let (gateway, at_gateway) = origin().await;
    // A port where nobody listens: a backend that is dead.
    let dead = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let pushpin = Pushpin::start(&[dead, backend], &gateway).await.unwrap();
    let (publisher, tracker) = publisher(vec![pushpin.endpoint()]).await;
    let http = Http::new();

    // A hold reaches the second backend while the first is dead.
    let mut stream = http.open_with(pushpin.http(), "/_hermod/hold/ticket", &[("host", "hermod")]).await;
    tracker.gate(0, "ticket").await;
    publisher.send(0, vec![Item::content("ticket", "x")]).await.unwrap();
    stream.expect("x").await;
    // By that host nothing but holds can be asked for.
    let stream = http.open_with(pushpin.http(), "/api/v1/mcp/org-1", &[("host", "hermod")]).await;
    assert_eq!(stream.head.status, 502);
    assert_eq!(at_backend.lock().unwrap().len(), 1);

    for path in ["/api/v1/mcp/org-1", "/heimdall/realms/asgard", "/_hermod/hold/ticket"] {
        let forged = [("host", "localhost:7999"), ("grip-sig", "x"), ("x-forwarded-for", "192.0.2.1")];
        http.open_with(pushpin.http(), path, &forged).await;
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let check = |(uri, headers, _): &(http::Uri, http::HeaderMap, Instant)| match headers.get("grip-sig") {
        Some(sig) => {
            let sig = sig.to_str().unwrap();
            grip::verify_grip_sig(sig, ISSUER, KEY, now).unwrap();
            assert!(grip::verify_grip_sig(sig, ISSUER, KEY, now + 4000).is_err());
            format!("{} signed", uri.path())
        }
        None => uri.path().to_owned(),
    };
    let backend: Vec<String> = at_backend.lock().unwrap().iter().map(check).collect();
    assert_eq!(backend, ["/_hermod/hold/ticket signed"]);
    let gateway: Vec<String> = at_gateway.lock().unwrap().iter().map(check).collect();
    assert_eq!(
        gateway,
        ["/api/v1/mcp/org-1 signed", "/heimdall/realms/asgard", "/_hermod/hold/ticket signed"]
    );
    let headers = at_gateway.lock().unwrap()[0].1.clone();
    assert_eq!(headers["x-forwarded-for"], "127.0.0.1");
}

#[tokio::test]
#[ignore = "needs Pushpin: ./asgard test grip"]
async fn a_large_token_passes() {
    let (address, seen) = origin().await;
    let pushpin = Pushpin::start(std::slice::from_ref(&address), &address).await.unwrap();
    let token = "t".repeat(24_000);
    let stream = Http::new().open_with(pushpin.http(), "/plain", &[("authorization", &token)]).await;
    assert_eq!(stream.head.status, 200);
    assert_eq!(seen.lock().unwrap()[0].1["authorization"], token);
}
