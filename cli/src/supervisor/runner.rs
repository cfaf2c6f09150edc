//! One task for each part: start it, check it, start it again when it dies.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};

use super::part::{Backoff, PartSpec, PartState, Restart};
use crate::paths::write_private;
use crate::problem::{Problem, Result};
use crate::process::{self, Identity};
use crate::ui::say;

/// Between two health checks of a part that is not ready, and of one that is.
const CHECK: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// A log over this size is moved to `NAME.log.1` and begun anew.
pub(super) const MAX_LOG: u64 = 32 << 20;

/// What a person, or the stack's end, wants from a part. The sender gets a message when it is done.
#[derive(Debug)]
pub(super) enum Order {
    Stop(oneshot::Sender<()>),
    Start(oneshot::Sender<()>),
}

/// Who runs now: kept in a file, so that the next `up` can end what a killed supervisor left.
#[derive(Debug, Clone)]
pub(super) struct Ledger {
    file: PathBuf,
    running: Arc<Mutex<Vec<Identity>>>,
}

impl Ledger {
    pub(super) fn new(run: &Path) -> Self {
        Self { file: run.join("processes.json"), running: Arc::default() }
    }

    /// Ends what an earlier supervisor left behind.
    pub(super) fn kill_leftovers(run: &Path) {
        let text = std::fs::read_to_string(run.join("processes.json")).unwrap_or_default();
        for process in serde_json::from_str::<Vec<Identity>>(&text).unwrap_or_default() {
            process.kill_leftovers();
        }
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Identity>)) {
        let Ok(mut running) = self.running.lock() else { return };
        change(&mut running);
        if let Ok(text) = serde_json::to_vec(&*running) {
            // A full disk must not end the stack: the ledger is a second net under `--pdeathsig`.
            let _ = write_private(&self.file, &text);
        }
    }
}

pub(super) struct Runner {
    pub(super) spec: Arc<PartSpec>,
    pub(super) log: PathBuf,
    /// How `./asgard logs` is typed for this stack.
    pub(super) see: String,
    pub(super) after: Vec<watch::Receiver<PartState>>,
    pub(super) state: watch::Sender<PartState>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) ledger: Ledger,
}

enum End {
    Died(std::process::ExitStatus),
    Stopped,
}

