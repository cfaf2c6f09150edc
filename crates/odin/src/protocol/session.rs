//! Session ids: signed tokens that carry what any node needs to serve the session.
//!
//! A session at rest costs the server nothing. The id is `payload.signature`, both base64url: JSON with 128
//! random bits, revision, time, and the client's information and capabilities; and HMAC-SHA256 over it and
//! over the caller's key. So an id works for its own caller alone. The payload is readable to the client,
//! which is where it came from. That a session was ended is kept elsewhere, under [`SessionInfo::key`].

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};
use sha2::Sha256;

use super::message::Request;
use super::refusal::Refusal;
use super::revision::Revision;

/// Bytes that client information and capabilities together may have inside an id, as compact JSON. An id is
/// then shorter than 1,900 bytes: proxies allow about 8 KiB for all headers together.
const CLIENT_BYTES: usize = 1_200;

/// Ids longer than this are not looked at.
const ID_BYTES: usize = 4_096;

/// Characters of the client's name and version that stay when they have to be shortened.
const NAME_CHARS: usize = 64;

/// Seconds that the clocks of two nodes may differ.
const SKEW: u64 = 60;

/// Separates these signatures from all others that are made with the same key, and versions the format.
const LABEL: &[u8] = b"asgard session v1";

/// What a session id tells.
#[derive(Debug, Clone)]
pub struct SessionInfo {
    /// 128 random bits: makes the id unguessable and names the session.
    pub random: [u8; 16],
    /// The negotiated revision; never a modern one.
    pub revision: Revision,
    /// When the session began, in seconds since 1970.
    pub issued_at: u64,
    /// `clientInfo` of `initialize`, a JSON object; maybe reduced (see [`SessionInfo::new`]).
    pub client_info: Box<RawValue>,
    /// `capabilities` of `initialize`, a JSON object; maybe reduced.
    pub capabilities: Box<RawValue>,
}

/// The session is not known: made up, damaged, expired, or another caller's. There is no telling which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown session")]
pub struct Unknown;

#[derive(Serialize, Deserialize)]
struct Payload<'a> {
    #[serde(rename = "i")]
    random: String,
    #[serde(rename = "r")]
    revision: String,
    #[serde(rename = "t")]
    issued_at: u64,
    #[serde(rename = "n", borrow)]
    client_info: &'a RawValue,
    #[serde(rename = "c", borrow)]
    capabilities: &'a RawValue,
}

impl SessionInfo {
    /// What a session of the client that sent `initialize` carries. `random` comes from
    /// `rand::random()`, `now` is in seconds since 1970.
    ///
    /// Client information and capabilities have to fit into a header. Where they are too large, these are left
    /// out in turn until they fit: icons; all else of `clientInfo` but name and version;
    /// `capabilities.experimental`; the settings of `capabilities.extensions` (the extensions stay). Then name
    /// and version are shortened.
    ///
    /// # Errors
    /// 400 with -32602 when `clientInfo` has no name and version, or when it all is still too large.
    pub fn new(
        random: [u8; 16],
        revision: Revision,
        initialize: &Request<'_>,
        now: u64,
    ) -> Result<Self, Refusal> {
        let wrong = |message: &'static str| Refusal::invalid_params(message).for_id(initialize.id);
        let object = |raw: Option<&RawValue>| {
            raw.and_then(|raw| serde_json::from_str::<Map<String, Value>>(raw.get()).ok())
        };
        let mut client_info = object(initialize.params.client_info)
            .filter(|info| ["name", "version"].iter().all(|key| info.get(*key).is_some_and(Value::is_string)))
            .ok_or_else(|| {
                wrong("Invalid params: \"clientInfo\" needs \"name\" and \"version\", both strings.")
            })?;
        let mut capabilities = object(initialize.params.capabilities)
            .ok_or_else(|| wrong("Invalid params: `initialize` needs \"capabilities\", an object."))?;
        let too_large = "Invalid params: \"clientInfo\" and \"capabilities\" are too large for a session id. \
                         Declare less.";
        for step in 0..=5 {
            match step {
                0 => {}
                1 => {
                    client_info.remove("icons");
                }
                2 => client_info.retain(|key, _| key == "name" || key == "version"),
                3 => {
                    capabilities.remove("experimental");
                }
                4 => {
                    if let Some(Value::Object(extensions)) = capabilities.get_mut("extensions") {
                        extensions.values_mut().for_each(|settings| *settings = Value::Object(Map::new()));
                    }
                }
                _ => client_info.values_mut().for_each(|value| {
                    if let Value::String(text) = value {
                        *text = text.chars().take(NAME_CHARS).collect();
                    }
                }),
            }
            let (Ok(client_info), Ok(capabilities)) =
                (to_raw_value(&client_info), to_raw_value(&capabilities))
            else {
                break;
            };
            if client_info.get().len() + capabilities.get().len() <= CLIENT_BYTES {
                return Ok(Self { random, revision, issued_at: now, client_info, capabilities });
            }
        }
        Err(wrong(too_large))
    }

