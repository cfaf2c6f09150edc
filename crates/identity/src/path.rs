//! The public paths of the MCP endpoints: one strict parser, used by the filter and by the backend.
//!
//! Two parsers that read one path differently are how requests slip past a gateway. So this parser
//! normalises nothing. A path that anybody might normalise (percent-encoding, empty segments, path
//! parameters, dot segments) is an error, and a path that passes has one reading only: itself.
//!
//! | form | kind |
//! |---|---|
//! | `/api/v1/mcp/{org}` | [`EndpointKind::Streamable`] |
//! | `/api/v1/mcp/{org}/sse`, `/api/v1/{org}/sse` | [`EndpointKind::Sse`] |
//! | `/api/v1/mcp/{org}/{session}/messages`, `/api/v1/{org}/{session}/messages` | [`EndpointKind::Messages`] |

/// Longest path that is read, in bytes.
pub const MAX_PATH: usize = 1024;
/// Longest alias of an organisation, in bytes.
pub const MAX_ALIAS: usize = 64;
/// Longest session id in a path, in bytes.
pub const MAX_SESSION: usize = 512;

const BASE: &str = "/api/v1/";
const SSE: &str = "/sse";
const RESERVED: [&str; 4] = ["mcp", "sse", "messages", "servers"];

/// An MCP endpoint that a path names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Alias of the organisation, as [`is_alias`] accepts it.
    pub organisation: String,
    /// Which of the endpoints of that organisation.
    pub kind: EndpointKind,
}

/// The endpoints that each organisation has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndpointKind {
    /// The one endpoint of the Streamable HTTP transport, all its revisions.
    Streamable,
    /// The stream of the HTTP+SSE transport (revision 2024-11-05).
    Sse,
    /// Where a client of the HTTP+SSE transport posts its messages.
    Messages {
        /// Session id, 1 to [`MAX_SESSION`] characters `A-Z a-z 0-9 - . _ ~`; not verified here.
        session: String,
    },
}

impl Endpoint {
    /// Path of the OAuth resource that the endpoint belongs to (RFC 9728 section 3.3: a client's resource is the address
    /// that it was given): the organisation's [`resource_path`], or that of its HTTP+SSE endpoint.
    pub fn resource_path(&self) -> String {
        let path = resource_path(&self.organisation);
        match self.kind {
            EndpointKind::Streamable => path,
            EndpointKind::Sse | EndpointKind::Messages { .. } => path + SSE,
        }
    }
}

/// Path of an organisation's OAuth resource: `/api/v1/mcp/{organisation}`. Its HTTP+SSE endpoint's has `/sse` behind it.
pub fn resource_path(organisation: &str) -> String {
    format!("{BASE}mcp/{organisation}")
}

/// Whether `path` is that of one of the organisation's resources: [`resource_path`], or this with `/sse`.
pub fn is_resource_path(path: &str, organisation: &str) -> bool {
    let path = path.strip_suffix(SSE).unwrap_or(path);
    path.strip_prefix(BASE).and_then(|rest| rest.strip_prefix("mcp/")) == Some(organisation)
}

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Longer than [`MAX_PATH`].
    #[error("the path is longer than {MAX_PATH} bytes")]
    TooLong,
    /// Holds what could be read in two ways: `%`, `//`, `;`, a dot segment, or a character that no
    /// part of a path of ours has.
    #[error("the path is ambiguous: percent-encoding, empty or dot segments and `;` are not allowed")]
    Ambiguous,
    /// The organisation's place holds a word that can't be an alias.
    #[error("the path does not name an organisation")]
    Reserved,
    /// The path is well-formed and none of the endpoints.
    #[error("there is no such endpoint")]
    NotAnEndpoint,
}

/// Whether `alias` can be an organisation's: 1 to [`MAX_ALIAS`] characters `A-Z a-z 0-9 - . _`, of
/// which the first and the last are letters or digits, without `..`, and no reserved word
/// (`mcp`, `sse`, `messages`, `servers`, in upper or lower case).
pub fn is_alias(alias: &str) -> bool {
    let bytes = alias.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    bytes.len() <= MAX_ALIAS
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(byte))
        && !alias.contains("..")
        && !is_reserved(alias)
}

fn is_reserved(word: &str) -> bool {
    RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(word))
}

fn is_session(session: &str) -> bool {
    (1..=MAX_SESSION).contains(&session.len()) && session.bytes().all(is_unreserved)
}

