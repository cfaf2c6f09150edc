//! Who calls: claims, organisations, the signed identity assertion and the tool policy.
//!
//! The same crate runs in the gateway's WebAssembly filter and in the native backend, so that both
//! judge a request by the same rules.

pub mod assertion;
pub mod path;
mod principal;

pub use assertion::{Assertion, AssertionError, AssertionKeys, KeysError};
pub use principal::{Principal, Road};