impl Runner {
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut wanted = self.dependencies().await;
        loop {
            if !wanted {
                match self.orders.recv().await {
                    Some(Order::Start(done)) => {
                        backoff = Backoff::default();
                        wanted = true;
                        self.state.send_modify(|s| *s = PartState::default());
                        let _ = done.send(());
                    }
                    Some(Order::Stop(done)) => {
                        let _ = done.send(());
                    }
                    None => return,
                }
                continue;
            }
            let mut child = match self.spawn() {
                Ok(child) => child,
                // A program that is just being replaced, too many processes: it may start later.
                Err(problem) => {
                    wanted = self.after_death(&mut backoff, Duration::ZERO, &problem.to_string()).await;
                    continue;
                }
            };
            let started = Instant::now();
            let pid = child.id().unwrap_or_default();
            let identity = Identity::of(pid);
            if let Some(identity) = identity.clone() {
                self.ledger.change(|all| all.push(identity));
            }
            self.state.send_modify(|s| {
                let failing = s.failing.take();
                *s = PartState { pid: Some(pid), failing, ..PartState::default() };
            });
            let end = self.attend(&mut child, pid).await;
            // Its own children must not hold its ports, nor outlive it.
            process::kill_session(pid);
            self.ledger.change(|all| all.retain(|one| Some(one) != identity.as_ref()));
            let stopped = matches!(end, End::Stopped);
            self.state.send_modify(|s| *s = PartState { stopped, ..PartState::default() });
            wanted = match end {
                End::Stopped => false,
                End::Died(status) => {
                    self.after_death(&mut backoff, started.elapsed(), &process::ending(status)).await
                }
            };
        }
    }

    /// Waits until the parts that this one needs have been ready once. False: stopped before.
    async fn dependencies(&mut self) -> bool {
        for mut dependency in std::mem::take(&mut self.after) {
            tokio::select! {
                ready = dependency.wait_for(|state| state.ready) => if ready.is_err() { return false },
                order = self.orders.recv() => match order {
                    Some(Order::Start(done)) => { let _ = done.send(()); },
                    Some(Order::Stop(done)) => {
                        self.state.send_modify(|s| s.stopped = true);
                        { let _ = done.send(()); };
                        return false;
                    }
                    None => return false,
                },
            }
        }
        true
    }

    fn spawn(&self) -> Result<Child> {
        rotate(&self.log);
        for file in &self.spec.stale {
            match std::fs::remove_file(file) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Problem::io("remove", file, &e));
                }
                _ => {}
            }
        }
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(|e| Problem::io("write", &self.log, &e))?;
        let errors = log.try_clone().map_err(|e| Problem::io("write", &self.log, &e))?;
        let mut command = match (process::find_program("setsid"), process::find_program("setpriv")) {
            (Some(setsid), Some(setpriv)) => {
                let mut command = Command::new(setsid);
                let signal = self.spec.orphan_signal.as_str().trim_start_matches("SIG");
                command.arg(setpriv).args(["--pdeathsig", signal, "--"]).arg(&self.spec.program);
                command
            }
            _ => return Err(Problem::new("setsid and setpriv are missing").hint("install util-linux")),
        };
        for (name, _) in std::env::vars_os() {
            let foreign =
                name.to_str().is_none_or(|n| ["ASGARD_", "KC_", "KONG_"].iter().any(|p| n.starts_with(p)));
            if foreign {
                command.env_remove(name);
            }
        }
        command
            .args(&self.spec.args)
            .envs(&self.spec.env)
            .current_dir(&self.spec.folder)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(|e| Problem::io("start", &self.spec.program, &e))
    }

    /// Checks the running part until it ends or is to be stopped.
    async fn attend(&mut self, child: &mut Child, pid: u32) -> End {
        let (started, mut reported, mut bad) = (Instant::now(), false, 0_u8);
        loop {
            let ready = self.state.borrow().ready;
            let check = async {
                tokio::time::sleep(if ready { CHECK.1 } else { CHECK.0 }).await;
                self.spec.probe.check().await
            };
            tokio::select! {
                status = child.wait() => {
                    return End::Died(status.unwrap_or_default());
                }
                order = self.orders.recv() => match order {
                    Some(Order::Start(done)) => { let _ = done.send(()); },
                    Some(Order::Stop(done)) => {
                        self.stop(child, pid).await;
                        { let _ = done.send(()); };
                        return End::Stopped;
                    }
                    None => {
                        self.stop(child, pid).await;
                        return End::Stopped;
                    }
                },
                result = check => {
                    match result {
                        Ok(degraded) => {
                            bad = 0;
                            let sound = started.elapsed() >= Backoff::WINDOW;
                            self.state.send_if_modified(|s| {
                                let changed = !s.ready || s.degraded != degraded;
                                (s.ready, s.reason, s.degraded) = (true, None, degraded);
                                if sound {
                                    s.failing = None;
                                }
                                changed
                            });
                        }
                        Err(reason) => {
                            // One late answer on a busy machine is no news; two in a row are.
                            bad = bad.saturating_add(1);
                            self.state.send_if_modified(|s| {
                                let changed = s.ready && bad > 1;
                                s.ready = s.ready && bad <= 1;
                                s.reason = Some(reason.clone());
                                changed
                            });
                            if !reported && !ready && started.elapsed() > self.spec.start_timeout {
                                reported = true;
                                say(format!("{} is still not ready: {reason}; see {}", self.spec.name, self.see));
                            }
                        }
                    }
                    rotate(&self.log);
                }
            }
        }
    }

    async fn stop(&self, child: &mut Child, pid: u32) {
        // The whole group: Kong's launcher does not pass signals on to its nginx.
        process::signal_group(pid, Signal::SIGTERM);
        if tokio::time::timeout(self.spec.stop_timeout, child.wait()).await.is_err() {
            process::kill_session(pid);
            let _ = child.wait().await;
        }
    }

    /// Waits until the next start is due. False: it is not wanted any more.
    async fn after_death(&mut self, backoff: &mut Backoff, lived: Duration, ending: &str) -> bool {
        let name = &self.spec.name;
        let restart = backoff.died(Instant::now(), lived);
        match restart {
            Restart::Quick(_) => say(format!("{name} died ({ending}), restarted; see {}", self.see)),
            Restart::Slow(wait) => {
                let line = format!(
                    "{name} keeps dying, {} times in {} s (last: {ending}); the next start is in {} s. Look at {} \
                     and fix the cause",
                    Backoff::MAX_DEATHS,
                    Backoff::WINDOW.as_secs(),
                    wait.as_secs(),
                    self.see
                );
                say(&line);
                self.state.send_modify(|s| *s = PartState { failing: Some(line), ..PartState::default() });
            }
        }
        tokio::select! {
            () = tokio::time::sleep(restart.wait()) => true,
            order = self.orders.recv() => match order {
                Some(Order::Start(done)) => {
                    *backoff = Backoff::default();
                    self.state.send_modify(|s| s.failing = None);
                    let _ = done.send(());
                    true
                }
                Some(Order::Stop(done)) => {
                    self.state.send_modify(|s| *s = PartState { stopped: true, ..PartState::default() });
                    { let _ = done.send(()); };
                    false
                }
                None => false,
            },
        }
    }
}

