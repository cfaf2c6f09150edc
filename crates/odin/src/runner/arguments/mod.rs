//! A tool's arguments against the schema that it advertises, before its handler sees them.
//!
//! A client, or the model behind it, knows of a tool what its input schema says. What readers of Rust types take is not
//! the same: `7.0` is an integer for JSON Schema (2020-12, validation, 6.1.1) and none for serde; a length is counted in
//! characters there, and often in bytes here. So the runner brings the arguments of every tool into the form that its
//! schema allows, and answers what the schema refuses with an error that says which member it is, what is expected
//! and what came: as a result of the tool, which the model reads, not as an error of the protocol (MCP, tools, error
//! handling).

mod explain;
mod schema;

use std::sync::Arc;

use boon::{Compiler, Draft, SchemaIndex, Schemas, UrlLoader};
use rmcp::model::JsonObject;
use schema::{Applied, applied, members_of};
use serde_json::{Number, Value};

pub(super) use schema::plain;

/// What a schema is called within its compiler.
const NAME: &str = "tool:///input";

/// A tool's input schema, ready to be asked.
pub(crate) struct InputSchema {
    /// As the tool has it.
    source: Arc<JsonObject>,
    root: Value,
    /// None when the schema can't be used: then arguments pass as they are.
    compiled: Option<(Schemas, SchemaIndex)>,
}

impl InputSchema {
    /// Compiles a tool's schema. One that is no JSON Schema, or refers to another document, is not used.
    pub(crate) fn new(tool: &str, source: Arc<JsonObject>) -> Self {
        let root = Value::Object(plain(&source).as_deref().unwrap_or(&source).clone());
        let compiled = compile(&root)
            .inspect_err(|error| {
                tracing::warn!(tool, error, "the input schema can't be used: arguments are not checked");
            })
            .ok();
        Self { source, root, compiled }
    }

    /// Whether it is the schema that a tool has now.
    pub(super) fn is_of(&self, schema: &Arc<JsonObject>) -> bool {
        Arc::ptr_eq(&self.source, schema) || self.source == *schema
    }

    /// Brings arguments into the form that the schema allows. No arguments are those without members.
    ///
    /// # Errors
    /// What is wrong with them, for whoever made the call.
    pub(crate) fn fit(&self, tool: &str, arguments: &mut Option<JsonObject>) -> Result<(), String> {
        let Some((schemas, index)) = &self.compiled else { return Ok(()) };
        let is_absent = arguments.is_none();
        let mut value = Value::Object(arguments.take().unwrap_or_default());
        whole_numbers(&self.root, &applied(&self.root, [&self.root]), &mut value);
        if let Err(error) = schemas.validate(&value, *index)
            && let Some(why) = explain::text(&error, &self.root, &value)
        {
            return Err(format!(
                "Invalid arguments of tool {tool:?}: {why}. Call it again with what its inputSchema allows."
            ));
        }
        if let (Value::Object(members), false) = (value, is_absent) {
            *arguments = Some(members);
        }
        Ok(())
    }
}

fn compile(root: &Value) -> Result<(Schemas, SchemaIndex), String> {
    let mut compiler = Compiler::new();
    compiler.set_default_draft(Draft::V2020_12);
    // By itself it would read files.
    compiler.use_loader(Box::new(NoDocuments));
    compiler.add_resource(NAME, root.clone()).map_err(|error| error.to_string())?;
    let mut schemas = Schemas::new();
    let index = compiler.compile(NAME, &mut schemas).map_err(|error| error.to_string())?;
    Ok((schemas, index))
}

/// Schemas of tools are whole in themselves.
struct NoDocuments;

impl UrlLoader for NoDocuments {
    fn load(&self, url: &str) -> Result<Value, Box<dyn std::error::Error>> {
        Err(format!("{url:?} is another document").into())
    }
}

/// Writes numbers without a fraction as integers where the schemas ask for such: JSON Schema knows no difference.
fn whole_numbers(root: &Value, schemas: &Applied<'_>, value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(whole) = whole(number).filter(|_| schemas.allow_type("integer")) {
                *number = whole;
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                let inner = applied(root, schemas.of_item(index));
                if !inner.is_empty() {
                    whole_numbers(root, &inner, item);
                }
            }
        }
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                let inner = applied(root, members_of(schemas, name));
                if !inner.is_empty() {
                    whole_numbers(root, &inner, member);
                }
            }
        }
        _ => {}
    }
}

/// The integer that a number in another notation (`7.0`, `7e0`) is.
fn whole(number: &Number) -> Option<Number> {
    if !number.is_f64() {
        return None;
    }
    let float = number.as_f64().filter(|float| float.fract() == 0.0)?;
    // Both ends are powers of two, so exact.
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&float) {
        return Some(Number::from(float as i64));
    }
    (0.0..18_446_744_073_709_551_616.0).contains(&float).then(|| Number::from(float as u64))
}

#[cfg(test)]
mod tests;
