//! Makes the seeds: a ledger in memory, grants of it, files as people write them, and what the
//! golden vectors hold.

use std::fs;
use std::path::{Path, PathBuf};

use countersign_agent::spool::{About, Birth, FILE, Record, Spool};
use countersign_fuzz_bodies::{Runs, Story, TARGETS};
use countersign_protocol::api::{Base64, BlobBody, LedgerInfo, Receipt, Submission, Work};
use countersign_protocol::canonical;
use countersign_protocol::command::{Act, Environment};
use countersign_protocol::cosignature::WitnessKey;
use countersign_protocol::entry::{self, Entry};
use countersign_protocol::event::Outcome;
use countersign_protocol::hash::{CommandId, Digest, KeyId, StatementId};
use countersign_protocol::key::to_openssh_private;
use countersign_protocol::name::Time;
use countersign_protocol::proof;
use countersign_protocol::quorum::{BreakGlass, Demand, Requirement, Seats};
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::secret::{Delivery, SealedBox, SealedSecret, SealedSecrets, plaintext};
use countersign_protocol::tlog_proof::TlogProof;

use crate::support::book::{Book, key, public};
use crate::support::grants::{World, grant, stream};

/// Where the bodies keep the story.
fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(name)
}

fn put(target: &str, name: &str, bytes: impl AsRef<[u8]>) {
    let path = super::folder().join(target).join(name);
    fs::write(path, bytes).unwrap();
}

/// The ledger: two commands that may run here, one of whose approvers does not count here, one that
/// waits, one that was cancelled, one for another host, one that nobody approved.
fn told() -> (World, Story, Vec<StatementId>) {
    let mut world = World::new();
    world.book.enrol("web-2");
    let quiet = |argv: &[&str]| Runs {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        env: vec![],
        stdin: String::new(),
    };
    let act = world.act();
    let plain = world.approved(act);
    let variables = vec![("LANG".to_owned(), "C".to_owned())];
    let document = Environment::new(variables.clone())
        .unwrap()
        .to_document()
        .unwrap();
    let (env, stdin) = (world.book.blob(&document), world.book.blob(b"hello\n"));
    let act = world
        .book
        .act(&["web-1", "web-2"], &Book::spec(&["echo", "a b", "*"]));
    let rich = world.approved(Act {
        env: Some(env),
        stdin: Some(stdin),
        ..act
    });
    let act = world.act();
    let unpinned = world.book.request("alice", act);
    world.book.approve("bob", unpinned).unwrap();
    world.book.approve("dave", unpinned).unwrap();
    let act = world.act();
    let waiting = world.book.request("carol", act);
    world.book.approve("bob", waiting).unwrap();
    let cancelled = world.approved_true();
    let book = &mut world.book;
    let event = say!(person book, "bob", CommandCancelRequested { command: cancelled, token: None, reason: None });
    world.book.sign_and_append("bob", &event).unwrap();
    let act = world.book.act(&["web-2"], &Book::spec(&["true"]));
    let elsewhere = world.approved(act);
    let everybody = "alice,bob,carol,dave";
    let policy = format!("2 {everybody} {everybody}\n1 alice - break-glass=60");
    world.book.publish_text(&policy);
    let mut act = world.act();
    act.break_glass = true;
    let broken = world.book.request("alice", act);

    let ids = vec![plain, rich, unpinned, waiting, cancelled, elsewhere, broken];
    let mut full = quiet(&["echo", "a b", "*"]);
    (full.env, full.stdin) = (variables, "hello\n".to_owned());
    // Without the cancel, which a server can hide, the cancelled one was approved as any other.
    let runs = [
        Some(quiet(&["true"])),
        Some(full),
        None,
        None,
        Some(quiet(&["true"])),
        None,
        // Nobody of this host's list broke the glass.
        None,
    ];
    let host = |id: StatementId| if id == elsewhere { "web-2" } else { "web-1" };
    let grants = ids.iter().map(|id| grant(&world.book, *id, host(*id)));
    let story = Story {
        entries: world.book.entries.iter().cloned().map(Base64).collect(),
        blobs: world.book.blobs.values().map(BlobBody::from).collect(),
        grants: grants.zip(runs).collect(),
    };
    (world, story, ids)
}

