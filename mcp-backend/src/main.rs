//! OdinMCP: the MCP front end behind the gateway.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::Parser;
use identity::AssertionKeys;
use odin::admin::{self, AdminToken};
use odin::broadcast::BroadcastKey;
use odin::broker::{Broker, BrokerLimits, MemoryBroker, RedisBroker};
use odin::call::Timing;
use odin::front::{Access, Front, FrontConfig, FrontLimits, Handover};
use odin::node;
use odin::protocol::origin::HostRules;
use odin::protocol::session::SessionKeys;
use odin::runner::{RmcpRunner, StateKeys};
use odin::worker::{Worker, WorkerConfig};
use tracing_subscriber::EnvFilter;
use worker::toolbox::Toolbox;

/// The MCP front end. Secrets come from the environment alone.
#[derive(Debug, Parser)]
#[command(version)]
struct Settings {
    /// Address to listen on.
    #[arg(long, env = "ASGARD_LISTEN", default_value = "127.0.0.1:8081")]
    listen: String,
    /// Redis that backends and workers share.
    #[arg(long, env = "ASGARD_REDIS_URL", default_value = "redis://127.0.0.1:6380")]
    redis_url: String,
    /// Shards of the records in Redis; the same on every node.
    #[arg(long, env = "ASGARD_SHARDS", default_value_t = 1)]
    shards: u8,
    /// Pushpins that hold streams, comma-separated. Empty: streams go through this process.
    #[arg(long, env = "ASGARD_PUSHPINS", default_value = "")]
    pushpins: String,
    /// How clients are handed over to Pushpin: kong, envoy or none.
    #[arg(long, env = "ASGARD_HANDOVER", default_value = "none")]
    handover: Handover,
    /// Milliseconds to wait for a result before the client is handed over.
    #[arg(long, env = "ASGARD_HOLD_AFTER_MS", default_value_t = 100)]
    hold_after_ms: u64,
    /// Named server that requests are for.
    #[arg(long, env = "ASGARD_SERVER", default_value = "default")]
    server: String,
    /// What this node is called; a random part is added, as a restarted node is another one.
    #[arg(long, env = "ASGARD_NODE")]
    node: Option<String>,
    /// Issuer of Pushpin's Grip-Sig.
    #[arg(long, env = "ASGARD_GRIP_ISS", default_value = "pushpin")]
    grip_iss: String,
    /// Address of the admin API, which no gateway may lead to. Needs ASGARD_ADMIN_TOKEN; unset: there is none.
    #[arg(long, env = "ASGARD_ADMIN_LISTEN")]
    admin_listen: Option<String>,
    /// What to log, as in RUST_LOG.
    #[arg(long, env = "ASGARD_LOG", default_value = "info,rmcp=warn")]
    log: String,
    /// Run the stock worker in this process, with no Redis: one process, for development and small sites.
    #[arg(long)]
    embedded_worker: bool,
    #[command(flatten)]
    secrets: Secrets,
}

