//! The stock toolbox through the runner of the worker runtime, in both eras.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may fail

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use identity::Principal;
use odin::call::{Job, Rerun};
use odin::protocol::Era;
use odin::runner::{RmcpRunner, StateKeys};
use odin::worker::{Closed, Emission, Inbound, Outbox, Runner};
use serde_json::{Value, json, value::RawValue};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use worker::toolbox::{Config, Toolbox};

const CALL: &str = "00112233445566778899aabbccddeeff";

#[derive(Default)]
struct Recorder(Mutex<Vec<Value>>, Notify);

impl Recorder {
    fn all(&self) -> Vec<Value> {
        self.0.lock().unwrap().clone()
    }

    async fn nth(&self, nth: usize) -> Value {
        loop {
            let changed = self.1.notified();
            let found = self.0.lock().unwrap().get(nth).cloned();
            match found {
                Some(found) => return found,
                None => tokio::time::timeout(Duration::from_secs(10), changed).await.expect("an event"),
            }
        }
    }
}

impl Outbox for Recorder {
    fn emit(&self, message: Emission) -> Result<(), Closed> {
        let text = match message {
            Emission::Notification(text) | Emission::Request { message: text, .. } => text,
            Emission::HangUp => return Ok(()),
        };
        self.0.lock().unwrap().push(serde_json::from_str(text.get()).unwrap());
        self.1.notify_waiters();
        Ok(())
    }
}

fn principal(subject: &str, organisation: &str) -> Principal {
    let mut caller = Principal::new("https://issuer.example/realms/asgard", subject, organisation);
    caller.client = Some("inspector".into());
    caller.username = Some("thor".into());
    caller.scopes = vec!["mcp".into()];
    caller.roles = vec!["user".into()];
    caller
}

fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap()
}

fn job(era: Era, method: &str, mut params: Value) -> Job {
    let capabilities = json!({ "elicitation": {} });
    let modern = era == Era::Stateless;
    let mut meta = json!({ "progressToken": "p" });
    if modern {
        meta["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
        meta["io.modelcontextprotocol/clientCapabilities"] = capabilities.clone();
    }
    params["_meta"] = meta;
    Job {
        call: CALL.into(),
        server: "default".into(),
        era,
        protocol: if modern { "2026-07-28" } else { "2025-11-25" }.into(),
        principal: principal("f3a1", "org-1"),
        session: None,
        peer: (!modern).then(|| {
            raw(&json!({ "protocolVersion": "2025-11-25", "capabilities": capabilities,
                "clientInfo": { "name": "test", "version": "1" } }))
        }),
        log_level: None,
        headers: Vec::new(),
        answer_only: false,
        task: None,
        message: raw(&json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })),
    }
}

fn call(era: Era, name: &str, arguments: Value) -> Job {
    job(era, "tools/call", json!({ "name": name, "arguments": arguments }))
}

struct Running {
    outbox: Arc<Recorder>,
    inbox: mpsc::Sender<Inbound>,
    abort: CancellationToken,
    answer: tokio::task::JoinHandle<Option<Box<RawValue>>>,
}

impl Running {
    fn start(runner: &Arc<RmcpRunner<Toolbox>>, job: Job) -> Self {
        let (inbox, received) = mpsc::channel(16);
        let (outbox, abort) = (Arc::new(Recorder::default()), CancellationToken::new());
        let (sink, token, runner) = (Arc::clone(&outbox), abort.clone(), Arc::clone(runner));
        let answer = tokio::spawn(async move { runner.run(job, sink, received, token).await });
        Self { outbox, inbox, abort, answer }
    }

    async fn answer(self) -> Option<Value> {
        let answer =
            tokio::time::timeout(Duration::from_secs(20), self.answer).await.expect("an end").unwrap();
        answer.map(|answer| serde_json::from_str(answer.get()).unwrap())
    }
}

async fn run(runner: &Arc<RmcpRunner<Toolbox>>, job: Job) -> (Value, Vec<Value>) {
    let running = Running::start(runner, job);
    let outbox = Arc::clone(&running.outbox);
    (running.answer().await.expect("an answer"), outbox.all())
}

fn toolbox(config: Config) -> Arc<RmcpRunner<Toolbox>> {
    Arc::new(RmcpRunner::new(Arc::new(Toolbox::new(config).unwrap())))
}

fn toolbox_with(keys: &StateKeys) -> Arc<RmcpRunner<Toolbox>> {
    let toolbox = Toolbox::new(Config::default()).unwrap();
    Arc::new(RmcpRunner::new(Arc::new(toolbox)).with_state_keys(keys.clone()))
}

