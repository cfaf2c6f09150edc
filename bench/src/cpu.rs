//! CPU time of processes, from /proc.

use std::time::Duration;

/// User and system time of the processes and of all below them.
pub fn of(pids: &[u32]) -> Duration {
    let mut all = pids.to_vec();
    let mut index = 0;
    while let Some(pid) = all.get(index).copied() {
        index += 1;
        let children =
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        all.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    }
    all.sort_unstable();
    all.dedup();
    all.iter().map(|pid| one(*pid)).sum()
}

fn one(pid: u32) -> Duration {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return Duration::ZERO };
    // The name may contain spaces: count from its closing bracket. utime and stime are fields 14 and 15.
    let Some((_, rest)) = stat.rsplit_once(')') else { return Duration::ZERO };
    let ticks: u64 =
        rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    // USER_HZ is 100 on every Linux that Rust supports.
    Duration::from_millis(ticks * 10)
}

/// CPU time of one process and all of its threads, to the nanosecond where the kernel counts so. Threads that
/// ended are not in it: for a server whose threads live as long as it does.
pub fn precise(pid: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanoseconds: Option<u64> = tasks
        .map(|task| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        })
        .sum();
    nanoseconds.map_or_else(|| one(pid), Duration::from_nanos)
}

/// Memory of a process that is in RAM, in KiB.
pub fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
