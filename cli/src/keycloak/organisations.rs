//! Organisations: the organisation itself, its resources (RFC 8707) and the audiences for them.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Admin, MOST, set, strings, text};
use crate::problem::{Problem, Result};
use crate::token::encode;

/// The client scope that carries the audiences. Keycloak gives it to every client, also to one that registers itself with
/// scopes of its own choice or with none (`AbstractClientRegistrationProvider.create`).
const SCOPE: &str = "basic";

/// What an organisation is to be.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The alias: its name in addresses.
    pub alias: String,
    /// What people read; none: as it is, or the alias.
    pub title: Option<String>,
    /// Domains, beside those that it has.
    pub domains: Vec<String>,
    /// The dress of its login pages; none: as it is.
    pub theme: Option<String>,
    /// The addresses of its MCP endpoints.
    pub resources: Vec<String>,
}

/// An organisation as it is.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Organisation {
    /// The alias.
    pub alias: String,
    /// What people read.
    pub title: String,
    /// Its domains.
    pub domains: Vec<String>,
    /// The dress of its login pages.
    pub theme: Option<String>,
    /// Its members' names, the first hundred.
    pub members: Vec<String>,
    #[serde(skip)]
    id: String,
}

impl Organisation {
    fn of(value: &Value) -> Self {
        let domains = value.get("domains").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        Self {
            alias: text(value, "alias").to_owned(),
            title: text(value, "name").to_owned(),
            domains: domains.iter().map(|domain| text(domain, "name").to_owned()).collect(),
            theme: strings(value.pointer("/attributes/theme")).into_iter().next(),
            members: Vec::new(),
            id: text(value, "id").to_owned(),
        }
    }

    /// Keycloak's id of it.
    pub(super) fn id(&self) -> &str {
        &self.id
    }
}

impl Admin {
    /// All organisations, in the order of their aliases.
    ///
    /// # Errors
    /// When Keycloak does not tell.
    pub async fn organisations(&self) -> Result<Vec<Organisation>> {
        let all = self.list(&format!("/organizations?max={MOST}&briefRepresentation=false")).await?;
        let mut organisations: Vec<Organisation> = all.iter().map(Organisation::of).collect();
        for organisation in &mut organisations {
            let members = self.list(&format!("/organizations/{}/members?max=100", organisation.id)).await?;
            organisation.members = members.iter().map(|member| text(member, "username").to_owned()).collect();
            organisation.members.sort_unstable();
        }
        organisations.sort_by(|a, b| a.alias.cmp(&b.alias));
        Ok(organisations)
    }

    /// One organisation, without its members.
    ///
    /// # Errors
    /// When there is none of that alias: names those that there are.
    pub async fn organisation(&self, alias: &str) -> Result<Organisation> {
        let all = self.list(&format!("/organizations?max={MOST}&briefRepresentation=false")).await?;
        all.iter().map(Organisation::of).find(|one| one.alias == alias).ok_or_else(|| {
            let mut aliases: Vec<&str> = all.iter().map(|one| text(one, "alias")).collect();
            aliases.sort_unstable();
            Problem::new(format!("there is no organisation {alias}"))
                .hint(format!("there are {}; ./asgard org add {alias} adds it", aliases.join(", ")))
        })
    }

    /// Makes an organisation, or brings what it lacks. True: it is new.
    ///
    /// # Errors
    /// What Keycloak refuses: a domain that another organisation has, for example.
    pub async fn put_organisation(&self, wanted: &Wanted) -> Result<bool> {
        let all = self.list(&format!("/organizations?max={MOST}&briefRepresentation=false")).await?;
        for other in all.iter().map(Organisation::of).filter(|other| other.alias != wanted.alias) {
            if let Some(domain) = other.domains.iter().find(|domain| wanted.domains.contains(domain)) {
                return Err(Problem::new(format!("{domain} belongs to the organisation {}", other.alias))
                    .hint(format!(
                        "./asgard org remove {} --domain {domain} takes it away there",
                        other.alias
                    )));
            }
        }
        let there = all.iter().find(|one| text(one, "alias") == wanted.alias);
        let mut one = there.cloned().unwrap_or_else(|| {
            json!({"alias": wanted.alias, "name": wanted.alias, "enabled": true, "domains": [], "attributes": {}})
        });
        let mut domains = Organisation::of(&one).domains;
        domains
            .extend(wanted.domains.iter().filter(|new| !domains.contains(new)).cloned().collect::<Vec<_>>());
        let domains = domains.iter().map(|name| json!({"name": name, "verified": true})).collect();
        set(&mut one, "domains", Value::Array(domains));
        if let Some(title) = &wanted.title {
            set(&mut one, "name", json!(title));
        }
        if let Some(theme) = &wanted.theme {
            let mut attributes = one.get("attributes").cloned().unwrap_or_else(|| json!({}));
            set(&mut attributes, "theme", json!([theme]));
            set(&mut one, "attributes", attributes);
        }
        let doing = format!("write the organisation {}", wanted.alias);
        match there {
            None => self.change(Method::POST, "/organizations", Some(&one), &doing).await?,
            Some(old) if *old == one => {}
            Some(old) => {
                let path = format!("/organizations/{}", text(old, "id"));
                self.change(Method::PUT, &path, Some(&one), &doing).await?;
            }
        }
        for resource in &wanted.resources {
            self.put_resource(resource, text(&one, "name")).await?;
        }
        Ok(there.is_none())
    }

