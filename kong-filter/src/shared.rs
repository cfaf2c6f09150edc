//! Key sets that the gateway's workers share, so that a worker which has none, or can't reach the issuer, uses those that
//! another one has fetched.
//!
//! They go through the gateway's shared data. In Kong that is a zone which exists only where it is configured; a read without
//! it is a trap, and so is a value larger than the zone. Entries are found by the CRC32 of their key, so each value begins with
//! its whole key, and an entry of another key is left alone.

use std::rc::Rc;

use crate::config::{Config, Issuer};
use crate::jwks;

/// Largest value that is shared, in bytes; and not more than this part of the zone.
const MAX_VALUE: u64 = 64 * 1024;
const PART: u64 = 16;

/// The gateway's shared data.
pub trait SharedData {
    /// The value of a key, or of another with the same hash; and its version, which is absent where there is no value.
    fn get(&self, key: &str) -> (Option<Vec<u8>>, Option<u32>);
    /// Sets a key, unless it has another version by now.
    fn set(&self, key: &str, value: &[u8], version: Option<u32>);
}

/// The key sets of one configuration's issuers, as the workers share them.
pub struct SharedKeys {
    data: Rc<dyn SharedData>,
    /// By issuer.
    names: Vec<Option<String>>,
    max: usize,
}

impl SharedKeys {
    /// `None` where the configuration says nothing of a zone.
    pub fn new(config: &Config, data: Rc<dyn SharedData>) -> Option<Self> {
        let max = (config.shared_data_bytes / PART).min(MAX_VALUE);
        let names = config.issuers.iter().map(name).collect();
        (max > 0).then(|| Self { data, names, max: usize::try_from(max).unwrap_or(0) })
    }

    /// When the shared key set of an issuer was fetched, in seconds since 1970, and the set, if it is newer than `than`.
    pub fn newer(&self, issuer: usize, than: Option<u64>) -> Option<(u64, Vec<u8>)> {
        let name = self.names.get(issuer)?.as_deref()?;
        let value = self.data.get(name).0?;
        let (fetched_at, set) = split(name, &value)?;
        than.is_none_or(|than| fetched_at > than).then(|| (fetched_at, set.to_vec()))
    }

    /// Shares the key set that an issuer answered with at `fetched_at`, as far as it is public.
    pub fn share(&self, issuer: usize, answer: &[u8], fetched_at: u64) {
        let Some(name) = self.names.get(issuer).and_then(Option::as_deref) else { return };
        let (old, version) = self.data.get(name);
        // Of another key, or newer.
        if old.is_some_and(|old| split(name, &old).is_none_or(|(at, _)| at > fetched_at)) {
            return;
        }
        let Some(set) = jwks::public(answer) else { return };
        let mut value = name.as_bytes().to_vec();
        value.extend_from_slice(&fetched_at.to_be_bytes());
        value.extend_from_slice(set.as_bytes());
        if value.len() <= self.max {
            self.data.set(name, &value, version);
        }
    }
}

/// The key of an issuer's entry: all that says where the key set comes from.
fn name(issuer: &Issuer) -> Option<String> {
    let jwks = issuer.jwks.as_ref()?;
    let authority = jwks.authority.as_deref().unwrap_or_default();
    let (issuer, upstream, path) = (&issuer.issuer, &jwks.upstream, &jwks.path);
    Some(format!("asgard jwks 1\n{issuer}\n{upstream}\n{authority}\n{path}\n{}\n", u8::from(jwks.tls)))
}

/// When a value was fetched, and the key set in it, if it is that of `name`.
fn split<'a>(name: &str, value: &'a [u8]) -> Option<(u64, &'a [u8])> {
    let (at, set) = value.strip_prefix(name.as_bytes())?.split_first_chunk()?;
    Some((u64::from_be_bytes(*at), set))
}
