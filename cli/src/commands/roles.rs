//! `role` and `group`: what a role means, who has it, and who is in which group.

use clap::{Args, Subcommand};
use countersign_protocol::name::{GroupName, Principal, RoleName};
use countersign_protocol::permission::{Permission, Whom};
use countersign_protocol::rights::ChangeBody;

use super::Globals;
use super::asking::{self, Why, in_order};
use crate::failure::Failure;
use crate::{console, describe, exit_code, shapes};

/// What to do with roles.
#[derive(Debug, Clone, Args)]
pub struct RoleArguments {
    #[command(subcommand)]
    action: RoleAction,
}

#[derive(Debug, Clone, Subcommand)]
enum RoleAction {
    /// All roles, what they may do and who has them
    List,
    /// Ask for a role to mean these permissions, and no others, from then on
    #[command(after_help = "Example:
  countersign role define operator command:read command:execute agent:read

Permissions: command:read command:execute command:approve command:cancel command:retry output:read
audit:read audit:export agent:read agent:manage rights:read review:close. The built-in roles (admin,
write, read, auditor, agent) stay what they are, and rights:manage is admin's alone.")]
    Define {
        /// Its name
        role: RoleName,
        /// All of its permissions
        #[arg(required = true)]
        permissions: Vec<Permission>,
        #[command(flatten)]
        why: Why,
    },
    /// Ask for a person or a group to have a role
    #[command(after_help = "Examples:
  countersign role grant operator --to dave@example.com
  countersign role grant operator --to group:sre")]
    Grant {
        /// Which
        role: RoleName,
        /// A person (NAME or user:NAME) or a group (group:NAME)
        #[arg(long, value_name = "WHO", value_parser = whom)]
        to: Whom,
        #[command(flatten)]
        why: Why,
    },
    /// Ask for a role to be taken from a person or a group
    #[command(after_help = "Example:
  countersign role revoke operator --from group:sre")]
    Revoke {
        /// Which
        role: RoleName,
        /// A person (NAME or user:NAME) or a group (group:NAME)
        #[arg(long, value_name = "WHO", value_parser = whom)]
        from: Whom,
        #[command(flatten)]
        why: Why,
    },
}

/// What to do with groups.
#[derive(Debug, Clone, Args)]
pub struct GroupArguments {
    #[command(subcommand)]
    action: GroupAction,
}

#[derive(Debug, Clone, Subcommand)]
enum GroupAction {
    /// All groups and who is in them
    List,
    /// Ask for people to join a group; the first one makes it
    #[command(after_help = "Example:
  countersign group add sre alice bob")]
    Add {
        /// Which
        group: GroupName,
        /// Who
        #[arg(required = true)]
        people: Vec<Principal>,
        #[command(flatten)]
        why: Why,
    },
    /// Ask for people to leave a group; the last one ends it
    #[command(after_help = "Example:
  countersign group remove sre bob")]
    Remove {
        /// Which
        group: GroupName,
        /// Who
        #[arg(required = true)]
        people: Vec<Principal>,
        #[command(flatten)]
        why: Why,
    },
}

/// `alice`, `user:alice`, `group:sre`
fn whom(text: &str) -> Result<Whom, String> {
    let named = text.split_once(':').map(|(sort, _)| sort);
    match named {
        Some("user" | "group") => text.parse().map_err(|error| format!("{error}")),
        Some("role" | "permission") => {
            Err("a role is given to a person or to a group: NAME, user:NAME or group:NAME".into())
        }
        Some(_) | None => text
            .parse()
            .map(Whom::User)
            .map_err(|error: countersign_protocol::name::NotAName| error.to_string()),
    }
}

/// Lists or changes roles.
pub(super) async fn role(globals: &Globals, arguments: RoleArguments) -> Result<u8, Failure> {
    let (body, why) = match arguments.action {
        RoleAction::List => return roles(globals).await,
        RoleAction::Define {
            role,
            mut permissions,
            why,
        } => {
            permissions.sort_by_key(|right| right.as_str());
            permissions.dedup();
            (ChangeBody::RoleDefined { role, permissions }, why)
        }
        RoleAction::Grant { role, to, why } => (ChangeBody::RoleGranted { role, to }, why),
        RoleAction::Revoke { role, from, why } => (ChangeBody::RoleRevoked { role, from }, why),
    };
    let client = globals.connect().await?;
    asking::ask(globals, &client, &body, None, &why).await
}

/// Lists or changes groups.
pub(super) async fn group(globals: &Globals, arguments: GroupArguments) -> Result<u8, Failure> {
    let none = Vec::new;
    let (body, why) = match arguments.action {
        GroupAction::List => return groups(globals).await,
        GroupAction::Add { group, people, why } => {
            let (add, remove) = (in_order(people), none());
            (ChangeBody::GroupChanged { group, add, remove }, why)
        }
        GroupAction::Remove { group, people, why } => {
            let (add, remove) = (none(), in_order(people));
            (ChangeBody::GroupChanged { group, add, remove }, why)
        }
    };
    let client = globals.connect().await?;
    asking::ask(globals, &client, &body, None, &why).await
}

async fn roles(globals: &Globals) -> Result<u8, Failure> {
    let client = globals.connect().await?;
    let items = shapes::roles(client.rights().await?.state.rights());
    if globals.json {
        console::print_json(&shapes::ItemsShape { items, next: None })?;
    } else {
        console::print(&describe::roles(&items))?;
    }
    Ok(exit_code::DONE)
}

async fn groups(globals: &Globals) -> Result<u8, Failure> {
    let client = globals.connect().await?;
    let items = shapes::groups(client.rights().await?.state.rights());
    if globals.json {
        console::print_json(&shapes::ItemsShape { items, next: None })?;
    } else if items.is_empty() {
        console::note("there is no group yet: countersign group add GROUP PERSON…");
    } else {
        console::print(&describe::groups(&items))?;
    }
    Ok(exit_code::DONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_a_person_and_a_role_is_given_to_no_role() {
        assert_eq!(whom("alice"), whom("user:alice"));
        assert_eq!(whom("group:sre").unwrap().to_string(), "group:sre");
        for bad in ["role:admin", "permission:audit:read", "group:", "a b", ""] {
            assert!(whom(bad).is_err(), "{bad:?}");
        }
    }
}
