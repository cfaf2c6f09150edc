use serde::{Deserialize, Serialize};

/// The caller of a request, as the gateway's filter established it from a validated token.
///
/// Two principals are the same caller when [`Principal::key`] is the same: issuer, subject and
/// organisation. Session, event, task and ticket ids are bound to that key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Principal {
    /// Issuer of the token (`iss`), an absolute URL.
    pub issuer: String,
    /// Subject of the token (`sub`), unique within the issuer.
    pub subject: String,
    /// Alias of the organisation that the request's path names; one of the token's own.
    pub organisation: String,
    /// OAuth client that obtained the token (`azp`, or `client_id`), if the token says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Name for people (`preferred_username`), if the token says. Never used for decisions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// OAuth scopes granted to the token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// Realm roles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

impl Principal {
    /// A caller of whom no more is known. All fields are public: what else a token says is set in them.
    pub fn new(
        issuer: impl Into<String>,
        subject: impl Into<String>,
        organisation: impl Into<String>,
    ) -> Self {
        Self {
            issuer: issuer.into(),
            subject: subject.into(),
            organisation: organisation.into(),
            client: None,
            username: None,
            scopes: Vec::new(),
            roles: Vec::new(),
            groups: Vec::new(),
        }
    }

    /// What identifies this caller in this organisation: the three names, each with its length before
    /// it, so that no two different callers share a key.
    pub fn key(&self) -> String {
        let mut key = String::new();
        for part in [&self.issuer, &self.subject, &self.organisation] {
            key.push_str(&part.len().to_string());
            key.push(':');
            key.push_str(part);
        }
        key
    }

    /// What identifies the organisation that this caller acts for: issuer and alias, each with its length
    /// before it.
    pub fn organisation_key(&self) -> String {
        let (issuer, organisation) = (&self.issuer, &self.organisation);
        format!("{}:{issuer}{}:{organisation}", issuer.len(), organisation.len())
    }
}

/// The way that a request took to the backend; decided once, in the filter, from a verified `Grip-Sig`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryPoint {
    /// Client → gateway → backend. A stream is handed over to Pushpin through the gateway.
    Bifrost,
    /// Client → Pushpin → gateway → backend. A stream is held by a GRIP instruction in the answer.
    Hermod,
    /// No gateway in front (embedded, tests). The backend streams itself.
    Direct,
}