    /// Removes an organisation, and the resources that are given.
    ///
    /// # Errors
    /// When there is none of that alias, or Keycloak refuses.
    pub async fn remove_organisation(&self, alias: &str, resources: &[String]) -> Result<()> {
        let organisation = self.organisation(alias).await?;
        for resource in resources {
            self.remove_resource(resource).await?;
        }
        let path = format!("/organizations/{}", organisation.id);
        self.change(Method::DELETE, &path, None, &format!("remove the organisation {alias}")).await
    }

    /// Takes a domain from an organisation, and the resources of that host.
    ///
    /// # Errors
    /// When it has no such domain, or Keycloak refuses.
    pub async fn remove_domain(&self, alias: &str, domain: &str, resources: &[String]) -> Result<()> {
        let organisation = self.organisation(alias).await?;
        let path = format!("/organizations/{}", organisation.id);
        let mut one = self.get(&path).await?;
        let mut domains = one.get("domains").and_then(Value::as_array).cloned().unwrap_or_default();
        let before = domains.len();
        domains.retain(|one| text(one, "name") != domain);
        if domains.len() == before {
            return Err(Problem::new(format!("{alias} has no domain {domain}"))
                .hint(format!("its domains are {}", organisation.domains.join(", "))));
        }
        set(&mut one, "domains", Value::Array(domains));
        self.change(Method::PUT, &path, Some(&one), &format!("take {domain} from {alias}")).await?;
        for resource in resources {
            self.remove_resource(resource).await?;
        }
        Ok(())
    }

    /// A resource: a client whose `resource_url` is its address, and a mapper for that audience.
    async fn put_resource(&self, url: &str, title: &str) -> Result<()> {
        let found = self.list(&format!("/clients?clientId={}", encode(url))).await?;
        if found.is_empty() {
            let client = json!({
                "clientId": url,
                "name": format!("MCP servers of {title}"),
                "enabled": true,
                "publicClient": false,
                "standardFlowEnabled": false,
                "directAccessGrantsEnabled": false,
                "attributes": {"resource_url": url},
            });
            self.change(Method::POST, "/clients", Some(&client), &format!("add the resource {url}")).await?;
        }
        let name = mapper_name(url);
        let path = self.mappers().await?;
        if self.list(&path).await?.iter().any(|mapper| text(mapper, "name") == name) {
            return Ok(());
        }
        let mapper = json!({
            "name": name,
            "protocol": "openid-connect",
            "protocolMapper": "oidc-audience-mapper",
            "config": {
                "included.client.audience": url,
                "access.token.claim": "true",
                "introspection.token.claim": "false",
            },
        });
        self.change(Method::POST, &path, Some(&mapper), &format!("add the audience {url} to {SCOPE}")).await
    }

    async fn remove_resource(&self, url: &str) -> Result<()> {
        let name = mapper_name(url);
        let path = self.mappers().await?;
        for mapper in self.list(&path).await?.iter().filter(|mapper| text(mapper, "name") == name) {
            let path = format!("{path}/{}", text(mapper, "id"));
            self.change(Method::DELETE, &path, None, &format!("remove the audience {url}")).await?;
        }
        for client in self.list(&format!("/clients?clientId={}", encode(url))).await? {
            let path = format!("/clients/{}", text(&client, "id"));
            self.change(Method::DELETE, &path, None, &format!("remove the resource {url}")).await?;
        }
        Ok(())
    }

    /// Where the mappers of the scope with the audiences are.
    async fn mappers(&self) -> Result<String> {
        let scopes = self.list("/client-scopes").await?;
        let scope = scopes.iter().find(|scope| text(scope, "name") == SCOPE).ok_or_else(|| {
            Problem::new(format!("the realm has no client scope {SCOPE}"))
                .hint("make it in the console, as a default scope: Client scopes, Create client scope")
        })?;
        Ok(format!("/client-scopes/{}/protocol-mappers/models", text(scope, "id")))
    }
}

/// As in the realm's template.
fn mapper_name(url: &str) -> String {
    format!("audience {url}")
}
