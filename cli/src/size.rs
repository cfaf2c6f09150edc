//! How many backends and workers a stack has.

use serde::{Deserialize, Serialize};

use crate::problem::{Problem, Result};

/// Most backends, and most workers, of one stack.
pub const MAX_COPIES: u16 = 9;

/// How many copies run.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Backends, 1 to [`MAX_COPIES`].
    pub backends: u16,
    /// Workers, 1 to [`MAX_COPIES`].
    pub workers: u16,
}

impl Size {
    /// Checks the bounds.
    ///
    /// # Errors
    /// A count that is not 1 to [`MAX_COPIES`].
    pub fn check(&self) -> Result<()> {
        for (name, count) in [("backends", self.backends), ("workers", self.workers)] {
            if !(1..=MAX_COPIES).contains(&count) {
                return Err(Problem::new(format!("{name} must be 1 to {MAX_COPIES}, not {count}")));
            }
        }
        Ok(())
    }
}
