//! What a report claims and what it is compared with: counts, places, pins, memories. Each of these
//! kills a mutant of the verifier that other tests let live; see `docs/MUTANTS.md`.

use std::collections::HashMap;

use countersign_protocol::event::{ExecutionLost, LossForm};
use countersign_protocol::hash::Hash;
use countersign_protocol::merkle;
use countersign_verifier::bundle::{Reader, Tail};
use countersign_verifier::{
    BlobCounts, Erasures, Findings, Held, Log, Unreadable, claimed_size, named, settle,
};

use super::*;

fn expecting(bytes: &[u8], expectations: &Expectations) -> Report {
    verify(bytes, expectations, &mut |_| {}).unwrap()
}

/// Name and place of the failure, where there is one.
fn outcome(report: &Report) -> Option<(&'static str, u64)> {
    let bad = report.first_bad.as_ref();
    bad.map(|bad| (bad.name, bad.seq))
}

fn root(book: &Book, size: u64) -> Hash {
    book.tree.root_at(size).unwrap()
}

/// The checkpoint of so many entries with such a root, signed by the key of that name.
fn signed(size: u64, root: Hash, by: &str) -> String {
    let origin = "ledger.example.com".parse().unwrap();
    let body = CheckpointBody { origin, size, root };
    Checkpoint::sign(body, &key(by)).note().to_owned()
}

#[test]
fn a_remembered_checkpoint_is_compared_where_a_bundle_covers_it() {
    let (book, command, _) = story();
    let size = book.tree.size();
    let lie = Hash::new([3; 32]);
    let remembering = |bytes: &[u8], size, root| {
        let remembered = Some((size, root));
        let expectations = Expectations {
            remembered,
            ..Expectations::default()
        };
        outcome(&expecting(bytes, &expectations))
    };
    let whole = whole(&book);
    let (excerpt, _) = excerpt(&book, command);
    for covered in [1, size - 1, size] {
        let honest = root(&book, covered);
        assert_eq!(remembering(&whole, covered, honest), None);
        assert_eq!(
            remembering(&whole, covered, lie),
            Some(("other_root", covered - 1))
        );
    }
    // The log went on since the bundle was made.
    assert_eq!(remembering(&whole, size + 1, lie), None);
    // An excerpt has one root only.
    assert_eq!(remembering(&excerpt, size, root(&book, size)), None);
    assert_eq!(
        remembering(&excerpt, size, lie),
        Some(("other_root", size - 1))
    );
    for other in [size - 1, size + 1] {
        assert_eq!(remembering(&excerpt, other, lie), None);
    }
}

#[test]
fn a_checkpoint_that_was_given_must_be_of_this_log_and_within_it() {
    let (book, _, _) = story();
    let size = book.tree.size();
    let bytes = whole(&book);
    let given = |note: String| Expectations {
        checkpoint: Some(note),
        ..Expectations::default()
    };
    let honest = signed(size - 1, root(&book, size - 1), "checkpoint");
    assert_eq!(outcome(&expecting(&bytes, &given(honest.clone()))), None);
    let lie = Hash::new([3; 32]);
    for (note, expected) in [
        (signed(size + 1, lie, "checkpoint"), Some(("cut_off", size))),
        (
            signed(size - 1, lie, "checkpoint"),
            Some(("other_root", size - 2)),
        ),
        (
            signed(size, root(&book, size), "mallory"),
            Some(("unsigned_checkpoint", 0)),
        ),
    ] {
        assert_eq!(outcome(&expecting(&bytes, &given(note))), expected);
    }
    let damaged = given(honest.replace("ledger.example.com\n", "ledger.example.com\nx"));
    let verdict = verify(bytes.as_slice(), &damaged, &mut |_| {});
    assert!(matches!(verdict, Err(Unreadable::Note(_))));
}

