//! What calls and the gateway's filter cost, beside their peers in the same run.
//!
//! `filter` and `tokens`: see [`filter`]. `quick` calls the tool `echo` through each entry point of a running stack (`./asgard up -d`) and at a plain rmcp
//! server that this program starts, in turns, and prints the median latency at concurrency 1, the rate at a
//! higher concurrency, and the CPU time that each part spent on a call (from /proc). The figures of one run
//! compare with each other, not with another run's.

mod cpu;
mod filter;
mod load;
mod plain;
mod stack;

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A plain rmcp server with the same tool; the peer.
    Plain {
        #[arg(long, default_value = "127.0.0.1:24900")]
        listen: String,
    },
    /// Measure a request with a known token: our filter beside Envoy's own, in Envoy.
    Filter(filter::Cost),
    /// Measure the filter's memory with many tokens, and its cache's hit rate.
    Tokens(filter::Tokens),
    /// Measure a quick call at both entry points beside the plain server.
    Quick {
        /// Calls in each round at concurrency 1.
        #[arg(long, default_value_t = 500)]
        calls: usize,
        /// Calls in each round at the higher concurrency.
        #[arg(long, default_value_t = 2000)]
        many: usize,
        /// The higher concurrency.
        #[arg(long, default_value_t = 16)]
        concurrency: usize,
        /// Rounds; medians of them are printed.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// The `asgard` program.
        #[arg(long, default_value = "./asgard")]
        asgard: String,
        /// Port of the plain server.
        #[arg(long, default_value_t = 24900)]
        plain_port: u16,
    },
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Plain { listen } => plain::serve(&listen).await,
        Command::Filter(options) => filter::cost(&options).await,
        Command::Tokens(options) => filter::tokens(&options).await,
        Command::Quick { calls, many, concurrency, rounds, asgard, plain_port } => {
            quick(calls, many, concurrency, rounds, &asgard, plain_port).await
        }
    }
}

struct Target {
    name: &'static str,
    url: String,
    token: Option<String>,
    /// Part and the processes that it consists of.
    parts: Vec<(String, Vec<u32>)>,
    single: Vec<load::Round>,
    loaded: Vec<load::Round>,
}

async fn quick(
    calls: usize,
    many: usize,
    concurrency: usize,
    rounds: usize,
    asgard: &str,
    plain_port: u16,
) -> Result<()> {
    let plain = format!("127.0.0.1:{plain_port}");
    let mut server = tokio::process::Command::new(std::env::current_exe()?)
        .args(["plain", "--listen", &plain])
        .kill_on_drop(true)
        .spawn()?;
    let server_pid = server.id().ok_or("the plain server ended at once")?;
    let stack = stack::read(asgard).await?;
    let token = Some(stack::token(asgard).await?);
    let target =
        |name, url, token, parts| Target { name, url, token, parts, single: Vec::new(), loaded: Vec::new() };
    let mut targets = vec![
        target(
            "plain rmcp, direct",
            format!("http://{plain}/mcp"),
            None,
            vec![("server".to_owned(), vec![server_pid])],
        ),
        target(
            "bifrost",
            format!("http://{}/api/v1/mcp/org-1", stack.address("gateway")?),
            token.clone(),
            stack.parts(),
        ),
        target(
            "hermod",
            format!("http://{}/api/v1/mcp/org-1", stack.address("pushpin")?),
            token,
            stack.parts(),
        ),
    ];
    for target in &targets {
        load::run(&target.url, target.token.as_deref(), 50, 4).await?;
    }
    for _ in 0..rounds {
        for target in &mut targets {
            let round = load::measured(&target.url, target.token.as_deref(), calls, 1, &target.parts).await?;
            target.single.push(round);
            let round =
                load::measured(&target.url, target.token.as_deref(), many, concurrency, &target.parts)
                    .await?;
            target.loaded.push(round);
        }
    }
    server.kill().await?;
    report(&targets, concurrency);
    Ok(())
}

fn report(targets: &[Target], concurrency: usize) {
    println!(
        "| path | c=1: p50 ms | c={concurrency}: calls/s, p50 ms | CPU of all parts, µs a call at c=1 / c={concurrency} |"
    );
    println!("|---|---|---|---|");
    for target in targets {
        println!(
            "| {} | {:.2} | {:.0}, {:.2} | {:.0} / {:.0} |",
            target.name,
            load::median(target.single.iter().map(|round| round.p50)),
            load::median(target.loaded.iter().map(|round| round.rate)),
            load::median(target.loaded.iter().map(|round| round.p50)),
            load::median(target.single.iter().map(load::Round::cpu)),
            load::median(target.loaded.iter().map(load::Round::cpu)),
        );
    }
    println!("\n| path | part | CPU µs a call at c=1 | at c={concurrency} |");
    println!("|---|---|---|---|");
    for target in targets {
        for (index, (part, _)) in target.parts.iter().enumerate() {
            let of = |rounds: &[load::Round]| {
                load::median(rounds.iter().filter_map(|round| round.parts.get(index).copied()))
            };
            println!("| {} | {part} | {:.0} | {:.0} |", target.name, of(&target.single), of(&target.loaded));
        }
    }
}
