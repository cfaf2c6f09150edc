//! The supervisor with real parts: a small stack of Redis and Pushpin, on ports of its own.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails, panics")]

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use asgard::paths::Paths;
use asgard::ports::{LOOPBACK, is_free};
use asgard::process;
use asgard::supervisor::part::PartStatus;
use nix::sys::signal::Signal;

/// A state folder, and everything that runs from it.
struct Home(PathBuf);

impl Home {
    fn new(name: &str) -> Self {
        let home = std::env::temp_dir().join(format!("asgard-it-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&home);
        Self(home)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_asgard"));
        command.args(args).env("ASGARD_HOME", &self.0).env_remove("ASGARD_ROOT");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// `up -d` of Redis and Pushpin.
    fn up(&self) -> Output {
        self.run(&["up", "-d", "--native", "--no-build", "--only", "redis,pushpin", "--ports", "free"])
    }

    fn parts(&self) -> Vec<PartStatus> {
        let output = self.run(&["status", "--json"]);
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(value.as_object().unwrap().len(), 1, "nothing but parts: {value}");
        serde_json::from_value(value["parts"].clone()).unwrap()
    }

    fn part(&self, name: &str) -> PartStatus {
        self.parts().into_iter().find(|part| part.name == name).unwrap()
    }

    fn paths(&self) -> Paths {
        Paths { root: "/".into(), cache: "/".into(), home: self.0.clone() }
    }

    /// Ports at which something of it listens.
    fn listening(&self) -> Vec<u16> {
        let ours = self.processes();
        let free = |port: &u16| asgard::ports::holder(*port).is_none_or(|holder| !ours.contains(&holder.pid));
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap()
            + &std::fs::read_to_string("/proc/net/tcp6").unwrap();
        let local = table.lines().filter(|line| line.split_whitespace().nth(3) == Some("0A"));
        let ports = local.filter_map(|line| {
            let (_, port) = line.split_whitespace().nth(1)?.rsplit_once(':')?;
            u16::from_str_radix(port, 16).ok()
        });
        ports.filter(|port| !free(port)).collect()
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join("logs").join(format!("{name}.log"))).unwrap_or_default()
    }

    /// Ids of all processes that have this folder in their command line or environment.
    fn processes(&self) -> Vec<u32> {
        let needle = self.0.as_os_str().as_encoded_bytes();
        std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| *pid != std::process::id() && process::is_alive(*pid))
            .filter(|pid| {
                ["cmdline", "environ"]
                    .iter()
                    .filter_map(|file| std::fs::read(format!("/proc/{pid}/{file}")).ok())
                    .any(|text| text.windows(needle.len()).any(|window| window == needle))
            })
            .collect()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.run(&["down"]);
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(30), "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(30));
    }
}

fn port(part: &PartStatus) -> u16 {
    part.address.rsplit(':').next().unwrap().parse().unwrap()
}

#[test]
#[ignore = "needs Pushpin: ./asgard test supervisor"]
fn a_stack_starts_restarts_its_parts_and_leaves_nothing() {
    let home = Home::new("life");
    assert_eq!(home.run(&["status"]).status.code(), Some(1), "nothing runs yet");
    let up = home.up();
    assert!(up.status.success(), "{}", text(&up));
    assert!(home.run(&["status", "--json"]).status.success());
    let before = home.parts();
    assert_eq!(before.iter().map(|part| part.name.as_str()).collect::<Vec<_>>(), ["redis", "pushpin"]);
    assert!(before.iter().all(|part| part.ready && part.pid.is_some()));
    // Whoever reaches them reads and forges all streams: nobody does but this user.
    let run = home.0.join("run");
    assert_eq!(std::fs::metadata(&run).unwrap().permissions().mode() & 0o777, 0o700);
    for socket in ["redis.sock", "pushpin/sub", "pushpin/pull", "pushpin/command", "pushpin/stats"] {
        UnixStream::connect(run.join(socket)).unwrap_or_else(|error| panic!("{socket}: {error}"));
    }
    let mut listening = home.listening();
    listening.sort_unstable();
    let ports = asgard::state::State::existing(&home.paths()).unwrap().ports;
    let mut expected = vec![ports.pushpin, ports.pushpin_metrics];
    expected.sort_unstable();
    assert_eq!(listening, expected, "clients and counters alone");

    // A second start says that the first still runs.
    let again = home.run(&["up", "--native", "--no-build", "--only", "redis"]);
    assert!(!again.status.success() && text(&again).contains("already running"), "{}", text(&again));

    // Killed parts come back, with their children's ports free for them.
    for name in ["redis", "pushpin"] {
        let old = home.part(name).pid.unwrap();
        process::signal_process(old, Signal::SIGKILL);
        wait_for(name, || {
            let part = home.part(name);
            part.ready && part.pid.is_some_and(|pid| pid != old)
        });
        let line = format!("{name} died (signal 9), restarted; see ./asgard logs {name}");
        assert_eq!(home.log("supervisor").matches(&line).count(), 1, "{}", home.log("supervisor"));
    }

    // Stopped and started by order.
    assert!(home.run(&["stop", "redis"]).status.success());
    let redis = home.part("redis");
    assert!(!redis.ready && redis.pid.is_none() && UnixStream::connect(&redis.address).is_err());
    assert_eq!(home.run(&["status"]).status.code(), Some(1));
    assert!(home.run(&["start", "redis"]).status.success());
    wait_for("redis", || home.part("redis").ready);
    assert!(text(&home.run(&["stop", "nothing"])).contains("The parts are redis, pushpin"));

    // Logs are there by name.
    assert!(text(&home.run(&["logs", "redis"])).contains("ready to accept connections at"));
    assert!(text(&home.run(&["logs", "nothing"])).contains("there is no log"));

    let port = port(&home.part("pushpin"));
    assert!(home.run(&["down"]).status.success());
    assert_eq!(home.processes(), Vec::<u32>::new());
    assert!(is_free(LOOPBACK, port));
    assert!(!home.0.join("run").exists());
    assert!(home.0.join("logs/redis.log").exists(), "logs stay");
}

#[test]
#[ignore = "needs Pushpin: ./asgard test supervisor"]
fn nothing_outlives_a_supervisor_that_is_killed() {
    let home = Home::new("killed");
    assert!(home.up().status.success());
    let parts: Vec<u32> = home.parts().iter().filter_map(|part| part.pid).collect();
    let supervisor = home.processes().into_iter().find(|pid| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.windows(9).any(|w| w == b"supervise"))
    });
    process::signal_process(supervisor.unwrap(), Signal::SIGKILL);
    wait_for("the end of all parts", || home.processes().is_empty());
    assert!(parts.into_iter().all(|pid| !process::is_alive(pid)));
    // And the next start works.
    let up = home.run(&["up", "-d", "--native", "--no-build", "--only", "redis,pushpin"]);
    assert!(up.status.success(), "{}", text(&up));
}

