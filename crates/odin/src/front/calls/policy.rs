//! The site's policy, applied to what the body says: the gateway sees headers alone, and only where they bind.

use std::borrow::Cow;
use std::collections::BTreeMap;

use identity::Principal;
use identity::policy::{self, Policy};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::call::Message;
use crate::front::error::{Error, Result};
use crate::protocol::{
    Request, code,
    jsonrpc::{self, Response},
};

/// Refuses what the policy denies, and logs why.
pub(crate) fn permit(policy: &Policy, caller: &Principal, request: &Request<'_>) -> Result<()> {
    if policy.is_open() {
        return Ok(());
    }
    let name = named(request);
    let decision = policy.decide(caller, policy::Request { method: &request.method, name: name.as_deref() });
    if decision.allowed() {
        return Ok(());
    }
    let (organisation, reason) = (&caller.organisation, decision.reason());
    if !policy.refuses(&decision) {
        tracing::warn!(organisation, reason, "dry run: the policy would refuse a request");
        return Ok(());
    }
    tracing::warn!(organisation, reason, "the policy refuses a request");
    Err(Error::Forbidden)
}

/// What a request acts on: the member that its worker reads, and no other that a client may have put beside it.
fn named<'a>(request: &'a Request<'_>) -> Option<Cow<'a, str>> {
    let params = &request.params;
    let member = match &*request.method {
        "tools/call" | "prompts/get" => &params.name,
        "completion/complete" => return completed(params.raw),
        "skills/get" => &params.uri,
        method if method.starts_with("resources/") => &params.uri,
        method if method.starts_with("tasks/") => &params.task_id,
        // A server's own: nobody here knows which member it reads.
        _ if params.name.is_some() => &params.name,
        _ => &params.uri,
    };
    member.as_deref().map(Cow::Borrowed)
}

/// The prompt or resource whose argument is to be completed.
fn completed(params: Option<&RawValue>) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Params<'a> {
        #[serde(borrow, rename = "ref")]
        reference: Reference<'a>,
    }
    #[derive(Deserialize)]
    struct Reference<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
        #[serde(borrow)]
        name: Option<Cow<'a, str>>,
        #[serde(borrow)]
        uri: Option<Cow<'a, str>>,
    }
    let Params { reference } = serde_json::from_str(params?.get()).ok()?;
    if reference.kind == "ref/resource" { reference.uri } else { reference.name }
}

/// Whether answers to `method` are to be looked through for what the caller may not use.
pub(crate) fn looks_through(policy: &Policy, method: &str) -> bool {
    !policy.is_open() && !policy::used_by(method).is_empty()
}

/// The answer to a list without what the caller may not use, for this caller alone. One that can't be read is
/// withheld.
pub(crate) fn shown(policy: &Policy, caller: &Principal, method: &str, out: &Message) -> Message {
    if !looks_through(policy, method) {
        return out.clone();
    }
    through(policy, caller, method, out).map_or_else(
        || {
            jsonrpc::error(
                "null",
                jsonrpc::error_object(code::INTERNAL_ERROR, "The list can't be read.", None),
            )
            .into()
        },
        Message::from,
    )
}

