//! Who counts on this host: a strict subset of OpenSSH's `allowed_signers`.
//!
//! It owns the parsing and the question "may this key speak for this person, here and now?".
//! Whatever OpenSSH reads in two ways, or more widely than it looks (patterns, negation, lists of
//! principals, certificate authorities, local times), is refused with its line number. It must not
//! read a clock: the time comes in.
//!
//! ```text
//! alice@example.com namespaces="command.approved.v1@countersign" ssh-ed25519 AAAA… comment
//! bob@example.com valid-before="20270101Z" ssh-ed25519 AAAA…
//! ```

use std::collections::BTreeMap;

use countersign_protocol::event::Kind;
use countersign_protocol::key::{KeyError, PublicKey};
use countersign_protocol::name::{Principal, SECOND_US, Time};

/// Most lines: far more people than may ever approve for one host, and a bound on the parsing.
pub const MAX_LINES: usize = 4096;

/// What is wrong with a file of signers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct SignersError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// Why a line, or the whole file, is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No key at all.
    #[error("the file names nobody; without a signer no command could ever be allowed")]
    Empty,
    /// More than [`MAX_LINES`].
    #[error("the file has more than 4096 lines")]
    TooLong,
    /// Not `principal [options] key-type key [comment]`.
    #[error("expected: principal [options] key-type base64-key [comment]")]
    Shape,
    /// `*`, `?` or `!` in a principal.
    #[error("patterns and negation are refused; write one exact principal a line")]
    Pattern,
    /// A comma list or a quoted principal.
    #[error("one principal a line, without commas or quotes")]
    PrincipalList,
    /// No principal's name.
    #[error("the principal is not a name of 1 to 128 characters A-Z a-z 0-9 . _ @ : / = + -")]
    Principal,
    /// `cert-authority`.
    #[error("certificate authorities are refused; list each person's own key")]
    CertAuthority,
    /// An option that is unknown, given twice, or malformed.
    #[error("the option {0:?} is unknown, stands twice or has no quoted value")]
    Option(String),
    /// `namespaces` with a pattern or nothing in it.
    #[error("namespaces=\"…\" holds exact names separated by commas, without patterns")]
    Namespaces,
    /// A date that is not in UTC or does not exist.
    #[error("a date is YYYYMMDDZ, YYYYMMDDHHMMZ or YYYYMMDDHHMMSSZ, in UTC, with its Z")]
    Date,
    /// `valid-after` is not before `valid-before`.
    #[error("valid-after is not before valid-before, so this key is never valid")]
    NeverValid,
    /// The key.
    #[error("{0}")]
    Key(#[from] KeyError),
    /// The same key again.
    #[error("this key stands on line {0} already; a key belongs to one person, on one line")]
    DuplicateKey(usize),
}

/// Why a key does not count here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotPinned {
    /// It is not in the file.
    #[error("the key is not in this host's allowed_signers")]
    UnknownKey,
    /// It is somebody else's.
    #[error("the key belongs to another principal in this host's allowed_signers")]
    OtherPrincipal,
    /// It may not sign statements of this kind.
    #[error("the key is not allowed this namespace in allowed_signers")]
    Namespace,
    /// Neither pinned nor listed.
    #[error("the key is neither in this host's allowed_signers nor theirs in its policy snapshot")]
    Unlisted,
    /// A snapshot that this host has verified revokes it.
    #[error("the key was revoked")]
    Revoked,
    /// Outside of its dates.
    #[error("the key is outside of its validity dates in allowed_signers")]
    Date,
}

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pinned {
    line: usize,
    principal: Principal,
    /// None: every namespace.
    namespaces: Option<Vec<String>>,
    after: Option<Time>,
    before: Option<Time>,
}

/// The people whose signatures count on this host. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedSigners {
    keys: BTreeMap<PublicKey, Pinned>,
}

impl AllowedSigners {
    /// Reads the text of an `allowed_signers` file.
    ///
    /// # Errors
    /// The first line that is refused, and why.
    pub fn parse(text: &str) -> Result<Self, SignersError> {
        let mut keys: BTreeMap<PublicKey, Pinned> = BTreeMap::new();
        let mut last = 1;
        for (index, text) in text.lines().enumerate() {
            let line = index.saturating_add(1);
            last = line;
            let at = |problem| SignersError { line, problem };
            if line > MAX_LINES {
                return Err(at(Problem::TooLong));
            }
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let (key, pinned) = parse_line(text, line).map_err(at)?;
            if let Some(before) = keys.get(&key) {
                return Err(at(Problem::DuplicateKey(before.line)));
            }
            keys.insert(key, pinned);
        }
        if keys.is_empty() {
            let problem = Problem::Empty;
            return Err(SignersError {
                line: last,
                problem,
            });
        }
        Ok(Self { keys })
    }

    /// Whose key this is, whatever it may sign and whenever.
    #[must_use]
    pub fn owner_of(&self, key: &PublicKey) -> Option<&Principal> {
        self.keys.get(key).map(|pinned| &pinned.principal)
    }

    /// Whether any key of this person is pinned.
    #[must_use]
    pub fn knows(&self, principal: &Principal) -> bool {
        self.keys
            .values()
            .any(|pinned| pinned.principal == *principal)
    }

