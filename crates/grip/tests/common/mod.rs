//! An origin, a client and a reader of events for the tests against a real Pushpin.
// Each test file uses a part of it, and helpers may fail as tests do.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderMap, Request, Uri};
use axum::response::IntoResponse;
use axum::routing::any;
use bytes::Bytes;
use grip::{Endpoint, Event, Hold, KeepAlive, Publisher, PublisherOptions};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kit::pushpin::Pushpin;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

pub const PATIENCE: Duration = Duration::from_secs(30);

/// Requests as an origin saw them, and when it answered.
pub type Seen = Arc<Mutex<Vec<(Uri, HeaderMap, Instant)>>>;

/// `/hold/{channel}` and `/_hermod/hold/{channel}` hold a stream, `/response/{channel}` a response; everything
/// else is a plain answer.
pub async fn origin() -> (String, Seen) {
    let seen = Seen::default();
    let hold = any(|Path(channel): Path<String>| async move {
        let keep_alive = KeepAlive::sse(Duration::from_secs(20));
        (Hold::stream(channel.as_str()).keep_alive(keep_alive).headers().unwrap(), "")
    });
    let response = any(|Path(channel): Path<String>| async move {
        (Hold::response(channel.as_str()).timeout(PATIENCE).headers().unwrap(), "nothing came")
    });
    let record = seen.clone();
    let app = Router::new()
        .route("/hold/{channel}", hold.clone())
        .route("/_hermod/hold/{channel}", hold)
        .route("/response/{channel}", response)
        .fallback(|| async { "plain".into_response() })
        .layer(axum::middleware::from_fn(move |request: Request<Body>, next: axum::middleware::Next| {
            record.lock().unwrap().push((request.uri().clone(), request.headers().clone(), Instant::now()));
            next.run(request)
        }));
    (serve(app).await, seen)
}

/// Serves an application; its address.
pub async fn serve(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let listener = axum::serve::ListenerExt::tap_io(listener, |stream| stream.set_nodelay(true).unwrap());
        axum::serve(listener, app).await.unwrap();
    });
    address
}

/// A Pushpin whose every route leads to a new origin.
pub async fn pushpin() -> Pushpin {
    let (address, _) = origin().await;
    Pushpin::start(std::slice::from_ref(&address), &address).await.unwrap()
}

/// The same; `by_socket`: publishers connect by a Unix socket.
pub async fn pushpin_with(by_socket: bool) -> Pushpin {
    let (address, _) = origin().await;
    Pushpin::start_with(std::slice::from_ref(&address), &address, by_socket).await.unwrap()
}

#[derive(Clone)]
pub struct Http(Client<HttpConnector, Empty<Bytes>>);

