//! What the supervisor knows about a part.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::health::Probe;

/// What a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Kind {
    Backend,
    Worker,
    Gateway,
    Pushpin,
    Redis,
    Keycloak,
    Inspector,
}

impl Kind {
    /// The name in `status --json` and in `[env.…]` of the state file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Backend => "backend",
            Self::Worker => "worker",
            Self::Gateway => "gateway",
            Self::Pushpin => "pushpin",
            Self::Redis => "redis",
            Self::Keycloak => "keycloak",
            Self::Inspector => "inspector",
        }
    }
}

/// How to run one part.
#[derive(Debug, Clone)]
pub struct PartSpec {
    /// Its name, unique in the stack: `backend-1`, `gateway`.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Where it serves: `127.0.0.1:8081`.
    pub address: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Environment, in addition to the supervisor's own (without `ASGARD_*`, `KC_*`, `KONG_*`).
    pub env: BTreeMap<String, String>,
    /// Where it runs.
    pub folder: PathBuf,
    /// Parts that must have been ready once before this one starts.
    pub after: Vec<String>,
    /// What shows that it is ready.
    pub probe: Probe,
    /// How long its start may take before the stack's start counts as failed.
    pub start_timeout: Duration,
    /// How long it may take to end by itself; then it is killed.
    pub stop_timeout: Duration,
    /// What the kernel sends it when the supervisor dies. Parts with children of their own get SIGTERM, so
    /// that they can end them; all others SIGKILL.
    pub orphan_signal: Signal,
    /// Ends before the others do not (0) or after them (1): stores and the holder of streams go last.
    pub stop_wave: u8,
}

/// How a part is now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartState {
    /// Its process, when it runs.
    pub pid: Option<u32>,
    /// Whether its last health check was good.
    pub ready: bool,
    /// It was stopped by an order.
    pub stopped: bool,
    /// Why it is not started any more.
    pub gave_up: Option<String>,
    /// Why the last health check was not good.
    pub reason: Option<String>,
}

/// One part, as `status --json` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartStatus {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Its process; `null` when it does not run.
    pub pid: Option<u32>,
    /// Where it serves.
    pub address: String,
    /// Whether its health check is good.
    pub ready: bool,
}

/// Decides about restarts: quick at first, slower with each death, and no more after too many.
#[derive(Debug, Default)]
pub struct Backoff {
    deaths: Vec<std::time::Instant>,
}

impl Backoff {
    /// Deaths within [`Self::WINDOW`] after which a part is given up.
    pub const MAX_DEATHS: usize = 5;
    /// The time in which they count.
    pub const WINDOW: Duration = Duration::from_secs(30);

    /// Counts a death; the wait before the next start, or `None` when there is none.
    pub fn died(&mut self, now: std::time::Instant) -> Option<Duration> {
        self.deaths.retain(|death| now.duration_since(*death) < Self::WINDOW);
        self.deaths.push(now);
        match self.deaths.len() {
            1 => Some(Duration::from_millis(50)),
            2 => Some(Duration::from_millis(400)),
            3 => Some(Duration::from_millis(1_200)),
            n if n < Self::MAX_DEATHS => Some(Duration::from_millis(3_000)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn five_deaths_in_thirty_seconds_end_it() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        let at = |s: u64| now + Duration::from_secs(s);
        for death in 0..4 {
            assert!(backoff.died(at(death)).is_some());
        }
        assert_eq!(backoff.died(at(5)), None);
    }

    #[test]
    fn old_deaths_are_forgotten() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        for death in 0..20 {
            let wait = backoff.died(now + Duration::from_secs(death * 8));
            assert!(wait.is_some_and(|wait| wait < Duration::from_secs(5)), "death {death}");
        }
    }

    #[test]
    fn a_status_is_the_documented_json() {
        let status = PartStatus {
            name: "backend-1".into(),
            kind: Kind::Backend,
            pid: Some(7),
            address: "127.0.0.1:8081".into(),
            ready: true,
        };
        assert_eq!(
            serde_json::to_string(&status).unwrap(),
            r#"{"name":"backend-1","kind":"backend","pid":7,"address":"127.0.0.1:8081","ready":true}"#
        );
        for kind in ["backend", "worker", "gateway", "pushpin", "redis", "keycloak", "inspector"] {
            let parsed: Kind = serde_json::from_str(&format!("\"{kind}\"")).unwrap();
            assert_eq!(parsed.name(), kind);
        }
    }
}
