//! What must hold whatever comes in: a function for each target in `fuzz_targets/`, which panics when it does not.
//!
//! Each input meets a fresh filter under `site.json`, so that what was found is found again with that input alone.

#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use identity::path::{self, EndpointKind};
use identity::{AssertionKeys, Policy, assertion};
use kong_filter::config::Config;
use kong_filter::filter::{Filter, Forward, Service, Step};
use kong_filter::jwt::{self, GripKey};
use kong_filter::pairs;
use kong_filter::recent::RawRequest;
use kong_filter::reply::Reply;
use kong_filter::request::Request;
use kong_filter::tokens::{Awaited, Progress};
use kong_filter::{introspect, jwks};
use serde_json::{Map, Value};

/// The time at which everything is judged, in seconds since 1970.
const NOW: u64 = 1_800_000_000;
/// The configuration.
const SITE: &str = include_str!("../site.json");
/// The keys of the issuer that signs: Ed25519, of which the secret is [`SEED`], and three of which nobody has it.
const KEYS: &str = include_str!("../keys.json");
/// A good token for each of the keys (two for RSA).
const TOKENS: [&str; 5] = [
    include_str!("../seeds/token/ed25519"),
    include_str!("../seeds/token/rs256"),
    include_str!("../seeds/token/ps256"),
    include_str!("../seeds/token/es256"),
    include_str!("../seeds/token/es384"),
];
/// A good signed identity, and a good signature of Pushpin's.
const ASSERTION: &str = include_str!("../seeds/token/assertion");
const GRIP_SIG: &str = include_str!("../seeds/token/grip-sig");
/// A token that only the other issuer can read, and a JWT of its that nobody signed.
const OPAQUE: &str = include_str!("../seeds/token/opaque");
const UNSIGNED: &str = include_str!("../seeds/token/unsigned");

const ISSUER: &str = "http://localhost:8000/heimdall/realms/asgard";
const ASKED: &str = "http://localhost:8000/heimdall/realms/asked";
const ORGANISATION: &str = "org-1";
const ENDPOINT: &str = "/api/v1/mcp/org-1";
/// The short path, and the host that it is for.
const SHORT: (&str, &str) = ("/mcp", "tools.org1.example");
const HOSTS: [&str; 5] = ["localhost", "127.0.0.1", "[::1]", SHORT.1, ""];
const ORIGINS: [&str; 3] =
    ["http://localhost:8000", "http://localhost:6274", "http://tools.org1.example:8000"];
const SEED: [u8; 32] = [7; 32];

