//! `asgard render` prints what `up` starts a gateway with, and what the compose file mounts.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use asgard::gateway::Gateway;
use asgard::install::Tools;
use asgard::parts::Plan;
use asgard::paths::Paths;
use asgard::ports::Ports;
use asgard::state::State;
use asgard::supervisor::part::{Kind, PartSpec};

/// A folder that ends with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("asgard-render-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn render(root: &Path, home: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_asgard"));
    let filter = home.join("filter.wasm");
    command.arg("render").args(args).current_dir(root);
    command
        .env("ASGARD_ROOT", root)
        .env("ASGARD_HOME", home)
        .env("ASGARD_FILTER_WASM", filter)
        .output()
        .unwrap()
}

fn printed(root: &Path, home: &Path, args: &[&str]) -> String {
    let output = render(root, home, args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The gateway as `up` starts it; its files are written.
fn started(home: &Path, gateway: Gateway) -> PartSpec {
    let paths = Paths { root: root(), cache: home.join("cache"), home: home.to_owned() };
    let state = State::load(&paths).unwrap().unwrap();
    let tools = Tools {
        envoy: Some("/envoy".into()),
        kong: Some("/kong".into()),
        filter: home.join("filter.wasm"),
        ..Tools::default()
    };
    let only = vec![Kind::Gateway.name().to_owned()];
    let plan = Plan { paths, size: state.size, state, gateway, tools, inspector: false, only };
    let mut parts = plan.parts().unwrap();
    assert_eq!(parts.len(), 1);
    parts.remove(0)
}

fn new_state(home: &Path) {
    let paths = Paths { root: root(), cache: home.join("cache"), home: home.to_owned() };
    State::new(Ports::from_base(31_000)).save(&paths).unwrap();
    std::fs::write(home.join("filter.wasm"), b"\0asm").unwrap();
}

#[test]
fn envoy_is_started_with_what_is_rendered() {
    let home = Folder::new("envoy");
    new_state(&home.0);
    let shown = printed(&root(), &home.0, &["--for", "envoy"]);
    let part = started(&home.0, Gateway::Envoy);
    let file = part.args.windows(2).find(|two| two.first().unwrap() == "-c").unwrap().last().unwrap().clone();
    assert_eq!(shown, std::fs::read_to_string(file).unwrap());
    assert!(shown.contains("127.0.0.1") && shown.contains("31000"), "{shown}");
}

#[test]
fn kong_is_started_with_what_is_rendered() {
    let home = Folder::new("kong");
    new_state(&home.0);
    let shown = printed(&root(), &home.0, &["--for", "kong"]);
    let part = started(&home.0, Gateway::Kong);
    let mut seen = Vec::new();
    for file in shown.split("==> ").skip(1) {
        let (name, text) = file.split_once(" <==\n").unwrap();
        if name == "kong.env" {
            let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
            let environment: BTreeMap<String, String> = lines
                .map(|l| l.split_once('=').unwrap())
                .map(|(n, v)| (n.to_owned(), v.to_owned()))
                .collect();
            assert_eq!(environment, part.env);
            let folder = part.folder.display();
            assert_eq!(environment.get("KONG_DECLARATIVE_CONFIG"), Some(&format!("{folder}/kong.yml")));
        } else {
            assert_eq!(text, std::fs::read_to_string(part.folder.join(name)).unwrap(), "{name}");
        }
        seen.push(name);
    }
    assert_eq!(seen, ["kong.yml", "nginx-http.conf", "nginx-proxy.conf", "kong.env"]);
}

#[test]
fn rendered_files_name_the_folder_they_are_in_and_are_private() {
    let home = Folder::new("out");
    let missing = render(&root(), &home.0, &["--for", "kong"]);
    let said = String::from_utf8(missing.stderr).unwrap();
    assert!(
        !missing.status.success() && said.contains("run ./asgard up first")
            || said.contains("Run ./asgard up first"),
        "{said}"
    );
    new_state(&home.0);
    let out = home.0.join("elsewhere");
    printed(&root(), &home.0, &["--for", "kong", "--out", out.to_str().unwrap()]);
    let environment = std::fs::read_to_string(out.join("kong.env")).unwrap();
    assert!(environment.contains(&format!("KONG_PREFIX={}/prefix\n", out.display())), "{environment}");
    for file in std::fs::read_dir(&out).unwrap() {
        assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn the_compose_file_mounts_what_is_rendered() {
    let checkout = Folder::new("compose");
    let root = root();
    for name in ["docker-compose.yml", "kong", "keycloak"] {
        let done = Command::new("cp").arg("-r").arg(root.join(name)).arg(&checkout.0).status().unwrap();
        assert!(done.success(), "{name}");
    }
    let out = checkout.0.join(".asgard/compose");
    let home = checkout.0.join(".asgard");
    printed(&checkout.0, &home, &["--for", "compose", "--out", out.to_str().unwrap()]);
    let compose = std::fs::read_to_string(root.join("docker-compose.yml")).unwrap();
    let mounted: Vec<&str> = compose
        .split(".asgard/compose/")
        .skip(1)
        .map(|rest| rest.split([':', ']', ')']).next().unwrap().trim())
        .filter(|name| !name.is_empty() && !name.starts_with('.'))
        .collect();
    assert_eq!(mounted, ["kong.env", "kong", "keycloak", "inspector"]);
    for name in mounted {
        assert!(out.join(name).exists(), "{name}");
    }
    // Printed, they are the same.
    let shown = printed(&checkout.0, &home, &["--for", "compose"]);
    let files: Vec<(&str, &str)> =
        shown.split("==> ").skip(1).map(|file| file.split_once(" <==\n").unwrap()).collect();
    assert_eq!(files.len(), 6);
    for (name, text) in files {
        assert_eq!(text, std::fs::read_to_string(out.join(name)).unwrap(), "{name}");
    }
}
