//! `asgard org`, `asgard user` and `asgard host` at the running stack, and the guide that tells of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::process::Output;

use e2e::keycloak::Keycloak;
use e2e::login::{Ask, Login, Person, callback, public_client, register};
use e2e::{Client, EntryPoint, Stack};
use serde_json::{Value, json};
use tokio::process::Command;

/// Runs a line of shell with this stack's command.
async fn shell(stack: &Stack, line: &str) -> Output {
    let program = asgard::stack::program(&stack.paths);
    Command::new("sh")
        .args(["-c", &line.replace("./asgard", &program.display().to_string())])
        .current_dir(&stack.paths.root)
        .env("ASGARD_ROOT", &stack.paths.root)
        .env("ASGARD_HOME", &stack.paths.home)
        .env("ASGARD_CACHE", &stack.paths.cache)
        .output()
        .await
        .unwrap()
}

/// The same for one that must succeed; gives what it says.
async fn run(stack: &Stack, line: &str) -> String {
    let output = shell(stack, line).await;
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{line}: {text}");
    text
}

/// One that must fail with one clear line; gives it.
async fn refused(stack: &Stack, line: &str) -> String {
    let output = shell(stack, line).await;
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    assert!(!output.status.success(), "{line} succeeds");
    assert_eq!(text.lines().count(), 1, "{line}: {text}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

async fn log_in(stack: &Stack, client: &str, person: &mut Person, resource: &str) -> Login {
    let redirect = callback(stack);
    let ask = Ask { client, redirect: &redirect, scope: "mcp:tools organization", resource: Some(resource) };
    person.log_in(stack, &ask).await
}

async fn status(endpoint: String, token: &str) -> u16 {
    let exchange = Client::at(endpoint, token.to_owned()).tool("echo", json!({"text": "x"})).await;
    if exchange.status() == 200 {
        exchange.check_whole(0).unwrap();
    }
    exchange.status()
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test organisations"]
async fn every_command_of_the_guide_works() {
    let stack = Stack::claim().await;
    let guide = std::fs::read_to_string(stack.paths.root.join("docs/organisations.md")).unwrap();
    let (mut open, mut commands, mut count) = (false, false, 0);
    for line in guide.lines() {
        if line.trim_start().starts_with("```") {
            // Blocks of another language are no commands.
            (open, commands) = (!open, !open && line == "```");
            continue;
        }
        if commands && !line.is_empty() {
            assert!(line.contains("./asgard"), "no command: {line}");
            run(&stack, line).await;
            // What adds may be done again.
            if line.contains(" add ") {
                run(&stack, line).await;
            }
            count += 1;
        }
    }
    assert!(count >= 12, "{count} commands");
    println!("Bifrost: {count} commands of docs/organisations.md work");
    let keycloak = Keycloak::of(&stack);
    let all = keycloak.get("/organizations?max=1000").await;
    assert!(!all.to_string().contains("acme"), "the guide cleans up: {all}");
    let clients = keycloak.get("/clients?max=1000").await;
    assert!(!clients.to_string().contains("acme"), "the resources are gone");
    let scopes = keycloak.get("/client-scopes").await;
    assert!(!scopes.to_string().contains("acme"), "and their audiences");
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test organisations"]
async fn a_new_organisation_is_a_tenant_of_its_own() {
    let stack = Stack::claim().await;
    run(&stack, "./asgard org add vanaheim --title Vanaheim --theme ember").await;
    let add = "./asgard user add njord --org vanaheim --email njord@vanaheim.example --name 'Njord of Noatun' \
               --password-stdin";
    assert!(run(&stack, &format!("echo njord-s-ships | {add}")).await.contains("njord is added"));
    let client = public_client(&stack).await;
    let resource = stack.state.resource("vanaheim");
    let endpoint = |entry_point: EntryPoint| stack.endpoint(entry_point, "vanaheim");
    let mut njord = Person::new("njord", "njord-s-ships", "vanaheim");
    let login = log_in(&stack, &client, &mut njord, &resource).await;
    assert!(login.text.contains("/organisations/ember/theme.css"), "the dress");
    assert_eq!(login.claims()["aud"], json!(resource));
    for entry_point in EntryPoint::BOTH {
        assert_eq!(status(endpoint(entry_point), login.token()).await, 200);
        assert_eq!(status(stack.endpoint(entry_point, "org-1"), login.token()).await, 401);
    }
    let thor = log_in(&stack, &client, &mut Person::sample("thor", "org-1"), &resource).await;
    assert_eq!(status(endpoint(EntryPoint::Bifrost), thor.token()).await, 403, "no member");

    // Listed, for people and for programs.
    let listed = run(&stack, "./asgard org list").await;
    assert!(listed.contains("vanaheim (Vanaheim)") && listed.contains(&resource), "{listed}");
    let listed: Value = serde_json::from_str(&run(&stack, "./asgard org list --json").await).unwrap();
    let one = listed.as_array().unwrap().iter().find(|one| one["alias"] == "vanaheim").unwrap();
    assert_eq!((&one["theme"], &one["members"]), (&json!("ember"), &json!(["njord"])));

    // A member of two, then of one again.
    run(&stack, "./asgard user add njord --org org-1").await;
    njord.organisation = "org-1".into();
    let login = log_in(&stack, &client, &mut njord, &stack.state.resource("org-1")).await;
    assert_eq!(status(stack.endpoint(EntryPoint::Bifrost, "org-1"), login.token()).await, 200);
    run(&stack, "./asgard user remove njord --org org-1").await;
    let text = refused(&stack, "./asgard user remove njord --org org-1").await;
    assert!(text.contains("njord is not a member of org-1"), "{text}");

    run(&stack, "./asgard org remove vanaheim").await;
    run(&stack, "./asgard user remove njord").await;
    Keycloak::of(&stack).forget_client(&client).await;
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test organisations"]
async fn mistakes_are_told_in_one_line() {
    let stack = Stack::claim().await;
    let before = run(&stack, "./asgard org list --json").await;
    for (line, expected) in [
        ("./asgard org add mcp", "another meaning"),
        ("./asgard org add 'a b'", "cannot be an organisation's name"),
        ("./asgard org add org-1 --theme nope", "the themes are aurora, ember"),
        ("./asgard org add org-1 --theme ../../x", "the themes are aurora, ember"),
        ("./asgard org add org-1 --domain org-2.localhost", "belongs to the organisation org-2"),
        ("./asgard org add org-1 --domain org2.example", "belongs to the organisation org-2"),
        ("./asgard org add org-1 --domain http://x.example/", "is not a host name"),
        ("./asgard org remove nope", "there is no organisation nope"),
        ("./asgard org remove org-1 --domain nope.example", "org-1 has no domain nope.example"),
        ("./asgard user add thor --org nope", "there is no organisation nope"),
        ("./asgard user add sigyn --org nope --email sigyn@x.example", "there is no organisation nope"),
        ("./asgard user add 'a\"b' --org org-1", "cannot add the user"),
        ("./asgard user add sigyn --org org-1 --email thor@org1.example", "cannot add the user sigyn"),
        ("printf '\\n' | ./asgard user add sigyn --org org-1 --password-stdin", "the password is empty"),
        ("./asgard user remove nobody", "there is no user nobody"),
        ("./asgard user remove thor --org org-2", "thor is not a member of org-2"),
        ("./asgard host add https://x.example", "is not a host name"),
    ] {
        let text = refused(&stack, line).await;
        assert!(text.to_lowercase().contains(&expected.to_lowercase()), "{line}: {text}");
    }
    // Nothing is left of them.
    let (_, users) = Keycloak::of(&stack).ask(reqwest::Method::GET, "/users?username=sigyn", None).await;
    assert_eq!(users, json!([]));
    assert_eq!(run(&stack, "./asgard org list --json").await, before);
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test organisations"]
async fn a_trusted_host_may_register_clients() {
    let stack = Stack::claim().await;
    let metadata = json!({
        "client_name": "an agent",
        "redirect_uris": ["https://agents.norns.example/callback"],
        "token_endpoint_auth_method": "none",
        "scope": "mcp:tools organization",
    });
    assert_eq!(register(&stack, &metadata, None).await.0, 403);
    run(&stack, "./asgard host add agents.norns.example").await;
    assert!(run(&stack, "./asgard host add agents.norns.example").await.contains("already"));
    assert!(run(&stack, "./asgard host list").await.contains("agents.norns.example"));
    let (status, answer) = register(&stack, &metadata, None).await;
    assert_eq!(status, 201, "{answer}");
    let keycloak = Keycloak::of(&stack);
    keycloak.forget_client(answer["client_id"].as_str().unwrap()).await;
    for path in ["/client-policies/profiles", "/client-policies/policies"] {
        assert!(keycloak.get(path).await.to_string().contains("agents.norns.example"), "{path}");
    }
    run(&stack, "./asgard host remove agents.norns.example").await;
    assert_eq!(register(&stack, &metadata, None).await.0, 403);
    for path in ["/client-policies/profiles", "/client-policies/policies"] {
        let now = keycloak.get(path).await.to_string();
        assert!(!now.contains("norns") && now.contains("localhost"), "{path}: {now}");
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test organisations"]
async fn an_organisation_is_reached_at_its_own_host() {
    let stack = Stack::claim().await;
    let http = e2e::client::http();
    let own = stack.state.host_url("org-1.localhost").unwrap();
    let client = public_client(&stack).await;
    for path in ["/mcp", "/api/v1/mcp/org-1"] {
        let endpoint = format!("{own}{path}");
        // The challenge and the metadata are in that host's name, and lead to the same Keycloak.
        let answer = http.post(&endpoint).send().await.unwrap();
        assert_eq!(answer.status(), 401, "{endpoint}");
        let challenge = answer.headers()["www-authenticate"].to_str().unwrap().to_owned();
        let about = format!("{own}/.well-known/oauth-protected-resource{path}");
        assert!(challenge.contains(&format!("resource_metadata=\"{about}\"")), "{challenge}");
        let about: Value = http.get(about).send().await.unwrap().json().await.unwrap();
        assert_eq!(about["resource"], json!(endpoint));
        assert_eq!(about["authorization_servers"], json!([stack.state.issuer()]));
        // What a client gets by following them opens it, as it opens the organisation's other addresses.
        let mut thor = Person::sample("thor", "org-1");
        let login = log_in(&stack, &client, &mut thor, &endpoint).await;
        assert_eq!(login.claims()["aud"], json!(endpoint));
        assert_eq!(status(endpoint.clone(), login.token()).await, 200, "{endpoint}");
        assert_eq!(status(stack.state.resource("org-1"), login.token()).await, 200);
        assert_eq!(status(stack.state.resource("org-2"), login.token()).await, 401);
        // A call that is handed over to Pushpin finds its way from there too.
        let held = Client::at(endpoint, login.token().to_owned());
        let exchange = held.tool_with_progress("slow_echo", json!({"total_ms": 300, "events": 3})).await;
        exchange.check_whole(3).unwrap();
        // Who does not belong there is refused.
        let hel = log_in(&stack, &client, &mut Person::sample("hel", "org-2"), &format!("{own}{path}")).await;
        assert_eq!(status(format!("{own}{path}"), hel.token()).await, 403);
    }
    // Other organisations do not exist at that host, nor the short path elsewhere.
    let token = e2e::tokens::token(&stack, "freya", "org-2").await;
    assert_eq!(status(format!("{own}/api/v1/mcp/org-2"), &token).await, 404);
    assert_eq!(status(format!("{}/mcp", stack.state.public_url), &token).await, 404);
    Keycloak::of(&stack).forget_client(&client).await;
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test organisations"]
async fn a_new_domain_is_a_host_at_once() {
    let stack = Stack::claim().await;
    let url = stack.state.host_url("alfheim.localhost").unwrap();
    let metadata = format!("{url}/.well-known/oauth-protected-resource/mcp");
    let resource = async || {
        let port = stack.state.ports.gateway;
        let http = reqwest::Client::builder()
            .no_proxy()
            .resolve("alfheim.localhost", ([127, 0, 0, 1], port).into())
            .build()
            .unwrap();
        let answer = http.get(&metadata).send().await.unwrap();
        let body: Value = answer.json().await.unwrap_or_default();
        body["resource"].as_str().map(str::to_owned)
    };
    let output = run(&stack, "./asgard org add alfheim --domain alfheim.localhost --theme aurora").await;
    assert!(output.contains(&format!("{url}/mcp")), "{output}");
    assert_eq!(resource().await, Some(format!("{url}/mcp")));
    let text = refused(&stack, "./asgard org add vanir --domain alfheim.localhost").await;
    assert!(text.contains("belongs to the organisation alfheim"), "{text}");
    run(&stack, "./asgard org remove alfheim").await;
    assert_ne!(resource().await, Some(format!("{url}/mcp")), "gone");
    stack.serving().await;
}
