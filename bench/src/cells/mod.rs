//! The cells: each asks one question. They need stacks and peers, which are started when the first one asks.

mod flood;
mod one_process;
mod quick;
mod slow;
mod store;
mod streams;
mod workers;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use tokio::sync::OnceCell;

use crate::args::Options;
use crate::cpu::Part;
use crate::load::{self, Round, Shape};
use crate::mcp::{Call, Endpoint};
use crate::report::{Cell, Figure, Path};
use crate::site::plain;
use crate::site::process::Process;
use crate::site::stack::Stack;
use crate::{Result, progress};

/// What a cell found.
#[derive(Default)]
pub struct Found {
    pub paths: Vec<Path>,
    pub figures: Vec<Figure>,
}

impl Found {
    fn figure(&mut self, figure: Figure) {
        self.figures.push(figure);
    }
}

type Running<'a> = Pin<Box<dyn Future<Output = Result<Found>> + 'a>>;

/// A cell.
pub struct Spec {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it measures.
    pub about: &'static str,
    /// Whether `--quick` has it.
    pub quick: bool,
    run: for<'a> fn(&'a Context) -> Running<'a>,
}

macro_rules! cells {
    ($($name:literal, $quick:literal, $run:path, $about:literal;)+) => {
        /// All cells.
        pub const CELLS: &[Spec] = &[$(Spec { name: $name, about: $about, quick: $quick, run: |context| Box::pin($run(context)) }),+];
    };
}

cells! {
    "quick", true, quick::loaded, "a quick call through the whole stack, 32 at once: CPU of each part, calls a second";
    "latency", true, quick::alone, "a quick call through the whole stack, one at a time";
    "hermod", false, quick::hermod, "a quick call whose client comes to Pushpin instead of the gateway";
    "one-process", true, one_process::run, "a backend with an embedded worker, alone and behind Envoy with our filter";
    "stateless", true, store::stateless, "a quick call without a session: Redis commands, what is left there, Redis stopped";
    "session", true, store::session, "a quick call of a session: Redis commands, CPU, Redis stopped";
    "rest", true, store::rest, "sessions at rest: bytes in Redis and in the backends";
    "filter", true, crate::filter::cost, "our filter in Envoy beside Envoy's own token check, with a known token";
    "tokens", false, crate::filter::tokens, "the filter with many different tokens: memory, and what its cache knows";
    "slow", true, slow::call, "a slow call: handed over, held, ten events, the result; CPU of each part";
    "events", true, slow::events, "10,000 events of one call through Pushpin";
    "publish", true, streams::publish, "5,000 items a second over 1,000 streams through Pushpin: lost, delay";
    "broadcast", true, streams::broadcast, "one notice to 5,000 listeners: sends, time";
    "held", true, streams::held, "10,000 held streams on one backend: memory, CPU while they idle";
    "workers", true, workers::scale, "a tool that computes, with one worker and with two, each held to half a core";
    "start", true, workers::cold, "a backend and a worker: from exec to ready";
    "flood", true, flood::run, "org-2's quick calls during a flood of org-1";
}

/// The cell that `--target` has.
pub const TARGET: Spec = Spec {
    name: "target",
    about: "a quick call at one endpoint, beside the plain server",
    quick: true,
    run: |context| Box::pin(quick::target(context)),
};

/// What cells have in common.
pub struct Context {
    pub options: Options,
    plain: OnceCell<(Process, Endpoint)>,
    stack: OnceCell<Stack>,
    before: OnceCell<Stack>,
}

impl Context {
    pub fn new(options: Options) -> Self {
        Self { options, plain: OnceCell::new(), stack: OnceCell::new(), before: OnceCell::new() }
    }

    /// The plain server.
    pub async fn plain(&self) -> Result<&Endpoint> {
        Ok(&self.plain.get_or_try_init(plain::start).await?.1)
    }

    /// The stack of this checkout.
    pub async fn stack(&self) -> Result<&Stack> {
        let root = std::env::var_os("ASGARD_ROOT").ok_or("run this by ./asgard bench")?;
        let start = || Stack::start("Asgard", root.as_ref(), &self.options.gateway);
        self.stack.get_or_try_init(start).await
    }