/// The Ed25519 key alone: the others take longer to read than all else.
static ONE_KEY: LazyLock<String> = LazyLock::new(|| {
    let set: Value = serde_json::from_str(KEYS).unwrap();
    format!(r#"{{"keys":[{}]}}"#, set["keys"][0])
});

static ASSERTION_KEYS: LazyLock<AssertionKeys> = LazyLock::new(|| {
    let site: Value = serde_json::from_str(SITE).unwrap();
    AssertionKeys::parse(site["assertion"]["keys"].as_str().unwrap()).unwrap()
});

static GRIP_KEY: LazyLock<GripKey> = LazyLock::new(|| {
    let site: Value = serde_json::from_str(SITE).unwrap();
    let key = URL_SAFE_NO_PAD.decode(site["grip"]["key"].as_str().unwrap()).unwrap();
    GripKey::new(site["grip"]["issuer"].as_str().unwrap(), &key).unwrap()
});

/// That all is set up so that something can pass: else a target would find nothing, and not say so.
static CHECKED: LazyLock<()> = LazyLock::new(|| {
    for token in TOKENS {
        assert!(judge(&mut site(), &call(token), KEYS.as_bytes(), b"").is_some(), "a good token passes");
    }
    for lines in [include_bytes!("../seeds/claims/list").as_slice(), include_bytes!("../seeds/claims/object")]
    {
        let signed = sign(lines).unwrap();
        assert!(judge(&mut site(), &call(&signed), KEYS.as_bytes(), b"").is_some(), "what we sign passes");
    }
    for token in [OPAQUE, UNSIGNED] {
        let answer = include_bytes!("../seeds/answer/active");
        assert!(judge(&mut site(), &call(token), b"", answer).is_some(), "what the issuer knows passes");
    }
    assert!(ASSERTION_KEYS.verify(ASSERTION, assertion::AUDIENCE, NOW).is_ok());
    assert!(GRIP_KEY.verifies(GRIP_SIG, NOW));
});

fn site() -> Service {
    Service::new(SITE.as_bytes())
}

fn request(target: &str, headers: &[(&str, &[u8])]) -> Request {
    let own: [(&str, &[u8]); 1] = [("host", b"localhost:8000")];
    let headers = own.iter().chain(headers).map(|(name, value)| ((*name).to_owned(), value.to_vec()));
    let headers = headers.collect();
    Request { method: "POST".to_owned(), target: target.to_owned(), headers, ..Request::default() }
}

fn call(token: impl AsRef<[u8]>) -> Request {
    request(ENDPOINT, &[("authorization", &[b"Bearer ", token.as_ref()].concat())])
}

/// What becomes of a request when the issuers answer so: how it is passed on, if it is.
fn judge(service: &mut Service, request: &Request, keys: &[u8], answer: &[u8]) -> Option<Forward> {
    let mut progress = Progress::default();
    for _ in 0..4 {
        match service.judge(request, NOW, &mut progress) {
            Step::Reply(reply) => {
                check_reply(&reply);
                return None;
            }
            Step::Forward(forward) => {
                check_forward(request, &forward);
                return Some(forward);
            }
            Step::Call(call) => {
                assert!(call.headers.iter().all(|(_, value)| is_clean(value)), "{:?}", call.headers);
                let body = match call.awaited {
                    Awaited::Keys(_) => keys,
                    Awaited::Introspection(..) => answer,
                };
                let _ = service.answered(call.awaited, Some(200), body, NOW, &mut progress);
            }
        }
    }
    panic!("a request asks again and again");
}

/// Whether a text can be the value of a header, or a line of the log.
fn is_clean(text: &str) -> bool {
    !text.contains(|character: char| character.is_control())
}

/// Whether pages of that origin may call: in whatever case, as names of schemes and hosts are.
fn is_known_origin(origin: &str) -> bool {
    ORIGINS.iter().any(|known| known.eq_ignore_ascii_case(origin))
}

fn check_reply(reply: &Reply) {
    assert!((200..600).contains(&reply.status), "{}", reply.status);
    assert!(reply.headers.iter().all(|(_, value)| is_clean(value)), "{:?}", reply.headers);
    let allowed = reply.headers.iter().find(|(name, _)| *name == "access-control-allow-origin");
    assert!(allowed.is_none_or(|(_, origin)| origin == "*" || is_known_origin(origin)), "{reply:?}");
    let mut names = HashSet::new();
    assert!(reply.headers.iter().all(|(name, _)| names.insert(name)), "{:?}", reply.headers);
    assert!(reply.body.is_empty() || serde_json::from_str::<Value>(&reply.body).is_ok(), "{}", reply.body);
    assert!(reply.log.as_deref().is_none_or(is_clean), "{:?}", reply.log);
}

/// What the backend is raw_request must be of this request.
fn check_forward(request: &Request, forward: &Forward) {
    let said = ASSERTION_KEYS.verify(&forward.identity, assertion::AUDIENCE, NOW).unwrap();
    let target = forward.target.as_deref().unwrap_or(&request.target);
    assert_eq!(said.method, request.method);
    assert_eq!(said.path, path::without_query(target));
    assert_eq!(path::parse(&said.path).unwrap().organisation, ORGANISATION);
    assert_eq!(said.principal.organisation, ORGANISATION);
    for text in [said.mcp_method, said.mcp_name].iter().flatten() {
        assert!(is_clean(text), "{text:?}");
    }
    if let Some(userinfo) = &forward.userinfo {
        let info: Value = serde_json::from_slice(&STANDARD.decode(&**userinfo).unwrap()).unwrap();
        assert!(info.is_object(), "{info}");
    }
    assert!(forward.would_refuse.as_deref().is_none_or(is_clean));
}

/// The header and the payload in two lines, as a token that the issuer signed.
fn sign(lines: &[u8]) -> Option<String> {
    static PAIR: LazyLock<ed25519_compact::KeyPair> =
        LazyLock::new(|| ed25519_compact::KeyPair::from_seed(ed25519_compact::Seed::new(SEED)));
    let (header, payload) = std::str::from_utf8(lines).ok()?.split_once('\n')?;
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = URL_SAFE_NO_PAD.encode(*PAIR.sk.sign(&signed, None));
    Some(format!("{signed}.{signature}"))
}

fn texts(value: Option<&Value>) -> Vec<&str> {
    match value {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        Some(Value::Object(members)) => members.keys().map(String::as_str).collect(),
        _ => Vec::new(),
    }
}

/// What is wrong with claims that let a request pass, by rules of its own: they are written down here once more, and
/// otherwise.
fn objection(claims: &Map<String, Value>) -> Option<&'static str> {
    let null = |name: &str| claims.get(name).is_none_or(Value::is_null);
    let seconds = |name: &str| claims.get(name).and_then(Value::as_f64);
    let now = NOW as f64;
    let resources = [
        format!("http://localhost:8000{ENDPOINT}"),
        format!("http://{}:8000{ENDPOINT}", SHORT.1),
        format!("http://{}:8000{}", SHORT.1, SHORT.0),
    ];
    let resource = |text: &str| resources.iter().any(|resource| resource.eq_ignore_ascii_case(text));
    let client = if null("azp") { claims.get("client_id") } else { claims.get("azp") };
    let scopes = [texts(claims.get("scope")), texts(claims.get("scp"))].concat();
    let wrong = [
        (claims.get("sub").is_none_or(|sub| !sub.is_string()), "no subject"),
        (seconds("exp").is_none_or(|exp| exp.trunc() + 30.0 <= now), "expired"),
        (!null("nbf") && seconds("nbf").is_none_or(|nbf| nbf.trunc() > now + 30.0), "not yet valid"),
        (!null("iat") && seconds("iat").is_none_or(|iat| iat.trunc() > now + 30.0), "from the future"),
        (!texts(claims.get("aud")).into_iter().any(resource), "for another audience"),
        (client.and_then(Value::as_str) != Some("inspector"), "of another client"),
        (!texts(claims.get("organization")).contains(&ORGANISATION), "of another organisation"),
        (
            !scopes
                .iter()
                .flat_map(|text| text.split(' '))
                .any(|scope| matches!(scope, "mcp:tools" | "mcp:admin")),
            "without the scope",
        ),
        (!null("cnf"), "bound to a key"),
        (
            !null("typ")
                && !["bearer", "at+jwt", "jwt"].iter().any(|kind| {
                    claims
                        .get("typ")
                        .and_then(Value::as_str)
                        .is_some_and(|own| own.eq_ignore_ascii_case(kind))
                }),
            "of another kind",
        ),
    ];
    wrong.into_iter().find_map(|(wrong, what)| wrong.then_some(what))
}

