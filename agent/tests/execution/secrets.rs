//! Secrets reach their run, and nothing of them is left when it is over.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use countersign_agent::execution::{Outcome, Plan, Secret, Secrets, SecretsPlace};
use countersign_protocol::secret::{Delivery, MAX_SECRET_BYTES};
use rustix::fs::{CWD, Mode, mkfifoat};
use tokio_util::sync::CancellationToken;

use crate::fixture::{
    STRANGER, root_or_left_out, run_to_end, run_with, secret, shell, step, stranger, text,
    wait_until,
};

const VALUE: &str = "correct horse battery staple";

/// What is looked at, turned round so that the mask does not find it.
const REVERSED: &str = "elpats yrettab esroh tcerroc";

fn place(name: &str) -> Arc<SecretsPlace> {
    let id = std::process::id();
    Arc::new(SecretsPlace::prepare(&format!("countersign-test-{id}-{name}")).unwrap())
}

fn handed(script: &str, secrets: Vec<Secret>, place: &Arc<SecretsPlace>) -> Plan {
    let mut plan = shell(script);
    plan.secrets = Secrets::new(secrets).unwrap();
    plan.secrets_place = Some(Arc::clone(place));
    plan
}

fn left_in(place: &SecretsPlace) -> Vec<PathBuf> {
    let entries = fs::read_dir(place.folder()).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn a_file_is_there_for_its_run_alone_and_gone_after_it() {
    let place = place("file");
    let script = "stat -c '%a %u' $COUNTERSIGN_SECRETS $COUNTERSIGN_SECRETS/db
        stat -f -c %T $COUNTERSIGN_SECRETS
        rev $COUNTERSIGN_SECRETS/db; cat $COUNTERSIGN_SECRETS/db; echo $COUNTERSIGN_SECRETS >&2";
    let plan = handed(script, vec![secret("db", Delivery::File, VALUE)], &place);
    let heard = run_to_end(plan).await;
    let me = rustix::process::geteuid().as_raw();
    let expected = format!("700 {me}\n600 {me}\ntmpfs\n{REVERSED}***");
    assert_eq!(text(&heard.stdout), expected);
    assert_eq!(heard.finished.masked, Some(1));
    let folder = PathBuf::from(text(&heard.stderr).trim());
    assert!(folder.starts_with(place.folder()) && !folder.exists());
    assert_eq!(left_in(&place), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn the_file_belongs_to_the_account_of_the_run() {
    if !root_or_left_out("a file of another user") {
        return;
    }
    let place = place("account");
    let script = "stat -c '%a %u %g' $COUNTERSIGN_SECRETS $COUNTERSIGN_SECRETS/db
        rev $COUNTERSIGN_SECRETS/db";
    let mut plan = handed(script, vec![secret("db", Delivery::File, VALUE)], &place);
    plan.confinement.account = stranger();
    let heard = run_to_end(plan).await;
    let own = format!("{STRANGER} {STRANGER}");
    assert_eq!(
        text(&heard.stdout),
        format!("700 {own}\n600 {own}\n{REVERSED}")
    );
    // Another account does not get past the folder, and does not see which runs there are.
    let script = format!(
        "ls {0}; sleep 5 & cat {0}/*/db {0}/[0-9]*/db",
        place.folder().display()
    );
    let mut plan = shell(&script);
    plan.confinement.account = stranger();
    plan.timeout = Duration::from_millis(500);
    let heard = run_to_end(plan).await;
    assert_eq!(text(&heard.stdout), "");
    assert!(text(&heard.stderr).contains("Permission denied"));
}

#[tokio::test]
async fn a_variable_and_standard_input_are_handed_over_to_each_step() {
    let place = place("env");
    let secrets = vec![
        secret("TOKEN", Delivery::Env, VALUE),
        secret("word", Delivery::Stdin, VALUE),
    ];
    let mut plan = handed("rev; printf %s \"$TOKEN\" | rev", secrets, &place);
    plan.then = vec![step(&["rev"])];
    let heard = run_to_end(plan).await;
    assert_eq!(text(&heard.stdout), REVERSED.repeat(3));
    assert_eq!(heard.finished.masked, Some(0));
    assert!(left_in(&place).is_empty());
}

/// A run that is stopped, and one whose processes leave its tree, leave nothing behind either.
#[tokio::test]
async fn a_run_that_is_killed_leaves_no_file() {
    let place = place("killed");
    for how in ["timeout", "cancel", "background"] {
        let script = match how {
            "background" => "setsid sleep 60 & echo",
            _ => "trap '' TERM; sleep 60",
        };
        let mut plan = handed(script, vec![secret("db", Delivery::File, VALUE)], &place);
        plan.grace = Duration::from_millis(100);
        if how == "timeout" {
            plan.timeout = Duration::from_millis(500);
        }
        let cancel = CancellationToken::new();
        let (heard, ()) = tokio::join!(run_with(plan, cancel.clone()), async {
            wait_until("its folder", || !left_in(&place).is_empty()).await;
            if how == "cancel" {
                cancel.cancel();
            }
        });
        let ended = match how {
            "timeout" => Outcome::TimedOut,
            "cancel" => Outcome::Cancelled,
            _ => Outcome::Exited(0),
        };
        assert_eq!(heard.finished.outcome, ended);
        assert!(left_in(&place).is_empty(), "{how}");
    }
}

#[tokio::test]
async fn a_link_in_the_place_of_a_file_leads_nowhere() {
    let place = place("link");
    let folder = tempfile::tempdir().unwrap();
    let victim = folder.path().join("victim");
    fs::write(&victim, "stays as it is").unwrap();
    let script = format!(
        "rm $COUNTERSIGN_SECRETS/db; ln -s {} $COUNTERSIGN_SECRETS/db",
        victim.display()
    );
    let plan = handed(&script, vec![secret("db", Delivery::File, VALUE)], &place);
    run_to_end(plan).await;
    assert_eq!(fs::read_to_string(&victim).unwrap(), "stays as it is");
    assert!(left_in(&place).is_empty());
}

#[test]
fn what_a_crash_left_behind_is_wiped_at_the_next_start() {
    let first = place("crash");
    let run = first.folder().join("7");
    fs::create_dir(&run).unwrap();
    fs::write(run.join("db"), VALUE).unwrap();
    // Somebody who still holds it open reads zeros.
    let held = fs::File::open(run.join("db")).unwrap();
    let second = place("crash");
    assert_eq!(second.folder(), first.folder());
    assert!(left_in(&second).is_empty());
    let read = std::io::read_to_string(held).unwrap();
    assert_eq!(read.as_bytes(), vec![0; VALUE.len()]);
}

/// The place after the next start, which must not take long.
fn place_at_the_next_start(name: &'static str) -> Arc<SecretsPlace> {
    let (done, heard) = mpsc::channel();
    std::thread::spawn(move || done.send(place(name)));
    heard
        .recv_timeout(Duration::from_secs(10))
        .expect("the next start is held up")
}

#[test]
fn a_fifo_that_a_run_left_does_not_hold_the_next_start_up() {
    let first = place("fifo");
    let run = first.folder().join("7");
    fs::create_dir(&run).unwrap();
    for fifo in [run.join("db"), first.folder().join("8")] {
        mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR).unwrap();
    }
    assert!(left_in(&place_at_the_next_start("fifo")).is_empty());
}

#[test]
fn what_is_no_folder_of_a_run_keeps_nothing_else_from_being_wiped() {
    let first = place("mixed");
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("victim"), "stays as it is").unwrap();
    let in_place = |name: &str| first.folder().join(name);
    let (run, other) = (in_place("7"), in_place("9"));
    // Before and behind each folder, in whichever order they are listed.
    fs::write(in_place("6"), VALUE).unwrap();
    fs::create_dir(&run).unwrap();
    fs::write(run.join("db"), VALUE).unwrap();
    symlink(elsewhere.path(), in_place("8")).unwrap();
    fs::create_dir(&other).unwrap();
    fs::write(other.join("db"), VALUE).unwrap();
    fs::write(in_place("a"), VALUE).unwrap();
    let held = [run, other].map(|run| fs::File::open(run.join("db")).unwrap());
    assert!(left_in(&place("mixed")).is_empty());
    for held in held {
        let read = std::io::read_to_string(held).unwrap();
        assert_eq!(read.as_bytes(), vec![0; VALUE.len()]);
    }
    let victim = fs::read_to_string(elsewhere.path().join("victim")).unwrap();
    assert_eq!(victim, "stays as it is");
}

#[test]
fn wiping_a_file_that_was_made_long_fills_no_memory() {
    let first = place("long");
    let run = first.folder().join("7");
    fs::create_dir(&run).unwrap();
    fs::write(run.join("db"), VALUE).unwrap();
    let long = fs::OpenOptions::new().write(true).open(run.join("db"));
    let long = long.unwrap();
    long.set_len(64 << 20).unwrap();
    assert!(left_in(&place("long")).is_empty());
    let held = long.metadata().unwrap().blocks() * 512;
    assert!(held <= MAX_SECRET_BYTES as u64, "{held}");
}

#[test]
fn a_folder_that_others_can_write_in_is_not_taken_over() {
    let first = place("squatted");
    fs::set_permissions(first.folder(), fs::Permissions::from_mode(0o777)).unwrap();
    let name = first.folder().file_name().unwrap().to_str().unwrap();
    let refused = SecretsPlace::prepare(name).unwrap_err();
    assert!(refused.to_string().contains("belongs to another user"));
}

#[tokio::test]
async fn without_a_place_in_memory_nothing_runs() {
    let place = place("none");
    let mut plan = handed(
        "echo ran",
        vec![secret("db", Delivery::File, VALUE)],
        &place,
    );
    plan.secrets_place = None;
    let heard = run_to_end(plan).await;
    assert!(matches!(heard.finished.outcome, Outcome::FailedToStart(_)));
    assert!(heard.stdout.is_empty());
}
