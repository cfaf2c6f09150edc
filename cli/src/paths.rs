//! Where things are: the repository, the state folder, the shared cache.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::problem::{Problem, Result};

/// Longest folder that still leaves room for a socket's name (Pushpin's have up to 35 bytes): an address of a unix
/// socket has 108 bytes.
const MAX_SOCKET_FOLDER: usize = 64;

/// The folders that the command works with.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The repository.
    pub root: PathBuf,
    /// The state folder of one stack: `.asgard/` of the repository, or `ASGARD_HOME`.
    pub home: PathBuf,
    /// Tools that were fetched; shared by all stacks of this repository.
    pub cache: PathBuf,
}

impl Paths {
    /// Finds the folders: `ASGARD_ROOT` (set by the shim) or the nearest folder upwards that is the
    /// repository; `ASGARD_HOME`; `ASGARD_CACHE`.
    ///
    /// # Errors
    /// When no repository is found.
    pub fn discover() -> Result<Self> {
        let root = match std::env::var_os("ASGARD_ROOT").map(PathBuf::from) {
            Some(root) => root,
            None => upwards(&std::env::current_dir().unwrap_or_default())
                .or_else(|| std::env::current_exe().ok().and_then(|exe| upwards(&exe)))
                .or_else(|| upwards(Path::new(env!("CARGO_MANIFEST_DIR"))))
                .ok_or_else(|| {
                    Problem::new("this is not inside the Asgard repository")
                        .hint("run ./asgard in the repository, or set ASGARD_ROOT")
                })?,
        };
        let root = root.canonicalize().map_err(|e| Problem::io("find", &root, &e))?;
        let home = absolute(std::env::var_os("ASGARD_HOME"), root.join(".asgard"));
        let cache = absolute(std::env::var_os("ASGARD_CACHE"), root.join(".asgard/cache"));
        Ok(Self { root, home, cache })
    }

    /// The same repository and cache with another state folder.
    #[must_use]
    pub fn with_home(mut self, home: PathBuf) -> Self {
        self.home = home;
        self
    }

    /// The state file.
    #[must_use]
    pub fn state_file(&self) -> PathBuf {
        self.home.join("asgard.toml")
    }

    /// Hosts of organisations.
    #[must_use]
    pub fn hosts_file(&self) -> PathBuf {
        self.home.join("hosts.toml")
    }

    /// The policy, where there is one.
    #[must_use]
    pub fn policy_file(&self) -> PathBuf {
        self.home.join("policy.json")
    }

    /// Logs: one file a part.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.home.join("logs")
    }

    /// The log of a part.
    #[must_use]
    pub fn log(&self, part: &str) -> PathBuf {
        self.logs().join(format!("{part}.log"))
    }

    /// Files that live as long as a running stack: rendered configuration, sockets.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.home.join("run")
    }

    /// What lives longer than a run: Keycloak's database.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// The folder of all sockets: the run folder. Where that has a long name, or one that some program would read
    /// otherwise (a comma, a space), a short place under the system's temporary folder.
    #[must_use]
    pub fn sockets(&self) -> PathBuf {
        let run = self.run();
        let bytes = run.as_os_str().as_encoded_bytes();
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
        if bytes.len() <= MAX_SOCKET_FOLDER && bytes.iter().all(plain) {
            return run;
        }
        std::env::temp_dir().join(format!("asgard-{}-{}", nix::unistd::getuid(), short_hash(bytes)))
    }

    /// The control socket of the supervisor.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.sockets().join("control.sock")
    }

    /// The socket of Redis.
    #[must_use]
    pub fn redis(&self) -> PathBuf {
        self.sockets().join("redis.sock")
    }

    /// The folder of Pushpin's sockets.
    #[must_use]
    pub fn pushpin(&self) -> PathBuf {
        self.sockets().join("pushpin")
    }

    /// Makes the run folder and the folder of the sockets.
    ///
    /// # Errors
    /// When they can't be made, or the latter is there and open to others: whoever reaches the sockets reads and
    /// forges all streams.
    pub fn make_run(&self) -> Result<()> {
        private_dir(&self.run())?;
        let sockets = self.sockets();
        private_dir(&sockets)?;
        if self.owns_sockets() {
            return Ok(());
        }
        Err(Problem::new(format!("{} belongs to somebody else, or is open to others", self.shown(&sockets)))
            .hint("remove it, or set ASGARD_HOME to a folder with a short name"))
    }

    /// Whether the folder of the sockets is there, and this user's alone.
    #[must_use]
    pub fn owns_sockets(&self) -> bool {
        std::fs::symlink_metadata(self.sockets()).is_ok_and(|folder| {
            folder.is_dir()
                && folder.permissions().mode() & 0o077 == 0
                && folder.uid() == nix::unistd::geteuid().as_raw()
        })
    }

    /// Removes what belonged to a run. Logs and data stay.
    pub fn clear_run(&self) {
        let _ = std::fs::remove_dir_all(self.run());
        if self.owns_sockets() {
            let _ = std::fs::remove_dir_all(self.sockets());
        }
    }

    /// Where cargo puts what it builds.
    #[must_use]
    pub fn target(&self) -> PathBuf {
        absolute(std::env::var_os("CARGO_TARGET_DIR"), self.root.join("target"))
    }

    /// A path as a person would type it: relative to the current folder if it is inside.
    #[must_use]
    pub fn shown(&self, path: &Path) -> String {
        let shown =
            std::env::current_dir().ok().and_then(|cwd| path.strip_prefix(cwd).ok().map(Path::to_owned));
        shown.unwrap_or_else(|| path.to_owned()).display().to_string()
    }
}

