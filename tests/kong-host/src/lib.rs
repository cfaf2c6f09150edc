//! A stand-in for Kong Gateway 3.9.

pub mod template;