/// Given by the environment, so that they show in no process list.
#[derive(clap::Args)]
struct Secrets {
    #[arg(long, env = "ASGARD_ASSERTION_KEYS", hide = true, hide_env_values = true)]
    assertion_keys: Option<String>,
    #[arg(long, env = "ASGARD_SESSION_KEY", hide = true, hide_env_values = true)]
    session_key: Option<String>,
    #[arg(long, env = "ASGARD_GRIP_KEY", hide = true, hide_env_values = true)]
    grip_key: Option<String>,
    #[arg(long, env = "ASGARD_ADMIN_TOKEN", hide = true, hide_env_values = true)]
    admin_token: Option<String>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(..)")
    }
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
            eprintln!("mcp-backend: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: Settings) -> Result<(), String> {
    let timing = Timing::default();
    let config = front_config(&settings, &timing)?;
    let broker: Arc<dyn Broker> = if settings.embedded_worker {
        Arc::new(MemoryBroker::new(timing, BrokerLimits::default()))
    } else {
        let redis =
            RedisBroker::connect(&settings.redis_url, timing, BrokerLimits::default(), settings.shards);
        Arc::new(redis.map_err(|error| format!("ASGARD_REDIS_URL: {error}"))?)
    };
    let pushpins = node::pushpins(&settings.pushpins).map_err(|error| format!("ASGARD_PUSHPINS: {error}"))?;
    let (front_publisher, worker_pushpins) = if settings.embedded_worker {
        let pushpins = node::publisher(pushpins);
        (pushpins.as_ref().map(|(publisher, _)| publisher.clone()), pushpins)
    } else {
        (node::publisher(pushpins).map(|(publisher, _)| publisher), None)
    };
    let front = Front::start(config, broker.clone(), front_publisher);
    let worker = if settings.embedded_worker {
        let toolbox = Toolbox::from_env().map_err(|error| error.to_string())?;
        let keys = StateKeys::from_env().map_err(|error| format!("ASGARD_STATE_KEY: {error}"))?;
        let runner = RmcpRunner::new(Arc::new(toolbox)).with_state_keys(keys);
        let runner = Arc::new(runner.with_broadcaster(front.broadcaster().clone()));
        let config =
            WorkerConfig { name: node::unique_name("worker"), ..WorkerConfig::new(&settings.server) };
        let beats = broker.clone();
        let worker = Worker::start(config, broker, Box::new(move || beats), runner, worker_pushpins);
        Some(worker.map_err(|error| format!("the embedded worker can't start: {error}"))?)
    } else {
        None
    };
    let listener = bind(&settings.listen).await?;
    if let Some(address) = settings.admin_listen.as_deref().filter(|address| !address.is_empty()) {
        let token = settings.secrets.admin_token.as_deref().ok_or("ASGARD_ADMIN_TOKEN is missing")?;
        let token = AdminToken::new(token).map_err(|error| format!("ASGARD_ADMIN_TOKEN: {error}"))?;
        let listener = bind(address).await?;
        let routes = admin::routes(front.broadcaster().clone(), token);
        tracing::info!(address, "administrators may notify here");
        tokio::spawn(async move { axum::serve(listener, routes).await });
    }
    tracing::info!(address = %settings.listen, "listening");
    axum::serve(listener, front.router())
        .with_graceful_shutdown(node::stop_signal())
        .await
        .map_err(|error| format!("serving failed: {error}"))?;
    if let Some(worker) = worker {
        worker.shut_down(Duration::from_secs(5)).await;
    }
    Ok(())
}

async fn bind(address: &str) -> Result<node::NoDelay, String> {
    node::listen(address)
        .await
        .map_err(|error| format!("can't listen on {address}: {error}. Is another process there?"))
}

fn front_config(settings: &Settings, timing: &Timing) -> Result<FrontConfig, String> {
    let secrets = &settings.secrets;
    let access = match &secrets.assertion_keys {
        Some(keys) => {
            let keys =
                AssertionKeys::parse(keys).map_err(|error| format!("ASGARD_ASSERTION_KEYS: {error}"))?;
            Access::Gateway(Box::new(keys))
        }
        None if settings.embedded_worker && is_loopback(&settings.listen) => {
            tracing::warn!("no ASGARD_ASSERTION_KEYS: everybody on this machine may call, as one local user");
            Access::Open(HostRules::default())
        }
        None => {
            return Err("ASGARD_ASSERTION_KEYS is missing: the key that the gateway's filter signs \
                        identities with. Only an embedded worker on a loopback address does without."
                .into());
        }
    };
    let sessions = match &secrets.session_key {
        Some(key) => SessionKeys::parse(key).map_err(|error| format!("ASGARD_SESSION_KEY: {error}"))?,
        None if settings.embedded_worker => {
            let key = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
            SessionKeys::parse(&key).map_err(|error| error.to_string())?
        }
        None => {
            return Err("ASGARD_SESSION_KEY is missing: 32 random bytes in base64url, the same on all \
                        backends."
                .into());
        }
    };
    let grip = match &secrets.grip_key {
        Some(key) => {
            let key = BASE64_URL_SAFE_NO_PAD
                .decode(key.trim_end_matches('='))
                .map_err(|error| format!("ASGARD_GRIP_KEY is not base64url: {error}"))?;
            Some((settings.grip_iss.clone(), key))
        }
        None => None,
    };
    Ok(FrontConfig {
        node: node::unique_name(settings.node.as_deref().unwrap_or("backend")),
        server: settings.server.clone(),
        access,
        handover: settings.handover,
        hold_after: Duration::from_millis(settings.hold_after_ms),
        sessions,
        grip,
        broadcast: BroadcastKey::from_env().map_err(|error| format!("ASGARD_BROADCAST_KEY: {error}"))?,
        limits: FrontLimits::default(),
        lease: timing.lease,
    })
}

fn is_loopback(address: &str) -> bool {
    address.parse::<std::net::SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
}
