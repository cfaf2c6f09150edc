//! Tokens that are kept, and tokens that the issuer is asked about.

use std::rc::Rc;

use kong_filter::config::Config;
use kong_filter::filter::{Service, Step};
use kong_filter::request::Request;
use kong_filter::tokens::{Awaited, Halt, Progress, Tokens};
use serde_json::{Value, json};

use super::{NOW, Site, first, forward, judge, reason, request};

/// The request of the table's base, for an issuer that is asked about its tokens.
fn asked(site: &Site, realm: &str, patch: &Value) -> Request {
    let iss =
        json!({"claims": {"iss": format!("http://localhost:8000/heimdall/realms/{realm}"), "exp": "@1000"}});
    request(&site.table.request(&site.keys, &[&iss, patch], NOW), &[])
}

/// Answers the question that a request leads to, and judges it again. `None`: there was no question.
fn answered(
    service: &mut Service,
    request: &Request,
    now: u64,
    answer: (Option<u16>, Value),
) -> Option<Step> {
    let mut progress = Progress::default();
    let Step::Call(call) = service.judge(request, now, &mut progress) else {
        return None;
    };
    assert!(matches!(call.awaited, Awaited::Introspection(..)) && call.upstream == "keycloak");
    let body = answer.1.to_string();
    let _ = service.answered(call.awaited, answer.0, body.as_bytes(), now, &mut progress);
    Some(service.judge(request, now, &mut progress))
}

#[test]
fn a_token_with_the_digest_of_another_is_verified_itself() {
    let site = Site::new();
    let config = Config::read(site.config.to_string().as_bytes()).unwrap();
    let mut tokens = Tokens::new(Rc::new(config), None);
    let token = |patch: &Value| {
        let sent = site.sent(patch);
        let (_, value) =
            sent.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("authorization")).unwrap();
        value.strip_prefix("Bearer ").unwrap().to_owned()
    };
    let (thor, hel) = (token(&json!({})), token(&json!({"claims": {"sub": "hel"}})));
    let mut forged = thor.clone();
    forged.replace_range(forged.len() - 20..forged.len() - 10, "AAAAAAAAAA");
    let one_digest = 7;
    let mut judge = |token: &str| {
        let mut progress = Progress::default();
        loop {
            match tokens.verified(token, &one_digest, NOW, &mut progress, &|_, _| Ok(())) {
                Ok(found) => return Ok(found.claims.subject.clone()),
                Err(Halt::Refuse(refusal)) => return Err(refusal.reason),
                Err(Halt::Wait(awaited)) => {
                    tokens.answered(awaited, Some(200), site.jwks.as_bytes(), NOW, &mut progress).unwrap();
                }
            }
        }
    };
    assert_eq!(judge(&thor).unwrap(), "7a1c-thor");
    assert_eq!(judge(&hel).unwrap(), "hel");
    assert_eq!(judge(&thor).unwrap(), "7a1c-thor");
    assert_eq!(judge(&forged).unwrap_err(), "signature_wrong");
}

#[test]
fn answers_about_tokens_are_used_for_a_while() {
    let mut site = Site::new();
    let mut issuers = site.config["issuers"].clone();
    for issuer in [1, 2] {
        issuers[issuer]["introspection"]["cache_s"] = 30.into();
    }
    site = Site::with(&json!({"issuers": issuers}));
    for (realm, patch) in [("both", json!({})), ("asked", json!({})), ("asked", json!({"sign": "opaque"}))] {
        let asked = asked(&site, realm, &patch);
        let service = &mut site.service;
        forward(judge(service, &asked, NOW, Some(&site.jwks)));
        // Nobody is asked again until the answer is too old.
        forward(first(service, &asked, NOW + 29));
        // However the header is written.
        for (usual, other) in [("Bearer ", "bearer "), ("Bearer ", "Bearer   ")] {
            let mut asked = asked.clone();
            let (_, value) = asked.headers.iter_mut().find(|(name, _)| name == "authorization").unwrap();
            *value = String::from_utf8(value.clone()).unwrap().replacen(usual, other, 1).into_bytes();
            forward(first(service, &asked, NOW + 29));
        }
        assert_eq!(
            reason(answered(service, &asked, NOW + 30, (Some(200), json!({"active": false}))).unwrap()),
            "token_inactive"
        );
        // Nor about a token that is known not to be good.
        assert_eq!(reason(first(service, &asked, NOW + 34)), "token_inactive");
        // An issuer that does not answer lets nothing pass, and is left alone for a moment.
        let step = answered(service, &asked, NOW + 35, (None, json!({}))).unwrap();
        assert_eq!(reason(step), "introspection_unavailable", "{realm}");
        assert_eq!(reason(first(service, &asked, NOW + 35)), "introspection_unavailable");
        let step = answered(service, &asked, NOW + 36, (Some(401), json!({}))).unwrap();
        assert_eq!(reason(step), "introspection_refused");
        forward(judge(service, &asked, NOW + 37, Some(&site.jwks)));
        // A token never outlives its own expiry, whatever the answer's age.
        assert_eq!(reason(judge(service, &asked, NOW + 1030, Some(&site.jwks))), "token_expired");
    }
}

#[test]
fn a_forged_token_costs_the_issuer_nothing() {
    let mut site = Site::new();
    let good = asked(&site, "both", &json!({}));
    forward(judge(&mut site.service, &good, NOW, Some(&site.jwks)));
    for patch in [
        json!({"sign": "flipped"}),
        json!({"claims": {"aud": "account"}}),
        json!({"claims": {"organization": ["org-2"]}}),
        json!({"claims": {"exp": "@-31"}}),
        json!({"claims": {"azp": "other"}}),
        json!({"claims": {"scope": "openid"}}),
    ] {
        let asked = asked(&site, "both", &patch);
        assert!(matches!(first(&mut site.service, &asked, NOW), Step::Reply(_)), "{patch}");
    }
}

#[test]
fn questions_at_the_same_time_are_bounded() {
    let mut site = Site::new();
    let asked: Vec<_> =
        (0..33).map(|n| asked(&site, "asked", &json!({"claims": {"sub": n.to_string()}}))).collect();
    let (last, others) = asked.split_last().unwrap();
    for one in others {
        assert!(matches!(first(&mut site.service, one, NOW), Step::Call(_)));
    }
    assert_eq!(reason(first(&mut site.service, last, NOW)), "introspection_busy");
    assert!(matches!(first(&mut site.service, last, NOW + 5), Step::Call(_)));
}
