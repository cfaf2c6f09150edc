//! `X-Userinfo`: base64 of a JSON object about the user, for upstreams that know it from kong-oidc.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// Longest value, in bytes. A token with more to say is cut down to `ESSENTIAL`.
pub const MAX_LEN: usize = 4096;

/// What is left of a user with too many claims.
const ESSENTIAL: [&str; 6] = ["sub", "iss", "azp", "preferred_username", "name", "email"];
/// What is about the token and not about the user.
const TOKEN_ONLY: [&str; 12] = [
    "aud",
    "exp",
    "iat",
    "nbf",
    "jti",
    "auth_time",
    "nonce",
    "acr",
    "sid",
    "session_state",
    "at_hash",
    "allowed-origins",
];

/// The header's value for a token's claims. As in kong-oidc, `id` and `username` are added to the
/// claims: copies of `sub` and `preferred_username`.
pub fn header(claims: &Map<String, Value>) -> String {
    let all = encode(claims.iter().filter(|(name, _)| !TOKEN_ONLY.contains(&name.as_str())), claims);
    if all.len() <= MAX_LEN {
        return all;
    }
    let essential = encode(claims.iter().filter(|(name, _)| ESSENTIAL.contains(&name.as_str())), claims);
    if essential.len() <= MAX_LEN { essential } else { encode(std::iter::empty(), &Map::new()) }
}

fn encode<'a>(members: impl Iterator<Item = (&'a String, &'a Value)>, claims: &Map<String, Value>) -> String {
    let mut info: Map<String, Value> = members.map(|(name, value)| (name.clone(), value.clone())).collect();
    for (name, claim) in [("id", "sub"), ("username", "preferred_username")] {
        if let Some(value) = claims.get(claim) {
            info.insert(name.into(), value.clone());
        }
    }
    STANDARD.encode(Value::Object(info).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn decoded(claims: &Value) -> Value {
        let header = header(claims.as_object().unwrap());
        assert!(header.len() <= MAX_LEN);
        serde_json::from_slice(&STANDARD.decode(header).unwrap()).unwrap()
    }

    #[test]
    fn says_who_the_user_is() {
        let claims = json!({"sub": "1", "preferred_username": "thor", "email": "t@x", "exp": 1, "aud": "a", "groups": ["g"]});
        let wanted = json!({"sub": "1", "id": "1", "preferred_username": "thor", "username": "thor", "email": "t@x", "groups": ["g"]});
        assert_eq!(decoded(&claims), wanted);
    }

    #[test]
    fn stays_small() {
        let groups: Vec<String> = (0..1000).map(|number| format!("group {number}")).collect();
        assert_eq!(decoded(&json!({"sub": "1", "groups": groups})), json!({"sub": "1", "id": "1"}));
        assert_eq!(decoded(&json!({"sub": "1".repeat(5000)})), json!({}));
    }
}
