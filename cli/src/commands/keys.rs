//! `key`: keys of people. Claimed by those who have them, added and revoked by administrators.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use countersign_protocol::hash::KeyId;
use countersign_protocol::key::{self, PublicKey};
use countersign_protocol::name::{Principal, Time};
use countersign_protocol::permission::Permission;
use countersign_protocol::rights::{ChangeBody, Rights};

use super::asking::{self, Why};
use super::{Globals, request};
use crate::acts::{ClaimFile, Client, keys_of};
use crate::failure::Failure;
use crate::sign::Signer;
use crate::{clock, console, describe, exit_code, render, shapes};

/// What to do with keys.
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// Let a key say whose it is, on the machine where it is; needs no server
    #[command(after_help = "Example, on dave's own machine:
  countersign key claim dave@example.com --key ~/.ssh/id_ed25519 --ledger \"$LEDGER\" -o dave.claim

The file holds the public key and its signed word, and nothing secret. Send it to an administrator,
and tell them the fingerprint over another way.")]
    Claim {
        /// The name that the key's owner will have; it is permanent
        name: Principal,
        /// Where to write it; standard output when left out
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Ask for a person's key to be added; the first one makes them known
    #[command(after_help = "Examples:
  countersign key add dave@example.com dave.claim --expires 365d --reason 'new on call'
  countersign key add dave@example.com dave.pub  # when its private half is at hand

Compare the fingerprint with what its owner tells you, over another way than the file came.")]
    Add {
        /// The person's name; it is permanent
        name: Principal,
        /// What `key claim` wrote, or the .pub file of a key whose private half is at hand:
        /// ssh-ed25519 or sk-ssh-ed25519@openssh.com
        file: PathBuf,
        /// How long it signs: 365d, 12h
        #[arg(long, value_name = "DURATION", value_parser = request::duration)]
        expires: Option<Duration>,
        #[command(flatten)]
        why: Why,
    },
    /// Ask for a key to be revoked; what it signed before stays verified
    #[command(after_help = "Examples:
  countersign key revoke SHA256:… --reason 'laptop stolen' --suspect-from 4711
  countersign key revoke dave@example.com  # when dave has one key in force")]
    Revoke {
        /// The key's fingerprint or id, or the name of somebody who has one key in force
        #[arg(value_name = "FINGERPRINT|NAME")]
        which: String,
        /// From this entry on its signatures are suspect: when it may have been stolen
        #[arg(long, value_name = "SEQ")]
        suspect_from: Option<u64>,
        #[command(flatten)]
        why: Why,
    },
    /// The keys that the ledger knows, also those that have ended
    List {
        /// Also those of hosts and of the ledger itself
        #[arg(long)]
        all: bool,
    },
    /// Ask for a new key of your own, and say how the old one goes
    #[command(after_help = "Example:
  ssh-keygen -t ed25519 -f ~/.ssh/countersign-2
  countersign key rotate ~/.ssh/countersign-2 --expires 365d

The old key goes on signing until it is revoked, so that nothing is lost on the way.")]
    Rotate {
        /// The new key: a private key file, or its .pub when an ssh-agent holds it
        file: PathBuf,
        /// How long it signs: 365d, 12h
        #[arg(long, value_name = "DURATION", value_parser = request::duration)]
        expires: Option<Duration>,
        #[command(flatten)]
        why: Why,
    },
}

/// Does it.
pub(super) async fn key(globals: &Globals, arguments: Arguments) -> Result<u8, Failure> {
    match arguments.action {
        Action::Claim { name, output } => claim(globals, name, output.as_deref()).await,
        Action::Add {
            name,
            file,
            expires,
            why,
        } => add(globals, name, &file, expires, &why).await,
        Action::Revoke {
            which,
            suspect_from,
            why,
        } => revoke(globals, &which, suspect_from, &why).await,
        Action::List { all } => list(globals, all).await,
        Action::Rotate { file, expires, why } => rotate(globals, &file, expires, &why).await,
    }
}

async fn claim(globals: &Globals, name: Principal, output: Option<&Path>) -> Result<u8, Failure> {
    let ledger = globals.pinned_ledger()?;
    let signer = globals.signer()?;
    let claim = ClaimFile::make(ledger, name, &signer).await?;
    let text = claim.to_text()?;
    let fingerprint = key::fingerprint(&claim.key.key_id());
    match output {
        None => console::print(&text)?,
        Some(path) => {
            tokio::fs::write(path, &text).await.map_err(|error| {
                Failure::usage(format!("cannot write {}: {error}", path.display()))
            })?;
            if globals.json {
                console::print_json(&shapes::claimed(&claim, path))?;
            } else {
                console::print(&format!("{}\n", path.display()))?;
            }
        }
    }
    console::note(&format!(
        "the key {fingerprint} says that it is {}'s.\nGive the file to an administrator (countersign key add {0} FILE), and this fingerprint over another way.",
        claim.principal
    ));
    Ok(exit_code::DONE)
}

fn ends(expires: Option<Duration>) -> Option<Time> {
    let us = u64::try_from(expires?.as_micros()).unwrap_or(u64::MAX);
    Some(clock::now().plus_micros(us))
}

