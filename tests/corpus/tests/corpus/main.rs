//! The whole corpus against everything that is real here: Envoy with the shipped file and the host that behaves
//! as Kong does with the shipped files, each with a backend of its own behind it, at both entry points: straight, and
//! through a Pushpin in front.
//!
//! Needs the filter's module (`scripts/build-filter`), `mcp-backend` (beside this test's own folder, or named by
//! `ASGARD_BACKEND`), Envoy (`ASGARD_ENVOY`, or on PATH) and Pushpin.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod edge;

use corpus::{Answer, Case, Keys, Table, difference, net, now};
use edge::{Edge, Gateway};

/// What became of the rows at an entry point.
#[derive(Debug, Default)]
struct Tally {
    refused: usize,
    taken_away: usize,
    /// The ids in the filter's refusals.
    ids: Vec<String>,
    wrong: Vec<String>,
}

/// What every client of a fault says is the request's id: no refusal may believe it.
const CLIENTS_ID: &str = "0123456789abcdef0123456789abcdef";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs the filter's module, Envoy and Pushpin: ./asgard test corpus"]
async fn no_hostile_request_is_accepted() {
    let (table, keys) = (Table::read(), Keys::new());
    for (class, rows) in table.classes() {
        assert!(rows >= 3, "{class} has {rows} rows; at least 3 are wanted");
    }
    assert!(table.rows().len() >= 120);
    let issuer = net::Server::start(200, keys.jwks().to_string()).introspecting();
    let (mut wrong, mut refused, mut taken_away, mut direct) = (Vec::new(), 0, 0, 0);
    for gateway in [Gateway::Envoy, Gateway::Kong] {
        let site = Edge::start(gateway, &table, issuer.port).await;
        let entry_points = [("Bifrost", site.gateway_port), ("Hermod", site.pushpin_port)];
        let run = |port, straight| run(&table, &keys, port, straight);
        let tallies =
            tokio::task::block_in_place(|| [run(entry_points[0].1, true), run(entry_points[1].1, false)]);
        for ((entry_point, _), tally) in entry_points.into_iter().zip(tallies) {
            println!(
                "{entry_point}, {gateway:?}: {} refused, {} with the fault taken off on the way, {} wrong",
                tally.refused,
                tally.taken_away,
                tally.wrong.len()
            );
            let log = site.gateway_log();
            let logged = |id: &&String| log.contains(&format!("request={id}"));
            let lost: Vec<_> = tally.ids.iter().filter(|id| !logged(id)).collect();
            assert!(lost.is_empty(), "{entry_point}, {gateway:?}: ids that the log does not have: {lost:?}");
            let different: std::collections::BTreeSet<_> = tally.ids.iter().collect();
            assert!(
                different.len() == tally.ids.len() && different.len() > 100,
                "{entry_point}, {gateway:?}"
            );
            refused += tally.refused;
            taken_away += tally.taken_away;
            wrong.extend(tally.wrong.into_iter().map(|what| format!("{entry_point}, {gateway:?}: {what}")));
        }
        let tally = past_the_gateway(&table, &keys, site.backend_port);
        direct += tally.refused;
        wrong.extend(tally.wrong.into_iter().map(|what| format!("past {gateway:?}: {what}")));
        if !wrong.is_empty() {
            println!("{}", site.logs());
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    println!(
        "Corpus: {} hostile requests in {} classes, each beside a good one; sent {} times by 2 gateways on 2 entry points and \
         past them: {} refused, {taken_away} passed as somebody harmless with the fault taken off, 0 accepted",
        table.rows().len(),
        table.classes().len(),
        refused + taken_away + direct,
        refused + direct
    );
}

/// All rows that go through the gateway, at one entry point.
fn run(table: &Table, keys: &Keys, port: u16, straight: bool) -> Tally {
    let mut tally = Tally::default();
    for row in table.rows() {
        // Times count from the moment of sending.
        let mut case = table.case(row, keys, now());
        if case.to_backend {
            continue;
        }
        case.removed |= case.removed_by_pushpin && !straight;
        let said = format!("{}, {}", case.class, case.name);
        match net::send(port, &case.fault, &[("X-Request-Id", CLIENTS_ID)]) {
            Ok(answer) => {
                judge(&case, &answer, &said, &mut tally);
                identify(&answer, &said, &mut tally);
            }
            // Something in front cut the connection: nothing was accepted.
            Err(_) if case.gateway_may_answer => tally.refused += 1,
            Err(error) => tally.wrong.push(format!("{said}: no answer: {error}")),
        }
        std::thread::sleep(case.pause());
        twin(&case, port, &said, &mut tally);
    }
    tally
}

fn judge(case: &Case, answer: &Answer, said: &str, tally: &mut Tally) {
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    if case.removed && answer.status == 200 {
        // It passed without the fault: as the user of the token, where the tool tells, and as nobody else.
        let asked = case.fault.body.as_ref().is_some_and(|body| body.contains("whoami"));
        if answer.json()["result"].is_object() && text.contains("thor") == asked && !text.contains("mallory")
        {
            tally.taken_away += 1;
        } else {
            tally.wrong.push(format!("{said}: believed: {text}"));
        }
        return;
    }
    match difference(case, answer) {
        None => tally.refused += 1,
        Some(what) => tally.wrong.push(format!("{said}: {what}")),
    }
}

/// A refusal of the filter, which has a reason, has the gateway's own id too; Kong says the same one in a header.
fn identify(answer: &Answer, said: &str, tally: &mut Tally) {
    let body = answer.json();
    if !body["reason"].is_string() {
        return;
    }
    let own = answer.header("x-kong-request-id");
    match body["request_id"].as_str() {
        Some(id) if id != CLIENTS_ID && own.is_none_or(|own| own == id) => tally.ids.push(id.to_owned()),
        id => tally.wrong.push(format!("{said}: the id {id:?}, in the header {own:?}")),
    }
}

fn twin(case: &Case, port: u16, said: &str, tally: &mut Tally) {
    // Streams are taken a moment after the link to Pushpin stands; until then the backend says "try again".
    let mut answer = net::send(port, &case.twin, &[]);
    net::wait(10, || {
        let is_early = answer.as_ref().is_ok_and(|answer| answer.status == 503);
        if is_early {
            answer = net::send(port, &case.twin, &[]);
        }
        !is_early
    });
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return tally.wrong.push(format!("{said}: no answer to the twin: {error}")),
    };
    let done = case.twin.method != "POST" || answer.json()["result"].is_object() || case.twin_status != 200;
    if u64::from(answer.status) != case.twin_status || !done {
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        tally.wrong.push(format!("{said}: the twin: {} {text}", answer.status));
    }
}

/// The rows for whoever stands on the network behind the gateway.
fn past_the_gateway(table: &Table, keys: &Keys, backend: u16) -> Tally {
    let mut tally = Tally::default();
    for row in table.rows() {
        let case = table.case(row, keys, now());
        if case.to_backend {
            let said = format!("{}, {}", case.class, case.name);
            let answer = net::send(backend, &case.fault, &[]).unwrap();
            judge(&case, &answer, &said, &mut tally);
            twin(&case, backend, &said, &mut tally);
        }
    }
    tally
}
