//! The official SDKs' clients, as released, at both entry points of a whole stack.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use e2e::journal::Line;
use e2e::{EntryPoint, Journal, Stack, tokens};
use sdks::kit::{Kit, Sdk};
use sdks::proxy::{Blanker, Cutter};
use sdks::{Mode, guide, kit, rust};
use serde_json::{Value, json};

/// Progress notifications after which a connection is cut: the first one, and the one that resumes it.
const CUTS: [usize; 2] = [3, 5];
/// Steps of the call that is cut.
const CUT_STEPS: u64 = 30;
/// How soon a tool must be gone, in milliseconds.
const SOON_MS: u64 = 1_000;

/// What an SDK can't do as it is released. `docs/clients.md` says it too; what is here is asserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lacks {
    /// When a resumed stream breaks too, it resumes from where the first one broke, and tells its caller the same
    /// events again. mcp 2.3.0 and 1.30.0, `client/streamable_http.py`, end of `_handle_reconnection`: an exception
    /// leads to another try with `last_event_id`, not with `reconnect_last_event_id`.
    SecondResumption,
    /// A caller that goes away (its task is cancelled) does not cancel the call at the server: mcp 1.30.0,
    /// `shared/session.py`, `send_request` sends no `notifications/cancelled`.
    CancelByLeaving,
    /// A call whose stream breaks in 2026-07-28, where nothing can be resumed, does not fail before its timeout:
    /// `@modelcontextprotocol/client` 2.4.0, `_handleSseStream` in `dist/index.mjs` reports to `onerror` and to
    /// `onRequestStreamEnd`, which only `listen` sets.
    EndOfBrokenCall,
    /// Notification handlers run beside each other, so a caller may see progress out of order: rmcp 3.11.0,
    /// `service.rs`, `serve_inner` spawns one task for each.
    Order,
}

/// A released client.
struct Released {
    name: &'static str,
    /// Which script; none: rmcp.
    sdk: Option<Sdk>,
    /// What it speaks, and the revision that it agrees on. Those that are not here it does not speak.
    speaks: &'static [(Mode, &'static str)],
    lacks: &'static [Lacks],
}

const ALL: [(Mode, &str); 3] =
    [(Mode::Modern, "2026-07-28"), (Mode::Session, "2025-11-25"), (Mode::Sse, "2025-11-25")];

