//! Brings what a stack needs and is not there: Debian packages, Keycloak, Envoy, Node.js, the Inspector; builds
//! our own programs and the filter.
//!
//! What is fetched lies in the cache folder under a name with its version; it is made beside and renamed, so
//! a folder that is there is whole. Steps that do not need each other run at once.

mod apt;
mod browser;
mod build;
mod clients;
mod fetch;
pub(crate) mod keycloak;
mod pinned;
mod run;

use std::path::PathBuf;

use crate::gateway::Gateway;
use crate::paths::{Paths, private_dir};
use crate::problem::{Problem, Result};
use crate::process::find_program;
use crate::state::State;
use crate::supervisor::part::Kind;

pub use apt::{install as install_packages, java_version};
pub use browser::Browser;
pub use build::{Built, bench as build_bench, cargo, filter as build_filter};
pub use clients::Clients;
pub use run::{Run, output_of};

/// Least free space for a first start, in bytes: what is fetched and built takes about 3 GB.
pub const SPACE: u64 = 4 << 30;
/// Least Java that runs Keycloak.
pub const JAVA: u32 = 17;
/// Least Node.js that runs the Inspector.
pub const NODE: (u32, u32) = (22, 19);

/// The programs of a stack. Those of parts that are not wanted are empty.
#[derive(Debug, Clone, Default)]
pub struct Tools {
    /// `redis-server`.
    pub redis: PathBuf,
    /// `pushpin`.
    pub pushpin: PathBuf,
    /// `java`.
    pub java: PathBuf,
    /// Keycloak's built distribution.
    pub keycloak: PathBuf,
    /// Envoy.
    pub envoy: Option<PathBuf>,
    /// Kong.
    pub kong: Option<PathBuf>,
    /// A Node.js that is new enough.
    pub node: Option<PathBuf>,
    /// The Inspector's script.
    pub inspector: Option<PathBuf>,
    /// Our backend.
    pub backend: PathBuf,
    /// Our worker.
    pub worker: PathBuf,
    /// The filter's module.
    pub filter: PathBuf,
}

/// What a stack is made of, as far as it decides what is needed.
#[derive(Debug, Clone)]
pub struct Needs {
    /// The gateway.
    pub gateway: Gateway,
    /// The Inspector.
    pub inspector: bool,
    /// Nothing but these parts (names or kinds); empty: all.
    pub only: Vec<String>,
    /// Build the whole workspace with its tests. Cargo unites the features of what is built together, so tests
    /// that were built otherwise than the programs would compile most crates a second time. And have Envoy, in
    /// which the filter is tried whatever the stacks' gateway is.
    pub tests: bool,
}

impl Needs {
    /// Whether there are parts of this kind.
    #[must_use]
    pub fn wants(&self, kind: Kind) -> bool {
        if kind == Kind::Inspector && !self.inspector {
            return false;
        }
        let is_kind = |name: &String| name.split('-').next() == Some(kind.name());
        self.only.is_empty() || self.only.iter().any(is_kind)
    }

    pub(crate) fn wants_envoy(&self) -> bool {
        self.wants(Kind::Gateway) && (self.gateway == Gateway::Envoy || self.tests)
    }

    fn wants_own(&self) -> bool {
        self.wants(Kind::Backend) || self.wants(Kind::Worker)
    }
}

impl Tools {
    /// Finds everything, without installing.
    ///
    /// # Errors
    /// The first thing that is missing.
    pub fn locate(paths: &Paths, state: &State, needs: &Needs) -> Result<Self> {
        let program = |name: &str| {
            find_program(name)
                .ok_or_else(|| Problem::new(format!("{name} is not installed")).hint("run ./asgard up"))
        };
        let file = |path: PathBuf| {
            if path.exists() {
                return Ok(path);
            }
            Err(Problem::new(format!("{} is missing", paths.shown(&path))).hint("run ./asgard up"))
        };
        let own = |name: &str| file(Built::folder(paths).join(name));
        let mut tools = Self::default();
        if needs.wants(Kind::Redis) {
            tools.redis = program("redis-server")?;
        }
        if needs.wants(Kind::Pushpin) {
            tools.pushpin = program("pushpin")?;
        }
        if needs.wants(Kind::Keycloak) {
            let no_java =
                || Problem::new(format!("there is no Java {JAVA} or later")).hint("run ./asgard up");
            tools.java = apt::java().ok_or_else(no_java)?;
            tools.keycloak = file(fetch::keycloak(paths, state))?;
        }
        if needs.wants(Kind::Gateway) {
            if needs.gateway == Gateway::Kong {
                tools.kong = Some(program("kong")?);
            }
            if needs.wants_envoy() {
                tools.envoy = Some(file(fetch::envoy(paths, state))?);
            }
            tools.filter = file(Built::filter(paths))?;
        }
        if needs.wants(Kind::Backend) {
            tools.backend = own("mcp-backend")?;
        }
        if needs.wants(Kind::Worker) {
            tools.worker = own("worker")?;
        }
        if needs.wants(Kind::Inspector) {
            let old = || Problem::new(format!("there is no Node.js {}.{} or later", NODE.0, NODE.1));
            tools.node = Some(fetch::node(paths, state).ok_or_else(|| old().hint("run ./asgard up"))?);
            tools.inspector = Some(file(fetch::inspector(paths, state))?);
        }
        Ok(tools)
    }