/// A bearer token. The same bytes as what else is signed: an assertion, its keys, and Pushpin's signature.
pub fn token(data: &[u8]) {
    LazyLock::force(&CHECKED);
    let text = String::from_utf8_lossy(data);
    let _ = (jwt::parse(&text), introspect::is_token(&text), AssertionKeys::parse(&text));
    if let Ok(said) = ASSERTION_KEYS.verify(&text, assertion::AUDIENCE, NOW) {
        assert_eq!(text, ASSERTION, "nobody signed {said:?}");
    }
    assert!(!GRIP_KEY.verifies(&text, NOW) || text == GRIP_SIG, "nobody signed {text:?}");
    if judge(&mut site(), &call(data), KEYS.as_bytes(), br#"{"active":false}"#).is_some() {
        assert!(TOKENS.contains(&text.trim_matches(' ')), "nobody signed {text:?}");
    }
}

/// What an issuer signs: a token's header, and in the next line its payload.
pub fn claims(data: &[u8]) {
    LazyLock::force(&CHECKED);
    let Some(signed) = sign(data) else { return };
    if judge(&mut site(), &call(&signed), ONE_KEY.as_bytes(), br#"{"active":true}"#).is_some() {
        let (header, payload) = std::str::from_utf8(data).unwrap().split_once('\n').unwrap();
        let header = identity::json::read(header.as_bytes()).expect("no member comes twice");
        let payload = identity::json::read(payload.as_bytes()).expect("no member comes twice");
        assert_eq!(header["alg"], "EdDSA");
        assert!(header.get("crit").is_none(), "{header}");
        assert_eq!(payload["iss"], ISSUER);
        assert_eq!(objection(payload.as_object().unwrap()), None, "{payload}");
    }
}

