//! `index.json`: what a bundle holds, as programs read it.

use countersign_protocol::checkpoint::Origin;
use countersign_protocol::fold::State;
use countersign_protocol::hash::{CommandId, LedgerId};
use countersign_protocol::lifecycle::Command;
use countersign_protocol::rights::Rights;
use countersign_protocol::visible::Escaper;
use countersign_protocol::{short, view};
use serde::Serialize;

use super::gather::{Gathered, MAX_HOSTS, Story, Word};
use crate::bundle::{Manifest, Selection};
use crate::report::Scope;

#[derive(Debug, Serialize)]
pub(super) struct Index {
    pub(super) ledger: LedgerId,
    pub(super) origin: Origin,
    pub(super) scope: Scope,
    /// Entries of the checkpoint.
    pub(super) size: u64,
    /// Entries in this bundle.
    pub(super) entries: u64,
    pub(super) last_entry_us: u64,
    pub(super) commands: Vec<CommandShape>,
    /// Older commands that the bundle holds and this index does not.
    pub(super) more_commands: u64,
    pub(super) people: Vec<PersonShape>,
    pub(super) changes: Vec<Word>,
    pub(super) more_changes: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct CommandShape {
    pub(super) id: String,
    pub(super) short: String,
    pub(super) status: String,
    pub(super) requester: String,
    pub(super) requested_us: u64,
    /// The command line; nothing where it is withheld.
    pub(super) runs: Option<String>,
    pub(super) cwd: Option<String>,
    pub(super) user: Option<String>,
    pub(super) break_glass: bool,
    pub(super) words: Vec<Word>,
    pub(super) more_words: u64,
    pub(super) hosts: Vec<HostShape>,
    pub(super) more_hosts: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct HostShape {
    pub(super) agent: String,
    /// What it ran with its own facts in it; left out where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) runs: Option<String>,
    pub(super) status: &'static str,
    pub(super) outcome: Option<&'static str>,
    pub(super) exit_code: Option<u8>,
    pub(super) signal: Option<u8>,
    pub(super) duration_us: Option<u64>,
    pub(super) started_seq: Option<u64>,
    /// The beginning, safe to show.
    pub(super) stdout: String,
    pub(super) stderr: String,
    /// There is more of it in the bundle, or it is withheld.
    pub(super) is_cut: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct PersonShape {
    pub(super) principal: String,
    pub(super) roles: Vec<String>,
    pub(super) keys: Vec<String>,
}

/// Everything but the commands.
pub(super) fn shape(manifest: &Manifest, gathered: &Gathered, state: &State, size: u64) -> Index {
    Index {
        ledger: manifest.ledger,
        origin: manifest.origin.clone(),
        scope: match manifest.selection {
            Selection::Whole => Scope::Whole,
            Selection::Commands(_) => Scope::Excerpt,
        },
        size,
        entries: gathered.entries(),
        last_entry_us: gathered.last_time_us,
        commands: Vec::new(),
        more_commands: gathered.more_commands,
        people: people(state.rights()),
        changes: gathered.changes.iter().cloned().collect(),
        more_changes: gathered.more_changes,
    }
}

pub(super) fn command(id: CommandId, story: &Story, state: &State) -> Option<CommandShape> {
    let command: &Command = state.command(&id)?;
    let all = command.executions.len();
    let hosts = command.executions.iter().take(MAX_HOSTS);
    let hosts: Vec<HostShape> = hosts
        .map(|(agent, execution)| {
            let row = view::execution_row(agent, execution);
            let output = story.output.get(&row.agent);
            let shown = |pick: fn(&super::gather::Shown) -> &Vec<u8>| {
                let mut escaper = Escaper::default();
                output.map_or_else(String::new, |output| {
                    escaper.push(pick(output)) + &escaper.finish()
                })
            };
            let targets = command.targets.as_ref();
            let line = targets.and_then(|list| list.line_of(agent));
            HostShape {
                runs: line.and_then(|(_, line)| story.runs_on(line)),
                stdout: shown(|output| &output.stdout),
                stderr: shown(|output| &output.stderr),
                is_cut: row.truncated || output.is_some_and(|output| output.is_cut),
                agent: row.agent,
                status: row.status,
                outcome: row.outcome,
                exit_code: row.exit_code,
                signal: row.signal,
                duration_us: row.duration_us,
                started_seq: row.started_seq,
            }
        })
        .collect();
    Some(CommandShape {
        id: id.to_string(),
        short: short::short(&id),
        status: command.status().to_string(),
        requester: command.requester().to_string(),
        requested_us: command.requested.time.as_micros(),
        runs: story.runs.clone(),
        cwd: story.cwd.clone(),
        user: command.act().user.as_ref().map(ToString::to_string),
        break_glass: command.act().break_glass,
        words: story.words.clone(),
        more_words: story.more_words,
        more_hosts: u64::try_from(all - hosts.len()).unwrap_or(u64::MAX),
        hosts,
    })
}

/// Everybody with a key, as things stand at the end.
fn people(rights: &Rights) -> Vec<PersonShape> {
    let of = |name: &countersign_protocol::name::Principal| {
        let keys = rights
            .keys()
            .filter(|(_, record)| record.holder.person() == Some(name));
        let mut keys: Vec<String> = keys
            .map(|(id, _)| countersign_protocol::key::fingerprint(id))
            .collect();
        keys.sort_unstable();
        PersonShape {
            principal: name.to_string(),
            roles: rights
                .roles_of(name)
                .iter()
                .map(ToString::to_string)
                .collect(),
            keys,
        }
    };
    rights.people().into_iter().map(of).collect()
}

/// An index of nothing.
#[cfg(test)]
pub(super) fn empty() -> Index {
    Index {
        ledger: LedgerId::new([1; 32]),
        origin: "ledger.example.com".parse().unwrap(),
        scope: Scope::Whole,
        size: 0,
        entries: 0,
        last_entry_us: 0,
        commands: Vec::new(),
        more_commands: 0,
        people: Vec::new(),
        changes: Vec::new(),
        more_changes: 0,
    }
}