    /// The same session after an `initialize` that came later than its id: `params` as
    /// [`initialize_params`](Self::initialize_params) wrote them.
    ///
    /// # Errors
    /// [`Unknown`] when they can't be read.
    pub fn initialized(self, params: &str) -> Result<Self, Unknown> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Params {
            protocol_version: String,
            capabilities: Box<RawValue>,
            client_info: Box<RawValue>,
        }
        let params: Params = serde_json::from_str(params).map_err(|_| Unknown)?;
        let revision = Revision::parse(&params.protocol_version).ok_or(Unknown)?;
        Ok(Self { revision, client_info: params.client_info, capabilities: params.capabilities, ..self })
    }

    /// The session's name in stores: the random bits in hexadecimal. An id that opened vouches for it.
    pub fn key(&self) -> String {
        hex(&self.random)
    }

    /// The parameters of `initialize`, rebuilt: what a worker makes its peer from.
    pub fn initialize_params(&self) -> Box<RawValue> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct InitializeParams<'a> {
            protocol_version: &'static str,
            capabilities: &'a RawValue,
            client_info: &'a RawValue,
        }
        let params = InitializeParams {
            protocol_version: self.revision.as_str(),
            capabilities: &self.capabilities,
            client_info: &self.client_info,
        };
        // Can't fail: all parts are JSON already.
        to_raw_value(&params).unwrap_or_else(|_| RawValue::NULL.to_owned())
    }
}

fn hex(bytes: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*bytes))
}

fn unhex(text: &str) -> Option<[u8; 16]> {
    let lower_hex = |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b);
    (text.len() == 32 && text.as_bytes().iter().all(lower_hex))
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten()
        .map(u128::to_be_bytes)
}

/// The keys that session ids are signed with: the current one, and maybe the one before it, whose ids are
/// still accepted.
#[derive(Clone)]
pub struct SessionKeys {
    current: [u8; 32],
    previous: Option<[u8; 32]>,
    lifetime: u64,
}

/// Why keys can't be used. Never says what the key was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not base64url.
    #[error(
        "a session key must be base64url, without spaces; make one with: openssl rand -base64 32 | tr +/ -_ | tr -d ="
    )]
    Encoding,
    /// Not 32 bytes.
    #[error("a session key must be 32 bytes; make one with: openssl rand -base64 32 | tr +/ -_ | tr -d =")]
    Length,
    /// More than two.
    #[error("at most two session keys, separated by a comma: the current one, then the previous one")]
    Count,
}

impl SessionKeys {
    /// Seconds that a session lives by default: one day. A client then begins a new one by itself.
    pub const LIFETIME: u64 = 24 * 60 * 60;