/// What an issuer answers: about a token, or as its keys.
pub fn answer(data: &[u8]) {
    LazyLock::force(&CHECKED);
    for token in [OPAQUE, UNSIGNED] {
        if judge(&mut site(), &call(token), b"", data).is_some() {
            let said = identity::json::read(data).expect("no member comes twice");
            assert_eq!(said["active"], true);
            assert!(said.get("iss").is_none_or(|issuer| issuer == ASKED), "{said}");
            assert_eq!(objection(said.as_object().unwrap()), None, "{said}");
        }
    }
    let _ = introspect::read(Some(200), data);
    if jwks::parse(data).is_err() {
        return;
    }
    let known: Value = serde_json::from_str(KEYS).unwrap();
    for token in TOKENS {
        if judge(&mut site(), &call(token), data, b"").is_some() {
            // A key that verifies the token is the one that it was signed with.
            let given = identity::json::read(data).expect("no member comes twice");
            let of = |set: &Value, parts: [&str; 2]| -> Vec<Vec<Option<Vec<u8>>>> {
                let decode = |value: &Value| URL_SAFE_NO_PAD.decode(value.as_str()?).ok();
                let key = |key: &Value| parts.map(|part| key.get(part).and_then(decode)).to_vec();
                set["keys"].as_array().into_iter().flatten().map(key).collect()
            };
            let same = |parts| {
                let known = of(&known, parts);
                of(&given, parts).iter().any(|key| key[0].is_some() && known.contains(key))
            };
            // The modulus may have zeros before it.
            assert!(same(["x", "y"]) || token.len() > 600, "{given}");
        }
    }
}

/// The head of a request, as text: a line with method and target, then the headers, a line each; `{token}` stands for
/// a good token. And the same bytes as a gateway hands headers over.
pub fn headers(data: &[u8]) {
    LazyLock::force(&CHECKED);
    let mut service = site();
    assert!(judge(&mut service, &call(TOKENS[0]), ONE_KEY.as_bytes(), b"").is_some());
    for bytes in [raw_request(data).as_slice(), data] {
        let raw_request = RawRequest::new(bytes.to_vec(), None);
        let request = Request::read(&raw_request, None);
        let mut again = || judge(&mut service, &request, ONE_KEY.as_bytes(), br#"{"active":false}"#);
        let (first, second) = (again(), again());
        assert_eq!(first.is_some(), second.is_some(), "the same request is judged otherwise: {request:?}");
        // As it lies there, it may be the same as one a moment ago.
        if first.is_some() || service.recent(&raw_request, NOW).is_some() {
            assert_eq!(refusable(&request), None, "{request:?}");
        }
    }
}

/// The head of a request in the form in which a gateway hands it over.
fn raw_request(data: &[u8]) -> Vec<u8> {
    let mut lines = data.split(|byte| *byte == b'\n');
    let mut first = lines.next().unwrap_or_default().splitn(2, |byte| *byte == b' ');
    let mut all = vec![
        (b":method".to_vec(), first.next().unwrap_or_default().to_vec()),
        (b":path".to_vec(), first.next().unwrap_or_default().to_vec()),
    ];
    for line in lines {
        let colon = line.iter().skip(1).position(|byte| *byte == b':').map_or(line.len(), |at| at + 1);
        let (name, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value).to_vec();
        let value = match String::from_utf8(value) {
            Ok(text) => text.replace("{token}", TOKENS[0]).into_bytes(),
            Err(error) => error.into_bytes(),
        };
        if !name.is_empty() {
            all.push((name.to_vec(), value));
        }
    }
    pairs::write(all.iter().map(|(name, value)| (name.as_slice(), value.as_slice())))
}

/// Why a request may not pass, though it did.
fn refusable(request: &Request) -> Option<&'static str> {
    let values = |wanted: &str| -> Vec<String> {
        let same = |name: &&(String, Vec<u8>)| name.0.to_ascii_lowercase() == wanted;
        let text = |(_, value): &(String, Vec<u8>)| String::from_utf8_lossy(value).into_owned();
        request.headers.iter().filter(same).map(text).collect()
    };
    let authorization = values("authorization");
    let [authorization] = authorization.as_slice() else { return Some("not one Authorization header") };
    let mut words = authorization.split(' ').filter(|word| !word.is_empty());
    let scheme = words.next().unwrap_or_default().to_ascii_lowercase();
    let token = words.next().unwrap_or_default();
    if scheme != "bearer" || token != TOKENS[0] || words.next().is_some() {
        return Some("no good token");
    }
    let names: Vec<String> =
        request.headers.iter().map(|(name, _)| name.to_ascii_lowercase().replace('_', "-")).collect();
    if names.iter().any(|name| name == "x-userinfo" || name == "x-asgard-identity") {
        return Some("a header of the gateway's own");
    }
    if values("origin").iter().any(|origin| !is_known_origin(origin.trim_matches(' '))) {
        return Some("a foreign origin");
    }
    let hosts = [values(":authority"), values("host")].concat();
    let host = |host: &String| {
        let host = host.trim_matches(' ').to_ascii_lowercase();
        let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
        HOSTS.contains(&name) || HOSTS.contains(&host.as_str())
    };
    if hosts.is_empty() || hosts.len() > 2 || !hosts.iter().all(host) {
        return Some("a foreign host");
    }
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    if query.contains("access_token=")
        && query.split(['&', ';']).any(|pair| pair.starts_with("access_token="))
    {
        return Some("a token in the query");
    }
    let session = |middle: &str| {
        let (session, last) = middle.split_once('/').unwrap_or((middle, ""));
        matches!((session, last), ("sse", "")) || (last == "messages" && !session.is_empty())
    };
    let ends = |rest: &str| rest.is_empty() || rest.strip_prefix('/').is_some_and(session);
    let endpoint = path.strip_prefix(ENDPOINT).is_some_and(ends)
        || path.strip_prefix("/api/v1/org-1/").is_some_and(session);
    let short = path == SHORT.0 && hosts.iter().all(|host| host.to_ascii_lowercase().contains(SHORT.1));
    (!endpoint && !short).then_some("another path")
}

