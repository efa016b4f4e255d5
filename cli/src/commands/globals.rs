//! The options that every verb takes, and the connection they make.

use std::path::PathBuf;

use clap::Args;
use countersign_protocol::checkpoint::{Origin, VerifierKey};
use countersign_protocol::hash::LedgerId;
use countersign_protocol::name::Principal;

use crate::acts::{Client, Connection};
use crate::failure::Failure;
use crate::home;
use crate::sign::Signer;
use crate::tls::Way;
use crate::trust::Pins;

/// Where the ledger is, which one it must be, and who signs. `dev.env` of `countersign dev` sets
/// them all but the key.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection, for those who talk to a server")]
pub struct Globals {
    /// One JSON object on stdout instead of text, errors too
    #[arg(long, global = true)]
    pub json: bool,
    /// The server: http://HOST:PORT or https://HOST
    #[arg(long, global = true, env = "COUNTERSIGN_SERVER", value_name = "URL")]
    pub server: Option<String>,
    /// The file of the CA that the server's certificate must be of, PEM; the system's CAs do not
    /// count then
    #[arg(long, global = true, env = "COUNTERSIGN_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Speak http to another machine, where whoever is on the way can read along
    #[arg(long, global = true, env = "COUNTERSIGN_INSECURE_HTTP")]
    pub insecure_http: bool,
    /// The pinned ledger: 64 hex digits
    #[arg(long, global = true, env = "COUNTERSIGN_LEDGER", value_name = "ID")]
    pub ledger: Option<LedgerId>,
    /// The pinned verifier key of the ledger's checkpoints
    #[arg(long, global = true, env = "COUNTERSIGN_VKEY", value_name = "KEY")]
    pub vkey: Option<VerifierKey>,
    /// The pinned origin line of the ledger's checkpoints
    #[arg(long, global = true, env = "COUNTERSIGN_ORIGIN", value_name = "ORIGIN")]
    pub origin: Option<Origin>,
    /// The witnesses that must have signed what the ledger shows, and how many of them, as C2SP
    /// tlog-policy; `witness-policy` in the ledger's folder of the state home when left out
    #[arg(
        long,
        global = true,
        env = "COUNTERSIGN_WITNESS_POLICY",
        value_name = "FILE"
    )]
    pub witness_policy: Option<PathBuf>,
    /// The key that signs: a private ssh-ed25519 key file, or its .pub when an ssh-agent holds it
    #[arg(long, global = true, env = "COUNTERSIGN_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Your name in the ledger; only needed for a first sign-in with a key that was added later
    #[arg(
        long,
        global = true,
        env = "COUNTERSIGN_PRINCIPAL",
        value_name = "NAME"
    )]
    pub principal: Option<Principal>,
}

fn missing(what: &str, how: &str) -> Failure {
    Failure::usage(what).hint(how)
}

impl Globals {
    /// The pinned ledger.
    ///
    /// # Errors
    /// None is named: exit code 2.
    pub fn pinned_ledger(&self) -> Result<LedgerId, Failure> {
        self.ledger.ok_or_else(|| {
            missing(
                "no ledger is pinned, so nothing that a server says could be checked",
                "give --ledger ID or set COUNTERSIGN_LEDGER; get the id from whoever set the ledger up, not from the server",
            )
        })
    }

    /// Who signs.
    ///
    /// # Errors
    /// No key is named: exit code 2.
    pub fn signer(&self) -> Result<Signer, Failure> {
        let key = self.key.clone().ok_or_else(|| {
            missing(
                "no key is named to sign with",
                "give --key FILE or set COUNTERSIGN_KEY; ssh-keygen -t ed25519 makes one",
            )
        })?;
        Ok(Signer::SshKeygen(key))
    }

    /// The connection that these options describe.
    ///
    /// # Errors
    /// One that is needed is missing: exit code 2.
    pub fn connection(&self) -> Result<Connection, Failure> {
        let server = self.server.clone().ok_or_else(|| {
            missing(
                "no server is named",
                "give --server URL or set COUNTERSIGN_SERVER; `countersign dev` writes all settings to dev.env",
            )
        })?;
        Ok(Connection {
            server,
            way: Way {
                ca: self.ca.clone(),
                insecure_http: self.insecure_http,
            },
            pins: Pins {
                ledger: self.pinned_ledger()?,
                vkey: self.vkey.clone(),
                origin: self.origin.clone(),
            },
            state_home: home::find()?,
            signer: self.signer()?,
            principal: self.principal.clone(),
        })
    }

    /// Connects.
    ///
    /// # Errors
    /// As [`Globals::connection`] and [`Client::connect`].
    pub async fn connect(&self) -> Result<Client, Failure> {
        let client = Client::connect(&self.connection()?).await?;
        client
            .demand_witnesses(self.witness_policy.as_deref())
            .await?;
        Ok(client)
    }
}
