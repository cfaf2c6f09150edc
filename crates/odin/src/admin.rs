//! The administrators' HTTP API: notify clients, and end their streams.
//!
//! | request | body | does |
//! |---|---|---|
//! | `POST /notify` | `{"audience": …, "method": …, "params": …}` | sends a notification of MCP to the audience |
//! | `POST /close` | `{"audience": …}` | ends the audience's long-lived streams |
//!
//! An audience is `"everyone"`, `{"organisation": {"issuer": …, "organisation": …}}`,
//! `{"principal": {"issuer": …, "subject": …, "organisation": …}}` or `{"session": …}`, with the session's
//! `Mcp-Session-Id`. The answer is `{"sent": true}`, or `{"error": …}` with a status of 4xx or 503.
//!
//! It listens on an address of its own, so that no gateway can lead to it, and wants a bearer token.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use identity::Principal;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::broadcast::{Audience, Broadcaster, MAX_NOTICE, Notice};

/// Bytes of a request's body.
const BODY: usize = 2 * MAX_NOTICE;
/// The shortest token that is one.
const TOKEN: usize = 32;
/// How long a request may take, from its head to its answer: most of it is the arrival of the body.
const TIME: Duration = Duration::from_secs(30);

/// What administrators prove themselves with.
#[derive(Clone)]
pub struct AdminToken([u8; 32]);

impl AdminToken {
    /// A token of at least 32 characters.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(token: &str) -> Result<Self, String> {
        let token = token.trim();
        if token.len() < TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("an admin token needs at least {TOKEN} characters, and no spaces"));
        }
        Ok(Self(Sha256::digest(token.as_bytes()).into()))
    }

    /// Whether the headers have the token. Takes the same time for all that have one of the same length.
    fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let Some((scheme, token)) = value.to_str().ok().and_then(|value| value.split_once(' ')) else {
            return false;
        };
        let digest: [u8; 32] = Sha256::digest(token.trim().as_bytes()).into();
        scheme.eq_ignore_ascii_case("bearer") && bool::from(digest.ct_eq(&self.0))
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(..)")
    }
}

/// The routes. Serve them on an address that no gateway leads to.
pub fn routes(broadcaster: Broadcaster, token: AdminToken) -> Router {
    let token = Arc::new(token);
    let authenticate = middleware::from_fn(move |request: Request, next: Next| {
        let token = token.clone();
        async move {
            if token.is_in(request.headers()) {
                let late = "It took too long. Send it again, faster; an audience may have been notified.";
                let answer = tokio::time::timeout(TIME, next.run(request)).await;
                return answer.unwrap_or_else(|_| error(StatusCode::REQUEST_TIMEOUT, late));
            }
            let challenge = [(WWW_AUTHENTICATE, "Bearer realm=\"asgard admin\"")];
            (challenge, error(StatusCode::UNAUTHORIZED, "Send the admin token: Authorization: Bearer ..."))
                .into_response()
        }
    });
    Router::new()
        .route("/notify", post(notify))
        .route("/close", post(close))
        .fallback(|| async { error(StatusCode::NOT_FOUND, "There are POST /notify and POST /close.") })
        .method_not_allowed_fallback(|| async { error(StatusCode::METHOD_NOT_ALLOWED, "Use POST.") })
        .layer(DefaultBodyLimit::max(BODY))
        .layer(authenticate)
        .with_state(broadcaster)
}

/// An audience as a person writes it.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum AudienceName {
    Everyone,
    Organisation { issuer: String, organisation: String },
    Principal { issuer: String, subject: String, organisation: String },
    Session(String),
}

impl AudienceName {
    fn audience(self) -> Result<Audience, &'static str> {
        Ok(match self {
            Self::Everyone => Audience::Everyone,
            Self::Organisation { issuer, organisation } => Audience::Organisation { issuer, organisation },
            Self::Principal { issuer, subject, organisation } => {
                Audience::principal(&Principal::new(issuer, subject, organisation))
            }
            Self::Session(id) => Audience::Session(session_key(&id).ok_or("That is not a session id.")?),
        })
    }
}

/// The key of a session by its id, or by the key itself, as handlers know it.
fn session_key(id: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Payload {
        i: String,
    }
    let is_key = |key: &str| key.len() == 32 && key.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_key(id) {
        return Some(id.to_owned());
    }
    // Not verified: a made-up session has no stream.
    let (payload, _) = id.split_once('.')?;
    let payload: Payload = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    is_key(&payload.i).then_some(payload.i)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Notify {
    audience: AudienceName,
    method: String,
    #[serde(default)]
    params: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Close {
    audience: AudienceName,
}

async fn notify(State(broadcaster): State<Broadcaster>, body: Bytes) -> Response {
    let Notify { audience, method, params } = match serde_json::from_slice(&body) {
        Ok(notify) => notify,
        Err(wrong) => return error(StatusCode::BAD_REQUEST, &wrong.to_string()),
    };
    let audience = match audience.audience() {
        Ok(audience) => audience,
        Err(wrong) => return error(StatusCode::BAD_REQUEST, wrong),
    };
    let notice = match Notice::read(&method, params.as_deref()) {
        Ok(notice) => notice,
        Err(wrong) => return error(StatusCode::BAD_REQUEST, &wrong.to_string()),
    };
    done(broadcaster.notify(&audience, &notice).await)
}

async fn close(State(broadcaster): State<Broadcaster>, body: Bytes) -> Response {
    match serde_json::from_slice::<Close>(&body) {
        Ok(Close { audience }) => match audience.audience() {
            Ok(audience) => done(broadcaster.close(&audience).await),
            Err(wrong) => error(StatusCode::BAD_REQUEST, wrong),
        },
        Err(wrong) => error(StatusCode::BAD_REQUEST, &wrong.to_string()),
    }
}

fn done(sent: crate::store::Result<()>) -> Response {
    match sent {
        Ok(()) => answer(StatusCode::OK, &json!({ "sent": true })),
        Err(lost) => error(
            StatusCode::SERVICE_UNAVAILABLE,
            &format!("Not everybody may have got it: {lost}. Send it again."),
        ),
    }
}

fn error(status: StatusCode, why: &str) -> Response {
    answer(status, &json!({ "error": why }))
}

fn answer(status: StatusCode, body: &serde_json::Value) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
