//! What somebody with the database can do, and that it is found.

use crate::support::{Dev, signal};

fn owner(dev: &Dev, sql: &str) {
    dev.sql(&format!("SET session_replication_role = replica; {sql}"));
}

fn verdict(dev: &Dev, code: i32) -> serde_json::Value {
    dev.json(
        "alice",
        code,
        &["verify", "--database", dev.env("DATABASE_URL")],
    )
}

#[test]
fn a_changed_byte_is_found_and_its_entry_named() {
    let dev = Dev::start();
    dev.through(&[], &["true"]);
    assert_eq!(verdict(&dev, 0)["ok"], true);
    owner(
        &dev,
        "UPDATE entries SET entry = set_byte(entry, 100, get_byte(entry, 100) # 1) WHERE seq = 9",
    );
    let found = verdict(&dev, 3);
    assert_eq!(
        (&found["ok"], &found["first_bad"]["seq"]),
        (&false.into(), &9.into())
    );
}

#[test]
fn cutting_the_last_rows_with_their_checkpoints_is_found() {
    let dev = Dev::start();
    let shown = dev.through(&[], &["true"]);
    let last = dev
        .sql("SELECT max(seq) FROM entries")
        .parse::<i64>()
        .unwrap();
    for cut in 1..4 {
        let keep = last - cut;
        owner(
            &dev,
            &format!(
                "DELETE FROM blob_references WHERE seq > {keep}; DELETE FROM agent_statements USING statements s WHERE agent_statements.statement_id = s.statement_id AND s.seq > {keep}; DELETE FROM statements WHERE seq > {keep}; DELETE FROM checkpoints WHERE size > {keep} + 1; DELETE FROM entries WHERE seq > {keep}"
            ),
        );
        let found = verdict(&dev, 3);
        assert_eq!(found["ok"], false, "{cut} rows");
    }
    assert_eq!(shown["status"], "completed");
}

#[test]
fn a_changed_list_is_found() {
    let dev = Dev::start();
    dev.through(&[], &["true"]);
    dev.sql("UPDATE projections.commands SET status = 'rejected'");
    assert_eq!(verdict(&dev, 3)["lists"], "differ");
    let rebuilt = std::process::Command::new(crate::support::PROGRAM)
        .args(["rebuild", "--database", dev.env("DATABASE_URL")])
        .status()
        .unwrap();
    assert!(rebuilt.success());
    assert_eq!(verdict(&dev, 0)["lists"], "equal");
}

#[test]
fn a_database_restored_from_a_backup_is_not_served() {
    let mut dev = Dev::start();
    let folder = dev.folder();
    let last = dev
        .sql("SELECT max(seq) FROM entries")
        .parse::<i64>()
        .unwrap();
    dev.sql("CREATE TABLE public.saved_head AS TABLE head");
    dev.request(&[], &["true"]);
    owner(
        &dev,
        &format!(
            "DELETE FROM blob_references WHERE seq > {last}; DELETE FROM statements WHERE seq > {last}; DELETE FROM open_streams; DELETE FROM checkpoints WHERE size > {last} + 1; DELETE FROM entries WHERE seq > {last}; DELETE FROM head; INSERT INTO head SELECT * FROM saved_head"
        ),
    );
    signal(dev.pid(), "TERM");
    dev.wait();
    drop(dev);
    let output = std::process::Command::new(crate::support::PROGRAM)
        .args(["dev", "--listen", "127.0.0.1:0", "--data"])
        .arg(folder.path().join("dev"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("the database is behind"));
}