#[test]
fn the_story_is_the_one_that_the_agents_tests_would_tell() {
    let (_, story, _) = told();
    let committed = countersign_fuzz_bodies::story();
    assert!(
        story == *committed,
        "run: cargo test -p countersign-fuzz-bodies -- --ignored write"
    );
}

#[test]
#[ignore = "writes the seeds anew after a decided change of the protocol"]
fn write_the_seeds() {
    for (name, _) in TARGETS {
        fs::create_dir_all(super::folder().join(name)).unwrap();
    }
    let (world, story, ids) = told();
    fs::write(source("story.json"), serde_json::to_vec(&story).unwrap()).unwrap();
    files(&story);
    bundles(&world);
    wire(&world, &story, &ids);
    witnesses();
    statements(&story);
    secrets();
    journals(&story);
}

/// The golden document, one for two hosts, and what stands inside a box.
fn secrets() {
    let vector = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/sealed.json");
    let vector: serde_json::Value = serde_json::from_slice(&fs::read(vector).unwrap()).unwrap();
    put("secrets", "golden", vector["document"].as_str().unwrap());
    let secret = |name: &str, delivery| SealedSecret {
        boxes: [1, 2]
            .map(|key| SealedBox {
                ciphertext: Base64(vec![0; 256 + 16]),
                enc: Base64(vec![0; 32]),
                key_id: KeyId::new([key; 32]),
            })
            .into(),
        delivery,
        digest: Digest::new([2; 32]),
        name: name.parse().unwrap(),
    };
    let sealed = SealedSecrets::new(vec![
        secret("TOKEN", Delivery::Env),
        secret("tls.key", Delivery::File),
        secret("word", Delivery::Stdin),
    ]);
    put(
        "secrets",
        "two-hosts",
        sealed.unwrap().to_document().unwrap(),
    );
    put(
        "secrets",
        "plaintext",
        plaintext(&[7; 32], b"correct horse").unwrap(),
    );
}

