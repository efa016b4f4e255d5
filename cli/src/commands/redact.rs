//! `redact`: show exactly what would be erased, ask, and sign the change that asks for it.

use std::collections::BTreeSet;

use clap::{Args, ValueEnum};
use countersign_protocol::event::MAX_REDACTED;
use countersign_protocol::hash::{CommandId, Digest};
use countersign_protocol::name::LegalBasis;
use countersign_protocol::rights::{ChangeBody, Rights};
use countersign_protocol::short;

use super::{Globals, asking, decide};
use crate::acts::{Client, Found, Text, TextKind, counted, texts};
use crate::failure::Failure;
use crate::view::CommandView;
use crate::{console, exit_code, shapes};

/// What to erase.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  countersign redact 7K3M-9QPX --only output --reason 'a password in it' --legal-basis gdpr-17
  countersign redact 7K3M-9QPX --only all --reason 'request of 3 May' --legal-basis gdpr-17

Salt and content are deleted once another administrator has consented; digests, signatures and the
order of the log stay, and the log says who wanted it and why. Nothing brings a text back. Backups,
bundles that were exported and what others have copied hold it still.")]
pub struct Arguments {
    /// The command: XXXX-XXXX, the whole id, or at least its first 8 digits
    id: String,
    #[command(flatten)]
    what: What,
    /// Why; it goes into the log
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// The law or rule, as one word: gdpr-17
    #[arg(long, value_name = "WORD")]
    legal_basis: LegalBasis,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Which texts: at least one of the two is given.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = true)]
struct What {
    /// Texts of these kinds; several times, or with commas
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND")]
    only: Vec<Only>,
    /// This text; several times
    #[arg(long = "digest", value_name = "DIGEST")]
    digests: Vec<Digest>,
}

/// Kinds of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Only {
    /// What runs wrote
    Output,
    /// Standard input
    Stdin,
    /// Sealed secrets, with their names
    Secrets,
    /// What runs: a script, or a program and its arguments
    Script,
    /// The environment
    Env,
    /// Why people asked, agreed or refused
    Reason,
    /// All of it, and what hosts say besides
    All,
}

impl Only {
    const fn takes(self, kind: TextKind) -> bool {
        match self {
            Self::All => true,
            Self::Output => matches!(kind, TextKind::Output),
            Self::Stdin => matches!(kind, TextKind::Stdin),
            Self::Secrets => matches!(kind, TextKind::Secrets),
            Self::Script => matches!(kind, TextKind::Script),
            Self::Env => matches!(kind, TextKind::Env),
            Self::Reason => matches!(kind, TextKind::Reason),
        }
    }
}

/// The command that a word on the command line stands for.
pub(super) async fn command_of(client: &Client, id: &str) -> Result<CommandId, Failure> {
    match client.find(id).await? {
        Found::Command(id) => Ok(id),
        Found::Change(_) => Err(Failure::usage(
            "this is a change of rights: what rights rest on is never erased or held",
        )
        .hint("countersign list shows commands")),
    }
}

/// Texts of a command that are wanted and not erased already.
pub(super) fn wanted(
    view: &CommandView,
    rights: &Rights,
    only: &[Only],
    digests: &BTreeSet<Digest>,
) -> Vec<Text> {
    let is_wanted = |text: &Text| {
        only.iter().any(|only| only.takes(text.kind)) || digests.contains(&text.digest)
    };
    let mut texts = texts(&view.entries);
    texts.retain(|text| is_wanted(text) && rights.redacted(&text.digest).is_none());
    texts
}

/// Asks for texts to be erased: one change, or several of very many.
pub(super) async fn ask(
    client: &Client,
    command: CommandId,
    texts: &[Text],
    legal_basis: &LegalBasis,
    reason: &str,
) -> Result<Vec<shapes::JudgedShape>, Failure> {
    let mut digests: Vec<Digest> = texts.iter().map(|text| text.digest).collect();
    digests.sort_unstable();
    let mut changes: Vec<shapes::JudgedShape> = Vec::new();
    for some in digests.chunks(MAX_REDACTED) {
        let body = ChangeBody::BlobRedacted {
            command,
            digests: some.to_vec(),
            legal_basis: legal_basis.clone(),
        };
        let accepted = match client.change(&body, None, Some(reason)).await {
            Ok(accepted) => accepted,
            Err(failure) => {
                for asked in &changes {
                    let (id, seq) = (&asked.id, asked.seq);
                    console::note(&format!(
                        "a part of it is in the log: change {id}, entry {seq}"
                    ));
                }
                return Err(failure);
            }
        };
        changes.push(decide::shape(
            client.judged_change(&accepted.id, &accepted).await,
        )?);
    }
    Ok(changes)
}

/// Shows, asks, signs.
pub(super) async fn redact(globals: &Globals, arguments: Arguments) -> Result<u8, Failure> {
    decide::require_asking(arguments.yes)?;
    let client = globals.connect().await?;
    let id = command_of(&client, &arguments.id).await?;
    let view = client.fetch_command(&id).await?;
    let rights = client.rights().await?;
    let digests: BTreeSet<Digest> = arguments.what.digests.iter().copied().collect();
    let texts = wanted(&view, rights.state.rights(), &arguments.what.only, &digests);
    let stray = digests
        .iter()
        .find(|digest| texts.iter().all(|text| text.digest != **digest));
    if let Some(stray) = stray {
        return Err(Failure::usage(format!(
            "{stray} is no text of this command, was erased already, or is its list of targets, which holds no free text and stays"
        )));
    }
    if texts.is_empty() {
        return Err(Failure::failed(
            "nothing_to_erase",
            "this command has no such text, or it was erased already",
        ));
    }
    console::note(&format!("command    {}  {id}", short::short(&id)));
    console::note(&format!("erases     {}", counted(&texts)));
    for text in &texts {
        console::note(&format!(
            "           {}  {}, entry {}",
            text.digest,
            text.kind.as_str(),
            text.seq
        ));
    }
    decide::confirm(
        arguments.yes,
        "Ask for exactly these to be erased? Nothing brings them back.",
    )?;
    let changes = ask(
        &client,
        id,
        &texts,
        &arguments.legal_basis,
        &arguments.reason,
    )
    .await?;
    if globals.json {
        console::print_json(&shapes::ErasingShape {
            command: id.to_string(),
            texts: texts.iter().map(shapes::text).collect(),
            changes,
        })?;
        return Ok(exit_code::DONE);
    }
    say(&changes)?;
    Ok(exit_code::DONE)
}

/// Prints the changes, and what they wait for.
pub(super) fn say(changes: &[shapes::JudgedShape]) -> Result<(), Failure> {
    for change in changes {
        let id = change.id.parse().ok();
        let code = id.map_or_else(|| change.id.clone(), |id| short::short(&id));
        let status = decide::status(change);
        console::print(&format!("{code}  {}  {status}\n", change.id))?;
        console::note(&asking::consent_with(&code));
    }
    Ok(())
}
