//! Answers that the filter gives itself: refusals with their challenges (RFC 6750 section 3, RFC 9728
//! section 5, the MCP authorization specification), metadata, preflights.

use serde_json::json;

/// An answer of the filter's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers; no name comes twice.
    pub headers: Vec<(&'static str, String)>,
    /// The body: JSON, or empty.
    pub body: String,
    /// For a refusal: what to write to the log, without the request's id.
    pub log: Option<String>,
}

impl Reply {
    /// A JSON document.
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self { status, headers, body: body.to_string(), log: None }
    }

    /// No content.
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new(), log: None }
    }

    /// The same with one more header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A refusal, before it is put into words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Error code: in the challenge one of RFC 6750 section 3.1, in the body also others.
    pub error: &'static str,
    /// Reason code: stable, finer than the error.
    pub reason: &'static str,
    /// One sentence for people. Nothing that the client sent, but for a path that [`identity::path`] has read.
    pub message: String,
    /// Whether a `WWW-Authenticate` goes with it.
    pub challenge: Challenge,
    /// The policy's rule that says so, for the log.
    pub rule: Option<String>,
}

/// What a refusal is put into words with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wording<'a> {
    /// The URL of the protected resource metadata.
    pub metadata: &'a str,
    /// The scopes that clients should ask for.
    pub scopes: &'a [String],
    /// The organisation that the request is for.
    pub organisation: Option<&'a str>,
    /// The gateway's id of the request.
    pub id: Option<&'a str>,
}

/// What a challenge asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// No challenge.
    None,
    /// A token; the client sent none, so that there is no error to name.
    Token,
    /// A better token, or a better request.
    Error,
    /// A token with these scopes, all of them.
    Scopes(Vec<String>),
}

impl Refusal {
    /// 401: no token.
    pub fn no_token() -> Self {
        Self {
            status: 401,
            error: "missing_token",
            reason: "token_missing",
            message: "send an access token in the Authorization header, as a bearer token".into(),
            challenge: Challenge::Token,
            rule: None,
        }
    }

    /// 401: a token that is not accepted.
    pub fn token(reason: &'static str, message: impl ToString) -> Self {
        let message = message.to_string();
        Self { status: 401, error: "invalid_token", reason, message, challenge: Challenge::Error, rule: None }
    }

    /// 403: a token that does not suffice.
    pub fn scope(reason: &'static str, message: impl ToString, scopes: Vec<String>) -> Self {
        let challenge = Challenge::Scopes(scopes);
        Self {
            status: 403,
            error: "insufficient_scope",
            reason,
            message: message.to_string(),
            challenge,
            rule: None,
        }
    }

    /// 400: a malformed authorization.
    pub fn request(reason: &'static str, message: impl ToString) -> Self {
        let message = message.to_string();
        Self {
            status: 400,
            error: "invalid_request",
            reason,
            message,
            challenge: Challenge::Error,
            rule: None,
        }
    }

    /// Anything without a challenge.
    pub fn plain(status: u16, error: &'static str, reason: &'static str, message: impl ToString) -> Self {
        Self { status, error, reason, message: message.to_string(), challenge: Challenge::None, rule: None }
    }

    /// The same with the policy's rule that says so.
    #[must_use]
    pub fn by(mut self, rule: String) -> Self {
        self.rule = Some(rule);
        self
    }

    /// What the log says: `status=401 error=invalid_token reason=token_expired organisation=org-1`.
    fn log(&self, organisation: Option<&str>) -> String {
        let mut log = format!("status={} error={} reason={}", self.status, self.error, self.reason);
        if let Some(organisation) = organisation {
            log.push_str(" organisation=");
            log.push_str(organisation);
        }
        if let Some(rule) = &self.rule {
            log.push_str(&format!(" rule={rule:?}"));
        }
        log
    }

    /// Puts it into words.
    pub fn reply(self, wording: Wording<'_>) -> Reply {
        let log = self.log(wording.organisation);
        let mut body = json!({ "error": self.error, "reason": self.reason, "message": self.message });
        if let (Some(id), Some(members)) = (wording.id, body.as_object_mut()) {
            members.insert("request_id".into(), id.into());
        }
        let mut reply = Reply::json(self.status, &body).with("cache-control", "no-store");
        let scopes = match &self.challenge {
            Challenge::None => None,
            Challenge::Scopes(scopes) if !scopes.is_empty() => Some(scopes.as_slice()),
            _ => Some(wording.scopes),
        };
        if let Some(scopes) = scopes {
            // Configuration admits neither quotes nor backslashes in any of these, so nothing to escape.
            let mut value = format!("Bearer resource_metadata=\"{}\"", wording.metadata);
            if self.challenge != Challenge::Token {
                value
                    .push_str(&format!(", error=\"{}\", error_description=\"{}\"", self.error, self.message));
            }
            if !scopes.is_empty() {
                value.push_str(&format!(", scope=\"{}\"", scopes.join(" ")));
            }
            reply = reply.with("www-authenticate", value);
        }
        if self.status == 503 {
            reply = reply.with("retry-after", "2");
        }
        reply.log = Some(log);
        reply
    }
}
