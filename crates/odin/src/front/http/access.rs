//! Who is believed.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, Method};
use identity::assertion::{AUDIENCE, Assertion, AssertionError};
use identity::path::Endpoint;
use identity::{AssertionKeys, EntryPoint, Principal};
use lru::LruCache;
use sha2::{Digest, Sha256};

use crate::front::{error::Error, http::unix_seconds};
use crate::id::hex;
use crate::protocol::{METHOD, NAME, Refusal, origin::HostRules};

/// Assertions whose signature need not be verified again: the gateway sends the same one for some seconds. Each takes up to
/// a few kilobytes.
const KNOWN: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);

/// Who may ask.
pub enum Access {
    /// Only requests with a valid assertion of the gateway's filter. Whatever else arrives is not believed.
    Gateway(Gateway),
    /// Anybody on this machine, as one local user: no gateway is in front. For development and tests.
    Open(HostRules),
}

/// The gateway, as far as it can be believed.
pub struct Gateway {
    keys: Box<AssertionKeys>,
    /// Those verified last, by the header's value.
    known: Mutex<LruCache<Box<str>, Arc<Known>>>,
}

/// An assertion that was verified, but for its times.
struct Known {
    assertion: Assertion,
    proof: String,
}

impl From<AssertionKeys> for Access {
    fn from(keys: AssertionKeys) -> Self {
        Self::Gateway(Gateway { keys: Box::new(keys), known: Mutex::new(LruCache::new(KNOWN)) })
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gateway(..)")
    }
}

impl Gateway {
    /// Verifies an assertion: whole when it is new, else its times.
    fn verify(&self, value: &str, now: u64) -> Result<Arc<Known>, AssertionError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(value).cloned();
        if let Some(known) = known {
            known.assertion.check_times(now)?;
            return Ok(known);
        }
        let assertion = self.keys.verify(value, AUDIENCE, now)?;
        let known = Arc::new(Known { assertion, proof: proof(value) });
        self.known.lock().unwrap_or_else(PoisonError::into_inner).put(value.into(), known.clone());
        Ok(known)
    }
}

/// Who asks, and how.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) principal: Principal,
    pub(crate) entry_point: EntryPoint,
    /// SHA-256 of the assertion in hexadecimal: what a hold request must prove. Empty without a gateway.
    pub(crate) assertion: String,
}

impl Access {
    /// Judges a request by its headers.
    pub(crate) fn judge(
        &self,
        method: &Method,
        path: &str,
        endpoint: &Endpoint,
        headers: &HeaderMap,
    ) -> Result<Caller, Refusal> {
        match self {
            Self::Gateway(gateway) => Ok(by_assertion(gateway, method, path, endpoint, headers)?),
            Self::Open(rules) => {
                rules.check(headers, None)?;
                Ok(Caller {
                    principal: {
                        let mut caller = Principal::new("local", "local", endpoint.organisation.clone());
                        caller.username = Some("local".into());
                        caller
                    },
                    entry_point: EntryPoint::Direct,
                    assertion: String::new(),
                })
            }
        }
    }

    /// Whether an assertion is the gateway's, be it still valid or not: who brings it was let in.
    pub(crate) fn is_authentic(&self, assertion: &str) -> bool {
        let Self::Gateway(gateway) = self else { return false };
        matches!(gateway.verify(assertion, unix_seconds()), Ok(_) | Err(AssertionError::Expired))
    }
}

fn by_assertion(
    gateway: &Gateway,
    method: &Method,
    path: &str,
    endpoint: &Endpoint,
    headers: &HeaderMap,
) -> Result<Caller, Error> {
    let value = only(headers, identity::assertion::HEADER).ok_or(Error::Unauthenticated)?;
    let known = gateway.verify(value, unix_seconds()).map_err(|error| {
        tracing::warn!(%error, "an assertion is refused");
        Error::Unauthenticated
    })?;
    let assertion = &known.assertion;
    // A header that is there twice, or is no text, is not in the assertion: the rules of MCP refuse it later,
    // with an error that says so.
    let same = |name: http::HeaderName, said: Option<&str>| match only(headers, name.as_str()) {
        Some(value) => said == Some(value),
        None => said.is_none(),
    };
    let fits = assertion.method == method.as_str()
        && assertion.path == path
        && assertion.principal.organisation == endpoint.organisation
        && same(METHOD, assertion.mcp_method.as_deref())
        && same(NAME, assertion.mcp_name.as_deref());
    if !fits {
        tracing::warn!("an assertion is for another request");
        return Err(Error::Unauthenticated);
    }
    Ok(Caller {
        principal: assertion.principal.clone(),
        entry_point: assertion.entry_point,
        assertion: known.proof.clone(),
    })
}

/// The header's value, if it is there exactly once.
pub(crate) fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// What proves that a hold request belongs to a call.
pub(crate) fn proof(assertion: &str) -> String {
    hex(&Sha256::digest(assertion.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn gateway() -> (Gateway, String) {
        let keys = AssertionKeys::parse(&format!("k1:{}", "A".repeat(43))).unwrap();
        let assertion = Assertion {
            audience: AUDIENCE.into(),
            issued_at: NOW,
            expires_at: NOW + 30,
            method: "POST".into(),
            path: "/api/v1/mcp/org-1".into(),
            mcp_method: None,
            mcp_name: None,
            principal: Principal::new("https://issuer.example", "thor", "org-1"),
            entry_point: EntryPoint::Bifrost,
        };
        let value = keys.sign(&assertion);
        let Access::Gateway(gateway) = Access::from(keys) else { panic!("it is a gateway's") };
        (gateway, value)
    }

    fn known(gateway: &Gateway) -> usize {
        gateway.known.lock().unwrap().len()
    }

    #[test]
    fn a_known_assertion_is_good_as_long_as_its_times_say() {
        let (gateway, value) = gateway();
        for now in [NOW, NOW + 1, NOW + 30] {
            let known = gateway.verify(&value, now).unwrap();
            assert_eq!(known.assertion.principal.subject, "thor");
            assert_eq!(known.proof, proof(&value));
        }
        assert_eq!(known(&gateway), 1);
        assert_eq!(gateway.verify(&value, NOW + 3600).err(), Some(AssertionError::Expired));
        assert_eq!(gateway.verify(&value, NOW - 3600).err(), Some(AssertionError::NotYetValid));
    }

    #[test]
    fn what_is_not_the_gateways_is_never_known() {
        let (gateway, value) = gateway();
        gateway.verify(&value, NOW).unwrap();
        let mut forged = value.clone();
        let last = forged.pop().unwrap();
        forged.push(if last == 'A' { 'B' } else { 'A' });
        for wrong in [forged.as_str(), "", "v1.k1.e30.AAAA"] {
            assert!(gateway.verify(wrong, NOW).is_err(), "{wrong}");
        }
        assert_eq!(known(&gateway), 1);
    }

    #[test]
    fn no_more_than_some_are_known() {
        let (gateway, _) = gateway();
        for number in 0..KNOWN.get() + 10 {
            let path = format!("/{number}");
            let keys = &gateway.keys;
            let assertion = Assertion {
                audience: AUDIENCE.into(),
                issued_at: NOW,
                expires_at: NOW + 30,
                method: "GET".into(),
                path,
                mcp_method: None,
                mcp_name: None,
                principal: Principal::new("i", "s", "o"),
                entry_point: EntryPoint::Bifrost,
            };
            gateway.verify(&keys.sign(&assertion), NOW).unwrap();
        }
        assert_eq!(known(&gateway), KNOWN.get());
    }
}
