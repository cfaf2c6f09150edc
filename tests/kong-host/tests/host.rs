//! The host's ways, each with a module made for it. They are the ways of a real Kong, measured there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may fail

mod common;

use std::collections::BTreeMap;

use common::{Server, dead_address, eventually, request, send};
use kong_host::{Gateway, Setup, Severity};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What Kong calls in a module without looking whether it is there (ABI 0.2.1): name, parameters, and the result if it
/// has one.
const ABI: [(&str, usize, Option<u8>); 14] = [
    ("proxy_on_context_create", 2, None),
    ("proxy_on_vm_start", 2, Some(1)),
    ("proxy_on_configure", 2, Some(1)),
    ("proxy_on_tick", 1, None),
    ("proxy_on_request_headers", 3, Some(0)),
    ("proxy_on_request_body", 3, Some(0)),
    ("proxy_on_request_trailers", 2, Some(0)),
    ("proxy_on_response_headers", 3, Some(0)),
    ("proxy_on_response_body", 3, Some(0)),
    ("proxy_on_response_trailers", 2, Some(0)),
    ("proxy_on_http_call_response", 5, None),
    ("proxy_on_done", 1, Some(1)),
    ("proxy_on_log", 1, None),
    ("proxy_on_delete", 1, None),
];

/// The functions of the [`ABI`] that `body` does not have, each of which lets everything pass.
fn others(body: &str) -> String {
    let missing = ABI.iter().filter(|(name, ..)| !body.contains(&format!("\"{name}\"")));
    missing
        .map(|(name, parameters, result)| {
            let parameters = "i32 ".repeat(*parameters);
            let result = result.map(|value| format!("(result i32) (i32.const {value})")).unwrap_or_default();
            format!("(func (export \"{name}\") (param {parameters}) {result})\n")
        })
        .collect()
}

/// A module with four pages of memory, which a real Kong loads too; `body` has functions and data.
fn module(imports: &str, body: &str) -> Vec<u8> {
    let others = others(body);
    let text = format!(
        r#"(module
            {imports}
            (memory (export "memory") 4)
            (global $heap (mut i32) (i32.const 65536))
            (func (export "proxy_on_memory_allocate") (param i32) (result i32)
                (global.set $heap (i32.add (global.get $heap) (local.get 0)))
                (i32.sub (global.get $heap) (local.get 0)))
            (func (export "proxy_abi_version_0_2_1"))
            {others}
            {body}
        )"#
    );
    text.into_bytes()
}

const HEADER: &str = r#"(import "env" "proxy_replace_header_map_value"
    (func $replace (param i32 i32 i32 i32 i32) (result i32)))"#;
const REMOVE: &str = r#"(import "env" "proxy_remove_header_map_value"
    (func $remove (param i32 i32 i32) (result i32)))"#;
const PROPERTY: &str = r#"(import "env" "proxy_set_property"
    (func $property (param i32 i32 i32 i32) (result i32)))"#;
const GET_SHARED: &str = r#"(import "env" "proxy_get_shared_data"
    (func $get (param i32 i32 i32 i32 i32) (result i32)))"#;
const LOCAL: &str = r#"(import "env" "proxy_send_local_response"
    (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))"#;

/// A gateway whose only Service goes to `target` (`host:port`), with the module as its filter.
async fn gateway(target: &str, wasm: Vec<u8>, environment: &str) -> Gateway {
    start(&format!("url: http://{target}"), "", wasm, environment).await
}

async fn start(service: &str, rest: &str, wasm: Vec<u8>, environment: &str) -> Gateway {
    let config = format!(
        r#"{{ _format_version: "3.0", services: [ {{ name: s, {service}, routes: [ {{ name: r, paths: ["/"] }} ],
            filter_chains: [ {{ name: c, filters: [ {{ name: f, config: "text" }} ] }} ] }} ] {rest} }}"#
    );
    let environment = format!("KONG_WASM=on\nKONG_PROXY_LISTEN=127.0.0.1:0 backlog=16384\n{environment}");
    let filters = BTreeMap::from([("f".to_owned(), wasm)]);
    Gateway::start(Setup { config, environment, filters, ..Setup::default() }).await.unwrap()
}

