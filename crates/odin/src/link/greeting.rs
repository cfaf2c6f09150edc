//! How two sides learn who the other is, before anything else.
//!
//! HELLO, WELCOME, PROOF: each side shows by an HMAC over both nonces, both names, the server and the version that it
//! has one of the site's link keys. The keys are used for nothing else.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use hmac::{Hmac, KeyInit, Mac};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::Framed;

use super::frame::{FrameCodec, Kind, Outgoing};

/// The versions that this release speaks.
const VERSIONS: &[u16] = &[1];
/// Least bytes of a key.
const KEY: usize = 32;
/// Most keys: one, and one that it replaces or that replaces it.
const KEYS: usize = 2;
/// How long the greeting may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest name of a side or a server.
const NAME: usize = 200;

/// The keys by which the sides of a link know each other: two sides need one in common. To change it, give each node
/// both, then each the new one alone.
#[derive(Clone)]
pub struct LinkKeys(Vec<Vec<u8>>);

/// Text that holds no usable link keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLinkKeys {
    /// A key is not base64url.
    #[error(
        "a link key is not base64url: write 32 random bytes in it, as `openssl rand -base64 32 | tr +/ -_` does"
    )]
    Encoding,
    /// A key is too short.
    #[error("a link key has {0} bytes, and needs {KEY}: anybody could find a shorter one")]
    Short(usize),
    /// There are none, or more than two.
    #[error("{0} link keys, where one or two are allowed: the one in use, and its successor or predecessor")]
    Count(usize),
}

impl LinkKeys {
    /// One or two keys in base64url, with a comma between.
    ///
    /// # Errors
    /// [`InvalidLinkKeys`].
    pub fn parse(text: &str) -> Result<Self, InvalidLinkKeys> {
        let keys: Vec<&str> = text.split(',').map(str::trim).filter(|key| !key.is_empty()).collect();
        if keys.is_empty() || keys.len() > KEYS {
            return Err(InvalidLinkKeys::Count(keys.len()));
        }
        let key = |text: &&str| {
            let key = BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
            match key.map_err(|_| InvalidLinkKeys::Encoding)? {
                key if key.len() < KEY => Err(InvalidLinkKeys::Short(key.len())),
                key => Ok(key),
            }
        };
        keys.iter().map(key).collect::<Result<_, _>>().map(Self)
    }

    /// A key that nobody else knows, for both sides of the links within one process.
    pub fn random() -> Self {
        Self(vec![rand::random::<[u8; KEY]>().to_vec()])
    }

    /// A proof under each of the keys.
    fn prove(&self, of: &Transcript<'_>) -> Vec<String> {
        self.0.iter().filter_map(|key| of.proof(key)).collect()
    }

    /// The key of one of the proofs, if this side has it too.
    fn common(&self, of: &Transcript<'_>, shown: &[String]) -> Option<&[u8]> {
        let shown: Vec<Vec<u8>> =
            shown.iter().take(KEYS).filter_map(|proof| BASE64_URL_SAFE_NO_PAD.decode(proof).ok()).collect();
        let fits =
            |key: &Vec<u8>, proof: &Vec<u8>| of.tag(key).is_some_and(|mac| mac.verify_slice(proof).is_ok());
        self.0.iter().find(|key| shown.iter().any(|proof| fits(key, proof))).map(Vec::as_slice)
    }
}

impl std::fmt::Debug for LinkKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LinkKeys({})", self.0.len())
    }
}

/// Who one is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Name of the backend or worker, new with each process. At most 200 bytes.
    pub name: String,
    /// Named server whose calls go over the link. At most 200 bytes.
    pub server: String,
    /// The site's keys.
    pub keys: LinkKeys,
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum NoLink {
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    /// Nobody answered in time.
    #[error("the other side says nothing: is it a link's address?")]
    Silent,
    /// The other side says why.
    #[error("the other side refused: {0}")]
    Refused(String),
    /// What the other side said makes no sense.
    #[error("the other side speaks something else: {0}")]
    Malformed(String),
    /// It has another key.
    #[error("the other side has none of this node's link keys: give both the same ASGARD_LINK_KEY")]
    Key,
}

#[derive(Serialize, Deserialize)]
struct Hello {
    versions: Vec<u16>,
    name: String,
    server: String,
    nonce: String,
}

#[derive(Serialize, Deserialize)]
struct Welcome {
    version: u16,
    name: String,
    nonce: String,
    /// One for each key.
    proofs: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Proof {
    proof: String,
}

#[derive(Serialize, Deserialize)]
struct Refusal {
    why: String,
}

/// What both sides have heard, and who signs it.
struct Transcript<'a> {
    role: &'a str,
    version: u16,
    hello: &'a Hello,
    name: &'a str,
    nonce: &'a str,
}

