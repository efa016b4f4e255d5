//! `rotate-key`: a person at the host asks for a new key, and waits until others have accepted it.
//!
//! It makes the key and its journal and tells what to compare. It must not write to a journal or
//! enrol: the agent that runs on the folder does, so each journal has one writer.

use std::io::Write as _;

use countersign_protocol::key::{PublicKey, fingerprint};
use serde::Serialize;

use crate::client::{Client, SignIn};
use crate::clock::Clock;
use crate::config::Config;
use crate::enrolment::until_accepted;
use crate::key;
use crate::station::AgentError;
use crate::succession::{self, Next};

/// How to ask.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct RotateKey {
    /// One JSON object a line on stdout: the key that waits, and the same once it is accepted.
    #[arg(long)]
    pub json: bool,
    /// Do not wait until administrators have accepted the key.
    #[arg(long)]
    pub no_wait: bool,
}

#[derive(Serialize)]
struct KeyShape {
    key_id: String,
    fingerprint: String,
}

#[derive(Serialize)]
struct NextShape<'a> {
    agent: &'a str,
    status: &'static str,
    key_id: String,
    fingerprint: String,
    replaces: KeyShape,
    accept: &'a str,
}

/// Makes a key that is to replace the current one, or finds the one that waits; tells what
/// administrators compare; and waits until they have accepted it.
///
/// # Errors
/// There is no key to replace, or the disk.
pub(crate) async fn rotate_key(config: &Config, how: RotateKey) -> Result<(), AgentError> {
    let next = succession::prepare(&config.state, Clock::system().now())?;
    let (new, old) = (PublicKey::of(&next.key).key_id(), next.replaces.key_id());
    let name = &config.name;
    let (shown, replaced) = (fingerprint(&new), fingerprint(&old));
    let accept = format!("countersign agents accept {name} --fingerprint {shown} --rotate");
    let tell = |status: &'static str| {
        let shape = NextShape {
            agent: name.as_str(),
            status,
            key_id: new.to_string(),
            fingerprint: shown.clone(),
            replaces: KeyShape {
                key_id: old.to_string(),
                fingerprint: replaced.clone(),
            },
            accept: &accept,
        };
        if how.json {
            let line = serde_json::to_string(&shape).unwrap_or_default();
            // A reader that is gone still gets the code.
            let _ = writeln!(std::io::stdout(), "{line}");
        }
    };
    tell("waiting");
    let made = if next.is_new { "was made" } else { "waits" };
    say(&format!(
        "A new key for {name} {made}: {shown}. It is to replace {replaced}.\n\
         The old one goes on until administrators accept the new one, and then through its grace:\n\
         \x20   {accept}"
    ));
    if !key::is_running(&config.state) {
        say(
            "No agent runs on this state folder. Start it: it asks for the new key to be accepted.",
        );
    }
    if how.no_wait {
        return Ok(());
    }
    wait(config, next).await?;
    tell("accepted");
    say(&format!(
        "The new key is accepted; from now on commands for {name} name it."
    ));
    Ok(())
}

async fn wait(config: &Config, next: Next) -> Result<(), AgentError> {
    let who = SignIn {
        agent: config.name.clone(),
        ledger: config.ledger,
        key: next.key,
    };
    let client = Client::new(&config.server, config.ca.as_ref(), who, Clock::system())?;
    until_accepted(&client).await;
    Ok(())
}

fn say(text: &str) {
    // Without a stderr there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{text}");
}
