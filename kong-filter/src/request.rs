//! A request as the gateway received it.

use std::borrow::Cow;

use crate::pairs::{self, Pair};
use crate::recent::RawRequest;
use crate::reply::Refusal;

/// Method, target and headers of a request, as far as the filter looks at them.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// HTTP method.
    pub method: String,
    /// Request target as received: path and query.
    pub target: String,
    /// Names and values; HTTP/2 pseudo-headers may be among them.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The gateway's own id of this request, for the log and for what a refused client is raw_request. No decision depends
    /// on it.
    pub id: Option<String>,
}

/// The headers whose values the filter reads, in lower case. A decision depends on no other value.
const READ: [&str; 12] = [
    ":authority",
    ":method",
    ":path",
    "access-control-request-headers",
    "access-control-request-method",
    "authorization",
    "grip-sig",
    "host",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "origin",
];

/// Whether a decision may depend on the value of the header of that name.
#[inline(always)]
pub fn is_read(name: &[u8]) -> bool {
    READ.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(name))
}

/// Why a header that may come once is not usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    /// It comes more than once.
    Twice,
    /// Its value is not visible ASCII, or too long.
    Malformed,
}

impl Request {
    /// A request of which the gateway has raw_request, with the gateway's id of it.
    pub fn read(raw_request: &RawRequest, id: Option<String>) -> Self {
        let mut request = Self { id, ..Self::default() };
        let (mut method, mut path) = (None, None);
        for Pair { name, value } in pairs::read(raw_request.headers()) {
            match name {
                b":method" if method.is_none() => method = Some(value),
                b":path" if path.is_none() => path = Some(value),
                _ => request.headers.push((String::from_utf8_lossy(name).into_owned(), value.to_vec())),
            }
        }
        let text =
            |value: Option<&[u8]>| String::from_utf8(value.unwrap_or_default().to_vec()).unwrap_or_default();
        request.method = text(method);
        request.target = raw_request.target().map(str::to_owned).unwrap_or_else(|| text(path));
        request
    }

    /// The request as a gateway tells of it, with `:method` and `:path` first.
    pub fn raw_request(&self) -> RawRequest {
        let own = [(&b":method"[..], self.method.as_bytes()), (b":path", self.target.as_bytes())];
        let headers = self.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_slice()));
        RawRequest::new(pairs::write(own.into_iter().chain(headers)), None)
    }

    /// All values of a header that the filter reads ([`is_read`]), and of no other; the name in lower case.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let headers = if is_read(name.as_bytes()) { self.headers.as_slice() } else { &[] };
        headers
            .iter()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_slice())
    }

    /// Whether there is such a header.
    pub fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// The value of a header that may come once, of at most `max` characters, all visible ASCII or spaces.
    ///
    /// # Errors
    /// [`HeaderError`].
    pub fn one<'a>(&'a self, name: &'a str, max: usize) -> Result<Option<&'a str>, HeaderError> {
        let mut values = self.all(name);
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(HeaderError::Twice);
        }
        if value.len() > max || !is_printable(value) {
            return Err(HeaderError::Malformed);
        }
        match std::str::from_utf8(value) {
            Ok(text) => Ok(Some(text.trim_matches(' '))),
            Err(_) => Err(HeaderError::Malformed),
        }
    }

    /// How many headers there are, without pseudo-headers.
    pub fn header_count(&self) -> usize {
        self.headers.iter().filter(|(name, _)| !name.starts_with(':')).count()
    }

    /// The host that the request is for: in Kong its `Host` (whose pseudo-header says something else);
    /// elsewhere `:authority`, with which a `Host` must agree. `None` when there is none, or two.
    pub fn host(&self, in_kong: bool) -> Option<&str> {
        let host = self.one("host", 512).ok()?;
        if in_kong {
            return host;
        }
        match (self.one(":authority", 512).ok()?, host) {
            (Some(authority), Some(host)) if authority != host => None,
            (authority, host) => authority.or(host),
        }
    }

    /// The name of a header that only this filter may set, in any spelling that some server behind it
    /// might take for it: `X_Userinfo` is `X-Userinfo` to everything that speaks CGI.
    pub fn forged_identity(&self) -> Option<&'static str> {
        const OURS: [&str; 2] = [identity::assertion::HEADER, "x-userinfo"];
        let same = |name: &str, ours: &str| {
            name.len() == ours.len()
                && name.bytes().zip(ours.bytes()).all(|(byte, own)| {
                    let byte = if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
                    byte == own
                })
        };
        self.headers.iter().find_map(|(name, _)| OURS.into_iter().find(|ours| same(name, ours)))
    }

    /// Whether the query has an access token (RFC 6750 section 2.3), which is never read.
    pub fn token_in_query(&self) -> bool {
        self.target.split_once('?').is_some_and(|(_, query)| {
            query.split(['&', ';']).any(|pair| pair.split('=').next() == Some("access_token"))
        })
    }

    /// The access token: from the `Authorization` header and from nowhere else, at most `max` bytes.
    ///
    /// # Errors
    /// The [`Refusal`] that says what is missing or malformed.
    pub fn bearer(&self, max: usize) -> Result<&str, Refusal> {
        if self.token_in_query() {
            let message = "an access token is only accepted in the Authorization header";
            return Err(Refusal::request("token_in_query", message));
        }
        // Some gateways join two headers into one, with a comma; some pass both.
        let malformed = || {
            let message = "send one Authorization header, with the word Bearer, a space, and the token";
            Refusal::request("authorization_malformed", message)
        };
        let value = self.one("authorization", 64 * 1024).map_err(|_| malformed())?.unwrap_or_default();
        let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Refusal::no_token());
        }
        let token = token.trim_matches(' ');
        if token.is_empty() || [b' ', b','].iter().any(|byte| token.as_bytes().contains(byte)) {
            return Err(malformed());
        }
        if token.len() > max {
            return Err(Refusal::token("token_too_long", "the token is longer than this gateway reads"));
        }
        Ok(token)
    }
}

