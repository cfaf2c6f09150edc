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
    /// A browser, the Inspector, and what drives them.
    Browser,
    /// The MCP conformance suite, and Node.js.
    Conformance,
    /// Node.js.
    Node,
    /// The newest SDKs of Python and TypeScript, and the Inspector.
    Sdks,
    /// Released clients: a few, or with `--all` all.
    Clients,
    /// A running stack of its own, named by `ASGARD_HOME`; the tests may kill its parts.
    Stack,
    /// The same, whose calls all go through the queue.
    QueueStack,
}

const RUSTFMT: Need = Need::Component("fmt", "rustfmt", "rustfmt-web");
const CLIPPY: Need = Need::Component("clippy", "clippy", "rust-web-clippy");
const PUSHPIN: Need = Need::Package("pushpin", "pushpin");
const REDIS: Need = Need::Package("redis-server", "redis-server");
const NGINX: Need = Need::Package("nginx", "nginx");
const NGINX_LUA: Need =
    Need::Package("/usr/share/nginx/modules-available/mod-http-lua.conf", "libnginx-mod-http-lua");
const COMPOSE: Need = Need::Package("docker-compose", "docker-compose");

const CXX: Need = Need::Package("c++", "g++");

/// Minutes, in seconds.
const fn minutes(minutes: u64) -> u64 {
    minutes * 60
}

/// Suites of cargo tests. All choose the whole workspace and then some of its tests: with another choice of
/// packages, cargo would unite other features, and compile most crates again.
macro_rules! cargo_test {
    ($($argument:literal),+) => {
        &["cargo", "test", "--release", "--workspace", $($argument),+]
    };
}

/// A suite of `tests/e2e`: one file.
macro_rules! e2e {
    ($name:literal, $shows:literal) => {
        Suite {
            name: $name,
            shows: $shows,
            command: cargo_test!("--test", $name, "--", "--include-ignored", "--nocapture"),
            needs: &[Need::Stack],
            limit_s: minutes(20),
        }
    };
}

