//! Where Postgres is installed, and the line that installs it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::dev::postgres::PostgresError;
use crate::dev::spawn;

/// Names a folder with `postgres` and `initdb`, before all other places.
const BINDIR_VARIABLE: &str = "COUNTERSIGN_PG_BINDIR";

/// The folder with `postgres` and `initdb`, and their major version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    /// The folder.
    pub folder: PathBuf,
    /// 15 for 15.18.
    pub major: u32,
}

impl Binaries {
    /// Looks where Postgres may be: `explicit`, the environment, `pg_config`, the usual folders, PATH.
    ///
    /// # Errors
    /// [`PostgresError::NotInstalled`] with the line that installs it; [`PostgresError::NoBinaries`]
    /// when a folder was named and has none.
    pub fn find(explicit: Option<&Path>) -> Result<Self, PostgresError> {
        let named = explicit.map(Path::to_path_buf);
        if let Some(folder) = named.or_else(|| std::env::var_os(BINDIR_VARIABLE).map(PathBuf::from))
        {
            return Self::at(&folder).ok_or(PostgresError::NoBinaries(folder));
        }
        candidates()
            .iter()
            .find_map(|folder| Self::at(folder))
            .ok_or_else(|| PostgresError::NotInstalled {
                install: install_command().join(" "),
            })
    }

    fn at(folder: &Path) -> Option<Self> {
        if !folder.join("initdb").is_file() {
            return None;
        }
        // postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)
        let shown = spawn::output(&folder.join("postgres"), &["--version"])?;
        let version = shown.split_ascii_whitespace().nth(2)?;
        let major = version
            .split(|c: char| !c.is_ascii_digit())
            .next()?
            .parse()
            .ok()?;
        Some(Self {
            folder: folder.to_path_buf(),
            major,
        })
    }
}

/// Subfolders of `parent` with `bin` in them, newest version first.
fn versions(parent: &str, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let major = name.strip_prefix(prefix)?.parse().ok()?;
            Some((major, entry.path().join("bin")))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

fn candidates() -> Vec<PathBuf> {
    let mut found = Vec::new();
    found.extend(
        spawn::output(Path::new("pg_config"), &["--bindir"]).map(|line| line.trim().into()),
    );
    found.extend(versions("/usr/lib/postgresql", ""));
    found.extend(versions("/usr", "pgsql-"));
    found.extend(versions("/opt/homebrew/opt", "postgresql@"));
    found.extend(versions("/usr/local/opt", "postgresql@"));
    found.extend(
        std::env::var_os("PATH")
            .iter()
            .flat_map(std::env::split_paths),
    );
    found
}

/// The words that install Postgres on this system.
#[must_use]
pub fn install_command() -> Vec<&'static str> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let like = release
        .lines()
        .filter_map(|line| {
            line.strip_prefix("ID=")
                .or_else(|| line.strip_prefix("ID_LIKE="))
        })
        .flat_map(|value| value.trim_matches('"').split(' '))
        .find_map(|id| match id {
            "debian" | "ubuntu" => Some(vec!["apt-get", "install", "-y", "postgresql"]),
            "fedora" | "rhel" | "centos" => Some(vec!["dnf", "install", "-y", "postgresql-server"]),
            "arch" => Some(vec!["pacman", "-S", "--noconfirm", "postgresql"]),
            "alpine" => Some(vec!["apk", "add", "postgresql"]),
            "suse" | "opensuse" => Some(vec!["zypper", "install", "-y", "postgresql-server"]),
            _other => None,
        });
    let install = like.unwrap_or_else(|| vec!["brew", "install", "postgresql"]);
    let root = rustix::process::geteuid().is_root() || install.first() == Some(&"brew");
    if root {
        install
    } else {
        [vec!["sudo"], install].concat()
    }
}

/// Runs the line that installs Postgres, on this terminal. Says whether it worked.
pub fn install() -> bool {
    let line = install_command();
    let [program, arguments @ ..] = line.as_slice() else {
        return false;
    };
    spawn::attached(Path::new(program), arguments).is_ok_and(|status| status.success())
}