#[tokio::test]
async fn without_its_filter_a_route_is_open() {
    let backend = Server::fixed(OK).await;
    let address = backend.address.to_string();
    let refuses =
        module("", r#"(func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 0))"#);
    let traps = module("", r#"(func (export "proxy_on_vm_start") (param i32 i32) (result i32) unreachable)"#);
    let unknown = module(r#"(import "env" "proxy_nothing" (func))"#, "");
    let no_abi = br#"(module (memory (export "memory") 1))"#.to_vec();
    // As the module for Envoy, which has only what Envoy is to call.
    let lean = String::from_utf8(module("", "")).unwrap().replace("\"proxy_on_log\"", "\"something_else\"");
    let modules = [
        ("on_configure failed", refuses),
        ("unreachable", traps),
        ("proxy_nothing", unknown),
        ("unknown ABI version", no_abi),
        ("no proxy_on_log", lean.into_bytes()),
    ];
    for (number, (why, wasm)) in modules.into_iter().enumerate() {
        let gateway = gateway(&address, wasm, "").await;
        assert!(!gateway.filters_loaded());
        let line = "wasm nginx worker initialization failed";
        assert!(gateway.log().has(Severity::Crit, line) && gateway.log().has(Severity::Crit, why), "{why}");
        assert_eq!(send(gateway.address(), request("GET", "/", &[], b"")).await.status, 200);
        assert_eq!(backend.seen().len(), number + 1);
    }
}

#[tokio::test]
async fn a_removed_header_arrives_and_a_replaced_one_arrives_beside_its_double() {
    let backend = Server::fixed(OK).await;
    let body = r#"(data (i32.const 0) "x-gonex-changenew")
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (call $remove (i32.const 0) (i32.const 0) (i32.const 6)))
            (drop (call $replace (i32.const 0) (i32.const 6) (i32.const 8) (i32.const 14) (i32.const 3)))
            (i32.const 0))"#;
    let gateway = gateway(&backend.address.to_string(), module(&format!("{HEADER}{REMOVE}"), body), "").await;
    let sent = [("x-gone", "still"), ("x-change", "one"), ("X-Change", "two")];
    assert_eq!(send(gateway.address(), request("GET", "/", &sent, b"")).await.status, 200);
    let seen = &backend.seen()[0];
    assert_eq!(seen.all("x-gone"), ["still"]);
    assert_eq!(seen.all("x-change"), ["new", "two"]);
}

#[tokio::test]
async fn a_trap_answers_500_and_loses_the_instance() {
    let backend = Server::fixed(OK).await;
    // Counts its requests, replies with the count as status 200 + n, and traps on the third.
    let body = r#"(global $n (mut i32) (i32.const 200))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (global.set $n (i32.add (global.get $n) (i32.const 1)))
            (if (i32.eq (global.get $n) (i32.const 203)) (then unreachable))
            (drop (call $reply (global.get $n) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                (i32.const 0) (i32.const 0) (i32.const -1)))
            (i32.const 1))"#;
    let gateway = gateway(&backend.address.to_string(), module(LOCAL, body), "").await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(send(gateway.address(), request("GET", "/", &[], b"")).await.status);
    }
    assert_eq!(statuses, [201, 202, 500, 201, 202]);
    assert!(backend.seen().is_empty());
}

#[tokio::test]
async fn shared_data_without_a_zone_is_a_trap() {
    let backend = Server::fixed(OK).await;
    let body = r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (call $get (i32.const 0) (i32.const 1) (i32.const 8) (i32.const 12) (i32.const 16)))
            (i32.const 0))"#;
    let address = backend.address.to_string();
    let without = gateway(&address, module(GET_SHARED, body), "").await;
    assert_eq!(send(without.address(), request("GET", "/", &[], b"")).await.status, 500);
    let with = gateway(&address, module(GET_SHARED, body), "KONG_NGINX_WASM_SHM_KV=1m").await;
    assert_eq!(send(with.address(), request("GET", "/", &[], b"")).await.status, 200);
}

fn sets(path: &str, value: &str) -> Vec<u8> {
    let body = format!(
        r#"(data (i32.const 0) "{path}") (data (i32.const 256) "{value}")
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (call $property (i32.const 0) (i32.const {}) (i32.const 256) (i32.const {})))
            (i32.const 0))"#,
        path.len(),
        value.len()
    );
    module(PROPERTY, &body)
}

