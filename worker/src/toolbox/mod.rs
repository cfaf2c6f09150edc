//! The stock toolbox: a small MCP server over a real data set, with a tool for each kind of work that the
//! worker runtime has to carry: quick and slow, with progress and quiet, harmless and not to be repeated,
//! and one that asks the user.

mod journal;
mod notes;
mod plan;
mod run;
mod tools;
mod weather;

use std::{collections::HashMap, env, io, path::PathBuf, sync::Mutex};

use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    handler::server::{router::tool::ToolRouter, tool::ToolCallContext},
    model::{CallToolRequestParams, CallToolResponse, Implementation, ServerCapabilities, ServerConfig},
    service::RequestContext,
    tool_handler,
};

pub use journal::{Event, Journal};
pub use notes::Note;
pub use plan::Plan;
pub use tools::{Counted, Echoed, Notes, Ranking, Report, Who};
pub use weather::{Day, Group, GroupReport, Measure};

use notes::Notebooks;
use run::{Entered, Entry};

/// Why the toolbox can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum ToolboxError {
    /// The file that `ASGARD_JOURNAL` names can't be written.
    #[error("the journal {path} can't be opened: {error}")]
    Journal {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// How a toolbox is set up.
#[derive(Clone, Default)]
pub struct Config {
    /// Directory for what the tools keep (notebooks). Without one, those tools say that it is missing.
    pub data: Option<PathBuf>,
    /// File that each start, step and end of a tool is appended to, as a JSON line.
    pub journal: Option<PathBuf>,
}

impl Config {
    /// From `ASGARD_DATA` and `ASGARD_JOURNAL`.
    #[must_use]
    pub fn from_env() -> Self {
        let path = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self { data: path("ASGARD_DATA"), journal: path("ASGARD_JOURNAL") }
    }
}

/// The stock toolbox.
pub struct Toolbox {
    tool_router: ToolRouter<Self>,
    journal: Journal,
    notebooks: Notebooks,
    /// What `slow_count` counts, by organisation.
    counters: Mutex<HashMap<String, u64>>,
}

impl Toolbox {
    /// A toolbox as the environment sets it up: see [`Config::from_env`].
    ///
    /// # Errors
    /// See [`ToolboxError`].
    pub fn from_env() -> Result<Self, ToolboxError> {
        Self::new(Config::from_env())
    }

    /// A toolbox.
    ///
    /// # Errors
    /// See [`ToolboxError`].
    pub fn new(config: Config) -> Result<Self, ToolboxError> {
        let journal = match config.journal {
            Some(path) => Journal::open(&path).map_err(|error| ToolboxError::Journal { path, error })?,
            None => Journal::default(),
        };
        Ok(Self {
            tool_router: Self::tools() + Self::plan_tools(),
            journal,
            notebooks: Notebooks::new(config.data.as_deref()),
            counters: Mutex::default(),
        })
    }
}

#[tool_handler(router = self.tool_router)]
impl ServerHandler for Toolbox {
    fn get_info(&self) -> ServerConfig {
        // The tools change when another version of the workers is rolled out; its operator tells.
        let capabilities =
            ServerCapabilities::builder().enable_tools().enable_tool_list_changed().enable_tasks().build();
        ServerConfig::new(capabilities)
            .with_server_info(
                Implementation::new("asgard-toolbox", env!("CARGO_PKG_VERSION")).with_title("Asgard toolbox"),
            )
            .with_instructions(
                "Daily weather at Seattle, 2012 to 2015: look up a day, rank days, compute a report with \
                 confidence intervals, plan an outing. Also a notebook for your organisation.",
            )
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        mut context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let label = request.arguments.as_ref().and_then(|arguments| arguments.get("label")?.as_str());
        let entry = Entry {
            tool: request.name.clone().into_owned(),
            label: label
                .filter(|label| !label.is_empty() && label.chars().count() <= journal::MAX_LABEL)
                .map(str::to_owned),
            journal: self.journal.clone(),
        };
        // A name that is no tool's has no place in the journal.
        let entered = self
            .tool_router
            .has_route(&request.name)
            .then(|| Entered::start(run::call_id(&context), entry.clone()));
        context.extensions.insert(entry);
        let answered = self.tool_router.call(ToolCallContext::new(self, request, context)).await;
        if let Some(entered) = entered {
            entered.end();
        }
        answered
    }
}