/// Asks for a key. Whoever has it signs that it is this person's: here, when the private half is at
/// hand, or before, on their own machine (`key claim`).
async fn add(
    globals: &Globals,
    name: Principal,
    file: &Path,
    expires: Option<Duration>,
    why: &Why,
) -> Result<u8, Failure> {
    let text = asking::read(file).await?;
    let (client, body) = if text.trim_start().starts_with('{') {
        let ledger = globals.pinned_ledger()?;
        let claimed = ClaimFile::parse(&text, ledger, &name)?;
        let body = ChangeBody::KeyAdded {
            principal: name,
            key: claimed.key,
            claim: claimed.claim,
            expires_at: ends(expires),
        };
        (globals.connect().await?, body)
    } else {
        let (signer, key) = signer_of(file).await?;
        let client = globals.connect().await?;
        let body = claimed_here(&client, name, &signer, key, expires).await?;
        (client, body)
    };
    if let ChangeBody::KeyAdded { principal, key, .. } = &body {
        let fingerprint = key::fingerprint(&key.key_id());
        console::note(&format!(
            "the key {fingerprint} says that it is {principal}'s; compare that with what they tell you"
        ));
    }
    asking::ask(globals, &client, &body, None, why).await
}

async fn signer_of(file: &Path) -> Result<(Signer, PublicKey), Failure> {
    let signer = Signer::SshKeygen(file.to_owned());
    let key = signer.public_key().await.map_err(|error| {
        Failure::usage(format!("{} is not usable: {error}", file.display()))
            .hint("give the .pub file of an ssh-ed25519 key, or what `countersign key claim` wrote")
    })?;
    Ok((signer, key))
}

async fn claimed_here(
    client: &Client,
    principal: Principal,
    signer: &Signer,
    key: PublicKey,
    expires: Option<Duration>,
) -> Result<ChangeBody, Failure> {
    let claim = client.claim(&principal, signer).await.map_err(|failure| {
        failure.hint(format!(
            "is the private half elsewhere? There: countersign key claim {principal} --key FILE -o FILE"
        ))
    })?;
    Ok(ChangeBody::KeyAdded {
        principal,
        key,
        claim,
        expires_at: ends(expires),
    })
}

/// The key that a word on the command line stands for.
fn find(rights: &Rights, text: &str) -> Result<KeyId, Failure> {
    let by_print = rights
        .keys()
        .find(|(id, _)| key::fingerprint(id) == text || id.to_string() == text);
    if let Some((id, _)) = by_print {
        return Ok(*id);
    }
    let unknown = || {
        Failure::failed("unknown_key", format!("no key and no person is {text:?}"))
            .hint("countersign key list")
    };
    let name: Principal = text.parse().map_err(|_| unknown())?;
    let now = clock::now();
    let keys = keys_of(rights, &name);
    if keys.is_empty() {
        return Err(unknown());
    }
    let in_force = keys.iter().filter(|(_, record)| record.is_in_force(now));
    let in_force: Vec<KeyId> = in_force.map(|(id, _)| **id).collect();
    match in_force.as_slice() {
        [one] => Ok(*one),
        [] => Err(Failure::refused(
            "revoked_key",
            format!("{name} has no key in force"),
        )),
        several => {
            let prints: Vec<String> = several.iter().map(key::fingerprint).collect();
            let message = format!(
                "{name} has {} keys in force: {}",
                several.len(),
                prints.join(", ")
            );
            Err(Failure::usage(message).hint(format!(
                "give the fingerprint of one, or take all of them: countersign people leave {name}"
            )))
        }
    }
}

async fn revoke(
    globals: &Globals,
    text: &str,
    suspect_from: Option<u64>,
    why: &Why,
) -> Result<u8, Failure> {
    let client = globals.connect().await?;
    let view = client.rights().await?;
    let key_id = find(view.state.rights(), text)?;
    let body = ChangeBody::KeyRevoked {
        key_id,
        suspect_from,
    };
    console::note(&format!(
        "{} signs nothing any more once this is in effect",
        key::fingerprint(&key_id)
    ));
    asking::ask(globals, &client, &body, None, why).await
}

async fn list(globals: &Globals, all: bool) -> Result<u8, Failure> {
    let client = globals.connect().await?;
    let view = client.rights().await?;
    let items = shapes::keys(view.state.rights(), clock::now(), all);
    if globals.json {
        console::print_json(&shapes::ItemsShape { items, next: None })?;
    } else {
        console::print(&describe::keys(&items))?;
    }
    Ok(exit_code::DONE)
}

async fn rotate(
    globals: &Globals,
    file: &Path,
    expires: Option<Duration>,
    why: &Why,
) -> Result<u8, Failure> {
    let (signer, key) = signer_of(file).await?;
    let client = globals.connect().await?;
    let view = client.rights().await?;
    let me = view.person(&client.key_id())?;
    if key.key_id() == client.key_id() {
        return Err(Failure::usage("this is the key that you sign with now")
            .hint("make another one: ssh-keygen -t ed25519 -f FILE"));
    }
    if !view.state.rights().holds(&me, Permission::RightsManage) {
        return Err(Failure::refused(
            "not_permitted",
            "keys are added by administrators, and you are none",
        )
        .hint(format!(
            "countersign key claim {me} --key {} -o new.claim; then an administrator runs: countersign key add {me} new.claim",
            render::word(&file.display().to_string())
        )));
    }
    let body = claimed_here(&client, me, &signer, key, expires).await?;
    let code = asking::ask(globals, &client, &body, None, why).await?;
    console::note(&format!(
        "once it is in effect, sign with it (COUNTERSIGN_KEY={}) and let the old one go:\n    countersign key revoke {}",
        render::word(&file.display().to_string()),
        key::fingerprint(&client.key_id())
    ));
    Ok(code)
}
