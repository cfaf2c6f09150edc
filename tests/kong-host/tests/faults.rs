//! The filter's table of faults (`kong-filter/tests/faults.json`), which is run in Envoy too, behind the shipped
//! `kong.yml`.
//!
//! Needs the filter's module: `scripts/build-filter`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod common;
#[path = "common/site.rs"]
mod site;
#[path = "../../../kong-filter/tests/support/mod.rs"]
mod support;

use std::time::Duration;

use common::Seen;
use site::{Key, Site, filter};
use support::{Answer, Case, Keys, Sent, Table};

async fn send(site: &Site, sent: &Sent, mark: String) -> (Answer, Option<Seen>) {
    let (port, sent) = (site.gateway.address().port(), sent.clone());
    let with = mark.clone();
    let work = move || support::net::send(port, &sent, &[("X-Mark", &with)]);
    let answer = tokio::task::spawn_blocking(work).await.unwrap().unwrap();
    let seen =
        site.backends.iter().flat_map(common::Server::seen).find(|s| s.all("x-mark") == [mark.as_str()]);
    (answer, seen)
}

/// Where Kong takes the fault away before the filter sees it: the request passes, and nothing of the fault with it.
fn is_taken_away(case: &Case) -> bool {
    case.expect["reason"] == "identity_header"
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_faults() {
    let (table, keys) = (Table::read(), Keys::new());
    let config = |keycloak: &str| {
        let mut config = table.config(keycloak);
        config["kong_scheme"] = "http".into();
        config.to_string()
    };
    let site = Site::with_keys(
        Some(filter()),
        Key::new("-", 1),
        keys.jwks().to_string(),
        support::introspection,
        config,
    )
    .await
    .unwrap();
    let mut wrong = Vec::new();
    for number in 0..table.len() {
        let case = &table.case(number, &keys, support::now());
        let (answer, reached) = send(&site, &case.fault, format!("fault-{number}")).await;
        if is_taken_away(case) {
            let seen =
                reached.unwrap_or_else(|| panic!("{}: {} {}", case.name, answer.status, answer.json()));
            let forged: Vec<&str> =
                case.fault.headers.iter().skip(1).map(|(_, value)| value.as_str()).collect();
            if seen.headers.iter().any(|(_, value)| forged.contains(&value.as_str())) {
                wrong.push(format!("{}: it arrived", case.name));
            }
        } else {
            if let Some(difference) = support::difference(case, &answer) {
                wrong.push(format!("{}: {difference}", case.name));
            }
            if reached.is_some() {
                wrong.push(format!("{}: reached the backend", case.name));
            }
        }
        tokio::time::sleep(Duration::from_secs(if case.pause_s > 0 { case.pause_s + 1 } else { 0 })).await;
        let (answer, reached) = send(&site, &case.twin, format!("twin-{number}")).await;
        if answer.status != 200 || reached.is_none() {
            wrong.push(format!("{}: the twin is refused: {} {}", case.name, answer.status, answer.json()));
        }
    }
    assert_eq!(wrong, Vec::<String>::new(), "{:?}", site.gateway.log().lines().last());
    println!("{} faults refused or taken away, each beside an accepted twin", table.len());
}
