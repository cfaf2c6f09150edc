//! The configuration of the containers, as `docker-compose.yml` mounts it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::env::Env;
use crate::config::kong::{self, Place};
use crate::config::{Settings, filter};
use crate::gateway::Gateway;
use crate::parts::{inspector, keycloak};
use crate::paths::{Paths, private_dir, write_private};
use crate::problem::{Problem, Result};

/// Folders of which programs in containers read, which are other users. The folder around them keeps everybody else out.
const MOUNTED: [&str; 3] = ["kong", "keycloak", "inspector"];

/// The folder that `docker-compose.yml` names.
#[must_use]
pub fn folder(paths: &Paths) -> PathBuf {
    paths.root.join(".asgard/compose")
}

/// All files: name and text. They hold secrets.
///
/// # Errors
/// A template that cannot be read, or names something that has no value.
pub fn files(paths: &Paths, env: &Env) -> Result<Vec<(&'static str, String)>> {
    let kong = kong::files(&settings(paths, env)?, &place(env))?;
    Ok(vec![
        ("kong/kong.yml", kong.kong_yml),
        ("kong/nginx-http.conf", kong.nginx_http),
        ("kong/nginx-proxy.conf", kong.nginx_proxy),
        ("kong.env", kong.kong_env),
        ("keycloak/asgard-realm.json", keycloak::realm(&paths.root, &env.state)?),
        ("inspector/servers.json", inspector::servers(&env.state)),
    ])
}

/// Writes the files into a folder: for its owner alone, with folders in it that containers may read.
///
/// # Errors
/// When they cannot be written.
pub fn write(folder: &Path, files: &[(&'static str, String)]) -> Result<()> {
    private_dir(folder)?;
    for (name, text) in files {
        write_private(&folder.join(name), text.as_bytes())?;
        if name.contains('/') {
            mode(&folder.join(name), 0o644)?;
        }
    }
    MOUNTED.iter().try_for_each(|name| mode(&folder.join(name), 0o755))?;
    mode(folder, 0o700)
}

fn mode(path: &Path, mode: u32) -> Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(|e| Problem::io("change the mode of", path, &e))
}

/// Names and ports are those of `docker-compose.yml`.
fn settings(paths: &Paths, env: &Env) -> Result<Settings> {
    let state = &env.state;
    let keycloak = "keycloak:8080".to_owned();
    let mut origins = filter::origins(state);
    origins.push(state.public_url.clone());
    Ok(Settings {
        root: paths.root.clone(),
        public_url: state.public_url.clone(),
        listen: "0.0.0.0".to_owned(),
        port: 8000,
        backends: [1, 2].map(|number| format!("backend-{number}:8081")).into(),
        pushpins: vec![format!("{}:7999", env.pushpin)],
        filter_config: filter::config(Gateway::Kong, state, &env.hosts, None, &keycloak)?,
        keycloak,
        origins,
        hosts: env.hosts.to_vec(),
    })
}

/// The image's folders, and what its Kong is.
fn place(env: &Env) -> Place {
    Place {
        files: "/etc/asgard/kong".to_owned(),
        prefix: "/usr/local/kong".to_owned(),
        filters: "/opt/asgard/filters".to_owned(),
        user: "kong".to_owned(),
        workers: "auto".to_owned(),
        status_listen: "127.0.0.1:8007".to_owned(),
        trusted_ips: env.pushpin.to_string(),
    }
}
