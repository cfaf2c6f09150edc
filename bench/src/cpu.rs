//! CPU time and memory of processes, from /proc.

use std::collections::BTreeMap;
use std::time::Duration;

/// A tick of /proc/PID/stat. USER_HZ is 100 on every Linux that Rust supports.
const TICK: Duration = Duration::from_millis(10);

/// A part of what is measured: its name, and the processes at its top. Their children belong to it.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Processes.
    pub pids: Vec<u32>,
}

impl Part {
    /// One process.
    pub fn new(name: &str, pid: u32) -> Self {
        Self { name: name.to_owned(), pids: vec![pid] }
    }

    /// The CPU time used so far.
    pub fn usage(&self) -> Usage {
        Usage { processes: family(&self.pids).into_iter().map(|pid| (pid, Process::read(pid))).collect() }
    }

    /// Memory that is in RAM, in KiB.
    pub fn resident_kib(&self) -> u64 {
        family(&self.pids).into_iter().map(resident_kib).sum()
    }
}

/// CPU time that some processes have used so far.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    processes: BTreeMap<u32, Process>,
}

impl Usage {
    /// What was used between the earlier look and this one. Of a process that ended in between, nothing.
    pub fn since(&self, before: &Self) -> Duration {
        let none = Process::default();
        let used = |(pid, now): (&u32, &Process)| now.since(before.processes.get(pid).unwrap_or(&none));
        self.processes.iter().map(used).sum()
    }
}

/// A process: the kernel counts each thread to the nanosecond, and the whole with all that have ended in ticks.
#[derive(Debug, Clone, Default)]
struct Process {
    threads: BTreeMap<u32, u64>,
    whole: Duration,
}

impl Process {
    fn read(pid: u32) -> Self {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let threads = tasks.filter_map(|task| {
            let id = task.file_name().to_str()?.parse().ok()?;
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            Some((id, text.split_whitespace().next()?.parse().ok()?))
        });
        Self { threads: threads.collect(), whole: in_ticks(pid) }
    }

    /// The sum over the threads; where threads have ended, and took with them more than the ticks' rounding could
    /// be, the whole.
    fn since(&self, before: &Self) -> Duration {
        let thread = |(id, now): (&u32, &u64)| now.saturating_sub(*before.threads.get(id).unwrap_or(&0));
        let threads = Duration::from_nanos(self.threads.iter().map(thread).sum());
        let whole = self.whole.saturating_sub(before.whole);
        // User and system time are each rounded down.
        if whole > threads + 2 * TICK { whole } else { threads }
    }
}

/// Those processes and all below them.
fn family(pids: &[u32]) -> Vec<u32> {
    let mut all = pids.to_vec();
    let mut index = 0;
    while let Some(pid) = all.get(index).copied() {
        index += 1;
        // Each thread has the children that it started.
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}

fn in_ticks(pid: u32) -> Duration {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return Duration::ZERO };
    // The name may contain spaces: count from its closing bracket. utime and stime are fields 14 and 15.
    let Some((_, rest)) = stat.rsplit_once(')') else { return Duration::ZERO };
    let ticks: u32 =
        rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
    TICK * ticks
}

/// CPU time of the calling thread.
pub fn of_this_thread() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split_whitespace().next().and_then(|field| field.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

/// Memory of a process that is in RAM, in KiB.
pub fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uses so much CPU time of this thread.
    fn burn(time: Duration) {
        let started = of_this_thread();
        while of_this_thread() - started < time {}
    }

    #[test]
    fn threads_that_ended_are_counted() {
        let part = Part::new("self", std::process::id());
        let before = part.usage();
        std::thread::spawn(|| burn(Duration::from_millis(120))).join().unwrap();
        assert!(part.usage().since(&before) >= Duration::from_millis(100));
    }

    #[test]
    fn children_belong_to_the_part() {
        let part = Part::new("self", std::process::id());
        let mut child = std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let child_alone = Part::new("child", child.id());
        while child_alone.usage().since(&Usage::default()) < Duration::from_millis(50) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(part.usage().since(&Usage::default()) >= Duration::from_millis(50));
        assert!(part.resident_kib() > resident_kib(std::process::id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn short_times_are_counted_to_less_than_a_tick() {
        let part = Part::new("self", std::process::id());
        let before = part.usage();
        burn(Duration::from_millis(3));
        assert!(part.usage().since(&before) >= Duration::from_millis(3));
    }
}
