//! The proxy-wasm host (ABI 0.2.1) with the ways of Kong's `ngx_wasm_module`.
//!
//! [`Worker`] is one worker process of Kong: it has one instance of each module, which all filter chains share.

mod imports;
mod memory;
mod shared;
mod state;
mod worker;

pub use shared::{SharedData, Zone};
pub use state::{Callout, CalloutReply, LocalReply, Poison, RequestState, Severity};
pub use worker::{Chain, LoadError, Step, Ticket, Worker};
