//! From a token to what it gives: signature, the issuer's answer, the cache.

use std::rc::Rc;

use identity::{ClaimNames, Claims, ClaimsError, Hierarchy};
use serde_json::{Map, Value};

use crate::cache::{Cache, Digest, RequestLine, Verified};
use crate::config::{Config, Issuer};
use crate::introspect::{self, Answer, Asking};
use crate::jwks::{self, Fingerprint};
use crate::jwt::{self, Jwt, JwtError};
use crate::keys::{KeyStore, Lookup};
use crate::reply::Refusal;
use crate::shared::{SharedData, SharedKeys};
use crate::userinfo;

/// What a request has done so far about its token. A request that waits for an answer keeps it.
#[derive(Debug, Default)]
pub struct Progress {
    /// It has fetched keys, and does not do so again.
    keys_fetched: bool,
    /// It has asked the issuer, and does not do so again.
    asked: bool,
    answer: Option<Answer>,
}

/// What a request waits for, of which of the configured issuers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// Its key set.
    Keys(usize),
    /// Its word about a token.
    Introspection(usize, Digest),
}

/// Why a token is not accepted, now.
pub enum Halt {
    /// For good.
    Refuse(Refusal),
    /// This must be there first.
    Wait(Awaited),
}

impl From<Refusal> for Halt {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

/// An accepted token.
#[derive(Clone)]
pub struct Found {
    /// Which of the configured issuers issued it.
    pub issuer: usize,
    /// What it gives.
    pub claims: Rc<Claims>,
    /// The `X-Userinfo` made of it.
    pub userinfo: Rc<str>,
    /// The first second, since 1970, in which an issuer may have to be asked; `None` when it was just asked,
    /// or should be and can't be.
    pub same_until: Option<u64>,
}

/// A check of a token's claims: what is wrong with them for this request.
pub type Check<'a> = &'a dyn Fn(&Issuer, &Claims) -> Result<(), Refusal>;

/// All tokens of one configuration, in one worker.
pub struct Tokens {
    config: Rc<Config>,
    names: ClaimNames,
    hierarchy: Hierarchy,
    keys: Vec<Option<KeyStore>>,
    shared: Option<SharedKeys>,
    asking: Vec<Option<Asking>>,
    cache: Cache<Verified>,
    epoch: u64,
}

/// A token before the issuer was asked about it.
struct Own {
    issuer: usize,
    key: Option<Fingerprint>,
    /// What it says, when its signature was verified.
    claims: Option<Rc<Claims>>,
    /// What it says without, when it is a JWT: never believed, but its audiences bound what is accepted.
    unverified: Option<Map<String, Value>>,
    userinfo: Rc<str>,
}

impl Tokens {
    /// No token seen yet. `data` is what the gateway's workers share, if they do.
    pub fn new(config: Rc<Config>, data: Option<Rc<dyn SharedData>>) -> Self {
        let issuers = || config.issuers.iter();
        Self {
            names: config.claim_names(),
            hierarchy: Hierarchy::new(&config.scopes.implied),
            keys: issuers().map(|issuer| issuer.jwks.as_ref().map(KeyStore::new)).collect(),
            shared: data.and_then(|data| SharedKeys::new(&config, data)),
            asking: issuers().map(|issuer| issuer.introspection.as_ref().map(Asking::new)).collect(),
            cache: Cache::new(config.token_cache.entries, config.token_cache.bytes),
            epoch: 0,
            config,
        }
    }

    /// Verifies a token, now or from the cache, and checks its claims by `check`.
    ///
    /// # Errors
    /// [`Halt`].
    pub fn verified(
        &mut self,
        token: &str,
        digest: &Digest,
        now: u64,
        progress: &mut Progress,
        check: Check<'_>,
    ) -> Result<Found, Halt> {
        let config = self.config.clone();
        let issuer = |index: usize| config.issuers.get(index).ok_or_else(keys_unavailable);
        // What is kept under a digest is that token's, or goes.
        if self.cache.get(digest).is_some_and(|known| *known.token != *token) {
            self.cache.remove(digest);
        }
        if let Some(found) = self.known(digest, now, progress)? {
            check(issuer(found.issuer)?, &found.claims)?;
            return Ok(found);
        }
        let own = match self.own_from_cache(digest) {
            Some(own) => own,
            None => self.read(token, now, progress)?,
        };
        let of = issuer(own.issuer)?;
        let asked = of.introspection.is_some();
        if let Some(claims) = &own.claims {
            let ask_at = if asked { 0 } else { u64::MAX };
            let (claims, userinfo) = (claims.clone(), own.userinfo.clone());
            let found = Found { issuer: own.issuer, claims, userinfo, same_until: None };
            if found.claims.check_times(now, config.clock_leeway_s).is_ok()
                && self.cache.get(digest).is_none()
            {
                self.keep(digest, token, &own, &found, ask_at);
            }
            // Before the issuer is asked: what is refused anyway costs it nothing.
            check(of, &found.claims)?;
            if !asked {
                return Ok(found);
            }
        }
        let found = self.ask(token, digest, &own, now, progress)?;
        check(of, &found.claims)?;
        Ok(found)
    }

