//! `asgard render`: the configuration that a gateway is started with.

use std::path::Path;
use std::process::ExitCode;

use crate::args::{Render, Target};
use crate::compose::{self, Env};
use crate::gateway::Gateway;
use crate::install::{Built, Tools};
use crate::parts::Plan;
use crate::paths::{Paths, private_dir, write_private};
use crate::problem::{Problem, Result};
use crate::state::State;
use crate::ui::say;

/// Renders the files of a target: to standard output, or into a folder.
///
/// # Errors
/// Settings that are not as they should be, and what to do; a file that cannot be read or written.
pub fn run(paths: &Paths, render: &Render) -> Result<ExitCode> {
    match render.target {
        Target::Compose => containers(paths, render.out.as_deref())?,
        Target::Kong => native(paths, Gateway::Kong, render.out.as_deref())?,
        Target::Envoy => native(paths, Gateway::Envoy, render.out.as_deref())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// As `up` renders them for the stack of the state file.
fn native(paths: &Paths, gateway: Gateway, out: Option<&Path>) -> Result<()> {
    let state = State::existing(paths)?;
    let plan = Plan {
        paths: paths.clone(),
        size: state.size,
        state,
        gateway,
        tools: Tools { filter: Built::filter(paths), ..Tools::default() },
        inspector: true,
        only: Vec::new(),
    };
    let Some(out) = out else {
        print(&plan.gateway_files(&plan.gateway_folder())?);
        return Ok(());
    };
    let out = std::path::absolute(out).map_err(|e| Problem::io("find", out, &e))?;
    private_dir(&out)?;
    for (name, text) in plan.gateway_files(&out)? {
        write_private(&out.join(name), text.as_bytes())?;
    }
    say(format!("the configuration is in {}; it holds secrets", paths.shown(&out)));
    Ok(())
}

/// As `docker-compose.yml` mounts them. `.env` gets what it lacks.
fn containers(paths: &Paths, out: Option<&Path>) -> Result<()> {
    let env = Env::load(paths)?;
    let files = compose::files(paths, &env)?;
    env.save(paths)?;
    let Some(out) = out else {
        print(&files);
        return Ok(());
    };
    compose::write(out, &files)?;
    println!("ready: secrets in .env, configuration in {}", out.display());
    if env.has_samples_anywhere() {
        println!(
            "WARNING: the sample users are there, wherever {} can be reached from; SAMPLE_USERS=anywhere says so.",
            env.state.public_url
        );
    }
    println!("next:  docker compose up --build -d");
    println!(
        "then:  {}/heimdall/  ({}), http://localhost:6274/?MCP_INSPECTOR_API_TOKEN=… (the token is in .env)",
        env.state.public_url, env.state.secrets.admin_user
    );
    println!(
        "       users: thor (org-1), hel (org-2), freya (both), surt (none); each has its name as password"
    );
    Ok(())
}

/// Several files have their names before them.
fn print(files: &[(&'static str, String)]) {
    for (name, text) in files {
        if files.len() > 1 {
            println!("==> {name} <==");
        }
        print!("{text}");
    }
}
