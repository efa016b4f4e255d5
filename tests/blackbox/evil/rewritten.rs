//! The past rewritten under real processes. Whoever remembers or signed something finds it, each by
//! its own means.
//!
//! | who | by what |
//! |---|---|
//! | the server that runs | what it committed itself |
//! | a host, a client | the newest checkpoint that it verified |
//! | a verifier who was never here | what people and hosts signed, and the roots that they had seen |
//!
//! A second server without a memory, as the operator would start it, serves the rewritten log.

use std::fs;
use std::sync::atomic::Ordering;

use countersign_protocol::event::Event;

use super::{TAMPERING, original, rewrite, says};
use crate::agents::agent_of;
use crate::forger::Forger;
use crate::outages::behind_a_proxy;
use crate::servers::Server;
use crate::support::{Dev, signal, text, until};

/// What the operator does to the log, and what comes of it.
struct Deed {
    does: fn(&mut Forger),
    /// Whether a server without a memory serves what is left: it folds what it serves.
    is_served: bool,
    /// The code of what a client says that was here before.
    a_client_says: &'static str,
    /// Whether a host that is shown a grant keeps two histories as evidence.
    a_host_keeps_evidence: bool,
    /// A word of the reason that a verifier without a memory is given; none: it sees nothing.
    a_stranger_finds: Option<&'static str>,
}

impl Deed {
    /// Another past that folds: two histories, of which those who remember one keep both.
    const REWRITTEN: Self = Self {
        does: |_forger| {},
        is_served: true,
        a_client_says: "fork",
        a_host_keeps_evidence: true,
        a_stranger_finds: None,
    };
}

/// The ledger's own word on the first command, said anew.
fn says_anew(forger: &mut Forger) {
    let seq = forger.find(|event| matches!(event, Event::CommandAuthorized(_)));
    forger.say_anew(seq);
}

/// Somebody else has approved.
fn names_another(forger: &mut Forger) {
    forger.name_another();
}

/// The authorization stood before the approvals.
fn dates_back(forger: &mut Forger) {
    forger.date_back();
}

/// The command has written nothing.
fn drops_the_output(forger: &mut Forger) {
    let seq = forger.find(|event| matches!(event, Event::ExecutionOutput(_)));
    forger.entries.remove(usize::try_from(seq).unwrap());
    forger.seal_from(seq);
}

/// The command has not ended yet.
fn cuts(forger: &mut Forger) {
    let seq = forger.find(|event| matches!(event, Event::ExecutionCompleted(_)));
    let size = forger.sizes().into_iter().filter(|size| *size <= seq).max();
    forger.cut(size.unwrap());
}

fn forks_kept(dev: &Dev) -> usize {
    let folder = dev.data().join("agent/state/identity");
    let names = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name());
    names
        .filter(|name| name.to_string_lossy().starts_with("fork-"))
        .count()
}

/// A command runs, another is granted while its host is away, and then the operator rewrites what
/// was. Everybody is asked.
fn is_found(deed: &Deed) {
    let (dev, proxy) = behind_a_proxy();
    let ran = dev.through(&[], &["echo", "hello"]);
    let (ran, keys) = (ran["id"].as_str().unwrap(), dev.data().join("ledger"));
    proxy.wire.away.store(true, Ordering::SeqCst);
    signal(agent_of(&dev), "KILL");
    let mark = dev.folder().path().join("ran");
    dev.approve(&dev.request(&[], &["touch", mark.to_str().unwrap()]));
    rewrite(&dev, &original(&dev), deed.does);

    // The server that has committed another past appends nothing to this one.
    let head = ["request", "--on", "local", "--reason", "x", "--", "true"];
    let asked = dev.verb("bob", &head);
    assert!(!asked.status.success(), "{}", text(&asked.stdout));
    let log = dev.folder().path().join("stderr");
    until("the server has stopped its ledger", || {
        says(&log, "the ledger stops")
    });

    let database = ["verify", "--database", dev.env("DATABASE_URL")];
    assert_eq!(dev.json("alice", TAMPERING, &database)["ok"], false);
    a_stranger_is_asked(&dev, deed);

    let blank = dev.folder().path().join("blank");
    let evil = Server::spawn(&dev, dev.env("DATABASE_URL"), &keys, &blank, true);
    if deed.is_served {
        until("the server is ready", || evil.is_ready());
        let shown = dev.json("alice", TAMPERING, &["--server", &evil.url, "show", ran]);
        assert_eq!(shown["error"]["code"], deed.a_client_says, "{shown}");
        proxy.to(&evil.url);
        proxy.wire.away.store(false, Ordering::SeqCst);
        if deed.a_host_keeps_evidence {
            until("the host has kept both histories", || forks_kept(&dev) > 0);
        }
    } else {
        until("the server has seen it", || {
            says(&evil.log, "does not stand")
        });
        assert!(!evil.is_ready());
    }
    assert!(!mark.exists(), "it ran by a forged log");
}

/// Somebody who was never here and believes no server: what people and hosts signed speaks.
fn a_stranger_is_asked(dev: &Dev, deed: &Deed) {
    let (code, report) = super::stranger(dev, &original(dev));
    match deed.a_stranger_finds {
        Some(word) => {
            assert_eq!(code, Some(TAMPERING), "{report}");
            let reason = report["first_bad"]["reason"].as_str().unwrap();
            assert!(reason.contains(word), "{reason}");
        }
        // The end of a log that nobody remembers is wherever its checkpoint says: record it.
        None => assert_eq!(report["ok"], true, "{report}"),
    }
}

#[test]
fn what_the_ledger_says_anew_is_found() {
    is_found(&Deed {
        does: says_anew,
        a_stranger_finds: Some("another history"),
        ..Deed::REWRITTEN
    });
}

#[test]
fn an_approval_in_anothers_name_is_found() {
    is_found(&Deed {
        does: names_another,
        is_served: false,
        a_stranger_finds: Some("signature"),
        ..Deed::REWRITTEN
    });
}

#[test]
fn an_authorization_that_is_dated_back_is_found() {
    is_found(&Deed {
        does: dates_back,
        a_stranger_finds: Some("time is before"),
        ..Deed::REWRITTEN
    });
}

#[test]
fn output_that_was_dropped_is_found() {
    is_found(&Deed {
        does: drops_the_output,
        is_served: false,
        a_stranger_finds: Some("chunk"),
        ..Deed::REWRITTEN
    });
}

#[test]
fn an_end_that_was_cut_off_is_found_by_who_remembers_it() {
    is_found(&Deed {
        does: cuts,
        a_client_says: "shrunk",
        a_host_keeps_evidence: false,
        ..Deed::REWRITTEN
    });
}
