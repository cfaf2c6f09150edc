//! The backend as a process, alone with its own worker and as a node of a site: slow uploads, its end, its settings, its
//! secrets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may fail

mod degraded;
mod process;
mod secrets;
mod settings;
mod site;
mod stop;
mod uploads;