const CLOSED: &str = r#"protocol: https, host: group, port: 443, retries: 0,
    plugins: [ { name: pre-function, config: { access: ['ngx.var.upstream_scheme = "closed"'] } } ]"#;

fn group(targets: &[&Server]) -> String {
    let targets: Vec<String> = targets.iter().map(|s| format!("{{ target: \"{}\" }}", s.address)).collect();
    format!(", upstreams: [ {{ name: group, algorithm: round-robin, targets: [ {} ] }} ]", targets.join(","))
}

#[tokio::test]
async fn the_scheme_is_a_lock_that_a_filter_opens() {
    let (one, two) = (Server::fixed(OK).await, Server::fixed(OK).await);
    let group = group(&[&one, &two]);

    let nothing = start(CLOSED, &group, sets("kong.ctx.shared.a", "b"), "").await;
    assert_eq!(send(nothing.address(), request("GET", "/", &[], b"")).await.status, 500);
    let tls = start(CLOSED, &group, sets("kong.service.request.scheme", "https"), "").await;
    assert_eq!(send(tls.address(), request("GET", "/", &[], b"")).await.status, 502);
    assert_eq!((one.connections(), two.connections()), (0, 0));

    let open = start(CLOSED, &group, sets("kong.service.request.scheme", "http"), "").await;
    for _ in 0..10 {
        assert_eq!(send(open.address(), request("GET", "/", &[], b"")).await.status, 200);
    }
    assert_eq!((one.seen().len(), two.seen().len()), (5, 5));

    let wrong = start(CLOSED, &group, sets("kong.service.request.scheme", "ftp"), "").await;
    assert_eq!(send(wrong.address(), request("GET", "/", &[], b"")).await.status, 500);
}

#[tokio::test]
async fn a_target_set_by_a_filter_changes_the_port_alone() {
    // The balancer has found an address before the filter runs.
    let backend = Server::fixed(OK).await;
    let port = backend.address.port();
    let dead = dead_address().to_string();
    let same = gateway(&dead, sets("kong.service.target", &format!("127.0.0.1:{port}")), "").await;
    assert_eq!(send(same.address(), request("GET", "/", &[], b"")).await.status, 200);
    let other = gateway(&dead, sets("kong.service.target", &format!("some-upstream:{port}")), "").await;
    assert_eq!(send(other.address(), request("GET", "/", &[], b"")).await.status, 200);
    let upstream = gateway(&dead, sets("kong.service.upstream", "some-upstream"), "").await;
    assert_eq!(send(upstream.address(), request("GET", "/", &[], b"")).await.status, 502);
    assert_eq!(backend.seen().len(), 2);
}

#[tokio::test]
async fn a_filter_is_shown_a_hundred_pairs() {
    let backend = Server::fixed(OK).await;
    // Replies with 200 + the number of pairs that it was given.
    let imports = format!(
        r#"{LOCAL} (import "env" "proxy_get_header_map_pairs" (func $pairs (param i32 i32 i32) (result i32)))"#
    );
    let body = r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (call $pairs (i32.const 0) (i32.const 8) (i32.const 12)))
            (drop (call $reply (i32.add (i32.const 200) (i32.load (i32.load (i32.const 8)))) (i32.const 0)
                (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const -1)))
            (i32.const 1))"#;
    let gateway = gateway(&backend.address.to_string(), module(&imports, body), "").await;
    let names: Vec<String> = (0..200).map(|i| format!("x-{i}")).collect();
    for (count, pairs) in [(0, 5), (50, 55), (95, 100), (200, 100)] {
        let headers: Vec<_> = names.iter().take(count).map(|n| (n.as_str(), "x")).collect();
        let answer = send(gateway.address(), request("GET", "/", &headers, b"")).await;
        assert_eq!(answer.status, 200 + pairs, "{count}");
    }
}

