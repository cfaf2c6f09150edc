//! Secrets of the programs: out of the environment, or out of files that it names (`NAME_FILE`, as containers get
//! them). Never from the command line, which every user of a machine can read.

use std::ffi::OsString;
use std::io::Read;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use identity::AssertionKeys;
use sha2::Sha256;

use crate::broadcast::BroadcastKey;
use crate::id::hex;
use crate::link::LinkKeys;
use crate::protocol::session::SessionKeys;
use crate::runner::StateKeys;

/// Most bytes of a file with a secret.
const LARGEST: u64 = 64 * 1024;
/// Least bytes of a key for HS256 (RFC 7518, section 3.2).
const GRIP: usize = 32;
/// Distinguishes a fingerprint from any other use of a key.
const FINGERPRINT: &[u8] = b"asgard key fingerprint v1";
/// Bytes of a fingerprint.
const PRINTED: usize = 8;

pub(super) const ASSERTION_KEYS: &str = "ASGARD_ASSERTION_KEYS";
pub(super) const SESSION_KEY: &str = "ASGARD_SESSION_KEY";
pub(super) const GRIP_KEY: &str = "ASGARD_GRIP_KEY";
pub(super) const BROADCAST_KEY: &str = "ASGARD_BROADCAST_KEY";
pub(super) const STATE_KEY: &str = "ASGARD_STATE_KEY";
pub(super) const LINK_KEY: &str = "ASGARD_LINK_KEY";
pub(super) const ADMIN_TOKEN: &str = "ASGARD_ADMIN_TOKEN";
pub(super) const REDIS_URL: &str = "ASGARD_REDIS_URL";

/// The secret of a name: the variable's value, or the text of the file that `NAME_FILE` names. `None`: neither is
/// set.
///
/// # Errors
/// Both are set, the file can't be read, or there is nothing in it: a secret that is empty by mistake must not
/// pass for none.
pub(super) fn secret(name: &str) -> Result<Option<String>, String> {
    secret_in(name, |name| std::env::var_os(name))
}

fn secret_in(name: &str, env: impl Fn(&str) -> Option<OsString>) -> Result<Option<String>, String> {
    let by_file = format!("{name}_FILE");
    let text = match (env(name), env(&by_file)) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            return Err(format!("{name} and {by_file} are both set: leave one of them out"));
        }
        (Some(text), None) => text.into_string().map_err(|_| format!("{name} is not UTF-8"))?,
        (None, Some(file)) => {
            let wrong = |error| format!("{by_file}: {}: {error}", file.display());
            let mut text = String::new();
            let file = std::fs::File::open(&file).map_err(wrong)?;
            file.take(LARGEST + 1).read_to_string(&mut text).map_err(wrong)?;
            if text.len() as u64 > LARGEST {
                return Err(format!("{by_file} names a file of more than {LARGEST} bytes"));
            }
            text
        }
    };
    match text.trim() {
        "" => Err(format!("{name} is empty: give the secret, or leave the variable out")),
        text => Ok(Some(text.to_owned())),
    }
}

/// A secret that every node of a site must have, as what nodes share would not fit together without it.
fn shared(name: &str, what: &str, alone: bool) -> Result<Option<String>, String> {
    match secret(name)? {
        None if !alone => {
            Err(format!("{name} is missing: {what}. Set it, or name a file with it in {name}_FILE"))
        }
        given => Ok(given),
    }
}

/// A key with its text, of which fingerprints are made. A process of its own may have one that nobody knows.
pub(super) struct Shared<K> {
    pub(super) key: K,
    text: String,
}

impl<K> Shared<K> {
    /// What other nodes compare: of each key of the text, in hex, one in a line.
    pub(super) fn fingerprints(&self) -> String {
        fingerprints(&self.text)
    }
}

/// The keys that the gateway signs identities with; `None` where there are none.
pub(super) fn assertion_keys() -> Result<Option<Shared<AssertionKeys>>, String> {
    let Some(text) = secret(ASSERTION_KEYS)? else { return Ok(None) };
    let key = AssertionKeys::parse(&text).map_err(|error| format!("{ASSERTION_KEYS}: {error}"))?;
    Ok(Some(Shared { key, text }))
}

/// The keys of session ids; of one process alone they may be random.
pub(super) fn session_keys(alone: bool) -> Result<Shared<SessionKeys>, String> {
    let what = "32 random bytes in base64url, the same on all backends";
    let text = shared(SESSION_KEY, what, alone)?
        .unwrap_or_else(|| BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()));
    let key = SessionKeys::parse(&text).map_err(|error| format!("{SESSION_KEY}: {error}"))?;
    Ok(Shared { key, text })
}

