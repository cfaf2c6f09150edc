//! Who is believed.

use http::{HeaderMap, Method};
use identity::assertion::AssertionError;
use identity::path::Endpoint;
use identity::{AssertionKeys, EntryPoint, Principal};
use sha2::{Digest, Sha256};

use crate::front::{error::Error, http::unix_seconds};
use crate::protocol::{METHOD, NAME, Refusal, origin::HostRules};

/// Who may ask.
pub enum Access {
    /// Only requests with a valid assertion of the gateway's filter. Whatever else arrives is not believed.
    Gateway(Box<AssertionKeys>),
    /// Anybody on this machine, as one local user: no gateway is in front. For development and tests.
    Open(HostRules),
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
            Self::Gateway(keys) => Ok(by_assertion(keys, method, path, endpoint, headers)?),
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
        let Self::Gateway(keys) = self else { return false };
        matches!(
            keys.verify(assertion, identity::assertion::AUDIENCE, unix_seconds()),
            Ok(_) | Err(AssertionError::Expired)
        )
    }
}

fn by_assertion(
    keys: &AssertionKeys,
    method: &Method,
    path: &str,
    endpoint: &Endpoint,
    headers: &HeaderMap,
) -> Result<Caller, Error> {
    let value = only(headers, identity::assertion::HEADER).ok_or(Error::Unauthenticated)?;
    let assertion = keys.verify(value, identity::assertion::AUDIENCE, unix_seconds()).map_err(|error| {
        tracing::warn!(%error, "an assertion is refused");
        Error::Unauthenticated
    })?;
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
    Ok(Caller { principal: assertion.principal, entry_point: assertion.entry_point, assertion: proof(value) })
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
    Sha256::digest(assertion.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
