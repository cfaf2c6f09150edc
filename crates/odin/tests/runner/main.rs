//! The runner with real rmcp handlers. Each rule that rmcp's behaviour made necessary has its test.

mod aborts;
mod answers;
mod dialogue;
mod emissions;
mod handler;
mod reruns;
mod support;
