//! What happens when Pushpin dies, stalls, or the reader of the events is slow.

#![allow(clippy::unwrap_used)] // Helpers may fail as tests do.

mod common;

use std::time::{Duration, Instant};

use common::{Http, PATIENCE, Stream, Tracker, publisher, publisher_with, pushpin, pushpin_with};
use grip::{Event, Item, MIN_CLOSE_DELAY, Publisher, PublisherOptions, SendError};
use kit::pushpin::Pushpin;
use tokio::time::{sleep, timeout};

async fn hold(pushpin: &Pushpin, tracker: &Tracker, channel: &str) -> Stream {
    let stream = Http::new().open(pushpin.http(), &format!("/hold/{channel}")).await;
    assert_eq!(stream.head.status, 200);
    tracker.gate(0, channel).await;
    stream
}

async fn whole_call(pushpin: &Pushpin, publisher: &Publisher, tracker: &Tracker, channel: &str) {
    let mut stream = hold(pushpin, tracker, channel).await;
    publisher.send(0, vec![Item::content(channel, "data: x\n\n").id(channel)]).await.unwrap();
    sleep(MIN_CLOSE_DELAY).await;
    publisher.send(0, vec![Item::close(channel)]).await.unwrap();
    assert!(stream.finish().await);
    assert_eq!(stream.text, "data: x\n\n");
    tracker.left(0, channel).await;
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test]
#[ignore = "needs Pushpin: ./asgard test grip"]
async fn pushpin_killed_and_restarted_by_tcp() {
    pushpin_killed_and_restarted(false).await;
}

#[tokio::test]
#[ignore = "needs Pushpin: ./asgard test grip"]
async fn pushpin_killed_and_restarted_by_socket() {
    pushpin_killed_and_restarted(true).await;
}

async fn pushpin_killed_and_restarted(by_socket: bool) {
    const RESTARTS: usize = 10;
    let mut pushpin = pushpin_with(by_socket).await;
    let (publisher, tracker) = publisher(vec![pushpin.endpoint()]).await;
    let (mut to_down, mut to_up, mut files) = (Vec::new(), Vec::new(), 0);
    for restart in 0..RESTARTS {
        whole_call(&pushpin, &publisher, &tracker, &format!("before-{restart}")).await;
        let mut stream = hold(&pushpin, &tracker, &format!("cut-{restart}")).await;
        let killed = Instant::now();
        pushpin.kill().unwrap();
        tracker.down(0).await;
        to_down.push(killed.elapsed());
        assert!(!publisher.link_up(0));
        assert!(!stream.finish().await, "the client sees its stream cut");
        let send = publisher.send(0, vec![Item::content("cut", "x")]).await;
        assert_eq!(send, Err(SendError::Down));
        pushpin.run().await.unwrap();
        let ready = Instant::now();
        tracker.up(0).await;
        to_up.push(ready.elapsed());
        assert!(publisher.link_up(0));
        whole_call(&pushpin, &publisher, &tracker, &format!("after-{restart}")).await;
        // The first restart makes what every later one makes again.
        if restart == 0 {
            files = open_files();
        }
    }
    // Other tests of this process open files, too, and close them.
    let began = Instant::now();
    while open_files() > files + 3 {
        assert!(began.elapsed() < PATIENCE, "{} files are open, {files} at first", open_files());
        sleep(Duration::from_millis(100)).await;
    }
    println!(
        "{RESTARTS} kill -9 survived; kill to Down at most {:?}, ready to Up at most {:?}",
        to_down.iter().max().unwrap(),
        to_up.iter().max().unwrap()
    );
}

#[tokio::test]
#[ignore = "needs Pushpin: ./asgard test grip"]
async fn what_is_held_already_is_replayed_to_a_new_publisher_by_tcp() {
    what_is_held_already_is_replayed_to_a_new_publisher(false).await;
}

#[tokio::test]
#[ignore = "needs Pushpin: ./asgard test grip"]
async fn what_is_held_already_is_replayed_to_a_new_publisher_by_socket() {
    what_is_held_already_is_replayed_to_a_new_publisher(true).await;
}

