//! What would run, and where: documents, environment, directory, user, switches. ATTACKS row 14.

use countersign_agent::admission::{Unproven, Verdict};
use countersign_agent::rules::{NamePattern, is_dangerous};
use countersign_protocol::api::BlobBody;
use countersign_protocol::command::{CommandSpec, Environment, Mode};
use countersign_protocol::event::RefusalReason;
use countersign_protocol::hash::StatementId;

use crate::support::{Book, World};

/// An approved command of this spec.
fn approved(world: &mut World, spec: &CommandSpec) -> StatementId {
    let act = world.book.act(&["web-1"], spec);
    world.approved(act)
}

/// An approved `true` with these variables.
fn with_variables(world: &mut World, variables: &[(&str, &str)]) -> StatementId {
    let pairs = variables.iter().map(|(k, v)| ((*k).into(), (*v).into()));
    let environment = Environment::new(pairs.collect()).unwrap();
    let mut act = world.act();
    act.env = Some(world.book.blob(&environment.to_document().unwrap()));
    world.approved(act)
}

#[test]
fn a_swapped_or_withheld_document_is_not_what_was_signed() {
    let mut world = World::new();
    let id = with_variables(&mut world, &[("LC_ALL", "C")]);
    let honest = world.grant(id);
    assert!(matches!(world.admit(&honest), Ok(Verdict::Run(_))));
    let other = Book::spec(&["rm", "-rf", "/"]).to_document().unwrap();
    for at in 0..honest.stream.blobs.len() {
        let name = String::from_utf8_lossy(&honest.stream.blobs[at].content.0).into_owned();
        if !name.contains("argv") && !name.contains("LC_ALL") {
            continue;
        }
        let mut swapped = honest.clone();
        swapped.stream.blobs[at].content.0 = other.clone();
        assert!(matches!(world.admit(&swapped), Err(Unproven::Document(_))));
        let mut withheld = honest.clone();
        withheld.stream.blobs.remove(at);
        assert!(matches!(world.admit(&withheld), Err(Unproven::Document(_))));
    }
}

#[test]
fn standard_input_is_the_signed_bytes() {
    let mut world = World::new();
    let mut act = world.act();
    act.stdin = Some(world.book.blob(b"yes\n"));
    let id = world.approved(act);
    let mut grant = world.grant(id);
    let Ok(Verdict::Run(permit)) = world.admit(&grant) else {
        panic!("it runs");
    };
    let plan = permit.into_plan(std::time::Duration::ZERO).unwrap();
    assert_eq!(plan.stdin, b"yes\n");
    for blob in &mut grant.stream.blobs {
        if blob.content.0 == b"yes\n" {
            blob.content.0 = b"no\n".to_vec();
        }
    }
    assert!(matches!(world.admit(&grant), Err(Unproven::Document(_))));
}

#[test]
fn a_signed_length_binds_too() {
    let mut world = World::new();
    let mut act = world.act();
    act.stdin = Some(world.book.blob(b"yes"));
    if let Some(stdin) = &mut act.stdin {
        stdin.len += 1;
    }
    let id = world.approved(act);
    assert_eq!(world.unproven(id), Unproven::Document("standard input"));
}

#[test]
fn a_document_that_contradicts_the_act_is_not_run() {
    let mut world = World::new();
    let mut act = world.act();
    let mut other = Book::spec(&["true"]);
    other.timeout_ms = 300_000;
    let blob = world.book.blob(&other.to_document().unwrap());
    act.spec = blob;
    let line = countersign_protocol::target::TargetLine {
        agent: "web-1".parse().unwrap(),
        key_id: crate::support::public("web-1").key_id(),
        service: None,
        spec: blob.digest,
        turn: None,
        facts: None,
    };
    let list = countersign_protocol::target::TargetList::new(vec![line]).unwrap();
    let document = world.book.blob(&list.to_document().unwrap());
    act.targets = list.describe(document).unwrap();
    // The ledger would not enter it; whoever has its keys does.
    let id = world.force_request("alice", "alice", act.clone());
    let approve =
        |world: &mut World, who| world.force_approval((who, who), id, ("alice", &act), |_| {});
    let approvals = vec![approve(&mut world, "bob"), approve(&mut world, "carol")];
    world.force_authorized(id, approvals, 2);
    assert!(matches!(world.unproven(id), Unproven::Unusable { .. }));
}

#[test]
fn only_listed_variables_are_passed() {
    let mut world = World::new();
    for (name, value, runs) in [
        ("LC_ALL", "C", true),
        ("LC_ALL", "../../etc/x", false),
        ("LANG", "C", false),
        ("FOO", "1", false),
        ("LD_PRELOAD", "/tmp/x.so", false),
    ] {
        let id = with_variables(&mut world, &[(name, value)]);
        assert_eq!(world.runs(id), runs, "{name}={value}");
    }
}

