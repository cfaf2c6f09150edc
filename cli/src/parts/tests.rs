//! Every template of the repository, filled in for a stack that is not started.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::*;
use crate::ports::Ports;

struct Filled {
    plan: Plan,
    parts: Vec<PartSpec>,
}

impl Drop for Filled {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.plan.paths.home);
    }
}

fn fill(gateway: Gateway) -> Filled {
    fill_with(gateway, |_| {})
}

fn fill_with(gateway: Gateway, change: impl FnOnce(&mut State)) -> Filled {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned();
    let home = std::env::temp_dir().join(format!("asgard-parts-{:016x}", rand::random::<u64>()));
    private_dir(&home).unwrap();
    let filter = home.join("filter.wasm");
    std::fs::write(&filter, b"\0asm").unwrap();
    let program = |name: &str| PathBuf::from("/programs").join(name);
    let mut plan = Plan {
        paths: Paths { root, cache: home.join("cache"), home },
        state: State::new(Ports::from_base(30_000)),
        size: Size { backends: 3, workers: 2 },
        gateway,
        tools: Tools {
            redis: program("redis-server"),
            pushpin: program("pushpin"),
            java: program("java"),
            keycloak: program("keycloak"),
            envoy: Some(program("envoy")),
            kong: Some(program("kong")),
            node: Some(program("node")),
            inspector: Some(program("index.js")),
            backend: program("mcp-backend"),
            worker: program("worker"),
            filter,
        },
        inspector: true,
        only: Vec::new(),
    };
    change(&mut plan.state);
    let parts = plan.parts().unwrap();
    Filled { plan, parts }
}

fn filter_config(plan: &Plan) -> String {
    plan.gateway_settings().unwrap().filter_config
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    entries
        .flat_map(|path| if path.is_dir() && !path.is_symlink() { files(&path) } else { vec![path] })
        .collect()
}

#[test]
fn all_parts_of_both_gateways_are_described() {
    for gateway in [Gateway::Envoy, Gateway::Kong] {
        let filled = fill(gateway);
        let names: Vec<&str> = filled.parts.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "redis",
                "pushpin",
                "keycloak",
                "gateway",
                "backend-1",
                "backend-2",
                "backend-3",
                "worker-1",
                "worker-2",
                "inspector"
            ]
        );
        for part in &filled.parts {
            assert!(part.after.iter().all(|name| names.contains(&name.as_str())), "{}", part.name);
        }
        let backend = &filled.parts[4];
        assert_eq!(backend.env["ASGARD_HANDOVER"], gateway.name());
        assert_eq!(backend.env["ASGARD_LISTEN"], "127.0.0.1:30020");
        for odin in filled.parts.iter().filter(|part| matches!(part.kind, Kind::Backend | Kind::Worker)) {
            let run = filled.plan.paths.run().display().to_string();
            assert_eq!(odin.env["ASGARD_REDIS_URL"], format!("redis+unix://{run}/redis.sock"));
            assert_eq!(odin.env["ASGARD_PUSHPINS"], format!("ipc://{run}/pushpin/sub"));
        }
    }
}

#[test]
fn rendered_files_are_private_and_secrets_are_in_no_argument() {
    for gateway in [Gateway::Envoy, Gateway::Kong] {
        let filled = fill(gateway);
        let run = filled.plan.paths.run();
        for file in files(&run).into_iter().filter(|file| file.extension().is_none_or(|e| e != "wasm")) {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{}", file.display());
        }
        let secrets = &filled.plan.state.secrets;
        for part in &filled.parts {
            for secret in [
                &secrets.assertion_keys,
                &secrets.session_key,
                &secrets.grip_key,
                &secrets.dialogue_key,
                &secrets.broadcast_key,
                &secrets.link_key,
                &secrets.admin_token,
                &secrets.inspector_token,
                &secrets.admin_password,
            ] {
                assert!(part.args.iter().all(|arg| !arg.contains(secret.as_str())), "{}", part.name);
            }
        }
    }
}