fn files(story: &Story) {
    let line = |name: &&str| format!("{name} {}\n", public(name).to_openssh());
    let people: String = ["alice", "bob", "carol"].iter().map(line).collect();
    fs::write(source("allowed_signers"), &people).unwrap();
    put("signers", "plain", &people);
    let dated = "# who\n\nbob namespaces=\"command.approved.v1@countersign,command.rejected.v1@countersign\" \
                 valid-after=\"20260101Z\",valid-before=\"202801021504Z\" "
        .to_owned();
    put(
        "signers",
        "options",
        dated + &public("bob").to_openssh() + " a comment\r\n",
    );
    put(
        "signers",
        "refused",
        format!("b*b {}\n", public("bob").to_openssh()),
    );
    let ledger = entry::leaf(&story.entries[0].0);
    let vkey = countersign_protocol::checkpoint::VerifierKey::of(
        &"ledger.example.com".parse().unwrap(),
        &public("checkpoint"),
    );
    let pins = format!(
        "server = \"http://127.0.0.1:8080\"\nname = \"web-1\"\nstate = \"state\"\nledger = \"{ledger}\"\n\
         origin = \"ledger.example.com\"\nvkey = \"{}\"\nallowed_signers = \"allowed_signers\"\n",
        vkey.unwrap()
    );
    let open =
        format!("{pins}execution = true\nallow_all = true\npath = [\"/usr/bin\", \"/bin\"]\n");
    fs::write(source("agent.toml"), &open).unwrap();
    let careful = format!("{pins}{}", include_str!("careful.in.toml"));
    fs::write(source("careful.toml"), &careful).unwrap();
    put("config", "open", &open);
    put("config", "least", &pins);
    put("config", "careful", &careful);
    put(
        "config",
        "full",
        format!("{pins}{}", include_str!("full.in.toml")),
    );
    put(
        "config",
        "variables",
        format!("{pins}\0EXECUTION=true\nMIN_APPROVALS=3\nMODES=exec,shell\nNAME=web-2\n"),
    );
    put(
        "config",
        "mistakes",
        format!("{pins}min_approvals = 0\n[[deny]]\nname = \"x\"\n"),
    );
    for (name, argv) in [
        ("listed", &["true", "restart", "nginx.service"][..]),
        ("unlisted", &["true", "restart", "--force"]),
        ("rest", &["echo", "a", "b"]),
        ("denied", &["echo", "a secret"]),
    ] {
        let spec = Book::spec(argv).to_document().unwrap();
        let variables = vec![
            ("APP_MODE".to_owned(), "x".to_owned()),
            ("LANG".to_owned(), "C".to_owned()),
        ];
        let environment = Environment::new(variables).unwrap().to_document().unwrap();
        put("rules", name, [&spec[..], b"\0", &environment].concat());
    }
    for (name, pattern, text) in [
        ("unit", "nginx{,.service}", "nginx.service"),
        ("option", "-*", "--force"),
        ("no-option", "*.d", "-x.d"),
        ("climbs", "*", ".."),
        ("path", "/var/log/*", "/var/log/../x"),
        ("escaped", "\\{a\\,?\\}*", "{a,b}c"),
        ("stars", "*a*b?{*,c}d", "xaybzcd"),
        ("variable", "LC_*", "LD_PRELOAD"),
    ] {
        put("patterns", name, format!("{pattern}\0{text}"));
    }
    let pem = to_openssh_private(&key("web-1"), "countersign agent", 1);
    put(
        "key_file",
        "fresh",
        format!("# journal {}\n{}", "0a".repeat(16), pem),
    );
    put(
        "keys",
        "private",
        to_openssh_private(&key("web-1"), "web-1", 1),
    );
    put("keys", "line", public("web-1").to_openssh());
    put("keys", "blob", public("web-1").to_blob());
}

/// Edits of the two honest bundles, some bytes that are one, and proofs of the ledger in memory.
fn bundles(world: &World) {
    // Which bundle, then edits: the file, what, the other file, where (two bytes), how long, and more.
    let edits: [(&str, &[u8]); 11] = [
        ("whole", &[0]),
        ("excerpt", &[1]),
        ("changes-an-entry", &[0, 3, 0, 0, 1, 200, 0, 1]),
        ("changes-the-manifest", &[1, 1, 0, 0, 0, 40, 0, 1]),
        ("changes-a-proof", &[1, 6, 0, 0, 0, 60, 0, 1]),
        ("swaps-proofs", &[1, 7, 6, 8]),
        ("anothers-proof", &[1, 7, 7, 8]),
        ("changes-a-text", &[0, 6, 0, 0, 0, 34, 0, 1]),
        ("drops-a-text", &[0, 6, 4]),
        ("withholds-a-text", &[0, 6, 9, 0, 0, 0, 0, 0]),
        ("erases-a-text", &[0, 6, 9, 0, 0, 0, 0, 1]),
    ];
    for (name, edits) in edits {
        put("bundle", name, edits);
    }
    put(
        "bundle",
        "raw",
        &include_bytes!("../../src/bundle.tar")[..12 << 10],
    );
    let (tree, checkpoint) = (&world.book.tree, world.book.checkpoint());
    for (name, index) in [("first", 0), ("middle", 7)] {
        let proof = TlogProof {
            index,
            hashes: proof::inclusion_proof(tree, index, checkpoint.size()).unwrap(),
            note: checkpoint.note().to_owned(),
        };
        put("tlog_proof", name, proof.to_string());
    }
    put(
        "tlog_proof",
        "alone",
        "c2sp.org/tlog-proof@v1\nindex 0\n\nnote\n",
    );
}

