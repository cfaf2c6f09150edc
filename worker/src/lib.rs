//! The stock Odin worker: a small toolbox, served by the distributed worker runtime.

pub mod toolbox;
