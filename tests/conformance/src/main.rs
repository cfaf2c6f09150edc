//! Runs the fixture as a worker beside backends of its own kind, or, with `--embedded`, as a whole server in one
//! process.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::Parser;
use conformance::Fixture;
use odin::broadcast::{BroadcastKey, Broadcaster};
use odin::broker::{Broker, BrokerLimits, MemoryBroker, RedisBroker};
use odin::call::Timing;
use odin::front::{Access, Front, FrontConfig, FrontLimits, Handover};
use odin::node;
use odin::protocol::origin::HostRules;
use odin::protocol::session::SessionKeys;
use odin::runner::{RmcpRunner, StateKeys};
use odin::worker::{Worker, WorkerConfig};
use tracing_subscriber::EnvFilter;

/// How long running calls may take to end when the program is asked to stop.
const PATIENCE: Duration = Duration::from_secs(5);

/// The server of the conformance suite.
#[derive(Debug, Parser)]
struct Settings {
    /// Address for health checks; with `--embedded`, of the server.
    #[arg(long, env = "ASGARD_LISTEN", default_value = "127.0.0.1:8091")]
    listen: String,
    /// Redis that backends and workers share.
    #[arg(long, env = "ASGARD_REDIS_URL", default_value = "redis://127.0.0.1:6380")]
    redis_url: String,
    /// Pushpins that hold streams, comma-separated.
    #[arg(long, env = "ASGARD_PUSHPINS", default_value = "")]
    pushpins: String,
    /// Named server that it serves.
    #[arg(long, env = "ASGARD_SERVER", default_value = "default")]
    server: String,
    /// What this worker is called.
    #[arg(long, env = "ASGARD_WORKER", default_value = "conformance")]
    worker: String,
    /// What to log, as in RUST_LOG.
    #[arg(long, env = "ASGARD_LOG", default_value = "info,rmcp=warn")]
    log: String,
    /// A whole server in this process, with its memory as the broker.
    #[arg(long)]
    embedded: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let settings = Settings::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&settings.log))
        .with_writer(std::io::stderr)
        .init();
    match run(&settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("conformance-server: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: &Settings) -> Result<(), String> {
    let fixture = Fixture::new().map_err(|error| error.message.into_owned())?;
    let keys = StateKeys::from_env().map_err(|error| format!("ASGARD_STATE_KEY: {error}"))?;
    let broadcast = BroadcastKey::from_env().map_err(|error| format!("ASGARD_BROADCAST_KEY: {error}"))?;
    let runner = |broadcaster| {
        Arc::new(RmcpRunner::new(Arc::new(fixture)).with_state_keys(keys).with_broadcaster(broadcaster))
    };
    let config =
        WorkerConfig { name: node::unique_name(&settings.worker), ..WorkerConfig::new(&settings.server) };
    let failed = |error: std::io::Error| format!("the worker can't start: {error}");
    if settings.embedded {
        let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(Timing::default(), BrokerLimits::default()));
        let beats = broker.clone();
        let front = Front::start(front_config(&settings.server, broadcast)?, broker.clone(), None);
        let runner = runner(front.broadcaster().clone());
        let worker = Worker::start(config, broker, Box::new(move || beats), runner, None).map_err(failed)?;
        return serve(&settings.listen, front.router(), worker).await;
    }
    let connect = {
        let url = settings.redis_url.clone();
        move || RedisBroker::connect(&url, Timing::default(), BrokerLimits::default(), 1)
    };
    let broker: Arc<dyn Broker> = Arc::new(connect().map_err(|error| format!("ASGARD_REDIS_URL: {error}"))?);
    let fallback = broker.clone();
    let beats = move || connect().map_or(fallback, |broker| Arc::new(broker) as Arc<dyn Broker>);
    let pushpins = node::pushpins(&settings.pushpins).map_err(|error| format!("ASGARD_PUSHPINS: {error}"))?;
    let pushpins = node::publisher(pushpins);
    let publisher = pushpins.as_ref().map(|(publisher, _)| publisher.clone());
    let runner = runner(Broadcaster::new(&settings.server, broadcast, broker.clone(), publisher));
    let worker = Worker::start(config, broker, Box::new(beats), runner, pushpins).map_err(failed)?;
    let ready = worker.clone();
    serve(&settings.listen, node::health_routes(move || ready.ready()), worker).await
}

async fn serve(address: &str, routes: axum::Router, worker: Worker) -> Result<(), String> {
    let listener =
        node::listen(address).await.map_err(|error| format!("can't listen on {address}: {error}"))?;
    axum::serve(listener, routes)
        .with_graceful_shutdown(async move {
            node::stop_signal().await;
            worker.shut_down(PATIENCE).await;
        })
        .await
        .map_err(|error| format!("serving failed: {error}"))
}

fn front_config(server: &str, broadcast: BroadcastKey) -> Result<FrontConfig, String> {
    let key = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let timing = Timing::default();
    Ok(FrontConfig {
        node: node::unique_name("conformance"),
        server: server.to_owned(),
        access: Access::Open(HostRules::default()),
        handover: Handover::None,
        hold_after: Duration::from_millis(100),
        sessions: SessionKeys::parse(&key).map_err(|error| error.to_string())?,
        grip: None,
        broadcast,
        limits: FrontLimits::default(),
        lease: timing.lease,
    })
}
