//! Rows 2 and 19: the database goes back, or is another, while a server is away or stands still. Its
//! own checkpoint file, and the look before each batch, know better.

use countersign_protocol::event::Event;

use super::{copy, newcomer, original, rewrite, says};
use crate::servers::Server;
use crate::support::{Dev, psql, signal, text, until};

const ASK: [&str; 7] = ["request", "--on", "local", "--reason", "x", "--", "true"];

/// Somebody who remembers nothing asks for a command at a server.
fn asks(dev: &Dev, server: &str) -> std::process::Output {
    newcomer(dev, "bob", &[&["--server", server], &ASK[..]].concat())
}

fn entries(database: &super::Database) -> u64 {
    psql(&database.owner, "SELECT count(*) FROM entries")
        .parse()
        .unwrap()
}

#[test]
fn a_server_that_starts_again_on_another_past_refuses_and_says_why() {
    let dev = Dev::start();
    let keys = dev.data().join("ledger");
    let kept = dev.folder().path().join("kept-checkpoint");
    let past = copy(&dev, "past");
    let server = Server::start(&dev, &past.app, &keys, &kept, true);
    let before = entries(&past);
    for _each in 0..2 {
        let asked = asks(&dev, &server.url);
        assert!(asked.status.success(), "{}", text(&asked.stderr));
    }
    let known = entries(&past);
    drop(server);
    let refuses = |why: &str| {
        let mut server = Server::spawn(&dev, &past.app, &keys, &kept, false);
        until("the server has refused to start", || {
            server.child.try_wait().unwrap().is_some()
        });
        let code = server.child.wait().unwrap().code();
        assert_eq!(code, Some(super::TAMPERING));
        assert!(
            says(&server.log, why),
            "{:?}",
            std::fs::read_to_string(&server.log)
        );
    };
    let backup = |forger: &mut crate::forger::Forger| forger.cut(before);
    rewrite(&dev, &past, backup);
    refuses("the database is behind");

    // Who has no file of it serves what is left, and lets it grow past what was lost.
    let blank = dev.folder().path().join("blank");
    let evil = Server::start(&dev, &past.app, &keys, &blank, true);
    while entries(&past) <= known {
        let asked = asks(&dev, &evil.url);
        assert!(asked.status.success(), "{}", text(&asked.stderr));
    }
    drop(evil);
    refuses("another history");
}

#[test]
fn a_server_that_was_paused_while_the_past_was_written_anew_appends_nothing() {
    let dev = Dev::start();
    dev.through(&[], &["true"]);
    let keys = dev.data().join("ledger");
    let log = original(&dev);
    let at = |name: &str| dev.folder().path().join(name);
    let paused = Server::start(&dev, &log.app, &keys, &at("paused"), true);
    signal(paused.child.id(), "STOP");
    rewrite(&dev, &log, |forger| {
        let seq = forger.find(|event| matches!(event, Event::CommandAuthorized(_)));
        forger.say_anew(seq);
    });
    // Another one, without a memory, makes it longer than what the paused one knows.
    let evil = Server::start(&dev, &log.app, &keys, &at("blank"), true);
    let asked = asks(&dev, &evil.url);
    assert!(asked.status.success(), "{}", text(&asked.stderr));
    drop(evil);
    let before = entries(&log);

    signal(paused.child.id(), "CONT");
    let asked = asks(&dev, &paused.url);
    assert!(!asked.status.success(), "{}", text(&asked.stdout));
    until("the paused server has stopped its ledger", || {
        says(&paused.log, "the ledger stops")
    });
    assert!(says(&paused.log, "another history"));
    assert_eq!(entries(&log), before, "it wrote behind a forged past");
}
