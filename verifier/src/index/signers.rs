//! Every key that the log knows with its holder, as `ssh-keygen -Y verify` reads it.

use countersign_protocol::event::{Kind, Signatory};
use countersign_protocol::rights::{Holder, Rights};

/// One line a key, sorted. A revoked key stays: what it signed before stays true.
pub(super) fn write(rights: &Rights) -> String {
    let mut lines: Vec<String> = rights
        .keys()
        .filter_map(|(_, record)| {
            let who = identity(&record.holder)?;
            let namespaces = namespaces(&record.holder).join(",");
            let key = record.key.to_openssh();
            Some(format!("{who} namespaces=\"{namespaces}\" {key}\n"))
        })
        .collect();
    lines.sort_unstable();
    lines.concat()
}

/// Whom `ssh-keygen -I` asks for. Nobody for a key that signs no statement.
fn identity(holder: &Holder) -> Option<String> {
    match holder {
        Holder::Ledger => Some("ledger".to_owned()),
        Holder::Gateway => Some("gateway".to_owned()),
        Holder::Reserved => None,
        Holder::Person(name) => Some(format!("person:{name}")),
        Holder::Agent(name) => Some(format!("agent:{name}")),
    }
}

fn namespaces(holder: &Holder) -> Vec<&'static str> {
    let signs = |kind: &&Kind| match (kind.signatory(), holder) {
        (Signatory::Ledger, Holder::Ledger) => true,
        (Signatory::Person, Holder::Person(_) | Holder::Gateway) => true,
        (Signatory::Agent | Signatory::Newcomer, Holder::Agent(_)) => true,
        (Signatory::LedgerOrAgent, Holder::Ledger | Holder::Agent(_)) => true,
        (
            Signatory::Ledger
            | Signatory::Person
            | Signatory::Agent
            | Signatory::Newcomer
            | Signatory::LedgerOrAgent
            | Signatory::SignIn,
            Holder::Ledger
            | Holder::Gateway
            | Holder::Reserved
            | Holder::Person(_)
            | Holder::Agent(_),
        ) => false,
    };
    let kinds = Kind::ALL.iter().filter(signs);
    kinds.map(|kind| kind.namespace()).collect()
}
