//! The script that fills in Pushpin's templates.

#![allow(clippy::unwrap_used)] // Helpers may fail as tests do.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

fn render(values: &str, folder: &std::path::Path, more: &[(&str, &str)]) -> Output {
    let templates = concat!(env!("CARGO_MANIFEST_DIR"), "/../../pushpin");
    Command::new("sh")
        .args(["-c", &format!("set -a; . ./{values}; ./render.sh \"$0\""), &folder.display().to_string()])
        .current_dir(templates)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(more.iter().copied())
        .output()
        .unwrap()
}

const SECRET: (&str, &str) = ("GRIP_KEY_BASE64", "a+b/c&d|e==");

#[test]
fn a_container_needs_only_the_secret() {
    let folder = tempfile::tempdir().unwrap();
    let output = render("container.env", folder.path(), &[SECRET]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let configuration = std::fs::read_to_string(folder.path().join("pushpin.conf")).unwrap();
    assert!(configuration.contains("\nsig_key=base64:a+b/c&d|e==\n"));
    assert!(configuration.contains("\npush_in_sub_specs=tcp://*:5562\n"));
    let routes = std::fs::read_to_string(folder.path().join("routes")).unwrap();
    assert!(routes.contains("\n* gateway:8000"));
    for file in ["pushpin.conf", "routes"] {
        let path = folder.path().join(file);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.lines().all(|line| line.starts_with('#') || !line.contains("${")));
    }
}

#[test]
fn a_missing_value_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let output = render("native.env", folder.path(), &[SECRET, ("PUSHPIN_RUN", "/r"), ("PUSHPIN_LOG", "/l")]);
    assert!(!output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "render.sh: BACKENDS is not set\n");
    assert!(!folder.path().join("routes").exists());
}
