//! Trusted hosts: where clients may be at home that register themselves, or whose id is the address of their metadata.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Admin, set, strings, text};
use crate::problem::{Problem, Result};

const POLICY: &str = "org.keycloak.services.clientregistration.policy.ClientRegistrationPolicy";

impl Admin {
    /// The trusted hosts.
    ///
    /// # Errors
    /// When the realm has no such policy: then it trusts all hosts.
    pub async fn trusted_hosts(&self) -> Result<Vec<String>> {
        Ok(hosts_of(&self.trust().await?))
    }

    /// Trusts a host, or no more. False: it was so.
    ///
    /// # Errors
    /// When the realm has no such policy, or Keycloak refuses.
    pub async fn trust_host(&self, host: &str, trust: bool) -> Result<bool> {
        let doing = format!("change the trusted hosts for {host}");
        let mut policy = self.trust().await?;
        let (hosts, changed) = with(hosts_of(&policy), host, trust);
        if changed {
            let mut config = policy.get("config").cloned().unwrap_or_else(|| json!({}));
            set(&mut config, "trusted-hosts", json!(hosts));
            set(&mut policy, "config", config);
            let path = format!("/components/{}", text(&policy, "id"));
            self.change(Method::PUT, &path, Some(&policy), &doing).await?;
        }
        let mut profiles = self.get("/client-policies/profiles").await?;
        let of_profiles = change_lists(&mut profiles, "cimd-allow-permitted-domains", host, trust);
        if of_profiles {
            // What Keycloak brings itself is not to be sent back.
            if let Some(object) = profiles.as_object_mut() {
                object.remove("globalProfiles");
            }
            self.change(Method::PUT, "/client-policies/profiles", Some(&profiles), &doing).await?;
        }
        let mut policies = self.get("/client-policies/policies").await?;
        let of_policies = change_lists(&mut policies, "client-id-uri-allow-permitted-domains", host, trust);
        if of_policies {
            if let Some(object) = policies.as_object_mut() {
                object.remove("globalPolicies");
            }
            self.change(Method::PUT, "/client-policies/policies", Some(&policies), &doing).await?;
        }
        Ok(changed || of_profiles || of_policies)
    }

    async fn trust(&self) -> Result<Value> {
        let policies = self.list(&format!("/components?type={POLICY}")).await?;
        let ours = |policy: &&Value| {
            text(policy, "providerId") == "trusted-hosts" && text(policy, "subType") == "anonymous"
        };
        policies.iter().find(ours).cloned().ok_or_else(|| {
            Problem::new(
                "the realm has no policy Trusted Hosts for anonymous registration: it trusts every host",
            )
            .hint("add it in the console: Clients, Client registration, Anonymous access policies")
        })
    }
}

fn hosts_of(policy: &Value) -> Vec<String> {
    strings(policy.pointer("/config/trusted-hosts"))
}

/// The hosts with that one or without it, and whether that is a change.
fn with(mut hosts: Vec<String>, host: &str, trust: bool) -> (Vec<String>, bool) {
    let there = hosts.iter().any(|one| one == host);
    if there == trust {
        return (hosts, false);
    }
    if trust {
        hosts.push(host.to_owned());
    } else {
        hosts.retain(|one| one != host);
    }
    (hosts, true)
}

/// Does so in every list of that name, however deep. True: one has changed.
fn change_lists(value: &mut Value, name: &str, host: &str, trust: bool) -> bool {
    match value {
        Value::Object(object) => {
            let mut changed = false;
            for (key, inner) in object {
                if key == name && inner.is_array() {
                    let (hosts, other) = with(strings(Some(inner)), host, trust);
                    *inner = json!(hosts);
                    changed |= other;
                } else {
                    changed |= change_lists(inner, name, host, trust);
                }
            }
            changed
        }
        Value::Array(all) => {
            all.iter_mut().map(|inner| change_lists(inner, name, host, trust)).fold(false, |a, b| a | b)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_changed_wherever_they_are() {
        let mut value = json!({"a": [{"hosts": ["x"], "b": {"hosts": []}}], "other": ["x"]});
        assert!(change_lists(&mut value, "hosts", "y", true));
        assert_eq!(value, json!({"a": [{"hosts": ["x", "y"], "b": {"hosts": ["y"]}}], "other": ["x"]}));
        assert!(!change_lists(&mut value, "hosts", "y", true));
        assert!(change_lists(&mut value, "hosts", "y", false));
        assert_eq!(value, json!({"a": [{"hosts": ["x"], "b": {"hosts": []}}], "other": ["x"]}));
    }
}
