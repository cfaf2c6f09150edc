//! Streams that Pushpin itself broke.
//!
//! Before 1.41 Pushpin's connection manager sends keep-alives, every 45 seconds, also to a session that is just
//! being handed from its proxy to its handler, as each hold is. The session's sequence numbers are off by one
//! then, and the handler cancels it: the client's connection is cut. Nothing outside Pushpin can prevent it
//! (fixed in <https://github.com/fastly/pushpin/pull/48072>). It is rare, but a test of thousands of calls
//! meets it. The handler logs each case: as many cut streams are excused, and no more.

use std::path::PathBuf;

use crate::exchange::{End, Exchange, Form};
use crate::stack::Stack;

/// Cut streams that are to be explained by Pushpin's log from a place on.
#[derive(Debug)]
pub struct Breaks {
    log: PathBuf,
    before: usize,
    cut: usize,
}

impl Breaks {
    /// Looks from now on.
    #[must_use]
    pub fn from_now(stack: &Stack) -> Self {
        let log = stack.paths.logs().join("pushpin/pushpin-handler.log");
        let before = logged(&log);
        Self { log, before, cut: 0 }
    }

    /// Whether the exchange is one of those: a stream, cut after its head, that Pushpin has logged.
    pub fn excuses(&mut self, exchange: &Exchange) -> bool {
        let cut = exchange.form() == Form::Stream && matches!(exchange.end, Some((End::Cut(_), _)));
        if !cut || self.cut >= logged(&self.log).saturating_sub(self.before) {
            return false;
        }
        self.cut += 1;
        println!("cut by Pushpin, which says so in its log (fixed in 1.41): {}", exchange.outline());
        true
    }

    /// How many Pushpin has logged.
    #[must_use]
    pub fn logged(&self) -> usize {
        logged(&self.log).saturating_sub(self.before)
    }

    /// How many were excused.
    #[must_use]
    pub fn excused(&self) -> usize {
        self.cut
    }
}

fn logged(log: &PathBuf) -> usize {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().filter(|line| line.contains("received message out of sequence, canceling")).count()
}