async fn what_is_held_already_is_replayed_to_a_new_publisher(by_socket: bool) {
    const HELD: usize = 200;
    let pushpin = pushpin_with(by_socket).await;
    let (first, tracker) = publisher(vec![pushpin.endpoint()]).await;
    let mut streams = Vec::new();
    for n in 0..HELD {
        streams.push(hold(&pushpin, &tracker, &format!("held-{n}")).await);
    }
    drop(first);
    let (second, tracker) = publisher(vec![pushpin.endpoint()]).await;
    assert!(second.all_replayed());
    tracker.wait("the replay", |state| (state.subscribed.len() == HELD).then_some(())).await;
    for (n, stream) in streams.iter_mut().enumerate() {
        second.send(0, vec![Item::content(format!("held-{n}"), "x")]).await.unwrap();
        stream.expect("x").await;
    }
    sleep(PublisherOptions::default().settle).await;
    assert!(second.all_settled());
}

#[tokio::test]
#[ignore = "needs Pushpin: ./asgard test grip"]
async fn a_stalled_pushpin_blocks_nobody_and_loses_no_hold_by_tcp() {
    a_stalled_pushpin_blocks_nobody_and_loses_no_hold(false).await;
}

#[tokio::test]
#[ignore = "needs Pushpin: ./asgard test grip"]
async fn a_stalled_pushpin_blocks_nobody_and_loses_no_hold_by_socket() {
    a_stalled_pushpin_blocks_nobody_and_loses_no_hold(true).await;
}

async fn a_stalled_pushpin_blocks_nobody_and_loses_no_hold(by_socket: bool) {
    let pushpin = pushpin_with(by_socket).await;
    let (publisher, tracker) = publisher(vec![pushpin.endpoint()]).await;
    let mut stream = hold(&pushpin, &tracker, "stall").await;
    pushpin.pause().unwrap();
    // The buffers of the operating system take some megabytes; then the send timeout strikes.
    let item = Item::content("stall", "x".repeat(900_000));
    let mut longest = Duration::ZERO;
    let error = loop {
        let started = Instant::now();
        let result = publisher.send(0, vec![item.clone()]).await;
        longest = longest.max(started.elapsed());
        if let Err(error) = result {
            break error;
        }
    };
    assert_eq!(error, SendError::Timeout);
    assert!(longest < Duration::from_secs(2), "a send took {longest:?}");
    tracker.down(0).await;
    // While it stalls there is an answer at once.
    let started = Instant::now();
    assert_eq!(publisher.send(0, vec![item]).await, Err(SendError::Down));
    assert!(started.elapsed() < Duration::from_millis(100));
    pushpin.resume().unwrap();
    tracker.up(0).await;
    // The hold was never lost: the replay reports it, and it can be written to.
    tracker.gate(0, "stall").await;
    publisher.send(0, vec![Item::content("stall", "the end")]).await.unwrap();
    sleep(MIN_CLOSE_DELAY).await;
    publisher.send(0, vec![Item::close("stall")]).await.unwrap();
    stream.finish().await;
    whole_call(&pushpin, &publisher, &tracker, "after").await;
}

#[tokio::test]
#[ignore = "needs Pushpin: ./asgard test grip"]
async fn a_pushpin_that_stalls_while_nothing_is_sent_is_found_by_probes_by_tcp() {
    a_pushpin_that_stalls_while_nothing_is_sent_is_found_by_probes(false).await;
}

#[tokio::test]
#[ignore = "needs Pushpin: ./asgard test grip"]
async fn a_pushpin_that_stalls_while_nothing_is_sent_is_found_by_probes_by_socket() {
    a_pushpin_that_stalls_while_nothing_is_sent_is_found_by_probes(true).await;
}

async fn a_pushpin_that_stalls_while_nothing_is_sent_is_found_by_probes(by_socket: bool) {
    let pushpin = pushpin_with(by_socket).await;
    let mut options = PublisherOptions::default();
    options.probe_interval = Duration::from_millis(200);
    options.probe_timeout = Duration::from_millis(500);
    let endpoints = vec![pushpin.endpoint(), pushpin.http_endpoint()];
    let (publisher, tracker) = publisher_with(endpoints, options).await;
    sleep(Duration::from_secs(1)).await;
    assert!(tracker.with(|state| state.log.len() == 4), "up and replayed once each");
    pushpin.pause().unwrap();
    tracker.down(0).await;
    pushpin.resume().unwrap();
    tracker.up(0).await;
    assert!(publisher.link_up(0));
}

