//! `./setup.sh` and `docker-compose.yml`, without a container engine.
//!
//! Needs `docker-compose` (or `docker compose`): its `config` checks a file and asks no engine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may fail

mod common;
#[path = "common/shipped_gateway.rs"]
mod shipped_gateway;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use common::root;
use kong_host::config::{Config, Environment};
use kong_host::router::Router;
use serde_json::{Value, json};
use tempfile::TempDir;

/// What a user's folder has that setup and compose read.
fn checkout() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["setup.sh", "docker-compose.yml", "kong", "keycloak", "pushpin", "docker"] {
        let done = Command::new("cp").arg("-r").arg(root().join(name)).arg(folder.path()).status().unwrap();
        assert!(done.success(), "{name}");
    }
    // In the place of the one that builds the command: the command that is built, for this folder.
    let built = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("asgard");
    assert!(built.is_file(), "{}: cargo build --release --workspace --bin asgard", built.display());
    let program = folder.path().join("asgard");
    let (here, built) = (folder.path().display(), built.display());
    fs::write(&program, format!("#!/bin/sh\nASGARD_ROOT='{here}' exec '{built}' \"$@\"\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn run(folder: &TempDir, program: &str, args: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(args).current_dir(folder.path()).env_clear();
    for name in ["PATH", "HOME"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.output().unwrap_or_else(|e| panic!("{program}: {e}"))
}

fn setup(folder: &TempDir) -> String {
    let output = run(folder, "sh", &["./setup.sh"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn compose_config(folder: &TempDir) -> Output {
    let plugin = Command::new("docker").args(["compose", "version"]).output();
    if plugin.is_ok_and(|o| o.status.success()) {
        return run(folder, "docker", &["compose", "config"]);
    }
    let found = Command::new("docker-compose").arg("version").output();
    assert!(found.is_ok(), "docker-compose is missing: apt-get install docker-compose");
    run(folder, "docker-compose", &["config"])
}

fn env(folder: &TempDir) -> BTreeMap<String, String> {
    let text = fs::read_to_string(folder.path().join(".env")).unwrap();
    let lines = text.lines().filter(|l| !l.starts_with('#'));
    lines.map(|l| l.split_once('=').unwrap()).map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn is_secret(name: &str) -> bool {
    name != "MCP_INSPECTOR_SECRET_STORE"
        && ["_KEY", "SECRET", "PASSWORD", "TOKEN"].iter().any(|word| name.contains(word))
}

#[test]
#[ignore = "needs docker-compose: ./asgard test kong"]
fn setup_makes_a_configuration_that_compose_accepts() {
    let folder = checkout();
    let before = compose_config(&folder);
    assert!(!before.status.success(), "without ./setup.sh there is no key");

    let said = setup(&folder);
    assert!(said.contains("docker compose up"), "{said}");
    let output = compose_config(&folder);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let config: Value = serde_yaml_ng::from_slice(&output.stdout).unwrap();
    let services = config["services"].as_object().unwrap();
    let names: BTreeSet<&str> = services.keys().map(String::as_str).collect();
    let expected = [
        "backend-1",
        "backend-2",
        "gateway",
        "inspector",
        "keycloak",
        "pushpin",
        "redis",
        "worker-1",
        "worker-2",
    ];
    assert_eq!(names, BTreeSet::from(expected));
    let mut published = BTreeSet::new();
    for (name, service) in services {
        assert!(service.get("healthcheck").is_some(), "{name} has a health check");
        for port in service.get("ports").and_then(Value::as_array).into_iter().flatten() {
            // Version 1 prints the short form, version 2 the long one.
            let number = match port {
                Value::String(short) => {
                    short.strip_prefix("127.0.0.1:").and_then(|r| r.split(':').next()).map(str::to_owned)
                }
                long => {
                    let here = long["host_ip"] == "127.0.0.1";
                    here.then(|| long["published"].to_string().trim_matches('"').to_owned())
                }
            };
            published.insert(number.unwrap_or_else(|| panic!("{name} publishes {port} beyond this machine")));
        }
    }
    assert_eq!(published, BTreeSet::from(["8000", "7999", "6274"].map(str::to_owned)));
    assert_eq!(config["networks"]["inner"]["internal"], Value::Bool(true));
}

#[test]
fn secrets_are_in_files_for_their_owner_alone() {
    let folder = checkout();
    setup(&folder);
    let path = |name: &str| folder.path().join(name);
    assert_eq!(mode(&path(".env")), 0o600);
    assert_eq!((mode(&path(".asgard")), mode(&path(".asgard/compose"))), (0o700, 0o700));

    let values = env(&folder);
    let secrets: Vec<(&String, &String)> = values.iter().filter(|(n, _)| is_secret(n)).collect();
    assert!(secrets.len() >= 7, "{:?}", values.keys());
    let compose = fs::read_to_string(path("docker-compose.yml")).unwrap();
    for (name, value) in &secrets {
        assert!(!compose.contains(value.as_str()), "{name} is in docker-compose.yml");
    }
    for line in compose.lines().map(str::trim).filter(|l| !l.starts_with('#')) {
        if let Some((name, value)) = line.split_once(": ").filter(|(n, _)| is_secret(n)) {
            assert!(value.starts_with("${") && value.ends_with(":?run ./setup.sh}"), "{name}: {value}");
        }
    }
    // Each has its own.
    let drawn: BTreeSet<&str> = secrets.iter().map(|(_, v)| v.as_str()).collect();
    let other = checkout();
    setup(&other);
    let shared: Vec<String> = env(&other).into_values().filter(|v| drawn.contains(v.as_str())).collect();
    assert_eq!(shared, ["adminpassword"], "the sample's password alone is the same everywhere");
}

#[test]
fn a_second_run_keeps_secrets_and_settings() {
    let folder = checkout();
    setup(&folder);
    let path = folder.path().join(".env");
    let text = fs::read_to_string(&path).unwrap();
    let files = |f: &TempDir| {
        ["kong/kong.yml", "kong.env", "keycloak/asgard-realm.json", "inspector/servers.json"]
            .map(|name| fs::read_to_string(f.path().join(".asgard/compose").join(name)).unwrap())
    };
    let first = files(&folder);
    setup(&folder);
    assert_eq!((fs::read_to_string(&path).unwrap(), files(&folder)), (text.clone(), first));

    let changed =
        text.replace("PUBLIC_URL=http://localhost:8000", "PUBLIC_URL=https://mcp.example") + "MINE=1\n";
    fs::write(&path, &changed).unwrap();
    let refused = run(&folder, "sh", &["./setup.sh"]);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && error.contains("SAMPLE_USERS=anywhere"), "known passwords: {error}");
    for (here, loopback) in [
        ("http://127.0.0.2:8000", true),
        ("http://asgard.localhost:8000", true),
        ("http://127.evil.example", false),
        ("http://localhost.example", false),
    ] {
        fs::write(&path, text.replace("PUBLIC_URL=http://localhost:8000", &format!("PUBLIC_URL={here}")))
            .unwrap();
        assert_eq!(run(&folder, "sh", &["./setup.sh"]).status.success(), loopback, "{here}");
    }
    fs::write(&path, changed.replace("SAMPLE_USERS=local", "SAMPLE_USERS=anywhere")).unwrap();
    let said = setup(&folder);
    assert!(said.contains("WARNING"), "a sample password on a public address: {said}");
    let values = env(&folder);
    assert_eq!((values["PUBLIC_URL"].as_str(), values["MINE"].as_str()), ("https://mcp.example", "1"));
    assert!(files(&folder)[0].contains("https://mcp.example/heimdall/realms/asgard"));

    for bad in [
        "http://x';rm -rf /",
        "http://localhost:8000/",
        "http://localhost:8000/x",
        "http://user@localhost:8000",
        "http://Localhost:8000",
        "http://localhost:80",
        "https://localhost:443",
        "localhost:8000",
        "ftp://localhost",
        "http://",
        "http://:8000",
        "http://a:b",
    ] {
        fs::write(&path, format!("PUBLIC_URL={bad}\nSAMPLE_USERS=anywhere\n")).unwrap();
        let output = run(&folder, "sh", &["./setup.sh"]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains("PUBLIC_URL"), "{bad}: {error}");
    }
}

/// Host and organisation of each route of a short path, and of the same in the filter's configuration.
fn own_hosts(config: &Config) -> Vec<(String, String)> {
    let service = &config.services[0];
    let removed = |plugins: &[kong_host::config::Plugin]| {
        let plugin = plugins.iter().find(|p| p.name == "request-transformer").unwrap();
        (plugin.config["remove"].clone(), plugin.config["replace"]["uri"].clone())
    };
    let routes = service.routes.iter().filter(|r| !r.hosts.is_empty());
    let routes: Vec<(String, String)> = routes
        .map(|route| {
            assert_eq!((&route.paths[..], route.strip_path), (&["~/mcp$".to_owned()][..], false));
            let (remove, uri) = removed(&route.plugins);
            assert_eq!(
                remove,
                removed(&service.plugins).0,
                "a route's plugin takes the place of the Service's"
            );
            let organisation = uri.as_str().unwrap().strip_prefix("/api/v1/mcp/").unwrap().to_owned();
            (route.hosts[0].clone(), organisation)
        })
        .collect();
    let filter = service.filter_chains[0].filters[0].config.as_ref().unwrap();
    let configured: Vec<(String, String)> = filter["hosts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|host| {
            let name = host["url"].as_str().unwrap().split("://").nth(1).unwrap().split(':').next().unwrap();
            assert_eq!(host["path"], "/mcp");
            (name.to_owned(), host["organisation"].as_str().unwrap().to_owned())
        })
        .collect();
    assert_eq!(routes, configured);
    routes
}

fn pair((host, organisation): (&str, &str)) -> (String, String) {
    (host.to_owned(), organisation.to_owned())
}

#[test]
fn hosts_of_organisations_are_a_setting() {
    let folder = checkout();
    setup(&folder);
    let path = folder.path().join(".env");
    let text = fs::read_to_string(&path).unwrap();
    let line = "ORGANISATION_HOSTS=org-1.localhost=org-1,org-2.localhost=org-2";
    assert!(text.lines().any(|l| l == line), "{text}");
    let with = |value: &str| {
        fs::write(&path, text.replace(line, &format!("ORGANISATION_HOSTS={value}"))).unwrap();
        run(&folder, "sh", &["./setup.sh"])
    };
    let known = BTreeMap::from([("kong_filter".to_owned(), Some(shipped_gateway::schema()))]);
    for (value, expected) in [
        ("acme.localhost=acme", vec![("acme.localhost", "acme")]),
        (
            "acme.example=Org.1_x,b-c.example=org-2,d=org-2",
            vec![("acme.example", "Org.1_x"), ("b-c.example", "org-2"), ("d", "org-2")],
        ),
        (",", vec![]),
    ] {
        let output = with(value);
        assert!(output.status.success(), "{value}: {}", String::from_utf8_lossy(&output.stderr));
        let kong = fs::read_to_string(folder.path().join(".asgard/compose/kong/kong.yml")).unwrap();
        let config = Config::parse(&kong, &known).unwrap();
        assert_eq!(own_hosts(&config), expected.into_iter().map(pair).collect::<Vec<_>>(), "{value}");
        let files = fs::read_dir(folder.path().join(".asgard/compose")).unwrap().flatten();
        assert!(!files.into_iter().any(|f| f.file_name().to_string_lossy().contains("host-route")));
    }
    for bad in [
        "acme.localhost",
        "acme.localhost=",
        "=acme",
        "A.example=acme",
        "a.example:80=acme",
        "a.example/x=acme",
        "*.example=acme",
        "127.0.0.1=acme",
        "a..b=acme",
        ".a=acme",
        "a-.b=acme",
        "a.example=mcp",
        "a.example=Servers",
        "a.example=-a",
        "a.example=a..b",
        "a.example=a=b",
        "localhost=acme",
        "a.example=acme,a.example=org-1",
    ] {
        let output = with(bad);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("ORGANISATION_HOSTS"), "{bad}: {said}");
    }
}

#[test]
fn accepted_hosts_are_a_setting() {
    let folder = checkout();
    setup(&folder);
    let path = folder.path().join(".env");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.lines().any(|line| line == "ACCEPTED_HOSTS=,"), "{text}");
    let with = |value: &str| {
        fs::write(&path, text.replace("ACCEPTED_HOSTS=,", &format!("ACCEPTED_HOSTS={value}"))).unwrap();
        run(&folder, "sh", &["./setup.sh"])
    };
    let known = BTreeMap::from([("kong_filter".to_owned(), Some(shipped_gateway::schema()))]);
    for value in [",", "host.docker.internal", "gateway,192.168.1.2,*"] {
        let output = with(value);
        assert!(output.status.success(), "{value}: {}", String::from_utf8_lossy(&output.stderr));
        let kong = fs::read_to_string(folder.path().join(".asgard/compose/kong/kong.yml")).unwrap();
        let config = Config::parse(&kong, &known).unwrap();
        let service = config.services.iter().find(|service| service.name == "mcp").unwrap();
        let filter = service.filter_chains[0].filters[0].config.as_ref().unwrap();
        let names: Vec<&str> = value.split(',').filter(|name| !name.is_empty()).collect();
        assert_eq!(filter["accepted_hosts"], serde_json::json!(names));
    }
    for bad in ["Gateway", "gateway:8000", "http://gateway", "*.example", "a..b"] {
        let output = with(bad);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("ACCEPTED_HOSTS"), "{bad}: {said}");
    }
}

#[tokio::test]
async fn the_rendered_gateway_is_whole() {
    let folder = checkout();
    setup(&folder);
    let file = |name: &str| fs::read_to_string(folder.path().join(".asgard/compose").join(name)).unwrap();
    // The image has the filter's schema beside the module: the configuration is an object.
    let known = BTreeMap::from([("kong_filter".to_owned(), Some(shipped_gateway::schema()))]);
    let config = Config::parse(&file("kong/kong.yml"), &known).unwrap();
    Router::new(&config).unwrap();
    let targets: Vec<&str> = config.upstreams[0].targets.iter().map(|t| t.target.as_str()).collect();
    assert_eq!(targets, ["backend-1:8081", "backend-2:8081"]);
    let filter: Value = {
        let chain = &config.services[0].filter_chains[0].filters[0];
        chain.config.clone().unwrap()
    };
    // The same as ./asgard writes, but for addresses and keys.
    let expected = shipped_gateway::filter_config("keycloak:8080");
    let keys = |v: &Value| v.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    // And the sample organisations' own hosts, and the names that are accepted beside them: none.
    let hosts = BTreeSet::from(["hosts", "accepted_hosts"].map(str::to_owned));
    assert_eq!(keys(&filter), &keys(&expected) | &hosts);
    assert_eq!(own_hosts(&config), [("org-1.localhost", "org-1"), ("org-2.localhost", "org-2")].map(pair));
    assert_eq!(
        filter["hosts"][0],
        json!({"url": "http://org-1.localhost:8000", "organisation": "org-1", "path": "/mcp"})
    );
    assert_eq!(
        (&filter["kong_scheme"], &filter["issuers"], &filter["shared_data_bytes"]),
        (&expected["kong_scheme"], &expected["issuers"], &expected["shared_data_bytes"])
    );

    let values = env(&folder);
    let environment = Environment::parse(&file("kong.env")).unwrap();
    assert_eq!(environment.get("KONG_TRUSTED_IPS"), values.get("ASGARD_PUSHPIN_IP").map(String::as_str));
    assert!(file("kong/nginx-http.conf").contains(&format!("server {}:7999;", values["ASGARD_PUSHPIN_IP"])));
    assert_eq!(filter["grip"]["key"], values["ASGARD_GRIP_KEY"].as_str());
    for name in [
        "kong/kong.yml",
        "kong.env",
        "kong/nginx-http.conf",
        "kong/nginx-proxy.conf",
        "keycloak/asgard-realm.json",
    ] {
        assert!(!file(name).contains("${ASGARD") && !file(name).contains("${KONG"), "{name}");
    }
    serde_json::from_str::<Value>(&file("keycloak/asgard-realm.json")).unwrap();
    serde_json::from_str::<Value>(&file("inspector/servers.json")).unwrap();
}
