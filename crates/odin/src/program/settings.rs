//! Settings of the programs: arguments and environment. Secrets come from the environment alone.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::broker::BrokerLimits;
use crate::front::Handover;
use crate::protocol::session::SessionKeys;

/// What all programs of a site share.
#[derive(Debug, Clone, clap::Args)]
pub struct CommonSettings {
    /// Redis that backends and workers share.
    #[arg(long, env = "ASGARD_REDIS_URL")]
    pub redis_url: Option<String>,
    /// Shards of the records in Redis; the same on every node.
    #[arg(long, env = "ASGARD_SHARDS", default_value_t = 1)]
    pub shards: u8,
    /// Pushpins that hold streams, comma-separated. Empty: streams go through the backends.
    #[arg(long, env = "ASGARD_PUSHPINS", default_value = "")]
    pub pushpins: String,
    /// Named server that requests are for.
    #[arg(long, env = "ASGARD_SERVER", default_value = "default")]
    pub server: String,
    /// What to log, as in RUST_LOG.
    #[arg(long, env = "ASGARD_LOG", default_value = "info,rmcp=warn")]
    pub log: String,
}

impl CommonSettings {
    pub(super) fn limits(&self) -> BrokerLimits {
        BrokerLimits::default()
    }
}

/// What a worker needs beside that.
#[derive(Debug, Clone, clap::Args)]
pub struct WorkerSettings {
    /// What this worker is called; a random part is added, as a restarted worker is another one.
    #[arg(long = "worker", env = "ASGARD_WORKER")]
    pub name: Option<String>,
    /// Calls that run at once.
    #[arg(long, env = "ASGARD_CONCURRENCY", default_value_t = 64)]
    pub concurrency: usize,
    /// Rounds of tasks that run at once, beside the calls; 0: this worker takes no tasks.
    #[arg(long, env = "ASGARD_TASK_CONCURRENCY", default_value_t = 32)]
    pub task_concurrency: usize,
}

/// What a backend needs beside that.
#[derive(Debug, Clone, clap::Args)]
pub struct BackendSettings {
    /// How clients are handed over to Pushpin: kong, envoy or none.
    #[arg(long, env = "ASGARD_HANDOVER", default_value = "none")]
    pub handover: Handover,
    /// Milliseconds to wait for a result before the client is handed over.
    #[arg(long, env = "ASGARD_HOLD_AFTER_MS", default_value_t = 100)]
    pub hold_after_ms: u64,
    /// What this node is called; a random part is added, as a restarted node is another one.
    #[arg(long, env = "ASGARD_NODE")]
    pub node: Option<String>,
    /// Issuer of Pushpin's Grip-Sig.
    #[arg(long, env = "ASGARD_GRIP_ISS", default_value = "pushpin")]
    pub grip_iss: String,
    /// Address of the admin API, which no gateway may lead to. Needs ASGARD_ADMIN_TOKEN; unset: there is none.
    #[arg(long, env = "ASGARD_ADMIN_LISTEN")]
    pub admin_listen: Option<String>,
    /// File with the policy: the JSON object that the gateway's filter has under `policy`. Unset: everybody
    /// of an organisation may use everything.
    #[arg(long, env = "ASGARD_POLICY")]
    pub policy: Option<std::path::PathBuf>,
    #[command(flatten)]
    pub(super) secrets: Secrets,
}

/// Given by the environment, so that they show in no process list.
#[derive(Clone, clap::Args)]
pub(super) struct Secrets {
    #[arg(long, env = "ASGARD_ASSERTION_KEYS", hide = true, hide_env_values = true)]
    pub(super) assertion_keys: Option<String>,
    #[arg(long, env = "ASGARD_SESSION_KEY", hide = true, hide_env_values = true)]
    session_key: Option<String>,
    #[arg(long, env = "ASGARD_GRIP_KEY", hide = true, hide_env_values = true)]
    grip_key: Option<String>,
    #[arg(long, env = "ASGARD_ADMIN_TOKEN", hide = true, hide_env_values = true)]
    pub(super) admin_token: Option<String>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(..)")
    }
}

impl Secrets {
    /// The keys of session ids; of one process alone they may be random.
    pub(super) fn sessions(&self, alone: bool) -> Result<SessionKeys, String> {
        match &self.session_key {
            Some(key) => SessionKeys::parse(key).map_err(|error| format!("ASGARD_SESSION_KEY: {error}")),
            None if alone => {
                let key = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
                SessionKeys::parse(&key).map_err(|error| error.to_string())
            }
            None => Err("ASGARD_SESSION_KEY is missing: 32 random bytes in base64url, the same on all \
                         backends."
                .into()),
        }
    }

    /// The key of Pushpin's Grip-Sig.
    pub(super) fn grip(&self) -> Result<Option<Vec<u8>>, String> {
        let Some(key) = &self.grip_key else { return Ok(None) };
        let key = BASE64_URL_SAFE_NO_PAD.decode(key.trim_end_matches('='));
        key.map(Some).map_err(|error| format!("ASGARD_GRIP_KEY is not base64url: {error}"))
    }
}
