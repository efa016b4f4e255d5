//! Each refusal says what happened and what to do.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::parent::{Place, User, is_root};
use crate::left_out::left_out;

#[test]
fn data_of_another_major_version_is_refused_with_the_way_out() {
    let place = Place::warm("major", User::Ourselves);
    fs::write(place.data().join("PG_VERSION"), "9\n").unwrap();
    let why = place.refusal(place.part());
    assert!(
        why.contains("was made by Postgres 9, the binaries found are "),
        "{why}"
    );
    assert!(
        why.contains("set COUNTERSIGN_PG_BINDIR to a folder with Postgres 9"),
        "{why}"
    );
    assert!(why.contains("--data"), "{why}");
}

#[test]
fn a_named_folder_without_binaries_is_refused_by_its_name() {
    let place = Place::new("nobin", User::Ourselves);
    let why = place.refusal(place.part_with_binaries(place.path()));
    let expected = format!(
        "there are no Postgres binaries (postgres, initdb) in {}",
        place.path().display()
    );
    assert_eq!(why, expected);
}

/// Runs the part where `script` has changed what the machine looks like, for it alone.
fn elsewhere(place: &Place, script: &str) -> Option<String> {
    let script = format!("{script} && exec \"$@\"");
    let namespaces: &[&str] = if is_root() {
        &["-m"]
    } else {
        &["-m", "--map-root-user"]
    };
    // Whether this machine lets us have a namespace at all.
    let before = [namespaces, &["sh", "-c"]].concat();
    let probe = place
        .part_under("unshare", &[&before[..], &["true"]].concat())
        .status();
    if !probe.is_ok_and(|status| status.success()) {
        left_out("no mount namespace is to be had here: a machine without Postgres");
        return None;
    }
    let before = [&before[..], &[&script, "sh"]].concat();
    let mut command = place.part_under("unshare", &before);
    command.env_remove("COUNTERSIGN_PG_BINDIR");
    Some(place.refusal(command))
}

#[test]
fn without_postgres_anywhere_the_message_is_the_line_that_installs_it() {
    let place = Place::new("bare", User::Ourselves);
    // An empty folder over each place where binaries may be.
    let hide = "for d in /usr/lib/postgresql /usr/local/bin /opt/homebrew/opt /usr/pgsql-*; do
                    [ ! -d \"$d\" ] || mount -t tmpfs none \"$d\" || exit 1
                done; PATH=/usr/bin:/bin; export PATH; true";
    let Some(why) = elsewhere(&place, hide) else {
        return;
    };
    let install = countersign::dev::install_command().join(" ");
    // In a namespace of its own everybody is root, and root needs no sudo.
    let install = install.trim_start_matches("sudo ");
    assert_eq!(
        why,
        format!("Postgres is not installed here; install it with: {install}")
    );
    assert!(install.contains("install") || install.contains("add") || install.contains("-S"));
    assert!(!place.folder().exists(), "nothing was made");
}

#[test]
fn root_without_an_account_to_drop_to_is_told_how_to_make_one() {
    if !is_root() {
        return left_out("it needs root: a drop to an account");
    }
    let place = Place::new("account", User::Ourselves);
    let passwd = place.path().join("passwd");
    fs::write(&passwd, "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    let hide = format!("mount --bind {} /etc/passwd", passwd.display());
    let Some(why) = elsewhere(&place, &hide) else {
        return;
    };
    assert_eq!(
        why,
        "Postgres does not run as root and there is no account countersign, postgres or nobody \
         to run it as; make one with: useradd --system countersign"
    );
}

#[test]
fn a_folder_that_the_account_cannot_enter_is_refused_with_the_way_out() {
    if !is_root() {
        return left_out("it needs root: an account that cannot enter what we enter");
    }
    let place = Place::new("closed", User::Ourselves);
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let why = place.refusal(place.part());
    let closed = place.path().display();
    assert!(why.contains(&format!("cannot enter {closed}")), "{why}");
    assert!(why.contains("--data"), "{why}");
    assert!(why.contains(&format!("chmod o+x {closed}")), "{why}");
}
