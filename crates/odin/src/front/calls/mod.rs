//! Calls as the front end knows them: handed in, waited for, given up.

mod context;
mod direct;
mod handle;
mod outcome;
pub(crate) mod policy;
pub(crate) mod retry;
mod submit;

use context::order;

pub(crate) use context::{Context, via};
pub(crate) use handle::{ANSWER_ALONE, Handle, Next, Want};
pub(crate) use outcome::{Outcome, outcome};
pub(crate) use submit::{Submitted, count, notify, say, say_refusal, submit};
