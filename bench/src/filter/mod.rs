//! What the gateway's filter costs, with Envoy as the host.

mod envoy;
mod issuer;
mod requests;
mod tokens;

use std::path::Path;

use serde_json::{Value, json};

use crate::cells::{Context, Found};
use crate::cpu::{self, Part};
use crate::mcp::{Call, Endpoint};
use crate::report::{Figure, Goal};
use crate::{Result, progress, wire};

use self::envoy::Site;
pub use self::envoy::{Envoy, Kind};
use self::issuer::{Algorithm, Issuer, PUBLIC_URL};
pub use self::tokens::run as tokens;

/// The keys of the assertion that the filter passes on, for a backend behind it.
pub const ASSERTION_KEYS: &str = "bench:c2VjcmV0LW9mLWF0LWxlYXN0LTMyLWJ5dGVzLWhlcmUh";

/// A module that makes the calls into the host that ours makes, and does nothing else.
const BARE: &str = include_str!("../../bare.wat");

/// Connections at once.
const CONNECTIONS: usize = 8;

/// The issuer's and a backend's servers, and where Envoy's files go.
pub struct Around {
    issuer: Issuer,
    jwks: String,
    jwks_port: u16,
    backend_port: u16,
    folder: tempfile::TempDir,
}

impl Around {
    /// Starts the servers.
    pub async fn start() -> Result<Self> {
        let issuer = Issuer::new()?;
        let jwks = issuer.jwks();
        let jwks_port = wire::serve(&jwks).await?;
        let backend_port = wire::serve(r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#).await?;
        Ok(Self { issuer, jwks, jwks_port, backend_port, folder: tempfile::tempdir()? })
    }

    /// What an Envoy before a backend at this port is made of; `settings` change our filter's configuration.
    pub fn site<'a>(
        &'a self,
        program: &'a Path,
        wasm: &'a Path,
        backend_port: u16,
        settings: Value,
    ) -> Site<'a> {
        let folder = self.folder.path();
        let (jwks, jwks_port) = (self.jwks.as_str(), self.jwks_port);
        Site { program, wasm, folder, jwks, jwks_port, backend_port, settings }
    }

    /// A user's token, signed as Keycloak does.
    pub fn token(&self) -> String {
        self.issuer.token(Algorithm::Rsa, 1)
    }

    /// A tool call with this token, as a client of the current revision sends it.
    fn request(&self, token: String) -> Result<Vec<u8>> {
        let endpoint = Endpoint::new("Envoy", &format!("{PUBLIC_URL}/api/v1/mcp/org-1"))?;
        Ok(Call::echo().modern(&endpoint.with_token(Some(token))))
    }
}

/// The cell `filter`: CPU time of Envoy for a request whose token is in the cache, with our filter, with Envoy's own
/// `jwt_authn`, with none, and with a module that does nothing.
pub async fn cost(context: &Context) -> Result<Found> {
    let around = Around::start().await?;
    let stack = context.stack().await?;
    let (program, wasm) = (stack.program("gateway").await?, stack.filter());
    let bare = around.folder.path().join("bare.wasm");
    std::fs::write(&bare, wat::parse_str(BARE)?)?;
    let one_header = json!({"userinfo": false});
    let variants = [
        ("no filter", Kind::Nothing, wasm.as_path(), json!({})),
        ("jwt_authn", Kind::JwtAuthn, &wasm, json!({})),
        ("the bare module", Kind::Ours, &bare, one_header.clone()),
        // The claims in one header, as `jwt_authn` passes them on.
        ("our filter, one header about the caller", Kind::Ours, &wasm, one_header),
        ("our filter as it comes, X-Userinfo beside it", Kind::Ours, &wasm, json!({})),
    ];
    let request = around.request(around.token())?;
    let (starts, rounds) = context.options.sized((7, 40), (1, 3));
    let requests = 400;
    // One figure a round: µs of CPU a request.
    let mut figures: Vec<Vec<f64>> = vec![Vec::new(); variants.len()];
    // Where a process happens to lie in memory makes a difference of several percent: all are started anew.
    for start in 1..=starts {
        progress(&format!("start {start} of {starts}"));
        let mut envoys = Vec::new();
        for (_, kind, wasm, settings) in &variants {
            let site = around.site(&program, wasm, around.backend_port, settings.clone());
            envoys.push(Envoy::start(*kind, &site).await?);
        }
        for envoy in &envoys {
            requests::same(envoy.port, 2000, CONNECTIONS, &request).await?;
        }
        for number in 0..rounds {
            // Each round begins with another variant.
            for offset in 0..envoys.len() {
                let index = (number + offset) % envoys.len();
                let part = Part::new("envoy", envoys[index].pid);
                let before = part.usage();
                requests::same(envoys[index].port, requests, CONNECTIONS, &request).await?;
                figures[index].push(cpu_each(&part, &before, requests));
            }
        }
    }
    let mut found = Found::default();
    for ((name, ..), figures) in variants.iter().zip(&figures) {
        found.figures.push(Figure::median(&format!("Envoy with {name}: CPU"), "µs a request", figures));
    }
    for (_, ((name, ..), own)) in variants.iter().zip(&figures).enumerate().filter(|(index, _)| *index != 1) {
        found.figures.push(Figure::ratio(&format!("{name}, of jwt_authn"), own, &figures[1]));
    }
    let last = found.figures.pop().map(|figure| figure.with_goal(Goal::AtMost(1.15)));
    found.figures.extend(last);
    let what = "our filter as it comes, of the bare module";
    found.figures.push(Figure::ratio(what, &figures[4], &figures[2]).with_goal(Goal::AtMost(1.04)));
    Ok(found)
}

/// CPU time since then, in µs a request.
fn cpu_each(part: &Part, before: &cpu::Usage, requests: usize) -> f64 {
    part.usage().since(before).as_secs_f64() * 1e6 / requests as f64
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_bare_module_is_a_module() {
        assert!(wat::parse_str(super::BARE).unwrap().starts_with(b"\0asm"));
    }
}