#[test]
fn a_loaders_variable_needs_the_list_of_its_own() {
    let mut world = World::new();
    let id = with_variables(&mut world, &[("LD_PRELOAD", "/tmp/x.so")]);
    world.host.rules.environment = vec![NamePattern::parse("L*").unwrap()];
    let refusal = world.refused(id);
    assert_eq!(refusal.why, RefusalReason::NotAllowed);
    assert_eq!(refusal.rule, "environment_dangerous".parse().ok());
    world.host.rules.environment_dangerous = vec![NamePattern::parse("LD_PRELOAD").unwrap()];
    assert!(world.runs(id));
    for name in [
        "BASH_ENV",
        "bash_env",
        "PYTHONPATH",
        "PERL5LIB",
        "NODE_OPTIONS",
        "IFS",
        "PATH",
    ] {
        assert!(is_dangerous(name), "{name}");
    }
    for name in ["LANG", "TZ", "TERM", "APP_ENV", "LC_ALL"] {
        assert!(!is_dangerous(name), "{name}");
    }
}

#[test]
fn a_star_alone_is_no_pattern() {
    for text in ["*", "", "A*B", "*A", "A=", "A B"] {
        assert_eq!(NamePattern::parse(text), None, "{text:?}");
    }
}

#[test]
fn a_directory_behind_a_symlink_is_refused() {
    let mut world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let real = folder.path().canonicalize().unwrap();
    let link = real.join("link");
    std::os::unix::fs::symlink("/", &link).unwrap();
    for (cwd, runs) in [
        (real.clone(), true),
        (link, false),
        (real.join("none"), false),
    ] {
        let mut spec = Book::spec(&["true"]);
        spec.cwd = Some(cwd.to_str().unwrap().to_owned());
        let id = approved(&mut world, &spec);
        assert_eq!(world.runs(id), runs, "{cwd:?}");
        if !runs {
            assert_eq!(world.refused(id).why, RefusalReason::Unusable);
        }
    }
}

#[test]
fn switches_are_off_until_they_are_on() {
    let mut world = World::new();
    let id = world.approved_true();
    world.host.rules.execution = false;
    assert_eq!(world.refused(id).why, RefusalReason::Disabled);

    let mut world = World::new();
    let mut spec = Book::spec(&["echo hello | cat"]);
    spec.mode = Mode::Shell;
    let id = approved(&mut world, &spec);
    assert_eq!(world.refused(id).why, RefusalReason::NotAllowed);
    world.host.rules.modes.push(Mode::Shell);
    assert!(world.runs(id));
    world.host.rules.shell_min_approvals = 3;
    assert_eq!(world.refused(id).why, RefusalReason::Approvals);
}

#[test]
fn root_is_never_implied_and_an_ordinary_agent_becomes_nobody_else() {
    let mut world = World::new();
    let id = world.approved_true();
    let mut spec = Book::spec(&["true"]);
    spec.user = Some("www-data".parse().unwrap());
    let other = approved(&mut world, &spec);
    spec.user = Some("root".parse().unwrap());
    let root = approved(&mut world, &spec);
    assert!(world.runs(id));
    assert_eq!(world.refused(other).rule, "users".parse().ok());
    assert_eq!(world.refused(root).rule, "users".parse().ok());
    let users = ["agent", "www-data", "root"].map(|user| user.parse().unwrap());
    world.host.rules.account.users = Some(users.to_vec());
    assert!(world.runs(id));
    assert_eq!(world.refused(other).rule, "run_as".parse().ok());
    assert_eq!(world.refused(root).rule, "run_as".parse().ok());
    world.host.rules.account.uid = 0;
    world.host.rules.account.name = Some("root".into());
    assert_eq!(world.refused(id).rule, "default_user".parse().ok());
    assert!(world.runs(root));
    world.host.rules.account.default_user = Some("root".parse().unwrap());
    assert!(world.runs(id));
}

#[test]
fn a_program_that_is_not_there_is_an_outcome_and_a_relative_one_a_refusal() {
    let mut world = World::new();
    let id = approved(&mut world, &Book::spec(&["no-such-program"]));
    let Ok(Verdict::Run(permit)) = world.admit(&world.grant(id)) else {
        panic!("the run says that there is no such program");
    };
    assert_eq!(permit.program(), (b"no-such-program".to_vec(), [0; 32]));
    assert_eq!(
        permit.into_plan(std::time::Duration::ZERO).unwrap_err(),
        countersign_agent::execution::Outcome::NotFound
    );
    let id = approved(&mut world, &Book::spec(&["bin/true"]));
    assert_eq!(world.refused(id).why, RefusalReason::Unusable);
}

#[test]
fn blobs_nobody_named_do_no_harm() {
    let mut world = World::new();
    let id = world.approved_true();
    let mut grant = world.grant(id);
    let stray = countersign_protocol::blob::Blob::new([0; 32], b"stray".to_vec()).unwrap();
    grant.stream.blobs.insert(0, BlobBody::from(&stray));
    assert!(matches!(world.admit(&grant), Ok(Verdict::Run(_))));
}