    /// Reads `current` or `current,previous`: 32 bytes each, in base64url with or without padding.
    ///
    /// # Errors
    /// Says what is wrong, without the key.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut keys = text.split(',').map(key);
        let current = keys.next().ok_or(KeyError::Count)??;
        let previous = keys.next().transpose()?;
        if keys.next().is_some() {
            return Err(KeyError::Count);
        }
        Ok(Self { current, previous, lifetime: Self::LIFETIME })
    }

    /// The same keys with another lifetime of sessions, in seconds.
    pub fn with_lifetime(self, lifetime: u64) -> Self {
        Self { lifetime, ..self }
    }

    /// Seconds that a session lives; state and tombstones of sessions need not live longer.
    pub fn lifetime(&self) -> u64 {
        self.lifetime
    }

    /// The session id for the caller with `principal_key` (`identity::Principal::key`). Visible ASCII, for
    /// the `Mcp-Session-Id` header of the answer to `initialize`.
    pub fn mint(&self, principal_key: &str, info: &SessionInfo) -> String {
        let payload = Payload {
            random: hex(&info.random),
            revision: info.revision.as_str().to_owned(),
            issued_at: info.issued_at,
            client_info: &info.client_info,
            capabilities: &info.capabilities,
        };
        // Can't fail; an empty payload would open to nothing.
        let json = serde_json::to_vec(&payload).unwrap_or_default();
        let mut id = BASE64_URL_SAFE_NO_PAD.encode(json);
        if let Some(mac) = mac(&self.current, principal_key, &id) {
            id.push('.');
            BASE64_URL_SAFE_NO_PAD.encode_string(mac.finalize().into_bytes(), &mut id);
        }
        id
    }

    /// What an id tells, if it was minted for this caller and has not expired. `now` is in seconds since
    /// 1970. Whether the session was ended is for the caller to look up, by [`SessionInfo::key`].
    ///
    /// # Errors
    /// One and the same for every cause; answer it with [`Refusal::unknown_session`].
    pub fn open(&self, id: &str, principal_key: &str, now: u64) -> Result<SessionInfo, Unknown> {
        if id.len() > ID_BYTES {
            return Err(Unknown);
        }
        let (payload, signature) = id.split_once('.').ok_or(Unknown)?;
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).map_err(|_| Unknown)?;
        let signed = |key: &[u8; 32]| {
            mac(key, principal_key, payload).is_some_and(|mac| mac.verify_slice(&signature).is_ok())
        };
        if !signed(&self.current) && !self.previous.as_ref().is_some_and(signed) {
            return Err(Unknown);
        }
        let json = BASE64_URL_SAFE_NO_PAD.decode(payload).map_err(|_| Unknown)?;
        let payload: Payload<'_> = serde_json::from_slice(&json).map_err(|_| Unknown)?;
        let revision =
            Revision::parse(&payload.revision).filter(|revision| !revision.is_stateless()).ok_or(Unknown)?;
        let age = now.saturating_add(SKEW).checked_sub(payload.issued_at).ok_or(Unknown)?;
        if age >= self.lifetime.saturating_add(SKEW) {
            return Err(Unknown);
        }
        Ok(SessionInfo {
            random: unhex(&payload.random).ok_or(Unknown)?,
            revision,
            issued_at: payload.issued_at,
            client_info: payload.client_info.to_owned(),
            capabilities: payload.capabilities.to_owned(),
        })
    }
}

fn key(text: &str) -> Result<[u8; 32], KeyError> {
    let text = text.trim().trim_end_matches('=');
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyError::Encoding)?;
    bytes.try_into().map_err(|_| KeyError::Length)
}

/// Over label, caller and payload; the caller with its length before it, so that no part can pass for
/// another. `None` never happens: HMAC takes keys of any length.
fn mac(key: &[u8; 32], principal_key: &str, payload: &str) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(LABEL);
    mac.update(&(principal_key.len() as u64).to_be_bytes());
    mac.update(principal_key.as_bytes());
    mac.update(payload.as_bytes());
    Some(mac)
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionKeys")
            .field("current", &"…")
            .field("previous", &self.previous.map(|_| "…"))
            .field("lifetime", &self.lifetime)
            .finish()
    }
}
