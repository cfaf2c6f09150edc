//! Front ends and workers of this process over one store.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use grip::Publisher;
use odin::broadcast::BroadcastKey;
use odin::call::Timing;
use odin::front::{Access, Front, FrontConfig};
use odin::link::{Identity, LinkKeys, LinkLimits, Links};
use odin::program::process;
use odin::protocol::origin::HostRules;
use odin::runner::RmcpRunner;
use odin::serve;
use odin::store::{MemoryStore, RedisStore, Store, StoreLimits};
use odin::worker::{DirectCalls, Pushpins, Worker, WorkerConfig};
use rmcp::ServerHandler;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::redis::RedisServer;
use crate::values::{SERVER, session_keys};

/// A store in the memory of this process.
#[must_use]
pub fn memory() -> Arc<dyn Store> {
    memory_with(StoreLimits::default())
}

/// The same with other bounds.
#[must_use]
pub fn memory_with(limits: StoreLimits) -> Arc<dyn Store> {
    Arc::new(MemoryStore::new(Timing::default(), limits))
}

/// A store in a Redis, with connections of its own.
#[must_use]
pub fn over(redis: &RedisServer) -> Arc<dyn Store> {
    over_url(&redis.url(), StoreLimits::default())
}

/// The same with other bounds, by the address.
#[must_use]
pub fn over_url(url: &str, limits: StoreLimits) -> Arc<dyn Store> {
    Arc::new(RedisStore::connect(url, Timing::default(), limits).unwrap())
}

/// What a front end is configured with unless a test says otherwise: open to all, without a gateway or Pushpin.
#[must_use]
pub fn front_config(broadcast: BroadcastKey) -> FrontConfig {
    FrontConfig::new(SERVER, Access::Open(HostRules::default()), session_keys(), broadcast)
}

/// Starts a worker over a store; its leases are kept over the other one, which may be the same.
pub fn worker<H: ServerHandler>(
    store: Arc<dyn Store>,
    beats: Arc<dyn Store>,
    runner: Arc<RmcpRunner<H>>,
    pushpins: Option<Pushpins>,
) -> Worker {
    let config = WorkerConfig::new(SERVER).with_name(process::unique_name("worker"));
    Worker::start(config, store, Box::new(move || beats), runner, pushpins).unwrap()
}

/// A free port of this machine.
pub async fn listener() -> serve::NoDelay {
    serve::listen("127.0.0.1:0").await.unwrap()
}

/// Serves what comes there; gives the address. It ends with the runtime, or when the task is aborted.
pub fn serve_at(listener: serve::NoDelay, app: Router) -> (SocketAddr, JoinHandle<()>) {
    let address = listener.local_addr().unwrap();
    (address, tokio::spawn(async move { axum::serve(listener, app).await.unwrap() }))
}

/// A client that takes what it gets: no proxy, no redirect; it gives up when nothing comes for a minute.
#[must_use]
pub fn http() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .read_timeout(Duration::from_secs(60))
        .build()
        .unwrap()
}

/// Front ends over one store, and a client.
pub struct Site {
    /// The store of all.
    pub store: Arc<dyn Store>,
    /// The key of notifications.
    pub broadcast: BroadcastKey,
    /// The front ends.
    pub fronts: Vec<Arc<Front>>,
    /// The client.
    pub http: reqwest::Client,
    keys: Option<LinkKeys>,
    links: Vec<Links>,
    /// Each carries one link.
    carrying: Mutex<Vec<JoinHandle<()>>>,
    addresses: Vec<SocketAddr>,
    next: AtomicUsize,
    serving: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// What a [`Site`] is made of.
pub struct Builder {
    store: Arc<dyn Store>,
    fronts: usize,
    publisher: Option<Publisher>,
    direct: bool,
    config: Box<dyn Fn(&mut FrontConfig) + Send>,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("fronts", &self.fronts).finish_non_exhaustive()
    }
}

impl Site {
    /// A site over a store, with one front end.
    #[must_use]
    pub fn over(store: Arc<dyn Store>) -> Builder {
        Builder { store, fronts: 1, publisher: None, direct: false, config: Box::new(|_| {}) }
    }

    /// The address of a front end, each time of the next one.
    pub fn front(&self) -> SocketAddr {
        self.addresses[self.next.fetch_add(1, Ordering::SeqCst) % self.addresses.len()]
    }

