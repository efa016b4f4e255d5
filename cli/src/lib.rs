//! The client verbs: ask, approve, follow, show. Whatever is shown was verified from bytes first.
//!
//! | room | owns |
//! |---|---|
//! | [`acts`] | what a person can do, as calls; the verbs and any embedder use it |
//! | [`audit`] | the log told as rows for an auditor: pure, no server |
//! | [`commands`] | the command line: one file a verb |
//! | [`client`] [`events`] [`tls`] | the only code that talks HTTP, and whom it trusts |
//! | [`trust`] [`home`] | the pinned ledger, and the checkpoint that is remembered |
//! | [`streams`] [`replay`] [`view`] | a server's bytes turned into what is provably so |
//! | [`alike`] [`difference`] | a command on many hosts in a few lines: who came out how, who said the same, and what differs |
//! | [`playback`] [`cast`] | output with its timing: when each piece is shown, and as asciicast |
//! | [`sign`] | `ssh-keygen -Y sign`, or a key in memory |
//! | [`render`] [`describe`] [`shapes`] [`console`] | escaping, words for people, JSON for scripts, the two streams |
//! | [`exit_code`] [`failure`] | how a verb ends |
//! | [`clock`] [`entropy`] | time and randomness |
//!
//! A server is believed nothing: its answers are checked against the pinned ledger id, and
//! statements are built here from verified bytes. `docs/API.md` has the interface.
#![forbid(unsafe_code)]

pub mod acts;
pub mod alike;
pub mod audit;
pub mod cast;
pub mod client;
pub mod clock;
pub mod commands;
pub mod console;
pub mod describe;
pub mod difference;
pub mod entropy;
pub mod events;
pub mod exit_code;
pub mod failure;
pub mod home;
pub mod playback;
pub mod render;
pub mod replay;
pub mod shapes;
pub mod sign;
pub mod streams;
pub mod tls;
pub mod trust;
pub mod verify;
pub mod view;

pub use commands::{Globals, Lists, Verb, VerifyArguments, report_usage, run, verify};