#[test]
fn a_checkpoint_that_was_given_is_compared_with_that_of_an_excerpt_or_it_is_said_that_it_cannot_be()
{
    let (book, command, _) = story();
    let size = book.tree.size();
    let (bytes, _) = excerpt(&book, command);
    let given = |note: String| Expectations {
        checkpoint: Some(note),
        ..Expectations::default()
    };
    let lie = Hash::new([3; 32]);
    for (note, expected) in [
        (note(&book), None),
        (
            signed(size, lie, "checkpoint"),
            Some(("other_root", size - 1)),
        ),
        (
            signed(size, root(&book, size), "mallory"),
            Some(("unsigned_checkpoint", 0)),
        ),
    ] {
        assert_eq!(outcome(&expecting(&bytes, &given(note))), expected);
    }
    let verdict = |bytes: &[u8], size, root| {
        let expectations = given(signed(size, root, "checkpoint"));
        verify(bytes, &expectations, &mut |_| {})
    };
    for other in [size - 1, size + 1] {
        assert!(matches!(
            verdict(&bytes, other, lie),
            Err(Unreadable::NotComparable { given, held }) if (given, held) == (other, size)
        ));
    }
    let damaged = given(note(&book).replace("ledger.example.com\n", "ledger.example.com\nx"));
    let damaged = verify(bytes.as_slice(), &damaged, &mut |_| {});
    assert!(matches!(damaged, Err(Unreadable::Note(_))));
    // What is wrong with the bundle itself is not hidden behind that.
    let mut changed = bytes;
    *changed.last_mut().unwrap() = 1;
    let report = verdict(&changed, size - 1, lie).unwrap();
    assert!(!report.ok);
}

/// Whoever wrote it, and whatever is pinned.
#[test]
fn a_manifest_that_names_another_ledger_or_origin_than_genesis_is_found() {
    let (book, command, _) = story();
    for selection in [Selection::Whole, Selection::Commands(vec![command])] {
        let bundle = |manifest| {
            let pages = if selection == Selection::Whole {
                whole_pages(&book)
            } else {
                vec![excerpt_page(&book, command)]
            };
            write(manifest, note(&book), pages).0
        };
        let mut other = manifest(&book, selection.clone());
        other.ledger = LedgerId::new([7; 32]);
        assert_eq!(found(&check(&bundle(other))), ("other_ledger", 0));
        let mut other = manifest(&book, selection.clone());
        other.origin = "other.example.com".parse().unwrap();
        assert_eq!(found(&check(&bundle(other))), ("foreign_origin", 0));
    }
}

#[test]
fn a_page_is_named_by_its_first_entry() {
    let (book, command, _) = story();
    let mut pages = whole_pages(&book);
    pages[1].first += 1;
    let (bytes, _) = write(manifest(&book, Selection::Whole), note(&book), pages);
    assert_eq!(found(&check(&bytes)), ("wrong_place", 5));
    let mut page = excerpt_page(&book, command);
    page.first += 1;
    let selection = Selection::Commands(vec![command]);
    let (bytes, _) = write(manifest(&book, selection), note(&book), vec![page]);
    assert_eq!(found(&check(&bytes)).0, "other_proof");
}

#[test]
fn behind_a_failure_nothing_is_counted() {
    let (book, command, _) = story();
    let all: Vec<u64> = (0..book.tree.size()).collect();
    let whole_but_one = |most: usize| {
        let chunks = all.chunks(2).take(most);
        let mut pages: Vec<Page> = chunks.map(|seqs| page(&book, seqs)).collect();
        pages.remove(1);
        check(&write(manifest(&book, Selection::Whole), note(&book), pages).0)
    };
    let report = whole_but_one(usize::MAX);
    assert_eq!(found(&report), ("missing_entry", 2));
    assert_eq!((report.entries, report.checkpoints), (2, 0));
    // Of the page that fails the texts are counted, of those behind it none.
    assert_eq!(whole_but_one(3).blobs, report.blobs);
    let honest = check(&whole(&book)).blobs;
    assert!(report.blobs.ok < honest.ok);

    let seqs = places(&book, command);
    let mut lied: Vec<Page> = seqs
        .chunks(3)
        .map(|seqs| {
            let mut page = page(&book, seqs);
            page.proofs = seqs.iter().map(|seq| proof_of(&book, *seq)).collect();
            page
        })
        .collect();
    // The last of its page, so that the next page goes on where this one ends.
    lied[0].proofs[2].hashes[0] = Hash::new([1; 32]);
    let manifest = manifest(&book, Selection::Commands(vec![command]));
    let (bytes, _) = write(manifest, note(&book), lied);
    let report = check(&bytes);
    assert_eq!(found(&report), ("not_included", seqs[2]));
    assert_eq!(report.entries, 3);
}