#[tokio::test]
async fn nginx_refuses_doubles_and_the_next_target_is_tried() {
    let backend = Server::fixed(OK).await;
    let twice = [("Authorization", "a"), ("Authorization", "b")];
    let group = format!(
        ", upstreams: [ {{ name: group, algorithm: round-robin, targets: [ {{ target: \"{}\" }}, {{ target: \"{}\" }} ] }} ]",
        dead_address(),
        backend.address
    );
    let service = "protocol: http, host: group, port: 80, retries: 1";
    let gateway = start(service, &group, module("", ""), "").await;
    assert_eq!(send(gateway.address(), request("GET", "/", &twice, b"")).await.status, 400);
    for _ in 0..4 {
        assert_eq!(send(gateway.address(), request("GET", "/", &[], b"")).await.status, 200);
    }
    eventually("all at the living one", || backend.seen().len() == 4).await;
}

#[tokio::test]
async fn another_uri_is_for_the_upstream_alone_and_a_routes_plugin_takes_the_place_of_the_services() {
    let backend = Server::fixed(OK).await;
    // Tells the upstream the request's path as it sees it: raw, and its pseudo-header.
    let imports = format!(
        r#"{HEADER} (import "env" "proxy_get_property" (func $read (param i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_get_header_map_value" (func $header (param i32 i32 i32 i32 i32) (result i32)))"#
    );
    let body = r#"(data (i32.const 0) "request\00path") (data (i32.const 32) ":path")
        (data (i32.const 48) "x-raw") (data (i32.const 64) "x-pseudo")
        (func $tell (param i32 i32)
            (drop (call $replace (i32.const 0) (local.get 0) (local.get 1)
                (i32.load (i32.const 128)) (i32.load (i32.const 132)))))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (call $read (i32.const 0) (i32.const 12) (i32.const 128) (i32.const 132)))
            (call $tell (i32.const 48) (i32.const 5))
            (drop (call $header (i32.const 0) (i32.const 32) (i32.const 5) (i32.const 128) (i32.const 132)))
            (call $tell (i32.const 64) (i32.const 8))
            (i32.const 0))"#;
    let config = format!(
        r#"
        _format_version: "3.0"
        services:
        - name: s
          url: http://{}
          plugins: [ {{ name: request-transformer, config: {{ remove: &both {{ headers: [x-mine] }} }} }} ]
          routes:
          - {{ name: all, paths: ["/"] }}
          - name: only-uri
            paths: ['~/short$']
            hosts: [one.example]
            plugins: [ {{ name: request-transformer, config: {{ replace: {{ uri: /a/long/one }} }} }} ]
          - name: both
            paths: ['~/short$']
            hosts: [two.example]
            plugins: [ {{ name: request-transformer, config: {{ remove: *both, replace: {{ uri: /another }} }} }} ]
          filter_chains: [ {{ name: c, filters: [ {{ name: f }} ] }} ]
        "#,
        backend.address
    );
    let gateway = Gateway::start(Setup {
        config,
        environment: "KONG_WASM=on\nKONG_PROXY_LISTEN=127.0.0.1:0".into(),
        filters: BTreeMap::from([("f".to_owned(), module(&imports, body))]),
        ..Setup::default()
    })
    .await
    .unwrap();
    for (host, target, upstream, pseudo, kept) in [
        ("other.example", "/short?q", "/short?q", "/short?q", 0),
        ("one.example", "/short?q", "/a/long/one?q", "/short?q", 1),
        ("two.example:80", "/x/../%73hort", "/another", "/short", 0),
    ] {
        let asks = request("GET", target, &[("Host", host), ("X-Mine", "forged")], b"");
        assert_eq!(send(gateway.address(), asks).await.status, 200, "{host}{target}");
        let seen = backend.seen().pop().unwrap();
        assert_eq!(seen.target, upstream);
        assert_eq!((seen.all("x-raw"), seen.all("x-pseudo")), (vec![target], vec![pseudo]), "{upstream}");
        assert_eq!(seen.all("x-mine").len(), kept, "{upstream}");
    }
}

