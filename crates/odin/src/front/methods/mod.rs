//! What each method means.

mod batch;
pub(crate) mod call;
pub(crate) mod http_sse;
pub(crate) mod listen;
pub(crate) mod posted;
pub(crate) mod session;
pub(crate) mod tasks;