#[test]
fn what_is_heard_of_the_progress_is_how_many_entries_are_done() {
    let (book, _, _) = story();
    let mut heard = Vec::new();
    let bytes = whole(&book);
    let mut hear = |done| heard.push(done);
    verify(bytes.as_slice(), &Expectations::default(), &mut hear).unwrap();
    let size = book.tree.size();
    let pages = (5..size).step_by(5).chain([size]);
    assert_eq!(heard, pages.collect::<Vec<u64>>());
}

#[test]
fn of_pages_behind_a_failure_no_progress_is_heard() {
    let (book, _, _) = story();
    let all: Vec<u64> = (0..book.tree.size()).collect();
    let mut pages: Vec<Page> = all.chunks(2).map(|seqs| page(&book, seqs)).collect();
    assert!(pages.len() > 4);
    pages.remove(1);
    let (bytes, _) = write(manifest(&book, Selection::Whole), note(&book), pages);
    let mut heard = 0;
    let mut hear = |_done| heard += 1;
    let report = verify(bytes.as_slice(), &Expectations::default(), &mut hear).unwrap();
    assert_eq!(found(&report), ("missing_entry", 2));
    // The page that holds, and the one that fails.
    assert_eq!(heard, 2);
}

#[test]
fn the_index_says_of_how_many_entries_the_checkpoint_is() {
    let (book, command, _) = story();
    for bytes in [whole(&book), excerpt(&book, command).0] {
        let index = tail(&bytes).index_json;
        let size = book.tree.size();
        assert!(index.contains(&format!("\"size\": {size},")), "{index}");
    }
}

#[test]
fn another_ledger_is_not_called_the_pinned_one() {
    let (book, command, _) = story();
    let other = LedgerId::new([7; 32]);
    for bytes in [whole(&book), excerpt(&book, command).0] {
        assert!(!check_pinned(&bytes, other).pinned);
        assert!(!check(&bytes).pinned);
    }
    let report = check_pinned(&whole(&book), other);
    assert_eq!((report.entries, report.root), (0, merkle::empty_root()));
}

/// Every blob once for each entry that names it, in the one count that it belongs to.
#[test]
fn each_text_is_counted_as_what_became_of_it() {
    let (book, _, _) = story();
    let names = |book: &Book| {
        let entries = book.entries.iter();
        let named = entries.map(|bytes| check_entry(bytes).unwrap().verified.event().blobs().len());
        u64::try_from(named.sum::<usize>()).unwrap()
    };
    let all = names(&book);
    assert_eq!(check(&whole(&book)).blobs.ok, all);
    let output = digest_of(&book, b"hello\n");
    let changed = |change: &dyn Fn(&mut Page)| {
        let mut pages = whole_pages(&book);
        let page = pages
            .iter_mut()
            .find(|page| page.blobs.contains_key(&output));
        change(page.unwrap());
        check(&write(manifest(&book, Selection::Whole), note(&book), pages).0).blobs
    };
    let missing = changed(&|page| drop(page.blobs.remove(&output)));
    assert_eq!((missing.ok, missing.missing), (all - 1, 1));
    let other = Blob::new([9; 32], b"HELLO\n".to_vec()).unwrap();
    let mismatch = changed(&|page| drop(page.blobs.insert(output, other.clone())));
    assert_eq!((mismatch.ok, mismatch.mismatch), (all - 1, 1));
    let erased = changed(&|page| {
        page.blobs.remove(&output);
        page.absent.insert(output, Absence::Erased);
    });
    assert_eq!((erased.ok, erased.erased), (all - 1, 1));
}

/// What a server asks before it says that nothing is wrong.
#[test]
fn what_is_erased_is_unsaid_until_an_entry_says_so() {
    let (book, _, _) = story();
    let entry = book.entries.iter().find_map(|bytes| {
        let entry = check_entry(bytes).unwrap();
        matches!(entry.verified.event(), Event::ExecutionOutput(_)).then_some(entry)
    });
    let batch: Vec<_> = named(0, &entry.unwrap()).collect();
    let found: HashMap<Digest, Held> = batch
        .iter()
        .map(|named| (named.blob.digest, Held::Erased))
        .collect();
    let mut erasures = Erasures::default();
    assert!(!erasures.are_unsaid());
    let (mut counts, mut findings) = (BlobCounts::default(), Findings::default());
    settle(batch, &found).count(&mut counts, &mut findings, &mut erasures);
    assert!(erasures.are_unsaid());
}

