//! Channels that nobody can guess.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::id::hex;

/// Distinguishes this use of the key from any other.
const LABEL: &str = "asgard broadcast v1";
/// Bytes of the digest that a name shows: as unguessable as the id of a call.
const NAME_BYTES: usize = 20;

/// The beginning of the names of all channels of notices.
pub(crate) const CHANNELS: &str = "b-";

/// The secret that the names of channels are made with; the same on all backends and workers of a site.
#[derive(Clone)]
pub struct BroadcastKey([u8; 32]);

/// Text that is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a broadcast key must be 32 bytes in base64url; make one with: openssl rand -base64 32 | tr +/ -_ | tr -d ="
)]
pub struct InvalidKey;

impl BroadcastKey {
    /// A key from its form in configurations: 32 bytes in base64url.
    ///
    /// # Errors
    /// [`InvalidKey`] when it is anything else.
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| InvalidKey)?;
        bytes.try_into().map(Self).map_err(|_| InvalidKey)
    }

    /// A new key; for a site of one process.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// The name of what the parts describe. Other parts, another name.
    pub(super) fn name(&self, parts: &[&str]) -> String {
        // A key of any length will do.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        for part in [LABEL].iter().chain(parts) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        let digest = mac.finalize().into_bytes();
        format!("{CHANNELS}{}", digest.get(..NAME_BYTES).map(hex).unwrap_or_default())
    }
}

impl fmt::Debug for BroadcastKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BroadcastKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_depend_on_every_part_and_on_the_key() {
        let (key, other) = (BroadcastKey([7; 32]), BroadcastKey([8; 32]));
        let name = key.name(&["a", "bc"]);
        assert_eq!(name.len(), 42);
        assert_eq!(name, key.name(&["a", "bc"]));
        for different in [key.name(&["ab", "c"]), key.name(&["a", "bc", ""]), other.name(&["a", "bc"])] {
            assert_ne!(name, different);
        }
    }

    #[test]
    fn a_key_has_32_bytes() {
        let key = BASE64_URL_SAFE_NO_PAD.encode([1; 32]);
        assert_eq!(BroadcastKey::parse(&key).unwrap().0, [1; 32]);
        assert_eq!(BroadcastKey::parse(&format!("{key}=")).unwrap().0, [1; 32]);
        for wrong in ["", "AAAA", "%", &format!("{key}AAAA")] {
            assert!(BroadcastKey::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(format!("{:?}", BroadcastKey([1; 32])), "BroadcastKey(..)");
    }
}