/// The "unreserved" characters of RFC 3986 section 2.3: they mean themselves everywhere.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Reads the path of a request. The query must have been cut off: see [`without_query`].
///
/// # Errors
/// [`PathError::NotAnEndpoint`] for a clean path that is no endpoint (HTTP 404); the others mean that
/// the request should be refused as malformed (HTTP 400), [`PathError::Reserved`] as either.
pub fn parse(path: &str) -> Result<Endpoint, PathError> {
    check(path)?;
    let rest = path.strip_prefix(BASE).ok_or(PathError::NotAnEndpoint)?;
    // No endpoint has more than four segments here; one more tells "too many" from "four".
    let mut parts = rest.splitn(5, '/');
    let parts = [parts.next(), parts.next(), parts.next(), parts.next(), parts.next()];
    let (organisation, kind) = match parts {
        [Some("mcp"), Some(organisation), None, ..] => (organisation, EndpointKind::Streamable),
        [Some("mcp"), Some(organisation), Some("sse"), None, _] => (organisation, EndpointKind::Sse),
        [Some("mcp"), Some(organisation), Some(session), Some("messages"), None] => {
            (organisation, messages(session)?)
        }
        [Some(organisation), Some("sse"), None, ..] => (organisation, EndpointKind::Sse),
        [Some(organisation), Some(session), Some("messages"), None, _] => (organisation, messages(session)?),
        _ => return Err(PathError::NotAnEndpoint),
    };
    if is_reserved(organisation) {
        return Err(PathError::Reserved);
    }
    if !is_alias(organisation) {
        return Err(PathError::Ambiguous);
    }
    Ok(Endpoint { organisation: organisation.to_owned(), kind })
}

fn messages(session: &str) -> Result<EndpointKind, PathError> {
    if is_session(session) && !is_reserved(session) {
        Ok(EndpointKind::Messages { session: session.to_owned() })
    } else {
        Err(PathError::Ambiguous)
    }
}

/// Checks that a path, of an endpoint or not, has one reading only.
///
/// # Errors
/// [`PathError::TooLong`] and [`PathError::Ambiguous`].
pub fn check(path: &str) -> Result<(), PathError> {
    if path.len() > MAX_PATH {
        return Err(PathError::TooLong);
    }
    let rest = path.strip_prefix('/').ok_or(PathError::Ambiguous)?;
    let clean = |segment: &str| !matches!(segment, "." | "..") && segment.bytes().all(is_unreserved);
    let last = rest.split('/').count().saturating_sub(1);
    for (index, segment) in rest.split('/').enumerate() {
        // Only the last segment may be empty: a closing slash has one reading, though no endpoint has it.
        if !clean(segment) || (segment.is_empty() && index != last) {
            return Err(PathError::Ambiguous);
        }
    }
    Ok(())
}

/// The path without slashes that are one too many: doubled ones, and one at the end. None where there are none. The result
/// may be no endpoint, or malformed in other ways: it is to be parsed.
pub fn without_extra_slashes(path: &str) -> Option<String> {
    if path.len() > MAX_PATH || !path.starts_with('/') {
        return None;
    }
    let mut right = String::with_capacity(path.len());
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        right.push('/');
        right.push_str(segment);
    }
    (right != path).then_some(right)
}