#[test]
fn a_terminal_s_stack_ends_with_a_signal_and_with_its_parent() {
    for by_parent in [false, true] {
        let home = Home::new(if by_parent { "parent" } else { "signal" });
        let mut parent = Command::new("sleep").arg("600").spawn().unwrap();
        let id = parent.id().to_string();
        let mut up = home
            .command(&["up", "--native", "--no-build", "--only", "redis", "--ports", "free", "--parent", &id])
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        wait_for("redis", || home.parts().iter().any(|part| part.ready));
        if by_parent {
            parent.kill().unwrap();
        } else {
            process::signal_process(up.id(), Signal::SIGTERM);
        }
        assert!(up.wait().unwrap().success());
        assert_eq!(home.processes(), Vec::<u32>::new());
        let _ = parent.kill();
        parent.wait().unwrap();
    }
}

#[test]
#[ignore = "needs Pushpin: ./asgard test supervisor"]
fn a_taken_port_is_named_with_its_holder() {
    let home = Home::new("port");
    let listener = TcpListener::bind((LOOPBACK, 0)).unwrap();
    let taken = listener.local_addr().unwrap().port();
    assert!(home.up().status.success());
    home.run(&["down"]);
    let file = home.0.join("asgard.toml");
    let state = std::fs::read_to_string(&file).unwrap();
    let changed: Vec<String> = state
        .lines()
        .map(
            |line| {
                if line.starts_with("pushpin = ") { format!("pushpin = {taken}") } else { line.to_owned() }
            },
        )
        .collect();
    std::fs::write(&file, changed.join("\n")).unwrap();
    let up = home.run(&["up", "-d", "--native", "--no-build", "--only", "redis,pushpin"]);
    assert!(!up.status.success());
    let expected = format!("port {taken} (pushpin) is taken by pid {}", std::process::id());
    assert!(text(&up).contains(&expected), "{}", text(&up));
    assert_eq!(text(&up).trim().lines().count(), 1, "one line: {}", text(&up));
    // The ports of a stack are chosen once.
    let again = home.run(&["up", "--native", "--no-build", "--only", "redis", "--ports", "free"]);
    assert!(text(&again).contains("already written"), "{}", text(&again));
}

#[test]
#[ignore = "needs Pushpin: ./asgard test supervisor"]
fn accounts_that_everybody_knows_are_not_started_where_others_can_reach_them() {
    let home = Home::new("exposed");
    assert!(home.up().status.success());
    home.run(&["down"]);
    let file = home.0.join("asgard.toml");
    let state = std::fs::read_to_string(&file).unwrap();
    let exposed = state.replace("listen = \"127.0.0.1\"", "listen = \"0.0.0.0\"");
    std::fs::write(&file, &exposed).unwrap();
    let up = || home.run(&["up", "-d", "--native", "--no-build", "--only", "redis,pushpin"]);
    let refused = up();
    assert!(
        !refused.status.success() && text(&refused).contains("sample_users = false"),
        "{}",
        text(&refused)
    );
    assert_eq!(home.processes(), Vec::<u32>::new());
    std::fs::write(&file, exposed.replace("[ports]", "sample_users = true\n\n[ports]")).unwrap();
    let second = up();
    assert!(second.status.success() && text(&second).contains("WARNING"), "{}", text(&second));
}