    /// Grows whenever an issuer has said anything but that a token is active: what was known of its keys and
    /// tokens before may no longer hold.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The assertion that was made for this token and request line, and when it expires, if it is good until
    /// `until`.
    pub fn assertion(
        &mut self,
        digest: &Digest,
        line: &RequestLine<'_>,
        until: u64,
    ) -> Option<(Rc<str>, u64)> {
        self.cache.get(digest)?.assertion(line, until)
    }

    /// Keeps an assertion that was made for a token and a request line.
    pub fn keep_assertion(
        &mut self,
        digest: &Digest,
        line: &RequestLine<'_>,
        assertion: Rc<str>,
        expires: u64,
    ) {
        if let Some(known) = self.cache.get(digest) {
            known.keep(line, assertion, expires);
        }
    }

    /// Takes what a request waited for: the HTTP status, `None` when there was no answer, and the body.
    ///
    /// # Errors
    /// What to write to the log when it was of no use.
    pub fn answered(
        &mut self,
        awaited: Awaited,
        status: Option<u16>,
        body: &[u8],
        now: u64,
        progress: &mut Progress,
    ) -> Result<(), String> {
        let (index, reason, error) = match awaited {
            Awaited::Keys(index) => {
                self.epoch = self.epoch.wrapping_add(1);
                progress.keys_fetched = true;
                let keys = match status {
                    Some(200) => jwks::parse(body).map_err(|error| error.to_string()),
                    Some(status) => Err(format!("the answer has status {status}")),
                    None => Err("no answer".to_owned()),
                };
                if let (Some(shared), Ok(_)) = (&self.shared, &keys) {
                    shared.share(index, body, now);
                }
                let (keys, error) = match keys {
                    Ok(keys) => (Some(keys), None),
                    Err(error) => (None, Some(error)),
                };
                if let Some(Some(store)) = self.keys.get_mut(index) {
                    store.fetched(keys, now);
                }
                (index, "jwks_unavailable", error)
            }
            Awaited::Introspection(index, digest) => {
                let (answer, error) = introspect::read(status, body);
                if !matches!(answer, Answer::Active(_)) {
                    self.epoch = self.epoch.wrapping_add(1);
                }
                if let Some(Some(asking)) = self.asking.get_mut(index) {
                    asking.ended(&answer, now);
                    if answer == Answer::Inactive {
                        asking.keep_inactive(digest, now);
                        self.cache.remove(&digest);
                    }
                }
                let refused = answer == Answer::Refused;
                progress.answer = Some(answer);
                (index, if refused { "introspection_refused" } else { "introspection_unavailable" }, error)
            }
        };
        let name = self.config.issuers.get(index).map_or("", |issuer| issuer.issuer.as_str());
        error.map_or(Ok(()), |error| Err(format!("reason={reason} issuer={name}: {error}")))
    }

