//! A stand-in for Kong Gateway 3.9 in tests: it reads the shipped `kong/kong.yml.in` and `kong/kong.env.in` and
//! behaves towards proxy-wasm filters as a real Kong 3.9.3 was measured to, at its worst.
//!
//! What it plays: routing; the plugins pre-function (one assignment), cors and request-transformer; balancing over an
//! upstream's targets; filter chains in one wasm instance a module and worker; the proxying itself. What it does not: health
//! checks, TLS, the hand-over (that is tried in a real nginx, `tests/nginx.rs`).
//!
//! Where Kong is dangerous, so is this host. It serves all routes without a filter when a filter has no ABI, an unknown
//! import, or refuses its configuration; it
//! sends on a header that a filter has removed; it confuses keys of shared data with one CRC32; it loses an
//! instance's state at a trap; and when a filter touches a property `kong.*` anywhere but in request headers, which
//! corrupts the memory of a real worker, it serves nothing more, and the test fails. [`Gateway`] is where to begin.

pub mod config;
pub mod gateway;
pub mod headers;
pub mod log;
pub mod plugins;
pub mod proxy;
pub mod router;
pub mod schema;
pub mod setup;
pub mod wasm;

pub use gateway::Gateway;
pub use log::{Log, Severity};
pub use setup::Setup;