/// The path of a request target, without its query.
pub fn without_query(target: &str) -> &str {
    target.split_once('?').map_or(target, |(path, _)| path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn endpoint(organisation: &str, kind: EndpointKind) -> Result<Endpoint, PathError> {
        Ok(Endpoint { organisation: organisation.into(), kind })
    }

    #[test]
    fn reads_all_forms() {
        let messages = || EndpointKind::Messages { session: "s-1.x_~".into() };
        assert_eq!(parse("/api/v1/mcp/org-1"), endpoint("org-1", EndpointKind::Streamable));
        assert_eq!(parse("/api/v1/mcp/org-1/sse"), endpoint("org-1", EndpointKind::Sse));
        assert_eq!(parse("/api/v1/org-1/sse"), endpoint("org-1", EndpointKind::Sse));
        assert_eq!(parse("/api/v1/mcp/org-1/s-1.x_~/messages"), endpoint("org-1", messages()));
        assert_eq!(parse("/api/v1/Acme.example/s-1.x_~/messages"), endpoint("Acme.example", messages()));
    }

    #[test]
    fn refuses_what_has_two_readings() {
        for path in [
            "",
            "api/v1/mcp/org-1",
            "*",
            "//api/v1/mcp/org-1",
            "/api/v1//mcp/org-1",
            "/api/v1/mcp/org%2d1",
            "/api/v1/mcp/org-1%00",
            "/api/v1/mcp/org-1;a=b",
            "/api/v1/./mcp/org-1",
            "/api/v1/mcp/../mcp/org-1",
            "/api/v1/mcp/org-1/..",
            "/api/v1/mcp/.",
            "/api/v1/mcp/-org",
            "/api/v1/mcp/org.",
            "/api/v1/mcp/a..b",
            "/api/v1/mcp/org 1",
            "/api/v1/mcp/org-1?x",
            "/api/v1/mcp/org-1#x",
            "/api/v1/mcp/örg",
            "/api/v1/mcp/org\\1",
            "/api/v1/mcp/org-1/messages/messages",
            "/api/v1/mcp/",
            "/api/v1/mcp/~a",
        ] {
            assert_eq!(parse(path), Err(PathError::Ambiguous), "{path}");
        }
        assert_eq!(parse(&format!("/api/v1/mcp/{}", "a".repeat(65))), Err(PathError::Ambiguous));
        assert_eq!(parse(&format!("/api/v1/mcp/{}", "a".repeat(1024))), Err(PathError::TooLong));
        assert_eq!(parse(&format!("/api/v1/mcp/a/{}/messages", "s".repeat(513))), Err(PathError::Ambiguous));
    }

    #[test]
    fn reserved_words_are_no_organisations() {
        for word in ["mcp", "sse", "messages", "servers", "MCP", "Sse"] {
            assert!(!is_alias(word));
            for path in [format!("/api/v1/mcp/{word}"), format!("/api/v1/mcp/{word}/sse")] {
                assert_eq!(parse(&path), Err(PathError::Reserved), "{path}");
            }
        }
        // Would be the organisation "mcp" by the alias form.
        assert_eq!(parse("/api/v1/mcp/s/messages"), Err(PathError::Reserved));
    }

    #[test]
    fn the_rest_is_no_endpoint() {
        for path in [
            "/",
            "/api/v1",
            "/api/v1/org-1",
            "/api/v1/mcp/org-1/",
            "/api/v1/mcp/org-1/other",
            "/api/v1/mcp/org-1/s/messages/x",
            "/API/v1/mcp/org-1",
            "/api/v1/Mcp/org-1",
            "/api/v2/mcp/org-1",
            "/_hermod/hold/0123",
            "/heimdall/realms/asgard",
            "/api/v1/mcp/org-1/s/messages/",
        ] {
            assert_eq!(parse(path), Err(PathError::NotAnEndpoint), "{path}");
        }
    }

    #[test]
    fn a_slash_too_many_is_found() {
        for path in
            ["/api/v1/mcp/org-1/", "//api/v1/mcp/org-1", "/api/v1//mcp/org-1", "//api/v1/mcp///org-1//"]
        {
            assert_eq!(without_extra_slashes(path).as_deref(), Some("/api/v1/mcp/org-1"), "{path}");
            assert!(parse(path).is_err(), "{path}");
        }
        for path in
            ["", "/", "//", "x/", "/api/v1/mcp/org-1", "/api/v1/mcp/org%2d1/", "/api/v1/../mcp/org-1/"]
        {
            let right = without_extra_slashes(path);
            assert!(right.is_none_or(|right| parse(&right).is_err()), "{path}");
        }
        assert_eq!(without_extra_slashes(&format!("/{}", "/".repeat(MAX_PATH))), None);
    }

    #[test]
    fn cuts_the_query() {
        assert_eq!(without_query("/a?b?c"), "/a");
        assert_eq!(without_query("/a"), "/a");
    }

    proptest! {
        #[test]
        fn never_panics_and_accepts_only_clean_paths(path in "(/api/v1)?(/(mcp|sse|messages|org|[ -~]{0,6}|\\PC{0,3})){0,6}") {
            if let Ok(endpoint) = parse(&path) {
                prop_assert!(is_alias(&endpoint.organisation));
                prop_assert!(!path.contains(['%', ';', '?', '#', '\\', ' ']) && !path.contains("//"));
                prop_assert!(path.split('/').all(|segment| segment != "." && segment != ".."));
            }
        }

        #[test]
        fn what_is_built_is_read_back(alias in "[a-zA-Z0-9]([a-zA-Z0-9_-]{0,20}[a-zA-Z0-9])?", session in "[A-Za-z0-9._~-]{1,40}") {
            prop_assume!(!is_reserved(&alias) && !is_reserved(&session) && session != "." && session != "..");
            prop_assert!(is_resource_path(&resource_path(&alias), &alias));
            prop_assert!(!is_resource_path(&resource_path(&alias), &session) || alias == session);
            prop_assert_eq!(parse(&resource_path(&alias)), endpoint(&alias, EndpointKind::Streamable));
            let sse = format!("/api/v1/mcp/{alias}/sse");
            prop_assert!(is_resource_path(&sse, &alias) && (alias == session || !is_resource_path(&sse, &session)));
            prop_assert_eq!(parse(&sse).map(|endpoint| endpoint.resource_path()), Ok(sse.clone()));
            let path = format!("/api/v1/mcp/{alias}/{session}/messages");
            prop_assert!(!is_resource_path(&path, &alias));
            prop_assert_eq!(parse(&path).map(|endpoint| endpoint.resource_path()), Ok(sse));
            prop_assert_eq!(parse(&path), endpoint(&alias, EndpointKind::Messages { session }));
        }
    }
}