#[tokio::test]
#[ignore = "needs Pushpin: ./asgard test grip"]
async fn sends_go_on_while_nobody_reads_the_events() {
    let pushpin = pushpin().await;
    let (publisher, mut events) = Publisher::start(vec![pushpin.endpoint()], PublisherOptions::default());
    timeout(PATIENCE, publisher.wait_replayed()).await.unwrap();
    let http = Http::new();
    let mut streams = Vec::new();
    for n in 0..20 {
        let mut stream = http.open(pushpin.http(), &format!("/hold/unread-{n}")).await;
        // Without the event the gate is not known: sends until it arrives, as nobody should.
        let channel = format!("unread-{n}");
        let send = async {
            loop {
                publisher.send(0, vec![Item::content(&channel, "x").id("once")]).await.unwrap();
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = stream.expect("x") => {}
            () = send => {}
        }
        streams.push(stream);
    }
    let mut seen = Vec::new();
    while seen.len() < 22 {
        seen.push(timeout(PATIENCE, events.recv()).await.unwrap().unwrap());
    }
    let expected = (0..20).map(|n| Event::Subscribed { pushpin: 0, channel: format!("unread-{n}") });
    assert_eq!(seen[..2], [Event::Up { pushpin: 0 }, Event::Replayed { pushpin: 0 }]);
    assert_eq!(seen[2..], expected.collect::<Vec<_>>());
}

#[tokio::test]
#[ignore = "needs Pushpin: ./asgard test grip"]
async fn a_reader_too_far_behind_gets_a_down_and_a_replay_and_no_gap() {
    let pushpin = pushpin().await;
    let (_helper, helper) = publisher(vec![pushpin.endpoint()]).await;
    let mut options = PublisherOptions::default();
    options.event_backlog = 8;
    let (publisher, events) = Publisher::start(vec![pushpin.endpoint()], options);
    timeout(PATIENCE, publisher.wait_replayed()).await.unwrap();
    let mut streams = Vec::new();
    for n in 0..20 {
        streams.push(hold(&pushpin, &helper, &format!("backlog-{n}")).await);
    }
    let down = async {
        while publisher.link_up(0) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, down).await.unwrap();
    // A send is answered though the link waits for the reader of its Down.
    let send = timeout(Duration::from_secs(2), publisher.send(0, vec![Item::close("x")])).await;
    assert_eq!(send.unwrap(), Err(SendError::Down));
    // The tracker panics if an event contradicts those before it.
    let tracker = Tracker::new(events);
    tracker.wait("the replay", |state| (state.subscribed.len() == 20).then_some(())).await;
    assert!(tracker.with(|state| state.log.contains(&Event::Down { pushpin: 0 })));
    publisher.send(0, vec![Item::content("backlog-7", "x")]).await.unwrap();
    streams[7].expect("x").await;
}

#[tokio::test]
#[ignore = "needs Pushpin: ./asgard test grip"]
async fn an_endpoint_without_a_pushpin_refuses_at_once_and_is_found_later() {
    let mut pushpin = pushpin().await;
    pushpin.kill().unwrap();
    let endpoints = vec![pushpin.endpoint(), pushpin.http_endpoint()];
    let (publisher, events) = Publisher::start(endpoints, PublisherOptions::default());
    let tracker = Tracker::new(events);
    for link in 0..2 {
        let send = timeout(Duration::from_secs(1), publisher.send(link, vec![Item::close("x")])).await;
        assert_eq!(send.unwrap(), Err(SendError::Down));
    }
    assert!(!publisher.all_up());
    pushpin.run().await.unwrap();
    timeout(PATIENCE, publisher.wait_replayed()).await.unwrap();
    assert!(publisher.all_up());
    whole_call(&pushpin, &publisher, &tracker, "found").await;
    // The link by HTTP learns of the death when it sends.
    pushpin.kill().unwrap();
    let send = async {
        while publisher.send(1, vec![Item::close("x")]).await.is_ok() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, send).await.unwrap();
    tracker.down(0).await;
    tracker.down(1).await;
    assert_eq!(publisher.broadcast(&[Item::close("x")]).await, [Err(SendError::Down), Err(SendError::Down)]);
}

#[tokio::test]
#[ignore = "needs Pushpin: ./asgard test grip"]
async fn links_end_with_the_last_publisher() {
    let pushpin = pushpin().await;
    let (publisher, mut events) = Publisher::start(vec![pushpin.endpoint()], PublisherOptions::default());
    let clone = publisher.clone();
    drop(publisher);
    clone.wait_replayed().await;
    drop(clone);
    let mut seen = Vec::new();
    while let Some(event) = timeout(PATIENCE, events.recv()).await.unwrap() {
        seen.push(event);
    }
    assert_eq!(seen, [Event::Up { pushpin: 0 }, Event::Replayed { pushpin: 0 }]);
}