/// Whether all bytes are visible ASCII or spaces. Eight at a time: a token has more than a thousand.
fn is_printable(bytes: &[u8]) -> bool {
    const fn each(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; 8])
    }
    const TOP: u64 = each(0x80);
    let (eights, rest) = bytes.as_chunks::<8>();
    eights.iter().all(|eight| {
        let word = u64::from_ne_bytes(*eight);
        // Each leaves a byte's top bit set for what it looks for. A carry can only come from a byte that is
        // found out itself.
        let beyond_ascii = word;
        let delete = word.wrapping_add(each(1));
        let control = !((word | TOP).wrapping_sub(each(b' ')));
        (beyond_ascii | delete | control) & TOP == 0
    }) && rest.iter().all(|byte| (b' '..=b'~').contains(byte))
}

/// The value of an `Mcp-Name` header: the specification writes what is not plain ASCII as
/// `=?base64?…?=`. `None` when that form is broken.
pub fn decode_name(value: &str) -> Option<Cow<'_, str>> {
    use base64::Engine as _;
    let Some(rest) = value.strip_prefix("=?base64?") else {
        return Some(Cow::Borrowed(value));
    };
    let encoded = rest.strip_suffix("?=")?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn request(headers: &[(&str, &str)]) -> Request {
        let headers =
            headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
        Request { headers, ..Request::default() }
    }

    #[test]
    fn identity_headers_in_any_spelling() {
        for name in [
            "x-userinfo",
            "X-USERINFO",
            "x_userinfo",
            "X-Asgard-Identity",
            "x_asgard_identity",
            "x-asgard_identity",
        ] {
            assert!(request(&[("a", "b"), (name, "x")]).forged_identity().is_some(), "{name}");
        }
        for name in ["x-userinfo2", "userinfo", "x-asgard-identit"] {
            assert_eq!(request(&[(name, "x")]).forged_identity(), None, "{name}");
        }
    }

    #[test]
    fn one_value_or_an_error() {
        let twice = request(&[("Authorization", "a"), ("authorization", "b")]);
        assert_eq!(twice.one("authorization", 9), Err(HeaderError::Twice));
        assert_eq!(request(&[("host", "é")]).one("host", 9), Err(HeaderError::Malformed));
        assert_eq!(request(&[("host", "x\n")]).one("host", 9), Err(HeaderError::Malformed));
        assert_eq!(request(&[("host", "0123456789")]).one("host", 9), Err(HeaderError::Malformed));
        assert_eq!(request(&[("Host", " v ")]).one("host", 9), Ok(Some("v")));
        assert_eq!(request(&[]).one("host", 9), Ok(None));
        // A value on which no decision may depend, and which is not the gateway's id either.
        let id = request(&[("x-request-id", "a-1")]);
        assert_eq!((id.one("x-request-id", 9), id.id.as_deref()), (Ok(None), None));
    }

    #[test]
    fn every_byte_is_looked_at() {
        for place in 0..19 {
            for byte in 0..=255_u8 {
                let mut bytes = [b'a'; 19];
                bytes[place] = byte;
                assert_eq!(is_printable(&bytes), (b' '..=b'~').contains(&byte), "{byte} at {place}");
            }
        }
    }

    #[test]
    fn one_host_or_none() {
        for (headers, elsewhere, in_kong) in [
            (&[("host", "a")][..], Some("a"), Some("a")),
            (&[(":authority", "a")], Some("a"), None),
            (&[(":authority", "a"), ("host", "a")], Some("a"), Some("a")),
            (&[(":authority", "a"), ("host", "b")], None, Some("b")),
            (&[("host", "a"), ("Host", "a")], None, None),
            (&[], None, None),
        ] {
            let request = request(headers);
            assert_eq!((request.host(false), request.host(true)), (elsewhere, in_kong), "{headers:?}");
        }
        assert_eq!(request(&[(":authority", "a"), ("host", "b"), ("c", "d")]).header_count(), 2);
    }

    #[test]
    fn tokens_in_the_query_are_seen() {
        for (target, found) in [
            ("/a?access_token=x", true),
            ("/a?b=c&access_token=x", true),
            ("/a?access_token", true),
            ("/a?my_access_token=x", false),
            ("/access_token=", false),
            ("/a", false),
        ] {
            assert_eq!(
                Request { target: target.into(), ..Request::default() }.token_in_query(),
                found,
                "{target}"
            );
        }
    }

    #[test]
    fn names_are_decoded() {
        assert_eq!(decode_name("report").as_deref(), Some("report"));
        assert_eq!(decode_name("=?base64?w6k=?=").as_deref(), Some("é"));
        assert_eq!(decode_name("=?base64?!!?="), None);
        assert_eq!(decode_name("=?base64?w6k="), None);
        assert_eq!(decode_name("=?base64?/w==?="), None);
    }
}