/// A server goes on from there.
#[test]
fn a_log_knows_its_last_entry() {
    let (book, _, _) = story();
    let mut log = Log::new(None);
    assert_eq!(log.last(), None);
    let genesis = check_entry(&book.entries[0]).unwrap();
    let (leaf, time) = (genesis.leaf, genesis.time);
    assert!(log.take(0, Ok(genesis), &HashMap::new()));
    assert_eq!(log.last(), Some((leaf, time)));
}

#[test]
fn a_note_claims_a_size_and_a_refused_one_fails_at_its_last_entry() {
    let (book, _, _) = story();
    let size = book.tree.size();
    let forged = signed(size, root(&book, size), "mallory");
    assert_eq!(claimed_size(&forged), Some(size));
    assert_eq!(claimed_size("ledger.example.com"), None);
    let pages = whole_pages(&book);
    let (bytes, _) = write(manifest(&book, Selection::Whole), forged, pages);
    assert_eq!(found(&check(&bytes)), ("unsigned_checkpoint", size - 1));
}

#[test]
fn what_a_key_signed_under_suspicion_is_said() {
    let (mut book, command, _) = story();
    let key_id = support::public("carol").key_id();
    book.change(ChangeBody::KeyRevoked {
        key_id,
        suspect_from: Some(3),
    });
    for bytes in [whole(&book), excerpt(&book, command).0] {
        let report = check(&bytes);
        assert!(report.ok && report.is_suspect());
        let suspect = &report.suspect[0];
        assert_eq!(
            (suspect.key_id, suspect.from, suspect.until),
            (key_id, 3, book.tree.size() - 1)
        );
        assert!(report.to_string().contains("SUSPECT"));
    }
    let (book, _, _) = story();
    let report = check(&whole(&book));
    assert!(!report.is_suspect() && !report.to_string().contains("SUSPECT"));
}

/// The ledger with one run that is going on.
fn running() -> (Book, CommandId) {
    let mut book = book();
    book.enrol("web-1");
    let command = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", command).unwrap();
    book.approve("carol", command).unwrap();
    book.start("web-1", command).unwrap();
    (book, command)
}

#[test]
fn output_past_a_limit_is_checked_by_its_length_alone() {
    let (mut book, command) = running();
    book.output("web-1", command, b"hello\n").unwrap();
    let mut event = book.complete_event("web-1", command, 0);
    if let Event::ExecutionCompleted(done) = &mut event {
        done.stdout = StreamTotals {
            kept: 6,
            ..totals(b"hello\nand more that nobody kept")
        };
        done.stderr = totals(b"");
    }
    book.sign_and_append("web-1", &event).unwrap();
    let report = check(&whole(&book));
    assert_eq!(report.first_bad, None);
    assert_eq!((report.outputs.ok, report.outputs.partial), (1, 1));
}

/// The ledger's guess ends nothing: the host may still speak, and is held to what it says.
#[test]
fn the_output_of_a_run_that_was_presumed_lost_is_checked_all_the_same() {
    let (mut book, command) = running();
    book.now += 100 * SECOND_US;
    let now = Time::from_micros(book.now).unwrap();
    let due = book.command(command).due(now).remove(0);
    let lost = book.ledger_header().due(command, due);
    let Event::ExecutionLost(ExecutionLost { form, .. }) = &lost else {
        panic!("a silent run is presumed lost");
    };
    assert_eq!(*form, LossForm::Presumed);
    book.sign_and_append("ledger", &lost).unwrap();
    book.output("web-1", command, b"late\n").unwrap();
    complete(&mut book, command, b"LATE\n");
    let report = check(&whole(&book));
    let ends: Vec<u64> = report.other_outputs.iter().map(|other| other.seq).collect();
    assert_eq!(ends, [book.tree.size() - 1]);
    // Nothing of the log rests on what one host says of its own output.
    assert_eq!((report.ok, report.checkpoints), (true, 1));
}

/// The sum of a header stays when two letters of a name change places.
#[test]
fn a_member_by_another_name_is_refused() {
    let (book, command, _) = story();
    for (from, to) in [
        ("/README.txt\0", "/RAEDME.txt\0"),
        ("/manifest.json\0", "/mainfest.json\0"),
        ("/checkpoint\0", "/chekcpoint\0"),
        ("/allowed_signers\0", "/allowed_singers\0"),
        ("/index.json\0", "/idnex.json\0"),
        ("/index.html\0", "/idnex.html\0"),
    ] {
        for bytes in [whole(&book), excerpt(&book, command).0] {
            let renamed = replace(&bytes, from.as_bytes(), to.as_bytes());
            assert_eq!(found(&check(&renamed)).0, "bad_layout", "{to}");
        }
    }
}

