//! The claims of an access token: read strictly, judged here, after somebody verified the signature.
//!
//! [`object`] reads the payload, [`Claims::from_object`] takes out what matters here, and
//! [`Claims::check`] judges it. Sources: RFC 7519 (JWT), RFC 9068 (access tokens), RFC 8707 (audience
//! as resource), Keycloak's organisation claim.

use serde_json::{Map, Value};

use crate::Principal;

/// Longest `iss`, `sub` or `azp`, in bytes.
pub const MAX_NAME: usize = 512;

/// Where in a token's payload the claims stand that no standard places. Each is a JSON pointer
/// (RFC 6901): `/realm_access/roles` is the member `roles` of the member `realm_access`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimNames {
    /// The organisations: a string, a list of strings, or an object whose keys are the aliases.
    pub organisations: String,
    /// The roles: a string or a list of strings.
    pub roles: String,
    /// The groups: a string or a list of strings.
    pub groups: String,
}

impl Default for ClaimNames {
    /// As Keycloak writes them: `/organization`, `/realm_access/roles`, `/groups`.
    fn default() -> Self {
        Self {
            organisations: "/organization".into(),
            roles: "/realm_access/roles".into(),
            groups: "/groups".into(),
        }
    }
}

/// What a token says, as far as it decides something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// `iss`: who issued the token.
    pub issuer: String,
    /// `sub`: whom it is about.
    pub subject: String,
    /// `aud`: for whom it is meant; a string or a list in the token; empty when missing.
    pub audiences: Vec<String>,
    /// `exp`: the first second in which it is no longer valid, in seconds since 1970.
    pub expires_at: u64,
    /// `nbf`: the first second in which it is valid.
    pub not_before: Option<u64>,
    /// `iat`: when it was issued.
    pub issued_at: Option<u64>,
    /// `azp`, else `client_id`: the client that obtained it.
    pub client: Option<String>,
    /// `preferred_username` (or RFC 7662's `username`), for people; decides nothing.
    pub username: Option<String>,
    /// `scope`, split at spaces (or `scope` or `scp` as a list).
    pub scopes: Vec<String>,
    /// Aliases of the organisations that the subject is a member of.
    pub organisations: Vec<String>,
    /// Roles.
    pub roles: Vec<String>,
    /// Groups.
    pub groups: Vec<String>,
    /// `typ` of the payload: Keycloak tells access, ID and refresh tokens apart by it.
    pub kind: Option<String>,
    /// Whether the token is bound to a key of the client's (`cnf`, RFC 7800).
    pub bound: bool,
}

/// What a token is checked against.
#[derive(Clone, Copy)]
pub struct Expected<'a> {
    /// The issuer whose keys verified the signature.
    pub issuer: &'a str,
    /// Whether an audience names this resource; one of the token's must. See [`same_resource`].
    pub audience: &'a dyn Fn(&str) -> bool,
    /// The clients whose tokens are accepted; `None` accepts all.
    pub clients: Option<&'a [String]>,
    /// How far the clocks may differ, in seconds.
    pub leeway: u64,
    /// Now, in seconds since 1970.
    pub now: u64,
}

