//! Answers, compared with what a row expects.

use serde_json::{Value, json};

use crate::rows::{Case, merge};

/// An answer.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// What is wrong with the answer to a row's fault; `None` when it is as expected.
pub fn difference(case: &Case, answer: &Answer) -> Option<String> {
    let wrong = differs(case, &case.expect, answer)?;
    let mut otherwise = case.expect.clone();
    merge(&mut otherwise, &case.otherwise);
    if case.otherwise.is_object() && differs(case, &otherwise, answer).is_none() { None } else { Some(wrong) }
}

fn differs(case: &Case, expect: &Value, answer: &Answer) -> Option<String> {
    let body = answer.json();
    if case.gateway_may_answer && body["reason"].is_null() {
        // A preflight that does not allow the origin is a refusal, whatever its status.
        let origin =
            case.fault.headers.iter().find(|(name, _)| name == "Origin").map(|(_, origin)| origin.as_str());
        let allowed = answer.header("access-control-allow-origin");
        let preflight = case.fault.method == "OPTIONS"
            && allowed != Some("*")
            && (allowed.is_none() || allowed != origin);
        // No answer at all: the connection was cut.
        if answer.status == 0 || (400..500).contains(&answer.status) || preflight {
            return None;
        }
    }
    if json!(answer.status) != expect["status"] {
        return Some(format!("status {} for {}: {body}", answer.status, expect["status"]));
    }
    if expect["rpc"].is_number() {
        let code = &body["error"]["code"];
        return (*code != expect["rpc"]).then(|| format!("code {code} for {}: {body}", expect["rpc"]));
    }
    for member in ["error", "reason"] {
        if body[member] != expect[member] {
            return Some(format!("{member} {} for {}", body[member], expect[member]));
        }
    }
    challenge(case, expect, answer)
}

fn challenge(case: &Case, expect: &Value, answer: &Answer) -> Option<String> {
    let challenge = answer.header("www-authenticate").unwrap_or_default();
    if expect["challenge"] != true {
        return (!challenge.is_empty()).then(|| format!("a challenge: {challenge}"));
    }
    let others = ["org-2", "ORG-1"];
    let organisation = others.into_iter().find(|other| case.fault.target.contains(other)).unwrap_or("org-1");
    let scope = expect["scope"].as_str().unwrap_or("mcp:tools organization");
    let metadata = expect["metadata"].as_str().map_or_else(
        || format!("http://localhost:8000/.well-known/oauth-protected-resource/api/v1/mcp/{organisation}"),
        str::to_owned,
    );
    let mut parts = vec![format!("Bearer resource_metadata=\"{metadata}\""), format!(", scope=\"{scope}\"")];
    let error = expect["error"].as_str().unwrap();
    if error != "missing_token" {
        parts.push(format!(", error=\"{error}\""));
    } else if challenge.contains("error=") {
        return Some(format!("an error in the challenge of a request without token: {challenge}"));
    }
    let missing = parts.into_iter().find(|part| !challenge.contains(part.as_str()));
    missing.map(|part| format!("no {part} in {challenge}"))
}
