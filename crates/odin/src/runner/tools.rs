//! What is remembered of a handler's tools.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rmcp::{ServerHandler, model::Tool};

use super::Rerun;
use crate::protocol::ParamRules;
use crate::tasks::TaskTool;

/// Tools that are remembered, at most.
const MAX_TOOLS: usize = 10_000;

/// What `tools/list` said, for handlers without `get_tool`.
#[derive(Default)]
pub(super) struct Tools(Mutex<HashMap<String, Known>>);

/// What is remembered of a tool.
struct Known {
    rerun: Rerun,
    task: TaskTool,
    /// None for nearly all tools.
    rules: Option<Arc<ParamRules>>,
}

impl Tools {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers the tools of a list.
    pub(super) fn remember(&self, listed: &[Tool]) {
        let mut tools = self.lock();
        for tool in listed {
            let (rerun, task, rules) = (rerun(tool), TaskTool::of(tool.meta.as_ref()), rules(tool));
            let room = tools.len() < MAX_TOOLS;
            match tools.get_mut(tool.name.as_ref()) {
                Some(known) => {
                    // Two principals may see two tools of one name: the stricter one counts.
                    if rerun == Rerun::Unsafe {
                        known.rerun = rerun;
                    }
                    known.task = task;
                    known.rules = rules;
                }
                None if room => {
                    tools.insert(tool.name.clone().into_owned(), Known { rerun, task, rules });
                }
                None => {}
            }
        }
    }

    /// Which headers a tool's calls must carry, if it says so.
    pub(super) fn rules<H: ServerHandler>(&self, handler: &H, name: &str) -> Option<Arc<ParamRules>> {
        if let Some(tool) = handler.get_tool(name) {
            return rules(&tool);
        }
        self.lock().get(name)?.rules.clone()
    }

    /// Whether a tool may run twice.
    pub(super) fn rerun<H: ServerHandler>(&self, handler: &H, name: &str) -> Rerun {
        if let Some(tool) = handler.get_tool(name) {
            return rerun(&tool);
        }
        self.lock().get(name).map_or(Rerun::Unsafe, |known| known.rerun)
    }

    /// Whether a tool runs as a task.
    pub(super) fn task<H: ServerHandler>(&self, handler: &H, name: &str) -> TaskTool {
        if let Some(tool) = handler.get_tool(name) {
            return TaskTool::of(tool.meta.as_ref());
        }
        self.lock().get(name).map(|known| known.task).unwrap_or_default()
    }
}

fn rerun(tool: &Tool) -> Rerun {
    let safe = tool.annotations.as_ref().is_some_and(|annotations| {
        annotations.read_only_hint == Some(true) || annotations.idempotent_hint == Some(true)
    });
    if safe { Rerun::Safe } else { Rerun::Unsafe }
}

fn rules(tool: &Tool) -> Option<Arc<ParamRules>> {
    let rules = ParamRules::of_schema(&tool.input_schema);
    (!rules.is_empty()).then(|| Arc::new(rules))
}
