//! What the gateway's filter costs, with Envoy as the host.
//!
//! `filter`: CPU time of Envoy for a request whose token is in the cache, with our filter, with Envoy's own
//! `jwt_authn`, and with none; in turns, in one run. `tokens`: the filter's memory while many different tokens
//! pass, and how often its cache knows a token when some users call much more than others.

mod envoy;
mod issuer;
mod tokens;
mod wire;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use self::envoy::{Envoy, Kind, Site};
use self::issuer::{Algorithm, Issuer};
use crate::{Result, cpu};

pub use self::tokens::{Tokens, tokens};

/// What both measurements take.
#[derive(Args)]
pub struct Programs {
    /// The `envoy` program.
    #[arg(long, env = "ASGARD_ENVOY", default_value = "envoy")]
    envoy: PathBuf,
    /// The filter's module (scripts/build-filter).
    #[arg(long, default_value = "../target/wasm/kong_filter.wasm")]
    wasm: PathBuf,
}

/// Measures a request with a cached token.
#[derive(Args)]
pub struct Cost {
    #[command(flatten)]
    programs: Programs,
    /// Other modules to measure in the same run, with one header about the caller.
    #[arg(long)]
    beside: Vec<PathBuf>,
    /// Requests in each round.
    #[arg(long, default_value_t = 400)]
    requests: usize,
    /// Rounds; each runs all variants, one after the other.
    #[arg(long, default_value_t = 60)]
    rounds: usize,
    /// How often all Envoys are started anew, for that many rounds each: where a process happens to lie in
    /// memory makes a difference of several percent.
    #[arg(long, default_value_t = 7)]
    starts: usize,
    /// Connections at once.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Fail when the median of our filter's CPU time, with one header about the caller, is more than so many times
    /// `jwt_authn`'s.
    #[arg(long)]
    at_most: Option<f64>,
}

/// The issuer's and the backend's servers, and where Envoy's files go.
struct Around {
    issuer: Issuer,
    jwks: String,
    jwks_port: u16,
    backend_port: u16,
    folder: tempfile::TempDir,
}

impl Around {
    async fn start() -> Result<Self> {
        let issuer = Issuer::new()?;
        let jwks = issuer.jwks();
        let jwks_port = wire::serve(&jwks).await?;
        let backend_port = wire::serve(r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#).await?;
        Ok(Self { issuer, jwks, jwks_port, backend_port, folder: tempfile::tempdir()? })
    }

    fn site<'a>(&'a self, programs: &'a Programs, wasm: &'a Path) -> Site<'a> {
        Site {
            program: &programs.envoy,
            wasm,
            folder: self.folder.path(),
            jwks: &self.jwks,
            jwks_port: self.jwks_port,
            backend_port: self.backend_port,
            settings: json!({}),
        }
    }
}

/// Runs the measurement and prints it.
pub async fn cost(options: &Cost) -> Result<()> {
    let around = Around::start().await?;
    let token = around.issuer.token(Algorithm::Rsa, 1);
    let request: Arc<[u8]> = issuer::request(&token).into();
    let wasm = std::fs::canonicalize(&options.programs.wasm)?;
    let mut variants = vec![
        ("no filter".to_owned(), Kind::Nothing, wasm.as_path(), json!({})),
        ("Envoy's jwt_authn".to_owned(), Kind::JwtAuthn, &wasm, json!({})),
        // The claims in one header, as `jwt_authn` passes them on.
        ("our filter, one header about the caller".to_owned(), Kind::Ours, &wasm, json!({"userinfo": false})),
        ("our filter, X-Userinfo beside it".to_owned(), Kind::Ours, &wasm, json!({})),
    ];
    variants.extend(
        options
            .beside
            .iter()
            .map(|wasm| (wasm.display().to_string(), Kind::Ours, wasm.as_path(), json!({"userinfo": false}))),
    );
    let next: Arc<dyn Fn(usize) -> Arc<[u8]> + Send + Sync> = Arc::new(move |_| request.clone());
    // One row a round, one figure a variant: µs of CPU a request.
    let mut rounds: Vec<Vec<f64>> = Vec::new();
    for _ in 0..options.starts {
        let mut envoys = Vec::new();
        for (_, kind, wasm, settings) in &variants {
            let site = Site { settings: settings.clone(), ..around.site(&options.programs, wasm) };
            envoys.push(Envoy::start(*kind, &site).await?);
        }
        for envoy in &envoys {
            wire::run(envoy.port, 2000, options.connections, next.clone()).await?;
        }
        for number in 0..options.rounds {
            let mut row = vec![f64::NAN; envoys.len()];
            // Each round begins with another variant.
            for offset in 0..envoys.len() {
                let index = (number + offset) % envoys.len();
                let Some((envoy, cell)) = envoys.get(index).zip(row.get_mut(index)) else { continue };
                let before = cpu::precise(envoy.pid);
                wire::run(envoy.port, options.requests, options.connections, next.clone()).await?;
                *cell = (cpu::precise(envoy.pid) - before).as_secs_f64() * 1e6 / options.requests as f64;
            }
            rounds.push(row);
        }
    }
    println!(
        "token of {} bytes, {} starts, {} rounds of {} requests each on {} connections; Envoy with one worker\n",
        token.len(),
        options.starts,
        options.rounds,
        options.requests,
        options.connections
    );
    println!("| Envoy with | CPU a request, µs: median (quartiles) | of jwt_authn: median (quartiles) |");
    println!("|---|---|---|");
    let mut ours = f64::NAN;
    for (index, (name, ..)) in variants.iter().enumerate() {
        let own = quartiles(rounds.iter().map(|row| row[index]));
        let ratio = quartiles(rounds.iter().map(|row| row[index] / row[1]));
        if index == 2 {
            ours = ratio[1];
        }
        println!(
            "| {} | {:.1} ({:.1} to {:.1}) | {:.3} ({:.3} to {:.3}) |",
            name, own[1], own[0], own[2], ratio[1], ratio[0], ratio[2]
        );
    }
    match options.at_most {
        Some(most) if ours.is_nan() || ours > most => {
            Err(format!("our filter takes {ours:.3} times the CPU of jwt_authn, more than {most}").into())
        }
        _ => Ok(()),
    }
}

/// Lower quartile, median, upper quartile.
fn quartiles(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = |quarters: usize| values.get(values.len().saturating_sub(1) * quarters / 4).copied();
    [1, 2, 3].map(|quarters| at(quarters).unwrap_or(f64::NAN))
}
