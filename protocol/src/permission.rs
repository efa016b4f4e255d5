//! What somebody may do, as `resource:verb`; built-in roles; and how a rule names people.
//!
//! A closed list, so that a typing error is no permission. Nothing asks for `command:retry` and
//! `audit:export` yet: what they are for is not there.

use alloc::string::{String, ToString};
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::name::{GroupName, Principal, RoleName};

macro_rules! permissions {
    ($($(#[$doc:meta])* $name:ident, $word:literal;)*) => {
        /// A right to do one thing to one sort of things.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Permission {
            $($(#[$doc])* $name,)*
        }

        impl Permission {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The word: `command:execute`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
        }
    };
}

permissions! {
    /// Lists and lives of commands, without their output.
    CommandRead, "command:read";
    /// Ask for a command, where a rule of the policy permits it.
    CommandExecute, "command:execute";
    /// Approve and reject where a rule names nobody in particular.
    CommandApprove, "command:approve";
    /// Stop the commands of others.
    CommandCancel, "command:cancel";
    /// Ask again for what did not succeed; it widens nothing, so `command:execute` is needed too.
    CommandRetry, "command:retry";
    /// The output of the commands of others.
    OutputRead, "output:read";
    /// Entries of the log, of everybody.
    AuditRead, "audit:read";
    /// Take entries away as a bundle.
    AuditExport, "audit:export";
    /// Hosts, their labels and keys.
    AgentRead, "agent:read";
    /// Accept, reject, label, drain and retire hosts, as a change that has its own quorum.
    AgentManage, "agent:manage";
    /// Keys, roles, groups and policies.
    RightsRead, "rights:read";
    /// Ask for and consent to changes of rights; an administrator's alone.
    RightsManage, "rights:manage";
    /// Close the review of a break-glass run of somebody else.
    ReviewClose, "review:close";
}

/// The word is no permission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no permission; they are resource:verb, such as command:execute")]
pub struct NotAPermission(String);

impl FromStr for Permission {
    type Err = NotAPermission;

    fn from_str(text: &str) -> Result<Self, NotAPermission> {
        let mut all = Self::ALL.iter().copied();
        all.find(|permission| permission.as_str() == text)
            .ok_or_else(|| NotAPermission(text.to_string()))
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Permission {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Permission {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// The roles that every ledger has and that nobody can define anew.
pub const BUILT_IN_ROLES: [&str; 5] = ["admin", "write", "read", "auditor", "agent"];

/// The role of those who change rights.
pub const ADMIN: &str = "admin";

/// What a built-in role may do; nothing for another name.
///
/// `admin` may do everything. `write` keeps things running that others allowed: it asks for nothing.
/// `agent` is the accepted host's own; it reads its work and nothing else, by its key.
#[must_use]
pub fn built_in(role: &RoleName) -> Option<&'static [Permission]> {
    use Permission as P;
    const READ: &[Permission] = &[P::CommandRead, P::AgentRead, P::RightsRead];
    const WRITE: &[Permission] = &[
        P::CommandRead,
        P::CommandCancel,
        P::CommandRetry,
        P::AgentRead,
        P::RightsRead,
        P::ReviewClose,
    ];
    const AUDITOR: &[Permission] = &[
        P::CommandRead,
        P::OutputRead,
        P::AuditRead,
        P::AuditExport,
        P::AgentRead,
        P::RightsRead,
    ];
    match role.as_str() {
        ADMIN => Some(Permission::ALL),
        "write" => Some(WRITE),
        "read" => Some(READ),
        "auditor" => Some(AUDITOR),
        "agent" => Some(&[]),
        _custom => None,
    }
}

/// People, as a rule or a grant names them: `user:alice`, `group:sre`, `role:admin`,
/// `permission:command:approve`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Whom {
    /// One person.
    User(Principal),
    /// The members of a group.
    Group(GroupName),
    /// Whoever has a role.
    Role(RoleName),
    /// Whoever holds a permission, by whichever role.
    Permission(Permission),
}

/// The text names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names nobody: expected user:NAME, group:NAME, role:NAME or permission:NAME")]
pub struct NotAWhom(String);

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "user:{name}"),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Role(name) => write!(f, "role:{name}"),
            Self::Permission(name) => write!(f, "permission:{name}"),
        }
    }
}

impl FromStr for Whom {
    type Err = NotAWhom;

    fn from_str(text: &str) -> Result<Self, NotAWhom> {
        let nobody = || NotAWhom(text.to_string());
        let (sort, name) = text.split_once(':').ok_or_else(nobody)?;
        let whom = match sort {
            "user" => name.parse().ok().map(Self::User),
            "group" => name.parse().ok().map(Self::Group),
            "role" => name.parse().ok().map(Self::Role),
            "permission" => name.parse().ok().map(Self::Permission),
            _other => None,
        };
        whom.ok_or_else(nobody)
    }
}

impl Serialize for Whom {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Whom {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_execute_is_with_admin_alone() {
        for role in BUILT_IN_ROLES {
            let may = built_in(&role.parse().unwrap()).unwrap();
            for right in [Permission::CommandExecute, Permission::RightsManage] {
                assert_eq!(may.contains(&right), role == ADMIN, "{role} {right}");
            }
        }
    }

    #[test]
    fn people_are_named_with_their_sort() {
        for text in [
            "user:alice@example.com",
            "group:sre",
            "role:admin",
            "permission:output:read",
        ] {
            assert_eq!(text.parse::<Whom>().unwrap().to_string(), text);
        }
        for bad in ["alice", "group:", "team:sre", "permission:root", "user:a b"] {
            assert!(bad.parse::<Whom>().is_err(), "{bad}");
        }
    }
}