#[tokio::test]
async fn what_kong_would_not_start_with() {
    let start = |config: &str, environment: &str, filters: &[&str]| {
        let filters = filters.iter().map(|f| ((*f).to_owned(), module("", ""))).collect();
        let environment = format!("KONG_PROXY_LISTEN=127.0.0.1:0\n{environment}");
        Gateway::start(Setup { config: config.into(), environment, filters, ..Setup::default() })
    };
    let chain = |config: &str| {
        format!(
            r#"{{ _format_version: "3.0", services: [ {{ name: s, url: "http://127.0.0.1:1",
                routes: [ {{ name: r, paths: ["/"] }} ],
                filter_chains: [ {{ name: c, filters: [ {{ name: f, config: {config} }} ] }} ] }} ] }}"#
        )
    };
    let on = "KONG_WASM=on";
    assert!(start(&chain("text"), on, &["f"]).await.is_ok());
    // A file that is no module, whether a filter chain wants it or not.
    for broken in [&b""[..], b"not wasm", b"\0asm\x01\0", &module("", "")[..200]] {
        for name in ["f", "other"] {
            let mut filters = BTreeMap::from([("f".to_owned(), module("", ""))]);
            filters.insert(name.to_owned(), broken.to_vec());
            let environment = "KONG_PROXY_LISTEN=127.0.0.1:0\nKONG_WASM=on".to_owned();
            let setup = Setup { config: chain("text"), environment, filters, ..Setup::default() };
            let error = Gateway::start(setup).await.err().unwrap().to_string();
            assert!(error.contains(&format!("{name}: not a WebAssembly module")), "{error}");
        }
    }
    let why = |gateway: Result<Gateway, kong_host::config::ConfigError>| gateway.err().unwrap().to_string();
    assert!(why(start(&chain("text"), on, &[]).await).contains("no such filter"));
    assert!(why(start(&chain("text"), "", &["f"]).await).contains("wasm support is not enabled"));
    assert!(why(start(&chain("{ a: 1 }"), on, &["f"]).await).contains("expected a string"));
    for (name, hosts, wrong) in [
        ("r", "10.0.0.1", "host"),
        ("r", "a.example:80", "host"),
        ("r/", "a.example", "invalid name"),
        ("twice", "a.example", "uniqueness"),
    ] {
        let routes = format!(
            r#"{{ _format_version: "3.0", services: [ {{ name: s, url: "http://127.0.0.1:1", routes: [
                {{ name: twice, paths: ["/"] }}, {{ name: {name}, paths: ["/"], hosts: ["{hosts}"] }} ] }} ] }}"#
        );
        assert!(why(start(&routes, "", &[]).await).contains(wrong), "{wrong}");
    }
    let unknown = r#"{ _format_version: "3.0", services: [], consumers: [] }"#;
    assert!(why(start(unknown, on, &[]).await).contains("unknown field"));
}

/// A list of headers as a module gives it to the host.
fn packed(pairs: &[(&str, &str)]) -> String {
    let mut bytes = u32::try_from(pairs.len()).unwrap().to_le_bytes().to_vec();
    for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
    }
    for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend(text.bytes().chain([0]));
    }
    bytes.iter().map(|byte| format!("\\{byte:02x}")).collect()
}