fn journal(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const ERAS: [Era; 2] = [Era::Stateful, Era::Stateless];

#[tokio::test]
async fn the_list_says_what_each_tool_is() {
    let runner = toolbox(Config::default());
    for era in ERAS {
        let (answer, _) = run(&runner, job(era, "tools/list", json!({}))).await;
        let tools = answer["result"]["tools"].as_array().unwrap().clone();
        let names: Vec<_> = tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect();
        let all = [
            "add_note",
            "echo",
            "list_notes",
            "long_report",
            "plan_outing",
            "rank_days",
            "report",
            "slow_count",
            "slow_echo",
            "wait",
            "weather_on",
            "whoami",
        ];
        assert_eq!(names, all, "in a steady order");
        for tool in &tools {
            assert!(tool["title"].is_string() && tool["description"].is_string(), "{tool}");
            assert_eq!(tool["annotations"]["openWorldHint"], false, "{tool}");
            let harmless = !["add_note", "slow_count"].contains(&tool["name"].as_str().unwrap());
            assert_eq!(tool["annotations"]["readOnlyHint"], harmless, "{tool}");
            assert_eq!(tool["annotations"]["idempotentHint"], harmless, "{tool}");
            let structured = !["echo", "wait"].contains(&tool["name"].as_str().unwrap());
            assert_eq!(tool["outputSchema"]["type"] == "object", structured, "{tool}");
            let verdict = if harmless { Rerun::Safe } else { Rerun::Unsafe };
            assert_eq!(runner.rerun(tool["name"].as_str().unwrap()), verdict, "{tool}");
        }
    }
}

#[tokio::test]
async fn a_label_is_in_the_answer_and_in_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("journal");
    let runner = toolbox(Config { journal: Some(file.clone()), ..Config::default() });
    for label in ["one of them", ""] {
        let arguments = json!({ "total_ms": 0, "label": label });
        let (answer, _) = run(&runner, call(Era::Stateless, "slow_count", arguments)).await;
        assert_eq!(answer["result"]["structuredContent"]["label"].as_str().unwrap_or_default(), label);
    }
    let labels: Vec<_> = journal(&file).iter().map(|line| line["label"].clone()).collect();
    assert_eq!(labels, [json!("one of them"), json!("one of them"), Value::Null, Value::Null]);
    let long = json!({ "total_ms": 0, "label": "x".repeat(65) });
    let (answer, _) = run(&runner, call(Era::Stateless, "slow_count", long)).await;
    assert_eq!(answer["result"]["isError"], true, "{answer}");
}

#[tokio::test]
async fn a_report_shows_each_step_and_comes_out_the_same() {
    let runner = toolbox(Config::default());
    let mut results = BTreeSet::new();
    for era in ERAS {
        let arguments = json!({ "measure": "precipitation", "by": "month", "steps": 40, "step_ms": 1 });
        let (answer, emitted) = run(&runner, call(era, "report", arguments)).await;
        let steps: Vec<_> =
            emitted.iter().map(|event| event["params"]["progress"].as_f64().unwrap()).collect();
        assert_eq!(steps, (1..=40).map(f64::from).collect::<Vec<_>>());
        assert!(emitted.iter().all(|event| event["params"]["total"] == 40.0
            && event["params"]["progressToken"] == "p"
            && event["method"] == "notifications/progress"));
        assert_eq!(emitted[6]["params"]["message"], "resample 7 of 40");
        let report = &answer["result"]["structuredContent"];
        assert_eq!(report["groups"].as_array().unwrap().len(), 12);
        assert_eq!(report["unit"], "mm");
        let (november, july) = (&report["groups"][10], &report["groups"][6]);
        assert!(
            november["low"].as_f64().unwrap() > july["high"].as_f64().unwrap(),
            "Seattle's rain: {report}"
        );
        results.insert(report.to_string());
    }
    assert_eq!(results.len(), 1);
}

