//! What is measured: stacks, single processes, and peers.

pub mod plain;
pub mod process;
pub mod stack;
