//! Which request goes where.

mod ending;
mod hold;
mod request;

pub(crate) use hold::hold;
pub(crate) use request::serve;
