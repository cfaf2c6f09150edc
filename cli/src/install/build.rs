//! Builds our own programs and the filter. Cargo decides what is to be done.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Run, output_of};
use crate::paths::Paths;
use crate::problem::{Problem, Result};
use crate::process::find_program;
use crate::ui::Step;

const HINT: &str = "fix the code, or check the network if a crate could not be fetched";

/// Where our programs are.
#[derive(Debug)]
pub struct Built;

impl Built {
    /// The folder of the release profile's programs.
    #[must_use]
    pub fn folder(paths: &Paths) -> PathBuf {
        paths.target().join("release")
    }

    /// The filter's module, as `scripts/build-filter` leaves it.
    #[must_use]
    pub fn filter(paths: &Paths) -> PathBuf {
        std::env::var_os("ASGARD_FILTER_WASM")
            .map_or_else(|| paths.root.join("target/wasm/kong_filter.wasm"), PathBuf::from)
    }
}

/// Cargo: the one that runs us, `PATH`, rustup's place.
#[must_use]
pub fn cargo() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo/bin/cargo"));
    std::env::var_os("CARGO")
        .map(PathBuf::from)
        .into_iter()
        .chain(find_program("cargo"))
        .chain(home)
        .find(|c| c.exists())
}

/// Whether the toolchain on `PATH` can build for WebAssembly by itself.
pub(super) fn has_wasm_target() -> bool {
    output_of(Command::new("rustc").args(["--print", "target-libdir", "--target", "wasm32-wasip1"]))
        .and_then(|folder| std::fs::read_dir(folder.trim()).ok())
        .is_some_and(|folder| {
            folder.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libstd-"))
        })
}

/// Builds backend and worker, or the whole workspace with its tests.
pub(super) fn programs(paths: &Paths, tests: bool) -> Result<()> {
    let name = if tests { "programs and tests: build" } else { "backend and worker: build" };
    let log = paths.log("install-programs");
    let run = Run {
        doing: if tests { "build the programs and their tests" } else { "build the backend and the worker" },
        log_shown: paths.shown(&log),
        log,
        hint: HINT,
    };
    let what =
        if tests { ["--all-targets"].as_slice() } else { &["--bin", "mcp-backend", "--bin", "worker"] };
    cargo_build(&run, name, &paths.root, &[&["--workspace"], what].concat())
}

/// Builds the program of `asgard bench`, which has a workspace of its own; where it is.
///
/// # Errors
/// When it cannot be built.
pub fn bench(paths: &Paths) -> Result<PathBuf> {
    let log = paths.log("install-bench");
    let run = Run { doing: "build the program that measures", log_shown: paths.shown(&log), log, hint: HINT };
    let folder = paths.root.join("bench");
    cargo_build(&run, "bench: build", &folder, &["--locked"])?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| folder.join("target"), PathBuf::from);
    Ok(target.join("release/bench"))
}

fn cargo_build(run: &Run<'_>, name: &str, folder: &Path, arguments: &[&str]) -> Result<()> {
    let cargo =
        cargo().ok_or_else(|| Problem::new("there is no cargo").hint("install Rust: https://rustup.rs"))?;
    let step = Step::begin(name);
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--color", "never"]).args(arguments).current_dir(folder);
    let mut compiled = 0_u32;
    run.run(&mut command, &step, |line, step| {
        let line = line.trim();
        if let Some(name) = line.strip_prefix("Compiling ") {
            compiled += 1;
            step.message(format!("{compiled} crates, {}", name.split(' ').next().unwrap_or(name)));
        } else if line.starts_with("Download") {
            step.message("fetching crates");
        }
    })?;
    if compiled > 0 {
        step.done()
    } else {
        step.clear()
    }
    Ok(())
}

/// Builds the filter.
///
/// # Errors
/// When it cannot be built.
pub fn filter(paths: &Paths) -> Result<()> {
    if std::env::var_os("ASGARD_FILTER_WASM").is_some() {
        return Ok(());
    }
    let script = paths.root.join("scripts/build-filter");
    let step = Step::begin("gateway filter (wasm): build");
    let log = paths.log("install-filter");
    let run = Run {
        doing: "build the gateway's filter",
        log_shown: paths.shown(&log),
        log,
        hint: "fix the cause and run the command again",
    };
    let mut fresh = false;
    run.run(Command::new(&script).current_dir(&paths.root), &step, |line, step| {
        fresh |= line.contains("up to date");
        step.message(line.trim_start_matches("build-filter: ").to_owned());
    })?;
    if fresh {
        step.clear()
    } else {
        step.done()
    }
    Ok(())
}
