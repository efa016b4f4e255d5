//! `token`: API tokens for programs that ask on somebody's behalf. Shown once, held as a hash.

use std::time::Duration;

use clap::{Args, Subcommand};
use countersign_protocol::name::{Label, Principal, RoleName, RuleName, TokenId};
use countersign_protocol::permission::Permission;
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::short;
use countersign_protocol::token::TokenSecret;

use super::asking::{self, Why, in_order};
use super::{Globals, decide, request};
use crate::acts::Judged;
use crate::failure::Failure;
use crate::{clock, console, describe, entropy, exit_code, render, shapes};

/// Random bytes of a name that nobody gave: enough that no two tokens of a ledger share one.
const NAME_BYTES: usize = 5;

/// What to do with tokens.
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// Draw a token, show it once, and ask for it to be issued
    Issue(Issue),
    /// All tokens, also those that have ended; never their secrets
    List,
    /// Ask for a token to stand for nobody any more
    #[command(after_help = "Example:
  countersign token revoke ci-deploy --reason 'leaked in a build log'")]
    Revoke {
        /// Its name, as in `token list`
        token: TokenId,
        #[command(flatten)]
        why: Why,
    },
}

#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  countersign token issue -r read --for ci@example.com --ttl 90d
  countersign token issue -p command:execute --for ci@example.com --ttl 30d --label env=test --command uptime

The secret is on standard output, once, and nowhere else; it works when a second administrator has
consented. A token asks and reads. It never approves, reviews or changes rights.")]
struct Issue {
    /// A role whose permissions it has; several times
    #[arg(short, long = "role", value_name = "ROLE")]
    roles: Vec<RoleName>,
    /// A permission that it has beside them; several times
    #[arg(short, long = "permission", value_name = "PERMISSION")]
    permissions: Vec<Permission>,
    /// For whom it asks: the name in the log, and the requester who never approves
    #[arg(long = "for", value_name = "PRINCIPAL")]
    asks_for: Principal,
    /// How long it works: 90d, 12h
    #[arg(long, value_name = "DURATION", value_parser = request::duration)]
    ttl: Duration,
    /// It asks only for hosts that have one of these labels; several times
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<Label>,
    /// It asks only for these programs, as requests write them; several times
    #[arg(long = "command", value_name = "PROGRAM")]
    commands: Vec<RuleName>,
    /// Its public name; drawn when left out
    #[arg(long, value_name = "ID")]
    name: Option<TokenId>,
    #[command(flatten)]
    why: Why,
}

/// Issues, lists or revokes.
pub(super) async fn token(globals: &Globals, arguments: Arguments) -> Result<u8, Failure> {
    match arguments.action {
        Action::Issue(arguments) => issue(globals, arguments).await,
        Action::List => list(globals).await,
        Action::Revoke { token, why } => {
            let client = globals.connect().await?;
            let body = ChangeBody::TokenRevoked { token };
            asking::ask(globals, &client, &body, None, &why).await
        }
    }
}

fn drawn_name() -> Result<TokenId, Failure> {
    let name = format!("token-{}", hex::encode(entropy::random::<NAME_BYTES>()));
    name.parse()
        .map_err(|error| Failure::failed("token_name", format!("{error}")))
}

async fn issue(globals: &Globals, arguments: Issue) -> Result<u8, Failure> {
    if arguments.roles.is_empty() && arguments.permissions.is_empty() {
        return Err(Failure::usage("a token that may do nothing is of no use")
            .hint("give it a role (-r read) or a permission (-p command:execute)"));
    }
    let client = globals.connect().await?;
    let token = match arguments.name {
        Some(name) => name,
        None => drawn_name()?,
    };
    let ttl_us = u64::try_from(arguments.ttl.as_micros()).unwrap_or(u64::MAX);
    let expires_at = clock::now().plus_micros(ttl_us);
    let mut permissions = arguments.permissions;
    permissions.sort_by_key(|right| right.as_str());
    permissions.dedup();
    let secret = TokenSecret::new(token.clone(), entropy::random());
    let body = ChangeBody::TokenIssued {
        token: token.clone(),
        principal: arguments.asks_for,
        secret: secret.digest(),
        roles: in_order(arguments.roles),
        permissions,
        labels: in_order(arguments.labels),
        commands: in_order(arguments.commands),
        expires_at,
    };
    let reason = arguments.why.reason.as_deref();
    let accepted = client.change(&body, None, reason).await?;
    // The secret is shown whatever else fails from here on: it cannot be had again.
    let judged = client.judged_change(&accepted.id, &accepted).await;
    let change = shapes::JudgedShape::from(&judged);
    let code = short::short(&accepted.id);
    // Nobody but another administrator's consent brings it into force, as far as is known.
    let waits = change.status.is_none_or(|status| status == "requested");
    if globals.json {
        console::print_json(&shapes::IssuedShape {
            change,
            secret: secret.reveal(),
            token: token.to_string(),
            expires_us: expires_at.as_micros(),
        })?;
        return Ok(unread(judged));
    }
    console::note(&format!(
        "token {token}, until {}. This is the only time that it is shown:",
        render::time(expires_at)
    ));
    console::print(&format!("{}\n", secret.reveal()))?;
    if waits {
        console::note(&format!(
            "it works once a second administrator consents: countersign approve {code}"
        ));
    }
    Ok(unread(judged))
}

/// Says what could not be read back, beside the secret and behind it. The exit code for that.
fn unread(judged: Judged) -> u8 {
    match decide::shape(judged) {
        Ok(_told) => exit_code::DONE,
        Err(failure) => failure.exit,
    }
}

async fn list(globals: &Globals) -> Result<u8, Failure> {
    let client = globals.connect().await?;
    let view = client.rights().await?;
    // When a token was used is the server's word and not in the log; without it the list stands.
    let uses = client.token_uses().await.unwrap_or_default();
    let items = shapes::tokens(view.state.rights(), &uses, clock::now());
    if globals.json {
        console::print_json(&shapes::ItemsShape { items, next: None })?;
    } else if items.is_empty() {
        console::note("no API token was issued yet");
    } else {
        console::print(&describe::tokens(&items))?;
    }
    Ok(exit_code::DONE)
}
