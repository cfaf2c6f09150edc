//! What the tests need to look at the stack as a person does: a browser, the Inspector, and what drives them.

use std::path::PathBuf;

use super::{fetch, install_packages, pinned};
use crate::paths::Paths;
use crate::problem::{Problem, Result};
use crate::process::find_program;
use crate::state::State;

/// Names under which Chromium is installed.
const CHROMIUM: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// The programs.
#[derive(Debug, Clone)]
pub struct Browser {
    /// A Node.js that is new enough.
    pub node: PathBuf,
    /// The Inspector's script.
    pub inspector: PathBuf,
    /// The folder in which `playwright-core` is installed.
    pub playwright: PathBuf,
    /// Chromium.
    pub chromium: PathBuf,
}

impl Browser {
    /// Finds them; installs what is missing.
    ///
    /// # Errors
    /// What could not be installed, and what to do.
    pub fn ensure(paths: &Paths, state: &State) -> Result<Self> {
        let chromium = || CHROMIUM.into_iter().find_map(find_program);
        if chromium().is_none() {
            install_packages(paths, &["chromium"])?;
        }
        let playwright = pinned::PLAYWRIGHT.folder(paths, &state.versions.playwright);
        fetch::ensure_inspector(paths, state)?;
        fetch::ensure_npm(paths, state, &pinned::PLAYWRIGHT, &state.versions.playwright)?;
        Ok(Self {
            node: fetch::node(paths, state).ok_or_else(|| Problem::new("Node.js could not be fetched"))?,
            inspector: fetch::inspector(paths, state),
            playwright,
            chromium: chromium()
                .ok_or_else(|| Problem::new("Chromium is not on PATH").hint("apt-get install chromium"))?,
        })
    }
}
