//! The stock Odin worker.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use odin::broadcast::{BroadcastKey, Broadcaster};
use odin::broker::{Broker, BrokerLimits, RedisBroker};
use odin::call::Timing;
use odin::node;
use odin::runner::{RmcpRunner, StateKeys};
use odin::worker::{Worker, WorkerConfig};
use tracing_subscriber::EnvFilter;
use worker::toolbox::Toolbox;

/// How long running calls may take to end when the worker is asked to stop.
const PATIENCE: Duration = Duration::from_secs(20);

/// A worker that runs the stock toolbox.
#[derive(Debug, Parser)]
#[command(version)]
struct Settings {
    /// Address for health checks.
    #[arg(long, env = "ASGARD_LISTEN", default_value = "127.0.0.1:8091")]
    listen: String,
    /// Redis that backends and workers share.
    #[arg(long, env = "ASGARD_REDIS_URL", default_value = "redis://127.0.0.1:6380")]
    redis_url: String,
    /// Shards of the records in Redis; the same on every node.
    #[arg(long, env = "ASGARD_SHARDS", default_value_t = 1)]
    shards: u8,
    /// Pushpins that hold streams, comma-separated.
    #[arg(long, env = "ASGARD_PUSHPINS", default_value = "")]
    pushpins: String,
    /// Named server that it serves.
    #[arg(long, env = "ASGARD_SERVER", default_value = "default")]
    server: String,
    /// What this worker is called; a random part is added, as a restarted worker is another one.
    #[arg(long, env = "ASGARD_WORKER")]
    worker: Option<String>,
    /// Calls that run at once.
    #[arg(long, env = "ASGARD_CONCURRENCY", default_value_t = 64)]
    concurrency: usize,
    /// What to log, as in RUST_LOG.
    #[arg(long, env = "ASGARD_LOG", default_value = "info,rmcp=warn")]
    log: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let settings = Settings::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&settings.log))
        .with_writer(std::io::stderr)
        .init();
    match run(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("worker: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: Settings) -> Result<(), String> {
    let connect = {
        let (url, shards) = (settings.redis_url.clone(), settings.shards);
        move || RedisBroker::connect(&url, Timing::default(), BrokerLimits::default(), shards)
    };
    let broker: Arc<dyn Broker> = Arc::new(connect().map_err(|error| format!("ASGARD_REDIS_URL: {error}"))?);
    let pushpins = node::pushpins(&settings.pushpins).map_err(|error| format!("ASGARD_PUSHPINS: {error}"))?;
    let toolbox = Toolbox::from_env().map_err(|error| error.to_string())?;
    let config = WorkerConfig {
        name: node::unique_name(settings.worker.as_deref().unwrap_or("worker")),
        concurrency: settings.concurrency.max(1),
        ..WorkerConfig::new(&settings.server)
    };
    // The leases' own connection; the address was checked above.
    let fallback = broker.clone();
    let beats = move || connect().map_or(fallback, |broker| Arc::new(broker) as Arc<dyn Broker>);
    let keys = StateKeys::from_env().map_err(|error| format!("ASGARD_STATE_KEY: {error}"))?;
    let pushpins = node::publisher(pushpins);
    let broadcast = BroadcastKey::from_env().map_err(|error| format!("ASGARD_BROADCAST_KEY: {error}"))?;
    let publisher = pushpins.as_ref().map(|(publisher, _)| publisher.clone());
    let broadcaster = Broadcaster::new(&settings.server, broadcast, broker.clone(), publisher);
    let runner =
        Arc::new(RmcpRunner::new(Arc::new(toolbox)).with_state_keys(keys).with_broadcaster(broadcaster));
    runner.learn().await.map_err(|error| format!("the server can't list its tools: {error:?}"))?;
    let worker = Worker::start(config, broker, Box::new(beats), runner, pushpins)
        .map_err(|error| format!("the worker can't start: {error}"))?;
    let listener = node::listen(&settings.listen).await.map_err(|error| {
        format!("can't listen on {}: {error}. Is another process there?", settings.listen)
    })?;
    tracing::info!(address = %settings.listen, "serving");
    let ready = worker.clone();
    axum::serve(listener, node::health_routes(move || ready.ready()))
        .with_graceful_shutdown(async move {
            node::stop_signal().await;
            worker.shut_down(PATIENCE).await;
        })
        .await
        .map_err(|error| format!("serving failed: {error}"))
}
