//! A server whose lists and resources change.

use std::sync::Arc;
use std::time::Duration;

use odin::broadcast::{Audience, Broadcaster, Notice};
use odin::call::task::TaskTool;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ListToolsResult, PaginatedRequestParams,
    ResourceUpdatedNotificationParam, ServerCapabilities, ServerConfig, SubscribeRequestParams, Tool,
    UnsubscribeRequestParams,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::json;

pub struct Server;

/// `later` runs as a task.
fn tool(name: &str) -> Tool {
    let schema = Arc::new(json!({ "type": "object" }).as_object().cloned().unwrap_or_default());
    let tool = Tool::new(name.to_owned(), "Tells.", schema);
    if name == "later" { tool.with_meta(TaskTool::required().meta()) } else { tool }
}

fn failed(error: impl std::fmt::Display) -> ErrorData {
    ErrorData::internal_error(error.to_string(), None)
}

#[expect(deprecated, reason = "the stateful eras have these methods")]
impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_resources()
            .enable_resources_list_changed()
            .enable_resources_subscribe()
            .enable_logging()
            .enable_tasks()
            .build();
        ServerConfig::new(capabilities)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(vec![tool("peer"), tool("everyone"), tool("later")]))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        Some(tool(name))
    }

    async fn subscribe(
        &self,
        request: SubscribeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        if request.uri.ends_with("missing") {
            return Err(ErrorData::invalid_params("there is no such resource", None));
        }
        Ok(())
    }

    async fn unsubscribe(
        &self,
        _: UnsubscribeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Ok(())
    }

    /// Tells in one of the ways that handlers have.
    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let broadcaster = context.extensions.get::<Broadcaster>().ok_or_else(|| failed("no broadcaster"))?;
        match request.name.as_ref() {
            "peer" => {
                let update = ResourceUpdatedNotificationParam::new("a://1");
                context.peer.notify_tool_list_changed().await.map_err(failed)?;
                context.peer.notify_resource_updated(update).await.map_err(failed)?;
            }
            "later" => tokio::time::sleep(Duration::from_millis(500)).await,
            _ => {
                broadcaster.notify(&Audience::Everyone, &Notice::resources_changed()).await.map_err(failed)?
            }
        }
        Ok(CallToolResult::success(Vec::new()).into())
    }
}
