//! A gateway with its backend and its Pushpin.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use asgard::config::Settings;
use corpus::{ASSERTION_KEYS, Table, net};
use serde_json::Value;

/// What hosts the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gateway {
    Envoy,
    Kong,
}

/// The gateway and all that is around it; it ends with this.
pub(crate) struct Edge {
    pub(crate) gateway_port: u16,
    pub(crate) pushpin_port: u16,
    pub(crate) backend_port: u16,
    folder: tempfile::TempDir,
    kong: Option<kong_host::Gateway>,
    pushpin: kit::Pushpin,
    _children: Vec<Process>,
}

/// Where the gateway listens, and what it reaches.
#[derive(Clone, Copy)]
struct Ports {
    gateway: u16,
    backend: u16,
    pushpin: u16,
    issuer: u16,
}

/// A process that is asked to end, with its own children.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Envoy has a module of its own, without the events that the filter has no use for.
fn module(gateway: Gateway) -> PathBuf {
    let name = match gateway {
        Gateway::Envoy => "kong_filter.envoy.wasm",
        Gateway::Kong => "kong_filter.wasm",
    };
    let path = root().join("target/wasm").join(name);
    assert!(path.is_file(), "{}: run scripts/build-filter", path.display());
    path
}

fn backend() -> PathBuf {
    let beside = || std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("mcp-backend");
    let path = std::env::var_os("ASGARD_BACKEND").map_or_else(beside, PathBuf::from);
    assert!(path.is_file(), "{}: build it, or set ASGARD_BACKEND", path.display());
    path
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

impl Edge {
    pub(crate) async fn start(gateway: Gateway, table: &Table, issuer: u16) -> Self {
        let folder = tempfile::Builder::new().prefix("corpus").tempdir().unwrap();
        let [gateway_port, backend_port] = [(); 2].map(|()| net::free_port());
        let pushpin = kit::Pushpin::start(&[local(backend_port)], &local(gateway_port)).await.unwrap();
        let pushpin_port = pushpin.http().port();
        let ports = Ports { gateway: gateway_port, backend: backend_port, pushpin: pushpin_port, issuer };
        let handover = match gateway {
            Gateway::Envoy => "envoy",
            Gateway::Kong => "kong",
        };
        let log = |name: &str| std::fs::File::create(folder.path().join(format!("{name}.log"))).unwrap();
        let backend = Command::new(backend())
            .arg("--embedded-worker")
            .env("ASGARD_LISTEN", local(backend_port))
            .env("ASGARD_HANDOVER", handover)
            .env("ASGARD_PUSHPINS", pushpin.endpoint().to_string())
            .env("ASGARD_ASSERTION_KEYS", ASSERTION_KEYS)
            .env("ASGARD_SESSION_KEY", "c2VjcmV0LW9mLWF0LWxlYXN0LTMyLWJ5dGVzLWhlcmU")
            .env("ASGARD_GRIP_KEY", kit::pushpin::key())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log("backend"))
            .spawn()
            .expect("mcp-backend does not start");
        let mut children = vec![Process(backend)];
        let keycloak = local(issuer);
        let mut config = table.config(if gateway == Gateway::Envoy { "keycloak" } else { &keycloak });
        config["grip"]["key"] = kit::pushpin::key().into();
        let kong = match gateway {
            Gateway::Envoy => {
                children.push(envoy(folder.path(), &settings(ports, &config), log("gateway")));
                None
            }
            Gateway::Kong => {
                config["kong_scheme"] = "http".into();
                Some(kong(&settings(ports, &config)).await)
            }
        };
        let site =
            Self { gateway_port, pushpin_port, backend_port, folder, kong, pushpin, _children: children };
        let ready =
            corpus::Sent { method: "GET".into(), target: "/readyz".into(), ..corpus::Sent::default() };
        let up = tokio::task::block_in_place(|| {
            net::wait(60, || net::send(backend_port, &ready, &[]).is_ok_and(|answer| answer.status == 200))
                && [gateway_port, pushpin_port].into_iter().all(|port| {
                    let ready = corpus::Sent {
                        target: "/.well-known/oauth-protected-resource/api/v1/mcp/org-1".into(),
                        ..ready.clone()
                    };
                    net::wait(60, || net::send(port, &ready, &[]).is_ok_and(|answer| answer.status == 200))
                })
        });
        assert!(up, "{gateway:?} is not up:\n{}", site.logs());
        site
    }

    /// All that the gateway has logged.
    pub(crate) fn gateway_log(&self) -> String {
        match &self.kong {
            Some(kong) => kong.log().lines().iter().map(|(_, line)| format!("{line}\n")).collect(),
            None => std::fs::read_to_string(self.folder.path().join("gateway.log")).unwrap(),
        }
    }

    /// The ends of the logs.
    pub(crate) fn logs(&self) -> String {
        let mut all = String::new();
        for name in ["backend", "gateway"] {
            let text =
                std::fs::read_to_string(self.folder.path().join(format!("{name}.log"))).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(15).collect();
            all.push_str(&format!("== {name}\n"));
            all.extend(lines.into_iter().rev().map(|line| format!("{line}\n")));
        }
        all + "== pushpin\n" + &self.pushpin.logs()
    }
}

/// The gateway's settings, with the origins of the filter's configuration.
fn settings(ports: Ports, config: &Value) -> Settings {
    let origins = config["origins"].as_array().unwrap().iter();
    Settings {
        port: ports.gateway,
        backends: vec![local(ports.backend)],
        pushpins: vec![local(ports.pushpin)],
        keycloak: local(ports.issuer),
        origins: origins.map(|origin| origin.as_str().unwrap().to_owned()).collect(),
        ..kong_host::setup::settings(&root(), config.to_string())
    }
}

fn envoy(folder: &Path, settings: &Settings, log: std::fs::File) -> Process {
    let file = folder.join("envoy.yaml");
    std::fs::write(&file, asgard::config::envoy::file(settings, &module(Gateway::Envoy)).unwrap()).unwrap();
    let program = std::env::var_os("ASGARD_ENVOY").unwrap_or_else(|| "envoy".into());
    let child = Command::new(program)
        .args(["--concurrency", "1", "--disable-hot-restart", "-l", "warning", "-c"])
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("Envoy does not start; name it by ASGARD_ENVOY");
    Process(child)
}

async fn kong(settings: &Settings) -> kong_host::Gateway {
    let mut setup = kong_host::Setup::shipped(settings).unwrap();
    let meta = std::fs::read_to_string(root().join("kong/kong_filter.meta.json")).unwrap();
    setup.schemas.insert("kong_filter".to_owned(), kong_host::schema::Schema::read(&meta).unwrap());
    setup.filters.insert("kong_filter".to_owned(), std::fs::read(module(Gateway::Kong)).unwrap());
    kong_host::Gateway::start(setup).await.unwrap()
}