/// The bound on what a reader holds in memory, from both sides.
#[test]
fn a_page_with_more_content_than_any_can_have_is_refused() {
    let (book, _, _) = story();
    let with = |extra: bool| {
        let mut pages = whole_pages(&book);
        pages.truncate(1);
        let page = &mut pages[0];
        let held: usize = page
            .blobs
            .values()
            .map(|blob| 32 + blob.content().len())
            .sum();
        let mut left = 48 * 1024 * 1024 - held;
        let mut number = 0_u8;
        while left > 0 {
            let len = left.min(4 * 1024 * 1024);
            let blob = Blob::new([number; 32], vec![0; len - 32]).unwrap();
            page.blobs.insert(Digest::new([number; 32]), blob);
            (left, number) = (left - len, number + 1);
        }
        if extra {
            let blob = Blob::new([0xff; 32], Vec::new()).unwrap();
            page.blobs.insert(Digest::new([0xff; 32]), blob);
        }
        write(manifest(&book, Selection::Whole), note(&book), pages).0
    };
    assert_eq!(found(&check(&with(false))).0, "stray_blob");
    assert_eq!(found(&check(&with(true))).0, "bad_page");
}

fn tail(bytes: &[u8]) -> Tail {
    let mut reader = Reader::open(bytes).unwrap();
    while reader.page().unwrap().is_some() {}
    reader.finish().unwrap()
}

/// The index is written and compared by the same code, so what it says is pinned here.
#[test]
fn the_index_tells_what_the_entries_say() {
    let (mut book, command) = running();
    let long = [&[b'x'; 99][..], b"\n"].concat().repeat(30);
    book.output("web-1", command, b"hello\n").unwrap();
    book.output("web-1", command, &long).unwrap();
    complete(&mut book, command, &[&b"hello\n"[..], &long].concat());
    let other = book.request("alice", &["web-1"]).unwrap();
    for (bytes, scope) in [
        (whole(&book), "the whole ledger"),
        (excerpt(&book, command).0, "chosen commands"),
    ] {
        let report = check(&bytes);
        let tail = tail(&bytes);
        let index: serde_json::Value = serde_json::from_str(&tail.index_json).unwrap();
        assert_eq!(index["entries"], report.entries);
        assert_eq!(
            (&index["more_commands"], &index["more_changes"]),
            (&0.into(), &0.into())
        );
        let commands = index["commands"].as_array().unwrap();
        let ids = commands
            .iter()
            .map(|command| command["id"].as_str().unwrap());
        let mut wanted = vec![command.to_string()];
        if report.scope == Scope::Whole {
            wanted.insert(0, other.to_string());
        }
        assert_eq!(ids.collect::<Vec<_>>(), wanted);
        let shown = commands.last().unwrap();
        assert!(shown["runs"].is_string(), "{shown}");
        let host = &shown["hosts"][0];
        let stdout = host["stdout"].as_str().unwrap();
        assert!(stdout.starts_with("hello") && host["is_cut"] == true);
        assert_eq!(stdout.matches('x').count(), 20 * 99 + 42);
        assert_eq!(shown["more_hosts"], 0);
        let words = shown["words"].as_array().unwrap();
        let of = |kind: &str| words.iter().find(|word| word["kind"] == kind).unwrap();
        assert_eq!(of("command.requested")["text"], "because");
        assert_eq!(of("command.requested")["by"], "person:alice");
        let allowed = of("command.authorized")["text"].as_str().unwrap();
        assert!(allowed.starts_with("policy ") && allowed.contains("approvals in entries"));
        assert!(words.iter().all(|word| word["by"] != "agent:web-1"));
        assert_eq!(shown["more_words"], 0);
        assert_eq!(index["changes"][0]["kind"], "ledger.genesis");
        let people = index["people"].as_array().unwrap();
        let alice = people.iter().find(|person| person["principal"] == "alice");
        let print = countersign_protocol::key::fingerprint(&support::public("alice").key_id());
        assert_eq!(alice.unwrap()["keys"], serde_json::json!([print]));

        let page = &tail.index_html;
        let year = "UTC</dd>";
        for said in [
            scope,
            year,
            "hello",
            "person:alice",
            "ledger.genesis",
            "alice",
            "web-1: ",
            "<h2>People, at the last entry</h2>",
            &format!("<td>alice</td><td>admin</td><td><code>{print}</code>"),
        ] {
            assert!(page.contains(said), "{said} is not in {page}");
        }
        assert!(page.contains("There is more output than is shown here."));

        let signers = &tail.allowed_signers;
        let openssh = support::public("alice").to_openssh();
        for (who, ends, says, never) in [
            (
                "person:alice",
                openssh.as_str(),
                "command.approved",
                "execution.started",
            ),
            ("ledger", "", "command.authorized", "command.approved"),
            ("agent:web-1", "", "execution.started", "command.authorized"),
        ] {
            let begins = format!("{who} namespaces=\"");
            let line = signers
                .lines()
                .find(|line| line.starts_with(&begins) && line.ends_with(ends));
            let said = |line: &str, kind: &str| line.contains(&format!("{kind}.v1@countersign"));
            assert!(
                line.is_some_and(|line| said(line, says) && !said(line, never)),
                "{who}"
            );
        }
    }
    // Of a short output nothing is cut.
    let (book, _, _) = story();
    let index: serde_json::Value = serde_json::from_str(&tail(&whole(&book)).index_json).unwrap();
    assert_eq!(index["commands"][1]["hosts"][0]["is_cut"], false);
}