    /// A token that is in the cache, and about which nobody must be asked.
    fn known(&mut self, digest: &Digest, now: u64, progress: &Progress) -> Result<Option<Found>, Halt> {
        let Some(known) = self.cache.get(digest) else {
            return Ok(None);
        };
        let index = known.issuer;
        let mut fresh = (known.ask_at > now).then(|| Found {
            issuer: index,
            claims: known.claims.clone(),
            userinfo: known.userinfo.clone(),
            same_until: Some(known.ask_at),
        });
        if let Some(key) = known.key {
            let store = self.keys.get_mut(index).and_then(Option::as_mut).ok_or_else(keys_unavailable)?;
            if store.wants(None, now) && adopt(self.shared.as_ref(), index, store, now) {
                self.epoch = self.epoch.wrapping_add(1);
            }
            match store.lookup_cached(&key, now, !progress.keys_fetched) {
                Lookup::Keys(_) => {
                    if let Some(found) = &mut fresh {
                        found.same_until = found.same_until.min(store.same_until(now));
                    }
                }
                Lookup::Fetch => return Err(Halt::Wait(Awaited::Keys(index))),
                Lookup::Unavailable => return Err(keys_unavailable().into()),
                // The issuer took the key back: whatever it signed is judged anew.
                Lookup::Unknown => {
                    self.cache.remove(digest);
                    return Ok(None);
                }
            }
        }
        Ok(fresh)
    }

    fn own_from_cache(&mut self, digest: &Digest) -> Option<Own> {
        let known = self.cache.get(digest)?;
        let claims = known.own.clone()?;
        let (issuer, key, userinfo) = (known.issuer, known.key, known.userinfo.clone());
        Some(Own { issuer, key, claims: Some(claims), unverified: None, userinfo })
    }

    /// Takes a token apart, and verifies its signature if its issuer publishes keys.
    fn read(&mut self, token: &str, now: u64, progress: &Progress) -> Result<Own, Halt> {
        let jwt = match jwt::parse(token) {
            Ok(jwt) => jwt,
            Err(error) => {
                let opaque = self.config.issuers.iter().position(|issuer| issuer.jwks.is_none());
                return match opaque {
                    Some(issuer) if error == JwtError::Malformed && introspect::is_token(token) => {
                        Ok(Own { issuer, key: None, claims: None, unverified: None, userinfo: "".into() })
                    }
                    _ => Err(jwt_refusal(error).into()),
                };
            }
        };
        let named = jwt.payload.get("iss").and_then(Value::as_str);
        let index = self.config.issuers.iter().position(|issuer| Some(issuer.issuer.as_str()) == named);
        let index = index.ok_or_else(|| claims_refusal(ClaimsError::Issuer))?;
        let Some(store) = self.keys.get_mut(index).and_then(Option::as_mut) else {
            let (unverified, userinfo) = (Some(jwt.payload), "".into());
            return Ok(Own { issuer: index, key: None, claims: None, unverified, userinfo });
        };
        let accepted = self.config.issuers.get(index).map_or(&[][..], |issuer| &issuer.algorithms);
        let wanted = jwt.algorithm.map(|algorithm| (jwt.key_id.as_deref(), algorithm));
        if store.wants(wanted, now) && adopt(self.shared.as_ref(), index, store, now) {
            self.epoch = self.epoch.wrapping_add(1);
        }
        let key = verify(&jwt, accepted, store, index, now, !progress.keys_fetched)?;
        let mut claims = Claims::from_object(&jwt.payload, &self.names).map_err(claims_refusal)?;
        self.hierarchy.complete(&mut claims.scopes);
        let userinfo = userinfo::header(&jwt.payload).into();
        Ok(Own { issuer: index, key: Some(key), claims: Some(Rc::new(claims)), unverified: None, userinfo })
    }

    /// Asks the issuer about a token, or takes its answer.
    fn ask(
        &mut self,
        token: &str,
        digest: &Digest,
        own: &Own,
        now: u64,
        progress: &mut Progress,
    ) -> Result<Found, Halt> {
        let asking = self.asking.get_mut(own.issuer).and_then(Option::as_mut);
        let asking = asking.ok_or_else(introspect::unavailable)?;
        let answer = match progress.answer.take() {
            Some(Answer::Active(answer)) => answer,
            Some(Answer::Inactive) => return Err(introspect::inactive().into()),
            Some(Answer::Refused) => return Err(introspect::refused().into()),
            Some(Answer::Unavailable) => return Err(introspect::unavailable().into()),
            None if progress.asked => return Err(introspect::unavailable().into()),
            None => {
                asking.begin(digest, now)?;
                progress.asked = true;
                return Err(Halt::Wait(Awaited::Introspection(own.issuer, *digest)));
            }
        };
        let active_for = asking.active_for;
        let (mut claims, userinfo) = match &own.claims {
            Some(claims) => (claims.narrowed_by(&answer, &self.names), own.userinfo.clone()),
            None => (self.claims_of_answer(own, &answer), userinfo::header(&answer).into()),
        };
        if let (Ok(claims), None) = (&mut claims, &own.claims) {
            self.hierarchy.complete(&mut claims.scopes);
        }
        let claims = Rc::new(claims.map_err(claims_refusal)?);
        let ask_at = now.saturating_add(active_for).min(claims.expires_at);
        let found = Found { issuer: own.issuer, claims, userinfo, same_until: None };
        if found.claims.check_times(now, self.config.clock_leeway_s).is_ok() {
            self.keep(digest, token, own, &found, ask_at);
        }
        Ok(found)
    }

