//! The rows, read and made into requests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::keys::{self, Keys};

/// A request to send, byte by byte as it stands here.
#[derive(Debug, Clone, Default)]
pub struct Sent {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    /// Values of `Host`; none: `localhost:8000`.
    pub hosts: Vec<String>,
    /// The body of a POST; none: a ping.
    pub body: Option<String>,
}

/// A row as it is written, with what its class says for all.
#[derive(Debug, Clone)]
pub struct Row {
    pub class: String,
    pub name: String,
    raw: Value,
}

/// A row, made into requests.
#[derive(Debug)]
pub struct Case {
    pub class: String,
    pub name: String,
    pub fault: Sent,
    pub twin: Sent,
    pub expect: Value,
    /// What the twin is answered with by a real backend.
    pub twin_status: u64,
    /// Whether a gateway may refuse the request itself, before the filter, in its own words.
    pub gateway_may_answer: bool,
    /// How long the fault does harm to other requests, in seconds.
    pub pause_s: u64,
    /// Whether the shipped files remove the fault before the filter sees it.
    pub removed: bool,
    /// Whether Pushpin removes it, where it is in front.
    pub removed_by_pushpin: bool,
    /// What else may be answered: where something in front writes the fault in another way.
    pub otherwise: Value,
    /// Whether the gateway's filter refuses; else only a real backend does.
    pub by_filter: bool,
    /// Whether it is sent to the backend, past the gateway.
    pub to_backend: bool,
}

/// All rows, and the configuration that they are for.
#[derive(Debug, Clone)]
pub struct Table {
    base: Value,
    rows: Vec<Row>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("rows")
}

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

impl Table {
    pub fn read() -> Self {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let mut rows = Vec::new();
        for file in files.iter().filter(|file| !file.ends_with("base.json")) {
            let class = read(file);
            for row in class["rows"].as_array().unwrap_or_else(|| panic!("{}: no rows", file.display())) {
                // What a row says replaces what its class says. A null means something in a request, so
                // requests are laid over each other later.
                let mut raw = class.clone();
                for (member, value) in row.as_object().unwrap().iter().filter(|(name, _)| *name != "expect") {
                    raw[member] = value.clone();
                }
                raw["class_also"] = class["also"].clone();
                raw["also"] = row["also"].clone();
                if !row["expect"].is_null() {
                    merge(&mut raw["expect"], &row["expect"]);
                }
                let class = file.file_stem().unwrap().to_string_lossy().into_owned();
                rows.push(Row { class, name: row["name"].as_str().unwrap().to_owned(), raw });
            }
        }
        Self { base: read(&folder().join("base.json")), rows }
    }

    /// The filter's example configuration with what the corpus wants; `upstream` stands for the issuers.
    pub fn config(&self, upstream: &str) -> Value {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kong-filter/examples/config.json");
        let mut config = read(&example);
        merge(&mut config, &self.base["config"]);
        for issuer in config["issuers"].as_array_mut().unwrap() {
            for way in ["jwks", "introspection"] {
                if issuer[way].is_object() {
                    issuer[way]["upstream"] = upstream.into();
                }
            }
        }
        config["assertion"]["keys"] = keys::ASSERTION_KEYS.into();
        config
    }

    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The request of the base, changed by patches, one after the other.
    pub fn request(&self, keys: &Keys, patches: &[&Value], now: u64) -> Sent {
        let mut request = self.base["request"].clone();
        for patch in patches.iter().filter(|patch| !patch.is_null()) {
            merge(&mut request, patch);
        }
        build(&request, keys, now)
    }

    /// A row's requests, with times as from now on.
    pub fn case(&self, row: &Row, keys: &Keys, now: u64) -> Case {
        let raw = &row.raw;
        Case {
            class: row.class.clone(),
            name: row.name.clone(),
            fault: self.request(keys, &[&raw["class_also"], &raw["also"], &raw["fault"]], now),
            twin: self.request(keys, &[&raw["class_also"], &raw["also"]], now),
            expect: raw["expect"].clone(),
            twin_status: raw["twin_status"].as_u64().unwrap_or(200),
            gateway_may_answer: raw["gateway_may_answer"] == true,
            pause_s: raw["pause_s"].as_u64().unwrap_or_default(),
            removed: raw["removed"] == true,
            removed_by_pushpin: raw["removed_by_pushpin"] == true,
            otherwise: raw["or"].clone(),
            by_filter: raw["by"].is_null(),
            to_backend: raw["to"] == "backend",
        }
    }

