//! A person who logs in at Keycloak's pages, and the OAuth client that sent them there: authorization code with PKCE,
//! each form posted as a browser would. The pages are Keycloak's own, so this reads no more of them than their
//! forms. (The real browser is in `browser.rs`.)

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use reqwest::Url;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::Stack;
use crate::tokens::{claims, encode};

/// Most pages and redirects of one login.
const STEPS: usize = 16;

/// What the client asks for.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    /// The client's id.
    pub client: &'a str,
    /// Where it wants the code.
    pub redirect: &'a str,
    /// `scope`; empty: the client sends none.
    pub scope: &'a str,
    /// `resource` (RFC 8707).
    pub resource: Option<&'a str>,
}

/// A person with a browser: their cookies stay from one login to the next.
#[derive(Debug)]
pub struct Person {
    user: String,
    password: String,
    /// The organisation that they choose when Keycloak asks.
    pub organisation: String,
    cookies: BTreeMap<String, String>,
}

/// How a login went.
#[derive(Debug)]
pub struct Login {
    /// The pages that were shown: Keycloak's names of them.
    pub pages: Vec<String>,
    /// The text of all pages.
    pub text: String,
    /// What the token endpoint answered; or the error that came instead of a code.
    pub outcome: Result<Value, Value>,
}

impl Login {
    /// The access token.
    #[must_use]
    pub fn token(&self) -> &str {
        let answer =
            self.outcome.as_ref().unwrap_or_else(|error| panic!("no token: {error} {:?}", self.pages));
        answer["access_token"].as_str().unwrap_or_else(|| panic!("no token: {answer}"))
    }

    /// The access token's claims.
    #[must_use]
    pub fn claims(&self) -> Value {
        claims(self.token())
    }

    /// Whether a page of that name was shown.
    #[must_use]
    pub fn saw(&self, page: &str) -> bool {
        self.pages.iter().any(|seen| seen.contains(page))
    }
}

impl Person {
    /// One whose password is the name.
    #[must_use]
    pub fn sample(user: &str, organisation: &str) -> Self {
        Self::new(user, user, organisation)
    }

    /// One with a password.
    #[must_use]
    pub fn new(user: &str, password: &str, organisation: &str) -> Self {
        Self {
            user: user.to_owned(),
            password: password.to_owned(),
            organisation: organisation.to_owned(),
            cookies: BTreeMap::new(),
        }
    }

