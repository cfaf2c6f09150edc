//! The `asgard` command, as a library: starts and watches the real parts, talks to them as a person would.
//!
//! - [`stack`]: a whole stack of its own for end-to-end tests;
//! - [`state`], [`render`], [`config`], [`parts`], [`install`]: from the state file to running programs;
//! - [`samples`]: accounts that everybody knows, and where they may be;
//! - [`supervisor`]: keeps them running;
//! - [`token`], [`client`]: a client's side;
//! - [`keycloak`], [`hosts`]: organisations, users, hosts;
//! - [`commands`]: what the command line offers.

pub mod args;
pub mod client;
pub mod commands;
pub mod compose;
pub mod config;
pub mod gateway;
pub mod health;
mod hostname;
pub mod hosts;
pub mod install;
pub mod keycloak;
pub mod parts;
pub mod paths;
pub mod policy;
pub mod ports;
pub mod problem;
pub mod process;
pub mod render;
pub mod samples;
pub mod size;
pub mod stack;
pub mod state;
pub mod suites;
pub mod supervisor;
pub mod token;
pub mod ui;
