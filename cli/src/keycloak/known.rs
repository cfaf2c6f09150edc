//! Clients that are known by name: at which hosts they are at home, and what they need beside that.
//!
//! What each sends is in `tests/e2e/tests/vendors.rs`, where it is tried.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Admin, text};
use crate::problem::Result;
use crate::token::encode;

/// A client that is known by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum KnownClient {
    /// Visual Studio Code, on the desktop and as vscode.dev
    #[value(name = "vscode")]
    VsCode,
    /// Cursor
    Cursor,
    /// Claude: on the web, on the desktop, and Claude Code
    Claude,
    /// ChatGPT
    #[value(name = "chatgpt")]
    ChatGpt,
}

impl KnownClient {
    /// Its name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::VsCode => "Visual Studio Code",
            Self::Cursor => "Cursor",
            Self::Claude => "Claude",
            Self::ChatGpt => "ChatGPT",
        }
    }

    /// The hosts in its redirect addresses, its home page and the address of its metadata. That of Cursor's own
    /// scheme, `cursor://anysphere.cursor-mcp/…`, is one for Keycloak.
    #[must_use]
    pub fn hosts(self) -> &'static [&'static str] {
        match self {
            Self::VsCode => &["code.visualstudio.com", "vscode.dev", "insiders.vscode.dev"],
            Self::Cursor => &["anysphere.cursor-mcp", "www.cursor.com"],
            Self::Claude => &["claude.ai", "claude.com"],
            Self::ChatGpt => &["chatgpt.com"],
        }
    }

    /// The client as Keycloak has to have it beforehand, where Keycloak 26.7 cannot read the metadata document that the
    /// client names: Claude's has a grant type that Keycloak refuses for a public client (`jwt-bearer`), ChatGPT's a
    /// member that it does not know (`token_endpoint_auth_methods_supported`). The last attribute keeps Keycloak from
    /// fetching the document (`AbstractPersistentClientIdMetadataDocumentProvider.determineFetchOperation`).
    fn prepared(self) -> Option<Value> {
        let never = i32::MAX.to_string();
        let client = |id: &str, redirects: &[&str], public: bool, attributes: Value| {
            json!({
                "clientId": id,
                "name": self.name(),
                "publicClient": public,
                "clientAuthenticatorType": if public { "client-secret" } else { "client-jwt" },
                "standardFlowEnabled": true,
                "directAccessGrantsEnabled": false,
                "fullScopeAllowed": false,
                "consentRequired": true,
                "redirectUris": redirects,
                "attributes": attributes,
            })
        };
        match self {
            Self::VsCode | Self::Cursor => None,
            Self::Claude => Some(client(
                "https://claude.ai/oauth/mcp-oauth-client-metadata",
                &["https://claude.ai/api/mcp/auth_callback", "https://claude.com/api/mcp/auth_callback"],
                true,
                json!({"pkce.code.challenge.method": "S256", "cimd.cache.expiry.time.in.sec": never}),
            )),
            Self::ChatGpt => Some(client(
                "https://chatgpt.com/oauth/client.json",
                &["https://chatgpt.com/connector_platform_oauth_redirect"],
                false,
                json!({
                    "pkce.code.challenge.method": "S256",
                    "token.endpoint.auth.signing.alg": "RS256",
                    "use.jwks.url": "true",
                    "jwks.url": "https://chatgpt.com/oauth/jwks.json",
                    "cimd.cache.expiry.time.in.sec": never,
                }),
            )),
        }
    }
}

impl Admin {
    /// Lets a known client in, or no more. False: it was so.
    ///
    /// # Errors
    /// As [`Admin::trust_host`].
    pub async fn trust_client(&self, known: KnownClient, trust: bool) -> Result<bool> {
        let mut changed = false;
        for host in known.hosts() {
            changed |= self.trust_host(host, trust).await?;
        }
        let Some(client) = known.prepared() else { return Ok(changed) };
        let found = self.list(&format!("/clients?clientId={}", encode(text(&client, "clientId")))).await?;
        match (found.first(), trust) {
            (None, true) => {
                let doing = format!("add the client {}", known.name());
                self.change(Method::POST, "/clients", Some(&client), &doing).await?;
            }
            (Some(old), false) => {
                let path = format!("/clients/{}", text(old, "id"));
                let doing = format!("remove the client {}", known.name());
                self.change(Method::DELETE, &path, None, &doing).await?;
            }
            _ => return Ok(changed),
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn every_redirect_of_a_prepared_client_is_at_its_hosts() {
        for known in KnownClient::value_variants() {
            assert!(!known.hosts().is_empty());
            let Some(client) = known.prepared() else { continue };
            assert_eq!(
                client["consentRequired"], true,
                "{known:?}: nobody gets a token without the user's yes"
            );
            let redirects = client["redirectUris"].as_array().unwrap();
            for address in redirects.iter().chain([&client["clientId"]]) {
                let url = reqwest::Url::parse(address.as_str().unwrap()).unwrap();
                assert!(known.hosts().contains(&url.host_str().unwrap()), "{known:?}: {url}");
                assert_eq!(url.scheme(), "https");
            }
        }
    }
}
