//! A server with something of each kind.

use odin::Ask;
use odin::Asked;
use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{
    CallToolResponse, CallToolResult, ContentBlock, GetPromptRequestParams, GetPromptResponse,
    GetSkillRequestParams, GetSkillResult, ListPromptsResult, ListResourcesResult, ListSkillsResult,
    MetaObject, PaginatedRequestParams, Prompt, ReadResourceRequestParams, ReadResourceResponse,
    ReadResourceResult, Resource, ResourceContents, ServerCapabilities, ServerConfig, Skill,
    SkillFrontmatter, SkillResources,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler, tool, tool_handler, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

pub(crate) struct Server {
    tool_router: ToolRouter<Self>,
}

#[derive(Deserialize, JsonSchema)]
struct Name {
    name: String,
    years: u32,
    #[serde(default)]
    nick: Option<String>,
}

/// `_meta` of an object, as a handler writes it.
pub(crate) fn meta(value: Value) -> MetaObject {
    serde_json::from_value(value).unwrap()
}

/// The page of an MCP App.
pub(crate) const PAGE: &str = "ui://clock/page.html";

pub(crate) fn page_meta() -> Value {
    json!({ "ui": { "csp": { "connectDomains": ["https://a.example"], "x": null }, "prefersBorder": true, "n": 1.5 } })
}

pub(crate) fn tool_meta() -> Value {
    json!({ "ui": { "resourceUri": PAGE, "visibility": ["model", "app"] }, "example.com/x": { "y": null } })
}

#[tool_router]
impl Server {
    pub(crate) fn new() -> Self {
        let mut tool_router = Self::tool_router();
        for route in tool_router.map.values_mut().filter(|route| route.attr.name == "clock") {
            route.attr.meta = Some(meta(tool_meta()));
        }
        Self { tool_router }
    }

    #[tool(description = "Repeats its arguments.")]
    fn echo(&self, Parameters(said): Parameters<serde_json::Map<String, Value>>) -> String {
        Value::Object(said).to_string()
    }

    #[tool(description = "Shows a clock.")]
    fn clock(&self) -> CallToolResult {
        let mut result = CallToolResult::structured(json!({ "hour": 7, "zone": null }));
        result.meta = Some(meta(json!({ "ui": { "state": { "a": null } } })));
        result
    }

    #[tool(description = "Greets.")]
    async fn greet(&self, ask: Ask) -> Result<CallToolResponse, ErrorData> {
        let text = match ask.user::<Name>("who", "Who?").await? {
            Asked::Answer(Name { name, nick, years }) => format!("hello {name} {nick:?} {years}"),
            Asked::Later(later) => return Ok(later),
            Asked::Declined => "declined".to_owned(),
            Asked::Unable => "unable".to_owned(),
        };
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

fn skill(name: &str) -> Skill {
    let frontmatter = SkillFrontmatter::new(name, "A skill.").with_field("licence", Value::Null);
    Skill::new(format!("skill://{name}/SKILL.md"), frontmatter, SkillResources::Dynamic)
}

#[tool_handler(router = self.tool_router)]
impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let mut capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_resources()
            .enable_prompts()
            .enable_skills_with_directory_read()
            .build();
        let ui = serde_json::from_value(json!({ "mimeTypes": ["text/html;profile=mcp-app"] })).unwrap();
        capabilities.extensions.get_or_insert_default().insert("io.modelcontextprotocol/ui".into(), ui);
        ServerConfig::new(capabilities)
    }

    async fn list_resources(
        &self,
        page: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        // Three pages, whose cursors are any text.
        let cursor = page.and_then(|page| page.cursor);
        let (uri, next) = match cursor.as_deref() {
            None => (PAGE, Some("é \"2\"")),
            Some("é \"2\"") => ("file:///two", Some("")),
            Some("") => ("file:///three", None),
            Some(other) => return Err(ErrorData::internal_error(format!("the handler saw {other:?}"), None)),
        };
        let mut resource = Resource::new(uri, "r");
        if uri == PAGE {
            resource = resource.with_mime_type("text/html;profile=mcp-app").with_meta(meta(page_meta()));
        }
        Ok(ListResourcesResult {
            next_cursor: next.map(str::to_owned),
            ..ListResourcesResult::with_all_items(vec![resource])
        })
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        if request.uri != PAGE {
            return Err(ErrorData::resource_not_found(format!("no {}", request.uri), None));
        }
        let contents = ResourceContents::text("<!doctype html>", PAGE)
            .with_mime_type("text/html;profile=mcp-app")
            .with_meta(meta(page_meta()));
        Ok(ReadResourceResult::new(vec![contents]).into())
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        Ok(ListPromptsResult::with_all_items(vec![Prompt::new("p", None::<String>, None)]))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        // As rmcp's router of prompts says it.
        let message = format!("prompt '{}' not found", request.name);
        Err(ErrorData::invalid_params(message, Some(json!({ "available_prompts": ["p", "secret"] }))))
    }

    async fn list_skills(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListSkillsResult, ErrorData> {
        Ok(ListSkillsResult::with_all_items(["one", "two", "three"].map(skill).to_vec()))
    }

    async fn get_skill(
        &self,
        request: GetSkillRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetSkillResult, ErrorData> {
        let name = request.uri.strip_prefix("skill://").and_then(|uri| uri.strip_suffix("/SKILL.md"));
        Ok(GetSkillResult::new(skill(name.unwrap_or_default())))
    }
}
