//! Shared data between filters and workers (`shm_kv`).

use std::collections::HashMap;

/// What is wrong with an access; Kong traps.
#[derive(Debug, PartialEq, Eq)]
pub enum Misuse {
    /// There is no zone (`KONG_NGINX_WASM_SHM_KV`).
    NoZone,
    /// The value does not fit.
    TooLarge,
}

/// The zone, or its absence.
#[derive(Debug, Default)]
pub struct SharedData(Option<Zone>);

/// A zone of a size.
#[derive(Debug)]
pub struct Zone {
    bytes: usize,
    /// By CRC32 of the key alone, as in Kong: two keys with one sum are one entry.
    entries: HashMap<u32, (Vec<u8>, u32)>,
}

impl Zone {
    /// An empty zone of `bytes`.
    pub fn new(bytes: usize) -> Self {
        Self { bytes, entries: HashMap::new() }
    }
}

impl SharedData {
    /// With a zone, or without.
    pub fn new(zone: Option<Zone>) -> Self {
        Self(zone)
    }

    /// Value and version of a key.
    ///
    /// # Errors
    /// `Misuse::NoZone`.
    pub fn get(&self, key: &[u8]) -> Result<Option<(Vec<u8>, u32)>, Misuse> {
        let zone = self.0.as_ref().ok_or(Misuse::NoZone)?;
        Ok(zone.entries.get(&crc32fast::hash(key)).cloned())
    }

    /// Sets a key when its version is `cas` (0: when there is none yet); tells whether it did.
    ///
    /// # Errors
    /// `Misuse`.
    pub fn set(&mut self, key: &[u8], value: &[u8], cas: u32) -> Result<bool, Misuse> {
        let zone = self.0.as_mut().ok_or(Misuse::NoZone)?;
        if value.len() >= zone.bytes {
            return Err(Misuse::TooLarge);
        }
        let sum = crc32fast::hash(key);
        let current = zone.entries.get(&sum).map_or(0, |(_, version)| *version);
        if current != cas {
            return Ok(false);
        }
        zone.entries.insert(sum, (value.to_vec(), current.wrapping_add(1).max(1)));
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_with_one_sum_are_one_entry() {
        let mut data = SharedData::new(Some(Zone::new(1000)));
        assert!(data.set(b"plumless", b"1", 0).unwrap());
        assert_eq!(data.get(b"buckeroo").unwrap(), Some((b"1".to_vec(), 1)));
    }

    #[test]
    fn a_key_that_is_there_needs_its_version() {
        let mut data = SharedData::new(Some(Zone::new(1000)));
        assert!(data.set(b"k", b"1", 0).unwrap());
        assert!(!data.set(b"k", b"2", 0).unwrap());
        assert!(data.set(b"k", b"2", 1).unwrap());
    }

    #[test]
    fn no_zone_and_large_values_are_misuse() {
        assert_eq!(SharedData::default().get(b"k"), Err(Misuse::NoZone));
        assert_eq!(SharedData::new(Some(Zone::new(4))).set(b"k", b"12345", 0), Err(Misuse::TooLarge));
    }
}