/// All suites, in the order in which they run: quick ones first, the one that kills most last.
#[rustfmt::skip]
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
        name: "supply",
        shows: "licences, names and sources of all crates are as deny.toml wants them",
        command: cargo_test!("--test", "supply", "--", "--nocapture"),
        needs: &[Need::Programs],
        limit_s: minutes(10),
    },
    Suite {
        name: "unit",
        shows: "each crate's own tests, the simulation of the call protocol, and whatever may come in malformed",
        command: cargo_test!(
            "--lib", "--bins", "--test", "layers", "--test", "runner", "--test", "simulation", "--test", "waiting", "--test", "task_rounds", "--test", "wire", "--test", "toolbox",
            "--test", "direct", "--test", "edges", "--test", "shutdown", "--test", "program", "--test", "render", "--test", "repetition"
        ),
        needs: &[Need::Programs, REDIS],
        limit_s: minutes(60),
    },
    Suite {
        name: "doc",
        shows: "the documentation has no warning, and its examples work",
        command: &["scripts/doc"],
        needs: &[Need::Programs],
        limit_s: minutes(20),
    },
    Suite {
        name: "grip",
        shows: "the publisher with a real Pushpin, also killed and stalled",
        command: cargo_test!("--test", "pushpin", "--test", "filters", "--test", "failures", "--test", "templates", "--", "--include-ignored"),
        needs: &[Need::Programs, PUSHPIN],
        limit_s: minutes(20),
    },
    Suite {
        name: "notifications",
        shows: "one broadcast to 2,000 streams in one send; sessions, subscriptions, the admin API",
        command: cargo_test!("--test", "notifications", "--", "--include-ignored", "--nocapture"),
        needs: &[Need::Programs, PUSHPIN, REDIS],
        limit_s: minutes(20),
    },
    Suite {
        name: "supervisor",
        shows: "up, down, status and restarts with a real Redis and Pushpin; nothing is left behind",
        command: cargo_test!("--test", "stack", "--", "--include-ignored"),
        needs: &[Need::Programs, PUSHPIN, REDIS],
        limit_s: minutes(10),
    },
    Suite {
        name: "filter",
        shows: "the filter, natively (also with random input) and in a real Envoy; its schema and reference page",
        command: cargo_test!("--test", "native", "--test", "fuzz", "--test", "schema", "--test", "envoy", "--", "--include-ignored", "--skip", "what_a_request_costs"),
        needs: &[Need::Filter, Need::Programs],
        limit_s: minutes(20),
    },
    Suite {
        name: "wasm",
        shows: "the unit tests of what the filter is made of, compiled to WebAssembly, in Node.js",
        command: &["scripts/test-wasm"],
        needs: &[Need::Node],
        limit_s: minutes(15),
    },
    Suite {
        name: "fuzz",
        shows: "tokens, headers, paths, configurations and issuers' answers that a fuzzer makes up: none gets through",
        command: &["scripts/fuzz"],
        needs: &[CXX],
        limit_s: minutes(10),
    },
    Suite {
        name: "corpus",
        shows: "hostile requests against Envoy and the Kong-like host, at both entry points: none is accepted",
        command: cargo_test!("--test", "corpus", "--", "--include-ignored", "--nocapture"),
        needs: &[Need::Filter, Need::Programs, PUSHPIN],
        limit_s: minutes(20),
    },
    Suite {
        name: "kong",
        shows: "Kong's files in a host that behaves as Kong does and in a real nginx; the compose file",
        command: cargo_test!(
            "--test", "shipped", "--test", "workers", "--test", "host", "--test", "faults", "--test", "nginx", "--test", "compose",
            "--", "--include-ignored"
        ),
        needs: &[Need::Filter, Need::Programs, NGINX, NGINX_LUA, COMPOSE],
        limit_s: minutes(20),
    },
    Suite {
        name: "library",
        shows: "the examples of the library, unchanged, as whole servers and as workers of a site",
        command: cargo_test!("--test", "library", "--", "--include-ignored", "--nocapture", "--test-threads=1"),
        needs: &[Need::Programs],
        limit_s: minutes(10),
    },
    Suite {
        name: "stranger",
        shows: "odin with each choice of features; a new crate that depends on ours as published builds the programs of odin's README, and calls them",
        command: &["scripts/stranger"],
        needs: &[],
        limit_s: minutes(20),
    },
    Suite {
        name: "conformance",
        shows: "the MCP conformance suite, both eras: at both entry points of a whole stack, and in one process",
        command: cargo_test!("--test", "conformance", "--", "--include-ignored", "--nocapture", "--test-threads=1"),
        needs: &[Need::Programs, Need::Conformance],
        limit_s: minutes(20),
    },
    Suite {
        name: "bench",
        shows: "asgard bench with short rounds: every cell but the longest has figures, whatever they are",
        // A workspace of its own.
        command: &["cargo", "test", "--release", "--locked", "--manifest-path", "bench/Cargo.toml", "--", "--include-ignored", "--nocapture"],
        needs: &[Need::Programs, Need::Filter],
        limit_s: minutes(20),
    },
    e2e!("calls", "quick calls as JSON, slow ones handed over to Pushpin, at both entry points"),
    e2e!("refusals", "a table of faulty tokens and forged headers; no backend sees them"),
    e2e!("registration", "clients that register themselves at Keycloak: what they may do, and who reaches what"),
    e2e!("organisations", "organisations, users, hosts by command; every command of the guide"),
    Suite {
        name: "browser",
        shows: "the Inspector in Chromium: registers itself, logs in, lists tools, calls one with progress",
        command: cargo_test!("--test", "browser", "--", "--include-ignored", "--nocapture"),
        needs: &[Need::Stack, Need::Browser],
        limit_s: minutes(20),
    },
    Suite {
        name: "authorization",
        shows: "the MCP conformance suite's scenarios for authorization servers, at Keycloak",
        command: cargo_test!("--test", "authorization", "--", "--include-ignored", "--nocapture"),
        needs: &[Need::Stack, Need::Conformance],
        limit_s: minutes(15),
    },
    Suite {
        name: "sdks",
        shows: "the released clients of the SDKs for Python, TypeScript and Rust, and the Inspector's, at both entry points",
        command: cargo_test!("--test", "sdks", "--", "--include-ignored", "--nocapture"),
        needs: &[Need::Stack, Need::Sdks],
        limit_s: minutes(20),
    },
    e2e!("discovery", "clients of all revisions find the authorization server, and get in with the scopes that they ask for, or none"),
    e2e!("vendors", "VS Code, Cursor, Claude and ChatGPT register as they do, and log in; by metadata documents too"),
    e2e!("enterprise", "an assertion of the company's own identity provider (ID-JAG) gives a token; its faults do not"),
    e2e!("refresh", "refresh tokens rotate, and a client that refreshes twice at once keeps its login"),
    Suite {
        name: "clients",
        shows: "released clients of many lines connect, list, call with progress and log in by OAuth; with --all every one",
        command: cargo_test!("--test", "clients", "--", "--include-ignored", "--nocapture"),
        needs: &[Need::Stack, Need::Clients],
        limit_s: minutes(20),
    },
    e2e!("uploads", "bodies that come slowly, or stop, end in time at both entry points; long answers live longer than that"),
    e2e!("balance", "requests go to all backends and all workers; sessions on any backend"),
    e2e!("cancel", "a client that goes away stops the work, in the era where it means that"),
    e2e!("streams", "streams cut at random are resumed without gap or double; sessions' own streams; HTTP+SSE"),
    e2e!("retries", "a request repeated with its Idempotency-Key gets the first one's answer; nothing runs twice"),
    e2e!("notify", "an operator tells an organisation, at both entry points, also while every backend is new"),
    e2e!("embedded", "one process with an embedded worker and its own streams"),
    e2e!("tasks", "long work under a handle: its worker, every backend and the gateway killed meanwhile"),
    e2e!("fairness", "a flood of one organisation's long calls: most get 429, and the others don't notice"),
    e2e!("load", "2,000 calls at each entry point, none lost, none twice, in order"),
    e2e!("heimdall", "Keycloak changes its key or is away: known keys pass, nothing else does"),
    e2e!("restarts", "Pushpin, Redis and the gateway killed: the next call works"),
    e2e!("soak", "clients of all eras at both entry points while each part is killed and stopped: nothing wrong, twice or stuck"),
    e2e!("kills", "backends and workers killed and stopped while calls run, and links broken and stalled under 2,000 calls"),
    Suite {
        name: "queue",
        shows: "calls, cancel and streams once more, with all calls through the queue (ASGARD_DIRECT=false)",
        command: cargo_test!(
            "--test", "calls", "--test", "cancel", "--test", "streams", "--", "--include-ignored", "--nocapture"
        ),
        needs: &[Need::QueueStack],
        limit_s: minutes(20),
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    fn folders(folder: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.filter(|path| path.is_dir()).collect()
    }

    /// Every integration test: its name, and its file or folder.
    fn integration_tests() -> Vec<(String, PathBuf)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let packages = ["crates", "tests"].map(|group| folders(&root.join(group))).concat();
        let packages =
            packages.into_iter().chain(["cli", "kong-filter", "mcp-backend", "worker"].map(|p| root.join(p)));
        let mut all = Vec::new();
        for package in packages {
            for file in std::fs::read_dir(package.join("tests")).into_iter().flatten().flatten() {
                let path = file.path();
                // A test is a file, or a folder with a main.rs.
                if path.extension().is_none_or(|extension| extension != "rs")
                    && !path.join("main.rs").is_file()
                {
                    continue;
                }
                all.push((path.file_stem().unwrap().to_str().unwrap().to_owned(), path));
            }
        }
        assert!(all.len() > 10);
        all
    }

    fn suites_of(test: &str) -> Vec<&'static Suite> {
        // What runs once more is in a suite of its own already.
        let runs = |suite: &&Suite| {
            suite.name != "queue" && suite.command.windows(2).any(|w| w[0] == "--test" && w[1] == test)
        };
        SUITES.iter().filter(runs).collect()
    }

    #[test]
    fn every_integration_test_is_in_a_suite() {
        for (name, path) in integration_tests() {
            assert_eq!(suites_of(&name).len(), 1, "suites that run {}", path.display());
        }
    }

    fn sources(path: &Path) -> String {
        if path.is_file() {
            return std::fs::read_to_string(path).unwrap();
        }
        std::fs::read_dir(path).unwrap().flatten().map(|entry| sources(&entry.path())).collect()
    }

    #[test]
    fn what_plain_cargo_test_leaves_out_says_in_which_suite_it_runs() {
        let mut left_out = 0;
        for (name, path) in integration_tests() {
            let (text, suite) = (sources(&path), suites_of(&name)[0]);
            let reasons = text.lines().filter_map(|line| line.strip_prefix("#[ignore = \"needs "));
            for reason in reasons {
                let expected = format!(": ./asgard test {}\"]", suite.name);
                assert!(reason.ends_with(&expected), "{}: {reason}", path.display());
                assert!(suite.command.contains(&"--include-ignored"), "{} leaves {name} out", suite.name);
                left_out += 1;
            }
            // A test that needs a stack fails without one.
            if suite.needs.contains(&Need::Stack) {
                let mut lines = text.lines();
                while let Some(line) = lines.next() {
                    if line.starts_with("#[tokio::test") {
                        let next = lines.next().unwrap_or_default();
                        assert!(next.starts_with("#[ignore = "), "{}: {next}", path.display());
                    }
                }
            }
        }
        assert!(left_out > 100, "{left_out}");
    }
}