impl Transcript<'_> {
    fn proof(&self, key: &[u8]) -> Option<String> {
        Some(BASE64_URL_SAFE_NO_PAD.encode(self.tag(key)?.finalize().into_bytes()))
    }

    fn tag(&self, key: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
        let version = self.version.to_string();
        let parts = [
            "asgard link",
            self.role,
            &version,
            &self.hello.name,
            &self.hello.server,
            &self.hello.nonce,
            self.name,
            self.nonce,
        ];
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        Some(mac)
    }
}

fn nonce() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(
    on: &mut Framed<S, FrameCodec>,
    kind: Kind,
    what: &impl Serialize,
) -> Result<(), NoLink> {
    let body = serde_json::to_vec(what).map_err(|error| NoLink::Malformed(error.to_string()))?;
    let frame = Outgoing::of_link(kind, Bytes::from(body));
    on.send(frame).await.map_err(|error| NoLink::Malformed(error.to_string()))
}

async fn hear<S: AsyncRead + AsyncWrite + Unpin, T: DeserializeOwned>(
    on: &mut Framed<S, FrameCodec>,
    kind: Kind,
) -> Result<T, NoLink> {
    let malformed = |why: &dyn std::fmt::Display| NoLink::Malformed(why.to_string());
    let frame = on.next().await.ok_or_else(|| NoLink::Io(std::io::ErrorKind::UnexpectedEof.into()))?;
    let frame = frame.map_err(|error| malformed(&error))?;
    if frame.kind == Kind::REFUSED {
        let refusal: Refusal = serde_json::from_slice(&frame.body).map_err(|error| malformed(&error))?;
        return Err(NoLink::Refused(refusal.why.chars().take(NAME).collect()));
    }
    if frame.kind != kind || frame.more {
        return Err(malformed(&"a frame out of turn"));
    }
    serde_json::from_slice(&frame.body).map_err(|error| malformed(&error))
}

/// The backend's side. The name of the worker.
pub(super) async fn call<S: AsyncRead + AsyncWrite + Unpin>(
    on: &mut Framed<S, FrameCodec>,
    own: &Identity,
) -> Result<String, NoLink> {
    let talk = async {
        let (name, server) = (own.name.clone(), own.server.clone());
        let hello = Hello { versions: VERSIONS.to_vec(), name, server, nonce: nonce() };
        say(on, Kind::HELLO, &hello).await?;
        let welcome: Welcome = hear(on, Kind::WELCOME).await?;
        let Welcome { version, name, nonce, proofs } = &welcome;
        if !VERSIONS.contains(version) || name.len() > NAME {
            return Err(NoLink::Malformed("a version that was not asked for, or a long name".into()));
        }
        let of = |role| Transcript { role, version: *version, hello: &hello, name, nonce };
        let key = own.keys.common(&of("worker"), proofs).ok_or(NoLink::Key)?;
        let proof = of("backend").proof(key).unwrap_or_default();
        say(on, Kind::PROOF, &Proof { proof }).await?;
        Ok(welcome.name)
    };
    tokio::time::timeout(PATIENCE, talk).await.unwrap_or(Err(NoLink::Silent))
}

/// The worker's side. The name of the backend.
pub(super) async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    on: &mut Framed<S, FrameCodec>,
    own: &Identity,
) -> Result<String, NoLink> {
    let talk = async {
        let hello: Hello = hear(on, Kind::HELLO).await?;
        let version = match judge(&hello, own) {
            Ok(version) => version,
            Err(why) => {
                let _ = say(on, Kind::REFUSED, &Refusal { why: why.clone() }).await;
                return Err(NoLink::Malformed(why));
            }
        };
        let nonce = nonce();
        let of = |role| Transcript { role, version, hello: &hello, name: &own.name, nonce: &nonce };
        let proofs = own.keys.prove(&of("worker"));
        say(on, Kind::WELCOME, &Welcome { version, name: own.name.clone(), nonce: nonce.clone(), proofs })
            .await?;
        let shown: Proof = hear(on, Kind::PROOF).await?;
        own.keys.common(&of("backend"), &[shown.proof]).ok_or(NoLink::Key)?;
        Ok(hello.name)
    };
    tokio::time::timeout(PATIENCE, talk).await.unwrap_or(Err(NoLink::Silent))
}

/// The version to speak with whoever says that, or why there is none.
fn judge(hello: &Hello, own: &Identity) -> Result<u16, String> {
    if hello.name.len() > NAME || hello.nonce.len() > NAME {
        return Err("a name or a nonce that is too long".into());
    }
    if hello.server != own.server {
        return Err("another server's worker: its address is out of date".into());
    }
    let common = VERSIONS.iter().filter(|version| hello.versions.contains(version)).max();
    common.copied().ok_or_else(|| format!("no version in common: this side speaks {VERSIONS:?}"))
}