/// What a report does not show is said by it, and only then.
#[test]
fn a_report_says_in_words_what_it_does_not_show() {
    let notes = [
        "internally consistent only",
        "not here in full",
        "texts are withheld",
        "texts are redacted",
        "are not judged again",
    ];
    let said = |report: &Report| {
        let text = report.to_string();
        notes.map(|note| text.contains(note))
    };
    let (mut book, command, _) = story();
    let bytes = whole(&book);
    assert_eq!(said(&check_pinned(&bytes, ledger(&book))), [false; 5]);
    assert_eq!(said(&check(&bytes)), [true, false, false, false, false]);
    let mut pages = whole_pages(&book);
    for page in &mut pages {
        for bytes in &page.entries {
            let entry = check_entry(bytes).unwrap();
            // Without its text no change of rights is judged at all.
            if matches!(entry.verified.event(), Event::ChangeRequested(_)) {
                continue;
            }
            for named in entry.verified.event().blobs() {
                page.blobs.remove(&named.digest);
                page.absent.insert(named.digest, Absence::Withheld);
            }
        }
    }
    let (bytes, _) = write(manifest(&book, Selection::Whole), note(&book), pages);
    let report = check_pinned(&bytes, ledger(&book));
    assert_eq!(report.first_bad, None);
    assert_eq!(said(&report), [false, true, true, false, true]);
    assert!(report.to_string().contains("1 of 2 streams"));
    let output = digest_of(&book, b"hello\n");
    book.change(redaction(command, output));
    book.blobs.remove(&output);
    let report = check_pinned(&whole(&book), ledger(&book));
    assert_eq!(said(&report), [false, true, false, true, false]);
}

/// The last entry there is, of a ledger and of chosen entries of it.
#[test]
fn a_changed_index_is_named_at_the_last_entry() {
    let (mut book, command, _) = story();
    let whole_bytes = whole(&book);
    assert_eq!(place_of_a_changed_index(&whole_bytes), book.tree.size() - 1);
    // What comes after the command is not chosen.
    book.request("alice", &["web-1"]).unwrap();
    let last = *places(&book, command).last().unwrap();
    assert!(last + 1 < book.tree.size());
    assert_eq!(place_of_a_changed_index(&excerpt(&book, command).0), last);
}

fn place_of_a_changed_index(bytes: &[u8]) -> u64 {
    let changed = replace(bytes, b"<h2>Commands</h2>", b"<h2>commands</h2>");
    let (name, place) = found(&check(&changed));
    assert_eq!(name, "changed_index");
    place
}

/// Behind the last entry that was read, and at the first where none was.
#[test]
fn a_file_that_is_cut_off_is_named_behind_its_last_entry() {
    let (book, command, _) = story();
    let (bytes, _) = excerpt(&book, command);
    let last = *places(&book, command).last().unwrap();
    let inside_the_index = bytes.len() - 2 * 512 - 1;
    assert_eq!(
        found(&check(&bytes[..inside_the_index])),
        ("cut_off", last + 1)
    );
    let before_any_entry = 512;
    assert_eq!(found(&check(&bytes[..before_any_entry])), ("cut_off", 0));
}
