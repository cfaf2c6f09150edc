//! Brings what a stack needs and is not there: Debian packages, Keycloak, Envoy, Node.js, the Inspector; builds
//! our own programs and the filter.
//!
//! What is fetched lies in the cache folder under a name with its version; it is made beside and renamed, so
//! a folder that is there is whole. Steps that do not need each other run at once.

mod apt;
mod build;
mod fetch;
mod run;

use std::path::PathBuf;

use crate::parts::Gateway;
use crate::paths::{Paths, private_dir};
use crate::problem::{Problem, Result};
use crate::process::find_program;
use crate::state::State;

pub use apt::java_version;
pub use build::{Built, cargo};
pub use run::{Run, output_of};

/// Least free space for a first start, in bytes: what is fetched and built takes about 3 GB.
pub const SPACE: u64 = 4 << 30;
/// Least Java that runs Keycloak.
pub const JAVA: u32 = 17;
/// Least Node.js that runs the Inspector.
pub const NODE: (u32, u32) = (22, 19);

/// The programs of a stack.
#[derive(Debug, Clone)]
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
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    /// The gateway.
    pub gateway: Gateway,
    /// The Inspector.
    pub inspector: bool,
}

impl Tools {
    /// Finds everything, without installing.
    ///
    /// # Errors
    /// The first thing that is missing.
    pub fn locate(paths: &Paths, state: &State, needs: Needs) -> Result<Self> {
        let program = |name: &str| {
            find_program(name)
                .ok_or_else(|| Problem::new(format!("{name} is not installed")).mend("run ./asgard up"))
        };
        let file = |path: PathBuf| {
            if path.exists() {
                return Ok(path);
            }
            Err(Problem::new(format!("{} is missing", paths.shown(&path))).mend("run ./asgard up"))
        };
        let built = Built::folder(paths);
        let inspector = needs.inspector.then(|| fetch::inspector(paths, state)).map(file).transpose()?;
        let node = match needs.inspector {
            true => Some(fetch::node(paths, state).ok_or_else(|| {
                Problem::new(format!("there is no Node.js {}.{} or later", NODE.0, NODE.1))
                    .mend("run ./asgard up")
            })?),
            false => None,
        };
        Ok(Self {
            redis: program("redis-server")?,
            pushpin: program("pushpin")?,
            java: apt::java().ok_or_else(|| {
                Problem::new(format!("there is no Java {JAVA} or later")).mend("run ./asgard up")
            })?,
            keycloak: file(fetch::keycloak(paths, state))?,
            envoy: (needs.gateway == Gateway::Envoy).then(|| file(fetch::envoy(paths, state))).transpose()?,
            kong: find_program("kong"),
            node,
            inspector,
            backend: file(built.join("mcp-backend"))?,
            worker: file(built.join("worker"))?,
            filter: file(Built::filter(paths))?,
        })
    }

    /// Finds everything; installs and builds what is missing or out of date.
    ///
    /// # Errors
    /// What could not be installed or built, and what to do.
    pub fn ensure(paths: &Paths, state: &State, needs: Needs) -> Result<Self> {
        private_dir(&paths.cache)?;
        private_dir(&paths.logs())?;
        let lock_file = paths.cache.join("install.lock");
        let lock = std::fs::File::create(&lock_file).map_err(|e| Problem::io("write", &lock_file, &e))?;
        if lock.try_lock().is_err() {
            crate::ui::say("  ... another asgard installs; waiting for it");
            lock.lock().map_err(|e| Problem::io("lock", &lock_file, &e))?;
        }
        if !fetch::keycloak(paths, state).exists() {
            demand_space(paths)?;
        }
        fetch::clear_partial(&paths.cache);
        apt::ensure(paths, state, needs)?;
        // Downloads wait for the network, builds for the processor: they get along.
        let outcomes = std::thread::scope(|scope| {
            let mut steps = vec![
                scope.spawn(|| build::programs(paths)),
                scope.spawn(|| build::filter(paths)),
                scope.spawn(|| fetch::ensure_keycloak(paths, state)),
            ];
            if needs.gateway == Gateway::Envoy {
                steps.push(scope.spawn(|| fetch::ensure_envoy(paths, state)));
            }
            if needs.inspector {
                steps.push(scope.spawn(|| fetch::ensure_inspector(paths, state)));
            }
            let broken = || Err(Problem::new("an installation step broke off"));
            steps.into_iter().map(|step| step.join().unwrap_or_else(|_| broken())).collect::<Vec<_>>()
        });
        outcomes.into_iter().collect::<Result<Vec<()>>>()?;
        Self::locate(paths, state, needs)
    }
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
        .mend("free some space, or point ASGARD_CACHE and CARGO_TARGET_DIR at another disk")),
        _ => Ok(()),
    }
}
