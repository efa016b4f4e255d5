//! Where sockets lie, and whose they are.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::parent::{Place, Start, User, is_root, mode};
use crate::left_out::left_out;

/// A part that keeps its cluster in a folder whose path no socket fits, with a temporary folder of
/// its own.
fn far_away(place: &Place) -> (Command, PathBuf, PathBuf) {
    let folder = place.path().join("f".repeat(100));
    let temporary = place.path().join("tmp");
    fs::create_dir_all(&temporary).unwrap();
    let mut part = place.part();
    part.env("COUNTERSIGN_TEST_FOLDER", &folder)
        .env("TMPDIR", &temporary);
    (part, folder, temporary)
}

fn only_child(folder: &Path) -> PathBuf {
    let mut found = fs::read_dir(folder).unwrap();
    let child = found.next().unwrap().unwrap().path();
    assert!(found.next().is_none(), "more than one in {folder:?}");
    child
}

#[test]
fn sockets_lie_beside_the_data_and_are_nobody_elses() {
    let place = Place::new("beside", User::Ourselves);
    let parent = place.start();
    let sockets = place.folder().join("sockets");
    assert!(sockets.join(".s.PGSQL.5432").exists());
    assert_eq!(mode(&sockets), 0o700);
    assert_eq!(mode(&place.data()), 0o700);
    parent.finish();
}

#[test]
fn a_path_too_long_for_a_socket_gets_a_closed_folder_under_the_temporary_one() {
    let place = Place::new("long", User::Ourselves);
    let (part, folder, temporary) = far_away(&place);
    let Start::Ready(parent) = place.play(part) else {
        unreachable!("it starts")
    };
    assert_eq!(place.ask(&parent.url, "SELECT 1"), "1");
    let sockets = only_child(&temporary);
    assert!(!folder.join("sockets").exists());
    assert!(sockets.join(".s.PGSQL.5432").exists());
    assert_eq!(mode(&sockets), 0o700);
    parent.finish();
    // The same folder serves the next start.
    let (part, ..) = far_away(&place);
    let Start::Ready(parent) = place.play(part) else {
        unreachable!("it starts again")
    };
    assert_eq!(only_child(&temporary), sockets);
    parent.finish();
}

/// The name under the temporary folder can be guessed, and anybody may make things there.
#[test]
fn a_socket_folder_that_somebody_else_prepared_is_refused_and_left_alone() {
    let place = Place::new("squat", User::Ourselves);
    let (part, folder, temporary) = far_away(&place);
    fs::create_dir(&folder).unwrap();
    let state = fs::metadata(&folder).unwrap();
    let name = format!("countersign-{:x}-{:x}", state.dev(), state.ino());
    let prize = place.path().join("prize");
    fs::create_dir(&prize).unwrap();
    fs::write(prize.join("file"), "precious").unwrap();
    symlink(&prize, temporary.join(&name)).unwrap();
    let before = fs::metadata(&prize).unwrap();
    let why = place.refusal(part);
    assert!(why.contains("is not a folder of ours"), "{why}");
    assert!(why.contains("set TMPDIR to a folder"), "{why}");
    let after = fs::metadata(&prize).unwrap();
    assert_eq!((after.uid(), after.mode()), (before.uid(), before.mode()));
    assert_eq!(fs::read_to_string(prize.join("file")).unwrap(), "precious");
    if !is_root() {
        return left_out("it needs root: a folder of another user");
    }
    fs::remove_file(temporary.join(&name)).unwrap();
    fs::create_dir(temporary.join(&name)).unwrap();
    chown(temporary.join(&name), Some(54_321), Some(54_321)).unwrap();
    let (part, ..) = far_away(&place);
    let why = place.refusal(part);
    assert!(why.contains("is not a folder of ours"), "{why}");
    let after = fs::metadata(temporary.join(&name)).unwrap();
    assert_eq!(after.uid(), 54_321);
}
