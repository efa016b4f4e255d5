//! The schema, and the names by which Cedar knows people, commands and hosts.

use std::str::FromStr;
use std::sync::LazyLock;

use cedar_policy::{EntityId, EntityTypeName, EntityUid, Schema};

use crate::price::Deed;

/// Parsed once: these never change, and parsing a name takes longer than judging by it.
static VOCABULARY: LazyLock<Result<Vocabulary, String>> = LazyLock::new(Vocabulary::parse);

/// What Cedar calls things.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    pub(crate) schema: Schema,
    pub(crate) user: EntityTypeName,
    pub(crate) group: EntityTypeName,
    pub(crate) role: EntityTypeName,
    pub(crate) permission: EntityTypeName,
    pub(crate) command: EntityTypeName,
    pub(crate) agent: EntityTypeName,
    action: EntityTypeName,
}

/// The one command that there is to judge.
pub(crate) const REQUEST: &str = "request";

impl Vocabulary {
    /// The vocabulary of this build.
    ///
    /// # Errors
    /// The schema of this build is broken, which its tests exclude.
    pub(crate) fn get() -> Result<&'static Self, &'static str> {
        VOCABULARY.as_ref().map_err(String::as_str)
    }

    fn parse() -> Result<Self, String> {
        let name = |text| EntityTypeName::from_str(text).map_err(|error| error.to_string());
        let schema = Schema::from_cedarschema_str(crate::SCHEMA);
        Ok(Self {
            schema: schema.map_err(|error| error.to_string())?.0,
            user: name("User")?,
            group: name("Group")?,
            role: name("Role")?,
            permission: name("Permission")?,
            command: name("Command")?,
            agent: name("Agent")?,
            action: name("Action")?,
        })
    }

    pub(crate) fn action(&self, deed: Deed) -> EntityUid {
        one(&self.action, deed.as_str())
    }

    /// The deed of an action; nothing for one that the schema does not have.
    pub(crate) fn deed(&self, action: &EntityUid) -> Option<Deed> {
        let known = *action.type_name() == self.action;
        Deed::parse(action.id().unescaped()).filter(|_| known)
    }
}

/// `kind::"name"`.
pub(crate) fn one(kind: &EntityTypeName, name: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use countersign_protocol::permission::Permission;

    use super::*;

    #[test]
    fn the_schema_is_sound_and_knows_every_permission_and_action() {
        let vocabulary = Vocabulary::get().unwrap();
        let actions: BTreeSet<String> = vocabulary
            .schema
            .actions()
            .map(|action| action.id().unescaped().to_owned())
            .collect();
        let deeds: BTreeSet<String> = Deed::ALL
            .iter()
            .map(|deed| deed.as_str().to_owned())
            .collect();
        assert_eq!(actions, deeds);
        let listed = crate::SCHEMA.split("enum [").nth(1).unwrap();
        let listed = listed.split(']').next().unwrap();
        let listed: BTreeSet<&str> = listed
            .split(',')
            .map(|word| word.trim().trim_matches('"'))
            .collect();
        let all: BTreeSet<&str> = Permission::ALL.iter().map(|right| right.as_str()).collect();
        assert_eq!(listed, all);
    }
}
