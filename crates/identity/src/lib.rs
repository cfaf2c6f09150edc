//! Who calls: claims, organisations, the signed identity assertion and the tool policy.
//!
//! The same crate runs in the gateway's WebAssembly filter and in the native backend, so that both
//! judge a request by the same rules. It does no input or output and reads no clock.
//!
//! - [`path`]: which endpoint of which organisation a path names.
//! - [`claims`]: what an access token says, and whether that is acceptable.
//! - [`policy`]: who may use which method and tool.
//! - [`scopes`]: scopes that contain others.
//! - [`assertion`]: how the filter tells the backend who calls, so that the backend can believe it.

pub mod assertion;
pub mod claims;
pub mod json;
pub mod path;
pub mod policy;
mod principal;
pub mod scopes;

pub use assertion::{Assertion, AssertionError, AssertionKeys, KeysError};
pub use claims::{ClaimNames, Claims, ClaimsError};
pub use policy::{Decision, Effect, Policy, PolicyError};
pub use principal::{EntryPoint, Principal};
pub use scopes::Hierarchy;