    /// The stack of the older checkout, if there is one.
    pub async fn before(&self) -> Result<Option<&Stack>> {
        let Some(checkout) = &self.options.before else { return Ok(None) };
        let start = || Stack::start("Asgard, before", checkout, &self.options.gateway);
        Ok(Some(self.before.get_or_try_init(start).await?))
    }

    /// Ends the stacks.
    pub async fn end(&self) {
        for stack in [self.stack.get(), self.before.get()].into_iter().flatten() {
            if let Err(error) = stack.down().await {
                progress(&format!("{error}"));
            }
        }
    }

    /// The peers of the command line.
    pub fn peers(&self) -> Result<Vec<Endpoint>> {
        let Options { peers, peer_tokens, peer_pids, .. } = &self.options;
        for (name, _) in peer_tokens.iter().chain(peer_pids) {
            if !peers.iter().any(|(peer, _)| peer == name) {
                return Err(format!("there is no --peer {name}=URL").into());
            }
        }
        let tokens: HashMap<&String, &String> =
            peer_tokens.iter().map(|(name, token)| (name, token)).collect();
        peers
            .iter()
            .map(|(name, url)| {
                let pids: std::result::Result<Vec<u32>, _> =
                    peer_pids.iter().filter(|(peer, _)| peer == name).map(|(_, pid)| pid.parse()).collect();
                let pids = pids.map_err(|_| format!("--peer-pid {name}: a process has a number"))?;
                let parts = (!pids.is_empty()).then(|| Part { name: "peer".to_owned(), pids });
                let token = tokens.get(name).map(|token| (*token).clone());
                Ok(Endpoint::new(name, url)?.with_token(token).with_parts(parts.into_iter().collect()))
            })
            .collect()
    }

    /// The call that is made at endpoints of the command line.
    pub fn foreign_call(&self) -> Result<Call> {
        let arguments: serde_json::Value = serde_json::from_str(&self.options.arguments)
            .map_err(|error| format!("--arguments is not JSON: {error}"))?;
        let usual = Call::echo();
        // Of another tool's answer nothing is known but that it has a result.
        let known = self.options.tool == usual.tool && arguments == usual.arguments;
        Ok(if known { usual } else { Call::new(&self.options.tool, arguments, "\"result\"") })
    }

    /// Rounds of all contestants in turns, every other time in the opposite order; the rounds of each.
    pub async fn in_turns(&self, contestants: &[Contestant]) -> Result<Vec<Vec<Round>>> {
        let mut rounds: Vec<Vec<Round>> = contestants.iter().map(|_| Vec::new()).collect();
        let total = self.options.rounds();
        for number in 0..total {
            let mut order: Vec<usize> = (0..contestants.len()).collect();
            if number % 2 == 1 {
                order.reverse();
            }
            for index in order {
                let Contestant { endpoint, call, shape } = &contestants[index];
                progress(&format!("round {} of {total}: {}", number + 1, endpoint.name));
                rounds[index].push(load::round(endpoint, call, shape).await?);
            }
        }
        Ok(rounds)
    }
}

/// Whom to measure in turns, and how.
pub struct Contestant {
    pub endpoint: Endpoint,
    pub call: Call,
    pub shape: Shape,
}

impl Contestant {
    /// One that gets the quick call.
    pub fn quick(endpoint: Endpoint, shape: Shape) -> Self {
        Self { endpoint, call: Call::echo(), shape }
    }

    /// What its rounds cost.
    pub fn path(&self, rounds: &[Round]) -> Path {
        Path::of(&self.endpoint, self.shape.connections, rounds)
    }
}

/// One figure of each round.
pub fn each(rounds: &[Round], figure: impl Fn(&Round) -> f64) -> Vec<f64> {
    rounds.iter().map(figure).collect()
}

/// Runs a cell.
pub async fn run(context: &Context, spec: &Spec) -> Cell {
    let started = Instant::now();
    let outcome = (spec.run)(context).await;
    let (found, failed) = match outcome {
        Ok(found) => (found, None),
        Err(error) => (Found::default(), Some(error.to_string())),
    };
    Cell {
        name: spec.name.to_owned(),
        about: spec.about.to_owned(),
        seconds: started.elapsed().as_secs_f64(),
        failed,
        paths: found.paths,
        figures: found.figures,
    }
}
