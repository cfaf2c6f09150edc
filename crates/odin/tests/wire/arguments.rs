//! Arguments of tools: what the advertised schema allows, and what is said of the rest.

use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::tool::ToolCallContext;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, ListToolsResult, PaginatedRequestParams, ServerCapabilities,
    ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler, tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::http_server::{ERAS, HttpServer};

struct Server {
    tool_router: ToolRouter<Self>,
    /// Whether `get_tool` knows the tools, or only `list_tools`.
    shy: bool,
}

#[derive(Deserialize, JsonSchema)]
struct Order {
    count: u8,
    #[schemars(length(max = 3))]
    name: String,
    #[serde(default)]
    sizes: Vec<u64>,
}

#[tool_router]
impl Server {
    #[tool(description = "Orders.")]
    fn order(&self, Parameters(Order { count, name, sizes }): Parameters<Order>) -> String {
        format!("{count} {name} {sizes:?}")
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        if self.shy { None } else { self.tool_router.get(name).cloned() }
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.tool_router.list_all()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        self.tool_router.call(ToolCallContext::new(self, request, context)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_take_what_their_schema_allows_and_say_what_it_does_not() {
    for shy in [false, true] {
        let site = HttpServer::start(Server { tool_router: Server::tool_router(), shy }, json!({})).await;
        for era in ERAS {
            let call = async |arguments: serde_json::Value| {
                let answer = site
                    .ask(era, "o", "tools/call", json!({ "name": "order", "arguments": arguments }))
                    .await;
                let result = &answer["result"];
                assert_eq!(
                    result.get("resultType").is_some(),
                    era == super::http_server::Era::Stateless,
                    "{answer}"
                );
                (result["isError"] == true, result["content"][0]["text"].as_str().unwrap().to_owned())
            };
            let good = json!({ "count": 7.0, "name": "äöü", "sizes": [1.0, 2e0] });
            assert_eq!(call(good).await, (false, "7 äöü [1, 2]".to_owned()));
            for (bad, why) in [
                (json!({ "count": 7.5, "name": "a" }), "`count` must be an integer, but is 7.5"),
                (
                    json!({ "count": 256.0, "name": "a" }),
                    "`count` must be an integer of at most 255, but is 256",
                ),
                (
                    json!({ "count": 1, "name": "äöüß" }),
                    "`name` must be a string of at most 3 characters, but has 4",
                ),
                (json!({ "count": 1 }), "`name` is missing: it must be a string"),
                (
                    json!({ "count": 1, "name": "a", "sizes": [1, "2"] }),
                    "`sizes[1]` must be an integer, but is \"2\"",
                ),
                (
                    json!({ "count": 1, "name": "a", "sizes": [1e30] }),
                    "`sizes[0]` must be an integer of at most",
                ),
            ] {
                let (is_error, text) = call(bad).await;
                assert!(is_error && text.contains(why), "{text}");
            }
            // What is advertised is what holds: bounds in JSON Schema's words, and no formats of Rust's.
            let listed = site.ask(era, "o", "tools/list", json!({})).await;
            let schema = &listed["result"]["tools"][0]["inputSchema"];
            assert_eq!(
                schema["properties"]["count"],
                json!({ "type": "integer", "minimum": 0, "maximum": 255 })
            );
            assert!(!listed.to_string().contains("\"format\""), "{listed}");
        }
    }
}