#[tokio::test]
async fn a_property_of_kongs_own_is_for_request_headers_alone() {
    let backend = Server::fixed(OK).await;
    let address = backend.address.to_string();
    let read = r#"(import "env" "proxy_get_property" (func $read (param i32 i32 i32 i32) (result i32)))"#;
    let imports = format!(
        r#"{PROPERTY} {read} (import "env" "proxy_continue_stream" (func $resume (param i32) (result i32)))
        (import "env" "proxy_http_call" (func $ask (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))"#
    );
    let headers = [(":method", "GET"), (":path", "/"), (":authority", "a")];
    let size = 4 + headers.len() * 8 + headers.iter().map(|(n, v)| n.len() + v.len() + 2).sum::<usize>();
    // Calls out on each request, and touches a property where it says.
    let wasm = |property: &str, set: bool, header: bool, body: bool, answer: bool| {
        let data = format!(
            r#"(data (i32.const 0) "{property}") (data (i32.const 256) "http") (data (i32.const 512) "{address}")
            (data (i32.const 768) "{}")"#,
            packed(&headers)
        );
        let (name, length) = (property.len(), address.len());
        let touch = match set {
            true => format!(
                "(drop (call $property (i32.const 0) (i32.const {name}) (i32.const 256) (i32.const 4)))"
            ),
            false => format!(
                "(drop (call $read (i32.const 0) (i32.const {name}) (i32.const 1024) (i32.const 1028)))"
            ),
        };
        let when = |wanted: bool| if wanted { touch.as_str() } else { "" };
        let functions = format!(
            r#"{data}
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                {}
                (if (i32.eqz (local.get 2)) (then (return (i32.const 0))))
                (drop (call $ask (i32.const 512) (i32.const {length}) (i32.const 768) (i32.const {size})
                    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 1032)))
                (i32.const 1))
            (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) {} (i32.const 0))
            (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
                {} (drop (call $resume (i32.const 0))))"#,
            when(header),
            when(body),
            when(answer)
        );
        module(&imports, &functions)
    };
    let (get, post) = (request("GET", "/", &[], b""), request("POST", "/", &[], b"body"));
    for (property, set) in [("kong.service.request.scheme", true), ("kong.version", false)] {
        let fine = gateway(&address, wasm(property, set, true, false, false), "").await;
        for asked in [&get, &post, &get] {
            assert_eq!(send(fine.address(), asked).await.status, 200);
        }
        assert_eq!(fine.poison(), None);
        for (asked, body, answer) in [(&get, false, true), (&post, true, false)] {
            let fatal = gateway(&address, wasm(property, set, false, body, answer), "").await;
            // The request itself may well go through; the crash comes later.
            send(fatal.address(), asked).await;
            let why = fatal.poison().expect("the memory is corrupt");
            assert!(why.contains(property), "{why}");
            assert_eq!(send(fatal.address(), asked).await.status, 500, "a worker that has crashed");
        }
    }
    // nginx's own variables are of C.
    let fine = gateway(&address, wasm("ngx.upstream_scheme", true, true, true, true), "").await;
    for asked in [&get, &post, &get] {
        assert_eq!(send(fine.address(), asked).await.status, 200);
    }
    assert_eq!(fine.poison(), None);
}

#[tokio::test]
#[should_panic = "a worker of a real Kong would have crashed"]
async fn a_corrupt_worker_fails_the_test_that_does_not_look() {
    let backend = Server::fixed(OK).await;
    let body = r#"(data (i32.const 0) "kong.version")
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
            (drop (call $read (i32.const 0) (i32.const 12) (i32.const 32) (i32.const 36))) (i32.const 0))"#;
    let read = r#"(import "env" "proxy_get_property" (func $read (param i32 i32 i32 i32) (result i32)))"#;
    let gateway = gateway(&backend.address.to_string(), module(read, body), "").await;
    send(gateway.address(), request("POST", "/", &[], b"body")).await;
}

#[tokio::test]
async fn workers_have_instances_of_their_own_and_one_zone() {
    let backend = Server::fixed(OK).await;
    // Sets a key to one byte, at its version, and replies with 200 + the number of requests that this instance has seen.
    let imports = format!(
        r#"{LOCAL} {GET_SHARED} (import "env" "proxy_set_shared_data"
            (func $set (param i32 i32 i32 i32 i32) (result i32)))"#
    );
    let body = r#"(global $n (mut i32) (i32.const 200))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (global.set $n (i32.add (global.get $n) (i32.const 1)))
            (drop (call $get (i32.const 0) (i32.const 1) (i32.const 8) (i32.const 12) (i32.const 16)))
            (if (call $set (i32.const 0) (i32.const 1) (i32.const 4) (i32.const 1) (i32.load (i32.const 16)))
                (then unreachable))
            (drop (call $reply (global.get $n) (i32.const 0) (i32.const 0) (i32.const 16) (i32.const 4)
                (i32.const 0) (i32.const 0) (i32.const -1)))
            (i32.const 1))"#;
    let environment = "KONG_NGINX_WASM_SHM_KV=1m\nKONG_NGINX_WORKER_PROCESSES=2";
    let gateway = gateway(&backend.address.to_string(), module(&imports, body), environment).await;
    for (status, version) in [(201, 0), (201, 1), (202, 2), (202, 3)] {
        let answer = send(gateway.address(), request("GET", "/", &[], b"")).await;
        assert_eq!((answer.status, answer.body().await.as_bytes()), (status, &[version, 0, 0, 0][..]));
    }
}
