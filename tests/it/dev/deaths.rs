//! What is left after each way to die, and that the next start works.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::parent::{self, Place, User, gone_within, leads_its_session, runs, send};

/// The issue's own limit for everything to be gone after kill -9.
const GONE: Duration = Duration::from_secs(5);

const UNCLEAN: &str = "was not properly shut down";
const CLEAN: &str = "database system is shut down";

/// Every scenario twice: as ourselves, and as an ordinary user where we are root.
macro_rules! scenarios {
    ($($name:ident)*) => {
        mod as_whoever_runs_the_tests {
            $(#[test] fn $name() { super::$name(super::User::Ourselves); })*
        }
        mod as_an_ordinary_user {
            $(#[test] fn $name() { super::User::ordinary().map(super::$name); })*
        }
    };
}

scenarios! {
    a_cold_and_a_warm_start_keep_the_rows_and_commit_to_disk
    a_second_start_is_refused_and_says_why
    killing_the_parent_stops_all_cleanly_within_five_seconds
    ending_the_parent_by_term_stops_all_cleanly
    killing_parent_and_postmaster_loses_no_committed_row
    a_pid_file_that_names_a_live_stranger_is_not_believed
    what_still_runs_in_the_folder_is_stopped_before_the_next_start
    a_postmaster_that_ends_by_itself_is_noticed_and_started_anew
}

fn a_cold_and_a_warm_start_keep_the_rows_and_commit_to_disk(user: User) {
    let place = Place::new("cold", user);
    let cold = place.start();
    for setting in [
        "fsync",
        "synchronous_commit",
        "full_page_writes",
        "data_checksums",
    ] {
        assert_eq!(place.ask(&cold.url, &format!("SHOW {setting}")), "on");
    }
    assert_eq!(place.ask(&cold.url, "SHOW listen_addresses"), "");
    assert!(
        leads_its_session(cold.postmaster),
        "a terminal's ^C must not reach it"
    );
    place.ask(&cold.url, "CREATE TABLE rows AS SELECT 1 AS n");
    let postmaster = cold.postmaster;
    cold.finish();
    assert!(!runs(postmaster), "finishing waits for the end");
    let warm = place.start();
    assert_eq!(place.ask(&warm.url, "SELECT n FROM rows"), "1");
    let postmaster = warm.postmaster;
    warm.finish();
    gone_within(&place, postmaster, Duration::ZERO);
    assert!(!place.log().contains(UNCLEAN));
}

fn a_second_start_is_refused_and_says_why(user: User) {
    let place = Place::warm("double", user);
    let first = place.start();
    let begun = Instant::now();
    let why = place.refusal(place.part());
    let folder = place.folder();
    let expected = format!(
        "another countersign uses {}; stop it, or give another folder with --data",
        folder.display()
    );
    assert_eq!(why, expected);
    assert!(begun.elapsed() < Duration::from_secs(3), "it does not wait");
    assert_eq!(
        place.ask(&first.url, "SELECT 'unharmed'"),
        "unharmed",
        "the first one goes on"
    );
    first.finish();
}

fn killing_the_parent_stops_all_cleanly_within_five_seconds(user: User) {
    let place = Place::warm("orphan", user);
    let parent = place.start();
    place.ask(&parent.url, "CREATE TABLE rows AS SELECT 1 AS n");
    let (postmaster, url) = (parent.postmaster, parent.url.clone());
    // Somebody is connected and in the middle of something.
    let busy = std::thread::scope(|scope| {
        let busy = scope.spawn(|| place.write_until(&url, 20, || parent.die(Signal::KILL)));
        let rows = busy.join().unwrap();
        gone_within(&place, postmaster, GONE);
        rows
    });
    assert!(place.log().contains(CLEAN), "{}", place.log());
    let again = place.start();
    assert!(!place.log().contains(UNCLEAN), "{}", place.log());
    let there: usize = place
        .ask(&again.url, "SELECT count(*) - 1 FROM rows")
        .parse()
        .unwrap();
    assert!(there >= busy.len());
    again.finish();
}

fn ending_the_parent_by_term_stops_all_cleanly(user: User) {
    let place = Place::warm("term", user);
    let parent = place.start();
    let postmaster = parent.postmaster;
    parent.die(Signal::TERM);
    gone_within(&place, postmaster, GONE);
    assert!(place.log().contains(CLEAN));
    place.start().finish();
    assert!(!place.log().contains(UNCLEAN));
}

fn killing_parent_and_postmaster_loses_no_committed_row(user: User) {
    let place = Place::warm("crash", user);
    let parent = place.start();
    place.ask(&parent.url, "CREATE TABLE rows (n int PRIMARY KEY)");
    let (postmaster, url) = (parent.postmaster, parent.url.clone());
    let acknowledged = place.write_until(&url, 200, || {
        send(postmaster, Signal::KILL);
        parent.die(Signal::KILL);
    });
    assert!(acknowledged.len() >= 200);
    // At once: what the postmaster left running is still about.
    let again = place.start();
    assert!(place.log().contains(UNCLEAN), "it was a crash");
    let kept = place.ask(&again.url, "SELECT n FROM rows ORDER BY n");
    let kept: Vec<u32> = kept.lines().map(|line| line.parse().unwrap()).collect();
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|row| !kept.contains(row))
        .collect();
    assert!(lost.is_empty(), "{lost:?}");
    again.finish();
}

fn a_pid_file_that_names_a_live_stranger_is_not_believed(user: User) {
    let place = Place::warm("stranger", user);
    place.start().finish();
    let mut stranger = parent::stranger(&place);
    // Postgres reads it back as its own account, and it is a file of that account.
    let file = place.data().join("postmaster.pid");
    let lines = format!(
        "{}\n{}\n1700000000\n5432\n{}\n\n  1234567 0\nready\n",
        stranger.id(),
        place.data().display(),
        place.folder().join("sockets").display()
    );
    std::fs::write(&file, lines).unwrap();
    let begun = Instant::now();
    let parent = place.start();
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert_eq!(place.ask(&parent.url, "SELECT 1"), "1");
    assert!(
        stranger.try_wait().unwrap().is_none(),
        "the stranger lives on"
    );
    parent.finish();
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

fn what_still_runs_in_the_folder_is_stopped_before_the_next_start(user: User) {
    let place = Place::warm("leftover", user);
    let mut left = parent::by_hand(&place);
    let parent = place.start();
    let ended = left.try_wait().unwrap();
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
    assert_eq!(place.ask(&parent.url, "SELECT 1"), "1");
    parent.finish();
    assert!(!place.log().contains(UNCLEAN), "it was stopped in peace");
}

fn a_postmaster_that_ends_by_itself_is_noticed_and_started_anew(user: User) {
    let place = Place::warm("ended", user);
    let parent = place.start();
    let postmaster = parent.postmaster;
    send(postmaster, Signal::TERM);
    gone_within(&place, postmaster, GONE);
    let begun = Instant::now();
    parent.finish();
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "stopping what has stopped does not wait"
    );
    place.start().finish();
}
