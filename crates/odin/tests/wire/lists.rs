//! Lists: their cursors, what is unknown, skills under a policy, and MCP Apps.

use serde_json::{Value, json};

use super::http_server::{ERAS, HttpServer};
use super::server::{PAGE, Server, page_meta, tool_meta};

#[tokio::test(flavor = "multi_thread")]
async fn only_cursors_that_were_given_out_are_taken() {
    let site = HttpServer::start(Server::new(), json!({})).await;
    for era in ERAS {
        let list = async |organisation: &str, method: &str, cursor: Option<&str>| {
            let params = cursor.map_or_else(|| json!({}), |cursor| json!({ "cursor": cursor }));
            site.ask(era, organisation, method, params).await
        };
        let mut uris = Vec::new();
        let mut cursors: Vec<String> = Vec::new();
        loop {
            let page = list("o", "resources/list", cursors.last().map(String::as_str)).await;
            uris.push(page["result"]["resources"][0]["uri"].clone());
            match page["result"]["nextCursor"].as_str() {
                Some(cursor) => cursors.push(cursor.to_owned()),
                None => break,
            }
        }
        assert_eq!(json!(uris), json!([PAGE, "file:///two", "file:///three"]));
        // Made up, the handler's own text, of another list, changed, of another organisation.
        let (first, second) = (cursors[0].clone(), cursors[1].clone());
        let changed = format!("{second}x");
        for (organisation, method, cursor) in [
            ("o", "resources/list", "made-up"),
            ("o", "resources/list", ""),
            ("o", "resources/list", "é \"2\""),
            ("o", "resources/list", "AAAAAAAAAAAAAAAAAAAAAA"),
            ("o", "tools/list", "made-up"),
            ("o", "prompts/list", &first),
            ("o", "skills/list", "3"),
            ("o", "resources/list", &changed),
            ("p", "resources/list", &first),
        ] {
            let answer = list(organisation, method, Some(cursor)).await;
            assert_eq!(answer["error"]["code"], -32602, "{era:?} {method} {cursor}: {answer}");
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(message.contains("cursor") && message.contains(method), "{message}");
        }
        // One may be used again.
        assert_eq!(
            list("o", "resources/list", Some(&first)).await["result"]["resources"][0]["uri"],
            "file:///two"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_name_what_is_unknown() {
    let site = HttpServer::start(Server::new(), json!({})).await;
    for era in ERAS {
        for (method, params, code, named) in [
            ("tools/call", json!({ "name": "forge" }), -32602, "Unknown tool: \"forge\""),
            ("prompts/get", json!({ "name": "ode" }), -32602, "Unknown prompt: \"ode\""),
            ("x/own", json!({}), -32601, "Method not found: \"x/own\""),
            ("resources/templates/list", json!({}), -32601, "Method not found: \"resources/templates/list\""),
        ] {
            let answer = site.ask(era, "o", method, params).await;
            let Some(error) = answer.get("error") else {
                // rmcp gives an empty list of templates to who has none.
                assert_eq!(method, "resources/templates/list", "{answer}");
                continue;
            };
            assert_eq!(error["code"], code, "{error}");
            assert!(error["message"].as_str().unwrap().contains(named), "{error}");
            // Nor does it list the others, which the caller may not be allowed to see.
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        let long = "x".repeat(10_000);
        let answer = site.ask(era, "o", "tools/call", json!({ "name": long })).await;
        assert!(answer["error"]["message"].as_str().unwrap().len() < 300, "{answer}");
    }
}

fn uris(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item["uri"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_skills_shows_what_the_caller_may_use() {
    let policy = json!({ "rules": [
        { "effect": "deny", "organisations": ["guests"], "methods": ["skills/*"], "names": ["skill://one/*"] },
        { "effect": "deny", "organisations": ["guests"], "methods": ["resources/read"], "names": ["skill://two/*"] },
    ] });
    let site = HttpServer::start(Server::new(), policy).await;
    for era in ERAS {
        for (organisation, shown) in [
            ("smiths", &["skill://one/SKILL.md", "skill://two/SKILL.md", "skill://three/SKILL.md"][..]),
            ("guests", &["skill://three/SKILL.md"]),
        ] {
            let answer = site.ask(era, organisation, "skills/list", json!({})).await;
            assert_eq!(uris(&answer["result"]["skills"]), shown, "{era:?} {answer}");
            // What the author wrote is there, `null` too.
            assert!(answer["result"]["skills"][0]["frontmatter"].get("licence").is_some(), "{answer}");
        }
        for (organisation, refused) in [("smiths", false), ("guests", true)] {
            let answer =
                site.ask(era, organisation, "skills/get", json!({ "uri": "skill://one/SKILL.md" })).await;
            assert_eq!(answer.get("error").is_some(), refused, "{era:?} {organisation} {answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mcp_apps_pass_whole() {
    let policies = [json!({}), json!({ "rules": [{ "effect": "deny", "names": ["drop*"] }] })];
    for policy in policies {
        let site = HttpServer::start(Server::new(), policy).await;
        for era in ERAS {
            let listed = site.ask(era, "o", "tools/list", json!({})).await;
            let clock = listed["result"]["tools"]
                .as_array()
                .unwrap()
                .iter()
                .find(|tool| tool["name"] == "clock")
                .unwrap();
            assert_eq!(clock["_meta"], tool_meta());
            let listed = site.ask(era, "o", "resources/list", json!({})).await;
            let page = &listed["result"]["resources"][0];
            assert_eq!((&page["uri"], &page["_meta"]), (&json!(PAGE), &page_meta()));
            assert_eq!(page["mimeType"], "text/html;profile=mcp-app");
            let read = site.ask(era, "o", "resources/read", json!({ "uri": PAGE })).await;
            let contents = &read["result"]["contents"][0];
            assert_eq!((&contents["_meta"], &contents["text"]), (&page_meta(), &json!("<!doctype html>")));
            assert_eq!(
                (&contents["uri"], &contents["mimeType"]),
                (&json!(PAGE), &json!("text/html;profile=mcp-app"))
            );
            let called = site.ask(era, "o", "tools/call", json!({ "name": "clock", "arguments": {} })).await;
            assert_eq!(called["result"]["structuredContent"], json!({ "hour": 7, "zone": null }));
            assert_eq!(called["result"]["_meta"]["ui"], json!({ "state": { "a": null } }));
        }
        // Both sides say that they have them, in either era.
        let extension =
            json!({ "io.modelcontextprotocol/ui": { "mimeTypes": ["text/html;profile=mcp-app"] } });
        let params = json!({
            "protocolVersion": "2025-11-25", "capabilities": { "extensions": extension }, "clientInfo": { "name": "c", "version": "1" },
        });
        let body = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params });
        let (_, answer) = site.post("o", &[], body.to_string()).await;
        let declared = |of: &Value| of["capabilities"]["extensions"]["io.modelcontextprotocol/ui"].clone();
        assert_eq!(declared(&answer["result"]), extension["io.modelcontextprotocol/ui"]);
        let discovered =
            site.ask(super::http_server::Era::Stateless, "o", "server/discover", json!({})).await;
        assert_eq!(declared(&discovered["result"]), extension["io.modelcontextprotocol/ui"], "{discovered}");
    }
}
