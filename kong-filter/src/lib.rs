//! Bifrost's filter: it makes the MCP servers behind a gateway OAuth 2.1 protected resources.
//!
//! A proxy-wasm module for Kong 3.9 and for Envoy. It verifies the bearer token, checks that it is for
//! the organisation that the path names, answers what is refused with the challenges that MCP clients
//! expect, serves the protected resource metadata, and tells the backend who calls by a signed
//! assertion. `README.md` beside it is the reference of its configuration.
//!
//! All decisions are in pure code ([`filter`] and what it uses), which also compiles natively; only
//! [`host`] talks to the gateway.

pub mod cache;
pub mod checks;
pub mod config;
pub mod filter;
// Unit tests in WebAssembly have no gateway.
#[cfg(not(all(target_family = "wasm", test)))]
pub mod host;
pub mod introspect;
pub mod jwks;
pub mod jwt;
pub mod keys;
pub mod metadata;
pub mod pairs;
pub mod recent;
pub mod reply;
pub mod request;
pub mod shared;
pub mod sites;
pub mod tokens;
pub mod tree;
pub mod userinfo;

#[cfg(all(target_family = "wasm", not(test)))]
mod entry {
    proxy_wasm::main! {{
        proxy_wasm::set_root_context(|_| Box::new(crate::host::Root::new()));
    }}
}
