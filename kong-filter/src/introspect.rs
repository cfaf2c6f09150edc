//! Token introspection (RFC 7662): the question, the answer, and how many questions there may be.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lru::LruCache;
use serde_json::{Map, Value};

use crate::cache::Digest;
use crate::config::Introspection;
use crate::reply::Refusal;

/// Largest answer that is read, in bytes.
pub const MAX_BODY: usize = 64 * 1024;
/// Most tokens that are remembered as inactive.
const MAX_INACTIVE: usize = 4096;

/// What the issuer says about a token.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// It is active, and this is what it means.
    Active(Map<String, Value>),
    /// It is not, or not any more.
    Inactive,
    /// The issuer does not answer us: our own credentials are refused.
    Refused,
    /// The issuer can't be reached, or its answer can't be understood.
    Unavailable,
}

/// The questions to one issuer, in one worker. All times are in seconds since 1970.
pub struct Asking {
    /// When those under way will have ended, at the latest.
    in_flight: Vec<u64>,
    max_in_flight: usize,
    /// Set while the last question that ended was not answered.
    retry_at: u64,
    retry_pause: u64,
    timeout: u64,
    inactive: LruCache<Digest, u64>,
    inactive_for: u64,
    /// How long an answer that a token is active is used, in seconds.
    pub active_for: u64,
}

impl Asking {
    /// Nothing asked yet.
    pub fn new(config: &Introspection) -> Self {
        Self {
            in_flight: Vec::new(),
            max_in_flight: config.max_in_flight,
            retry_at: 0,
            retry_pause: config.retry_s,
            timeout: config.timeout_ms.div_ceil(1000),
            inactive: LruCache::unbounded(),
            inactive_for: config.negative_cache_s,
            active_for: config.cache_s,
        }
    }

    /// Begins to ask about a token.
    ///
    /// # Errors
    /// What to answer when it is known to be inactive, or can't be asked about now.
    pub fn begin(&mut self, digest: &Digest, now: u64) -> Result<(), Refusal> {
        if self.inactive.get(digest).is_some_and(|until| *until > now) {
            return Err(inactive());
        }
        self.in_flight.retain(|end| *end > now);
        if now < self.retry_at {
            return Err(unavailable());
        }
        if self.in_flight.len() >= self.max_in_flight {
            let message = "too many tokens are being checked at this moment; try again";
            return Err(Refusal::plain(503, "unavailable", "introspection_busy", message));
        }
        // One second more, for the host's own delay.
        self.in_flight.push(now.saturating_add(self.timeout).saturating_add(1));
        Ok(())
    }

    /// A question ended.
    pub fn ended(&mut self, answer: &Answer, now: u64) {
        self.in_flight.pop();
        self.retry_at = match answer {
            Answer::Active(_) | Answer::Inactive => 0,
            Answer::Refused | Answer::Unavailable => now.saturating_add(self.retry_pause),
        };
    }

    /// Remembers for a while that a token is inactive.
    pub fn keep_inactive(&mut self, digest: Digest, now: u64) {
        if self.inactive_for == 0 {
            return;
        }
        while self.inactive.len() >= MAX_INACTIVE && self.inactive.pop_lru().is_some() {}
        self.inactive.put(digest, now.saturating_add(self.inactive_for));
    }
}

/// 401: the issuer says that the token is not active.
pub fn inactive() -> Refusal {
    Refusal::token("token_inactive", "the token is not active: it has expired or was taken back")
}

/// 503: nobody knows whether the token is good.
pub fn unavailable() -> Refusal {
    let message = "the identity provider can't be asked about the token now; try again";
    Refusal::plain(503, "unavailable", "introspection_unavailable", message)
}

/// 503: the issuer does not accept our client.
pub fn refused() -> Refusal {
    let message = "the identity provider refuses to be asked about tokens; the gateway's log says how";
    Refusal::plain(503, "unavailable", "introspection_refused", message)
}