/// The key of the names of notifications' channels; of one process alone it may be random.
pub(super) fn broadcast_key(alone: bool) -> Result<Shared<BroadcastKey>, String> {
    let what = "32 random bytes in base64url, the same on all backends and workers";
    read_or_random(BROADCAST_KEY, what, alone, BroadcastKey::parse, BroadcastKey::random)
}

/// The keys that seal `requestState`; of one process alone they may be random.
pub(super) fn state_keys(alone: bool) -> Result<Shared<StateKeys>, String> {
    let what = "32 random bytes in base64url, the same on all workers";
    read_or_random(STATE_KEY, what, alone, StateKeys::parse, StateKeys::random)
}

/// The keys of links between backends and workers; `None` where there are none.
pub(super) fn link_keys() -> Result<Option<Shared<LinkKeys>>, String> {
    let Some(text) = secret(LINK_KEY)? else { return Ok(None) };
    let key = LinkKeys::parse(&text).map_err(|error| format!("{LINK_KEY}: {error}"))?;
    Ok(Some(Shared { key, text }))
}

fn read_or_random<K, E: std::fmt::Display>(
    name: &str,
    what: &str,
    alone: bool,
    parse: impl FnOnce(&str) -> Result<K, E>,
    random: impl FnOnce() -> K,
) -> Result<Shared<K>, String> {
    let Some(text) = shared(name, what, alone)? else {
        return Ok(Shared { key: random(), text: String::new() });
    };
    let key = parse(&text).map_err(|error| format!("{name}: {error}"))?;
    Ok(Shared { key, text })
}

/// The key of Pushpin's `Grip-Sig`; `None` where there is none.
pub(super) fn grip_key() -> Result<Option<Shared<Vec<u8>>>, String> {
    let Some(text) = secret(GRIP_KEY)? else { return Ok(None) };
    let key = decode(&text).ok_or_else(|| format!("{GRIP_KEY} is not base64url"))?;
    if key.len() < GRIP {
        let bytes = key.len();
        return Err(format!(
            "{GRIP_KEY} has {bytes} bytes, and needs {GRIP}: anybody could find a shorter one"
        ));
    }
    Ok(Some(Shared { key, text }))
}

fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(text.trim().trim_end_matches('=')).ok()
}

/// Of each key in a text (`[id:]base64url`, with commas between). From a fingerprint nobody finds a key of 32 random
/// bytes.
fn fingerprints(text: &str) -> String {
    let fingerprint = |entry: &str| {
        let secret = decode(entry.rsplit(':').next().unwrap_or_default())?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&secret).ok()?;
        mac.update(FINGERPRINT);
        let digest = mac.finalize().into_bytes();
        digest.get(..PRINTED).map(hex)
    };
    text.split(',').filter_map(fingerprint).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<Option<String>, String> {
        secret_in("KEY", |name| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn a_secret_comes_from_its_variable_or_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| {
            let file = folder.path().join(name);
            std::fs::write(&file, text).unwrap();
            file.display().to_string()
        };
        let (good, empty) = (write("good", b"s3cret\n"), write("empty", b" \n"));
        let large = write("large", &vec![b'x'; LARGEST as usize + 1]);
        let missing = folder.path().join("missing").display().to_string();
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[("KEY", " s3cret ")]), Ok(Some("s3cret".into())));
        assert_eq!(of(&[("KEY_FILE", &good)]), Ok(Some("s3cret".into())));
        for (pairs, why) in [
            (&[("KEY", "x"), ("KEY_FILE", &*good)][..], "both set"),
            (&[("KEY", "")], "KEY is empty"),
            (&[("KEY_FILE", &empty)], "KEY is empty"),
            (&[("KEY_FILE", "")], "KEY_FILE"),
            (&[("KEY_FILE", &missing)], "missing: No such file"),
            (&[("KEY_FILE", &large)], "more than 65536 bytes"),
        ] {
            let error = of(pairs).unwrap_err();
            assert!(error.contains(why) && !error.contains("s3cret"), "{pairs:?}: {error}");
        }
    }

    #[test]
    fn fingerprints_are_of_the_keys_alone() {
        let (one, two) = (BASE64_URL_SAFE_NO_PAD.encode([1; 32]), BASE64_URL_SAFE_NO_PAD.encode([2; 32]));
        let fingerprint = fingerprints(&one);
        assert_eq!(fingerprint.len(), 2 * PRINTED);
        assert_eq!(fingerprints(&format!("k1:{one}=")), fingerprint);
        assert_eq!(
            fingerprints(&format!("k2:{two},k1:{one}")),
            format!("{}\n{fingerprint}", fingerprints(&two))
        );
        assert_ne!(fingerprint, fingerprints(&two));
        assert!(!one.contains(&fingerprint));
    }
}
