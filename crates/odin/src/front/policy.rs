//! The site's policy, applied to what the body says: the gateway sees headers alone, and only where they bind.

use std::collections::BTreeMap;

use identity::Principal;
use identity::policy::{self, Policy};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::call::Message;
use crate::protocol::{Refusal, Request};

/// Refuses what the policy denies, and logs why.
pub(super) fn permit(policy: &Policy, caller: &Principal, request: &Request<'_>) -> Result<(), Refusal> {
    if policy.is_open() {
        return Ok(());
    }
    let name = request.params.name.as_deref().or(request.params.uri.as_deref());
    let decision = policy.decide(caller, policy::Request { method: &request.method, name });
    if decision.allowed() {
        return Ok(());
    }
    let (organisation, reason) = (&caller.organisation, decision.reason());
    if !policy.refuses(&decision) {
        tracing::warn!(organisation, reason, "dry run: the policy would refuse a request");
        return Ok(());
    }
    tracing::warn!(organisation, reason, "the policy refuses a request");
    Err(Refusal::forbidden("The policy of this site does not let you do this. Ask its administrator."))
}

/// Whether answers to `method` are to be looked through for what the caller may not use.
pub(super) fn looks_through(policy: &Policy, method: &str) -> bool {
    !policy.is_open() && policy::used_by(method).is_some()
}

/// The answer to a list without what the caller may not use, for this caller alone. One that can't be read is
/// withheld.
pub(super) fn shown(policy: &Policy, caller: &Principal, method: &str, out: &Message) -> Message {
    if !looks_through(policy, method) {
        return out.clone();
    }
    through(policy, caller, method, out).map_or_else(
        || {
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32603,"message":"The list can't be read."}}"#
                .into()
        },
        Message::from,
    )
}

fn through(policy: &Policy, caller: &Principal, method: &str, out: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        id: &'a RawValue,
        #[serde(borrow)]
        result: Option<BTreeMap<&'a str, &'a RawValue>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Item {
        name: Option<String>,
        uri: Option<String>,
        uri_template: Option<String>,
    }
    let Answer { id, result } = serde_json::from_str(out).ok()?;
    // An error shows nothing.
    let Some(mut result) = result else { return Some(out.to_owned()) };
    let list = match method {
        "tools/list" => "tools",
        "prompts/list" => "prompts",
        "resources/list" => "resources",
        "resources/templates/list" => "resourceTemplates",
        _ => return None,
    };
    let private = to_raw_value("private").ok()?;
    let items: Vec<&RawValue> = serde_json::from_str(result.get(list)?.get()).ok()?;
    let may = |item: &&&RawValue| {
        let Ok(item) = serde_json::from_str::<Item>(item.get()) else { return false };
        let named = match method {
            "resources/list" => item.uri,
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
    Some(format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, id.get()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(role: &str) -> Principal {
        Principal {
            issuer: "i".into(),
            subject: "s".into(),
            organisation: "o".into(),
            client: None,
            username: None,
            scopes: Vec::new(),
            roles: vec![role.into()],
            groups: Vec::new(),
        }
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