/// Headers and body of a question about a token.
pub fn question(config: &Introspection, token: &str) -> (Vec<(&'static str, String)>, String) {
    // RFC 6749 section 2.3.1: both are form-encoded first.
    let client = format!("{}:{}", form(&config.client_id), form(&config.client_secret));
    let body = format!("token={}&token_type_hint=access_token", form(token));
    let headers = vec![
        (":method", "POST".to_owned()),
        (":scheme", if config.tls { "https" } else { "http" }.to_owned()),
        (":authority", config.authority.clone().unwrap_or_else(|| config.upstream.clone())),
        (":path", config.path.clone()),
        ("authorization", format!("Basic {}", STANDARD.encode(client))),
        ("content-type", "application/x-www-form-urlencoded".to_owned()),
        ("accept", "application/json".to_owned()),
    ];
    (headers, body)
}

/// Reads an answer: its HTTP status, `None` when there was none, and its body. The text says what was
/// wrong with it, for the log.
pub fn read(status: Option<u16>, body: &[u8]) -> (Answer, Option<String>) {
    match status {
        Some(200) => match identity::claims::object(body) {
            Ok(members) if body.len() <= MAX_BODY => match members.get("active") {
                Some(Value::Bool(true)) => (Answer::Active(members), None),
                Some(Value::Bool(false)) => (Answer::Inactive, None),
                _ => (Answer::Unavailable, Some("the answer has no member active".to_owned())),
            },
            _ => (Answer::Unavailable, Some("the answer is not a JSON object, or too large".to_owned())),
        },
        // Keycloak's answer when the user is no longer a member of the organisation that the token names.
        Some(400) => (Answer::Inactive, None),
        Some(status @ (401 | 403)) => {
            let why =
                format!("status {status}: check client_id and client_secret, and what the client may do");
            (Answer::Refused, Some(why))
        }
        Some(status) => (Answer::Unavailable, Some(format!("the answer has status {status}"))),
        None => (Answer::Unavailable, Some("no answer".to_owned())),
    }
}

/// Whether a text that is no JWT can be an access token of another kind: of the characters of RFC 6750
/// section 2.1 (`b64token`), and not what was meant as a JWT. (An encrypted one has five parts.)
pub fn is_token(text: &str) -> bool {
    let rest = text.trim_end_matches('=');
    let jwt = text.starts_with("eyJ") && text.bytes().filter(|byte| *byte == b'.').count() != 4;
    rest.len() >= 8
        && !jwt
        && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}

/// `application/x-www-form-urlencoded`.
fn form(text: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |value: u8| char::from(DIGITS.get(usize::from(value & 15)).copied().unwrap_or(b'0'));
    let mut form = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            form.push(char::from(byte));
        } else {
            form.push('%');
            form.push(digit(byte >> 4));
            form.push(digit(byte));
        }
    }
    form
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn config() -> Introspection {
        serde_json::from_value(serde_json::json!({
            "upstream": "keycloak", "path": "/introspect", "client_id": "gate way", "client_secret": "a:b/é",
            "max_in_flight": 2, "timeout_ms": 1500,
        }))
        .unwrap()
    }

    #[test]
    fn the_question() {
        let (headers, body) = question(&config(), "a.b+c/d==");
        assert_eq!(body, "token=a.b%2Bc%2Fd%3D%3D&token_type_hint=access_token");
        let find = |name: &str| headers.iter().find(|(known, _)| *known == name).unwrap().1.clone();
        let basic = STANDARD.decode(find("authorization").strip_prefix("Basic ").unwrap()).unwrap();
        assert_eq!(String::from_utf8(basic).unwrap(), "gate%20way:a%3Ab%2F%C3%A9");
        // The gateway says how long the body is.
        assert!(
            find(":authority") == "keycloak" && headers.iter().all(|(name, _)| *name != "content-length")
        );
        assert!(!format!("{:?}", config()).contains("a:b"));
    }

    #[test]
    fn answers() {
        assert!(matches!(read(Some(200), br#"{"active":true,"sub":"1"}"#), (Answer::Active(_), None)));
        assert_eq!(read(Some(200), br#"{"active":false}"#), (Answer::Inactive, None));
        assert_eq!(read(Some(400), b"{}"), (Answer::Inactive, None));
        for body in [
            &b"{}"[..],
            br#"{"active":"true"}"#,
            br#"{"active":1}"#,
            b"[true]",
            b"",
            br#"{"active":false,"active":true}"#,
        ] {
            let (answer, why) = read(Some(200), body);
            assert!(answer == Answer::Unavailable && why.is_some(), "{body:?}");
        }
        assert_eq!(read(Some(401), b"").0, Answer::Refused);
        assert_eq!(read(Some(500), br#"{"active":true}"#).0, Answer::Unavailable);
        assert_eq!(read(None, br#"{"active":true}"#).0, Answer::Unavailable);
    }

    #[test]
    fn what_can_be_a_token() {
        for good in ["2YotnFZFEjr1zCsicMWpAA", "opaque-abc", "a+b/c~d.e==", "eyJhbGciOi.a.b.c.d"] {
            assert!(is_token(good), "{good}");
        }
        for bad in [
            "",
            "short",
            "========",
            "with blank",
            "a=bcdefghi",
            "eyJhbGciOi.a.b",
            "eyJhbGciOi",
            "tökentöken",
        ] {
            assert!(!is_token(bad), "{bad}");
        }
    }

    #[test]
    fn questions_are_bounded() {
        let mut asking = Asking::new(&config());
        let reason = |result: Result<(), Refusal>| result.err().map(|refusal| refusal.reason);
        let (one, two): (Digest, Digest) = (1, 2);
        assert_eq!(reason(asking.begin(&one, 100)), None);
        assert_eq!(reason(asking.begin(&one, 100)), None);
        assert_eq!(reason(asking.begin(&two, 100)), Some("introspection_busy"));
        asking.ended(&Answer::Inactive, 100);
        asking.keep_inactive(one, 100);
        assert_eq!(reason(asking.begin(&one, 104)), Some("token_inactive"));
        assert_eq!(reason(asking.begin(&two, 100)), None);
        // Two are lost without a word; their time ends.
        assert_eq!(reason(asking.begin(&two, 102)), Some("introspection_busy"));
        assert_eq!(reason(asking.begin(&one, 105)), None);
        asking.ended(&Answer::Unavailable, 105);
        assert_eq!(reason(asking.begin(&one, 106)), Some("introspection_unavailable"));
        assert_eq!(reason(asking.begin(&one, 107)), None);
        for number in 0..10_000_u32 {
            asking.keep_inactive(number.into(), 107);
        }
        assert_eq!(asking.inactive.len(), MAX_INACTIVE);
    }

    proptest! {
        #[test]
        fn nothing_but_true_is_active(status in proptest::option::of(0_u16..600), body in "\\{\"active\":(true|false|1|null|\"true\")\\}|\\PC{0,20}") {
            if let (Answer::Active(_), _) = read(status, body.as_bytes()) {
                prop_assert_eq!((status, body.as_str()), (Some(200), "{\"active\":true}"));
            }
        }

        #[test]
        fn a_form_holds_no_separator(text in "\\PC{0,20}") {
            prop_assert!(form(&text).bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte)));
        }
    }
}