/// The path of a request: what is accepted has one reading, and is what its parts make.
pub fn path(data: &[u8]) {
    let Ok(target) = std::str::from_utf8(data) else { return };
    let path = path::without_query(target);
    assert!(!path.contains('?') && target.starts_with(path));
    for (text, found) in [(target, path::parse(target)), (path, path::parse(path))] {
        let Ok(endpoint) = found else { continue };
        assert_eq!(path::check(text), Ok(()));
        assert!(text.len() <= path::MAX_PATH);
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte)), "{text}");
        assert!(!text.split('/').skip(1).any(|part| matches!(part, "" | "." | "..")), "{text}");
        assert!(path::is_alias(&endpoint.organisation), "{text}");
        let organisation = &endpoint.organisation;
        let forms = match &endpoint.kind {
            EndpointKind::Streamable => vec![endpoint.resource_path()],
            EndpointKind::Sse => {
                vec![format!("/api/v1/mcp/{organisation}/sse"), format!("/api/v1/{organisation}/sse")]
            }
            EndpointKind::Messages { session } => vec![
                format!("/api/v1/mcp/{organisation}/{session}/messages"),
                format!("/api/v1/{organisation}/{session}/messages"),
            ],
        };
        assert!(forms.iter().any(|form| form == text), "{text} is read as {endpoint:?}");
        assert!(path::is_resource_path(&endpoint.resource_path(), organisation));
    }
    if path::is_alias(target) {
        assert!(!target.contains(['/', '%', '~', ';']) && !target.contains(".."), "{target}");
        let resource = path::resource_path(target);
        assert_eq!(path::parse(&resource).unwrap().organisation, target);
    }
}

/// A configuration, or a policy alone: usable, or refused with the place that is wrong; and nobody gets in without a
/// token.
pub fn config(data: &[u8]) {
    LazyLock::force(&CHECKED);
    if let Err(error) = Policy::from_json(data) {
        assert!(!error.to_string().is_empty());
    }
    let mut service = match Config::read(data).and_then(|config| Filter::new(config, None)) {
        Ok(filter) => Service::Ready(Box::new(filter)),
        Err(error) => {
            assert!(!error.path.is_empty() && !error.hint.is_empty(), "{error:?}");
            Service::new(data)
        }
    };
    let metadata = format!("/.well-known/oauth-protected-resource{ENDPOINT}");
    for request in
        [request(ENDPOINT, &[]), request(&metadata, &[]), request(SHORT.0, &[]), call("e30.e30.e30")]
    {
        assert!(judge(&mut service, &request, KEYS.as_bytes(), b"{}").is_none(), "{request:?}");
    }
    let get = Request { method: "GET".into(), ..request(&metadata, &[]) };
    assert!(judge(&mut service, &get, KEYS.as_bytes(), b"{}").is_none());
}
