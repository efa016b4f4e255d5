//! What a server says its reader may not read, against the rights of its own log: a server that lost a
//! text, or swapped it, could say so of any.

use std::collections::BTreeMap;

use countersign_protocol::fold::{State, Stream};
use countersign_protocol::hash::{CommandId, Digest};
use countersign_protocol::permission::Permission;
use countersign_verifier::{Findings, Named, Settled};

use super::source::Reader;

/// Where a text was named first: that decides who may read it.
#[derive(Debug)]
struct First {
    seq: u64,
    /// The command that it is of; of rights and of the ledger's own words there is none.
    command: Option<CommandId>,
    is_output: bool,
}

/// Texts that were not shown.
#[derive(Debug, Default)]
pub(super) struct Withheld(BTreeMap<Digest, First>);

impl Withheld {
    /// Takes what was not shown. Entries come in the order of the log.
    pub(super) fn take(&mut self, settled: &Settled) {
        for named in settled.withheld() {
            self.0
                .entry(named.blob.digest)
                .or_insert_with(|| First::of(named));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Finds those that the reader may read. It must be so by the rights that were audited and by those
    /// of now, for rights may have changed while the log was read.
    pub(super) fn judge(&self, reader: &Reader, audited: &State, findings: &mut Findings) {
        for (digest, first) in &self.0 {
            let readable = |state| first.may_be_read_by(reader, state, audited);
            if readable(audited) && readable(&reader.state) {
                let reason = format!(
                    "the server says that {} may not read the blob {digest}, and by the rights in its own log they may: it was lost or is hidden",
                    reader.who
                );
                findings.bad("withheld_from_reader", first.seq, reason);
            }
        }
    }
}

impl First {
    fn of(named: &Named) -> Self {
        let command = match named.stream {
            Some(Stream::Command(command)) => Some(command),
            Some(Stream::Rights) | None => None,
        };
        Self {
            seq: named.seq,
            command,
            is_output: named.is_output,
        }
    }

    /// Whether the server has to show it, as docs/API.md says it. Those whose approval counts, or counted,
    /// see a command too: that is left to the server.
    fn may_be_read_by(&self, reader: &Reader, rights: &State, commands: &State) -> bool {
        let Some(command) = self.command else {
            return true;
        };
        let own = commands
            .command(&command)
            .is_some_and(|command| *command.requester() == reader.who);
        let holds = |right| rights.rights().holds(&reader.who, right);
        own || (holds(Permission::CommandRead)
            && (!self.is_output || holds(Permission::OutputRead)))
    }
}
