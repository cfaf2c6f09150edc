//! Requests that were let through a moment ago, so that the next one that is the same needs no thought.
//!
//! Clients call the same tool again and again: with the same token, method, target and MCP headers, only the
//! body differs, which the filter does not read. Such a request is let through as the one before, without a
//! look at its parts, while nothing can have changed: no second has come in which something expires or an
//! issuer must be asked, and no issuer has said anything but "still active" ([`crate::tokens::Tokens::epoch`]).
//! Only what was let through is kept, never a refusal.
//!
//! What such a request goes through ([`crate::pairs`], [`crate::head`], this, and the gateway's calls) is inlined
//! into one function: in a gateway, where much else runs in between, cold code costs more than instructions.

use crate::cache::{Cache, Digest};
use crate::config;
use crate::filter::Forward;

/// Most requests that are kept: they are of use for seconds only.
const MAX: usize = 1024;

/// A request that was let through.
struct Passed {
    forward: Forward,
    /// The seconds in which it may be let through again, since 1970: the first one, and the first one after.
    seconds: std::ops::Range<u64>,
    epoch: u64,
}

/// The requests that were let through under one configuration, in one worker.
pub struct Recent {
    known: Cache<Passed>,
}

impl Recent {
    /// None so far. They take an eighth of the memory that the tokens may take.
    pub fn new(bounds: &config::TokenCache) -> Self {
        Self { known: Cache::new(bounds.entries.min(MAX), bounds.bytes / 8) }
    }

    /// How a request with this digest was let through, if it may be so again at `now`.
    #[inline(always)]
    pub fn get(&mut self, head: &Digest, epoch: u64, now: u64) -> Option<Forward> {
        let passed = self.known.get(head)?;
        (passed.epoch == epoch && passed.seconds.contains(&now)).then(|| passed.forward.clone())
    }

    /// Keeps how a request was let through at `now`, to be used before the second `until`.
    pub fn keep(&mut self, head: Digest, forward: &Forward, epoch: u64, now: u64, until: u64) {
        let texts = [Some(&forward.identity), forward.userinfo.as_ref()];
        let weight = texts.iter().flatten().map(|text| text.len()).sum::<usize>();
        let weight =
            weight.saturating_add(forward.target.as_ref().map_or(0, String::len)).saturating_add(256);
        self.known.put(head, Passed { forward: forward.clone(), seconds: now..until, epoch }, weight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(identity: &str) -> Forward {
        Forward { identity: identity.into(), userinfo: None, target: None, scheme: None, would_refuse: None }
    }

    fn recent(entries: usize, bytes: usize) -> Recent {
        Recent::new(&config::TokenCache { entries, bytes })
    }

    #[test]
    fn for_its_seconds_and_until_an_issuer_speaks() {
        let mut recent = recent(9, 80_000);
        recent.keep(1, &forward("one"), 0, 100, 105);
        let mut found = |head, epoch, now| recent.get(&head, epoch, now).map(|forward| forward.identity);
        assert_eq!(found(1, 0, 100).as_deref(), Some("one"));
        assert_eq!(found(1, 0, 104).as_deref(), Some("one"));
        // Nor when the clock was set back.
        for (head, epoch, now) in [(2, 0, 100), (1, 1, 100), (1, 0, 99), (1, 0, 105)] {
            assert_eq!(found(head, epoch, now), None, "{head} {epoch} {now}");
        }
    }

    #[test]
    fn memory_stays_bounded() {
        for mut recent in [recent(100_000, 100_000_000), recent(100_000, 8 * 2_000_000), recent(0, 1 << 30)] {
            let long = "x".repeat(10_000);
            for number in 0..3000 {
                recent.keep(number, &forward(&long), 0, 1, 9);
            }
            assert!(recent.known.len() <= MAX, "{}", recent.known.len());
        }
    }
}