#[test]
fn a_realm_without_samples_has_no_password_that_is_known() {
    let filled = fill_with(Gateway::Envoy, |state| state.sample_users = Some(false));
    let file = keycloak::home(&filled.plan.paths).join("data/import/asgard-realm.json");
    let realm: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let users: Vec<&str> =
        realm["users"].as_array().unwrap().iter().map(|u| u["username"].as_str().unwrap()).collect();
    assert_eq!(users, ["service-account-tests"]);
    let text = realm.to_string();
    for (user, _) in crate::samples::USERS {
        assert!(!text.contains(&format!("\"{user}\"")), "{user}");
    }
    // Who has no secret (that of the state file) can't log in with a password either.
    let takes_passwords = |client: &&serde_json::Value| {
        client["directAccessGrantsEnabled"] == true && client["publicClient"] == true
    };
    assert_eq!(realm["clients"].as_array().unwrap().iter().find(takes_passwords), None);
    assert_eq!(realm["organizations"].as_array().unwrap().len(), 2);
}

#[test]
fn the_realm_is_whole() {
    let filled = fill(Gateway::Envoy);
    let file = keycloak::home(&filled.plan.paths).join("data/import/asgard-realm.json");
    let realm: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let text = realm.to_string();
    assert!(!text.contains("localhost:8000"), "the public address is filled in everywhere");
    let members = |organisation: usize| {
        let members = realm["organizations"][organisation]["members"].as_array().unwrap();
        members.iter().map(|m| m["username"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(members(0), ["service-account-tests", "thor", "freya"]);
    assert_eq!(members(1), ["hel", "freya"]);
    for (user, _) in crate::samples::USERS {
        let found = realm["users"].as_array().unwrap().iter().find(|u| u["username"] == user).unwrap();
        assert_eq!(found["credentials"][0]["value"], user);
    }
    let client =
        |id: &str| realm["clients"].as_array().unwrap().iter().find(|c| c["clientId"] == id).unwrap().clone();
    assert_eq!(client("inspector")["redirectUris"].as_array().unwrap().len(), 4);
    assert_eq!(client("tests")["secret"], filled.plan.state.secrets.tests_client.as_str());
    for organisation in ["org-1", "org-2"] {
        let resource = filled.plan.state.resource(organisation);
        assert_eq!(client(&resource)["attributes"]["resource_url"], resource.as_str());
    }
    // The second start imports nothing; another secret makes a new database.
    keycloak::imported(&filled.plan.paths);
    let imports = |plan: &Plan| {
        let parts = plan.parts().unwrap();
        parts.iter().any(|part| part.args.iter().any(|arg| arg == "--import-realm"))
    };
    assert!(!imports(&filled.plan));
    let mut plan = filled.plan.clone();
    plan.state.secrets.tests_client = "another".to_owned();
    assert!(imports(&plan));
}

#[test]
fn the_filter_s_configuration_is_in_both_gateways_files() {
    for (gateway, file) in [(Gateway::Envoy, "envoy.yaml"), (Gateway::Kong, "kong.yml")] {
        let filled = fill(gateway);
        let text = std::fs::read_to_string(filled.plan.paths.run().join("gateway").join(file)).unwrap();
        let config = filter_config(&filled.plan);
        let expected =
            if gateway == Gateway::Envoy { serde_json::to_string(&config).unwrap() } else { config };
        assert!(text.contains(&expected), "{}", gateway.name());
        for port in 30_020..30_023 {
            assert!(text.contains(&port.to_string()), "backend {port} in {file}");
        }
    }
}

#[test]
fn the_filter_is_told_of_hosts_and_of_how_tokens_are_checked() {
    use crate::state::TokenCheck;
    for gateway in [Gateway::Envoy, Gateway::Kong] {
        let mut plan = fill(gateway).plan.clone();
        let mut config = |check| {
            plan.state.tokens.check = check;
            serde_json::from_str::<serde_json::Value>(&filter_config(&plan)).unwrap()
        };
        let keys = config(TokenCheck::Keys);
        assert_eq!(keys["hosts"][0]["url"], "http://org-1.localhost:30000");
        assert_eq!(keys["hosts"][0]["organisation"], "org-1");
        assert_eq!(keys["hosts"][0]["path"], "/mcp");
        let has = |config: &serde_json::Value, what: &str| config["issuers"][0].get(what).is_some();
        assert!(has(&keys, "jwks") && !has(&keys, "introspection"));
        let asked = config(TokenCheck::Introspection);
        assert!(!has(&asked, "jwks") && has(&asked, "introspection"));
        let both = config(TokenCheck::Both);
        assert!(has(&both, "jwks") && has(&both, "introspection"));
        assert_eq!(both["issuers"][0]["introspection"]["client_id"], "bifrost");
    }
}

#[test]
fn kong_has_a_route_for_each_host() {
    let filled = fill(Gateway::Kong);
    let plan = &filled.plan;
    let routes = || {
        plan.parts().unwrap();
        let text = std::fs::read_to_string(plan.paths.run().join("gateway/kong.yml")).unwrap();
        let lines = text.lines().map(str::trim);
        let of = |start: &str| -> Vec<String> {
            lines.clone().filter_map(|line| line.strip_prefix(start)).map(str::to_owned).collect()
        };
        // Each removes what the Service's plugin removes, which it takes the place of.
        let (hosts, uris) = (of("hosts: "), of("uri: /api/v1/mcp/"));
        assert_eq!(of("remove: *forged").len(), hosts.len());
        hosts.into_iter().zip(uris).collect::<Vec<_>>()
    };
    let pair = |host: &str, organisation: &str| (format!("[{host:?}]"), organisation.to_owned());
    assert_eq!(routes(), [pair("org-1.localhost", "org-1"), pair("org-2.localhost", "org-2")]);
    let mut hosts = crate::hosts::Hosts::load(&plan.paths).unwrap();
    hosts.give("acme.localhost", "acme").unwrap();
    hosts.take("org-2.localhost");
    hosts.save(&plan.paths).unwrap();
    assert_eq!(routes(), [pair("acme.localhost", "acme"), pair("org-1.localhost", "org-1")]);
    std::fs::write(plan.paths.hosts_file(), "").unwrap();
    assert_eq!(routes(), []);
    std::fs::write(plan.paths.hosts_file(), "\"localhost\" = \"org-1\"").unwrap();
    assert!(plan.parts().unwrap_err().what.contains("public name"));
}

#[test]
fn the_realm_has_each_resource_as_client_and_audience_and_every_policy_of_registration() {
    let filled = fill(Gateway::Envoy);
    let file = keycloak::home(&filled.plan.paths).join("data/import/asgard-realm.json");
    let realm: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let state = &filled.plan.state;
    for (organisation, host) in [("org-1", "org-1.localhost"), ("org-2", "org-2.localhost")] {
        for url in crate::hosts::resources(state, organisation, &[host.to_owned()]).unwrap() {
            let client =
                realm["clients"].as_array().unwrap().iter().find(|client| client["clientId"] == *url);
            assert_eq!(client.unwrap()["attributes"]["resource_url"], *url);
            for scope in realm["clientScopes"].as_array().unwrap() {
                let name = scope["name"].as_str().unwrap();
                // The same name as `asgard org` gives it, so that it finds it again.
                let carries = scope["protocolMappers"].as_array().is_some_and(|mappers| {
                    mappers.iter().any(|mapper| {
                        mapper["name"] == format!("audience {url}")
                            && mapper["config"]["included.client.audience"] == *url
                    })
                });
                assert_eq!(carries, name == "basic", "{name} {url}");
            }
        }
    }
    // Whoever registers without scopes, and asks for none, gets these.
    let defaults = realm["defaultDefaultClientScopes"].as_array().unwrap();
    assert!(
        ["basic", "organization"].iter().all(|scope| defaults.contains(&serde_json::json!(scope))),
        "{defaults:?}"
    );
}

#[test]
fn the_filter_accepts_the_hosts_of_the_state_file() {
    let filled = fill(Gateway::Envoy);
    let mut plan = filled.plan.clone();
    let accepted = |plan: &Plan| {
        let config: serde_json::Value = serde_json::from_str(&filter_config(plan)).unwrap();
        config["accepted_hosts"].clone()
    };
    assert_eq!(accepted(&plan), serde_json::json!([]));
    plan.state.accepted_hosts = vec!["host.docker.internal".to_owned()];
    assert_eq!(accepted(&plan), serde_json::json!(["host.docker.internal"]));
}

#[test]
fn kong_does_not_take_an_old_pid_for_itself() {
    let filled = fill(Gateway::Kong);
    let gateway = filled.parts.iter().find(|part| part.kind == Kind::Gateway).unwrap();
    // KONG_PREFIX, and where nginx's master writes its pid in it.
    let prefix = Path::new(&gateway.env["KONG_PREFIX"]);
    assert_eq!(gateway.stale, [prefix.join("pids/nginx.pid")]);
}
