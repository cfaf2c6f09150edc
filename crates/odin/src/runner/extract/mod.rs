//! What a tool can take as an argument beside its own parameters.

mod ask;
mod task;

pub use ask::{Ask, Asked};
pub use task::{InTask, later};
