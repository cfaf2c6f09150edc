//! Streams: what Pushpin is to hold, and those of this process.

pub(crate) mod hold;
pub(crate) mod long_lived;
pub(crate) mod own;
