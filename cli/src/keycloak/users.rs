//! Users and their memberships.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Admin, text};
use crate::problem::{Problem, Result};
use crate::token::encode;

/// A user to add.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// The name with which they log in.
    pub name: String,
    /// Their address.
    pub email: Option<String>,
    /// First and last name, as people write it.
    pub full_name: Option<String>,
    /// The password of a user who is new.
    pub password: String,
    /// The password is good for one login, at which they choose another.
    pub temporary: bool,
}

impl Admin {
    /// Makes a user, if there is none of that name. True: the user is new.
    ///
    /// # Errors
    /// What Keycloak refuses: an address that another user has, a name with characters that it does not allow.
    pub async fn put_user(&self, user: &NewUser) -> Result<bool> {
        if self.user(&user.name).await?.is_some() {
            return Ok(false);
        }
        let mut made = json!({
            "username": user.name,
            "enabled": true,
            "credentials": [{"type": "password", "value": user.password, "temporary": user.temporary}],
        });
        if let Some(email) = &user.email {
            super::set(&mut made, "email", json!(email));
            super::set(&mut made, "emailVerified", json!(true));
        }
        if let Some((first, last)) = user.full_name.as_deref().map(split_name) {
            super::set(&mut made, "firstName", json!(first));
            super::set(&mut made, "lastName", json!(last));
        }
        self.change(Method::POST, "/users", Some(&made), &format!("add the user {}", user.name)).await?;
        Ok(true)
    }

    /// Makes a user a member of an organisation. False: the user was one.
    ///
    /// # Errors
    /// When there is no such user or organisation, or Keycloak refuses.
    pub async fn add_member(&self, user: &str, organisation: &str) -> Result<bool> {
        let organisation = self.organisation(organisation).await?;
        let id = self.existing(user).await?;
        let members = format!("/organizations/{}/members", organisation.id());
        match self.ask(Method::POST, &members, Some(&Value::String(id))).await? {
            Ok(_) => Ok(true),
            Err(refusal) if refusal.status.as_u16() == 409 => Ok(false),
            Err(refusal) => Err(refusal.problem(&format!("make {user} a member of {}", organisation.alias))),
        }
    }

    /// Ends a membership.
    ///
    /// # Errors
    /// When there is no such user, organisation or membership, or Keycloak refuses.
    pub async fn remove_member(&self, user: &str, organisation: &str) -> Result<()> {
        let organisation = self.organisation(organisation).await?;
        let id = self.existing(user).await?;
        let path = format!("/organizations/{}/members/{id}", organisation.id());
        match self.ask(Method::DELETE, &path, None).await? {
            Ok(_) => Ok(()),
            Err(refusal) if [400, 404].contains(&refusal.status.as_u16()) => {
                Err(Problem::new(format!("{user} is not a member of {}", organisation.alias)))
            }
            Err(refusal) => Err(refusal.problem(&format!("take {user} out of {}", organisation.alias))),
        }
    }

    /// Removes a user.
    ///
    /// # Errors
    /// When there is none of that name, or Keycloak refuses.
    pub async fn remove_user(&self, name: &str) -> Result<()> {
        let id = self.existing(name).await?;
        self.change(Method::DELETE, &format!("/users/{id}"), None, &format!("remove the user {name}")).await
    }

    async fn existing(&self, name: &str) -> Result<String> {
        self.user(name).await?.ok_or_else(|| {
            Problem::new(format!("there is no user {name}"))
                .hint(format!("./asgard user add {name} --org ORG adds the user"))
        })
    }

    /// The id of a user.
    async fn user(&self, name: &str) -> Result<Option<String>> {
        let found = self.list(&format!("/users?exact=true&username={}", encode(name))).await?;
        Ok(found.first().map(|user| text(user, "id").to_owned()))
    }
}

/// First and last name: the last word is the last name.
fn split_name(name: &str) -> (String, String) {
    let name = name.trim();
    match name.rsplit_once(char::is_whitespace) {
        Some((first, last)) => (first.trim().to_owned(), last.to_owned()),
        None => (name.to_owned(), name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_at_the_last_word() {
        let two = |name: &str| split_name(name);
        assert_eq!(two("Sif of Asgard"), ("Sif of".into(), "Asgard".into()));
        assert_eq!(two(" Sif "), ("Sif".into(), "Sif".into()));
    }
}
