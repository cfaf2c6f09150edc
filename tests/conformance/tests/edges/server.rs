//! A front end and a worker in this process, over either store.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use conformance::Fixture;
use kit::site::{front_config, listener, memory, over_url, serve_at, worker};
use odin::broadcast::BroadcastKey;
use odin::front::{Front, FrontLimits};
use odin::runner::RmcpRunner;
use odin::store::{Store, StoreLimits};
use odin::worker::Worker;
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
        let store = memory();
        Self::over(store.clone(), store, FrontLimits::default().queue_patience).await
    }

    /// One over a Redis.
    pub(crate) async fn over_redis(url: &str) -> Self {
        Self::with_patience(url, FrontLimits::default().queue_patience).await
    }

    /// One over a Redis, whose calls wait in the queue for this time.
    pub(crate) async fn with_patience(url: &str, patience: Duration) -> Self {
        let connect = || over_url(url, StoreLimits::default());
        Self::over(connect(), connect(), patience).await
    }

    async fn over(store: Arc<dyn Store>, beats: Arc<dyn Store>, queue_patience: Duration) -> Self {
        let runner = Arc::new(RmcpRunner::new(Arc::new(Fixture::new().unwrap())));
        let worker = worker(store.clone(), beats, runner, None);
        let mut config = front_config(BroadcastKey::random());
        config.limits.calls_of_principal = 100_000;
        config.limits.calls_of_organisation = 100_000;
        config.limits.queue_patience = queue_patience;
        let front = Front::start(config, store, None);
        kit::wait("front end and worker are ready", async || front.ready().is_ok() && worker.ready().is_ok())
            .await;
        let (address, serving) = serve_at(listener().await, front.router());
        Self { address, worker, serving }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
