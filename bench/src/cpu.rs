//! CPU time of processes, from /proc.

use std::time::Duration;

/// User and system time of the processes and of all below them.
pub fn of(pids: &[u32]) -> Duration {
    let mut all = pids.to_vec();
    let mut index = 0;
    while let Some(pid) = all.get(index).copied() {
        index += 1;
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
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
