//! A request that is the same as one a moment ago is let through without a thought: what thinking would have
//! led to. A filter that keeps nothing at all is asked beside it, always.

use identity::Assertion;
use proptest::prelude::*;

use super::*;

struct Variants {
    site: Site,
    /// Another key set under the same name: what the old key signed is not good any more.
    rotated: String,
    /// What is sent: a good request first.
    requests: Vec<Request>,
}

impl Variants {
    fn new() -> Self {
        let site = Site::with(&json!({
            "clock_leeway_s": 0,
            "policy": {"rules": [{"name": "no drops", "effect": "deny", "methods": ["tools/call"], "names": ["drop*"]}]},
        }));
        let sent = site.sent(&json!({"claims": {"exp": "@40"}}));
        let with = |sent: &Sent, more: &[(&str, &str)]| request(sent, more);
        let base = with(&sent, &[]);
        // Other values of headers that a good request has already.
        let instead = |more: &[(&str, &str)]| {
            let mut other = base.clone();
            for (name, value) in more {
                let place = other.headers.iter_mut().find(|(known, _)| known == name);
                place.expect("it has that header").1 = value.as_bytes().to_vec();
            }
            other
        };
        let elsewhere = |target: &str| Request { target: target.into(), ..base.clone() };
        let more = [
            ("content-length", "1"),
            ("content-length", "22"),
            ("traceparent", "00-1"),
            ("origin", "http://localhost:6274"),
            ("origin", "http://evil.example"),
            ("mcp-name", "report"),
            ("x-userinfo", "e30="),
            ("X_Asgard_Identity", "x"),
            ("authorization", "Bearer x"),
            ("grip-sig", "x.y.z"),
            ("grip-sig", &support::grip_sig(&site.config, NOW + 20)),
            ("host", "evil.example"),
        ]
        .map(|header| with(&sent, &[header]));
        let mut requests = vec![base.clone()];
        requests.extend(more);
        requests.extend([
            instead(&[("mcp-name", "drop_all")]),
            instead(&[("mcp-name", "report")]),
            instead(&[("mcp-method", "tools/list")]),
            instead(&[("mcp-name", "drop_all"), ("mcp-protocol-version", "2025-11-25")]),
            instead(&[("accept", "text/event-stream")]),
            // Its key is looked for, and whatever the issuer says then counts for all.
            with(&site.sent(&json!({"jose": {"kid": "nobody's"}})), &[]),
            with(&site.sent(&json!({"claims": {"exp": "@20"}})), &[]),
            with(&site.sent(&json!({"claims": {"exp": "@40", "nbf": "@5"}})), &[]),
            with(&site.sent(&json!({"claims": {"exp": "@40", "scope": "openid"}})), &[]),
            elsewhere("/api/v1/mcp/org-2"),
            elsewhere("/api/v1/mcp/org-1?a=b"),
            elsewhere("/api/v1/mcp/org-1?access_token=x"),
            Request { method: "GET".into(), ..base },
        ]);
        Self { rotated: Keys::new().jwks().to_string(), site, requests }
    }

    /// A filter whose keys are good for some seconds.
    fn service(&self, entries: usize) -> Service {
        let mut config = self.site.config.clone();
        support::merge(&mut config, &json!({"token_cache": {"entries": entries}}));
        let jwks = config.pointer_mut("/issuers/0/jwks").unwrap();
        support::merge(jwks, &json!({"refresh_s": 10, "keep_s": 12, "unknown_kid_s": 2, "retry_s": 1}));
        let service = Service::new(config.to_string().as_bytes());
        if let Service::Refusing(why) = &service {
            panic!("{why}");
        }
        service
    }
}

thread_local! {
    /// Keys are costly to make.
    static VARIANTS: Variants = Variants::new();
}

/// The part of a decision that must be the same: what the backend is raw_request, or what the client is.
fn decision(step: Step, keys: &AssertionKeys, now: u64) -> Result<(Assertion, Forward), (u16, String)> {
    match step {
        Step::Forward(mut forward) => {
            let mut says =
                keys.verify(&forward.identity, AUDIENCE, now).expect("an assertion that is good now");
            assert!(says.expires_at >= now + assertion::LIFE / 2, "it lives long enough");
            (says.issued_at, says.expires_at) = (0, 0);
            forward.identity = "".into();
            Ok((says, forward))
        }
        Step::Reply(reply) => Err((reply.status, reply.log.unwrap_or_default())),
        Step::Call(call) => panic!("wants {:?}", call.awaited),
    }
}

proptest! {
    #[test]
    fn what_is_remembered_is_what_thinking_leads_to(
        // Seconds that pass; what is sent; what the issuer would answer.
        steps in prop::collection::vec((prop_oneof![4 => Just(0_u64), 1 => 0..12_u64], any::<prop::sample::Index>(), 0..8_u8), 1..60),
        // Few requests, so that they come again.
        some in prop::collection::vec(any::<prop::sample::Index>(), 1..5),
    ) {
        VARIANTS.with(|variants| {
            let keys = AssertionKeys::parse(variants.site.config["assertion"]["keys"].as_str().unwrap()).unwrap();
            let (mut keeps, mut forgets) = (variants.service(64), variants.service(0));
            let mut now = NOW;
            for (seconds, which, issuer) in &steps {
                now += seconds;
                let request = &variants.requests[some[which.index(some.len())].index(variants.requests.len())];
                let jwks = match issuer {
                    0 => None,
                    1 => Some(variants.rotated.as_str()),
                    _ => Some(variants.site.jwks.as_str()),
                };
                let kept = decision(judge(&mut keeps, request, now, jwks), &keys, now);
                let thought = decision(judge(&mut forgets, request, now, jwks), &keys, now);
                let texts = request.headers.iter().map(|(name, value)| (name, String::from_utf8_lossy(value)));
                prop_assert_eq!(kept, thought, "{} s later: {:?}", now - NOW, texts.collect::<Vec<_>>());
            }
            Ok(())
        })?;
    }
}

#[test]
fn the_same_request_gets_the_same_assertion_until_half_of_its_life() {
    VARIANTS.with(|variants| {
        let mut service = variants.service(64);
        let (request, jwks) = (&variants.requests[0], Some(variants.site.jwks.as_str()));
        let mut ask = |now| forward(judge(&mut service, request, now, jwks)).identity;
        let first = ask(NOW);
        for now in [NOW, NOW, NOW + 1, NOW + assertion::LIFE / 2] {
            assert!(std::rc::Rc::ptr_eq(&first, &ask(now)));
        }
        assert_ne!(first, ask(NOW + assertion::LIFE / 2 + 1));
    });
}
