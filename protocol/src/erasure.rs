//! What may be erased: the texts of commands that are over and that no legal hold covers. PROTOCOL 3.
//!
//! Rights alone know holds and what was erased; what a command is, and who names a text, is asked
//! where it is held. Whoever holds fewer commands sees fewer reasons against; the ledger holds all
//! that a decision needs, and so does whoever audits a whole log.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::event::Erased;
use crate::fold::{Refusal, Stream};
use crate::hash::{CommandId, Digest};
use crate::lifecycle::Command;
use crate::rights::Rights;

/// Who names a text: the streams of the entries that do; none for an entry of no stream.
pub type Naming = BTreeMap<Digest, BTreeSet<Option<Stream>>>;

/// Why a text of rights stays.
const OF_RIGHTS: &str = "an entry about rights names it, and rights are read from it for ever";

/// Why a list of targets stays. It has names and digests in it, which stand in the log as well, and
/// without it nobody could tell whether a command is over.
const TARGETS: &str = "it is a list of targets, which holds no free text and which every later reading of the command needs";

/// Why a text of somebody else stays.
const NOT_NAMED: &str = "no entry of this command names it";

/// Says whether texts may be erased, as far as the commands are held.
///
/// `naming` has a line for each text of whom it is known who names it; the others are not asked.
///
/// # Errors
/// Why not.
pub fn may_erase<'a>(
    rights: &Rights,
    command: impl Fn(&CommandId) -> Option<&'a Command>,
    naming: &Naming,
    erased: Erased<'_>,
) -> Result<(), Refusal> {
    rights.may_redact(erased)?;
    may_touch(rights, command(&erased.command), &erased.command)?;
    for digest in erased.digests {
        if is_target_list(command(&erased.command), digest) {
            return Err(Refusal::NotErasable(TARGETS));
        }
        let Some(streams) = naming.get(digest) else {
            continue;
        };
        if !streams.contains(&Some(Stream::Command(erased.command))) {
            return Err(Refusal::NotErasable(NOT_NAMED));
        }
        for stream in streams {
            let Some(Stream::Command(id)) = stream else {
                return Err(Refusal::NotErasable(OF_RIGHTS));
            };
            may_touch(rights, command(id), id)?;
            if is_target_list(command(id), digest) {
                return Err(Refusal::NotErasable(TARGETS));
            }
        }
    }
    Ok(())
}

/// It is over, and no hold covers it.
fn may_touch(rights: &Rights, held: Option<&Command>, id: &CommandId) -> Result<(), Refusal> {
    let hold = held.map_or_else(
        || rights.hold_naming(id),
        |command| rights.hold_over(command),
    );
    if let Some(hold) = hold {
        return Err(Refusal::Held(hold.clone()));
    }
    if held.is_some_and(|command| !command.status().is_final()) {
        return Err(Refusal::NotSettled);
    }
    Ok(())
}

fn is_target_list(command: Option<&Command>, digest: &Digest) -> bool {
    command.is_some_and(|command| command.act().targets.list.digest == *digest)
}
