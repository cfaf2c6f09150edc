//! The fixture as a program: a worker of a site, or without a Redis a whole server in one process.

use std::process::ExitCode;

use conformance::Fixture;

#[tokio::main]
async fn main() -> ExitCode {
    match Fixture::new() {
        Ok(fixture) => odin::Program::from_args().serve(fixture).await,
        Err(error) => odin::program::ended(Err(error.message.into_owned())),
    }
}
