//! Several streams of one session, and streams that are opening: each notice comes once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use odin::broadcast::{Audience, Notice};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::ENTRY_POINTS;
use super::client::{Client, Stream};
use kit::wait;

use super::deployment::Deployment;

/// Tells everybody of a change, with a number to know it by.
async fn tell(site: &Deployment, number: usize) {
    site.notify(json!("everyone"), "tools/list_changed", json!({ "n": number })).await;
}

async fn expect(stream: &mut Stream, number: usize) {
    assert_eq!(stream.expect("tools/list_changed").await["n"], number);
}

/// The number of the next change; none: nothing came for a while.
async fn number(stream: &mut Stream) -> Option<usize> {
    let message = timeout(Duration::from_millis(200), stream.next()).await.ok()?;
    Some(message["params"]["n"].as_u64().unwrap() as usize)
}

async fn open(client: &Client) -> Stream {
    let mut stream = client.get(None).await;
    stream.primed().await;
    stream
}

/// Tells until a stream hears it: the one before it is only just known to be gone. Gives the last number.
async fn tell_until_heard(site: &Deployment, stream: &mut Stream, mut next: usize) -> usize {
    for _ in 0..100 {
        tell(site, next).await;
        if let Some(heard) = number(stream).await {
            assert_eq!(heard, next, "what was sent before went elsewhere");
            return next;
        }
        next += 1;
    }
    panic!("the stream hears nothing");
}

