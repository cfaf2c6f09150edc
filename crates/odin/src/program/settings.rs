//! Settings of the programs: arguments and environment. Secrets are none of them ([`super::secrets`]).

use std::time::Duration;

use clap::builder::{RangedI64ValueParser, RangedU64ValueParser, TypedValueParser};
use redis::IntoConnectionInfo;

use super::secrets::{REDIS_URL, secret};
use crate::front::{FrontLimits, Handover};
use crate::link::Address;
use crate::store::StoreLimits;

/// What all programs of a site share.
#[derive(Debug, Clone, clap::Args)]
#[non_exhaustive]
pub struct CommonSettings {
    /// Redis that backends and workers share: redis://host:port, or redis+unix:///path. One with a password comes by
    /// ASGARD_REDIS_URL, or by the file that ASGARD_REDIS_URL_FILE names: every user of a machine sees its command lines.
    #[arg(long)]
    pub redis_url: Option<String>,
    /// Pushpins that hold streams, comma-separated. Empty: streams go through the backends.
    #[arg(long, env = "ASGARD_PUSHPINS", default_value = "")]
    pub pushpins: String,
    /// Named server that requests are for; the same on every node.
    #[arg(long, env = "ASGARD_SERVER", default_value = "default")]
    pub server: String,
    /// Calls of one principal that are open at once (queued, running, or held with their answer); more
    /// get 429. The same on every node.
    #[arg(long, env = "ASGARD_CALLS_OF_PRINCIPAL", default_value_t = 256)]
    pub calls_of_principal: usize,
    /// The same for one organisation.
    #[arg(long, env = "ASGARD_CALLS_OF_ORGANISATION", default_value_t = 4096)]
    pub calls_of_organisation: usize,
    /// Whether calls may go straight to workers, on links; false: all go through the queue.
    #[arg(long, env = "ASGARD_DIRECT", default_value_t = true, action = clap::ArgAction::Set)]
    pub direct: bool,
    /// Threads that requests (of a backend) or tools (of a worker) run in. Unset: one in a backend, as calls that stay in a
    /// thread cost least, and more backends do what more threads do; one for each core but one in a worker, and for each core
    /// in a server of one process. A program with a runtime of its own, as by #[tokio::main], has TOKIO_WORKER_THREADS
    /// instead.
    #[arg(long, env = "ASGARD_THREADS", value_parser = threads())]
    pub threads: Option<usize>,
    /// What to log, as in RUST_LOG.
    #[arg(long, env = "ASGARD_LOG", default_value = "info,rmcp=warn")]
    pub log: String,
}

impl CommonSettings {
    /// The URL of the site's Redis; `None` where there is none.
    ///
    /// # Errors
    /// A password on the command line, and a variable or file of a secret that can't be read.
    pub fn redis(&self) -> Result<Option<String>, String> {
        let Some(url) = &self.redis_url else { return secret(REDIS_URL) };
        // An address that can't be read says so where it is used.
        let with_password =
            url.as_str().into_connection_info().is_ok_and(|info| info.redis_settings().password().is_some());
        if with_password {
            return Err(format!(
                "--redis-url has a password, and every user of this machine sees it there: give the URL by {REDIS_URL}, \
                 or by the file that {REDIS_URL}_FILE names"
            ));
        }
        Ok(Some(url.clone()))
    }

    pub(super) fn limits(&self) -> StoreLimits {
        StoreLimits {
            calls_of_principal: self.calls_of_principal,
            calls_of_organisation: self.calls_of_organisation,
            ..StoreLimits::default()
        }
    }
}

/// What a worker needs beside that.
#[derive(Debug, Clone, clap::Args)]
#[non_exhaustive]
pub struct WorkerSettings {
    /// What this worker is called; a random part is added, as a restarted worker is another one.
    #[arg(long = "worker", env = "ASGARD_WORKER")]
    pub name: Option<String>,
    /// Calls that run at once.
    #[arg(long, env = "ASGARD_CONCURRENCY", default_value_t = 64, value_parser = count(1))]
    pub concurrency: usize,
    /// Rounds of tasks that run at once, beside the calls; 0: this worker takes no tasks.
    #[arg(long, env = "ASGARD_TASK_CONCURRENCY", default_value_t = 32, value_parser = count(0))]
    pub task_concurrency: usize,
    /// Percent of the slots (of calls, and of rounds of tasks) that one organisation may have at once. Always at
    /// least one slot.
    #[arg(long, env = "ASGARD_ORGANISATION_SHARE", default_value_t = 75, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub organisation_share: u8,
    /// Percent of the slots that one principal may have at once. Always at least one slot.
    #[arg(long, env = "ASGARD_PRINCIPAL_SHARE", default_value_t = 50, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub principal_share: u8,
    /// Bytes of an answer; in place of a larger one the client gets an error. A stream that Pushpin holds carries about
    /// 900,000 all the same.
    #[arg(long, env = "ASGARD_ANSWER_BYTES", default_value_t = 4_194_304, value_parser = number(10_000, 67_108_864))]
    pub answer_bytes: u32,
    /// Where it takes calls straight from backends, beside the queue: HOST:PORT, or unix:/PATH on one machine. Needs
    /// ASGARD_LINK_KEY. Unset: all calls come through the queue. No tenant's program may reach it.
    #[arg(long, env = "ASGARD_LINKS")]
    pub links: Option<Address>,
    /// Where backends find that, if it is another address there.
    #[arg(long, env = "ASGARD_LINKS_AT")]
    pub links_at: Option<Address>,
}

fn threads() -> impl TypedValueParser<Value = usize> {
    RangedU64ValueParser::<usize>::new().range(1..=1024)
}

/// A number of things at once.
fn count(least: u64) -> impl TypedValueParser<Value = usize> {
    RangedU64ValueParser::<usize>::new().range(least..=100_000)
}

/// What a backend needs beside that.
#[derive(Debug, Clone, clap::Args)]
#[non_exhaustive]
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
    /// Let the admin API listen where other machines reach it. It has no TLS: its token is readable on the way.
    #[arg(long, env = "ASGARD_ADMIN_REMOTE")]
    pub admin_remote: bool,
    /// File with the policy: the JSON object that the gateway's filter has under `policy`. Unset: everybody
    /// of an organisation may use everything.
    #[arg(long, env = "ASGARD_POLICY")]
    pub policy: Option<std::path::PathBuf>,
    /// MiB that the bodies of all requests under way may take. One organisation has at most half of it, one
    /// user a quarter, so that no less than 16 make sense.
    #[arg(long, env = "ASGARD_BODY_MEMORY_MIB", default_value_t = 128, value_parser = number(16, 65_536))]
    pub body_memory_mib: u32,
    /// Seconds that a body may take to arrive.
    #[arg(long, env = "ASGARD_BODY_TIME_S", default_value_t = 60, value_parser = number(1, 3600))]
    pub body_time_s: u32,
    /// Seconds for which nothing of a body may come meanwhile.
    #[arg(long, env = "ASGARD_BODY_PAUSE_S", default_value_t = 10, value_parser = number(1, 3600))]
    pub body_pause_s: u32,
}

fn number(least: i64, most: i64) -> impl TypedValueParser<Value = u32> {
    RangedI64ValueParser::<u32>::new().range(least..=most)
}

impl BackendSettings {
    pub(super) fn limits(&self) -> FrontLimits {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        FrontLimits {
            bodies: (self.body_memory_mib as usize).saturating_mul(1024 * 1024),
            body_time: seconds(self.body_time_s),
            body_pause: seconds(self.body_pause_s),
            ..FrontLimits::default()
        }
    }
}