    /// Finds everything; installs and builds what is missing or out of date.
    ///
    /// # Errors
    /// What could not be installed or built, and what to do.
    pub fn ensure(paths: &Paths, state: &State, needs: &Needs) -> Result<Self> {
        let _lock = lock(paths)?;
        if needs.wants(Kind::Keycloak) && !fetch::keycloak(paths, state).exists() {
            demand_space(paths)?;
        }
        fetch::clear_partial(&paths.cache);
        apt::ensure(paths, state, needs)?;
        // Downloads wait for the network, builds for the processor: they get along.
        let outcomes = std::thread::scope(|scope| {
            let mut steps = Vec::new();
            if needs.wants_own() {
                steps.push(scope.spawn(|| build::programs(paths, needs.tests)));
            }
            if needs.wants(Kind::Gateway) {
                steps.push(scope.spawn(|| build::filter(paths)));
            }
            if needs.wants(Kind::Keycloak) {
                steps.push(scope.spawn(|| fetch::ensure_keycloak(paths, state)));
            }
            if needs.wants_envoy() {
                steps.push(scope.spawn(|| fetch::ensure_envoy(paths, state)));
            }
            if needs.wants(Kind::Inspector) {
                steps.push(scope.spawn(|| fetch::ensure_inspector(paths, state)));
            }
            let broken = || Err(Problem::new("an installation step broke off"));
            steps.into_iter().map(|step| step.join().unwrap_or_else(|_| broken())).collect::<Vec<_>>()
        });
        outcomes.into_iter().collect::<Result<Vec<()>>>()?;
        Self::locate(paths, state, needs)
    }
}

/// A Node.js that is new enough: the system's, or one that is fetched where that is too old.
///
/// # Errors
/// What could not be installed or fetched, and what to do.
pub fn ensure_node(paths: &Paths, state: &State) -> Result<PathBuf> {
    private_dir(&paths.cache)?;
    private_dir(&paths.logs())?;
    if fetch::node(paths, state).is_none() && fetch::python().is_none() {
        install_packages(paths, &["python3", "python3-venv"])?;
    }
    fetch::ensure_node(paths, state)?;
    fetch::node(paths, state).ok_or_else(|| Problem::new("Node.js could not be fetched"))
}

/// The conformance suite.
#[derive(Debug, Clone)]
pub struct Conformance {
    /// A Node.js that is new enough.
    pub node: PathBuf,
    /// The suite's script.
    pub script: PathBuf,
}

impl Conformance {
    /// Finds the suite; fetches what is missing.
    ///
    /// # Errors
    /// What could not be fetched, and what to do.
    pub fn ensure(paths: &Paths, state: &State) -> Result<Self> {
        private_dir(&paths.cache)?;
        private_dir(&paths.logs())?;
        fetch::ensure_conformance(paths, state)?;
        let node = fetch::node(paths, state).ok_or_else(|| Problem::new("Node.js could not be fetched"))?;
        Ok(Self { node, script: fetch::conformance(paths, state) })
    }
}

/// Finds the Inspector's script; fetches it where it is missing.
///
/// # Errors
/// What could not be fetched, and what to do.
pub fn ensure_inspector(paths: &Paths, state: &State) -> Result<PathBuf> {
    let _lock = lock(paths)?;
    fetch::ensure_inspector(paths, state)?;
    Ok(fetch::inspector(paths, state))
}

/// Takes the cache for this process; waits for another that installs.
fn lock(paths: &Paths) -> Result<std::fs::File> {
    private_dir(&paths.cache)?;
    private_dir(&paths.logs())?;
    let file = paths.cache.join("install.lock");
    let lock = std::fs::File::create(&file).map_err(|e| Problem::io("write", &file, &e))?;
    if lock.try_lock().is_err() {
        crate::ui::say("  ... another asgard installs; waiting for it");
        lock.lock().map_err(|e| Problem::io("lock", &file, &e))?;
    }
    Ok(lock)
}

/// Free space of the file system of a folder, in bytes.
#[must_use]
pub fn free_space(folder: &std::path::Path) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(folder).ok()?;
    Some(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

fn demand_space(paths: &Paths) -> Result<()> {
    match free_space(&paths.cache) {
        Some(free) if free < SPACE => Err(Problem::new(format!(
            "the disk of {} has {} MB left; a first start needs {} MB",
            paths.shown(&paths.cache),
            free >> 20,
            SPACE >> 20
        ))
        .hint("free some space, or point ASGARD_CACHE and CARGO_TARGET_DIR at another disk")),
        _ => Ok(()),
    }
}