    /// What a token gives that only the issuer can read.
    fn claims_of_answer(&self, own: &Own, answer: &Map<String, Value>) -> Result<Claims, ClaimsError> {
        let mut answer = answer.clone();
        let issuer = self.config.issuers.get(own.issuer).map_or("", |issuer| issuer.issuer.as_str());
        // RFC 7662 leaves it out as it likes; who answered is known.
        answer.entry("iss").or_insert_with(|| issuer.into());
        let mut claims = Claims::from_object(&answer, &self.names)?;
        if let Some(aud) = own.unverified.as_ref().and_then(|payload| payload.get("aud")) {
            // Keycloak's answer has audiences that the token itself was not given.
            let says = |audience: &str| match aud {
                Value::Array(list) => list.iter().any(|item| item.as_str() == Some(audience)),
                one => one.as_str() == Some(audience),
            };
            claims.audiences.retain(|audience| says(audience));
        }
        Ok(claims)
    }

    fn keep(&mut self, digest: &Digest, token: &str, own: &Own, found: &Found, ask_at: u64) {
        let (claims, userinfo) = (found.claims.clone(), found.userinfo.clone());
        let mut verified = Verified::new(token.into(), own.issuer, own.key, claims, userinfo, ask_at);
        if ask_at != u64::MAX {
            verified.own.clone_from(&own.claims);
        }
        let weight = verified.weight();
        self.cache.put(*digest, verified, weight);
    }
}

/// Takes the keys that another worker has fetched, if they are newer; whether it did.
fn adopt(shared: Option<&SharedKeys>, issuer: usize, store: &mut KeyStore, now: u64) -> bool {
    let newer = shared.and_then(|shared| shared.newer(issuer, store.loaded_at()));
    let keys = newer.and_then(|(fetched_at, set)| Some((fetched_at, jwks::parse(&set).ok()?)));
    keys.is_some_and(|(fetched_at, keys)| store.adopt(keys, fetched_at, now))
}

/// Finds the key that signed a token.
fn verify(
    jwt: &Jwt<'_>,
    accepted: &[crate::config::Algorithm],
    store: &mut KeyStore,
    index: usize,
    now: u64,
    may_fetch: bool,
) -> Result<Fingerprint, Halt> {
    let algorithm = jwt.algorithm.filter(|algorithm| accepted.contains(algorithm));
    let algorithm = algorithm.ok_or_else(|| jwt_refusal(JwtError::Algorithm))?;
    let keys = match store.lookup(jwt.key_id.as_deref(), algorithm, now, may_fetch) {
        Lookup::Keys(keys) => keys,
        Lookup::Fetch => return Err(Halt::Wait(Awaited::Keys(index))),
        Lookup::Unavailable => return Err(keys_unavailable().into()),
        Lookup::Unknown => {
            return Err(Refusal::token("key_unknown", "the token is signed with an unknown key").into());
        }
    };
    // A token that names no key may be any one's; more than a few would be a way to burn CPU.
    let key = keys.into_iter().take(4).find(|key| key.verifies(algorithm, jwt.signed, &jwt.signature));
    let wrong = || Refusal::token("signature_wrong", "the token's signature is wrong");
    Ok(key.ok_or_else(wrong)?.fingerprint)
}

fn jwt_refusal(error: JwtError) -> Refusal {
    Refusal::token(error.code(), error)
}

/// 401, with the code of what is wrong with a token's claims.
pub fn claims_refusal(error: ClaimsError) -> Refusal {
    Refusal::token(error.code(), error)
}

/// 503: there are no keys to verify a token with.
pub fn keys_unavailable() -> Refusal {
    let message = "the identity provider's keys can't be had now; try again";
    Refusal::plain(503, "unavailable", "keys_unavailable", message)
}
