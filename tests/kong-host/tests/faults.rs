//! The corpus (`tests/corpus`), as far as the filter alone refuses it, behind the shipped `kong.yml` and before
//! backends that record what reaches them.
//!
//! Needs the filter's module: `scripts/build-filter`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may fail

mod common;
#[path = "common/shipped_gateway.rs"]
mod shipped_gateway;

use common::Seen;
use corpus::{Answer, Keys, Sent, Table};
use shipped_gateway::{Key, ShippedGateway, filter};

async fn send(site: &ShippedGateway, sent: &Sent, mark: String) -> (Answer, Option<Seen>) {
    let (port, sent) = (site.gateway.address().port(), sent.clone());
    let with = mark.clone();
    let work = move || corpus::net::send(port, &sent, &[("X-Mark", &with)]);
    let answer = tokio::task::spawn_blocking(work).await.unwrap().unwrap();
    let seen =
        site.backends.iter().flat_map(common::Server::seen).find(|s| s.all("x-mark") == [mark.as_str()]);
    (answer, seen)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the filter's module: ./asgard test kong"]
async fn the_corpus() {
    let (table, keys) = (Table::read(), Keys::new());
    let config = |keycloak: &str| {
        let mut config = table.config(keycloak);
        config["kong_scheme"] = "http".into();
        config.to_string()
    };
    let site = ShippedGateway::with_keys(
        Some(filter()),
        Key::new("-", 1),
        keys.jwks().to_string(),
        corpus::introspection,
        config,
    )
    .await
    .unwrap();
    let mut wrong = Vec::new();
    for (number, row) in table.rows().iter().enumerate() {
        // Times count from the moment of sending: the interpreter is slow.
        let case = table.case(row, &keys, corpus::now());
        if !case.by_filter {
            continue;
        }
        let (answer, reached) = send(&site, &case.fault, format!("fault-{number}")).await;
        match reached {
            // Where Kong takes the fault away, the request passes, and nothing of the fault with it.
            Some(seen) if case.removed => {
                if seen.headers.iter().any(|(_, value)| value.contains(&case.forged())) {
                    wrong.push(format!("{}: it arrived", case.name));
                }
            }
            Some(_) => wrong.push(format!("{}: reached the backend", case.name)),
            None if case.removed => wrong.push(format!("{}: refused: {}", case.name, answer.json())),
            None => {
                wrong.extend(corpus::difference(&case, &answer).map(|what| format!("{}: {what}", case.name)));
            }
        }
        tokio::time::sleep(case.pause()).await;
        let (answer, reached) = send(&site, &case.twin, format!("twin-{number}")).await;
        if answer.status != 200 || reached.is_none() {
            wrong.push(format!("{}: the twin is refused: {} {}", case.name, answer.status, answer.json()));
        }
    }
    assert_eq!(wrong, Vec::<String>::new(), "{:?}", site.gateway.log().lines().last());
}