fn witnesses() {
    let note = &countersign_fuzz_bodies::cosigned().note;
    put("cosigned_note", "whole", note);
    let (body, lines) = note.split_once("\n\n").unwrap();
    let lines: Vec<&str> = lines.lines().collect();
    put("cosigned_note", "twice", format!("{note}{}\n", lines[1]));
    put(
        "cosigned_note",
        "alone",
        format!("{body}\n\n{}\n", lines[0]),
    );
    let hash = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
    put("add_checkpoint", "first", format!("old 0\n\n{note}"));
    put(
        "add_checkpoint",
        "proof",
        format!("old 3\n{hash}\n{hash}\n\n{note}"),
    );
    for (name, place) in [
        ("full", "000"),
        ("partial", "001.p/44"),
        ("far", "x001/x234/067"),
        ("far-partial", "x001/x234/067.p/255"),
    ] {
        put("tile_place", name, place);
    }
    let witness = |name: &str| {
        let key = WitnessKey::of(&name.parse().unwrap(), &key(name));
        format!("witness {name} {key} https://{name}\n")
    };
    let (one, two) = (witness("one"), witness("two"));
    put("witness_policy", "nobody", "quorum none\n");
    put("witness_policy", "one", format!("{one}quorum one\n"));
    put(
        "witness_policy",
        "groups",
        format!(
            "# ours\n{one}{two}{}group in 1 one two\ngroup out all in three\nquorum out\n",
            witness("three")
        ),
    );
}

fn wire(world: &World, story: &Story, ids: &[StatementId]) {
    for (number, (grant, _)) in story.grants.iter().enumerate() {
        let work = serde_json::to_vec(&Work::Grant(Box::new(grant.clone()))).unwrap();
        put("grant", &format!("command-{number}"), &work);
        if number == 0 {
            put(
                "events",
                "work",
                [
                    b"\x07event: work\ndata: ",
                    &work[..100],
                    b"\n\n: still here\n\n",
                ]
                .concat(),
            );
        }
        put(
            "thief",
            &format!("honest-{number}"),
            [u8::try_from(number).unwrap()],
        );
    }
    let cancel = Work::Cancel(stream(&world.book, ids[4]));
    put("grant", "cancel", serde_json::to_vec(&cancel).unwrap());
    // Base, then edits: what, where, and what each of them reads.
    let thefts: [(&str, &[u8]); 9] = [
        ("breaks-the-glass", &[3, 4, 2, 0, 3]),
        ("hides-the-cancel", &[4, 0, 4]),
        ("names-too-few", &[3, 4, 2, 2, 1]),
        ("speaks-for-carol", &[3, 5, 1, 2, 0, 4, 2, 6, 2]),
        ("takes-another-line", &[5, 9, 0, 1, 1]),
        ("changes-a-document", &[0, 8, 0, 0, 90, 1]),
        ("changes-a-payload", &[0, 3, 0, 0, 100, 1]),
        ("moves-an-approval", &[2, 1, 2, 9, 4, 3, 6, 2]),
        ("adds-a-command", &[2, 11, 0, 0, 4, 3, 48, 2]),
    ];
    for (name, edits) in thefts {
        put("thief", name, edits);
    }
    put("events", "fields", b"\x01: hello\n\nevent: work\nid: 7\ndata: {\"a\":\ndata: 1}\n\r\ndata:x\r\r\nevent: none\n\n");
    put(
        "events",
        "large",
        [b"\x40data: ".to_vec(), vec![b'x'; 300]].concat(),
    );
    put("proofs", "small", [6, 2, 1, 0, 0, 3, 255, 0, 0]);
    put(
        "proofs",
        "large",
        [
            69, 40, 3, 1, 1, 2, 2, 3, 1, 2, 2, 3, 3, 1, 0, 0, 4, 5, 200, 7, 100, 7,
        ],
    );
    put("proofs", "whole", [4, 4, 0, 0, 1, 2, 0, 1, 1]);
    let checkpoint = world.book.checkpoint();
    let seq = world.seq_of(ids[0]);
    let bytes = &world.book.entries[usize::try_from(seq).unwrap()];
    let receipt = Receipt {
        statement_id: ids[0].to_string(),
        seq,
        time_us: world.now,
        entry: Base64(bytes.clone()),
        leaf: entry::leaf(bytes).to_string(),
        checkpoint: checkpoint.note().to_owned(),
        inclusion: proof::inclusion_proof(&world.book.tree, seq, checkpoint.size()).unwrap(),
        since_seen: proof::consistency_proof(&world.book.tree, seq, checkpoint.size()),
        status: Some("authorized".into()),
        repeated: false,
        results: None,
    };
    put("answers", "receipt", serde_json::to_vec(&receipt).unwrap());
    let info = LedgerInfo {
        ledger: entry::leaf(&story.entries[0].0).to_string(),
        origin: "ledger.example.com".into(),
        vkey: "x".into(),
        checkpoint: checkpoint.note().to_owned(),
        genesis: story.entries[0].clone(),
    };
    put("answers", "ledger", serde_json::to_vec(&info).unwrap());
    put(
        "answers",
        "problem",
        r#"{"answers":[{"problem":{"type":"about:blank","title":"t","status":409,"code":"agent_chain","detail":"d"}}]}"#,
    );
    put(
        "answers",
        "proof",
        r#"{"checkpoint":"c","proof":["0000000000000000000000000000000000000000000000000000000000000000"]}"#,
    );
    put("note", "checkpoint", checkpoint.note());
    put("note", "body", checkpoint.body().to_string());
    put("note", "name", "deploy@web-1.example.com");
}

