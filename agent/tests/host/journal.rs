//! The journal through kills and power cuts: what was acknowledged stays, what was not never was.

use std::fs;
use std::path::Path;

use countersign_agent::key::{Identity, IdentityError};
use countersign_agent::spool::{About, Birth, FILE, Record, Spool, SpoolError};
use countersign_protocol::api::{Base64, Submission};
use countersign_protocol::hash::{CommandId, KeyId, StatementId};
use proptest::prelude::*;

use crate::support::at;

fn id(number: u8) -> StatementId {
    StatementId::new([number; 32])
}

fn words(text: &str) -> Submission {
    Submission {
        namespace: "test".into(),
        payload: Base64(text.into()),
        signature: Base64(vec![1, 2, 3]),
        blobs: vec![],
    }
}

fn new_spool(folder: &Path) -> Spool {
    let birth = Birth {
        key_id: KeyId::new([1; 32]),
        journal_id: "00".into(),
        created: at(1),
    };
    Spool::create(folder, &birth).unwrap();
    Spool::open(folder).unwrap()
}

/// One command's records, append by append, from its use to its end.
fn story(command: CommandId, started: StatementId, done: StatementId) -> Vec<Vec<Record>> {
    let word = |about, id| Record::Word {
        about,
        id,
        submission: words("word"),
    };
    let chunk = |id, text| Record::Chunk {
        started,
        id,
        submission: words(text),
    };
    vec![
        vec![
            Record::Used {
                command,
                until: at(9_000_000),
            },
            word(About::Started(command), started),
        ],
        vec![Record::Answered {
            id: started,
            accepted: true,
        }],
        vec![chunk(id(200), "one"), chunk(id(201), "two")],
        vec![Record::Delivered { started, chunks: 1 }],
        vec![chunk(id(202), "three")],
        vec![Record::Delivered { started, chunks: 2 }],
        vec![word(About::Completed(started), done)],
        vec![Record::Answered {
            id: done,
            accepted: true,
        }],
    ]
}

#[test]
fn cut_at_every_byte_the_journal_holds_exactly_what_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let spool = new_spool(folder.path());
    let path = folder.path().join(FILE);
    let size = || usize::try_from(fs::metadata(&path).unwrap().len()).unwrap();
    let mut acknowledged = vec![(size(), vec![], 0, spool.chain())];
    let mut used = Vec::new();
    {
        let number = 10;
        for records in story(id(number), id(number + 1), id(number + 2)) {
            if let [Record::Used { command, .. }, ..] = records.as_slice() {
                used.push(*command);
            }
            spool.append(records).unwrap();
            let pending = spool.pending_count(&id(number + 1));
            acknowledged.push((size(), used.clone(), pending, spool.chain()));
        }
    }
    let whole = fs::read(&path).unwrap();
    let other = tempfile::tempdir().unwrap();
    for cut in acknowledged[0].0..=whole.len() {
        fs::write(other.path().join(FILE), &whole[..cut]).unwrap();
        let spool = Spool::open(other.path()).unwrap();
        let (_, used, _, chain) = acknowledged
            .iter()
            .rfind(|(size, ..)| *size <= cut)
            .unwrap();
        let known = used.contains(&id(10));
        assert_eq!(spool.is_used(&id(10)), known, "cut at {cut}");
        assert_eq!(spool.chain(), *chain, "cut at {cut}");
        // What was cut off is gone from the disk too, and the journal goes on.
        let torn = acknowledged.iter().all(|(size, ..)| *size != cut);
        if torn {
            let left = fs::metadata(other.path().join(FILE)).unwrap().len();
            assert!(acknowledged.iter().any(|(size, ..)| *size as u64 == left));
        }
    }
}

#[test]
fn a_journal_goes_on_after_a_torn_end() {
    let folder = tempfile::tempdir().unwrap();
    let spool = new_spool(folder.path());
    spool.append(story(id(1), id(2), id(3)).remove(0)).unwrap();
    let path = folder.path().join(FILE);
    let kept = fs::read(&path).unwrap();
    spool
        .append(vec![Record::Answered {
            id: id(2),
            accepted: true,
        }])
        .unwrap();
    drop(spool);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..kept.len() + 5]).unwrap();
    let spool = Spool::open(folder.path()).unwrap();
    assert_eq!(spool.word().unwrap().id, id(2));
    spool
        .append(vec![Record::Answered {
            id: id(2),
            accepted: true,
        }])
        .unwrap();
    drop(spool);
    let spool = Spool::open(folder.path()).unwrap();
    assert_eq!((spool.word(), spool.chain().next), (None, 1));
}

