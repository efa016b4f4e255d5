//! A hostile operator: owns the database, the ledger's keys and its files, and tries what
//! `ATTACKS.md` has for him, against the real server, agent, client and verifier.
//!
//! | row | what he does | who finds it, in which test |
//! |---|---|---|
//! | 1 | cuts the end | `rewritten::an_end_that_was_cut_off_is_found_by_who_remembers_it`; rows alone: `tampering::cutting_the_last_rows_with_their_checkpoints_is_found` |
//! | 2 | restores the database, also to a log that then grows past the lost end | `servers::a_server_that_starts_again_on_another_past_refuses_and_says_why`; one of `dev`: `tampering::a_database_restored_from_a_backup_is_not_served` |
//! | 3 | shows two views | `views::{of_two_views_a_witness_signs_one_and_keeps_both, what_was_signed_in_one_view_does_not_stand_in_the_other}`; to one host and one client: `rewritten::*` |
//! | 4 | changes, deletes, swaps, hides rows, guards off | `rows::whatever_a_superuser_does_to_the_rows_is_named_by_its_entry`; a byte and a list: `tampering::{a_changed_byte_is_found_and_its_entry_named, a_changed_list_is_found}` |
//! | 5 | signs the past anew | `rewritten::{what_the_ledger_says_anew_is_found, an_approval_in_anothers_name_is_found}` |
//! | 6 | dates back | `rewritten::an_authorization_that_is_dated_back_is_found` |
//! | 16 | steals a host's key and journal | `keys::the_thief_of_a_hosts_key_forks_its_chain_and_is_suspect_when_it_is_revoked` |
//! | 17 | drops output | `rewritten::output_that_was_dropped_is_found` |
//! | 19 | changes the past while a server stands still | `servers::a_server_that_was_paused_while_the_past_was_written_anew_appends_nothing`; two honest ones at once: `crate::pauses`, `crate::servers::two_servers_on_one_database_lose_and_double_nothing_under_kills` |
//! | 20 | swaps, erases or loses a text, and signs the redaction himself | `rows::{a_text_that_was_swapped_erased_or_lost_is_told_apart, a_redaction_that_the_ledger_signs_alone_does_not_stand}` |
//! | 21 | hands out a bundle that proves something else | `files::each_way_in_which_a_bundle_proves_nothing_has_its_own_name` |
//!
//! Nobody believes him but who has no memory and asks nobody else: where a test can, it shows that too.

mod files;
mod keys;
mod rewritten;
mod rows;
mod servers;
mod views;

use std::fs;
use std::path::Path;
use std::process::Output;

use countersign::keys::LedgerKeys;
use serde_json::Value;
use sqlx::PgPool;

use crate::forger::Forger;
use crate::support::{Dev, psql, text};

/// What a client exits with when the past is another.
const TAMPERING: i32 = 3;

/// A database, as its owner and as a server.
struct Database {
    owner: String,
    app: String,
}

/// The ledger's own.
fn original(dev: &Dev) -> Database {
    Database {
        owner: dev.env("COUNTERSIGN_OWNER_DATABASE_URL").to_owned(),
        app: dev.env("DATABASE_URL").to_owned(),
    }
}

/// A copy of it as it is now. Servers lose their connections for a moment, and come back.
fn copy(dev: &Dev, name: &str) -> Database {
    let from = original(dev);
    let of = |url: &str, name: &str| url.replace("/countersign?", &format!("/{name}?"));
    let postgres = of(&from.owner, "postgres");
    assert_ne!(postgres, from.owner);
    // Each by itself: a database is copied in no transaction, and while nobody is in it.
    for step in [
        "ALTER DATABASE countersign ALLOW_CONNECTIONS false",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'countersign'",
        &format!("CREATE DATABASE {name} TEMPLATE countersign"),
        "ALTER DATABASE countersign ALLOW_CONNECTIONS true",
    ] {
        psql(&postgres, step);
    }
    Database {
        owner: of(&from.owner, name),
        app: of(&from.app, name),
    }
}

/// Rewrites the log of a database with the keys of the ledger.
fn rewrite(dev: &Dev, database: &Database, does: impl FnOnce(&mut Forger)) {
    forge(dev, database, async |forger, owner| {
        does(forger);
        forger.put().await;
        // A server makes its lists again where there are none.
        let lists = "DO $$ DECLARE name text; BEGIN
            FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'projections' LOOP
                EXECUTE format('DROP TABLE projections.%I CASCADE', name);
            END LOOP;
        END $$";
        sqlx::raw_sql(lists).execute(owner).await.unwrap();
    });
}

fn forge<T>(
    dev: &Dev,
    database: &Database,
    does: impl AsyncFnOnce(&mut Forger, &PgPool) -> T,
) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let owner = PgPool::connect(&database.owner).await.unwrap();
        let keys = LedgerKeys::read(&dev.data().join("ledger")).unwrap();
        let origin = "countersign.local/dev".parse().unwrap();
        let mut forger = Forger::new(&owner, &origin, keys).await;
        let done = does(&mut forger, &owner).await;
        owner.close().await;
        done
    })
}

fn says(log: &Path, word: &str) -> bool {
    fs::read_to_string(log).is_ok_and(|text| text.contains(word))
}

/// A verb of one of the people who begins without a memory.
fn newcomer(dev: &Dev, who: &str, arguments: &[&str]) -> Output {
    let nowhere = crate::folder::Folder::new("newcomer");
    let mut command = dev.command(who, &[&["--json"], arguments].concat());
    command.env("COUNTERSIGN_STATE_HOME", nowhere.path());
    command.output().unwrap()
}

/// What a verifier says who was never here and believes no server.
fn stranger(dev: &Dev, database: &Database) -> (Option<i32>, Value) {
    let output = newcomer(dev, "alice", &["verify", "--database", &database.owner]);
    let report = serde_json::from_slice(&output.stdout);
    let report = report.unwrap_or_else(|_| unreachable!("{}", text(&output.stderr)));
    (output.status.code(), report)
}

/// The first bad entry that he names, and why.
fn named(dev: &Dev, database: &Database) -> (u64, String) {
    let (code, report) = stranger(dev, database);
    assert_eq!(
        (code, &report["ok"]),
        (Some(TAMPERING), &false.into()),
        "{report}"
    );
    let bad = &report["first_bad"];
    (
        bad["seq"].as_u64().unwrap(),
        bad["reason"].as_str().unwrap().to_owned(),
    )
}

/// The place of the first entry of the log that fits.
fn place(
    dev: &Dev,
    database: &Database,
    fits: fn(&countersign_protocol::event::Event) -> bool,
) -> u64 {
    forge(dev, database, async |forger, _owner| forger.find(fits))
}