/// One of each kind, as the golden vectors have them.
fn statements(story: &Story) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/statements");
    for file in fs::read_dir(folder).unwrap() {
        let text = fs::read(file.unwrap().path()).unwrap();
        let vector: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let field = |name: &str| vector[name].as_str().unwrap().to_owned();
        let kind = field("kind");
        put(
            "payload",
            &kind,
            format!("{}\n{}", field("namespace"), field("payload")),
        );
        if kind == "command.approved" || kind == "execution.output" {
            put("sshsig", &format!("{kind}.armour"), field("signature"));
        }
    }
    changes();
    for (number, entry) in story.entries.iter().enumerate().step_by(5) {
        let statement = Entry::decode(&entry.0).unwrap().statement;
        put("entry", &format!("{number}"), &entry.0);
        put("sshsig", &format!("{number}"), statement.signature);
    }
    for (number, blob) in story.blobs.iter().enumerate() {
        if number % 2 == 0 && blob.content.0.starts_with(b"{") || blob.content.0.starts_with(b"[") {
            put("documents", &format!("{number}"), &blob.content.0);
        }
    }
    put("documents", "line", &story.grants[0].0.line.0);
    put(
        "documents",
        "facts",
        r#"[["arch","x86_64"],["interface.eth0","192.0.2.7"]]"#,
    );
}

/// The changes of the golden vectors' log, and requirements as a ledger writes them.
fn changes() {
    let blobs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/log/blobs.jsonl");
    for line in fs::read_to_string(blobs).unwrap().lines() {
        let blob: serde_json::Value = serde_json::from_str(line).unwrap();
        let content: Base64 = serde_json::from_value(blob["content"].clone()).unwrap();
        if let Ok(body) = ChangeBody::parse(&content.0) {
            put("change", body.kind().as_str(), &content.0);
        }
    }
    let mut requirement = Requirement::of(2, vec!["group:sre".parse().unwrap()]);
    requirement.rules = vec!["restart".parse().unwrap()];
    requirement.approval_age_ms = Some(1_800_000);
    requirement.demands.push(Demand(vec![Seats {
        approvals: 1,
        from: vec![
            "permission:command:approve".parse().unwrap(),
            "user:bob".parse().unwrap(),
        ],
    }]));
    requirement.demands.sort();
    put(
        "requirement",
        "approvals",
        canonical::to_vec(&requirement).unwrap(),
    );
    requirement.demands.clear();
    requirement.break_glass = Some(BreakGlass {
        review_ms: 3_600_000,
    });
    put(
        "requirement",
        "break-glass",
        canonical::to_vec(&requirement).unwrap(),
    );
    // Demands, seats of each, approvals and groups of each; people; members of each group.
    put("requirement", "two-groups", [1, 2, 1, 1, 1, 2, 2, 3, 6]);
    put(
        "requirement",
        "moves",
        [2, 2, 1, 3, 1, 2, 1, 2, 7, 5, 1, 2, 4, 31, 31],
    );
}

