//! What is measured: stacks, single processes, and peers.

pub mod paused;
pub mod plain;
pub mod process;
pub mod stack;
pub mod store;
pub mod streams;
