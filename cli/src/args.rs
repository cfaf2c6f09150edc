//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::gateway::Gateway;
use crate::keycloak::KnownClient;

/// Asgard: MCP servers for an organisation, behind one gateway with single sign-on.
#[derive(Debug, Parser)]
#[command(name = "asgard", version, about, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Install what is missing and start all parts; Ctrl-C stops them
    Up(Up),
    /// Stop all parts
    Down,
    /// Show the parts; exit code 0 when all are ready, degraded ones included
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the log of a part, or the last lines of all
    Logs {
        /// A part, such as backend-1
        part: Option<String>,
        /// Show new lines as they come
        #[arg(short, long)]
        follow: bool,
        /// How many lines
        #[arg(short = 'n', long, default_value_t = 100)]
        lines: usize,
    },
    /// Log in as a sample user and print the access token alone
    Token {
        /// A user, such as thor (the password is the name)
        user: String,
        /// The organisation; default: the user's first
        #[arg(long)]
        org: Option<String>,
    },
    /// Call a tool as a sample user and show its progress and result
    Call(Call),
    /// Give the running gateway what the state file and the hosts say now; open streams through it break
    Reload,
    /// Print the configuration that a gateway is started with, or write it into a folder. It holds secrets
    Render(Render),
    /// Organisations: add, list, remove
    Org {
        /// What to do
        #[command(subcommand)]
        command: OrgCommand,
    },
    /// Users and their memberships: add, remove
    User {
        /// What to do
        #[command(subcommand)]
        command: UserCommand,
    },
    /// Trusted hosts, at which clients may register themselves: add, list, remove
    Host {
        /// What to do
        #[command(subcommand)]
        command: HostCommand,
    },
    /// Notify connected clients: of changed lists, of an updated resource, or with a log message
    Notify(Notify),
    /// Look for what is missing or wrong, and say how to fix it
    Doctor,
    /// Say why a request was refused
    Why {
        /// The request's id: `request_id` in the body of the refusal
        id: String,
    },
    /// Say what a user may use in an organisation, and which rule of the policy says so
    Can {
        /// A user, such as thor (the password is the name)
        user: String,
        /// The organisation
        org: String,
        /// One tool; exit code 0 when the user may call it. Without: all that are known
        tool: Option<String>,
    },
    /// Run the tests, all or the named ones
    Test {
        /// Suites; none: all
        names: Vec<String>,
        /// List the suites
        #[arg(long)]
        list: bool,
        /// The whole of `clients`: every released client, at both entry points
        #[arg(long)]
        all: bool,
    },
    /// Measure what a call costs, with a stack of its own, beside other servers and gateways: see `bench --help`
    #[command(disable_help_flag = true)]
    Bench {
        /// What `bench --help` says
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
        arguments: Vec<String>,
    },
    /// Run the supervisor (what `up -d` starts)
    #[command(hide = true)]
    Supervise(Up),
    /// Stop one part until `start`
    #[command(hide = true)]
    Stop {
        /// The part
        part: String,
    },
    /// Start a part that was stopped, or that waits after its death
    #[command(hide = true)]
    Start {
        /// The part
        part: String,
    },
}

/// What to do with organisations.
#[derive(Debug, Clone, Subcommand)]
pub enum OrgCommand {
    /// Add an organisation, or bring what it lacks
    Add {
        /// Its name in addresses, such as org-3
        name: String,
        /// Its name for people
        #[arg(long)]
        title: Option<String>,
        /// A domain: of its users' addresses, and a host of its own for the gateway. May be given several times
        #[arg(long = "domain", value_name = "DOMAIN")]
        domains: Vec<String>,
        /// The dress of its login pages
        #[arg(long)]
        theme: Option<String>,
    },
    /// List them with their endpoints, domains, themes and members
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove an organisation, or a domain of it
    Remove {
        /// Its name in addresses
        name: String,
        /// Only this domain
        #[arg(long = "domain", value_name = "DOMAIN")]
        domains: Vec<String>,
    },
}

