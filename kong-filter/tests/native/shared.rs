//! Key sets that workers share: each [`Service`] here is another worker of one gateway.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use kong_filter::filter::{Service, Step};
use kong_filter::request::Request;
use kong_filter::shared::SharedData;
use serde_json::{Value, json};

use super::{NOW, Site, first, judge, reason, request};

/// Shared data with Kong's ways at their worst: a key that is there is set with its version alone, and all keys with
/// the same hash, here of `hash` bits, are one entry.
struct Zone {
    hash: u32,
    entries: RefCell<HashMap<u64, (Vec<u8>, u32)>>,
}

impl Zone {
    fn new(hash: u32) -> Rc<Self> {
        Rc::new(Self { hash, entries: RefCell::default() })
    }

    fn place(&self, key: &str) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        hasher.finish().checked_shr(64 - self.hash).unwrap_or(0)
    }

    fn only(&self) -> Vec<u8> {
        let entries = self.entries.borrow();
        assert_eq!(entries.len(), 1);
        entries.values().next().unwrap().0.clone()
    }
}

impl SharedData for Zone {
    fn get(&self, key: &str) -> (Option<Vec<u8>>, Option<u32>) {
        self.entries.borrow().get(&self.place(key)).cloned().unzip()
    }

    fn set(&self, key: &str, value: &[u8], version: Option<u32>) {
        let (mut entries, place) = (self.entries.borrow_mut(), self.place(key));
        let current = entries.get(&place).map(|(_, version)| *version);
        if current == version {
            entries.insert(place, (value.to_vec(), current.unwrap_or(0) + 1));
        }
    }
}

struct Gateway {
    site: Site,
    zone: Rc<Zone>,
    config: Value,
}

impl Gateway {
    fn new(hash: u32) -> Self {
        let site = Site::with(&json!({"shared_data_bytes": 2 << 20}));
        Self { config: site.config.clone(), site, zone: Zone::new(hash) }
    }

    fn worker(&self) -> Service {
        self.worker_of(&self.config)
    }

    fn worker_of(&self, config: &Value) -> Service {
        let service = Service::sharing(config.to_string().as_bytes(), Some(self.zone.clone()));
        assert!(matches!(service, Service::Ready(_)), "{config}");
        service
    }

    fn asked(&self, patch: &Value) -> Request {
        request(&self.site.sent(patch), &[])
    }

    /// A request with a good token, while the issuer answers with its keys.
    fn warm(&self, service: &mut Service, now: u64) {
        assert!(matches!(
            judge(service, &self.asked(&json!({})), now, Some(&self.site.jwks)),
            Step::Forward(_)
        ));
    }
}

#[test]
fn a_cold_worker_uses_what_another_has_fetched() {
    let gateway = Gateway::new(32);
    let (mut warm, mut cold) = (gateway.worker(), gateway.worker());
    let good = gateway.asked(&json!({}));
    assert!(matches!(first(&mut cold, &good, NOW), Step::Call(_)), "nobody has keys");
    gateway.warm(&mut warm, NOW);
    // Another worker, which has not asked yet, does not ask, as long as the keys are fresh.
    let mut third = gateway.worker();
    for now in [NOW, NOW + 299] {
        assert!(matches!(first(&mut third, &good, now), Step::Forward(_)));
    }
    // When they are due, one asks; where the issuer does not answer, the keys go on.
    assert!(matches!(first(&mut third, &good, NOW + 300), Step::Call(_)));
    let mut fourth = gateway.worker();
    assert!(matches!(judge(&mut fourth, &good, NOW + 301, None), Step::Forward(_)));
    // Nor when it asked before the keys were there, and got no answer.
    assert!(matches!(judge(&mut cold, &good, NOW + 2, None), Step::Forward(_)));
    // Too old is too old, here as there; and a clock that was set back makes no key young.
    for now in [NOW + 3600, NOW - 1] {
        let mut late = gateway.worker();
        assert_eq!(reason(judge(&mut late, &good, now, None)), "keys_unavailable", "{now}");
    }
}

#[test]
fn a_key_that_one_has_found_all_have() {
    let gateway = Gateway::new(32);
    let (mut one, mut other) = (gateway.worker(), gateway.worker());
    gateway.warm(&mut one, NOW);
    gateway.warm(&mut other, NOW);
    let rotated = gateway.asked(&json!({"jose": {"kid": "rsa-2"}}));
    let jwks = gateway.site.jwks.replace("rsa-1", "rsa-2");
    assert!(matches!(judge(&mut one, &rotated, NOW + 5, Some(&jwks)), Step::Forward(_)));
    assert!(matches!(first(&mut other, &rotated, NOW + 6), Step::Forward(_)));
    // And a key that was taken back is gone for all that look.
    let uncached = gateway.asked(&json!({"claims": {"sub": "another"}}));
    assert_eq!(reason(judge(&mut other, &uncached, NOW + 6, None)), "keys_unavailable");
}