    /// The URL of a path, each time at the next front end.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.front())
    }

    /// Starts a worker of the site, with a link to each front end where calls may be direct.
    pub fn worker<H: ServerHandler>(&self, runner: RmcpRunner<H>) -> Worker {
        let worker = worker(self.store.clone(), self.store.clone(), Arc::new(runner), None);
        if let Some(keys) = &self.keys {
            let store = self.store.clone();
            let pipes = worker.take_direct(DirectCalls::new(keys.clone()), Box::new(move || store)).unwrap();
            let mut carrying = self.carrying.lock().unwrap();
            for links in &self.links {
                let (links, pipe) = (links.clone(), pipes.open());
                carrying.push(tokio::spawn(async move { links.attach(pipe).await.unwrap() }));
            }
        }
        worker
    }

    /// Waits until each front end knows of a free slot.
    pub async fn linked(&self) {
        let deadline = tokio::time::Instant::now() + crate::PATIENCE;
        while self.links.iter().any(|links| links.free() == 0) {
            assert!(tokio::time::Instant::now() < deadline, "no link with a free slot");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whether a front end has a link to a worker.
    pub fn is_linked(&self) -> bool {
        self.links.iter().any(|links| !links.workers().is_empty())
    }

    /// Breaks all links; both sides live on.
    pub fn break_links(&self) {
        self.carrying.lock().unwrap().drain(..).for_each(|link| link.abort());
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.serving.iter().for_each(JoinHandle::abort);
    }
}

impl Builder {
    /// How many front ends.
    #[must_use]
    pub fn fronts(mut self, fronts: usize) -> Self {
        self.fronts = fronts;
        self
    }

    /// Changes the configuration of each front end.
    #[must_use]
    pub fn config(mut self, config: impl Fn(&mut FrontConfig) + Send + 'static) -> Self {
        self.config = Box::new(config);
        self
    }

    /// Lets calls go straight to workers.
    #[must_use]
    pub fn direct(mut self) -> Self {
        self.direct = true;
        self
    }

    /// By which the front ends publish.
    #[must_use]
    pub fn publisher(mut self, publisher: Publisher) -> Self {
        self.publisher = Some(publisher);
        self
    }

    /// Starts the front ends. No worker runs yet.
    pub async fn start(self) -> Site {
        let broadcast = BroadcastKey::random();
        let (mut fronts, mut addresses, mut serving) = (Vec::new(), Vec::new(), Vec::new());
        let (keys, mut links) = (self.direct.then(LinkKeys::random), Vec::new());
        for number in 0..self.fronts {
            let mut config = front_config(broadcast.clone());
            config.links = keys.clone().map(|keys| {
                let own = Identity { name: format!("front-{number}"), server: SERVER.into(), keys };
                Links::new(own, LinkLimits::default())
            });
            links.extend(config.links.clone());
            (self.config)(&mut config);
            let front = Front::start(config, self.store.clone(), self.publisher.clone());
            let (address, task) = serve_at(listener().await, front.router());
            fronts.push(front);
            addresses.push(address);
            serving.push(task);
        }
        Site {
            store: self.store,
            broadcast,
            fronts,
            http: http(),
            keys,
            links,
            carrying: Mutex::default(),
            addresses,
            next: AtomicUsize::new(0),
            serving,
        }
    }
}

/// The events of a stream.
#[derive(Debug)]
pub struct Events {
    response: reqwest::Response,
    text: String,
}

impl Events {
    /// The events of an answer, which is a stream.
    #[must_use]
    pub fn new(response: reqwest::Response) -> Self {
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The data of the next event that has some.
    pub async fn next(&mut self) -> String {
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let data = event.lines().find_map(|line| line.strip_prefix("data: ")).map(str::to_owned);
                self.text = rest.to_owned();
                if let Some(data) = data {
                    return data;
                }
            }
            let chunk = tokio::time::timeout(crate::PATIENCE, self.response.chunk()).await;
            let chunk = chunk.expect("an event in time").unwrap().expect("the stream stands");
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The same, as JSON.
    pub async fn json(&mut self) -> Value {
        serde_json::from_str(&self.next().await).unwrap()
    }
}