    /// All rows that the filter refuses, for tests without a backend.
    pub fn cases(&self, keys: &Keys, now: u64) -> Vec<Case> {
        let cases = self.rows.iter().map(|row| self.case(row, keys, now));
        cases.filter(|case| case.by_filter).collect()
    }

    /// Names of the classes, with how many rows each has.
    pub fn classes(&self) -> BTreeMap<&str, usize> {
        let mut classes = BTreeMap::new();
        for row in &self.rows {
            *classes.entry(row.class.as_str()).or_default() += 1;
        }
        classes
    }
}

impl Case {
    /// How long to wait before the next request.
    pub fn pause(&self) -> std::time::Duration {
        std::time::Duration::from_secs(if self.pause_s > 0 { self.pause_s + 1 } else { 0 })
    }

    /// What of a forged header must reach no backend: the value of the fault's last header, if it has one.
    pub fn forged(&self) -> String {
        let last = self.fault.headers.last().map(|(_, value)| value.clone()).unwrap_or_default();
        if last.is_empty() { "nothing was forged".to_owned() } else { last }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("a text, not {value}")).to_owned()
}

/// Names and values of a list of pairs.
fn pairs(value: &Value) -> impl Iterator<Item = (String, &Value)> {
    value
        .as_array()
        .unwrap_or_else(|| panic!("a list of pairs, not {value}"))
        .iter()
        .map(|p| (text(&p[0]), &p[1]))
}

fn build(request: &Value, keys: &Keys, now: u64) -> Sent {
    let template = |name: &str| request[name].as_str().unwrap_or("@").to_owned();
    let token = keys.token_of(
        &text(&request["sign"]),
        (&request["jose"], &template("header")),
        (&request["claims"], &template("payload")),
        now,
    );
    let mut parts = token.splitn(3, '.').map(str::to_owned);
    let [header, payload, signature] = [(); 3].map(|()| parts.next().unwrap_or_default());
    let assertion = keys::assertion(&text(&request["assertion_sign"]), &request["assertion"], now);
    let fill = |text: &str| {
        text.replace("{token}", &token)
            .replace("{header}", &header)
            .replace("{payload}", &payload)
            .replace("{signature}", &signature)
            .replace("{short}", &token[..token.len() - 10])
            .replace("{assertion}", &assertion)
    };
    let mut headers: Vec<(String, String)> = Vec::new();
    for value in request["authorization"].as_array().unwrap() {
        headers.push(("Authorization".to_owned(), fill(&text(value))));
    }
    let own: Vec<(String, &Value)> = pairs(&request["headers"]).collect();
    let replaced = |name: &str| own.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    for (name, value) in pairs(&request["standing"]).filter(|(name, _)| !replaced(name)) {
        headers.push((name, fill(&text(value))));
    }
    // A header whose value is null is left out.
    for (name, value) in own.iter().filter(|(_, value)| !value.is_null()) {
        headers.push((name.clone(), fill(&text(value))));
    }
    let count = request["more_headers"].as_u64().unwrap_or_default();
    headers.extend((0..count).map(|number| (format!("X-{number}"), number.to_string())));
    let body = match &request["body"] {
        Value::String(text) => fill(text),
        json => fill(&json.to_string()),
    };
    Sent {
        method: text(&request["method"]),
        target: fill(&text(&request["path"])),
        headers,
        hosts: match &request["host"] {
            Value::String(host) => vec![host.clone()],
            Value::Array(hosts) => hosts.iter().map(text).collect(),
            _ => Vec::new(),
        },
        body: Some(body),
    }
}

/// Lays `patch` over `value`: objects member by member, `null` removes, everything else replaces.
pub fn merge(value: &mut Value, patch: &Value) {
    let (Value::Object(members), Value::Object(patches)) = (&mut *value, patch) else {
        *value = patch.clone();
        return;
    };
    for (name, patch) in patches {
        if patch.is_null() {
            members.remove(name);
        } else {
            merge(members.entry(name).or_insert(Value::Null), patch);
        }
    }
}
