//! Names of environment variables: patterns for them, and those that change which code runs.
//!
//! It must not read the environment of this process.

/// Names that change what a loader, shell or interpreter runs. They need a list of their own:
/// whoever allows `*` in `environment` has not thought of these.
const DANGEROUS: &[&str] = &[
    "LD_*",
    "DYLD_*",
    "GCONV_PATH",
    "GLIBC_TUNABLES",
    "MALLOC_*",
    "NLSPATH",
    "LOCPATH",
    "HOSTALIASES",
    "RES_OPTIONS",
    "RESOLV_*",
    "LOCALDOMAIN",
    "PATH",
    "HOME",
    "SHELL",
    "IFS",
    "CDPATH",
    "ENV",
    "BASH*",
    "SHELLOPTS",
    "PS4",
    "PROMPT_COMMAND",
    "ZDOTDIR",
    "FPATH",
    "PYTHON*",
    "PERL*",
    "RUBY*",
    "GEM_*",
    "BUNDLE_*",
    "NODE_*",
    "NPM_*",
    "LUA_*",
    "PHP*",
    "JAVA_*",
    "JDK_*",
    "_JAVA_OPTIONS",
    "CLASSPATH",
    "GIT_*",
    "SSH_*",
    "SUDO_*",
    "OPENSSL_*",
    "SSL*",
    "CURL_*",
    "KRB5*",
    "EDITOR",
    "VISUAL",
    "PAGER",
    "LESS*",
    "TERMINFO*",
    "TERMCAP",
    "TMPDIR",
    "GCC_*",
    "MAKEFLAGS",
    "RUSTC*",
    "CARGO_*",
];

/// Names that tell a container engine's client, or what enters a namespace, where to go. Inside a
/// service they would do nothing; outside they act on the host's own program.
const STEERING: &[&str] = &[
    "CONTAINER*",
    "DBUS_*",
    "DOCKER_*",
    "KUBE*",
    "NOTIFY_SOCKET",
    "PODMAN_*",
    "COUNTERSIGN_*",
    "XDG_*",
];

/// An exact name, or all names with a beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern {
    text: String,
    prefix: bool,
}

impl NamePattern {
    /// `NAME`, or `NAME*` for every name that begins so. A star alone or elsewhere is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (name, prefix) = text
            .strip_suffix('*')
            .map_or((text, false), |name| (name, true));
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        (!name.is_empty() && name.bytes().all(legal)).then(|| Self {
            text: name.to_owned(),
            prefix,
        })
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        if self.prefix {
            name.starts_with(&self.text)
        } else {
            name == self.text
        }
    }
}

/// Whether a variable can change which code runs.
#[must_use]
pub fn is_dangerous(name: &str) -> bool {
    is_listed(name, DANGEROUS)
}

/// Whether a variable can change which service is entered.
pub(super) fn steers_entering(name: &str) -> bool {
    is_listed(name, STEERING)
}

fn is_listed(name: &str, list: &[&str]) -> bool {
    // Case does not matter to some interpreters on some systems; being strict costs nothing.
    let name = name.to_ascii_uppercase();
    list.iter()
        .filter_map(|pattern| NamePattern::parse(pattern))
        .any(|pattern| pattern.matches(&name))
}

/// Whether any value of this variable is safe.
pub(super) fn is_plain(name: &str) -> bool {
    is_safe_value(name, "/../%")
}

/// Locale, zone and terminal names are also paths to the C library. sudo has the same rule.
pub(super) fn is_safe_value(name: &str, value: &str) -> bool {
    match name {
        "TZ" => {
            let zone = value.strip_prefix(':').unwrap_or(value);
            !zone.starts_with('/') && !zone.split('/').any(|part| part == "..")
        }
        "LANG" | "LANGUAGE" | "TERM" => !value.contains(['/', '%']),
        _locale if name.starts_with("LC_") => !value.contains(['/', '%']),
        _other => true,
    }
}