#[test]
fn without_a_zone_in_the_configuration_none_is_touched() {
    struct Trap;
    impl SharedData for Trap {
        fn get(&self, _: &str) -> (Option<Vec<u8>>, Option<u32>) {
            panic!("a read without a zone");
        }
        fn set(&self, _: &str, _: &[u8], _: Option<u32>) {
            panic!("a write without a zone");
        }
    }
    let gateway = Gateway::new(32);
    let mut config = gateway.config.clone();
    config.as_object_mut().unwrap().remove("shared_data_bytes");
    let mut service = Service::sharing(config.to_string().as_bytes(), Some(Rc::new(Trap)));
    gateway.warm(&mut service, NOW);
    let unknown = gateway.asked(&json!({"jose": {"kid": "rsa-2"}}));
    assert_eq!(reason(judge(&mut service, &unknown, NOW, Some(&gateway.site.jwks))), "key_unknown");
}

#[test]
fn an_entry_of_another_key_is_neither_read_nor_changed() {
    // All keys are one entry.
    let gateway = Gateway::new(0);
    let good = gateway.asked(&json!({}));
    let mut warm = gateway.worker();
    gateway.warm(&mut warm, NOW);
    let before = gateway.zone.only();
    // Another address of the same issuer, the same address for another issuer: their keys are others.
    for (pointer, value) in [
        ("/issuers/0/jwks/path", "/elsewhere"),
        ("/issuers/0/jwks/upstream", "another"),
        ("/issuers/0/jwks/authority", "another.example"),
    ] {
        let mut config = gateway.config.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[name] = value.into();
        let mut other = gateway.worker_of(&config);
        assert!(matches!(first(&mut other, &good, NOW), Step::Call(_)), "{pointer}");
        gateway.warm(&mut other, NOW + 9);
        assert_eq!(gateway.zone.only(), before, "{pointer}");
    }
    assert!(matches!(first(&mut gateway.worker(), &good, NOW), Step::Forward(_)));
    // What is no key set of ours is passed over.
    for value in [&b""[..], b"x", &before[..before.len() / 2]] {
        gateway.zone.entries.borrow_mut().values_mut().for_each(|(old, _)| *old = value.to_vec());
        assert!(matches!(first(&mut gateway.worker(), &good, NOW), Step::Call(_)));
    }
}

#[test]
fn what_is_shared_is_public_and_small() {
    let gateway = Gateway::new(32);
    let good = gateway.asked(&json!({}));
    let mut jwks: Value = serde_json::from_str(&gateway.site.jwks).unwrap();
    jwks["issuer"] = "more".into();
    for key in jwks["keys"].as_array_mut().unwrap() {
        for private in ["d", "p", "q", "dp", "dq", "qi", "oth", "x5c", "anything"] {
            key[private] = "c2VjcmV0".into();
        }
    }
    let symmetric = json!({"kty": "oct", "kid": "shared", "k": "c2VjcmV0"});
    jwks["keys"].as_array_mut().unwrap().push(symmetric);
    let mut warm = gateway.worker();
    assert!(matches!(judge(&mut warm, &good, NOW, Some(&jwks.to_string())), Step::Forward(_)));
    let value = gateway.zone.only();
    // After the key and eight bytes of time.
    let start = value.windows(8).position(|bytes| bytes == b"{\"keys\":").unwrap();
    let shared: Value = serde_json::from_slice(&value[start..]).unwrap();
    assert_eq!(shared.as_object().unwrap().len(), 1);
    let public = ["kty", "use", "alg", "kid", "crv", "n", "e", "x", "y"];
    for key in shared["keys"].as_array().unwrap() {
        assert!(key.as_object().unwrap().keys().all(|name| public.contains(&name.as_str())), "{key}");
    }
    assert!(!String::from_utf8_lossy(&value).contains("c2VjcmV0"));
    assert!(matches!(first(&mut gateway.worker(), &good, NOW), Step::Forward(_)));
    // Larger than its part of the zone: not shared, and used all the same.
    let large = Gateway::new(32);
    let good = large.asked(&json!({}));
    let mut jwks: Value = serde_json::from_str(&large.site.jwks).unwrap();
    let mut padded = jwks["keys"][0].clone();
    padded["kid"] = "k".repeat(64 * 1024).into();
    jwks["keys"].as_array_mut().unwrap().push(padded);
    let mut warm = large.worker();
    assert!(matches!(judge(&mut warm, &good, NOW, Some(&jwks.to_string())), Step::Forward(_)));
    assert!(large.zone.entries.borrow().is_empty());
}