fn time(micros: u64) -> Time {
    Time::from_micros(micros).unwrap()
}

/// A journal as an agent writes it, whole and torn, and its records.
fn journals(story: &Story) {
    let entries = story
        .entries
        .iter()
        .map(|entry| Entry::decode(&entry.0).unwrap().statement);
    let statements: Vec<_> = entries.collect();
    let submission = |at: usize| Submission::new(&statements[at], []);
    let (command, started, done) = (
        CommandId::new([3; 32]),
        StatementId::new([4; 32]),
        StatementId::new([5; 32]),
    );
    let word = |about, id, at| Record::Word {
        about,
        id,
        submission: submission(at),
    };
    let chunk = |id, at| Record::Chunk {
        started,
        id: StatementId::new([id; 32]),
        submission: submission(at),
    };
    let totals = countersign_agent::spool::Totals {
        total: 5,
        kept: 5,
        sha256: Digest::new([9; 32]),
    };
    let facts = countersign_agent::spool::EndFacts {
        detail: None,
        outcome: Outcome::Exited,
        exit_code: Some(0),
        signal: None,
        duration_us: 1000,
        cpu_us: 10,
        max_rss: 1 << 20,
        stdout: totals,
        stderr: totals,
        tree_gone: true,
        masked: None,
    };
    let appends: Vec<Vec<Record>> = vec![
        vec![Record::Enrolment(submission(0))],
        vec![Record::Accepted],
        vec![
            Record::Used {
                command,
                until: time(9_000_000),
            },
            word(About::Started(command), started, 1),
        ],
        vec![Record::Answered {
            id: started,
            accepted: true,
        }],
        vec![chunk(6, 2), chunk(7, 3)],
        vec![Record::Delivered { started, chunks: 1 }],
        vec![Record::Ended { started, facts }],
        vec![word(About::Completed(started), done, 4)],
        vec![Record::Answered {
            id: done,
            accepted: true,
        }],
        vec![Record::Closed { started }],
    ];
    let folder = tempfile::tempdir().unwrap();
    let birth = Birth {
        key_id: KeyId::new([1; 32]),
        journal_id: "00".into(),
        created: time(1),
    };
    Spool::create(folder.path(), &birth).unwrap();
    let spool = Spool::open(folder.path()).unwrap();
    let file = || fs::read(folder.path().join(FILE)).unwrap();
    put("journal", "born", file());
    let mut bodies = vec![serde_json::to_string(&[Record::Birth(birth)]).unwrap()];
    for (number, records) in appends.into_iter().enumerate() {
        bodies.push(serde_json::to_string(&records).unwrap());
        // The last of them only if it may follow: what a journal refuses is a seed as well.
        if spool.append(&records).is_err() {
            break;
        }
        if number == 4 {
            let running = file();
            put("journal", "running", &running);
            put("journal", "torn", &running[..running.len() - 9]);
            put("records", "running", bodies.join("\n"));
            let mut holed = running.clone();
            let from = running.len() - 700;
            holed[from..].fill(0);
            put("journal", "holed", holed);
            let mut damaged = running;
            damaged[40] ^= 1;
            put("journal", "damaged", damaged);
        }
    }
    put("records", "whole", bodies.join("\n"));
}
