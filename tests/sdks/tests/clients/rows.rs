//! The released clients that are tried, and what each can do: the table in `docs/clients.md`.

/// A released client in one of its modes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// What it is, in Markdown.
    pub(crate) name: &'static str,
    /// Its version, as its environment pins it.
    pub(crate) version: &'static str,
    /// Its environment in `environments`.
    pub(crate) environment: &'static str,
    /// The script in `clients` that drives it, and what that gets as its last argument.
    pub(crate) script: [&'static str; 2],
    /// Over Streamable HTTP.
    pub(crate) http: Speaks,
    /// Over HTTP+SSE.
    pub(crate) sse: Speaks,
    /// Whether it gives its caller the progress of a call.
    pub(crate) progress: bool,
    /// How it gets a token for itself.
    pub(crate) oauth: OAuth,
}

/// What a client does over a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// It agrees on this revision.
    Revision(&'static str),
    /// It works, and tells its caller no revision.
    Untold,
    /// It does not have the transport.
    Not,
}

/// How a client gets a token for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OAuth {
    /// It finds the authorization server, registers itself, and sends its user there.
    Registers,
    /// It tries, and fails.
    Fails {
        /// What it says then.
        says: &'static str,
        /// Why, and whose it is; a sentence of `docs/clients.md`.
        why: &'static str,
    },
    /// It can't register itself. With a client that somebody has registered it logs in, and then sends each of its
    /// requests twice.
    Twice {
        /// What it says when it registers.
        says: &'static str,
        /// Why, and whose it is; a sentence of `docs/clients.md`.
        why: &'static str,
    },
    /// It takes tokens only.
    Not,
}

use OAuth::{Fails, Registers, Twice};
use Speaks::{Not, Revision, Untold};

const fn python(
    version: &'static str,
    environment: &'static str,
    http: &'static str,
    sse: &'static str,
    oauth: OAuth,
) -> Row {
    Row {
        name: "Python `mcp`",
        version,
        environment,
        script: ["with_mcp.py", ""],
        http: Revision(http),
        sse: Revision(sse),
        progress: true,
        oauth,
    }
}

const fn typescript(version: &'static str, environment: &'static str, revision: Speaks, oauth: OAuth) -> Row {
    Row {
        name: "TypeScript `@modelcontextprotocol/sdk`",
        version,
        environment,
        script: ["with_sdk.mjs", "sdk"],
        http: revision,
        sse: revision,
        progress: true,
        oauth,
    }
}

const MODES: &str = "Python 1.9: its reader of the authorization server's metadata refuses Keycloak's \
    `response_modes_supported` (it knows two modes) and the algorithms beside it.";
const TYPES: &str = "Python 1.12: it knows one response type, and Keycloak answers a registration with \
    `[\"code\", \"none\"]`. With a client that was registered beforehand it logs in, but sends each request twice \
    (`client/auth.py`, the end of `async_auth_flow`), so each tool runs twice.";

