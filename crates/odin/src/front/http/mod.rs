//! A request from its head to its body, and the forms of answers.

mod access;
mod body;
mod respond;

pub use access::Access;
pub(crate) use access::{Caller, only, proof};
pub(crate) use body::{Bodies, read};
pub(crate) use respond::{event_stream, in_era, into_axum, no_answer, unix_seconds};
