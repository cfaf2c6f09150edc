//! A front end and a worker in this process, over either store.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use conformance::Fixture;
use odin::broadcast::BroadcastKey;
use odin::call::Timing;
use odin::front::{Access, Front, FrontConfig, FrontLimits, Handover};
use odin::program::process;
use odin::protocol::{origin::HostRules, session::SessionKeys};
use odin::runner::RmcpRunner;
use odin::serve;
use odin::store::{MemoryStore, RedisStore, Store, StoreLimits};
use odin::worker::{Worker, WorkerConfig};
use tokio::task::JoinHandle;

/// Panics of this process, caught or not.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Counts panics from now on; where they happened is still printed.
pub(crate) fn count_panics() {
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // A test's own failure is none of the server's.
            if !info.location().is_some_and(|place| place.file().contains("tests/edges/")) {
                PANICS.fetch_add(1, Ordering::SeqCst);
            }
            before(info);
        }));
    });
}

/// Panics so far.
pub(crate) fn panics() -> usize {
    PANICS.load(Ordering::SeqCst)
}

/// A running server. Ends with the value, but for what its store still runs.
pub(crate) struct Server {
    /// Where it listens.
    pub(crate) address: std::net::SocketAddr,
    /// Its worker.
    pub(crate) worker: Worker,
    serving: JoinHandle<()>,
}

impl Server {
    /// One over the memory of this process.
    pub(crate) async fn in_memory() -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Timing::default(), StoreLimits::default()));
        Self::over(store.clone(), store, FrontLimits::default().queue_patience).await
    }

    /// One over a Redis.
    pub(crate) async fn over_redis(url: &str) -> Self {
        Self::with_patience(url, FrontLimits::default().queue_patience).await
    }

    /// One over a Redis, whose calls wait in the queue for this time.
    pub(crate) async fn with_patience(url: &str, patience: Duration) -> Self {
        let connect = || RedisStore::connect(url, Timing::default(), StoreLimits::default()).unwrap();
        Self::over(Arc::new(connect()), Arc::new(connect()), patience).await
    }

    async fn over(store: Arc<dyn Store>, beats: Arc<dyn Store>, queue_patience: Duration) -> Self {
        let runner = Arc::new(RmcpRunner::new(Arc::new(Fixture::new().unwrap())));
        let config = WorkerConfig { name: process::unique_name("edges"), ..WorkerConfig::new("default") };
        let worker = Worker::start(config, store.clone(), Box::new(move || beats), runner, None).unwrap();
        let key = BASE64_URL_SAFE_NO_PAD.encode([7; 32]);
        let config = FrontConfig {
            node: process::unique_name("edges"),
            server: "default".into(),
            access: Access::Open(HostRules::default()),
            handover: Handover::None,
            hold_after: Duration::from_millis(100),
            sessions: SessionKeys::parse(&key).unwrap(),
            grip: None,
            broadcast: BroadcastKey::random(),
            policy: Default::default(),
            limits: FrontLimits {
                calls_of_principal: 100_000,
                calls_of_organisation: 100_000,
                queue_patience,
                ..FrontLimits::default()
            },
            lease: Timing::default().lease,
        };
        let front = Front::start(config, store, None);
        e2e::stack::wait("front end and worker are ready", Duration::from_secs(20), async || {
            (front.ready().is_ok() && worker.ready().is_ok()).then_some(())
        })
        .await;
        let listener = serve::listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move { axum::serve(listener, front.router()).await.unwrap() });
        Self { address, worker, serving }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