    /// All keys, each with whose it is.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&PublicKey, &Principal)> {
        let keys = self.keys.iter();
        keys.map(|(key, pinned)| (key, &pinned.principal))
    }

    /// All people, sorted, each once.
    #[must_use]
    pub fn people(&self) -> Vec<Principal> {
        let mut people: Vec<Principal> = self
            .keys
            .values()
            .map(|pinned| pinned.principal.clone())
            .collect();
        people.sort();
        people.dedup();
        people
    }

    /// Says whether `key` speaks for `principal` in statements of `kind` at `now`.
    ///
    /// # Errors
    /// Why it does not.
    pub fn check(
        &self,
        key: &PublicKey,
        principal: &Principal,
        kind: Kind,
        now: Time,
    ) -> Result<(), NotPinned> {
        let pinned = self.keys.get(key).ok_or(NotPinned::UnknownKey)?;
        if pinned.principal != *principal {
            return Err(NotPinned::OtherPrincipal);
        }
        let named = |names: &Vec<String>| names.iter().any(|name| name == kind.namespace());
        if !pinned.namespaces.as_ref().is_none_or(named) {
            return Err(NotPinned::Namespace);
        }
        let early = pinned.after.is_some_and(|after| now < after);
        let late = pinned.before.is_some_and(|before| now >= before);
        if early || late {
            return Err(NotPinned::Date);
        }
        Ok(())
    }
}

fn parse_line(text: &str, line: usize) -> Result<(PublicKey, Pinned), Problem> {
    let (principal, rest) = text
        .split_once([' ', '\t'])
        .ok_or(Problem::Shape)
        .map(|(principal, rest)| (principal, rest.trim_start()))?;
    let mut pinned = Pinned {
        line,
        principal: parse_principal(principal)?,
        namespaces: None,
        after: None,
        before: None,
    };
    let is_key = |word: &str| word.starts_with("ssh-") || word.starts_with("sk-");
    let key = if is_key(rest) || rest.starts_with("ecdsa-") {
        rest
    } else {
        let (options, key) = split_options(rest)?;
        read_options(options, &mut pinned)?;
        key
    };
    if let (Some(after), Some(before)) = (pinned.after, pinned.before)
        && after >= before
    {
        return Err(Problem::NeverValid);
    }
    Ok((PublicKey::from_openssh(key)?, pinned))
}

fn parse_principal(text: &str) -> Result<Principal, Problem> {
    if text.contains(['*', '?', '!']) {
        return Err(Problem::Pattern);
    }
    if text.contains([',', '"']) {
        return Err(Problem::PrincipalList);
    }
    text.parse().map_err(|_| Problem::Principal)
}

/// Cuts at the first blank that stands outside of quotes.
fn split_options(text: &str) -> Result<(&str, &str), Problem> {
    let mut quoted = false;
    for (at, letter) in text.char_indices() {
        match letter {
            '"' => quoted = !quoted,
            ' ' | '\t' if !quoted => {
                let (options, key) = text.split_at(at);
                return Ok((options, key.trim_start()));
            }
            _other => {}
        }
    }
    Err(Problem::Shape)
}

fn read_options(mut text: &str, pinned: &mut Pinned) -> Result<(), Problem> {
    loop {
        let name_end = text.find(['=', ',']).unwrap_or(text.len());
        let (name, rest) = text.split_at(name_end);
        if name.eq_ignore_ascii_case("cert-authority") {
            return Err(Problem::CertAuthority);
        }
        let unknown = || Problem::Option(name.to_owned());
        let value = rest.strip_prefix("=\"").ok_or_else(unknown)?;
        let (value, rest) = value.split_once('"').ok_or_else(unknown)?;
        let first = match name {
            "namespaces" => pinned
                .namespaces
                .replace(parse_namespaces(value)?)
                .is_none(),
            "valid-after" => pinned.after.replace(parse_date(value)?).is_none(),
            "valid-before" => pinned.before.replace(parse_date(value)?).is_none(),
            _other => false,
        };
        if !first {
            return Err(unknown());
        }
        if rest.is_empty() {
            return Ok(());
        }
        text = rest.strip_prefix(',').ok_or_else(unknown)?;
    }
}

fn parse_namespaces(value: &str) -> Result<Vec<String>, Problem> {
    let exact = |name: &str| {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"._@:/-".contains(&b);
        !name.is_empty() && name.bytes().all(legal)
    };
    let names: Vec<String> = value.split(',').map(str::to_owned).collect();
    if names.iter().all(|name| exact(name)) {
        Ok(names)
    } else {
        Err(Problem::Namespaces)
    }
}

/// `YYYYMMDD[HHMM[SS]]Z`. Without the `Z` OpenSSH reads the host's own time zone.
fn parse_date(text: &str) -> Result<Time, Problem> {
    let digits = text.strip_suffix('Z').ok_or(Problem::Date)?;
    if !matches!(digits.len(), 8 | 12 | 14) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Problem::Date);
    }
    let number = |from: usize, to: usize| -> u64 {
        digits
            .get(from..to)
            .and_then(|part| part.parse().ok())
            .unwrap_or(0)
    };
    let (year, month, day) = (number(0, 4), number(4, 6), number(6, 8));
    let (hour, minute, second) = (number(8, 10), number(10, 12), number(12, 14));
    // 2000 to 2099 need no rule of centuries, and no key of today is valid for longer.
    let sane = (2000..2100).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !sane {
        return Err(Problem::Date);
    }
    let months: u64 = (1..month).map(|month| days_in(year, month)).sum();
    let years = year.saturating_sub(1972);
    // From 1970 to 1972 there were two years of 365 days.
    let leap_days = years.div_ceil(4);
    let days = 730 + years * 365 + leap_days + months + day.saturating_sub(1);
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Time::from_micros(seconds * SECOND_US).ok_or(Problem::Date)
}

const fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 if year.is_multiple_of(4) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _long => 31,
    }
}