#[tokio::test]
async fn quick_tools_answer() {
    let runner = toolbox(Config::default());
    for era in ERAS {
        let (answer, _) = run(&runner, call(era, "weather_on", json!({ "date": "2014-02-29" }))).await;
        assert_eq!(answer["result"]["isError"], true);
        let (answer, _) = run(&runner, call(era, "weather_on", json!({ "date": "2012-02-29" }))).await;
        let day = json!({ "date": "2012-02-29", "precipitation_mm": 0.8, "temperature_max_c": 5.0,
            "temperature_min_c": 1.1, "wind_m_s": 7.0 });
        assert_eq!(answer["result"]["structuredContent"], day);
        let ranked = json!({ "measure": "temperature_max", "count": 3 });
        let (answer, _) = run(&runner, call(era, "rank_days", ranked)).await;
        let days = answer["result"]["structuredContent"]["days"].as_array().unwrap().clone();
        assert_eq!(days.len(), 3);
        assert!(days[0]["temperature_max_c"].as_f64() >= days[2]["temperature_max_c"].as_f64());
        assert!(days[0]["temperature_max_c"].as_f64().unwrap() > 33.0, "{days:?}");
        let (answer, emitted) = run(&runner, call(era, "echo", json!({ "text": "hail" }))).await;
        assert_eq!(answer["result"]["content"][0]["text"], "hail");
        assert!(emitted.is_empty());
        let (answer, _) = run(&runner, call(era, "whoami", json!({}))).await;
        assert_eq!(
            answer["result"]["structuredContent"],
            json!({ "issuer": "https://issuer.example/realms/asgard", "subject": "f3a1", "organisation": "org-1",
                "username": "thor", "client": "inspector", "scopes": ["mcp"], "roles": ["user"], "groups": [] })
        );
    }
}

#[tokio::test]
async fn arguments_have_bounds() {
    let runner = toolbox(Config::default());
    let bad = [
        ("report", json!({ "steps": 0 })),
        ("report", json!({ "steps": 10_001 })),
        ("report", json!({ "steps": 10_000, "step_ms": 10_000 })),
        ("report", json!({ "steps": 2, "step_ms": u64::MAX })),
        ("report", json!({ "measure": "snow" })),
        ("rank_days", json!({ "count": 0 })),
        ("rank_days", json!({ "count": 101 })),
        ("slow_echo", json!({ "total_ms": 3_600_001 })),
        ("slow_count", json!({ "total_ms": 1, "events": 10_001 })),
        ("wait", json!({ "seconds": 3_601 })),
        ("wait", json!({ "seconds": u64::MAX })),
        ("list_notes", json!({ "count": 0 })),
        ("add_note", json!({ "text": "" })),
        ("plan_outing", json!({ "month": 13 })),
        ("weather_on", json!({})),
    ];
    for (name, arguments) in bad {
        let (answer, _) = run(&runner, call(Era::Stateless, name, arguments.clone())).await;
        assert_eq!(answer["result"]["isError"], true, "{name} {arguments}: {answer}");
    }
    // Lengths are of characters, and an integer may be written with a point.
    let good = [
        ("add_note", json!({ "text": "é".repeat(4_000) })),
        ("slow_count", json!({ "total_ms": 0.0, "label": "é".repeat(64) })),
        ("rank_days", json!({ "count": 3.0 })),
    ];
    let folder = tempfile::tempdir().unwrap();
    let runner = toolbox(Config { data: Some(folder.path().into()), ..Config::default() });
    for (name, arguments) in good {
        let (answer, _) = run(&runner, call(Era::Stateless, name, arguments.clone())).await;
        assert!(answer["result"]["structuredContent"].is_object(), "{name} {arguments}: {answer}");
    }
    let (answer, _) = run(&runner, call(Era::Stateless, "no_such_tool", json!({}))).await;
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
}

#[tokio::test]
async fn slow_tools_take_their_time_and_spread_their_events() {
    let runner = toolbox(Config::default());
    for (name, total_ms, events) in [("slow_echo", 60, 5), ("slow_count", 40, 3), ("slow_echo", 20, 0)] {
        let asked = Instant::now();
        let arguments = json!({ "text": "t", "total_ms": total_ms, "events": events });
        let (answer, emitted) = run(&runner, call(Era::Stateless, name, arguments)).await;
        assert!(asked.elapsed() >= Duration::from_millis(total_ms));
        assert_eq!(emitted.len(), events);
        assert_eq!(answer["result"]["structuredContent"]["worker"], std::process::id());
    }
    for count in 2..4 {
        let (answer, _) = run(&runner, call(Era::Stateless, "slow_count", json!({ "total_ms": 0 }))).await;
        assert_eq!(answer["result"]["structuredContent"]["count"], count);
    }
    let mut other = call(Era::Stateless, "slow_count", json!({ "total_ms": 0 }));
    other.principal = principal("f3a1", "org-2");
    assert_eq!(run(&runner, other).await.0["result"]["structuredContent"]["count"], 1);
}

