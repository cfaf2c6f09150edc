//! The supervisor: starts the parts in the order of their needs, and as parallel as that allows; waits until
//! their health checks are good; starts a part again that dies; ends all.

pub mod control;
pub mod part;
mod runner;

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::paths::{Paths, private_dir};
use crate::problem::{Problem, Result};
use part::{PartSpec, PartState, PartStatus};
use runner::{Ledger, Order, Runner};

/// Held by the one supervisor of a state folder, for as long as it lives.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "held, not read")] File);

impl Lock {
    /// Takes the lock of this state folder.
    ///
    /// # Errors
    /// When another supervisor holds it.
    pub fn take(paths: &Paths) -> Result<Self> {
        private_dir(&paths.home)?;
        let file = paths.home.join("asgard.lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&file)
            .map_err(|e| Problem::io("write", &file, &e))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self(lock)),
            Err(std::fs::TryLockError::WouldBlock) => Err(Problem::new("this stack is already running")
                .hint("`./asgard status` shows it, `./asgard down` stops it")),
            Err(std::fs::TryLockError::Error(e)) => Err(Problem::io("lock", &file, &e)),
        }
    }

    /// Whether nobody holds it.
    #[must_use]
    pub fn is_free(paths: &Paths) -> bool {
        match File::open(paths.home.join("asgard.lock")) {
            Ok(file) => file.try_lock_shared().is_ok(),
            Err(_) => true,
        }
    }
}

struct Running {
    spec: Arc<PartSpec>,
    state: watch::Receiver<PartState>,
    orders: mpsc::Sender<Order>,
}

/// A running stack.
pub struct Supervisor {
    parts: Vec<Running>,
    tasks: JoinSet<()>,
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.parts.iter().map(|p| &p.spec.name)).finish()
    }
}

impl Supervisor {
    /// Ends what an earlier supervisor of this folder left (it was killed). Call it before ports are checked.
    pub fn clear_leftovers(paths: &Paths) {
        Ledger::kill_leftovers(&paths.run());
    }

    /// Starts all parts. Must be called within a tokio runtime whose threads live as long as the process
    /// (see [`crate::process`]).
    ///
    /// # Errors
    /// When a log folder cannot be made, or a part names another that does not exist.
    pub fn start(specs: Vec<PartSpec>, paths: &Paths) -> Result<Self> {
        private_dir(&paths.logs())?;
        let ledger = Ledger::new(&paths.run());
        let channels: Vec<_> = specs.iter().map(|_| watch::channel(PartState::default())).collect();
        let receivers: BTreeMap<String, watch::Receiver<PartState>> = specs
            .iter()
            .zip(&channels)
            .map(|(spec, (_, state))| (spec.name.clone(), state.clone()))
            .collect();
        let (mut parts, mut tasks) = (Vec::new(), JoinSet::new());
        for (spec, (sender, state)) in specs.into_iter().zip(channels) {
            let after = spec.after.iter().filter_map(|name| receivers.get(name).cloned()).collect();
            let (orders, received) = mpsc::channel(4);
            let log = paths.log(&spec.name);
            if log.exists() {
                // Each start of the stack has its own log; the one before is kept.
                let _ = std::fs::rename(&log, log.with_extension("log.1"));
            }
            let spec = Arc::new(spec);
            let runner = Runner {
                spec: Arc::clone(&spec),
                log,
                see: format!("./asgard logs {}", spec.name),
                after,
                state: sender,
                orders: received,
                ledger: ledger.clone(),
            };
            tasks.spawn(runner.run());
            parts.push(Running { spec, state, orders });
        }
        Ok(Self { parts, tasks })
    }

    /// How the parts are now.
    #[must_use]
    pub fn status(&self) -> Vec<PartStatus> {
        let status = |part: &Running| {
            let state = part.state.borrow();
            PartStatus {
                name: part.spec.name.clone(),
                kind: part.spec.kind,
                pid: state.pid,
                address: part.spec.address.clone(),
                ready: state.ready,
                degraded: state.degraded.clone(),
            }
        };
        self.parts.iter().map(status).collect()
    }

    /// Lines about parts that are not ready, that keep dying, or that can't do all: why.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let notes = |part: &Running| {
            let (name, state) = (&part.spec.name, part.state.borrow());
            let mut notes: Vec<String> = state.failing.iter().cloned().collect();
            if state.ready {
                notes.extend(state.degraded.iter().map(|what| format!("{name}: degraded: {what}")));
            } else if notes.is_empty() || state.reason.is_some() {
                let why = match &state.reason {
                    _ if state.stopped => "stopped",
                    Some(reason) => reason,
                    None if state.pid.is_none() => "not started yet",
                    None => "not checked yet",
                };
                notes.push(format!("{name}: {why}"));
            }
            notes
        };
        self.parts.iter().flat_map(notes).collect()
    }

    /// Waits until all parts are ready. `progress` is called now and then.
    ///
    /// # Errors
    /// When a part keeps dying, or is not ready within its start time.
    pub async fn wait_ready(&self, mut progress: impl FnMut(&[PartStatus])) -> Result<()> {
        let began = Instant::now();
        loop {
            let status = self.status();
            progress(&status);
            if status.iter().all(|part| part.ready) {
                return Ok(());
            }
            for part in &self.parts {
                let state = part.state.borrow();
                if let Some(line) = &state.failing {
                    return Err(Problem::new(line.clone()));
                }
                if !state.ready && began.elapsed() > part.spec.start_timeout {
                    let reason = state.reason.clone().unwrap_or_else(|| "it was not started".to_owned());
                    return Err(Problem::new(format!(
                        "{} is not ready after {} s: {reason}",
                        part.spec.name,
                        part.spec.start_timeout.as_secs()
                    ))
                    .hint(format!("see ./asgard logs {}", part.spec.name)));
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops a part until it is started again.
    ///
    /// # Errors
    /// When there is no such part.
    pub async fn stop(&self, name: &str) -> Result<()> {
        self.order(name, Order::Stop).await
    }

    /// Starts a part that was stopped, or that waits after its death.
    ///
    /// # Errors
    /// When there is no such part.
    pub async fn start_part(&self, name: &str) -> Result<()> {
        self.order(name, Order::Start).await
    }

    async fn order(&self, name: &str, order: fn(oneshot::Sender<()>) -> Order) -> Result<()> {
        let part = self.parts.iter().find(|part| part.spec.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.parts.iter().map(|p| p.spec.name.as_str()).collect();
            Problem::new(format!("there is no part {name:?}"))
                .hint(format!("the parts are {}", names.join(", ")))
        })?;
        let (done, wait) = oneshot::channel();
        let _ = part.orders.send(order(done)).await;
        let _ = wait.await;
        Ok(())
    }

    /// Ends all parts: first those that use others, then the others.
    pub async fn shutdown(mut self) {
        for wave in 0..=1 {
            let wave = self.parts.iter().filter(|part| part.spec.stop_wave == wave);
            futures::future::join_all(wave.map(|part| self.order(&part.spec.name, Order::Stop))).await;
        }
        self.parts.clear();
        while self.tasks.join_next().await.is_some() {}
    }
}