/// What to do with users.
#[derive(Debug, Clone, Subcommand)]
pub enum UserCommand {
    /// Add a user, if there is none of that name, and make them a member
    Add {
        /// The name with which they log in
        name: String,
        /// An organisation. May be given several times
        #[arg(long = "org", value_name = "ORG", required = true)]
        orgs: Vec<String>,
        /// Their mail address
        #[arg(long)]
        email: Option<String>,
        /// First and last name
        #[arg(long = "name", value_name = "FULL NAME")]
        full_name: Option<String>,
        /// Read the password, one line, from standard input; else one is made, which the first login changes
        #[arg(long)]
        password_stdin: bool,
    },
    /// End memberships, or remove a user
    Remove {
        /// The name with which they log in
        name: String,
        /// Only out of this organisation. May be given several times
        #[arg(long = "org", value_name = "ORG")]
        orgs: Vec<String>,
    },
}

/// What to do with trusted hosts.
#[derive(Debug, Clone, Subcommand)]
pub enum HostCommand {
    /// Let clients at a host, or a client that is known by name, register themselves
    Add(Trusted),
    /// List them
    List,
    /// Let them no more
    Remove(Trusted),
}

/// Whom to trust: one of both.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct Trusted {
    /// The host, such as agents.example.org
    pub host: Option<String>,
    /// A client that is known by name: its hosts, and what else it needs
    #[arg(long, value_enum)]
    pub client: Option<KnownClient>,
}

/// How to start.
#[derive(Debug, Clone, Default, Args)]
pub struct Up {
    /// Run in the background; return when all is ready
    #[arg(short, long)]
    pub detach: bool,
    /// The gateway; default: a kong 3.9 found on PATH, else Envoy
    #[arg(long, value_enum)]
    pub gateway: Option<Gateway>,
    /// How many workers (default: the state file's, 2)
    #[arg(long, value_name = "N")]
    pub workers: Option<u16>,
    /// How many backends (default: the state file's, 2)
    #[arg(long, value_name = "N")]
    pub backends: Option<u16>,
    /// Start natively even where a container engine is
    #[arg(long)]
    pub native: bool,
    /// Leave the MCP Inspector out
    #[arg(long)]
    pub no_inspector: bool,
    /// At first use: ports from this one on, or `free` for some free ones (default: 8000 and so on)
    #[arg(long, value_name = "BASE|free")]
    pub ports: Option<String>,
    /// Build nothing: take the programs as they are
    #[arg(long, hide = true)]
    pub no_build: bool,
    /// Only these parts
    #[arg(long, hide = true, value_delimiter = ',')]
    pub only: Vec<String>,
    /// End when this process ends
    #[arg(long, hide = true, value_name = "PID")]
    pub parent: Option<u32>,
}

impl Up {
    /// The arguments that a detached supervisor gets.
    #[must_use]
    pub fn for_supervisor(&self, gateway: Gateway) -> Vec<String> {
        let mut args = vec!["supervise".to_owned(), "--gateway".to_owned(), gateway.name().to_owned()];
        let mut option = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                args.extend([name.to_owned(), value]);
            }
        };
        option("--workers", self.workers.map(|n| n.to_string()));
        option("--backends", self.backends.map(|n| n.to_string()));
        option("--parent", self.parent.map(|n| n.to_string()));
        option("--only", (!self.only.is_empty()).then(|| self.only.join(",")));
        if self.no_inspector {
            args.push("--no-inspector".to_owned());
        }
        args
    }
}

/// What to render.
#[derive(Debug, Clone, Args)]
pub struct Render {
    /// For whom
    #[arg(long = "for", value_enum)]
    pub target: Target,
    /// A folder for the files; default: standard output
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
}

/// For whom a configuration is rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Target {
    /// The containers of docker-compose.yml, by .env, which gets what it lacks
    Compose,
    /// A Kong 3.9 on this machine, by the state file
    Kong,
    /// An Envoy on this machine, by the state file
    Envoy,
}

