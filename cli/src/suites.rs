//! The suites of `asgard test`: one table. A suite is a command that fails with an exit code.

/// A suite.
#[derive(Debug, Clone, Copy)]
pub struct Suite {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it shows, in a line.
    pub shows: &'static str,
    /// The command: a program and its arguments, run in the repository. `cargo` is the cargo that runs us.
    pub command: &'static [&'static str],
    /// Environment in addition.
    pub env: &'static [(&'static str, &'static str)],
    /// It needs the filter's module (`scripts/build-filter` runs first).
    pub needs: &'static [Need],
    /// Longest time, in seconds.
    pub limit_s: u64,
}

/// What must be there before a suite runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The filter's WebAssembly module.
    Filter,
    /// All programs of a stack (as `asgard up` installs and builds them).
    Stack,
}

/// All suites, in the order in which they run: quick ones first.
pub const SUITES: &[Suite] = &[
    Suite {
        name: "fmt",
        shows: "the code is formatted",
        command: &["cargo", "fmt", "--all", "--check"],
        env: &[],
        needs: &[],
        limit_s: 120,
    },
    Suite {
        name: "clippy",
        shows: "no warning of the compiler or of clippy",
        command: &["cargo", "clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"],
        env: &[],
        needs: &[],
        limit_s: 1800,
    },
    Suite {
        name: "unit",
        shows: "all crates' own tests, with a real Pushpin and a real Redis where they need them",
        command: &["cargo", "test", "--release", "--workspace"],
        env: &[],
        needs: &[],
        limit_s: 2400,
    },
    Suite {
        name: "wasm",
        shows: "the filter compiles for WebAssembly",
        command: &["scripts/build-filter"],
        env: &[],
        needs: &[],
        limit_s: 900,
    },
    Suite {
        name: "compose",
        shows: "the compose file is sound, and has no secret in it",
        command: &["docker-compose", "--env-file", "docker/test.env", "config", "-q"],
        env: &[],
        needs: &[],
        limit_s: 60,
    },
    Suite {
        name: "e2e",
        shows: "end to end through the real parts, on both roads",
        command: &["cargo", "test", "--release", "-p", "e2e", "--", "--ignored", "--test-threads=1"],
        env: &[],
        needs: &[Need::Stack],
        limit_s: 3600,
    },
];
