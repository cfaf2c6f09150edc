//! `asgard token`.

use std::process::ExitCode;

use crate::paths::Paths;
use crate::problem::Result;
use crate::state::State;
use crate::token;

/// Prints an access token, and nothing else.
///
/// # Errors
/// When Keycloak gives none.
pub async fn run(paths: &Paths, user: &str, organisation: Option<&str>) -> Result<ExitCode> {
    let state = State::existing(paths)?;
    let (token, _) = token::for_user(&state, user, organisation).await?;
    println!("{token}");
    Ok(ExitCode::SUCCESS)
}