    /// Goes through the whole flow, and says yes to what is asked.
    pub async fn log_in(&mut self, stack: &Stack, ask: &Ask<'_>) -> Login {
        let verifier = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
        let mut query = vec![
            ("response_type", "code"),
            ("client_id", ask.client),
            ("redirect_uri", ask.redirect),
            ("state", "abc"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        query.extend((!ask.scope.is_empty()).then_some(("scope", ask.scope)));
        query.extend(ask.resource.map(|resource| ("resource", resource)));
        let start = format!("{}/protocol/openid-connect/auth?{}", stack.state.issuer(), form(&query));
        let (pages, text, callback) = self.visit(&start, ask.redirect).await;
        let parameters: BTreeMap<_, _> = callback.query_pairs().into_owned().collect();
        let Some(code) = parameters.get("code") else {
            return Login { pages, text, outcome: Err(serde_json::json!(parameters)) };
        };
        assert_eq!(parameters.get("state").map(String::as_str), Some("abc"));
        assert_eq!(parameters.get("iss"), Some(&stack.state.issuer()), "RFC 9207");
        let mut exchange = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("client_id", ask.client),
            ("redirect_uri", ask.redirect),
            ("code_verifier", &verifier),
        ];
        exchange.extend(ask.resource.map(|resource| ("resource", resource)));
        let (status, answer) =
            post_form(&format!("{}/protocol/openid-connect/token", stack.state.issuer()), &exchange).await;
        Login { pages, text, outcome: if status == 200 { Ok(answer) } else { Err(answer) } }
    }

    /// Follows redirects and fills in forms from `start` until Keycloak sends the browser to `redirect`. Gives the
    /// pages, their text, and that address with what Keycloak added.
    pub async fn visit(&mut self, start: &str, redirect: &str) -> (Vec<String>, String, Url) {
        let (mut pages, mut text) = (Vec::new(), String::new());
        let mut address = Url::parse(start).unwrap();
        let mut filled: Option<Vec<(&str, String)>> = None;
        for _ in 0..STEPS {
            let (status, location, page) = self.load(&address, filled.take()).await;
            if let Some(location) = location {
                address = address.join(&location).unwrap();
                if address.as_str().starts_with(redirect) {
                    return (pages, text, address);
                }
                continue;
            }
            let name = between(&page, "data-page-id=\"", "\"").unwrap_or("?").to_owned();
            assert!(status < 400, "{name} is {status}, after {pages:?}: {}", words(&page));
            let action = action(&page).unwrap_or_else(|| panic!("no form: {}", words(&page)));
            address = address.join(&action).unwrap();
            filled = Some(self.fill(&page));
            pages.push(name);
            text.push_str(&page);
        }
        panic!("no end of pages: {pages:?}");
    }

    fn fill(&self, page: &str) -> Vec<(&'static str, String)> {
        if page.contains("name=\"accept\"") {
            let code = between(page, "name=\"code\" value=\"", "\"").unwrap_or_default();
            vec![("code", unescape(code)), ("accept", "Yes".to_owned())]
        } else if page.contains("name=\"kc.org\"") {
            vec![("kc.org", self.organisation.clone())]
        } else if page.contains("name=\"password\"") {
            vec![("username", self.user.clone()), ("password", self.password.clone())]
        } else {
            vec![("username", self.user.clone())]
        }
    }

    /// One request with the cookies of before. (A jar would keep back the `Secure` ones, which browsers send to
    /// loopback.)
    async fn load(
        &mut self,
        address: &Url,
        filled: Option<Vec<(&str, String)>>,
    ) -> (u16, Option<String>, String) {
        let http = crate::client::http();
        let request = match filled {
            None => http.get(address.clone()),
            Some(fields) => {
                let fields: Vec<(&str, &str)> =
                    fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
                http.post(address.clone())
                    .header("content-type", "application/x-www-form-urlencoded")
                    .body(form(&fields))
            }
        };
        let cookies: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let answer = request.header("cookie", cookies.join("; ")).send().await.unwrap();
        for cookie in answer.headers().get_all("set-cookie") {
            let cookie = cookie.to_str().unwrap();
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            if cookie.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        let location = answer.headers().get("location").map(|value| value.to_str().unwrap().to_owned());
        (answer.status().as_u16(), location, answer.text().await.unwrap())
    }
}

/// Where the sample's clients come back to from Keycloak's pages.
#[must_use]
pub fn callback(stack: &Stack) -> String {
    format!("http://localhost:{}/oauth/callback", stack.state.ports.inspector)
}

/// The id of a public client that has just registered itself for the tools and the organisation.
pub async fn public_client(stack: &Stack) -> String {
    let metadata = json!({
        "client_name": "a test's client",
        "redirect_uris": [callback(stack)],
        "token_endpoint_auth_method": "none",
        "scope": "mcp:tools organization",
    });
    let (status, answer) = register(stack, &metadata, None).await;
    assert_eq!(status, 201, "{answer}");
    answer["client_id"].as_str().unwrap().to_owned()
}

/// Registers a client (RFC 7591), with an `Origin` if a page does it. Gives status and answer.
pub async fn register(stack: &Stack, metadata: &Value, origin: Option<&str>) -> (u16, Value) {
    let url = format!("{}/clients-registrations/openid-connect", stack.state.issuer());
    let mut request =
        crate::client::http().post(url).header("content-type", "application/json").body(metadata.to_string());
    if let Some(origin) = origin {
        request = request.header("origin", origin);
    }
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
}

/// Posts a form. Gives status and answer.
pub async fn post_form(url: &str, fields: &[(&str, &str)]) -> (u16, Value) {
    let request = crate::client::http()
        .post(url)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form(fields));
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
}

fn form(fields: &[(&str, &str)]) -> String {
    fields.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect::<Vec<_>>().join("&")
}

/// Where the page's form goes. The page of consent has its own beside others.
fn action(page: &str) -> Option<String> {
    let actions: Vec<&str> = page
        .split("<form")
        .skip(1)
        .filter_map(|form| between(form.split('>').next()?, "action=\"", "\""))
        .collect();
    let consent = actions.iter().find(|action| action.contains("/consent"));
    consent.or(actions.first()).map(|action| unescape(action))
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    text.split_once(start)?.1.split_once(end).map(|(found, _)| found)
}

fn unescape(text: &str) -> String {
    text.replace("&quot;", "\"").replace("&#39;", "'").replace("&#x2F;", "/").replace("&amp;", "&")
}

/// A page without its tags, for a person to read.
fn words(page: &str) -> String {
    let text: String =
        page.split('<').filter_map(|part| part.split_once('>')).map(|(_, text)| text).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(600).collect()
}
