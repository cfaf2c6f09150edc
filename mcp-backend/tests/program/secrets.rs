//! Secrets: where they may come from, where they never show, and which are not good enough.

use std::process::Output;

use tokio::process::Command;

use super::process::{Backend, PATIENCE, command, worker};

const NAMES: [&str; 6] = [
    "ASGARD_ASSERTION_KEYS",
    "ASGARD_SESSION_KEY",
    "ASGARD_GRIP_KEY",
    "ASGARD_BROADCAST_KEY",
    "ASGARD_STATE_KEY",
    "ASGARD_ADMIN_TOKEN",
];
const KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE";

/// What a program says that does not start.
pub(crate) async fn refused(command: &mut Command) -> String {
    let output: Output = tokio::time::timeout(PATIENCE, command.output()).await.expect("it starts").unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{error}");
    error
}

#[tokio::test]
async fn no_secret_is_an_option_and_help_shows_no_value() {
    for mut program in [command(), worker()] {
        let url = format!("redis://:{KEY}@127.0.0.1:1");
        for name in NAMES.into_iter().chain(["ASGARD_NODE", "ASGARD_SERVER", "ASGARD_LOG"]) {
            program.env(name, KEY);
        }
        program.env("ASGARD_REDIS_URL", url).arg("--help");
        let output = program.output().await.unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && help.contains("ASGARD_REDIS_URL_FILE"), "{help}");
        assert!(!help.contains(KEY), "{help}");
    }
    for name in NAMES {
        let option = name.replace("ASGARD_", "--").replace('_', "-").to_lowercase();
        let error = refused(command().args([&option, KEY])).await;
        assert!(error.contains("unexpected argument"), "{error}");
    }
    let with_password = ["--redis-url", "redis://:hunter2@127.0.0.1:1"];
    for mut program in [command(), worker()] {
        let error = refused(program.args(with_password)).await;
        assert!(error.contains("ASGARD_REDIS_URL_FILE") && !error.contains("hunter2"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_may_be_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.display().to_string()
    };
    let (good, bad) = (write("good", &format!("{KEY}\n")), write("bad", "AAAA"));
    // Each of them is read: a bad one stops the start, and a good one does not.
    for name in &NAMES[1..] {
        let admin = ("ASGARD_ADMIN_LISTEN", "127.0.0.1:0");
        let assertion = ("ASGARD_ASSERTION_KEYS", &*format!("k1:{KEY}"));
        let mut program = command();
        program.arg("--embedded-worker").envs([admin, assertion]).env(format!("{name}_FILE"), &bad);
        if *name != "ASGARD_ADMIN_TOKEN" {
            program.env("ASGARD_ADMIN_TOKEN", KEY);
        }
        let error = refused(&mut program).await;
        assert!(error.contains(name), "{name}: {error}");
        let error = refused(program.env(name, KEY)).await;
        assert!(error.contains("both set"), "{name}: {error}");
    }
    let files: Vec<(String, &str)> = NAMES[1..].iter().map(|name| (format!("{name}_FILE"), &*good)).collect();
    let mut env: Vec<(&str, &str)> = files.iter().map(|(name, file)| (&**name, *file)).collect();
    env.push(("ASGARD_ADMIN_LISTEN", "127.0.0.1:0"));
    let backend = Backend::start(&[], &env).await;
    assert!(backend.log().contains("administrators may notify here"), "{}", backend.log());
}

#[tokio::test]
async fn a_key_that_is_empty_or_short_is_refused() {
    for (name, value, why) in [
        ("ASGARD_GRIP_KEY", "", "is empty"),
        ("ASGARD_GRIP_KEY", "a2V5", "has 3 bytes, and needs 32"),
        ("ASGARD_GRIP_KEY", "%", "is not base64url"),
        ("ASGARD_SESSION_KEY", "", "is empty"),
        ("ASGARD_BROADCAST_KEY", "", "is empty"),
        ("ASGARD_STATE_KEY", "", "is empty"),
        ("ASGARD_ASSERTION_KEYS", "", "is empty"),
        ("ASGARD_HANDOVER", "envoy", "ASGARD_GRIP_KEY is missing"),
    ] {
        let error = refused(command().arg("--embedded-worker").env(name, value)).await;
        assert!(error.contains(why), "{name}={value}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_api_is_for_this_machine_unless_told() {
    let remote = [("ASGARD_ADMIN_LISTEN", "0.0.0.0:0"), ("ASGARD_ADMIN_TOKEN", KEY)];
    let error = refused(command().arg("--embedded-worker").envs(remote)).await;
    assert!(error.contains("--admin-remote") && error.contains("0.0.0.0:0"), "{error}");
    let backend = Backend::start(&["--admin-remote"], &remote).await;
    assert!(backend.log().contains("administrators may notify here"), "{}", backend.log());
}
