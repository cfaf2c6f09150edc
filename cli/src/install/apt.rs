//! Debian packages, and what they bring.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{JAVA, Needs, Run, fetch, output_of};
use crate::paths::Paths;
use crate::problem::{Problem, Result};
use crate::process::find_program;
use crate::state::State;
use crate::supervisor::part::Kind;
use crate::ui::Step;

/// Updates the lists when needed, installs, tries again; starts no service of the packages (Debian starts
/// those of redis-server and pushpin, on ports of their own, wherever systemd runs).
const SCRIPT: &str = r#"
set -u
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT INT TERM
    printf '#!/bin/sh\nexit 101\n' > "$policy" && chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
for try in 1 2 3; do
    if [ "$try" != 1 ] || [ -z "$(ls /var/lib/apt/lists/*_Packages* 2>/dev/null)" ]; then
        apt-get update -q -o DPkg::Lock::Timeout=120
    fi
    apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=120 "$@" && exit 0
    sleep 2
done
exit 1
"#;

/// Installs the packages that a stack needs and that are missing.
pub(super) fn ensure(paths: &Paths, state: &State, needs: &Needs) -> Result<()> {
    install(paths, &missing(paths, state, needs))
}

/// Installs Debian packages, as root or with sudo. Starts none of their services.
///
/// # Errors
/// When it may not, or when apt fails; says what to type.
pub fn install(paths: &Paths, missing: &[&str]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    let by_hand = format!("install by hand: {list}");
    if find_program("apt-get").is_none() {
        return Err(Problem::new(format!(
            "these Debian packages (or your system's like) are missing: {list}"
        ))
        .hint("install them with your package manager, or use a container engine"));
    }
    let mut command = if nix::unistd::geteuid().is_root() {
        Command::new("sh")
    } else if find_program("sudo").is_some() {
        // Asks for the password before the screen fills with progress.
        let allowed = Command::new("sudo").arg("-v").status().is_ok_and(|status| status.success());
        if !allowed {
            return Err(Problem::new(format!("packages are missing, and sudo does not let us: {list}"))
                .hint(format!("as root: apt-get install -y --no-install-recommends {list}")));
        }
        let mut sudo = Command::new("sudo");
        sudo.arg("sh");
        sudo
    } else {
        return Err(Problem::new(format!(
            "packages are missing, and this user may not install them: {list}"
        ))
        .hint(format!("as root: apt-get install -y --no-install-recommends {list}")));
    };
    let step = Step::begin("Debian packages");
    step.message(list.clone());
    let log = paths.log("install-packages");
    let run = Run { doing: "install packages", log_shown: paths.shown(&log), log, hint: &by_hand };
    command.args(["-c", SCRIPT, "asgard"]).args(missing);
    run.run(&mut command, &step, |line, step| {
        if line.starts_with("Setting up") || line.starts_with("Unpacking") || line.starts_with("Get:") {
            step.message(line.chars().take(80).collect::<String>());
        }
    })?;
    step.done();
    Ok(())
}

/// The packages that are missing.
#[must_use]
pub(super) fn missing(paths: &Paths, state: &State, needs: &Needs) -> Vec<&'static str> {
    let mut packages = Vec::new();
    let mut demand = |there: bool, package: &[&'static str]| {
        if !there {
            packages.extend_from_slice(package);
        }
    };
    let wants = |kind| needs.wants(kind);
    demand(!wants(Kind::Pushpin) || find_program("pushpin").is_some(), &["pushpin"]);
    demand(!wants(Kind::Redis) || find_program("redis-server").is_some(), &["redis-server"]);
    demand(!wants(Kind::Keycloak) || java().is_some(), &["openjdk-17-jre-headless"]);
    let keycloak = !wants(Kind::Keycloak) || fetch::keycloak(paths, state).exists();
    demand(keycloak || find_program("mvn").is_some(), &["maven"]);
    let envoy = needs.wants_envoy() && !fetch::envoy(paths, state).exists();
    let node = wants(Kind::Inspector) && fetch::node(paths, state).is_none();
    demand(!(envoy || node) || fetch::python().is_some(), &["python3", "python3-venv"]);
    demand(find_program("setpriv").is_some() && find_program("setsid").is_some(), &["util-linux"]);
    let wasm = super::build::has_wasm_target() || Path::new("/usr/lib/wasm32-wasi/libc.a").exists();
    demand(!wants(Kind::Gateway) || wasm, &["rustc-web", "rust-web-src", "wasi-libc"]);
    demand(!wants(Kind::Gateway) || find_program("wasm-opt").is_some(), &["binaryen"]);
    packages
}

/// A Java that is new enough: `JAVA_HOME`, `PATH`, then Debian's places.
#[must_use]
pub(super) fn java() -> Option<PathBuf> {
    let home = std::env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java"));
    let debian =
        std::fs::read_dir("/usr/lib/jvm").into_iter().flatten().flatten().map(|e| e.path().join("bin/java"));
    home.into_iter()
        .chain(find_program("java"))
        .chain(debian)
        .find(|java| java_version(java).is_some_and(|version| version >= JAVA))
}

/// The major version of a `java`.
#[must_use]
pub fn java_version(java: &Path) -> Option<u32> {
    parse_java_version(&output_of(Command::new(java).arg("-version"))?)
}

fn parse_java_version(text: &str) -> Option<u32> {
    let version = text.split('"').nth(1)?;
    let mut numbers = version.split(['.', '-', '+', '_']).map(str::parse::<u32>);
    match numbers.next()?.ok()? {
        1 => numbers.next()?.ok(),
        major => Some(major),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_versions() {
        for (text, version) in [
            ("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK", Some(17)),
            ("java version \"1.8.0_392\"", Some(8)),
            ("openjdk version \"25\" 2025", Some(25)),
            ("openjdk version \"21-ea\"", Some(21)),
            ("no java", None),
        ] {
            assert_eq!(parse_java_version(text), version, "{text}");
        }
    }
}