/// A Redis in the home's own PATH that dies at its start, by a script's rule.
fn fake_redis(home: &Home, script: &str) -> String {
    let programs = home.0.join("programs");
    std::fs::create_dir_all(&programs).unwrap();
    let fake = programs.join("redis-server");
    std::fs::write(&fake, script).unwrap();
    Command::new("chmod").arg("+x").arg(&fake).status().unwrap();
    format!("{}:{}", programs.display(), std::env::var("PATH").unwrap())
}

#[test]
fn a_start_fails_when_a_part_keeps_dying() {
    let home = Home::new("dying");
    let path = fake_redis(&home, "#!/bin/sh\nexit 7\n");
    let up = home
        .command(&["up", "-d", "--native", "--no-build", "--only", "redis", "--ports", "free"])
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(!up.status.success());
    let last = text(&up).lines().last().unwrap().to_owned();
    assert!(last.contains("redis keeps dying, 5 times in 30 s (last: exit code 7)"), "{last}");
    assert!(last.contains("./asgard logs redis"), "{last}");
    assert_eq!(home.processes(), Vec::<u32>::new());
}

#[test]
fn a_part_that_keeps_dying_is_never_given_up() {
    let home = Home::new("slow");
    let real = process::find_program("redis-server").unwrap();
    let sick = home.0.join("sick");
    let script = format!(
        "#!/bin/sh\nif [ -e '{}' ]; then exit 7; fi\nexec '{}' \"$@\"\n",
        sick.display(),
        real.display()
    );
    let path = fake_redis(&home, &script);
    let up = home
        .command(&["up", "-d", "--native", "--no-build", "--only", "redis", "--ports", "free"])
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(up.status.success(), "{}", text(&up));

    std::fs::write(&sick, "").unwrap();
    process::signal_process(home.part("redis").pid.unwrap(), Signal::SIGKILL);
    // It says so, in the log and in the status, and how long it waits: ever longer.
    for wait in [6, 12] {
        let line =
            format!("redis keeps dying, 5 times in 30 s (last: exit code 7); the next start is in {wait} s");
        wait_for(&line, || text(&home.run(&["status"])).contains(&line));
        assert_eq!(home.log("supervisor").matches(&line).count(), 1, "{}", home.log("supervisor"));
    }
    // The cause is gone: it comes back, and nobody had to start it.
    std::fs::remove_file(&sick).unwrap();
    wait_for("redis", || home.part("redis").ready);

    // The wait can be cut short, and what is started so is restarted quickly again.
    std::fs::write(&sick, "").unwrap();
    process::signal_process(home.part("redis").pid.unwrap(), Signal::SIGKILL);
    wait_for("a long wait", || text(&home.run(&["status"])).contains("the next start is in 24 s"));
    std::fs::remove_file(&sick).unwrap();
    assert!(home.run(&["start", "redis"]).status.success());
    wait_for("redis", || home.part("redis").ready);
    let old = home.part("redis").pid.unwrap();
    process::signal_process(old, Signal::SIGKILL);
    wait_for("redis", || home.part("redis").ready && home.part("redis").pid != Some(old));
    let log = home.log("supervisor");
    assert!(log.lines().last().unwrap().contains("redis died (signal 9), restarted"), "{log}");
}

#[test]
fn the_same_ports_once_more_are_fine_and_others_are_not() {
    let home = Home::new("ports");
    let free = asgard::ports::Ports::parse("free").unwrap().gateway.to_string();
    let up =
        |ports: &str| home.run(&["up", "-d", "--native", "--no-build", "--only", "redis", "--ports", ports]);
    for _ in 0..2 {
        let up = up(&free);
        assert!(up.status.success(), "{}", text(&up));
    }
    assert!(home.run(&["down"]).status.success());
    let again = up(&free);
    assert!(again.status.success(), "also when it is down: {}", text(&again));
    let other = up("1024");
    assert!(!other.status.success() && text(&other).contains("already written in"), "{}", text(&other));
}

#[test]
fn without_a_kong_that_can_run_the_filter_the_error_says_what_to_do() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new("kong");
    let folder = home.0.join("path");
    std::fs::create_dir_all(&folder).unwrap();
    let up = || {
        let args = ["up", "-d", "--native", "--no-build", "--gateway", "kong", "--ports", "free"];
        let output = home.command(&args).env("PATH", &folder).output().unwrap();
        let _ = std::fs::remove_file(home.0.join("asgard.toml"));
        output
    };
    let none = up();
    let said = text(&none);
    assert!(!none.status.success() && said.contains("there is no kong on PATH"), "{said}");
    assert!(said.contains("Install Kong Gateway 3.9") && said.contains("--gateway envoy"), "{said}");
    // Of another version.
    let kong = folder.join("kong");
    std::fs::write(&kong, "#!/bin/sh\necho 3.10.0\n").unwrap();
    std::fs::set_permissions(&kong, std::fs::Permissions::from_mode(0o755)).unwrap();
    let said = text(&up());
    assert!(said.contains("kong is 3.10, not 3.9") && said.contains("--gateway envoy"), "{said}");
    assert!(!home.0.join("run").exists(), "nothing was started");
}
