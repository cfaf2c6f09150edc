//! What is remembered of a handler's tools.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rmcp::{ServerHandler, model::Tool};

use super::arguments::{InputSchema, plain};
use crate::call::{Rerun, task::TaskTool};
use crate::protocol::ParamRules;

/// Tools that are remembered, at most.
const MAX_TOOLS: usize = 10_000;

/// A handler's tools.
#[derive(Default)]
pub(super) struct Tools {
    /// What `tools/list` said, for handlers without `get_tool`.
    listed: Mutex<HashMap<String, Known>>,
    /// Schemas of tools that `get_tool` knows.
    schemas: Mutex<HashMap<String, Arc<InputSchema>>>,
}

/// What is remembered of a tool.
struct Known {
    rerun: Rerun,
    task: TaskTool,
    /// None for nearly all tools.
    rules: Option<Arc<ParamRules>>,
    /// None where two lists differ: whose call it is, is not known here.
    schema: Option<Arc<InputSchema>>,
}

impl Tools {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers the tools of a list, and writes their schemas as they are advertised.
    pub(super) fn remember(&self, listed: &mut [Tool]) {
        let mut tools = self.lock();
        for tool in listed {
            let source = Arc::clone(&tool.input_schema);
            if let Some(schema) = plain(&source) {
                tool.input_schema = schema;
            }
            if let Some(schema) = tool.output_schema.as_ref().and_then(plain) {
                tool.output_schema = Some(schema);
            }
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
                    known.schema.take_if(|schema| !schema.is_of(&source));
                }
                None if room => {
                    let schema = Some(Arc::new(InputSchema::new(&tool.name, source)));
                    tools.insert(tool.name.clone().into_owned(), Known { rerun, task, rules, schema });
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

    /// The schema that a tool's arguments must fit, as far as it is known.
    pub(super) fn schema<H: ServerHandler>(&self, handler: &H, name: &str) -> Option<Arc<InputSchema>> {
        let Some(tool) = handler.get_tool(name) else { return self.lock().get(name)?.schema.clone() };
        let mut schemas = self.schemas.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(schema) = schemas.get(name).filter(|schema| schema.is_of(&tool.input_schema)) {
            return Some(Arc::clone(schema));
        }
        let schema = Arc::new(InputSchema::new(name, tool.input_schema));
        if schemas.len() < MAX_TOOLS || schemas.contains_key(name) {
            schemas.insert(name.to_owned(), Arc::clone(&schema));
        }
        Some(schema)
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