/// What to call.
#[derive(Debug, Clone, Args)]
pub struct Call {
    /// The tool
    pub tool: String,
    /// An argument; the value is read as the tool's schema says
    #[arg(long = "arg", value_name = "NAME=VALUE")]
    pub args: Vec<String>,
    /// The user
    #[arg(long, default_value = "thor")]
    pub user: String,
    /// The organisation; default: the user's first
    #[arg(long)]
    pub org: Option<String>,
    /// Print the result as JSON and nothing else
    #[arg(long)]
    pub json: bool,
    /// Which entry point: through the gateway, or through Pushpin first
    #[arg(long, value_enum, default_value_t = EntryPoint::Bifrost)]
    pub entry_point: EntryPoint,
}

/// What to tell, and whom; without a choice of whom: everyone.
#[derive(Debug, Clone, Args)]
pub struct Notify {
    /// What to tell
    #[command(subcommand)]
    pub what: News,
    /// All users of this organisation
    #[arg(long, global = true, conflicts_with = "session")]
    pub org: Option<String>,
    /// This user of the organisation, by the subject of its tokens
    #[arg(long, global = true, requires = "org")]
    pub subject: Option<String>,
    /// One session, by its Mcp-Session-Id
    #[arg(long, global = true)]
    pub session: Option<String>,
}

/// What an operator can announce.
#[derive(Debug, Clone, Subcommand)]
pub enum News {
    /// The list of tools has changed
    Tools,
    /// The list of prompts has changed
    Prompts,
    /// The list of resources has changed
    Resources,
    /// A resource has new content
    Resource {
        /// Its URI
        uri: String,
    },
    /// A log message, for sessions
    Log {
        /// The message
        text: String,
        /// debug, info, notice, warning, error, critical, alert or emergency
        #[arg(long, default_value = "info")]
        level: String,
    },
    /// Nothing: end the streams. Clients may connect again
    Close,
}

/// The two entry points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum EntryPoint {
    /// The gateway is the edge.
    Bifrost,
    /// Pushpin is the edge.
    Hermod,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let cli =
            Cli::try_parse_from(["asgard", "call", "report", "--arg", "steps=3", "--user", "freya"]).unwrap();
        assert!(
            matches!(cli.command, Command::Call(call) if call.user == "freya" && call.args == ["steps=3"])
        );
    }

    #[test]
    fn all_that_follows_bench_is_its_own() {
        let cli = Cli::try_parse_from(["asgard", "bench", "--help", "--only", "quick", "plain"]).unwrap();
        let Command::Bench { arguments } = cli.command else { panic!("not bench") };
        assert_eq!(arguments, ["--help", "--only", "quick", "plain"]);
    }

    #[test]
    fn a_host_or_a_client_is_trusted() {
        let parse = |args: &[&str]| Cli::try_parse_from(["asgard", "host", "add"].iter().chain(args));
        for good in [&["a.example"][..], &["--client", "vscode"], &["--client", "chatgpt"]] {
            assert!(parse(good).is_ok(), "{good:?}");
        }
        for bad in [&[][..], &["a.example", "--client", "cursor"], &["--client", "somebody"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_detached_supervisor_gets_the_same_arguments() {
        let Command::Up(up) = Cli::try_parse_from([
            "asgard",
            "up",
            "-d",
            "--workers",
            "3",
            "--only",
            "redis,pushpin",
            "--no-inspector",
            "--parent",
            "7",
        ])
        .unwrap()
        .command
        else {
            panic!("not up")
        };
        let args = up.for_supervisor(Gateway::Envoy);
        let Command::Supervise(again) =
            Cli::try_parse_from(std::iter::once("asgard".to_owned()).chain(args)).unwrap().command
        else {
            panic!("not supervise")
        };
        assert_eq!(
            (again.workers, again.only.len(), again.no_inspector, again.parent, again.gateway),
            (Some(3), 2, true, Some(7), Some(Gateway::Envoy))
        );
    }
}
