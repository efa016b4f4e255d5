//! How a second key of this host takes the first one's place: on the disk.
//!
//! It owns the folders. `identity.next` is made beside `identity`, by whoever asks for a new key,
//! while the agent runs; from then on the agent alone writes in it. When the old key has said its
//! last word, `identity` becomes `identity.retired-…` and `identity.next` becomes `identity`. At
//! every moment in between a start finds out what is left to do, and no key is ever without its
//! journal. Retired journals stay, retired keys are removed. A key of which only the server says
//! that it counts no more is kept, in `identity.refused-…`. It must not sign or send anything.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use countersign_protocol::hash::KeyId;
use countersign_protocol::key::PublicKey;
use countersign_protocol::name::Time;
use ed25519_dalek::SigningKey;

use crate::key::{self, FOLDER, IdentityError, KEY_FILE, SEALING_FILE};
use crate::spool::Spool;
use crate::trust;

/// The identity that is to follow.
pub(crate) const NEXT_FOLDER: &str = "identity.next";

/// Where that one is put together.
const NEW_NEXT_FOLDER: &str = "identity.next.new";

/// What is left of an identity whose key has retired; a part of its key's id follows.
const RETIRED_PREFIX: &str = "identity.retired-";

/// What is left of an identity whose key the server takes no more, though it never said its last
/// word; with its key, because nothing proves what the server says.
const REFUSED_PREFIX: &str = "identity.refused-";

/// Digits of the key's id in those names: enough to tell a host's keys apart.
const ID_DIGITS: usize = 16;

/// Held while a key is made, so that two who ask get the same.
const LOCK: &str = "rotate.lock";

/// How a key came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Its last word is in the log: its own journal has the answer, and the receipt was believed.
    Retired,
    /// The server says so, and nobody can check it.
    Refused,
}

impl Ending {
    /// By the key's own journal.
    pub(crate) fn of(old: &Spool) -> Self {
        if old.is_retired() {
            Self::Retired
        } else {
            Self::Refused
        }
    }

    const fn prefix(self) -> &'static str {
        match self {
            Self::Retired => RETIRED_PREFIX,
            Self::Refused => REFUSED_PREFIX,
        }
    }
}

/// A key that is to follow the current one.
pub struct Next {
    /// The key.
    pub key: SigningKey,
    /// The one that it is to replace.
    pub replaces: PublicKey,
    /// Whether it was made just now.
    pub is_new: bool,
}

impl std::fmt::Debug for Next {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Next")
            .field("is_new", &self.is_new)
            .finish_non_exhaustive()
    }
}

/// Makes the identity that is to follow the one below `state`, or finds the one that waits. An agent
/// may run on the folder meanwhile; it takes the new one up by itself.
///
/// # Errors
/// There is no identity to follow, another call is at it, or the disk.
pub fn prepare(state: &Path, now: Time) -> Result<Next, IdentityError> {
    let (current, next) = (state.join(FOLDER), state.join(NEXT_FOLDER));
    if !fs::exists(current.join(KEY_FILE)).unwrap_or(false) {
        return Err(IdentityError::NoIdentity(state.to_owned()));
    }
    key::check_private(state)?;
    key::check_private(&current)?;
    let _lock = key::lock(state, LOCK)?;
    let (old, _) = key::read_key(&current.join(KEY_FILE))?;
    let is_new = !fs::exists(&next).unwrap_or(false);
    if is_new {
        // What was seen of the ledger must not be forgotten with the old key.
        let carry = |aside: &Path| carry_checkpoint(&current, aside);
        key::create(&state.join(NEW_NEXT_FOLDER), &next, now, carry)?;
    }
    let (key, _) = key::read_key(&next.join(KEY_FILE))?;
    let replaces = PublicKey::of(&old);
    Ok(Next {
        key,
        replaces,
        is_new,
    })
}

/// Whether a key waits to follow the current one.
pub(crate) fn is_prepared(state: &Path) -> bool {
    fs::exists(state.join(NEXT_FOLDER)).unwrap_or(false)
}

fn carry_checkpoint(from: &Path, to: &Path) -> io::Result<()> {
    match fs::read(from.join(trust::FILE)) {
        Ok(note) => key::replace_private(&to.join(trust::FILE), &note),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The old key has ended: its folder is put away, and `next` gets the name. What the old one
/// remembers of the ledger must not change meanwhile. Gives the old one's folder.
///
/// # Errors
/// The disk; a second call, or the next start, goes on where this one stopped.
pub(crate) fn complete(
    state: &Path,
    (old, ending): (&KeyId, Ending),
    next: &Spool,
) -> Result<PathBuf, IdentityError> {
    let current = state.join(FOLDER);
    let file = |source| IdentityError::File {
        path: current.clone(),
        source,
    };
    let away = put_away(state, old, ending)?;
    next.move_folder(&current).map_err(file)?;
    key::sync_folder(state).map_err(file)?;
    Ok(away)
}

/// Gives the folder of the current identity its last name. The private key is removed if the name
/// says that it has retired, and kept otherwise.
fn put_away(state: &Path, old: &KeyId, ending: Ending) -> Result<PathBuf, IdentityError> {
    let current = state.join(FOLDER);
    let file = |source| IdentityError::File {
        path: current.clone(),
        source,
    };
    let id: String = old.to_string().chars().take(ID_DIGITS).collect();
    let away = state.join(format!("{}{id}", ending.prefix()));
    if fs::exists(&current).map_err(file)? {
        carry_checkpoint(&current, &state.join(NEXT_FOLDER)).map_err(file)?;
        fs::rename(&current, &away).map_err(file)?;
        key::sync_folder(state).map_err(file)?;
    }
    remove_retired_keys(state).map_err(file)?;
    Ok(away)
}

/// At the start, under the agent's lock: does what an earlier process had begun.
pub(crate) fn settle(state: &Path) -> Result<(), IdentityError> {
    let (current, next) = (state.join(FOLDER), state.join(NEXT_FOLDER));
    let file = |source| IdentityError::File {
        path: current.clone(),
        source,
    };
    if fs::exists(&next).map_err(file)? {
        if fs::exists(&current).map_err(file)? {
            let spool = Spool::open(&current)?;
            if spool.is_retired() {
                put_away(state, &spool.birth().key_id, Ending::Retired)?;
            }
        }
        if !fs::exists(&current).map_err(file)? {
            fs::rename(&next, &current).map_err(file)?;
            key::sync_folder(state).map_err(file)?;
        }
    }
    remove_retired_keys(state).map_err(file)
}

fn remove_retired_keys(state: &Path) -> io::Result<()> {
    for entry in fs::read_dir(state)? {
        let entry = entry?;
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with(RETIRED_PREFIX)
        {
            for file in [KEY_FILE, SEALING_FILE] {
                match fs::remove_file(entry.path().join(file)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Ok(()) => key::sync_folder(&entry.path())?,
                    Err(_) => {}
                }
            }
        }
    }
    Ok(())
}