#[tokio::test]
async fn the_journal_counts_runs_steps_and_ends() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("journal");
    let runner = toolbox(Config { journal: Some(file.clone()), ..Config::default() });
    run(&runner, call(Era::Stateless, "report", json!({ "steps": 2 }))).await;
    run(&runner, call(Era::Stateless, "echo", json!({ "text": "x" }))).await;
    run(&runner, call(Era::Stateless, "no_such_tool", json!({}))).await;
    let lines = journal(&file);
    let progress: Vec<_> =
        lines.iter().map(|line| format!("{} {} {}", line["tool"], line["event"], line["step"])).collect();
    let expected = [
        r#""report" "start" null"#,
        r#""report" "step" 1"#,
        r#""report" "step" 2"#,
        r#""report" "end" null"#,
        r#""echo" "start" null"#,
        r#""echo" "end" null"#,
    ];
    assert_eq!(progress, expected);
    assert!(lines.iter().all(|line| line["call"] == CALL && line["pid"] == std::process::id()));
    assert!(lines.iter().all(|line| line["at_ms"].as_u64().unwrap() > 1_700_000_000_000));
}

#[tokio::test]
async fn slow_tools_hear_the_client_cancel_and_an_abort_drops_them() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("journal");
    let runner = toolbox(Config { journal: Some(file.clone()), ..Config::default() });
    let slow = [
        ("report", json!({ "steps": 10_000, "step_ms": 100 })),
        ("slow_echo", json!({ "total_ms": 60_000, "events": 10_000 })),
        ("slow_count", json!({ "total_ms": 60_000, "events": 10_000 })),
        ("wait", json!({ "seconds": 60 })),
    ];
    let mut seen = 0;
    for (name, arguments) in slow {
        for (abort, end) in [(false, "end"), (true, "dropped")] {
            let running = Running::start(&runner, call(Era::Stateful, name, arguments.clone()));
            while journal(&file).len() <= seen {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let asked = Instant::now();
            if abort {
                running.abort.cancel();
            } else {
                let cancelled = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } });
                running.inbox.send(Inbound::Notification(raw(&cancelled))).await.unwrap();
            }
            assert!(running.answer().await.is_none());
            assert!(asked.elapsed() < Duration::from_millis(800), "{name}: {:?}", asked.elapsed());
            let lines = journal(&file);
            assert_eq!(lines.last().unwrap()["event"], end, "{name}");
            seen = lines.len();
        }
    }
    let (answer, _) = run(&runner, call(Era::Stateful, "slow_count", json!({ "total_ms": 0 }))).await;
    assert_eq!(answer["result"]["structuredContent"]["count"], 1, "what was cancelled was not counted");
}

#[tokio::test]
async fn notes_are_kept_by_organisation() {
    let directory = tempfile::tempdir().unwrap();
    let runner = toolbox(Config { data: Some(directory.path().into()), ..Config::default() });
    for text in ["one", "two"] {
        let (answer, _) = run(&runner, call(Era::Stateless, "add_note", json!({ "text": text }))).await;
        assert_eq!(answer["result"]["structuredContent"]["author"], "thor");
    }
    // Another worker with the same directory.
    let other = toolbox(Config { data: Some(directory.path().into()), ..Config::default() });
    let (answer, _) = run(&other, call(Era::Stateful, "list_notes", json!({}))).await;
    let notes = &answer["result"]["structuredContent"]["notes"];
    assert_eq!((&notes[0]["text"], &notes[1]["text"]), (&json!("two"), &json!("one")));
    let mut stranger = call(Era::Stateful, "list_notes", json!({}));
    stranger.principal = principal("f3a1", "org-2");
    assert_eq!(run(&other, stranger).await.0["result"]["structuredContent"]["notes"], json!([]));
    let nowhere = toolbox(Config::default());
    let (answer, _) = run(&nowhere, call(Era::Stateless, "add_note", json!({ "text": "x" }))).await;
    assert!(answer["result"]["content"][0]["text"].as_str().unwrap().contains("ASGARD_DATA"), "{answer}");
}

