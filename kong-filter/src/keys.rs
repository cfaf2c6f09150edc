//! When an issuer's keys are fetched, and how long they are used.
//!
//! Nothing here fetches: a request that wants keys gets their address, pauses, and brings them. A gateway
//! can't wake one request when another's fetch is done (Kong), so several may fetch at once; bounds
//! below keep that small.

use crate::config::{Algorithm, Jwks};
use crate::jwks::{Fingerprint, Key};

/// Most fetches at the same time for one issuer and worker.
const MAX_IN_FLIGHT: usize = 32;

/// An issuer's keys in one worker. All times are in seconds since 1970.
pub struct KeyStore {
    keys: Vec<Key>,
    loaded_at: Option<u64>,
    /// When the fetches under way will have ended, at the latest: a request that goes away takes its
    /// fetch with it without a word.
    in_flight: Vec<u64>,
    /// Set while the last fetch that ended was a failure.
    retry_at: Option<u64>,
    unknown_at: u64,
    refresh: u64,
    keep: u64,
    unknown_pause: u64,
    retry_pause: u64,
    timeout: u64,
}

/// What a request can do about its token.
pub enum Lookup<'a> {
    /// Verify with these: all keys that the token may have been signed with. Never empty.
    Keys(Vec<&'a Key>),
    /// Fetch the key set first, and come back.
    Fetch,
    /// There is no such key, and the key set is not asked for again so soon.
    Unknown,
    /// There are no keys at all now: the issuer can't be reached.
    Unavailable,
}

impl KeyStore {
    /// An empty store.
    pub fn new(config: &Jwks) -> Self {
        Self {
            keys: Vec::new(),
            loaded_at: None,
            in_flight: Vec::new(),
            retry_at: None,
            unknown_at: 0,
            refresh: config.refresh_s,
            keep: config.keep_s,
            unknown_pause: config.unknown_kid_s,
            retry_pause: config.retry_s,
            timeout: config.timeout_ms.div_ceil(1000),
        }
    }

    /// The keys for a token. `may_fetch` is false for a request that has fetched already.
    pub fn lookup(
        &mut self,
        id: Option<&str>,
        algorithm: Algorithm,
        now: u64,
        may_fetch: bool,
    ) -> Lookup<'_> {
        match self.state(now, may_fetch) {
            State::Fetch => return self.fetch(now),
            State::Unavailable => return Lookup::Unavailable,
            State::Usable => {}
        }
        let fits = |key: &&Key| key.is_for(id, algorithm);
        if self.keys.iter().any(|key| fits(&key)) {
            return Lookup::Keys(self.keys.iter().filter(fits).collect());
        }
        // While one request fetches because of an unknown key, others with one join it by fetching too.
        let asked = now < self.unknown_at && self.in_flight.is_empty();
        if !may_fetch || asked || self.in_flight.len() >= MAX_IN_FLIGHT {
            // The key may well exist when the issuer can't be asked.
            return if self.retry_at.is_some() { Lookup::Unavailable } else { Lookup::Unknown };
        }
        self.unknown_at = now.saturating_add(self.unknown_pause);
        self.fetch(now)
    }

    /// The same for a token that is in the cache: its key must still be in the set.
    pub fn lookup_cached(&mut self, fingerprint: &Fingerprint, now: u64, may_fetch: bool) -> Lookup<'_> {
        match self.state(now, may_fetch) {
            State::Fetch => self.fetch(now),
            State::Unavailable => Lookup::Unavailable,
            State::Usable => match self.keys.iter().find(|key| key.fingerprint == *fingerprint) {
                Some(key) => Lookup::Keys(vec![key]),
                None => Lookup::Unknown,
            },
        }
    }

    /// The first second in which [`Self::lookup_cached`] may say something else of a key that it knows now,
    /// if nothing is fetched until then; `None` when that can't be raw_request.
    pub fn same_until(&self, now: u64) -> Option<u64> {
        let until = self.loaded_at?.saturating_add(self.refresh.min(self.keep));
        (self.loaded_at? <= now && now < until).then_some(until)
    }

    /// When the keys were fetched, if there are any.
    pub fn loaded_at(&self) -> Option<u64> {
        self.loaded_at
    }

    /// Whether keys from elsewhere would be of use for a token: there are none, they are due to be fetched anew, or none
    /// fits.
    pub fn wants(&self, token: Option<(Option<&str>, Algorithm)>, now: u64) -> bool {
        self.same_until(now).is_none()
            || token.is_some_and(|(id, algorithm)| !self.keys.iter().any(|key| key.is_for(id, algorithm)))
    }

    /// Takes keys that another worker fetched at `fetched_at`. Whether it did: not from the future, as after the clock was
    /// set back, nor when they are too old.
    pub fn adopt(&mut self, keys: Vec<Key>, fetched_at: u64, now: u64) -> bool {
        let good = now.checked_sub(fetched_at).is_some_and(|age| age < self.keep);
        if good {
            self.keys = keys;
            self.loaded_at = Some(fetched_at);
        }
        good
    }

    fn state(&mut self, now: u64, may_fetch: bool) -> State {
        self.in_flight.retain(|end| *end > now);
        let age = self.loaded_at.map(|loaded| now.saturating_sub(loaded));
        let usable = age.is_some_and(|age| age < self.keep);
        let may_fetch = may_fetch && self.retry_at.is_none_or(|at| now >= at);
        match age {
            Some(age) if usable && (age < self.refresh || !may_fetch || !self.in_flight.is_empty()) => {
                State::Usable
            }
            _ if may_fetch && self.in_flight.len() < MAX_IN_FLIGHT => State::Fetch,
            _ if usable => State::Usable,
            _ => State::Unavailable,
        }
    }

    fn fetch(&mut self, now: u64) -> Lookup<'_> {
        // One second more, for the host's own delay.
        self.in_flight.push(now.saturating_add(self.timeout).saturating_add(1));
        Lookup::Fetch
    }

    /// A fetch ended, well or not. The old keys stay when it brought none.
    pub fn fetched(&mut self, keys: Option<Vec<Key>>, now: u64) {
        self.in_flight.pop();
        match keys {
            Some(keys) => {
                self.keys = keys;
                self.loaded_at = Some(now);
                self.retry_at = None;
            }
            None => self.retry_at = Some(now.saturating_add(self.retry_pause)),
        }
    }
}

enum State {
    Usable,
    Fetch,
    Unavailable,
}