/// Makes a folder, and those above it, readable by nobody else.
///
/// # Errors
/// When it cannot be made.
pub fn private_dir(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| Problem::io("make the folder", path, &e))
}

/// Reads a file of at most `max` bytes.
///
/// # Errors
/// When it cannot be read, or is larger.
pub fn read_text(path: &Path, max: u64) -> Result<String> {
    let fail = |e: std::io::Error| Problem::io("read", path, &e);
    if std::fs::metadata(path).map_err(fail)?.len() > max {
        return Err(Problem::new(format!("{} is larger than {max} bytes", path.display())));
    }
    std::fs::read_to_string(path).map_err(fail)
}

/// Writes a file of mode 600, whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let fail = |e: std::io::Error| Problem::io("write", path, &e);
    if let Some(folder) = path.parent() {
        private_dir(folder)?;
    }
    let part = path.with_extension(format!("part-{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)
        .map_err(fail)?;
    let written = file
        .set_permissions(std::fs::Permissions::from_mode(0o600))
        .and_then(|()| file.write_all(content))
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&part, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    written.map_err(fail)
}

/// Twelve hex digits of a SHA-256: names for things, no secret.
#[must_use]
pub fn short_hash(data: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(data).iter().take(6).map(|b| format!("{b:02x}")).collect()
}

fn absolute(given: Option<std::ffi::OsString>, otherwise: PathBuf) -> PathBuf {
    match given.filter(|v| !v.is_empty()).map(PathBuf::from) {
        Some(path) => std::path::absolute(&path).unwrap_or(path),
        None => otherwise,
    }
}

fn upwards(from: &Path) -> Option<PathBuf> {
    from.ancestors().find(|p| p.join("keycloak/realm.json.in").is_file()).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_files_have_mode_600() {
        let dir = std::env::temp_dir().join(format!("asgard-paths-{}", std::process::id()));
        let file = dir.join("a/b");
        write_private(&file, b"x").unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(dir.join("a")).unwrap().permissions().mode() & 0o777, 0o700);
        write_private(&file, b"y").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"y");
        assert_eq!(std::fs::read_dir(dir.join("a")).unwrap().count(), 1, "no partial file is left");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_long_state_folder_gets_a_short_socket() {
        let paths = Paths { root: "/r".into(), home: "/h".into(), cache: "/c".into() };
        assert_eq!(paths.socket(), Path::new("/h/run/control.sock"));
        assert_eq!(paths.redis(), Path::new("/h/run/redis.sock"));
        for odd in [format!("/{}", "x".repeat(120)), "/a,b".into(), "/a b".into(), "/a%20".into()] {
            let odd = paths.clone().with_home(PathBuf::from(odd));
            let socket = odd.pushpin().join("pushpin-condure-out-stream");
            assert!(socket.starts_with(std::env::temp_dir()) && socket.as_os_str().len() < 100, "{socket:?}");
        }
    }

    #[test]
    fn a_socket_folder_that_others_can_enter_is_refused() {
        let long = std::env::temp_dir().join(format!("asgard-{}-{}", "x".repeat(80), std::process::id()));
        let paths = Paths { root: "/r".into(), cache: "/c".into(), home: long.clone() };
        paths.make_run().unwrap();
        let sockets = paths.sockets();
        assert_eq!(std::fs::metadata(&sockets).unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::set_permissions(&sockets, std::fs::Permissions::from_mode(0o755)).unwrap();
        let problem = paths.make_run().unwrap_err().to_string();
        assert!(problem.contains("open to others"), "{problem}");
        std::fs::remove_dir(&sockets).unwrap();
        std::os::unix::fs::symlink("/", &sockets).unwrap();
        assert!(!paths.owns_sockets() && paths.make_run().is_err());
        std::fs::remove_file(&sockets).unwrap();
        paths.make_run().unwrap();
        paths.clear_run();
        assert!(!sockets.exists());
        std::fs::remove_dir_all(long).unwrap();
    }
}