/// Keeps a log within its bound: the child appends, so its file can be copied away and emptied under it.
fn rotate(log: &Path) {
    if std::fs::metadata(log).is_ok_and(|m| m.len() > MAX_LOG) {
        let _ = std::fs::copy(log, log.with_extension("log.1"));
        let _ = OpenOptions::new().write(true).truncate(true).open(log);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Probe;
    use crate::supervisor::part::Kind;

    #[tokio::test]
    async fn what_a_killed_part_left_does_not_keep_it_from_starting() {
        let folder = std::env::temp_dir().join(format!("asgard-runner-{:016x}", rand::random::<u64>()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("pid");
        // As Kong does: it believes the file, and leaves it behind when it is killed.
        let script = "test ! -e pid || exit 1; echo $$ > pid; exec sleep 600";
        let spec = PartSpec {
            name: "gateway".to_owned(),
            kind: Kind::Gateway,
            address: String::new(),
            program: PathBuf::from("/bin/sh"),
            args: vec!["-c".to_owned(), script.to_owned()],
            env: std::collections::BTreeMap::new(),
            folder: folder.clone(),
            stale: vec![file.clone()],
            after: Vec::new(),
            probe: Probe::Open(Vec::new()),
            start_timeout: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(5),
            orphan_signal: Signal::SIGKILL,
            stop_wave: 0,
        };
        std::fs::write(&file, "1").unwrap();
        let (orders, received) = mpsc::channel(4);
        let (state, mut seen) = watch::channel(PartState::default());
        let runner = Runner {
            spec: Arc::new(spec),
            log: folder.join("log"),
            see: String::new(),
            after: Vec::new(),
            state,
            orders: received,
            ledger: Ledger::new(&folder),
        };
        let task = tokio::spawn(runner.run());
        let mut up = async || {
            let runs = |state: &PartState| {
                let own = std::fs::read_to_string(&file).unwrap_or_default().trim().parse().ok();
                state.ready && state.pid.is_some() && state.pid == own
            };
            let state = tokio::time::timeout(Duration::from_secs(30), seen.wait_for(runs)).await;
            state.expect("it is up in time").unwrap().pid.unwrap()
        };
        let first = up().await;
        process::signal_process(first, Signal::SIGKILL);
        let mut second = up().await;
        while second == first {
            tokio::time::sleep(Duration::from_millis(20)).await;
            second = up().await;
        }
        // By order, as `reload` does it.
        for order in [Order::Stop, Order::Start] {
            let (done, was_done) = oneshot::channel();
            orders.send(order(done)).await.unwrap();
            was_done.await.unwrap();
        }
        assert_ne!(up().await, second);
        drop(orders);
        task.await.unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