fn through(policy: &Policy, caller: &Principal, method: &str, out: &str) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Item {
        name: Option<String>,
        uri: Option<String>,
        uri_template: Option<String>,
    }
    let response = Response::read(out)?;
    let id = response.id?;
    // An error shows nothing.
    let Some(result) = response.result else { return Some(out.to_owned()) };
    let mut result: BTreeMap<&str, &RawValue> = serde_json::from_str(result.get()).ok()?;
    let list = match method {
        "tools/list" => "tools",
        "prompts/list" => "prompts",
        "resources/list" | "resources/directory/read" => "resources",
        "skills/list" => "skills",
        "resources/templates/list" => "resourceTemplates",
        _ => return None,
    };
    let private = to_raw_value("private").ok()?;
    let items: Vec<&RawValue> = serde_json::from_str(result.get(list)?.get()).ok()?;
    let may = |item: &&&RawValue| {
        let Ok(item) = serde_json::from_str::<Item>(item.get()) else { return false };
        let named = match method {
            "resources/list" | "resources/directory/read" | "skills/list" => item.uri,
            "resources/templates/list" => item.uri_template,
            _ => item.name,
        };
        named.is_some_and(|name| policy.shows(caller, method, &name))
    };
    let kept: Vec<&RawValue> = items.iter().filter(may).copied().collect();
    let kept = to_raw_value(&kept).ok()?;
    result.insert(list, &kept);
    if result.contains_key("cacheScope") {
        result.insert("cacheScope", &private);
    }
    let result = serde_json::to_string(&result).ok()?;
    Some(jsonrpc::result(id, result))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Body, Limits, Message as Read, read_body};

    fn caller(role: &str) -> Principal {
        let mut caller = Principal::new("i", "s", "o");
        caller.roles = vec![role.into()];
        caller
    }

    #[test]
    fn what_a_request_acts_on_is_what_its_worker_reads() {
        let policy = Policy::from_json(br#"{"rules":[{"effect":"deny","names":["secret*"]}]}"#).unwrap();
        let refused = |method: &str, params: &str| {
            let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
            let Ok(Body::One(Read::Request(request))) = read_body(body.as_bytes(), &Limits::default()) else {
                panic!("{body}")
            };
            permit(&policy, &caller("guest"), &request).is_err()
        };
        for (method, params, expected) in [
            ("tools/call", r#"{"name":"secret"}"#, true),
            ("tools/call", r#"{"name":"echo","uri":"secret"}"#, false),
            ("resources/read", r#"{"uri":"secret:a"}"#, true),
            // Another name beside it does not hide it.
            ("resources/read", r#"{"uri":"secret:a","name":"echo"}"#, true),
            ("resources/subscribe", r#"{"name":"echo","uri":"secret:a"}"#, true),
            ("resources/directory/read", r#"{"name":"echo","uri":"secret:a"}"#, true),
            ("skills/get", r#"{"name":"echo","uri":"secret:a/SKILL.md"}"#, true),
            ("tasks/get", r#"{"name":"echo","taskId":"secret"}"#, true),
            ("completion/complete", r#"{"name":"x","ref":{"type":"ref/prompt","name":"secret"}}"#, true),
            ("completion/complete", r#"{"ref":{"type":"ref/resource","name":"x","uri":"secret:{a}"}}"#, true),
            ("completion/complete", r#"{"ref":{"type":"ref/prompt","name":"open"}}"#, false),
            ("x/own", r#"{"uri":"secret"}"#, true),
        ] {
            assert_eq!(refused(method, params), expected, "{method} {params}");
        }
    }

    #[test]
    fn skills_and_directories_are_lists_too() {
        let policy = br#"{"rules":[
            {"effect":"deny","methods":["skills/*"],"names":["skill://a/*"]},
            {"effect":"deny","methods":["resources/read"],"names":["skill://b/*"]}]}"#;
        let policy = Policy::from_json(policy).unwrap();
        let out: Message = r#"{"jsonrpc":"2.0","id":1,"result":{"skills":[{"uri":"skill://a/SKILL.md"},{"uri":"skill://b/SKILL.md"},{"uri":"skill://c/SKILL.md","frontmatter":{"x":1.0}}]}}"#.into();
        assert_eq!(
            &*shown(&policy, &caller("guest"), "skills/list", &out),
            r#"{"jsonrpc":"2.0","id":1,"result":{"skills":[{"uri":"skill://c/SKILL.md","frontmatter":{"x":1.0}}]}}"#
        );
        let out: Message = r#"{"jsonrpc":"2.0","id":1,"result":{"resources":[{"uri":"skill://a/x"},{"uri":"skill://b/x"}]}}"#.into();
        assert_eq!(
            &*shown(&policy, &caller("guest"), "resources/directory/read", &out),
            r#"{"jsonrpc":"2.0","id":1,"result":{"resources":[{"uri":"skill://a/x"}]}}"#
        );
    }

    #[test]
    fn lists_show_what_the_caller_may_use() {
        let policy = br#"{"default":"deny","rules":[
            {"effect":"allow","roles":["smith"]},
            {"effect":"allow","methods":["tools/call"],"names":["echo"]}]}"#;
        let policy = Policy::from_json(policy).unwrap();
        let out: Message = r#"{"jsonrpc":"2.0","id":"x","result":{"tools":[{"name":"echo","a":1},{"name":"forge"},{"n":1}],"nextCursor":"c","ttlMs":5,"cacheScope":"public"}}"#.into();
        assert_eq!(
            &*shown(&policy, &caller("guest"), "tools/list", &out),
            r#"{"jsonrpc":"2.0","id":"x","result":{"cacheScope":"private","nextCursor":"c","tools":[{"name":"echo","a":1}],"ttlMs":5}}"#
        );
        let all = shown(&policy, &caller("smith"), "tools/list", &out);
        assert!(all.contains(r#"{"name":"forge"}"#) && all.contains("private"), "{all}");
        let error: Message = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"m"}}"#.into();
        assert_eq!(shown(&policy, &caller("guest"), "tools/list", &error), error);
        let broken: Message = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":{"name":"forge"}}}"#.into();
        assert!(!shown(&policy, &caller("guest"), "tools/list", &broken).contains("forge"));
        assert_eq!(shown(&policy, &caller("guest"), "server/discover", &out), out);
    }
}
