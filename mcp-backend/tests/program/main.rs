//! The backend as a process, with its own worker: slow uploads, its end, its settings.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may fail

mod degraded;
mod process;
mod settings;
mod stop;
mod uploads;
