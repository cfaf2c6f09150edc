//! Accounts of the sample setup that everybody knows: not where others can reach them.

use crate::problem::{Problem, Result};
use crate::state::{SAMPLE_PASSWORD, State};

/// The sample users and their organisations; each one's password is the name.
pub const USERS: [(&str, &[&str]); 4] =
    [("thor", &["org-1"]), ("hel", &["org-2"]), ("freya", &["org-1", "org-2"]), ("surt", &[])];

impl State {
    /// Refuses accounts that everybody knows where others can reach the stack.
    ///
    /// # Errors
    /// Which they are, and what to do.
    pub fn check_samples(&self) -> Result<()> {
        if self.is_loopback() || self.sample_users == Some(true) {
            return Ok(());
        }
        let reached =
            format!("others can reach this stack (public_url {}, listen {})", self.public_url, self.listen);
        if self.sample_users.is_none() {
            return Err(Problem::new(format!(
                "{reached}, and the sample users thor, hel, freya and surt have their names as passwords"
            ))
            .hint(
                "write sample_users = false into the state file, and the realm is made without them; or true, to have them \
                 all the same",
            ));
        }
        if self.secrets.admin_password == SAMPLE_PASSWORD {
            return Err(Problem::new(format!(
                "{reached}, and Keycloak's administrator has the sample password"
            ))
            .hint("write another admin_password into the state file"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Ports;

    #[test]
    fn accounts_that_everybody_knows_are_refused_where_others_can_reach_them() {
        for (public_url, listen) in
            [("https://mcp.example.org", "127.0.0.1"), ("http://localhost:8000", "0.0.0.0")]
        {
            let mut state = State::new(Ports::default());
            (state.public_url, state.listen) = (public_url.into(), listen.into());
            let problem = state.check_samples().unwrap_err().to_string();
            assert!(problem.contains("thor") && problem.contains("sample_users = false"), "{problem}");
            state.sample_users = Some(false);
            let problem = state.check_samples().unwrap_err().to_string();
            assert!(problem.contains("another admin_password"), "{problem}");
            state.secrets.admin_password = "another".into();
            assert!(state.check_samples().is_ok());
            state.sample_users = None;
            assert!(state.check_samples().is_err());
            state.sample_users = Some(true);
            assert!(state.check_samples().is_ok());
        }
    }
}
