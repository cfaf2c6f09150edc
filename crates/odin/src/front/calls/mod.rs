//! Calls as the front end knows them: handed in, waited for, given up.

mod context;
mod outcome;
pub(crate) mod policy;
pub(crate) mod refusals;
pub(crate) mod retry;
mod submit;
mod waiting;

use context::order;

pub(crate) use context::{Context, via};
pub(crate) use outcome::{Outcome, Waited, outcome, wait};
pub(crate) use submit::{Submitted, begin, count, notify, say, say_refusal, submit};
pub(crate) use waiting::{AGAIN, Look, Waiting};
