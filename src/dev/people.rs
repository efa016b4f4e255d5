//! alice, bob and carol: three people with SSH keys, to try things with.

use std::fs;
use std::path::{Path, PathBuf};

use countersign_protocol::event::Administrator;
use countersign_protocol::key::PublicKey;
use countersign_protocol::name::Principal;
use countersign_protocol::policy::Policy;

use super::station::DevError;
use crate::keys;

/// Their names.
pub(super) const NAMES: [&str; 3] = ["alice", "bob", "carol"];

/// Administrators that a change of rights takes.
pub(super) const THRESHOLD: u32 = 2;

/// Approvals that a command takes: of [`POLICY`], and of the agent's own least.
pub(super) const APPROVALS: u32 = 2;

/// One of them.
#[derive(Debug, Clone)]
pub(super) struct Person {
    /// The name.
    pub(super) name: Principal,
    /// The private key file; `.pub` beside it.
    pub(super) key_file: PathBuf,
    /// The public key.
    pub(super) key: PublicKey,
}

/// The people whose keys lie in a folder; keys that are missing are made.
///
/// # Errors
/// A key cannot be written or read.
pub(super) fn people(folder: &Path) -> Result<Vec<Person>, DevError> {
    NAMES.iter().map(|name| person(folder, name)).collect()
}

fn person(folder: &Path, name: &str) -> Result<Person, DevError> {
    let key_file = folder.join(name);
    let public_file = folder.join(format!("{name}.pub"));
    if !key_file.exists() {
        keys::write_new(&key_file, &keys::generate(), name)?;
    }
    let key = PublicKey::of(&keys::read(&key_file)?);
    if !public_file.exists() {
        fs::write(&public_file, format!("{} {name}\n", key.to_openssh()))?;
    }
    Ok(Person {
        name: name.parse().map_err(|_| DevError::Name)?,
        key_file,
        key,
    })
}

/// All of them, as administrators of a new ledger.
#[must_use]
pub(super) fn administrators(people: &[Person]) -> Vec<Administrator> {
    people
        .iter()
        .map(|person| Administrator {
            principal: person.name.clone(),
            key: person.key.clone(),
        })
        .collect()
}

/// Each of them is an administrator, may ask and may approve; a command takes two who did not ask.
const POLICY: &str = "\
// The policy of `countersign dev`: alice, bob and carol have the role admin by genesis.
@id(\"dev\")
@approvals(\"2\")
@from(\"role:admin\")
permit (
    principal in Role::\"admin\",
    action == Action::\"command:execute\",
    resource
);
";

/// [`POLICY`].
///
/// # Errors
/// None: it is short.
pub(super) fn policy() -> Result<Policy, DevError> {
    Policy::new(POLICY.to_owned()).map_err(|_| DevError::Name)
}

/// The lines of an `allowed_signers` file.
#[must_use]
pub(super) fn allowed_signers(people: &[Person]) -> String {
    people
        .iter()
        .map(|person| format!("{} {}\n", person.name, person.key.to_openssh()))
        .collect()
}
