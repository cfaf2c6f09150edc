//! The suites of `asgard test`: one table. A suite is a command that fails with an exit code.
//!
//! All of them select from the whole workspace: cargo then builds every dependency once, with one set of
//! features.

/// A suite.
#[derive(Debug, Clone, Copy)]
pub struct Suite {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it shows, in a line.
    pub shows: &'static str,
    /// The command: a program and its arguments, run in the repository. `cargo` is the cargo that runs us.
    pub command: &'static [&'static str],
    /// What must be there before it runs.
    pub needs: &'static [Need],
    /// Longest time, in seconds.
    pub limit_s: u64,
}

/// What must be there before a suite runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A program (or, with a `/`, a file), and the Debian package that brings it.
    Package(&'static str, &'static str),
    /// A component of the Rust toolchain (the cargo command, rustup's name, Debian's package).
    Component(&'static str, &'static str, &'static str),
    /// The filter's WebAssembly module.
    Filter,
    /// All programs of a stack (as `asgard up` installs and builds them).
    Programs,
    /// A running stack of its own, named by `ASGARD_HOME`; the tests may kill its parts.
    Stack,
}

const RUSTFMT: Need = Need::Component("fmt", "rustfmt", "rustfmt-web");
const CLIPPY: Need = Need::Component("clippy", "clippy", "rust-web-clippy");
const PUSHPIN: Need = Need::Package("pushpin", "pushpin");
const REDIS: Need = Need::Package("redis-server", "redis-server");
const NGINX: Need = Need::Package("nginx", "nginx");
const NGINX_LUA: Need =
    Need::Package("/usr/share/nginx/modules-available/mod-http-lua.conf", "libnginx-mod-http-lua");
const COMPOSE: Need = Need::Package("docker-compose", "docker-compose");

/// Minutes, in seconds.
const fn minutes(minutes: u64) -> u64 {
    minutes * 60
}

/// A suite of `tests/e2e`: one file.
macro_rules! e2e {
    ($name:literal, $file:literal, $shows:literal) => {
        Suite {
            name: $name,
            shows: $shows,
            command: &["cargo", "test", "--release", "--workspace", "--test", $file],
            needs: &[Need::Stack],
            limit_s: minutes(20),
        }
    };
}

/// All suites, in the order in which they run: quick ones first, the one that kills most last.
pub const SUITES: &[Suite] = &[
    Suite {
        name: "fmt",
        shows: "the code is formatted",
        command: &["cargo", "fmt", "--all", "--check"],
        needs: &[RUSTFMT],
        limit_s: minutes(2),
    },
    Suite {
        name: "clippy",
        shows: "no warning of the compiler or of clippy",
        command: &["cargo", "clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"],
        needs: &[CLIPPY],
        limit_s: minutes(40),
    },
    Suite {
        name: "unit",
        shows: "each crate's own tests, with a real Pushpin and Redis, and the simulation of the call protocol",
        command: &[
            "cargo",
            "test",
            "--release",
            "--workspace",
            "--lib",
            "--bins",
            "--test",
            "failures",
            "--test",
            "pushpin",
            "--test",
            "templates",
            "--test",
            "runner",
            "--test",
            "simulation",
            "--test",
            "toolbox",
            "--test",
            "stack",
        ],
        needs: &[PUSHPIN, REDIS],
        limit_s: minutes(60),
    },
    Suite {
        name: "doc",
        shows: "the examples in the documentation",
        command: &["cargo", "test", "--release", "--workspace", "--doc"],
        needs: &[],
        limit_s: minutes(20),
    },
    Suite {
        name: "filter",
        shows: "the filter's decisions, natively and as WebAssembly in a real Envoy",
        command: &["cargo", "test", "--release", "--workspace", "--test", "native", "--test", "envoy"],
        needs: &[Need::Filter, Need::Programs],
        limit_s: minutes(20),
    },
    Suite {
        name: "kong",
        shows: "Kong's files and the filter in a host that behaves as Kong does, and in a real nginx; the compose file",
        command: &[
            "cargo",
            "test",
            "--release",
            "--workspace",
            "--test",
            "host",
            "--test",
            "shipped",
            "--test",
            "faults",
            "--test",
            "nginx",
            "--test",
            "compose",
        ],
        needs: &[Need::Filter, NGINX, NGINX_LUA, COMPOSE],
        limit_s: minutes(20),
    },
    e2e!("calls", "calls", "quick calls as JSON, slow ones handed over to Pushpin, on both roads"),
    e2e!("refusals", "refusals", "a table of faulty tokens and forged headers; no backend sees them"),
    e2e!("balance", "balance", "requests go to all backends and all workers; sessions on any backend"),
    e2e!("cancel", "cancel", "a client that goes away stops the work, in the era where it means that"),
    e2e!("embedded", "embedded", "one process with an embedded worker and its own streams"),
    e2e!("load", "load", "2,000 calls on each road, none lost, none twice, in order"),
    e2e!("restarts", "restarts", "Pushpin, Redis and the gateway killed: the next call works"),
    e2e!("kills", "kills", "every backend killed while calls run, at 20 moments on each road"),
];
