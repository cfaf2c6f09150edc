//! Processes that are stopped where they are (SIGSTOP), and go on at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Result;
use crate::cpu::{Part, Usage};

/// How often a held process is looked at.
const STEP: Duration = Duration::from_millis(4);

/// A stopped process; it goes on when this is dropped.
pub struct Paused(Pid);

impl Paused {
    /// Stops it.
    pub fn new(pid: u32) -> Result<Self> {
        let pid = Pid::from_raw(i32::try_from(pid)?);
        kill(pid, Signal::SIGSTOP)?;
        Ok(Self(pid))
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        // It may have been killed.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// A process that is held to a share of a core: it is stopped while it has used more than that. Needs no rights
/// beyond those of a signal, unlike a control group.
pub struct Held {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Held {
    /// Holds it from now on, until this is dropped.
    pub fn new(pid: u32, share: f64) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let ended = end.clone();
        let thread = std::thread::spawn(move || hold(pid, share, &ended));
        Self { end, thread: Some(thread) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn hold(pid: u32, share: f64, end: &AtomicBool) {
    let part = Part::new("held", pid);
    let (mut since, mut usage) = (Instant::now(), part.usage());
    let mut paused = None;
    while !end.load(Ordering::Relaxed) {
        let used = part.usage().since(&usage);
        let due = used.div_f64(share);
        if due < since.elapsed() {
            paused = None;
            // What it did not use it can't use later.
            if due + 4 * STEP < since.elapsed() {
                (since, usage) = (Instant::now(), part.usage());
            }
        } else if paused.is_none() {
            paused = Paused::new(pid).ok();
        }
        std::thread::sleep(STEP);
    }
    drop::<(Option<Paused>, Usage)>((paused, usage));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_process_is_held_to_its_share() {
        let mut child = std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let part = Part::new("child", child.id());
        let held = Held::new(child.id(), 0.25);
        let (before, started) = (part.usage(), Instant::now());
        std::thread::sleep(Duration::from_millis(600));
        let share = part.usage().since(&before).as_secs_f64() / started.elapsed().as_secs_f64();
        drop(held);
        child.kill().unwrap();
        child.wait().unwrap();
        // A busy machine may give it less.
        assert!((0.02..0.4).contains(&share), "{share}");
    }
}
