//! `asgard bench`: builds the program in `bench/`, and becomes it.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use crate::install;
use crate::paths::{Paths, private_dir};
use crate::problem::{Problem, Result};

/// Measures with these arguments, which are the program's own. It starts a stack by `asgard up`, which installs and
/// builds what that needs.
///
/// # Errors
/// When it can't be built or started.
pub fn run(paths: &Paths, arguments: &[String]) -> Result<ExitCode> {
    private_dir(&paths.logs())?;
    let program = install::build_bench(paths)?;
    let own = crate::process::own_program().map_err(|e| Problem::new(format!("cannot find myself: {e}")))?;
    Err(Problem::io("start", &program, &command(paths, &program, &own, arguments).exec()))
}

/// The program: it finds this checkout and this command, and nothing of a stack that runs.
fn command(paths: &Paths, program: &Path, own: &Path, arguments: &[String]) -> Command {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_remove("ASGARD_HOME")
        .env("ASGARD_ROOT", &paths.root)
        .env("ASGARD_CACHE", &paths.cache)
        .env("ASGARD_BIN", own);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_that_runs_is_left_alone() {
        let paths = Paths { root: "/r".into(), home: "/h".into(), cache: "/c".into() };
        let arguments = ["--quick".to_owned()];
        let command = command(&paths, Path::new("/bench"), Path::new("/asgard"), &arguments);
        let env: Vec<_> = command.get_envs().collect();
        assert!(env.contains(&("ASGARD_HOME".as_ref(), None)));
        assert!(env.contains(&("ASGARD_ROOT".as_ref(), Some("/r".as_ref()))));
        assert_eq!(command.get_args().collect::<Vec<_>>(), ["--quick"]);
    }
}
