use super::*;
use proptest::prelude::*;
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn caller() -> Principal {
    Principal {
        issuer: "i".into(),
        subject: "s".into(),
        organisation: "org-1".into(),
        client: Some("cli".into()),
        username: None,
        scopes: vec!["mcp:tools".into()],
        roles: vec!["analyst".into()],
        groups: vec!["/staff/north".into()],
    }
}

fn policy(json: serde_json::Value) -> Policy {
    let policy: Policy = serde_json::from_value(json).unwrap();
    policy.check().unwrap();
    policy
}

fn call(name: &str) -> Request<'_> {
    Request { method: "tools/call", name: Some(name) }
}

#[test]
fn patterns() {
    for (pattern, text, fits) in [
        ("report", "report", true),
        ("report", "reports", false),
        ("*", "", true),
        ("*", "x", true),
        ("re*", "report", true),
        ("*t", "report", true),
        ("r*t", "rt", true),
        ("r*t", "r", false),
        ("a*a", "a", false),
        ("a*b*c", "a-b-b-c", true),
        ("a*b*c", "a-c-b", false),
        ("**", "x", true),
        ("a**c", "abc", true),
        ("Report", "report", false),
        ("", "", true),
        ("", "x", false),
        ("*ab*ab", "xab", false),
        ("*ab*ab", "abab", true),
        ("é*", "éa", true),
    ] {
        assert_eq!(Pattern::from(pattern).matches(text), fits, "{pattern} {text}");
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let policy = policy(serde_json::json!({
        "default": "deny",
        "rules": [
            {"name": "no drops", "effect": "deny", "methods": ["tools/call"], "names": ["drop*"]},
            {"effect": "allow", "organisations": ["org-*"], "roles": ["analyst"], "methods": ["tools/*"]},
        ],
    }));
    let denied = policy.decide(&caller(), call("drop_all"));
    assert_eq!((denied.allowed(), denied.rule_name().as_str()), (false, "no drops"));
    let allowed = policy.decide(&caller(), call("report"));
    assert_eq!((allowed.allowed(), allowed.rule_name().as_str()), (true, "rule 2"));
    let other = Principal { roles: vec![], ..caller() };
    let denied = policy.decide(&other, call("report"));
    assert_eq!((denied.allowed(), denied.rule_name().as_str()), (false, "default"));
    assert!(policy.decide(&other, Request { method: "initialize", name: None }).allowed());
    assert!(policy.decide(&other, Request { method: "tools/list", name: None }).allowed());
    assert!(!policy.decide(&other, Request { method: "prompts/get", name: Some("p") }).allowed());
}

#[test]
fn each_condition_counts() {
    let rule = |field: &str, value: &str| {
        let mut rule = serde_json::json!({"effect": "allow"});
        rule[field] = serde_json::json!([value]);
        policy(serde_json::json!({"default": "deny", "rules": [rule]}))
            .decide(&caller(), call("report"))
            .allowed()
    };
    for (field, good, bad) in [
        ("organisations", "org-1", "org-2"),
        ("scopes", "mcp:tools", "mcp:admin"),
        ("roles", "an*", "admin"),
        ("groups", "/staff/*", "/board"),
        ("clients", "cli", "web"),
        ("methods", "tools/call", "tools/list"),
        ("names", "rep*", "x"),
    ] {
        assert!(rule(field, good), "{field}");
        assert!(!rule(field, bad), "{field}");
    }
    // A request that names nothing fits no rule about names.
    let named = policy(serde_json::json!({"rules": [{"effect": "deny", "names": ["*"]}]}));
    assert!(named.decide(&caller(), Request { method: "tools/call", name: None }).allowed());
}

#[test]
fn a_denial_names_the_scopes_that_would_help() {
    let policy = policy(serde_json::json!({
        "default": "deny",
        "rules": [
            {"effect": "allow", "scopes": ["mcp:tools"], "names": ["report"]},
            {"effect": "allow", "scopes": ["mcp:tools", "mcp:admin"], "names": ["reindex"]},
            {"effect": "deny", "names": ["never"]},
            {"effect": "allow", "scopes": ["x"], "names": ["never"]},
        ],
    }));
    assert!(policy.decide(&caller(), call("report")).scopes.is_empty());
    assert_eq!(policy.decide(&caller(), call("reindex")).scopes, ["mcp:tools", "mcp:admin"]);
    assert!(policy.decide(&caller(), call("never")).scopes.is_empty());
    assert!(policy.decide(&caller(), call("unknown")).scopes.is_empty());
}

#[test]
fn a_decision_says_why() {
    let policy = Policy::from_json(
        br#"{"default": "deny", "rules": [{"name": "no drops", "effect": "deny", "names": ["drop*"]}, {"effect": "allow", "names": ["report"]}]}"#,
    )
    .unwrap();
    for (method, name, why) in [
        ("tools/call", Some("drop_all"), "rule 1, \"no drops\", says deny"),
        ("tools/call", Some("report"), "rule 2 says allow"),
        ("tools/call", Some("other"), "no rule matches, and the default is deny"),
        ("tools/list", None, "no rule matches, and the method uses nothing"),
        ("tasks/get", Some("t1"), "no rule matches, and the method uses nothing"),
    ] {
        assert_eq!(policy.decide(&caller(), Request { method, name }).reason(), why);
    }
}

#[test]
fn lists_show_what_may_be_used() {
    let mut policy = policy(serde_json::json!({
        "default": "deny",
        "rules": [
            {"effect": "allow", "methods": ["tools/call"], "names": ["report"]},
            {"effect": "allow", "methods": ["resources/read"], "names": ["file:///public/*"]},
            {"effect": "allow", "methods": ["prompts/*"]},
            {"effect": "allow", "methods": ["skills/get"], "names": ["skill://*"]},
            {"effect": "allow", "methods": ["resources/read"], "names": ["skill://b/*"]},
        ],
    }));
    for (list, name, shown) in [
        ("tools/list", "report", true),
        ("tools/list", "drop_all", false),
        ("prompts/list", "drop_all", true),
        ("resources/list", "file:///public/a", true),
        ("resources/list", "file:///secret/a", false),
        ("resources/templates/list", "file:///public/{name}", true),
        ("resources/templates/list", "file:///{+path}", false),
        ("resources/directory/read", "file:///public/a", true),
        ("resources/directory/read", "file:///secret/a", false),
        // Its SKILL.md may be read, but not its entry; and the other way round.
        ("skills/list", "file:///public/a/SKILL.md", false),
        ("skills/list", "skill://a/SKILL.md", false),
        ("skills/list", "skill://b/SKILL.md", true),
        ("roots/list", "anything", true),
    ] {
        assert_eq!(policy.shows(&caller(), list, name), shown, "{list} {name}");
    }
    // A dry run hides nothing.
    policy.dry_run = true;
    assert!(policy.shows(&caller(), "tools/list", "drop_all"));
    assert!(!policy.refuses(&policy.decide(&caller(), call("drop_all"))));
}

#[test]
fn what_hangs_on_the_body_is_left_to_who_reads_it() {
    let policy = policy(serde_json::json!({
        "default": "deny",
        "rules": [
            {"effect": "deny", "methods": ["*"], "names": ["secret*"]},
            {"effect": "allow", "methods": ["skills/*", "resources/*"], "names": ["skill://*"]},
            {"effect": "allow", "methods": ["x/own"]},
        ],
    }));
    let caller = caller();
    let decided = |method: &str, name: Option<&str>| {
        policy.decide_by_headers((&caller).into(), method, name).map(|decision| decision.allowed())
    };
    // The header binds.
    assert_eq!(decided("resources/read", Some("skill://a")), Some(true));
    assert_eq!(decided("resources/read", Some("secret")), Some(false));
    assert_eq!(decided("tasks/get", Some("secret")), Some(false));
    assert_eq!(decided("tasks/get", Some("other")), Some(true));
    // It does not, whatever it says.
    for name in [None, Some("secret"), Some("skill://a")] {
        assert_eq!(decided("skills/get", name), None);
        assert_eq!(decided("x/own", name), None);
        // They name nothing.
        assert_eq!(decided("tools/list", name), Some(true));
        assert_eq!(decided("subscriptions/listen", name), Some(true));
    }
    let unnamed = self::policy(serde_json::json!({"rules": [{"effect": "deny", "methods": ["skills/*"]}]}));
    let decision = unnamed.decide_by_headers((&caller).into(), "skills/get", Some("skill://a")).unwrap();
    assert!(!decision.allowed());
}

#[test]
fn a_policy_from_outside_is_checked() {
    for bad in [
        &br#"{"rules": [{"effect": "maybe"}]}"#[..],
        br#"{"rules": [{"effect": "deny", "name": []}]}"#,
        br#"{"rule": []}"#,
        br#"{"default": "deny", "default": "allow"}"#,
        b"",
        b"[]x",
    ] {
        assert!(matches!(Policy::from_json(bad), Err(PolicyError::Form(_))), "{bad:?}");
    }
    assert!(matches!(
        Policy::from_json(br#"{"rules": [{"effect": "deny", "names": [""]}]}"#),
        Err(PolicyError::Pattern { rule: 0, field: "names", index: 0 })
    ));
    assert!(matches!(Policy::from_json(&vec![b' '; MAX_JSON + 1]), Err(PolicyError::Form(_))));
}

#[test]
fn bounds_hold_and_unknown_settings_are_refused() {
    let long: Policy =
        serde_json::from_value(serde_json::json!({"rules": [{"effect": "deny", "names": ["ok", ""]}]}))
            .unwrap();
    assert_eq!(long.check(), Err(PolicyError::Pattern { rule: 0, field: "names", index: 1 }));
    assert!(serde_json::from_value::<Policy>(serde_json::json!({"rule": []})).is_err());
}

/// The textbook definition, to compare with.
fn slow(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['*', rest @ ..] => (0..=text.len()).any(|cut| slow(rest, &text[cut..])),
        [first, rest @ ..] => text.first() == Some(first) && slow(rest, &text[1..]),
    }
}

proptest! {
    /// The gateway never decides other than whoever reads the body would.
    #[test]
    fn headers_decide_as_the_body_would(
        rules in proptest::collection::vec(("allow|deny", "[xy*]{0,2}", "[pq*]{1,2}", "[ab]?"), 0..5), default in "allow|deny",
        method in "[pq]|tools/call|skills/get|tools/list", name in proptest::option::of("[xy]{1,2}"), header in proptest::option::of("[xy]{1,2}"),
    ) {
        let rules: Vec<_> = rules.into_iter().map(|(effect, name, method, scope)| serde_json::json!({
            "effect": effect, "names": if name.is_empty() { vec![] } else { vec![name] }, "methods": [method],
            "scopes": if scope.is_empty() { vec![] } else { vec![scope] },
        })).collect();
        let policy = policy(serde_json::json!({"default": default, "rules": rules}));
        let caller = caller();
        // Where the header binds, it is compared with the body.
        let header = if is_named_in_header(&method) { name.clone() } else { header };
        let name = name.filter(|_| !method.ends_with("/list"));
        if let Some(decision) = policy.decide_by_headers((&caller).into(), &method, header.as_deref()) {
            let by_body = policy.decide(&caller, Request { method: &method, name: name.as_deref() });
            prop_assert_eq!(decision.allowed(), by_body.allowed());
        }
    }

    #[test]
    fn patterns_mean_what_the_definition_says(pattern in "[ab*]{0,6}", text in "[ab]{0,8}") {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        prop_assert_eq!(Pattern(pattern.clone()).matches(&text), slow(&chars(&pattern), &chars(&text)));
    }

    #[test]
    fn what_a_list_shows_may_be_used(rules in proptest::collection::vec(("allow|deny", "[xy*]{1,2}", "tools/call|tools/\\*|\\*"), 0..5), default in "allow|deny", name in "[xy]{1,2}") {
        let rules: Vec<_> = rules.into_iter().map(|(effect, names, methods)| serde_json::json!({
            "effect": effect, "names": [names], "methods": [methods],
        })).collect();
        let policy = policy(serde_json::json!({"default": default, "rules": rules}));
        prop_assert_eq!(policy.shows(&caller(), "tools/list", &name), policy.decide(&caller(), call(&name)).allowed());
    }

    #[test]
    fn granting_the_named_scopes_changes_a_denial(rules in proptest::collection::vec(("allow|deny", "[ab]{0,2}", "[xy*]{1,2}"), 0..5), name in "[xy]{1,2}") {
        let rules: Vec<_> = rules.into_iter().map(|(effect, scopes, names)| serde_json::json!({
            "effect": effect, "names": [names], "scopes": scopes.chars().map(String::from).collect::<Vec<_>>(),
        })).collect();
        let policy = policy(serde_json::json!({"default": "deny", "rules": rules}));
        let decision = policy.decide(&caller(), call(&name));
        if !decision.allowed() && !decision.scopes.is_empty() {
            let mut scopes = caller().scopes;
            scopes.extend(decision.scopes.iter().cloned());
            let caller = Principal { scopes, ..caller() };
            prop_assert!(policy.decide(&caller, call(&name)).allowed());
        }
    }
}