async fn the_newest_carries(site: &Deployment, edge: SocketAddr) {
    let client = Client::new(edge, "local", "org-1").with_session().await;
    let (mut first, mut second, mut third) = (open(&client).await, open(&client).await, open(&client).await);
    tell(site, 1).await;
    expect(&mut third, 1).await;
    drop(third);
    let sent = tell_until_heard(site, &mut second, 2).await;
    tell(site, sent + 1).await;
    expect(&mut second, sent + 1).await;
    drop(second);
    let sent = tell_until_heard(site, &mut first, sent + 2).await;
    // A new one takes over at once, and the end of the session ends them all.
    let mut fourth = open(&client).await;
    tell(site, sent + 1).await;
    expect(&mut fourth, sent + 1).await;
    client.delete().await;
    first.ended().await;
    fourth.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Pushpin: ./asgard test notifications"]
async fn the_newest_stream_carries_and_then_the_next() {
    let site = Deployment::start().await;
    for entry_point in ENTRY_POINTS {
        the_newest_carries(&site, site.edge(entry_point)).await;
    }
    let site = Deployment::embedded().await;
    the_newest_carries(&site, site.gateway).await;
}

/// A client that opens its stream again whenever it ends.
struct Listener {
    gets: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listener {
    fn start(client: Client, heard: mpsc::UnboundedSender<usize>) -> Self {
        let (gets, ended) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let counts = (gets.clone(), ended.clone());
        let task = tokio::spawn(async move {
            loop {
                let mut stream = client.get(None).await;
                counts.0.fetch_add(1, Ordering::SeqCst);
                while let Ok(Some(message)) = stream.try_next().await {
                    heard.send(message["params"]["n"].as_u64().unwrap() as usize).unwrap();
                }
                counts.1.fetch_add(1, Ordering::SeqCst);
                sleep(Duration::from_millis(stream.retry.unwrap_or(1000))).await;
            }
        });
        Self { gets, ended, task }
    }
}

async fn no_storm(site: &Deployment, edge: SocketAddr, count: usize) {
    let client = Client::new(edge, "local", "org-1").with_session().await;
    let (sender, mut heard) = mpsc::unbounded_channel();
    let listeners: Vec<Listener> =
        (0..count).map(|_| Listener::start(client.clone(), sender.clone())).collect();
    let sum = |of: fn(&Listener) -> &AtomicUsize| {
        listeners.iter().map(|listener| of(listener).load(Ordering::SeqCst)).sum::<usize>()
    };
    let too_many = count.saturating_sub(4);
    wait("all are open, and those that are too many have ended", async || {
        sum(|listener| &listener.gets) == count && sum(|listener| &listener.ended) == too_many
    })
    .await;
    let mut numbers = Vec::new();
    for number in 1..=8 {
        tell(site, number).await;
        numbers.push(timeout(Duration::from_secs(20), heard.recv()).await.unwrap().unwrap());
    }
    assert_eq!(numbers, (1..=8).collect::<Vec<_>>(), "each once, {count} listeners");
    // Longer than any of them stays away by itself.
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(sum(|listener| &listener.gets), count, "nobody had to come again");
    assert!(heard.try_recv().is_err(), "nothing came twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Pushpin: ./asgard test notifications"]
async fn listeners_that_come_back_by_themselves_do_not_drive_each_other_out() {
    let site = Deployment::start().await;
    for entry_point in ENTRY_POINTS {
        for count in [2, 3, 10] {
            no_storm(&site, site.edge(entry_point), count).await;
        }
    }
    let site = Deployment::embedded().await;
    for count in [2, 3, 10] {
        no_storm(&site, site.gateway, count).await;
    }
}

/// Begins to open a stream, whose hold is kept from Pushpin.
async fn begin<F>(site: &Deployment, open: F) -> JoinHandle<Stream>
where
    F: Future<Output = Stream> + Send + 'static,
{
    site.gate.close();
    let opening = tokio::spawn(open);
    wait("the backend has answered", async || site.gate.waiting() == 1).await;
    opening
}

async fn opened(site: &Deployment, opening: JoinHandle<Stream>) -> Stream {
    site.gate.open();
    opening.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Pushpin: ./asgard test notifications"]
async fn a_notice_of_the_moment_in_which_a_stream_opens_comes_once() {
    let site = Deployment::start().await;
    for entry_point in ENTRY_POINTS {
        let client = Client::new(site.edge(entry_point), "thor", "org-1");
        let filter = json!({ "toolsListChanged": true, "resourceSubscriptions": ["a://1"] });
        let opening = begin(&site, {
            let (client, filter) = (client.clone(), filter.clone());
            async move { client.listen("7", filter).await }
        })
        .await;
        // From the backend, and from a worker; what it did not ask for, and what is another's.
        tell(&site, 1).await;
        let update = Notice::resource_updated("a://1").unwrap();
        site.broadcaster.notify(&Audience::Everyone, &update).await.unwrap();
        site.broadcaster.notify(&Audience::Everyone, &Notice::resources_changed()).await.unwrap();
        let other = super::organisation("org-2");
        site.notify(other, "tools/list_changed", json!({ "n": 99 })).await;
        let mut stream = opened(&site, opening).await;
        stream.expect("subscriptions/acknowledged").await;
        let mut came = [stream.next().await, stream.next().await];
        came.sort_by_key(|message| message["method"].as_str().unwrap().to_owned());
        assert_eq!(came[0]["params"]["uri"], "a://1", "{came:?}");
        assert_eq!(came[1]["params"]["n"], 1, "{came:?}");
        for message in &came {
            assert_eq!(*super::id_of(message), 7);
        }
        tell(&site, 2).await;
        expect(&mut stream, 2).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Pushpin: ./asgard test notifications"]
async fn a_session_misses_nothing_while_a_stream_opens() {
    let site = Deployment::start().await;
    for entry_point in ENTRY_POINTS {
        let client = Client::new(site.edge(entry_point), "thor", "org-1").with_session().await;
        let get = |client: &Client| {
            let client = client.clone();
            async move { client.get(None).await }
        };
        let answer = client.request("resources/subscribe", json!({ "uri": "a://1" })).await;
        assert_eq!(answer["result"], json!({}));
        // Its only one.
        let opening = begin(&site, get(&client)).await;
        tell(&site, 1).await;
        site.notify(json!("everyone"), "resources/updated", json!({ "uri": "a://1" })).await;
        site.notify(json!("everyone"), "message", json!({ "level": "alert", "data": 2 })).await;
        let mut first = opened(&site, opening).await;
        expect(&mut first, 1).await;
        assert_eq!(first.expect("resources/updated").await["uri"], "a://1");
        assert_eq!(first.expect("message").await["data"], 2);
        // Another one: the first carries until the second is there.
        let opening = begin(&site, get(&client)).await;
        tell(&site, 2).await;
        expect(&mut first, 2).await;
        let mut second = opened(&site, opening).await;
        second.primed().await;
        tell(&site, 3).await;
        expect(&mut second, 3).await;
        // The end of the session ends one that is opening as well.
        let opening = begin(&site, get(&client)).await;
        client.delete().await;
        let mut third = opened(&site, opening).await;
        third.ended().await;
        second.ended().await;
        first.ended().await;
    }
}