impl Http {
    pub fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        // Connections are not kept: a Pushpin that is killed would leave dead ones.
        Self(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector))
    }

    pub async fn open(&self, server: SocketAddr, path: &str) -> Stream {
        self.open_with(server, path, &[]).await
    }

    pub async fn open_with(&self, server: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Stream {
        let mut request = http::Request::get(format!("http://{server}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.0.request(request.body(Empty::new()).unwrap());
        let (head, body) = timeout(PATIENCE, answer).await.unwrap().unwrap().into_parts();
        Stream { head, body, text: String::new() }
    }
}

/// An answer that is being received.
pub struct Stream {
    pub head: http::response::Parts,
    body: hyper::body::Incoming,
    pub text: String,
}

impl Stream {
    /// Reads on until the text is complete; panics when the stream ends before, or says more.
    pub async fn expect(&mut self, text: &str) {
        while self.text.len() < text.len() {
            assert!(self.more().await, "the stream ended after {:?}, not {text:?}", self.text);
        }
        assert_eq!(self.text, text);
    }

    /// Reads to the end; false when it was cut.
    pub async fn finish(&mut self) -> bool {
        loop {
            match timeout(PATIENCE, self.body.frame()).await {
                Err(_) => panic!("the stream did not end after {:?}", self.text),
                Ok(None) => return true,
                Ok(Some(Err(_))) => return false,
                Ok(Some(Ok(frame))) => self.add(&frame.into_data().unwrap()),
            }
        }
    }

    async fn more(&mut self) -> bool {
        match timeout(PATIENCE, self.body.frame()).await {
            Err(_) => panic!("nothing came after {:?}", self.text),
            Ok(Some(Ok(frame))) => {
                self.add(&frame.into_data().unwrap());
                true
            }
            Ok(_) => false,
        }
    }

    fn add(&mut self, data: &[u8]) {
        self.text.push_str(std::str::from_utf8(data).unwrap());
    }
}

/// What a worker would keep: who listens where, and every event in order.
#[derive(Default)]
pub struct State {
    pub up: HashSet<usize>,
    pub subscribed: HashMap<(usize, String), Instant>,
    pub log: Vec<Event>,
}

/// Reads the events in a task of its own.
#[derive(Clone)]
pub struct Tracker(watch::Receiver<()>, Arc<Mutex<State>>);

impl Tracker {
    pub fn new(mut events: mpsc::Receiver<Event>) -> Self {
        let (changed, receiver) = watch::channel(());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                shared.lock().unwrap().apply(event);
                changed.send_replace(());
            }
        });
        Self(receiver, state)
    }

    pub fn with<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.1.lock().unwrap())
    }

    /// Waits until `look` finds something.
    pub async fn wait<T>(&self, what: &str, look: impl Fn(&State) -> Option<T>) -> T {
        let mut changed = self.0.clone();
        let found = timeout(PATIENCE, async {
            loop {
                changed.mark_unchanged();
                if let Some(found) = self.with(&look) {
                    return found;
                }
                changed.changed().await.unwrap();
            }
        });
        match found.await {
            Ok(found) => found,
            Err(_) => panic!("{what} did not happen: {:?}", self.with(|state| state.log.clone())),
        }
    }

    pub async fn gate(&self, pushpin: usize, channel: &str) -> Instant {
        let key = (pushpin, channel.to_owned());
        self.wait(&format!("the gate of {channel}"), |state| state.subscribed.get(&key).copied()).await
    }

    pub async fn left(&self, pushpin: usize, channel: &str) {
        let key = (pushpin, channel.to_owned());
        let what = format!("the end of {channel}");
        self.wait(&what, |state| (!state.subscribed.contains_key(&key)).then_some(())).await;
    }

    pub async fn up(&self, pushpin: usize) {
        self.wait(&format!("up {pushpin}"), |state| state.up.contains(&pushpin).then_some(())).await;
    }

    pub async fn down(&self, pushpin: usize) {
        self.wait(&format!("down {pushpin}"), |state| (!state.up.contains(&pushpin)).then_some(())).await;
    }
}

impl State {
    /// Panics when the events contradict what they promise.
    fn apply(&mut self, event: Event) {
        let at = event.pushpin();
        match &event {
            Event::Up { .. } => assert!(self.up.insert(at), "up twice"),
            Event::Replayed { .. } => assert!(self.up.contains(&at)),
            Event::Down { .. } => {
                assert!(self.up.remove(&at), "down twice");
                self.subscribed.retain(|(pushpin, _), _| *pushpin != at);
            }
            Event::Subscribed { channel, .. } => {
                assert!(self.up.contains(&at), "subscribed while down");
                let before = self.subscribed.insert((at, channel.clone()), Instant::now());
                assert!(before.is_none(), "{channel} subscribed twice");
            }
            Event::Unsubscribed { channel, .. } => {
                assert!(self.up.contains(&at), "unsubscribed while down");
                let before = self.subscribed.remove(&(at, channel.clone()));
                assert!(before.is_some(), "{channel} unsubscribed before it was subscribed");
            }
        }
        self.log.push(event);
    }
}

/// A publisher whose links all stand.
pub async fn publisher(endpoints: Vec<Endpoint>) -> (Publisher, Tracker) {
    publisher_with(endpoints, PublisherOptions::default()).await
}

pub async fn publisher_with(endpoints: Vec<Endpoint>, options: PublisherOptions) -> (Publisher, Tracker) {
    let (publisher, events) = Publisher::start(endpoints, options);
    let tracker = Tracker::new(events);
    timeout(PATIENCE, publisher.wait_replayed()).await.unwrap();
    (publisher, tracker)
}

pub fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100]
}
