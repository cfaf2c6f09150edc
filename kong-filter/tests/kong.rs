//! The table of faults against the built module in a host that behaves as Kong 3.9 was measured to, with
//! the Kong files that ship.
//!
//! Wants `target/wasm/kong_filter.wasm` (`scripts/build-filter`; or ASGARD_FILTER_WASM).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use identity::assertion::{AUDIENCE, AssertionKeys};
use kong_host::{Gateway, Setup};
use serde_json::{Value, json};
use support::net::{self, Server};
use support::{Keys, Table};

fn setup(config: &Value, issuer: &str, backends: &[&Server]) -> Setup {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let module = std::env::var_os("ASGARD_FILTER_WASM").map(PathBuf::from);
    let module = module.unwrap_or_else(|| root.join("target/wasm/kong_filter.wasm"));
    let wasm = std::fs::read(&module)
        .unwrap_or_else(|error| panic!("{}: {error}: run scripts/build-filter", module.display()));
    let target = |server: &&Server| json!({"target": format!("127.0.0.1:{}", server.port), "weight": 100});
    let text = |text: &str| text.to_owned();
    let values = BTreeMap::from([
        ("BACKEND_TARGETS", json!(backends.iter().map(target).collect::<Vec<_>>()).to_string()),
        ("CORS_ORIGINS", text(r#"["http://localhost:6274"]"#)),
        ("FILTER_CONFIG", config.to_string()),
        ("KEYCLOAK_ADDRESS", text(issuer)),
        ("GATEWAY_LISTEN", text("127.0.0.1:0")),
        ("KONG_STATUS_LISTEN", text("127.0.0.1:0")),
        ("KONG_CONF_DIR", text("/conf")),
        ("KONG_FILTERS_DIR", text("/filters")),
        ("KONG_PREFIX", text("/prefix")),
        ("KONG_USER", text("user")),
        ("KONG_WORKERS", text("1")),
        ("KONG_TRUSTED_IPS", text("127.0.0.1")),
        ("KONG_ERROR_LOG", text("/dev/stderr")),
    ]);
    let mut setup = Setup::shipped(root, &values).unwrap();
    setup.filters.insert("kong_filter".to_owned(), wasm);
    setup
}

#[test]
fn the_table_of_faults() {
    let (table, keys) = (Table::read(), Keys::new());
    let issuer = Server::start(200, keys.jwks().to_string());
    let backends = [Server::start(200, "{}".into()), Server::start(200, "{}".into())];
    let address = format!("127.0.0.1:{}", issuer.port);
    let mut config = table.config(&address);
    config["kong_scheme"] = "http".into();
    let assertions = AssertionKeys::parse(config["assertion"]["keys"].as_str().unwrap()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let setup = setup(&config, &address, &[&backends[0], &backends[1]]);
    let gateway = runtime.block_on(Gateway::start(setup)).unwrap();
    let port = gateway.address().port();
    let reached = |mark: &str| backends.iter().find_map(|backend| backend.find("x-mark", mark));

    let mut wrong = Vec::new();
    let cases = table.cases(&keys, support::now());
    for (number, case) in cases.iter().enumerate() {
        let mark = format!("fault-{number}");
        let answer = net::send(port, &case.fault, &[("X-Mark", &mark)]).unwrap();
        let seen = reached(&mark);
        if case.removed_in_kong {
            // It passes, with the gateway's own headers in the place of the client's.
            let seen = seen.unwrap_or_else(|| panic!("{}: {} {}", case.name, answer.status, answer.json()));
            let like = |name: &str| name.replace('_', "-").eq_ignore_ascii_case("x-asgard-identity");
            let own: Vec<_> = seen.iter().filter(|(name, _)| like(name)).map(|(_, value)| value).collect();
            assert_eq!(own.len(), 1, "{}", case.name);
            assert!(assertions.verify(own[0], AUDIENCE, support::now()).is_ok(), "{}", case.name);
            continue;
        }
        if let Some(difference) = support::difference(case, &answer) {
            wrong.push(format!("{}: {difference}", case.name));
        }
        if seen.is_some() {
            wrong.push(format!("{}: reached the backend", case.name));
        }
        let mark = format!("twin-{number}");
        let answer = net::send(port, &case.twin, &[("X-Mark", &mark)]).unwrap();
        if answer.status != 200 || reached(&mark).is_none() {
            wrong.push(format!("{}: the twin is refused: {} {}", case.name, answer.status, answer.json()));
        }
    }
    assert_eq!(wrong, Vec::<String>::new(), "{:?}", gateway.log().lines());
    println!("{} faults refused or removed, each beside an accepted twin", cases.len());
}
