//! Names and times: the small values that payloads are made of, parsed once and valid ever after.
//!
//! A name is a token `[A-Za-z0-9._@:/=+-]{1,128}`, so it can stand in a payload, a log line and a
//! shell without quoting. Free text is never a name: it lives in a blob.

use alloc::string::{String, ToString};
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, de};

/// Longest name in bytes; enough for a fully qualified host name or a mail address.
pub const MAX_NAME_BYTES: usize = 128;

/// The text is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a {what}: expected 1 to 128 characters of A-Z a-z 0-9 {also}")]
pub struct NotAName {
    /// Which kind of name was expected.
    what: &'static str,
    /// What it may have beside letters and digits.
    also: &'static str,
}

/// What a token has beside letters and digits.
const MARKS: &str = ". _ @ : / = + -";

/// The same for names that stand before or after a `/`.
const MARKS_OF_PARTS: &str = ". _ @ : = + -";

fn is_token(text: &str, also: &str) -> bool {
    let marks = also.as_bytes();
    let allowed = |b: u8| b.is_ascii_alphanumeric() || (b != b' ' && marks.contains(&b));
    (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(allowed)
}

/// What a text that was parsed once has in common with every other: how it is read, shown and deserialised.
macro_rules! parsed_text {
    ($name:ident) => {
        impl $name {
            /// As text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

pub(crate) use parsed_text;

macro_rules! name_newtype {
    ($(#[$doc:meta])* $name:ident, $what:literal, $also:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub struct $name(String);

        parsed_text!($name);

        impl FromStr for $name {
            type Err = NotAName;

            fn from_str(text: &str) -> Result<Self, NotAName> {
                if !is_token(text, $also) {
                    return Err(NotAName { what: $what, also: $also });
                }
                Ok(Self(text.to_string()))
            }
        }
    };
}

name_newtype! {
    /// A person or machine that signs: `alice@example.com`. Permanent; use a pseudonym where law
    /// may ask for erasure.
    Principal, "principal", MARKS
}

name_newtype! {
    /// A host's agent: `web-1.example.com`. Without a `/`, which stands before a service.
    AgentName, "agent name", MARKS_OF_PARTS
}

name_newtype! {
    /// A service of a host, as its agent's own configuration names it: the `db` of `web-1/db`.
    ServiceName, "service name", MARKS_OF_PARTS
}

name_newtype! {
    /// A user account of a host's operating system.
    OsUser, "user name", MARKS
}

name_newtype! {
    /// The name of a rule or an action in a host's own configuration.
    RuleName, "rule name", MARKS
}

name_newtype! {
    /// A role: a set of permissions under a name, built in or defined by the administrators.
    RoleName, "role name", MARKS_OF_PARTS
}

name_newtype! {
    /// A group of people.
    GroupName, "group name", MARKS_OF_PARTS
}

name_newtype! {
    /// A legal hold: `case-2026-07`. Never the name of whom it is about.
    HoldName, "name of a hold", MARKS
}

name_newtype! {
    /// The law or rule by which something is erased, as a word: `gdpr-17`.
    LegalBasis, "legal basis", MARKS
}

name_newtype! {
    /// The public name of an API token: what lists show and statements carry.
    TokenId, "token id", MARKS_OF_PARTS
}

/// What administrators say of a host: `env=prod`. Values are dotted from the general to the special,
/// so that `group=web` also takes in `group=web.dev`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Label(String);

impl Label {
    /// The label as text, `key=value`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Says whether a host with this label is meant by `asked`: the same, or a special case of it.
    #[must_use]
    pub fn is_within(&self, asked: &Self) -> bool {
        self.0
            .strip_prefix(asked.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    /// The label and all that it is a special case of: `group=web.dev` gives `group=web` too.
    pub fn with_wider(&self) -> impl Iterator<Item = &str> {
        let value = self.0.find('=').map_or(0, |at| at + 1);
        let dots = self
            .0
            .char_indices()
            .filter(move |(at, c)| *at > value && *c == '.');
        let wider = dots.filter_map(|(at, _)| self.0.get(..at));
        wider.chain([self.0.as_str()])
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Label {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let parts = text.split_once('=');
        let both = parts.is_some_and(|(key, value)| !key.is_empty() && !value.is_empty());
        if both && is_token(text, MARKS_OF_PARTS) {
            return Ok(Self(text.to_string()));
        }
        Err(NotAName {
            what: "label (key=value)",
            also: MARKS_OF_PARTS,
        })
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// Microseconds since the Unix epoch, UTC; never negative, at most 2^53 − 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = u64))]
pub struct Time(u64);

/// One second as microseconds.
pub const SECOND_US: u64 = 1_000_000;

/// The largest integer that every JSON implementation keeps exact.
pub const MAX_INTEGER: u64 = (1 << 53) - 1;

impl Time {
    /// Takes microseconds since the epoch; none past [`MAX_INTEGER`] (the year 2255).
    #[must_use]
    pub const fn from_micros(us: u64) -> Option<Self> {
        if us > MAX_INTEGER {
            None
        } else {
            Some(Self(us))
        }
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// This time and so many microseconds, held at the largest time there is.
    #[must_use]
    pub const fn plus_micros(self, us: u64) -> Self {
        let sum = self.0.saturating_add(us);
        Self(if sum > MAX_INTEGER { MAX_INTEGER } else { sum })
    }

    /// Microseconds from `earlier` to this; 0 when it is not earlier.
    #[must_use]
    pub const fn micros_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let us = u64::deserialize(deserializer)?;
        Self::from_micros(us).ok_or_else(|| de::Error::custom("time past 2^53-1 microseconds"))
    }
}

/// Sixteen random bytes that keep two otherwise equal statements apart. 32 lowercase hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nonce([u8; 16]);

impl Nonce {
    /// Takes bytes that the caller drew at random.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl Serialize for Nonce {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Nonce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 16];
        let lower = !text.bytes().any(|b| b.is_ascii_uppercase());
        if !lower || hex::decode_to_slice(&text, &mut bytes).is_err() {
            return Err(de::Error::custom("a nonce is 32 lowercase hex digits"));
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn a_name_has_no_space_no_control_character_and_an_end() {
        assert!("alice@example.com".parse::<Principal>().is_ok());
        for bad in ["", "a b", "a\n", "ä", "a,b", "*", &"x".repeat(129)] {
            assert!(bad.parse::<Principal>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_label_takes_in_its_special_cases_and_nothing_that_only_begins_alike() {
        let label = |text: &str| text.parse::<Label>().unwrap();
        assert!(label("group=web.dev.eu").is_within(&label("group=web.dev")));
        assert!(label("group=web").is_within(&label("group=web")));
        assert!(!label("group=web").is_within(&label("group=web.dev")));
        assert!(!label("group=website").is_within(&label("group=web")));
        let wider = label("group=web.dev.eu");
        let wider: Vec<&str> = wider.with_wider().collect();
        assert_eq!(wider, ["group=web", "group=web.dev", "group=web.dev.eu"]);
        for bad in ["group", "=web", "group=", "a=b/c"] {
            assert!(bad.parse::<Label>().is_err(), "{bad:?}");
        }
    }
}