#[test]
fn damage_before_the_end_is_an_error_and_nothing_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let spool = new_spool(folder.path());
    for records in story(id(1), id(2), id(3)) {
        spool.append(records).unwrap();
    }
    drop(spool);
    let path = folder.path().join(FILE);
    let whole = fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(7) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(&path, &damaged).unwrap();
        let opened = Spool::open(folder.path());
        assert!(
            matches!(opened, Err(SpoolError::Damaged { .. })),
            "byte {at}"
        );
        assert_eq!(fs::read(&path).unwrap(), damaged);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn what_is_acknowledged_is_found_after_any_power_cut(
        commands in proptest::collection::vec(1_u8..=255, 1..6),
        torn in 0_usize..400,
        zeros in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let spool = new_spool(folder.path());
        let path = folder.path().join(FILE);
        let mut known = std::collections::BTreeSet::new();
        for command in &commands {
            if known.insert(*command) {
                spool.append(vec![Record::Used { command: id(*command), until: at(5) }]).unwrap();
            }
        }
        let acknowledged = fs::read(&path).unwrap();
        spool.append(vec![Record::Used { command: id(0), until: at(5) }]).unwrap();
        drop(spool);
        // The last append was under way: a part of it is on the disk, or zeros where it should be.
        let whole = fs::read(&path).unwrap();
        let mut file = whole.clone();
        let cut = acknowledged.len() + torn.min(file.len() - acknowledged.len() - 1);
        if zeros { file[cut..].fill(0) } else { file.truncate(cut) }
        // A check may end in zeros of its own: then nothing was lost.
        prop_assume!(file != whole);
        fs::write(&path, &file).unwrap();
        let spool = Spool::open(folder.path()).unwrap();
        for command in &commands {
            prop_assert!(spool.is_used(&id(*command)));
        }
        prop_assert!(!spool.is_used(&id(0)));
        prop_assert_eq!(fs::read(&path).unwrap(), acknowledged);
    }
}

#[test]
fn records_that_contradict_each_other_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let used = || {
        vec![Record::Used {
            command: id(1),
            until: at(5),
        }]
    };
    let spool = new_spool(folder.path());
    spool.append(used()).unwrap();
    assert!(matches!(
        spool.append(used()),
        Err(SpoolError::Illegal { .. })
    ));
    // And after an error nothing is written any more.
    let other = vec![Record::Used {
        command: id(2),
        until: at(5),
    }];
    assert!(matches!(spool.append(other), Err(SpoolError::Broken)));
}

#[test]
fn written_anew_it_remembers_the_chain_and_every_grant_that_could_be_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let spool = new_spool(folder.path());
    spool
        .append(vec![Record::Enrolment(words("hello")), Record::Accepted])
        .unwrap();
    let large = "x".repeat(1 << 20);
    for number in [10, 20, 30, 40, 50] {
        let mut records = story(id(number), id(number + 1), id(number + 2)).concat();
        if let Some(Record::Word { submission, .. }) = records.get_mut(1) {
            *submission = words(&large);
        }
        if number == 10 {
            records[0] = Record::Used {
                command: id(10),
                until: at(50),
            };
        }
        spool.append(records).unwrap();
    }
    let chain = spool.chain();
    assert_eq!(chain.next, 10);
    assert!(spool.compact(at(60)).unwrap());
    let check = |spool: &Spool| {
        assert_eq!(spool.chain(), chain);
        assert!(spool.is_accepted() && spool.enrolment().is_some());
        assert!(!spool.is_used(&id(10)), "can no longer be replayed");
        assert!(
            [20, 30, 40, 50]
                .iter()
                .all(|number| spool.is_used(&id(*number)))
        );
    };
    check(&spool);
    spool
        .append(vec![Record::Used {
            command: id(60),
            until: at(5),
        }])
        .unwrap();
    drop(spool);
    assert!(fs::metadata(folder.path().join(FILE)).unwrap().len() < 10_000);
    let spool = Spool::open(folder.path()).unwrap();
    check(&spool);
    assert!(spool.is_used(&id(60)));
}

#[test]
fn key_and_journal_are_made_together_and_refused_apart() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let open = || Identity::open_or_create(&state, at(7)).map(|(identity, _)| identity.key_id());
    let key = open().unwrap();
    assert_eq!(open().unwrap(), key);
    let identity = state.join("identity");
    for file in ["key", FILE] {
        let aside = identity.join("aside");
        fs::rename(identity.join(file), &aside).unwrap();
        assert!(matches!(open(), Err(IdentityError::Twin(_))), "{file}");
        fs::rename(&aside, identity.join(file)).unwrap();
    }
    // The journal of another identity, or of this key's earlier life, is not this one's.
    let other = folder.path().join("other");
    Identity::open_or_create(&other, at(7)).unwrap();
    fs::copy(other.join("identity").join(FILE), identity.join(FILE)).unwrap();
    assert!(matches!(open(), Err(IdentityError::OtherJournal(_))));
}

#[test]
fn what_others_could_read_is_not_used() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let open = || Identity::open_or_create(&state, at(7)).map(drop);
    open().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let identity = state.join("identity");
    for (path, wanted) in [
        (state.clone(), 0o700),
        (identity.clone(), 0o700),
        (identity.join("key"), 0o600),
        (identity.join(FILE), 0o600),
    ] {
        assert_eq!(mode(&path), wanted, "{path:?}");
        fs::set_permissions(&path, fs::Permissions::from_mode(wanted | 0o040)).unwrap();
        assert!(
            matches!(open(), Err(IdentityError::Permissions(_))),
            "{path:?}"
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(wanted)).unwrap();
    }
    open().unwrap();
}
