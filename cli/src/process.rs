//! Child processes that never outlive the supervisor, and what can be known about other processes.
//!
//! Each part is the leader of its own session (`setsid`), so that its children can be found and ended with
//! it, whatever process groups they make (Pushpin's do), and runs under `setpriv --pdeathsig`, so that the
//! kernel ends it when the supervisor dies unasked. Both are programs of util-linux. The supervisor must spawn
//! from a thread that lives as long as it does (it runs on the main thread): the kernel takes the end of the
//! spawning thread for the end of the parent.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// This program's own file. When it was replaced since (by a build), that is the new one.
///
/// # Errors
/// When the system does not tell.
pub fn own_program() -> std::io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let replaced = program.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map(PathBuf::from);
    Ok(replaced.filter(|file| file.exists()).unwrap_or(program))
}

/// A program on `PATH`.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::var_os("PATH")?;
    // Debian keeps servers (nginx, redis-server in some releases) where a user's PATH does not look.
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0))
}

/// A process that can be recognised later: ids are used again, start times are not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Process id; also that of its session.
    pub pid: u32,
    /// Start, in clock ticks after boot.
    pub start: u64,
    /// The boot that it belongs to.
    pub boot: String,
}

impl Identity {
    /// The process with this id as it is now.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, start: start_time(pid)?, boot: boot_id() })
    }

    /// Whether exactly this process still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.boot == boot_id() && start_time(self.pid) == Some(self.start)
    }

    /// Kills what is left of this process's session. Does nothing when the id belongs to somebody else by now.
    pub fn kill_leftovers(&self) {
        let someone_else = start_time(self.pid).is_some_and(|start| start != self.start);
        if self.boot == boot_id() && !someone_else {
            kill_session(self.pid);
        }
    }
}

/// Sends a signal to a process group; nothing happens when it has ended.
pub fn signal_group(pid: u32, signal: Signal) {
    if let Some(pid) = pid_of(pid) {
        let _ = killpg(pid, signal);
    }
}

/// Kills every process of a session.
pub fn kill_session(session: u32) {
    if pid_of(session).is_none() {
        return;
    }
    // Again until nobody is left: one may have forked meanwhile.
    for _ in 0..5 {
        let members = session_members(session);
        if members.is_empty() {
            return;
        }
        members.into_iter().for_each(|pid| signal_process(pid, Signal::SIGKILL));
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// The processes of a session that are no zombies: a part and whatever it has started.
#[must_use]
pub fn session_members(session: u32) -> Vec<u32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| stat(*pid).is_some_and(|stat| stat.session == session && stat.lives()))
        .collect()
}

/// Sends a signal to one process; nothing happens when it has ended.
pub fn signal_process(pid: u32, signal: Signal) {
    if let Some(pid) = pid_of(pid) {
        let _ = kill(pid, signal);
    }
}

/// Whether the process exists and is no zombie.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| stat.lives())
}

/// How a process ended, in words: `signal 9`, `exit code 1`.
#[must_use]
pub fn ending(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("signal {signal}"),
        (None, Some(code)) => format!("exit code {code}"),
        (None, None) => "unknown end".to_owned(),
    }
}

/// The last lines of a file, at most `lines` and at most 64 KiB.
#[must_use]
pub fn tail(file: &Path, lines: usize) -> Vec<String> {
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(file)?;
        let from = file.metadata()?.len().saturating_sub(64 << 10);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(64 << 10).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all.iter().skip(all.len().saturating_sub(lines)).map(|line| (*line).to_owned()).collect()
}

fn pid_of(pid: u32) -> Option<Pid> {
    // 0 and 1 would mean "my own group" and "everything".
    i32::try_from(pid).ok().filter(|pid| *pid > 1).map(Pid::from_raw)
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn start_time(pid: u32) -> Option<u64> {
    stat(pid).filter(Stat::lives).map(|stat| stat.start)
}

struct Stat {
    state: char,
    session: u32,
    start: u64,
}

impl Stat {
    fn lives(&self) -> bool {
        self.state != 'Z' && self.state != 'X'
    }
}

/// Some of `/proc/PID/stat` (proc(5)); the name in parentheses may contain anything.
fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let session = fields.nth(2)?.parse().ok()?;
    let start = fields.nth(15)?.parse().ok()?;
    Some(Stat { state, session, start })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_recognised_and_its_session_killed() {
        // A child in a process group of its own, as Pushpin's are.
        let script = "set -m; sleep 60 & echo $!; wait";
        let mut child = std::process::Command::new("setsid")
            .args(["sh", "-c", script])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
            .unwrap();
        let grandchild: u32 = line.trim().parse().unwrap();
        let identity = Identity::of(child.id()).unwrap();
        assert!(identity.is_alive());
        let other = Identity { start: identity.start + 1, ..identity.clone() };
        assert!(!other.is_alive());
        other.kill_leftovers();
        assert!(identity.is_alive(), "a process with another start time is not touched");
        identity.kill_leftovers();
        let status = child.wait().unwrap();
        assert_eq!(ending(status), "signal 9");
        assert!(!identity.is_alive());
        assert!(!is_alive(grandchild));
    }

    #[test]
    fn programs_are_found_on_path() {
        assert!(find_program("sh").is_some());
        assert!(find_program("no-such-program-here").is_none());
    }

    #[test]
    fn the_tail_of_a_file() {
        let file = std::env::temp_dir().join(format!("asgard-tail-{}", std::process::id()));
        std::fs::write(&file, "a\nb\nc\n").unwrap();
        assert_eq!(tail(&file, 2), ["b", "c"]);
        assert_eq!(tail(Path::new("/nonexistent"), 2), Vec::<String>::new());
        std::fs::remove_file(file).unwrap();
    }
}
