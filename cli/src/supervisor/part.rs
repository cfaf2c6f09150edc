//! What the supervisor knows about a part.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

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
    /// Files of an earlier run that would keep it from starting; removed before each start.
    pub stale: Vec<PathBuf>,
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
    /// It keeps dying: how often, and when it is started again.
    pub failing: Option<String>,
    /// Why the last health check was not good.
    pub reason: Option<String>,
    /// What it can't do now although it is ready, with the reasons.
    pub degraded: Vec<String>,
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
    /// What it can't do now although it is ready, with the reasons. Left out of the JSON when there is nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub degraded: Vec<String>,
}

/// Decides about restarts: quick at first, and ever slower for a part that keeps dying. No part is given up.
#[derive(Debug, Default)]
pub struct Backoff {
    deaths: Vec<Instant>,
    /// Deaths since restarts became slow; 0: they are quick.
    slow: u32,
}

/// What follows a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Soon: a part may die now and then.
    Quick(Duration),
    /// Later: it keeps dying.
    Slow(Duration),
}

impl Restart {
    /// The time until the next start.
    #[must_use]
    pub fn wait(self) -> Duration {
        let (Self::Quick(wait) | Self::Slow(wait)) = self;
        wait
    }
}

impl Backoff {
    /// Deaths within [`Self::WINDOW`] after which restarts become slow.
    pub const MAX_DEATHS: usize = 5;
    /// The time in which they count. A part that lived that long is sound: its restarts are quick again.
    pub const WINDOW: Duration = Duration::from_secs(30);
    /// The first slow wait; it doubles with each death.
    const SLOW: Duration = Duration::from_secs(6);
    /// The longest wait.
    const SLOWEST: Duration = Duration::from_secs(30);

    /// Counts a death of a part that lived for some time.
    pub fn died(&mut self, now: Instant, lived: Duration) -> Restart {
        if lived >= Self::WINDOW {
            *self = Self::default();
        }
        self.deaths.retain(|death| now.duration_since(*death) < Self::WINDOW);
        self.deaths.push(now);
        if self.slow == 0 && self.deaths.len() < Self::MAX_DEATHS {
            return Restart::Quick(Duration::from_millis(match self.deaths.len() {
                1 => 50,
                2 => 400,
                3 => 1_200,
                _ => 3_000,
            }));
        }
        let wait = Self::SLOW.saturating_mul(1 << self.slow.min(8)).min(Self::SLOWEST);
        self.slow = self.slow.saturating_add(1);
        Restart::Slow(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIEF: Duration = Duration::from_millis(10);

    #[test]
    fn who_keeps_dying_is_started_ever_more_slowly_and_for_ever() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        for death in 0..4 {
            assert!(matches!(backoff.died(now, BRIEF), Restart::Quick(_)), "death {death}");
            now += Duration::from_secs(1);
        }
        for seconds in [6, 12, 24, 30, 30, 30, 30, 30, 30, 30, 30, 30] {
            let restart = backoff.died(now, BRIEF);
            assert_eq!(restart, Restart::Slow(Duration::from_secs(seconds)));
            now += restart.wait();
        }
        // It lived for a while: quick again.
        assert_eq!(backoff.died(now, Backoff::WINDOW), Restart::Quick(Duration::from_millis(50)));
    }

    #[test]
    fn old_deaths_are_forgotten() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        for death in 0..20 {
            let restart = backoff.died(now + Duration::from_secs(death * 8), Duration::from_secs(8));
            assert!(matches!(restart, Restart::Quick(_)), "death {death}");
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
            degraded: Vec::new(),
        };
        let text = r#"{"name":"backend-1","kind":"backend","pid":7,"address":"127.0.0.1:8081","ready":true}"#;
        assert_eq!(serde_json::to_string(&status).unwrap(), text);
        let degraded = PartStatus { degraded: vec!["pushpin: away".into()], ..status };
        assert_eq!(
            serde_json::to_string(&degraded).unwrap(),
            text.replace('}', r#","degraded":["pushpin: away"]}"#)
        );
        for kind in ["backend", "worker", "gateway", "pushpin", "redis", "keycloak", "inspector"] {
            let parsed: Kind = serde_json::from_str(&format!("\"{kind}\"")).unwrap();
            assert_eq!(parsed.name(), kind);
        }
    }
}