const RELEASED: [Released; 5] = [
    Released {
        name: "Python mcp 2.3.0",
        sdk: Some(Sdk::Python),
        speaks: &ALL,
        lacks: &[Lacks::SecondResumption],
    },
    // `LATEST_PROTOCOL_VERSION` in its types.py is 2025-11-25.
    Released {
        name: "Python mcp 1.30.0",
        sdk: Some(Sdk::Python1),
        speaks: &[ALL[1], ALL[2]],
        lacks: &[Lacks::SecondResumption, Lacks::CancelByLeaving],
    },
    Released {
        name: "TypeScript client 2.4.0",
        sdk: Some(Sdk::TypeScript),
        speaks: &ALL,
        lacks: &[Lacks::EndOfBrokenCall],
    },
    // `LATEST_PROTOCOL_VERSION` in its types.js is 2025-11-25.
    Released {
        name: "TypeScript sdk 1.32.2",
        sdk: Some(Sdk::TypeScript1),
        speaks: &[ALL[1], ALL[2]],
        lacks: &[],
    },
    // src/transport/ has no HTTP+SSE client.
    Released { name: "rmcp 3.11.0", sdk: None, speaks: &[ALL[0], ALL[1]], lacks: &[Lacks::Order] },
];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a running stack and released clients: ./asgard test sdks"]
async fn released_clients_do_all_that_they_can() {
    let (stack, kit) = (Stack::claim().await, Kit::find());
    let mut failed = Vec::new();
    for client in &RELEASED {
        for (mode, revision) in client.speaks {
            for entry_point in EntryPoint::BOTH {
                let problems = judge(&stack, &kit, client, *mode, revision, entry_point).await;
                let verdict = if problems.is_empty() { "all as it should be" } else { "FAILED" };
                println!("{entry_point:?}: {}, {}: {verdict}", client.name, mode.name());
                let named =
                    |problem: String| format!("{}, {}, {entry_point:?}: {problem}", client.name, mode.name());
                failed.extend(problems.into_iter().map(named));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Runs a client and says what is wrong with what it saw, and with what the tools did.
async fn judge(
    stack: &Stack,
    kit: &Kit,
    client: &Released,
    mode: Mode,
    revision: &str,
    entry_point: EntryPoint,
) -> Vec<String> {
    let suffix = if mode == Mode::Sse { "/sse" } else { "" };
    let url = format!("{}{suffix}", stack.endpoint(entry_point, "org-1"));
    let port = match entry_point {
        EntryPoint::Bifrost => stack.state.ports.gateway,
        EntryPoint::Hermod => stack.state.ports.pushpin,
    };
    let cutter = Cutter::before(port, &CUTS).await;
    let cut_url = format!("http://localhost:{}/api/v1/mcp/org-1", cutter.port);
    let blanker = Blanker::before(port).await;
    let blank_url = format!("http://localhost:{}/api/v1/mcp/org-1", blanker.port);
    let token = tokens::token(stack, "thor", "org-1").await;
    let journal = stack.journal();
    let urls = [url.as_str(), &cut_url, &blank_url];
    let seen = match client.sdk {
        Some(sdk) => kit.run(sdk, mode, urls, &token).await,
        None => rust::run(mode, urls, &token).await,
    };

    let mut problems = Problems::default();
    for (name, seen) in &seen {
        problems.unless(seen.get("error").is_none(), name, seen);
    }
    let of = |name: &str| seen.get(name).cloned().unwrap_or_else(|| json!("was not run"));

    let case = of("connect");
    problems.unless(case["revision"] == revision, "connect", &case);

    let case = of("list");
    let tools: Vec<&str> = case["tools"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    problems.unless(tools.len() == 12 && tools.contains(&"plan_outing"), "list", &case);

    let case = of("progress");
    let steps = steps(&case, client);
    problems.unless(case["text"] == "x" && steps == (1..=10).collect::<Vec<_>>(), "progress", &case);

    let case = of("elicit");
    let plan = json!({"month": 7, "wish": "warm", "days": case["plan"]["days"]});
    problems.unless(case["asked"] == 1 && case["plan"] == plan, "elicit", &case);

    let case = of("cancel");
    problems.unless(case["then"] == "still here", "cancel", &case);
    problems.extend(stopped("cancel", &journal, case["at_ms"].as_u64().unwrap_or_default()).await);

    let case = of("refused");
    let refused = case["refused"].as_str().is_some_and(|text| text.starts_with("error"));
    let others = case["text"] == "x" && case["then"] == "still here";
    problems.unless(refused && others, "refused", &case);

    if let Some(case) = seen.get("leave") {
        problems.unless(case["then"] == "still here", "leave", case);
        let left = case["at_ms"].as_u64().unwrap_or_default();
        if client.lacks.contains(&Lacks::CancelByLeaving) {
            let ended =
                calls_at(&journal, left).iter().any(|call| call.last().is_some_and(|l| l.event == "end"));
            problems.unless(ended, "leave: the call goes on to its end", case);
        } else {
            problems.extend(stopped("leave", &journal, left).await);
        }
    }
    if mode != Mode::Sse {
        problems.extend(cut(client, mode, &of("cut"), &cutter, &journal).await);
    }
    if mode == Mode::Session {
        // Where nothing is left of a stream, it asks once, or a few times, and then stops.
        let (case, resumed) = (of("ended"), blanker.resumed());
        let answered = case["text"].as_str().is_some_and(|text| text.starts_with("error"));
        problems.unless(answered && case["then"] == "still here", "ended", &case);
        problems.unless((1..=4).contains(&resumed), &format!("ended: asked {resumed} times"), &case);
    }
    problems.0
}

/// Judges the call whose connection was cut.
async fn cut(client: &Released, mode: Mode, case: &Value, cutter: &Cutter, journal: &Journal) -> Vec<String> {
    let mut problems = Problems::default();
    problems.unless(case["then"] == "still here", "cut", case);
    let made = cutter.made();
    let got = steps(case, client);
    if mode == Mode::Modern {
        // There a cut is the client's leave: nothing is resumed, the caller learns it, the work stops.
        let text = case["text"].as_str().unwrap_or_default();
        problems.unless(made.len() == 1 && text.starts_with("error"), "cut", case);
        let late = case["took_ms"].as_u64().is_some_and(|took| took >= 10_000);
        problems.unless(late == client.lacks.contains(&Lacks::EndOfBrokenCall), "cut: when it failed", case);
        let started: Vec<u64> = (1..=got.len() as u64).collect();
        problems.unless(got == started && got.len() < CUT_STEPS as usize, "cut", case);
        problems.extend(stopped("cut", journal, made.first().copied().unwrap_or_default()).await);
        return problems.0;
    }
    let all: Vec<u64> = (1..=CUT_STEPS).collect();
    problems.unless(
        made.len() == CUTS.len() && case["text"] == "x",
        &format!("cut {} times", made.len()),
        case,
    );
    if client.lacks.contains(&Lacks::SecondResumption) {
        // The second try begins where the first one did: after the first cut.
        let again = got.windows(2).position(|pair| pair[1] <= pair[0]).map_or(0, |at| at + 1);
        let (first, second) = got.split_at(again);
        let from = second.first().copied().unwrap_or_default();
        problems.unless(all.starts_with(first) && first.len() > CUTS[0], "cut: the first resumption", case);
        problems.unless(all.ends_with(second) && from as usize <= CUTS[0] + 1, "cut: the second one", case);
    } else {
        problems.unless(got == all, "cut: every event once, in order", case);
    }
    problems.0
}

/// What is wrong.
#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn unless(&mut self, fine: bool, what: &str, seen: &Value) {
        if !fine {
            self.0.push(format!("{what}: {seen}"));
        }
    }

    fn extend(&mut self, more: Vec<String>) {
        self.0.extend(more);
    }
}

/// The progress that the caller saw.
fn steps(case: &Value, client: &Released) -> Vec<u64> {
    let steps = case["steps"].as_array().into_iter().flatten();
    let mut steps: Vec<u64> = steps.filter_map(|step| Some(step.as_f64()? as u64)).collect();
    if client.lacks.contains(&Lacks::Order) {
        steps.sort_unstable();
    }
    steps
}

/// The lines of each `slow_echo` call that ran at a time.
fn calls_at(journal: &Journal, at_ms: u64) -> Vec<Vec<Line>> {
    let lines = journal.lines();
    let mut calls: Vec<Vec<Line>> = Vec::new();
    for line in lines.into_iter().filter(|line| line.tool == "slow_echo") {
        match calls.iter_mut().find(|call| call[0].call == line.call) {
            Some(call) => call.push(line),
            None => calls.push(vec![line]),
        }
    }
    calls.retain(|call| call[0].at_ms <= at_ms && call.last().is_some_and(|line| line.at_ms >= at_ms));
    calls
}

/// What is wrong with the end of the call that was given up at a time: its tool must have been dropped within a
/// second, and have done nothing since.
async fn stopped(what: &str, journal: &Journal, at_ms: u64) -> Vec<String> {
    // Some steps' time: nothing more comes.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let calls = calls_at(journal, at_ms);
    let [call] = calls.as_slice() else {
        return vec![format!("{what}: {} calls ran at {at_ms}", calls.len())];
    };
    let end = &call[call.len() - 1];
    if end.event == "dropped" && end.at_ms <= at_ms + SOON_MS {
        return Vec::new();
    }
    vec![format!("{what}: given up at {at_ms}, the tool's last line is {end:?}")]
}

/// The code of `docs/clients.md` works as it stands there. (That in Rust is compiled as a documentation test.)
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a running stack and released clients: ./asgard test sdks"]
async fn the_guides_code_works() {
    let (stack, kit) = (Stack::claim().await, Kit::find());
    let mut ran = 0;
    for entry_point in EntryPoint::BOTH {
        let token = tokens::token(&stack, "thor", "org-1").await;
        for block in guide::blocks() {
            let name = format!("block-{}", block.line);
            let mut command = match block.language.as_str() {
                "python" => {
                    let mut command = kit.python(Sdk::Python);
                    command.args(["-c", &block.code]);
                    command
                }
                "js" => kit.node(&format!("{name}.mjs"), &block.code),
                "sh" => kit.shell(&block.code),
                _ => continue,
            };
            command.env("URL", stack.endpoint(entry_point, "org-1")).env("TOKEN", &token);
            let output = kit::output(command).await;
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success() && said.contains("hello"),
                "docs/clients.md:{}, {entry_point:?}: {}\n{said}\n{}",
                block.line,
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
            ran += 1;
        }
    }
    println!("Both entry points: {ran} blocks of docs/clients.md");
    assert!(ran >= 10, "{ran}");
}

/// The Inspector's command line: both eras, and HTTP+SSE.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a running stack and released clients: ./asgard test sdks"]
async fn the_inspectors_command_line_works() {
    let (stack, kit) = (Stack::claim().await, Kit::find());
    for entry_point in EntryPoint::BOTH {
        let token = tokens::token(&stack, "thor", "org-1").await;
        for target in [
            "\"$URL\" --transport http --protocol-era legacy",
            "\"$URL\" --transport http --protocol-era modern",
            "\"$URL/sse\" --transport sse",
        ] {
            for (method, expected) in [
                // Exit code 6 if a schema is one that clients may refuse.
                ("tools/list --strict", "\"slow_echo\""),
                (
                    r#"tools/call --tool-name slow_echo --tool-args-json '{"text": "hello", "total_ms": 400, "events": 4}'"#,
                    r#""structuredContent":{"text":"hello""#,
                ),
            ] {
                let mut command = kit.shell(&format!(
                    "mcp-inspector --cli {target} --header \"Authorization: Bearer $TOKEN\" --format json --method {method}"
                ));
                command.env("URL", stack.endpoint(entry_point, "org-1")).env("TOKEN", &token);
                let output = kit::output(command).await;
                let (said, complaints) =
                    (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
                assert!(
                    output.status.success() && said.contains(expected) && !complaints.contains("Warning"),
                    "{entry_point:?} {target} {method}: {}\n{said}\n{complaints}",
                    output.status
                );
            }
        }
        println!("{entry_point:?}: the Inspector's command line, legacy, modern and HTTP+SSE");
    }
}

#[test]
fn the_table_names_the_pinned_versions() {
    let pins: String = [
        "environments/python-2/requirements.in",
        "environments/python-1.30/requirements.in",
        "environments/typescript-2/package.json",
        "../../Cargo.toml",
    ]
    .map(|file| std::fs::read_to_string(kit::source(file)).unwrap())
    .concat();
    for client in &RELEASED {
        let version = client.name.rsplit(' ').next().unwrap();
        assert!(pins.contains(version), "{} is not what is pinned", client.name);
    }
}
