#![doc = include_str!("../README.md")]

/// For a struct that gets fields in later versions, and so can't be written as a literal elsewhere: one method for each
/// field, which gives the struct back with it.
macro_rules! setters {
    ($of:ident { $($name:ident => $field:ident: $type:ty),+ $(,)? }) => {
        impl $of {
            $(
                #[doc = concat!("The same with another [`", stringify!($field), "`](Self::", stringify!($field), ").")]
                #[must_use]
                pub fn $name(mut self, $field: $type) -> Self {
                    self.$field = $field;
                    self
                }
            )+
        }
    };
}

#[cfg(feature = "front")]
pub mod admin;
// The streams that get what is broadcast are a front end's: without one, their half is unused.
#[cfg_attr(not(feature = "front"), allow(dead_code, unused_imports))]
pub mod broadcast;
pub mod call;
mod events;
#[cfg(feature = "front")]
pub mod front;
pub mod health;
pub mod id;
pub mod link;
#[cfg(feature = "program")]
pub mod program;
pub mod protocol;
pub mod runner;
#[cfg(feature = "front")]
pub mod serve;
pub mod store;
pub mod worker;

pub use call::task::{Support, TaskTool};
pub use identity;
#[cfg(feature = "program")]
pub use program::Program;
pub use rmcp;
pub use runner::{Ask, Asked, Caller, Cancelled, InTask, Progress, ToolResult, later};
