//! `asgard logs`.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::compose;
use crate::paths::Paths;
use crate::problem::{Problem, Result};
use crate::process::tail;

/// Lines of each part when all are shown.
const EACH: usize = 8;

/// Prints the log of a part, or the last lines of all logs.
///
/// # Errors
/// When there is no such log.
pub async fn run(paths: &Paths, part: Option<&str>, follow: bool, lines: usize) -> Result<ExitCode> {
    if compose::is_up(paths) {
        return compose::logs(paths, part, follow, lines).await;
    }
    let names = names(paths);
    let Some(part) = part else {
        for name in &names {
            println!("== {name}");
            tail(&paths.log(name), EACH).iter().for_each(|line| println!("{line}"));
        }
        return Ok(ExitCode::SUCCESS);
    };
    if !names.iter().any(|name| name == part) {
        let have = if names.is_empty() { "none yet".to_owned() } else { names.join(", ") };
        return Err(Problem::new(format!("there is no log of {part:?}")).hint(format!("there are: {have}")));
    }
    let file = paths.log(part);
    tail(&file, lines).iter().for_each(|line| println!("{line}"));
    if follow {
        follow_file(&file).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The parts that have a log.
pub(crate) fn names(paths: &Paths) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(paths.logs())
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".log").map(str::to_owned))
        .collect();
    names.sort();
    names
}

async fn follow_file(path: &Path) -> Result<()> {
    let fail = |e: std::io::Error| Problem::io("read", path, &e);
    let mut at = std::fs::metadata(path).map_err(fail)?.len();
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        // A part that starts anew may have a new file.
        let Ok(mut file) = std::fs::File::open(path) else { continue };
        let length = file.metadata().map_err(fail)?.len();
        if length < at {
            at = 0;
        }
        let mut new = Vec::new();
        file.seek(SeekFrom::Start(at)).map_err(fail)?;
        let read = file.take(1 << 20).read_to_end(&mut new).map_err(fail)?;
        at += u64::try_from(read).unwrap_or_default();
        if std::io::stdout().write_all(&new).and_then(|()| std::io::stdout().flush()).is_err() {
            return Ok(());
        }
    }
}