#[tokio::test]
async fn a_session_is_asked_by_a_request() {
    let runner = toolbox(Config::default());
    let replies: BTreeMap<&str, (Vec<Value>, Value)> = [
        ("accepts", (vec![json!({ "action": "accept", "content": { "wish": "warm" } })], json!("warm"))),
        ("declines", (vec![json!({ "action": "decline" })], Value::Null)),
        ("cancels", (vec![json!({ "action": "cancel" })], Value::Null)),
        (
            "errs first",
            (
                vec![
                    json!({ "action": "accept", "content": { "wish": "snow" } }),
                    json!({ "action": "accept", "content": { "wish": "calm" } }),
                ],
                json!("calm"),
            ),
        ),
        ("errs always", (vec![json!({ "action": "accept" }); 3], Value::Null)),
    ]
    .into();
    for (who, (replies, wish)) in replies {
        let running = Running::start(&runner, call(Era::Stateful, "plan_outing", json!({ "month": 7 })));
        for (n, reply) in replies.iter().enumerate() {
            let asked = running.outbox.nth(n).await;
            assert_eq!(asked["method"], "elicitation/create");
            assert_eq!(asked["id"], format!("{CALL}:{n}"));
            let wishes = &asked["params"]["requestedSchema"]["properties"]["wish"]["enum"];
            assert_eq!(*wishes, json!(["dry", "warm", "calm"]), "{asked}");
            let reply = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": reply });
            running.inbox.send(Inbound::Response(raw(&reply))).await.unwrap();
        }
        let answer = running.answer().await.unwrap();
        assert_eq!(answer["result"]["structuredContent"]["wish"], wish, "{who}: {answer}");
        assert_eq!(answer["result"]["isError"] == true, wish.is_null(), "{who}: {answer}");
    }
    let mut mute = call(Era::Stateful, "plan_outing", json!({ "month": 7 }));
    mute.peer = None;
    let (answer, emitted) = run(&runner, mute).await;
    assert_eq!(answer["result"]["structuredContent"]["wish"], "dry");
    assert!(emitted.is_empty());
}

#[tokio::test]
async fn a_modern_client_is_asked_by_a_result() {
    let keys = StateKeys::random();
    let (runner, other) = (toolbox_with(&keys), toolbox_with(&keys));
    let round = |month: u8, state: Option<&str>, reply: Option<Value>| {
        let mut params = json!({ "name": "plan_outing", "arguments": { "month": month } });
        if let Some(state) = state {
            params["requestState"] = json!(state);
        }
        if let Some(reply) = reply {
            params["inputResponses"] = json!({ "wish": reply });
        }
        job(Era::Stateless, "tools/call", params)
    };
    let (asked, emitted) = run(&runner, round(7, None, None)).await;
    assert!(emitted.is_empty());
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    let question = &asked["result"]["inputRequests"]["wish"];
    assert_eq!(question["method"], "elicitation/create");
    assert_eq!(question["params"]["requestedSchema"]["required"], json!(["wish"]));
    let state = asked["result"]["requestState"].as_str().unwrap().to_owned();
    let accept = || Some(json!({ "action": "accept", "content": { "wish": "warm" } }));

    // The answer may reach any worker.
    let (answer, _) = run(&other, round(7, Some(&state), accept())).await;
    let plan = &answer["result"]["structuredContent"];
    assert_eq!((&plan["month"], &plan["wish"]), (&json!(7), &json!("warm")), "{answer}");
    assert_eq!(plan["days"].as_array().unwrap().len(), 3);
    assert_eq!(answer["result"]["resultType"], "complete");

    let (answer, _) = run(&runner, round(7, Some(&state), Some(json!({ "action": "decline" })))).await;
    assert_eq!(answer["result"]["isError"], true);
    // What doesn't fit, or was never asked for, leads to the question again.
    for (state, reply) in [
        (Some(state.as_str()), Some(json!({ "action": "accept", "content": { "wish": "snow" } }))),
        (Some(state.as_str()), Some(json!("?"))),
        (Some(state.as_str()), None),
        (None, accept()),
    ] {
        let (answer, _) = run(&runner, round(7, state, reply)).await;
        assert_eq!(answer["result"]["resultType"], "input_required", "{answer}");
    }
    // A state that was changed, or is another month's, caller's or server's.
    let mut changed = state.clone();
    changed.replace_range(state.len() - 2.., if state.ends_with("AA") { "BB" } else { "AA" });
    let (answer, _) = run(&runner, round(7, Some(&changed), accept())).await;
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
    let (answer, _) = run(&runner, round(8, Some(&state), accept())).await;
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
    let mut stolen = round(7, Some(&state), accept());
    stolen.principal = principal("someone-else", "org-1");
    assert_eq!(run(&runner, stolen).await.0["error"]["code"], -32602);
    let (answer, _) = run(&toolbox(Config::default()), round(7, Some(&state), accept())).await;
    assert_eq!(answer["error"]["code"], -32602, "{answer}");

    // A client that can't ask its user.
    let text = round(7, None, None).message.get().replace(r#"{"elicitation":{}}"#, "{}");
    let mut mute = round(7, None, None);
    mute.message = RawValue::from_string(text).unwrap();
    assert_eq!(run(&runner, mute).await.0["result"]["structuredContent"]["wish"], "dry");
}

#[test]
fn a_bad_setup_is_refused() {
    let nowhere = Config { journal: Some("/no/such/directory/journal".into()), ..Config::default() };
    let error = Toolbox::new(nowhere).err().unwrap().to_string();
    assert!(error.contains("/no/such/directory/journal"), "{error}");
}
