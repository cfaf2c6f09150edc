use http::HeaderMap;

use crate::protocol::origin::HostRules;

fn check(rules: &HostRules, host: Option<&str>, origin: Option<&str>) -> bool {
    let mut headers = HeaderMap::new();
    if let Some(host) = host {
        headers.insert("host", host.parse().unwrap());
    }
    if let Some(origin) = origin {
        headers.insert("origin", origin.parse().unwrap());
    }
    match rules.check(&headers, None) {
        Ok(()) => true,
        Err(refusal) => {
            assert_eq!(refusal.status().as_u16(), 403);
            false
        }
    }
}

#[test]
fn loopback_by_default() {
    let rules = HostRules::default();
    for host in [
        "localhost",
        "LOCALHOST:8081",
        "127.0.0.1",
        "127.0.0.1:1",
        "127.8.9.10",
        "[::1]",
        "[::1]:8081",
        "[0:0::1]",
    ] {
        assert!(check(&rules, Some(host), None), "{host}");
    }
    for host in [
        "evil.example.com",
        "localhost.evil.example.com",
        "evil-localhost",
        "127.0.0.1.evil.example.com",
        "10.0.0.1",
        "0.0.0.0",
        "[::]",
        "[::ffff:10.0.0.1]",
        "[::1",
        "::1",
        "localhost:",
        "localhost:x",
        "localhost:99999",
        "localhost:+80",
        "user@localhost",
        "localhost/",
        "localhost:80:80",
        "",
        "127.1",
        "0x7f.1",
        "2130706433",
        "[::1]x",
        "[localhost]",
    ] {
        // A port may be empty in a URI, but no client sends that.
        assert!(!check(&rules, Some(host), None), "{host}");
    }
    assert!(!check(&rules, None, None));
    for origin in ["http://localhost:6274", "https://127.0.0.1", "http://[::1]:80", "HTTP://LocalHost"] {
        assert!(check(&rules, Some("localhost"), Some(origin)), "{origin}");
    }
    for origin in [
        "http://evil.example.com",
        "null",
        "",
        "localhost",
        "file://",
        "http://localhost.evil.com",
        "http://localhost/x",
        "http://localhost@evil.com",
        "vscode-webview://localhost",
        "http://",
        "://localhost",
        "http://a, http://localhost",
    ] {
        assert!(!check(&rules, Some("localhost"), Some(origin)), "{origin}");
    }
}

#[test]
fn configured_names() {
    let rules = HostRules::default()
        .allow_host("MCP.example.com")
        .and_then(|rules| rules.allow_host("other.example.com:8443"))
        .and_then(|rules| rules.allow_origin("https://app.example.com:443"))
        .and_then(|rules| rules.allow_origin("vscode-webview://abc"))
        .unwrap();
    for (host, allowed) in [
        ("mcp.example.com", true),
        ("mcp.example.com:444", true),
        ("other.example.com:8443", true),
        ("other.example.com", false),
        ("example.com", false),
        ("localhost", true),
    ] {
        assert_eq!(check(&rules, Some(host), None), allowed, "{host}");
    }
    for (origin, allowed) in [
        ("https://app.example.com", true),
        ("https://APP.example.com:443", true),
        ("https://app.example.com:8443", false),
        ("http://app.example.com", false),
        ("vscode-webview://abc", true),
        ("http://localhost", true),
    ] {
        assert_eq!(check(&rules, Some("mcp.example.com"), Some(origin)), allowed, "{origin}");
    }
    assert_eq!(
        HostRules::default().allow_host("https://x").unwrap_err().to_string(),
        r#""https://x" is not a host, as in mcp.example.com:8443"#
    );
    assert!(HostRules::default().allow_origin("app.example.com").is_err());
    assert!(HostRules::default().allow_origin("*").is_err());
}

#[test]
fn host_and_target_both_count() {
    let rules = HostRules::default();
    let mut headers = HeaderMap::new();
    assert!(rules.check(&headers, Some("localhost:1")).is_ok());
    assert!(rules.check(&headers, Some("evil.example.com")).is_err());
    headers.append("host", "localhost".parse().unwrap());
    assert!(rules.check(&headers, Some("evil.example.com")).is_err());
    assert!(rules.check(&headers, Some("localhost")).is_ok());
    headers.append("host", "localhost".parse().unwrap());
    assert!(rules.check(&headers, None).is_err());
    let mut headers = HeaderMap::new();
    headers.append("host", "localhost".parse().unwrap());
    headers.append("origin", "http://localhost".parse().unwrap());
    headers.append("origin", "http://evil.example.com".parse().unwrap());
    assert!(rules.check(&headers, None).is_err());
}