/// Why a token's claims are not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimsError {
    /// Not a JSON object, a claim twice, or a claim of a wrong type.
    #[error("the token's claims are malformed")]
    Malformed,
    /// No `iss`, or another one.
    #[error("the token is from another issuer")]
    Issuer,
    /// No `sub`.
    #[error("the token has no subject")]
    Subject,
    /// No `exp`.
    #[error("the token has no expiry")]
    NoExpiry,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` or `iat` is in the future.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// No `aud`.
    #[error("the token has no audience")]
    NoAudience,
    /// `aud` does not name this resource.
    #[error("the token is for another audience")]
    Audience,
    /// `azp` is not among the accepted clients.
    #[error("the token was issued to a client that is not accepted here")]
    Client,
    /// An ID token, a refresh token or the like.
    #[error("the token is not an access token")]
    Kind,
    /// Bound to a key whose possession is not checked here.
    #[error("the token is bound to a key of the client, which is not supported here")]
    Bound,
}

impl ClaimsError {
    /// A stable code for logs and answers.
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed => "token_malformed",
            Self::Issuer => "issuer_wrong",
            Self::Subject => "subject_missing",
            Self::NoExpiry => "expiry_missing",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::NoAudience => "audience_missing",
            Self::Audience => "audience_wrong",
            Self::Client => "client_refused",
            Self::Kind => "token_kind",
            Self::Bound => "token_bound",
        }
    }
}

/// Reads a token's payload, or header: a JSON object in which no member comes twice.
///
/// # Errors
/// [`ClaimsError::Malformed`].
pub fn object(json: &[u8]) -> Result<Map<String, Value>, ClaimsError> {
    match crate::json::read(json) {
        Ok(Value::Object(members)) => Ok(members),
        _ => Err(ClaimsError::Malformed),
    }
}

impl Claims {
    /// Takes the claims out of a token's payload, as [`object`] read it.
    ///
    /// # Errors
    /// [`ClaimsError::Malformed`] when a claim that decides something has a wrong type;
    /// [`ClaimsError::Issuer`], [`ClaimsError::Subject`], [`ClaimsError::NoExpiry`] when one is missing
    /// that every token must have.
    pub fn from_object(object: &Map<String, Value>, names: &ClaimNames) -> Result<Self, ClaimsError> {
        let client = match text(object.get("azp"))? {
            Some(client) => Some(client),
            None => text(object.get("client_id"))?,
        };
        let scopes = match object.get("scope") {
            None => object.get("scp"),
            some => some,
        };
        Ok(Self {
            issuer: text(object.get("iss"))?.ok_or(ClaimsError::Issuer)?,
            subject: text(object.get("sub"))?.ok_or(ClaimsError::Subject)?,
            audiences: texts(object.get("aud"))?,
            expires_at: time(object.get("exp"))?.ok_or(ClaimsError::NoExpiry)?,
            not_before: time(object.get("nbf"))?,
            issued_at: time(object.get("iat"))?,
            client,
            username: ["preferred_username", "username"]
                .into_iter()
                .find_map(|name| object.get(name).and_then(Value::as_str))
                .map(str::to_owned),
            scopes: texts(scopes)?
                .iter()
                .flat_map(|scope| scope.split(' '))
                .filter(|scope| !scope.is_empty())
                .map(str::to_owned)
                .collect(),
            organisations: organisations(find(object, &names.organisations))?,
            roles: texts(find(object, &names.roles))?,
            groups: texts(find(object, &names.groups))?,
            kind: text(object.get("typ"))?,
            bound: object.get("cnf").is_some_and(|cnf| !cnf.is_null()),
        })
    }

    /// What is left of a token's claims after its issuer was asked about it (RFC 7662): of audiences,
    /// scopes, organisations, roles and groups those that the answer has too, where it speaks of them;
    /// the earlier expiry. What the answer adds is not taken over.
    ///
    /// # Errors
    /// [`ClaimsError::Malformed`] for a claim of a wrong type; [`ClaimsError::Issuer`] or
    /// [`ClaimsError::Subject`] when the answer is about another token.
    pub fn narrowed_by(&self, answer: &Map<String, Value>, names: &ClaimNames) -> Result<Self, ClaimsError> {
        let mut filled = answer.clone();
        for (name, own) in [("iss", Value::from(self.issuer.as_str())), ("sub", self.subject.as_str().into())]
        {
            filled.entry(name).or_insert(own);
        }
        filled.entry("exp").or_insert_with(|| self.expires_at.into());
        let other = Self::from_object(&filled, names)?;
        if other.issuer != self.issuer {
            return Err(ClaimsError::Issuer);
        }
        if other.subject != self.subject {
            return Err(ClaimsError::Subject);
        }
        let both = |speaks: bool, own: &[String], others: &[String]| -> Vec<String> {
            own.iter().filter(|item| !speaks || others.contains(item)).cloned().collect()
        };
        let says = |pointer: &str| find(answer, pointer).is_some();
        Ok(Self {
            audiences: both(says("/aud"), &self.audiences, &other.audiences),
            scopes: both(says("/scope") || says("/scp"), &self.scopes, &other.scopes),
            organisations: both(says(&names.organisations), &self.organisations, &other.organisations),
            roles: both(says(&names.roles), &self.roles, &other.roles),
            groups: both(says(&names.groups), &self.groups, &other.groups),
            expires_at: self.expires_at.min(other.expires_at),
            bound: self.bound || other.bound,
            ..self.clone()
        })
    }

    /// Judges everything but the organisation. See also [`Claims::check_times`].
    ///
    /// # Errors
    /// The first [`ClaimsError`], in the order: issuer, kind, times, audience, client.
    pub fn check(&self, expected: &Expected<'_>) -> Result<(), ClaimsError> {
        if self.issuer != expected.issuer {
            return Err(ClaimsError::Issuer);
        }
        let access =
            |kind: &str| ["bearer", "at+jwt", "jwt"].iter().any(|known| known.eq_ignore_ascii_case(kind));
        if !self.kind.as_deref().is_none_or(access) {
            return Err(ClaimsError::Kind);
        }
        if self.bound {
            return Err(ClaimsError::Bound);
        }
        self.check_times(expected.now, expected.leeway)?;
        if self.audiences.is_empty() {
            return Err(ClaimsError::NoAudience);
        }
        if !self.audiences.iter().any(|audience| (expected.audience)(audience)) {
            return Err(ClaimsError::Audience);
        }
        match (expected.clients, &self.client) {
            (None, _) => Ok(()),
            (Some(clients), Some(client)) if clients.contains(client) => Ok(()),
            (Some(_), _) => Err(ClaimsError::Client),
        }
    }

    /// Judges the times alone: to be done again whenever claims come out of a cache.
    ///
    /// # Errors
    /// [`ClaimsError::Expired`] or [`ClaimsError::NotYetValid`].
    pub fn check_times(&self, now: u64, leeway: u64) -> Result<(), ClaimsError> {
        if self.expires_at.saturating_add(leeway) <= now {
            return Err(ClaimsError::Expired);
        }
        let future = |time: Option<u64>| time.is_some_and(|time| time > now.saturating_add(leeway));
        if future(self.not_before) || future(self.issued_at) {
            return Err(ClaimsError::NotYetValid);
        }
        Ok(())
    }

    /// The principal that the token's subject is in an organisation, or `None` when the token does not
    /// say that the subject is a member of it.
    pub fn principal(&self, organisation: &str) -> Option<Principal> {
        self.organisations.iter().any(|own| own == organisation).then(|| Principal {
            issuer: self.issuer.clone(),
            subject: self.subject.clone(),
            organisation: organisation.to_owned(),
            client: self.client.clone(),
            username: self.username.clone(),
            scopes: self.scopes.clone(),
            roles: self.roles.clone(),
            groups: self.groups.clone(),
        })
    }
}

/// Whether two resource URLs are the same: scheme and host in any case (RFC 3986 section 6.2.2.1),
/// everything else to the byte.
pub fn same_resource(one: &str, other: &str) -> bool {
    let split = |url: &str| {
        let host = url.find("://").map_or(0, |at| at.saturating_add(3));
        url.get(host..).and_then(|rest| rest.find('/')).map_or(url.len(), |slash| host.saturating_add(slash))
    };
    match (one.split_at_checked(split(one)), other.split_at_checked(split(other))) {
        (Some((origin, path)), Some((other_origin, other_path))) => {
            origin.eq_ignore_ascii_case(other_origin) && path == other_path
        }
        _ => false,
    }
}

fn find<'a>(object: &'a Map<String, Value>, pointer: &str) -> Option<&'a Value> {
    let (first, rest) = match pointer.strip_prefix('/')?.split_once('/') {
        Some((first, rest)) => (first, Some(rest)),
        None => (pointer.strip_prefix('/')?, None),
    };
    let value = object.get(&first.replace("~1", "/").replace("~0", "~"))?;
    rest.map_or(Some(value), |rest| value.pointer(&format!("/{rest}")))
}

/// A claim that is one string: not empty, bounded, without control characters.
fn text(value: Option<&Value>) -> Result<Option<String>, ClaimsError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text))
            if !text.is_empty() && text.len() <= MAX_NAME && !text.chars().any(char::is_control) =>
        {
            Ok(Some(text.clone()))
        }
        Some(_) => Err(ClaimsError::Malformed),
    }
}

/// A claim that is a string or a list of strings.
fn texts(value: Option<&Value>) -> Result<Vec<String>, ClaimsError> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(Value::Array(list)) => {
            list.iter().map(|item| item.as_str().map(str::to_owned).ok_or(ClaimsError::Malformed)).collect()
        }
        Some(_) => Err(ClaimsError::Malformed),
    }
}

/// The organisation claim: `"a"`, `["a", "b"]` or `{"a": {"id": "…"}, "b": {}}`.
fn organisations(value: Option<&Value>) -> Result<Vec<String>, ClaimsError> {
    match value {
        Some(Value::Object(members)) => Ok(members.keys().cloned().collect()),
        other => texts(other),
    }
}

/// A NumericDate (RFC 7519 section 2): seconds since 1970, perhaps with a fraction, which is cut off.
fn time(value: Option<&Value>) -> Result<Option<u64>, ClaimsError> {
    // Beyond the year 9999 a time is a mistake (milliseconds, mostly).
    const LAST: f64 = 253_402_300_799.0;
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => match number.as_f64() {
            Some(seconds) if (0.0..=LAST).contains(&seconds) => Ok(Some(seconds as u64)),
            _ => Err(ClaimsError::Malformed),
        },
        Some(_) => Err(ClaimsError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const NOW: u64 = 1_800_000_000;
    const RESOURCE: &str = "http://localhost:8000/api/v1/mcp/org-1";
    const ISSUER: &str = "https://id.example/realms/x";

    fn token() -> Value {
        json!({
            "iss": ISSUER, "sub": "u1", "aud": RESOURCE, "exp": NOW + 60, "iat": NOW, "azp": "cli",
            "scope": "mcp:tools  organization", "organization": {"org-1": {"id": "1"}, "org-2": {}},
            "realm_access": {"roles": ["user"]}, "groups": ["/staff"], "typ": "Bearer", "preferred_username": "thor",
        })
    }

    fn with(name: &str, value: Value) -> Value {
        let mut token = token();
        token[name] = value;
        token
    }

    fn read(token: &Value) -> Result<Claims, ClaimsError> {
        Claims::from_object(&object(token.to_string().as_bytes())?, &ClaimNames::default())
    }

    fn check_at(token: &Value, now: u64, clients: Option<&[String]>) -> Result<(), ClaimsError> {
        let audience = |audience: &str| same_resource(audience, RESOURCE);
        read(token)?.check(&Expected { issuer: ISSUER, audience: &audience, clients, leeway: 10, now })
    }

    fn check(token: &Value) -> Result<(), ClaimsError> {
        check_at(token, NOW, None)
    }

    #[test]
    fn reads_what_keycloak_writes() {
        let claims = read(&token()).unwrap();
        assert_eq!(claims.scopes, ["mcp:tools", "organization"]);
        assert_eq!(claims.organisations, ["org-1", "org-2"]);
        assert_eq!((claims.roles, claims.groups), (vec!["user".to_owned()], vec!["/staff".to_owned()]));
        assert_eq!(check(&token()), Ok(()));
    }

    #[test]
    fn audience_is_required_and_must_fit() {
        assert_eq!(check(&with("aud", json!(["account", RESOURCE]))), Ok(()));
        assert_eq!(check(&with("aud", json!("HTTP://LOCALHOST:8000/api/v1/mcp/org-1"))), Ok(()));
        for wrong in [
            "account",
            "http://localhost:8000/api/v1/mcp/org-2",
            "http://localhost:8000/api/v1/mcp/ORG-1",
            "http://localhost:8000/api/v1/mcp/org-1/",
            "http://localhost:8000",
            "",
        ] {
            assert_eq!(check(&with("aud", json!(wrong))), Err(ClaimsError::Audience), "{wrong}");
        }
        assert_eq!(check(&with("aud", Value::Null)), Err(ClaimsError::NoAudience));
        assert_eq!(check(&with("aud", json!([]))), Err(ClaimsError::NoAudience));
        assert_eq!(check(&with("aud", json!({"x": 1}))), Err(ClaimsError::Malformed));
        assert_eq!(check(&with("aud", json!([RESOURCE, 1]))), Err(ClaimsError::Malformed));
    }

    #[test]
    fn times_hold_with_leeway() {
        assert_eq!(check_at(&token(), NOW + 69, None), Ok(()));
        assert_eq!(check_at(&token(), NOW + 70, None), Err(ClaimsError::Expired));
        assert_eq!(check(&with("nbf", json!(NOW + 10))), Ok(()));
        assert_eq!(check(&with("nbf", json!(NOW + 11))), Err(ClaimsError::NotYetValid));
        assert_eq!(check(&with("iat", json!(NOW + 11))), Err(ClaimsError::NotYetValid));
        assert_eq!(check(&with("exp", Value::Null)), Err(ClaimsError::NoExpiry));
        assert_eq!(check(&with("exp", json!(NOW as f64 + 0.5))), Ok(()));
        for wrong in [json!("1800000060"), json!(-1), json!(1.8e12), json!(true)] {
            assert_eq!(check(&with("exp", wrong.clone())), Err(ClaimsError::Malformed), "{wrong}");
        }
    }

    #[test]
    fn issuer_subject_client_and_kind_hold() {
        assert_eq!(check(&with("iss", json!("https://id.example/realms/y"))), Err(ClaimsError::Issuer));
        assert_eq!(check(&with("iss", Value::Null)), Err(ClaimsError::Issuer));
        assert_eq!(check(&with("sub", Value::Null)), Err(ClaimsError::Subject));
        assert_eq!(check(&with("sub", json!(""))), Err(ClaimsError::Malformed));
        assert_eq!(check(&with("sub", json!("a\r\nb"))), Err(ClaimsError::Malformed));
        for kind in ["ID", "Refresh", "Offline", "Logout"] {
            assert_eq!(check(&with("typ", json!(kind))), Err(ClaimsError::Kind), "{kind}");
        }
        assert_eq!(check(&with("cnf", json!({"jkt": "x"}))), Err(ClaimsError::Bound));
        let clients = ["cli".to_owned()];
        assert_eq!(check_at(&token(), NOW, Some(&clients)), Ok(()));
        assert_eq!(check_at(&with("azp", json!("other")), NOW, Some(&clients)), Err(ClaimsError::Client));
        assert_eq!(check_at(&with("azp", Value::Null), NOW, Some(&clients)), Err(ClaimsError::Client));
    }

    #[test]
    fn an_answer_narrows_and_never_widens() {
        let names = ClaimNames::default();
        let narrowed =
            |answer: Value| read(&token()).unwrap().narrowed_by(answer.as_object().unwrap(), &names);
        assert_eq!(narrowed(json!({"active": true})), Ok(read(&token()).unwrap()));
        let all = json!({
            "active": true, "iss": ISSUER, "sub": "u1", "aud": ["account", RESOURCE], "exp": NOW + 30,
            "scope": "mcp:tools mcp:admin", "organization": ["org-1", "org-9"], "realm_access": {"roles": ["admin"]},
        });
        let claims = narrowed(all).unwrap();
        assert_eq!(claims.audiences, [RESOURCE]);
        assert_eq!(
            (claims.scopes, claims.organisations),
            (vec!["mcp:tools".to_owned()], vec!["org-1".to_owned()])
        );
        assert_eq!((claims.roles, claims.groups), (vec![], vec!["/staff".to_owned()]));
        assert_eq!(claims.expires_at, NOW + 30);
        assert_eq!(narrowed(json!({"exp": NOW + 999})).unwrap().expires_at, NOW + 60);
        assert_eq!(narrowed(json!({"organization": {}})).unwrap().organisations, Vec::<String>::new());
        assert_eq!(narrowed(json!({"iss": "https://other.example"})), Err(ClaimsError::Issuer));
        assert_eq!(narrowed(json!({"sub": "u2"})), Err(ClaimsError::Subject));
        assert_eq!(narrowed(json!({"organization": 1})), Err(ClaimsError::Malformed));
    }

    #[test]
    fn organisations_in_every_form() {
        for form in [json!({"org-1": {}, "org-2": {}}), json!(["org-2", "org-1"]), json!("org-1")] {
            let claims = read(&with("organization", form.clone())).unwrap();
            assert_eq!(claims.principal("org-1").unwrap().organisation, "org-1", "{form}");
            assert_eq!(claims.principal("org-3"), None);
            assert_eq!(claims.principal("ORG-1"), None);
        }
        assert_eq!(read(&with("organization", Value::Null)).unwrap().principal("org-1"), None);
        assert_eq!(read(&with("organization", json!([{"org-1": {}}]))), Err(ClaimsError::Malformed));
        assert_eq!(read(&with("organization", json!(7))), Err(ClaimsError::Malformed));
    }

    #[test]
    fn claims_are_found_by_pointer() {
        let names = ClaimNames {
            organisations: "/https:~1~1x.example~1orgs".into(),
            roles: "/a/b/0".into(),
            ..ClaimNames::default()
        };
        let token =
            json!({"iss": "i", "sub": "s", "exp": 1, "https://x.example/orgs": ["o"], "a": {"b": [["r"]]}});
        let claims = Claims::from_object(token.as_object().unwrap(), &names).unwrap();
        assert_eq!((claims.organisations, claims.roles), (vec!["o".to_owned()], vec!["r".to_owned()]));
    }

    #[test]
    fn no_claim_comes_twice() {
        assert_eq!(object(br#"{"aud":"a","aud":"b"}"#), Err(ClaimsError::Malformed));
        assert_eq!(object(br#"{"aud":"a","\u0061ud":"b"}"#), Err(ClaimsError::Malformed));
        assert_eq!(object(b"[]"), Err(ClaimsError::Malformed));
        assert_eq!(object(b"{} x"), Err(ClaimsError::Malformed));
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC{0,60}", claim in "iss|sub|aud|exp|nbf|organization|scope|groups|typ", number in any::<f64>()) {
            let _ = object(text.as_bytes());
            let _ = check(&with(&claim, json!(text)));
            let _ = check(&with(&claim, json!([text])));
            let _ = check(&with(&claim, json!(number)));
        }

        #[test]
        fn a_resource_is_only_itself(one in "https?://[a-z.]{1,9}(:80)?(/[a-z]{0,3}){0,3}", other in "https?://[a-z.]{1,9}(:80)?(/[a-z]{0,3}){0,3}") {
            prop_assert!(same_resource(&one, &one));
            prop_assert_eq!(same_resource(&one, &other), one == other);
        }
    }
}
