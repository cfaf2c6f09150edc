//! Keycloak (Heimdall): users, organisations, tokens.
//!
//! The built distribution is shared by all stacks of the repository; each stack has a home of its own whose
//! folders point there, with a database file in `data/`. The realm is imported once; when the realm's file
//! changes (another port, another secret, an edited template) the database is made anew.
//!
//! Java is started directly, as `kc.sh` would: so the part's process is Keycloak itself, not a shell.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::Plan;
use crate::health::Probe;
use crate::install::keycloak::java_arguments;
use crate::paths::{Paths, private_dir, short_hash, write_private};
use crate::problem::{Problem, Result};
use crate::render::{render_template, values};
use crate::state::State;
use crate::supervisor::part::{Kind, PartSpec};

pub(super) fn part(plan: &Plan) -> Result<PartSpec> {
    let ports = &plan.state.ports;
    let home = home(&plan.paths);
    let import = prepare(plan, &home)?;
    let mut args = java_arguments(&home);
    args.extend(["start".to_owned(), "--optimized".to_owned()]);
    if import {
        args.push("--import-realm".to_owned());
    }
    args.extend([
        // Not at build: there it is ignored, and JGroups would listen beyond loopback.
        "--cache=local".to_owned(),
        "--http-enabled=true".to_owned(),
        "--http-host=127.0.0.1".to_owned(),
        format!("--http-port={}", ports.keycloak),
        "--http-management-host=127.0.0.1".to_owned(),
        format!("--http-management-port={}", ports.keycloak_management),
        format!("--hostname={}/heimdall", plan.state.public_url),
        "--hostname-backchannel-dynamic=true".to_owned(),
        "--proxy-headers=xforwarded".to_owned(),
    ]);
    let env = [
        ("KC_BOOTSTRAP_ADMIN_USERNAME", plan.state.secrets.admin_user.clone()),
        ("KC_BOOTSTRAP_ADMIN_PASSWORD", plan.state.secrets.admin_password.clone()),
    ];
    Ok(PartSpec {
        name: "keycloak".to_owned(),
        kind: Kind::Keycloak,
        address: Plan::local(ports.keycloak),
        program: plan.tools.java.clone(),
        args,
        env: env.map(|(name, value)| (name.to_owned(), value)).into(),
        folder: home,
        stale: Vec::new(),
        after: Vec::new(),
        probe: Probe::Http(format!("http://{}/health/ready", Plan::local(ports.keycloak_management))),
        start_timeout: Duration::from_secs(240),
        stop_timeout: Duration::from_secs(10),
        orphan_signal: Signal::SIGKILL,
        stop_wave: 0,
    })
}

/// The home of this stack's Keycloak.
#[must_use]
pub fn home(paths: &Paths) -> PathBuf {
    paths.data().join("keycloak")
}

/// Notes that the import is done; until then a next start makes the database anew.
pub fn imported(paths: &Paths) {
    let home = home(paths);
    let _ = std::fs::rename(home.join("importing"), home.join("imported"));
}

/// Makes the home. True: the realm is to be imported.
fn prepare(plan: &Plan, home: &Path) -> Result<bool> {
    private_dir(&home.join("data/import"))?;
    let ours = plan.paths.root.join("keycloak/themes");
    let folders = ["lib", "conf", "providers"].map(|folder| (folder, plan.tools.keycloak.join(folder)));
    for (folder, target) in folders.into_iter().chain([("themes", ours)]) {
        let link = home.join(folder);
        if std::fs::read_link(&link).ok().as_deref() != Some(target.as_path()) {
            let _ = std::fs::remove_file(&link);
            symlink(&target, &link).map_err(|e| Problem::io("link", &link, &e))?;
        }
    }
    let realm = realm(&plan.paths.root, &plan.state)?;
    let secrets = &plan.state.secrets;
    // The administrator is made at the first start alone, so it belongs to what a database is made of.
    let made_of =
        [realm.as_str(), &secrets.admin_user, &secrets.admin_password, &plan.state.versions.keycloak];
    let made_of = short_hash(made_of.join("\n").as_bytes());
    let done = home.join("imported");
    if std::fs::read_to_string(&done).is_ok_and(|hash| hash == made_of) {
        return Ok(false);
    }
    if done.exists() {
        crate::ui::say("  the realm's template or settings changed: Keycloak's database is made anew");
    }
    let _ = std::fs::remove_file(&done);
    for leftover in ["data/h2", "data/tmp", "data/transaction-logs"] {
        let leftover = home.join(leftover);
        if leftover.exists() {
            std::fs::remove_dir_all(&leftover).map_err(|e| Problem::io("remove", &leftover, &e))?;
        }
    }
    write_private(&home.join("data/import/asgard-realm.json"), realm.as_bytes())?;
    write_private(&home.join("importing"), made_of.as_bytes())?;
    Ok(true)
}

/// The realm, filled in.
///
/// # Errors
/// A template that cannot be read, names something that has no value, or is not JSON once filled in.
pub fn realm(root: &Path, state: &State) -> Result<String> {
    let template = root.join("keycloak/realm.json.in");
    let values = values([
        ("PUBLIC_URL", state.public_url.clone()),
        ("ORG_1_URL", state.host_url("org-1.localhost")?),
        ("ORG_2_URL", state.host_url("org-2.localhost")?),
        ("INSPECTOR_PORT", state.ports.inspector.to_string()),
        ("TESTS_CLIENT_SECRET", state.secrets.tests_client.clone()),
        ("GATEWAY_CLIENT_SECRET", state.secrets.gateway_client.clone()),
    ]);
    let realm = render_template(&template, &values)?;
    let json = serde_json::from_str::<serde_json::Value>(&realm)
        .map_err(|e| Problem::new(format!("{} is not JSON once filled in: {e}", template.display())))?;
    Ok(if state.sample_users == Some(false) { without_samples(json).to_string() } else { realm })
}

/// The realm without the users whose passwords everybody knows, and without the client that takes passwords.
fn without_samples(mut realm: serde_json::Value) -> serde_json::Value {
    let list = |value: Option<&mut serde_json::Value>, stays: &dyn Fn(&serde_json::Value) -> bool| {
        if let Some(list) = value.and_then(serde_json::Value::as_array_mut) {
            list.retain(|entry| stays(entry));
        }
    };
    let is_service =
        |name: &serde_json::Value| name.as_str().is_some_and(|name| name.starts_with("service-account-"));
    list(realm.get_mut("users"), &|user| is_service(&user["username"]));
    list(realm.get_mut("clients"), &|client| client["clientId"] != "asgard-cli");
    for organisation in
        realm.get_mut("organizations").and_then(serde_json::Value::as_array_mut).into_iter().flatten()
    {
        list(organisation.get_mut("members"), &|member| is_service(&member["username"]));
    }
    realm
}