/// All of them.
pub(crate) const ROWS: &[Row] = &[
    python(
        "1.9.4",
        "python-1.9",
        "2025-03-26",
        "2025-03-26",
        Fails { says: "Registration failed: 404", why: MODES },
    ),
    python(
        "1.12.4",
        "python-1.12",
        "2025-06-18",
        "2025-06-18",
        Twice { says: "Invalid registration response", why: TYPES },
    ),
    python("1.30.0", "python-1.30", "2025-11-25", "2025-11-25", Registers),
    python("2.3.0", "python-2", "2026-07-28", "2025-11-25", Registers),
    typescript("1.10.2", "typescript-1.10", Untold, Registers),
    typescript("1.15.1", "typescript-1.15", Revision("2025-06-18"), Registers),
    typescript("1.20.2", "typescript-1.20", Revision("2025-06-18"), Registers),
    typescript("1.24.3", "typescript-1.24", Revision("2025-11-25"), Registers),
    typescript("1.32.2", "typescript-2", Revision("2025-11-25"), Registers),
    Row {
        name: "TypeScript `@modelcontextprotocol/client`",
        script: ["with_sdk.mjs", "client"],
        ..typescript("2.4.0", "typescript-2", Revision("2025-11-25"), Registers)
    },
    Row {
        name: "the same with `versionNegotiation: { mode: 'auto' }`",
        script: ["with_sdk.mjs", "client-auto"],
        http: Revision("2026-07-28"),
        ..typescript("2.4.0", "typescript-2", Revision("2025-11-25"), Registers)
    },
    Row {
        name: "FastMCP",
        script: ["with_fastmcp.py", ""],
        ..python("2.14.7", "fastmcp-2", "2025-11-25", "2025-11-25", Registers)
    },
    Row {
        name: "FastMCP",
        script: ["with_fastmcp.py", ""],
        ..python("4.2.3", "fastmcp-4", "2026-07-28", "2025-11-25", Registers)
    },
    Row {
        name: "`openai-agents` (`MCPServerStreamableHttp`, `MCPServerSse`)",
        version: "0.24.0",
        environment: "openai-agents",
        script: ["with_agents.py", ""],
        http: Untold,
        sse: Untold,
        progress: false,
        oauth: Registers,
    },
    Row {
        name: "`pydantic-ai` (`MCPToolset`)",
        version: "2.68.0",
        environment: "pydantic-ai",
        script: ["with_pydantic_ai.py", ""],
        http: Untold,
        sse: Untold,
        progress: true,
        oauth: Registers,
    },
    Row {
        name: "`langchain-mcp-adapters`",
        version: "0.3.2",
        environment: "langchain",
        script: ["with_langchain.py", ""],
        http: Untold,
        sse: Untold,
        progress: true,
        oauth: Registers,
    },
    Row {
        name: "`mcp-remote`",
        version: "0.1.38",
        environment: "mcp-remote-0.1",
        script: ["with_remote.mjs", ""],
        http: Revision("2025-11-25"),
        sse: Revision("2025-11-25"),
        progress: true,
        oauth: Registers,
    },
    Row {
        name: "`mcp-remote`",
        version: "0.15.1",
        environment: "mcp-remote-0.15",
        script: ["with_remote.mjs", ""],
        http: Revision("2025-11-25"),
        sse: Revision("2025-11-25"),
        progress: true,
        oauth: Registers,
    },
    Row {
        name: "Vercel's `ai` (`experimental_createMCPClient`)",
        version: "4.3.19",
        environment: "vercel-ai-4",
        script: ["with_vercel.mjs", "ai"],
        http: Not,
        sse: Untold,
        progress: false,
        oauth: OAuth::Not,
    },
    Row {
        name: "Vercel's `@ai-sdk/mcp`",
        version: "1.0.0",
        environment: "vercel-1",
        script: ["with_vercel.mjs", "@ai-sdk/mcp"],
        http: Untold,
        sse: Untold,
        progress: false,
        oauth: Registers,
    },
    Row {
        name: "Vercel's `@ai-sdk/mcp`",
        version: "2.0.99",
        environment: "vercel-2",
        script: ["with_vercel.mjs", "@ai-sdk/mcp"],
        http: Revision("2026-07-28"),
        sse: Revision("2025-11-25"),
        progress: false,
        oauth: Registers,
    },
];

impl Row {
    /// What it is called in the tests' output.
    pub(crate) fn title(&self) -> String {
        format!("{} {}", self.name.replace('`', ""), self.version)
    }

    /// Its line in the table of `docs/clients.md`.
    pub(crate) fn line(&self) -> String {
        let speaks = |speaks: Speaks| match speaks {
            Revision(revision) => revision,
            Untold => "yes",
            Not => "does not have it",
        };
        let oauth = match self.oauth {
            Registers => "registers itself",
            Fails { .. } | Twice { .. } => "no (below)",
            OAuth::Not => "takes a token",
        };
        let progress = if self.progress { "yes" } else { "no" };
        format!(
            "| {} | {} | {} | {} | {progress} | {oauth} |",
            self.name,
            self.version,
            speaks(self.http),
            speaks(self.sse)
        )
    }
}
