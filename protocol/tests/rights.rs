//! Rights are events: every change needs its quorum, nobody lowers a guard alone, and what a key, a
//! role or a group means is what it means at that position. ATTACKS rows 9, 10, 15.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use countersign_protocol::event::*;
use countersign_protocol::fold::{Effect, Refusal};
use countersign_protocol::hash::{LedgerId, StatementId};
use countersign_protocol::name::{SECOND_US, Time};
use countersign_protocol::permission::{BUILT_IN_ROLES, Permission};
use countersign_protocol::policy::Policy;
use countersign_protocol::rights::{ChangeBody, Holder, MAX_OPEN_OF_ONE};
use countersign_protocol::statement::Statement;
use support::{Book, key, public};

const DAY_US: u64 = 24 * 3600 * SECOND_US;

/// One change of each sort, which would take effect in [`prepared`].
fn every_change(book: &mut Book) -> Vec<ChangeBody> {
    let agent = || "web-1".parse().unwrap();
    let enrolled = |name: &str| (name.parse().unwrap(), public(name));
    let (newcomer, its_key) = enrolled("web-2");
    let (stranger, strange_key) = enrolled("web-3");
    let role = |text: &str| text.parse().unwrap();
    vec![
        book.key_of("erin", "erin"),
        Book::ended("dave"),
        ChangeBody::RoleDefined {
            role: role("readers"),
            permissions: vec![Permission::CommandRead],
        },
        Book::granted("admin", "user:dave"),
        Book::revoked("admin", "user:carol"),
        Book::group("sre", &["bob"], &[]),
        ChangeBody::PolicyPublished {
            policy: Policy::new(POLICY.into()).unwrap().digest(),
        },
        ChangeBody::AgentAccepted {
            agent: newcomer,
            key: its_key,
            replaces: None,
            labels: vec![],
        },
        ChangeBody::AgentRejected {
            agent: stranger,
            key_id: strange_key.key_id(),
        },
        ChangeBody::AgentRelabelled {
            agent: agent(),
            labels: vec!["env=prod".parse().unwrap()],
        },
        ChangeBody::AgentDrained { agent: agent() },
        ChangeBody::AgentUndrained {
            agent: "db-1".parse().unwrap(),
        },
        ChangeBody::AgentRetired { agent: agent() },
        ChangeBody::TokenIssued {
            token: "ci-1".parse().unwrap(),
            principal: "ci@example.com".parse().unwrap(),
            secret: countersign_protocol::hash::Digest::new([1; 32]),
            roles: vec![role("read")],
            permissions: vec![],
            labels: vec![],
            commands: vec![],
            expires_at: Time::from_micros(book.now + DAY_US).unwrap(),
        },
        ChangeBody::TokenRevoked {
            token: "old".parse().unwrap(),
        },
    ]
}

const POLICY: &str = "1 dave bob";

/// With dave, who is nobody in particular, hosts in every state, and a token.
fn prepared() -> Book {
    let mut book = Book::ready();
    book.welcome("dave");
    book.enrol("db-1");
    book.change(ChangeBody::AgentDrained {
        agent: "db-1".parse().unwrap(),
    });
    for name in ["web-2", "web-3"] {
        book.enrol_with(name, name).unwrap();
    }
    book.change(ChangeBody::TokenIssued {
        token: "old".parse().unwrap(),
        principal: "ci@example.com".parse().unwrap(),
        secret: countersign_protocol::hash::Digest::new([2; 32]),
        roles: vec![],
        permissions: vec![],
        labels: vec![],
        commands: vec![],
        expires_at: Time::from_micros(book.now + DAY_US).unwrap(),
    });
    book
}

fn ask(book: &mut Book, who: &str, body: ChangeBody) -> Result<StatementId, Refusal> {
    let policy = matches!(body, ChangeBody::PolicyPublished { .. });
    let document = policy.then(|| book.blob(POLICY.as_bytes()));
    book.ask_with(who, body, document)
}

#[test]
fn every_change_needs_two_administrators_and_no_one_else_will_do() {
    let kinds = every_change(&mut prepared()).len();
    for at in 0..kinds {
        let mut book = prepared();
        let body = every_change(&mut book).remove(at);
        let what = body.kind().as_str();
        let holds = |book: &Book| {
            let decode =
                |bytes: &Vec<u8>| countersign_protocol::entry::Entry::decode(bytes).unwrap();
            let said = |bytes: &&Vec<u8>| decode(bytes).statement.kind == body.kind();
            book.entries.iter().filter(said).count()
        };
        let before = holds(&book);
        assert!(
            matches!(
                ask(&mut book, "dave", body.clone()),
                Err(Refusal::NotPermitted(_))
            ),
            "{what}"
        );
        let change = ask(&mut book, "alice", body.clone()).unwrap();
        assert_eq!(
            book.consent("alice", change),
            Err(Refusal::DuplicateApproval),
            "{what}"
        );
        assert!(
            matches!(book.consent("dave", change), Err(Refusal::NotPermitted(_))),
            "{what}"
        );
        assert_eq!(holds(&book), before, "{what}");
        // Nor does the ledger's own key do it alone.
        let seq = book.entries.len() as u64 - 1;
        for rests_on in [vec![], vec![seq], vec![seq, seq]] {
            let effect = Effect::Change {
                change,
                body: body.clone(),
                rests_on,
            };
            let event = book.ledger_header().effect(effect);
            assert_eq!(
                book.sign_and_append("ledger", &event),
                Err(Refusal::Quorum),
                "{what}"
            );
        }
        book.consent("bob", change).unwrap();
        assert_eq!(holds(&book), before + 1, "{what}");
        book.audit().unwrap();
    }
}

#[test]
fn the_effect_says_exactly_what_was_consented_to() {
    let mut book = Book::ready();
    let change = book
        .ask_change("alice", Book::group("sre", &["bob"], &[]))
        .unwrap();
    let body = book.state.rights().change(&change).unwrap().digest;
    let consent =
        say!(person book, "bob", ChangeApproved { change: change, body: body, reason: None });
    let consented = Statement::sign(&consent, &key("bob")).unwrap();
    // As the server would append it, without the effect.
    let mut other = book.state.clone();
    let at = countersign_protocol::lifecycle::Position {
        seq: book.entries.len() as u64,
        time: Time::from_micros(book.now).unwrap(),
        id: consented.id(),
    };
    let verified = consented.verify().unwrap();
    let leaf = countersign_protocol::hash::Hash::ZERO;
    other
        .admit(&verified, at, leaf, Default::default())
        .unwrap();
    let mut says = |body: ChangeBody, rests_on: Vec<u64>| {
        let event = book.ledger_header().effect(Effect::Change {
            change,
            body,
            rests_on,
        });
        let word = Statement::sign(&event, &key("ledger"))
            .unwrap()
            .verify()
            .unwrap();
        other.clone().admit(&word, at, leaf, Default::default())
    };
    let honest = vec![at.seq - 1, at.seq];
    let more = Book::group("sre", &["bob", "carol"], &[]);
    assert_eq!(says(more, honest.clone()), Err(Refusal::Binding("body")));
    let agreed = || Book::group("sre", &["bob"], &[]);
    assert_eq!(
        says(agreed(), vec![at.seq]),
        Err(Refusal::Binding("rests_on"))
    );
    assert_eq!(says(agreed(), honest), Ok(()));
}

#[test]
fn an_administrator_who_is_none_any_more_consents_to_nothing() {
    let mut book = Book::ready();
    book.welcome("dave");
    book.change(Book::granted("admin", "user:dave"));
    let change = book
        .ask_change("dave", Book::group("sre", &["bob"], &[]))
        .unwrap();
    book.change(Book::revoked("admin", "user:dave"));
    // His own consent, given when he could, counts no more: alice alone is one.
    book.consent("alice", change).unwrap();
    assert!(book.state.rights().change(&change).is_some());
    book.consent("carol", change).unwrap();
    assert!(book.state.rights().change(&change).is_none());
    book.audit().unwrap();
}

#[test]
fn a_consent_with_a_key_that_ended_counts_no_more() {
    let mut book = Book::found(|genesis| {
        genesis.threshold = 3;
        let dave = Administrator {
            principal: "dave".parse().unwrap(),
            key: public("dave"),
        };
        genesis.administrators.push(dave);
    });
    let three = |book: &mut Book, body| {
        let change = book.ask_change("alice", body).unwrap();
        book.consent("bob", change).unwrap();
        book.consent("dave", change).unwrap();
    };
    let change = book
        .ask_change("alice", Book::group("sre", &["bob"], &[]))
        .unwrap();
    book.consent("carol", change).unwrap();
    three(&mut book, Book::ended("carol"));
    book.consent("bob", change).unwrap();
    assert!(book.state.rights().change(&change).is_some());
    book.consent("dave", change).unwrap();
    assert!(book.state.rights().change(&change).is_none());
    book.audit().unwrap();
}

#[test]
fn fewer_administrators_than_a_change_takes_are_never_left() {
    let last = Err(Refusal::LastAdministrators);
    let mut book = Book::ready();
    book.change(Book::revoked("admin", "user:carol"));
    assert_eq!(
        book.ask_change("alice", Book::revoked("admin", "user:bob")),
        last
    );
    assert_eq!(book.ask_change("alice", Book::ended("bob")), last);
    // By way of a group it is the same.
    book.change(Book::group("chiefs", &["bob"], &[]));
    book.change(Book::granted("admin", "group:chiefs"));
    book.change(Book::revoked("admin", "user:bob"));
    assert_eq!(
        book.ask_change("alice", Book::group("chiefs", &[], &["bob"])),
        last
    );
    assert_eq!(
        book.ask_change("alice", Book::revoked("admin", "group:chiefs")),
        last
    );
    // With a second key the first may go; with a successor the person may.
    book.change(book.key_of("bob", "bob-2"));
    book.change(Book::ended("bob"));
    book.audit().unwrap();
}

#[test]
fn two_changes_that_wait_do_not_take_the_last_administrators_together() {
    let mut book = Book::ready();
    let first = book
        .ask_change("alice", Book::revoked("admin", "user:carol"))
        .unwrap();
    let second = book
        .ask_change("carol", Book::revoked("admin", "user:bob"))
        .unwrap();
    book.consent("bob", first).unwrap();
    book.consent("alice", second).unwrap();
    let administrators = book
        .state
        .rights()
        .administrators(Time::from_micros(book.now).unwrap());
    assert_eq!(administrators.len(), 2);
    assert!(book.state.rights().change(&second).is_some());
    book.audit().unwrap();
}

// Keys

#[test]
fn a_key_is_added_only_with_its_own_word_for_this_person_and_this_ledger() {
    let mut book = Book::ready();
    let honest = book.key_of("dave", "dave");
    let mut other_ledger = Book::found(|genesis| genesis.threshold = 1);
    let changed = |claim: Statement| {
        let mut body = honest.clone();
        if let ChangeBody::KeyAdded { claim: held, .. } = &mut body {
            *held = KeyClaim::of(&claim);
        }
        body
    };
    other_ledger.now = book.now;
    let of_another_ledger = other_ledger.claim("dave", "dave");
    assert_ne!(
        other_ledger.state.rights().ledger(),
        book.state.rights().ledger()
    );
    let mut broken = book.claim("dave", "dave");
    let last = broken.signature.len() - 1;
    broken.signature[last] ^= 1;
    let mut missing = book.claim("dave", "dave");
    missing.signature.clear();
    // A word of another kind that looks alike: it has another namespace.
    let word =
        say!(person book, "dave", ChangeRejected { change: StatementId::ZERO, reason: None });
    let word = Statement::sign(&word, &key("dave")).unwrap();
    for (what, claim) in [
        ("another ledger's", of_another_ledger),
        ("another person's", book.claim("erin", "dave")),
        ("another key's", book.claim("dave", "erin")),
        ("broken", broken),
        ("missing", missing),
        ("another kind's", word),
    ] {
        let asked = book.ask_change("alice", changed(claim));
        assert_eq!(asked, Err(Refusal::KeyClaim), "{what}");
    }
    book.change(honest);
    book.audit().unwrap();
}

#[test]
fn a_claim_is_no_entry() {
    let mut book = Book::ready();
    let claim = book.claim("alice", "alice");
    assert_eq!(book.append(claim), Err(Refusal::NotAnEvent));
}

#[test]
fn a_key_signs_until_its_time_is_over() {
    let mut book = Book::ready();
    let end = Time::from_micros(book.now + DAY_US).unwrap();
    let mut body = book.key_of("bob", "bob-2");
    if let ChangeBody::KeyAdded { expires_at, .. } = &mut body {
        *expires_at = Some(end);
    }
    book.change(body.clone());
    let command = book.request("alice", &["web-1"]).unwrap();
    let approval = |book: &mut Book| {
        let event = book.approval_event("bob", command);
        book.with_key("bob-2", event)
    };
    let wait = DAY_US - 1;
    book.now += wait;
    let command = book.request("alice", &["web-1"]).unwrap();
    let event = book.approval_event("bob", command);
    book.with_key("bob-2", event).unwrap();
    book.now += 1;
    assert_eq!(approval(&mut book), Err(Refusal::KeyExpired));
    // What it signed before its end counts no more for what is decided after it.
    book.approve("carol", command).unwrap();
    assert_eq!(book.status(command), "requested");
    book.approve("bob", command).unwrap();
    assert_eq!(book.status(command), "authorized");
    // A key whose end has come is not added, and the holder is the holder for ever.
    if let ChangeBody::KeyAdded { key, claim, .. } = &mut body {
        *key = public("bob-3");
        *claim = KeyClaim::of(&book.claim("bob", "bob-3"));
    }
    assert_eq!(book.ask_change("alice", body), Err(Refusal::KeyExpired));
    book.audit().unwrap();
}

#[test]
fn an_administrators_last_key_in_force_is_not_one_that_is_over() {
    let mut book = Book::ready();
    book.change(Book::revoked("admin", "user:carol"));
    let mut body = book.key_of("bob", "bob-2");
    if let ChangeBody::KeyAdded { expires_at, .. } = &mut body {
        *expires_at = Time::from_micros(book.now + SECOND_US);
    }
    book.change(body);
    book.now += SECOND_US;
    let asked = book.ask_change("alice", Book::ended("bob"));
    assert_eq!(asked, Err(Refusal::LastAdministrators));
}

#[test]
fn two_keys_of_one_person_consent_once() {
    let mut book = Book::ready();
    book.change(book.key_of("alice", "alice-2"));
    let change = book
        .ask_change("alice", Book::group("sre", &["bob"], &[]))
        .unwrap();
    let body = book.state.rights().change(&change).unwrap().digest;
    let again =
        say!(person book, "alice", ChangeApproved { change: change, body: body, reason: None });
    assert_eq!(
        book.with_key("alice-2", again),
        Err(Refusal::DuplicateApproval)
    );
}

#[test]
fn a_key_that_was_revoked_signs_nothing_and_is_nobody_elses() {
    let mut book = Book::ready();
    book.change(book.key_of("bob", "bob-2"));
    book.change(Book::ended("bob-2"));
    assert_eq!(
        book.ask_change("alice", book.key_of("bob", "bob-2")),
        Err(Refusal::KeyTaken)
    );
    assert_eq!(
        book.ask_change("alice", book.key_of("dave", "bob-2")),
        Err(Refusal::KeyTaken)
    );
    assert_eq!(
        book.ask_change("alice", Book::ended("bob-2")),
        Err(Refusal::RevokedKey)
    );
    for own in ["ledger", "checkpoint"] {
        assert_eq!(
            book.ask_change("alice", Book::ended(own)),
            Err(Refusal::KeyRole),
            "{own}"
        );
    }
}

// Roles and groups

#[test]
fn no_role_of_ones_own_changes_rights_and_no_built_in_one_changes() {
    let mut book = Book::ready();
    let defined = |role: &str, permissions: &[Permission]| ChangeBody::RoleDefined {
        role: role.parse().unwrap(),
        permissions: permissions.to_vec(),
    };
    for role in BUILT_IN_ROLES {
        let asked = book.ask_change("alice", defined(role, &[Permission::CommandRead]));
        assert_eq!(asked, Err(Refusal::BuiltInRole), "{role}");
    }
    let asked = book.ask_change("alice", defined("boss", &[Permission::RightsManage]));
    assert_eq!(asked, Err(Refusal::BuiltInRole));
    let all: Vec<Permission> = {
        let mut all = Permission::ALL.to_vec();
        all.retain(|right| *right != Permission::RightsManage);
        all.sort_by_key(|right| right.as_str());
        all
    };
    book.welcome("dave");
    book.change(defined("nearly", &all));
    book.change(Book::granted("nearly", "user:dave"));
    let asked = book.ask_change("dave", Book::granted("admin", "user:dave"));
    assert_eq!(asked, Err(Refusal::NotPermitted(Permission::RightsManage)));
    // He may ask for hosts to be drained; consenting is the administrators'.
    let change = book
        .ask_change(
            "dave",
            ChangeBody::AgentDrained {
                agent: "web-1".parse().unwrap(),
            },
        )
        .unwrap();
    book.consent("alice", change).unwrap();
    assert!(
        book.state.rights().change(&change).is_some(),
        "dave's own counts for nothing"
    );
    book.consent("bob", change).unwrap();
    assert!(book.state.rights().change(&change).is_none());
    book.audit().unwrap();
}

#[test]
fn a_role_means_what_it_means_now_for_everybody_who_has_it() {
    let mut book = Book::ready();
    book.welcome("dave");
    book.change(Book::group("sre", &["dave"], &[]));
    let dave = "dave".parse().unwrap();
    let means = |book: &mut Book, permissions: &[Permission]| {
        book.change(ChangeBody::RoleDefined {
            role: "on-call".parse().unwrap(),
            permissions: permissions.to_vec(),
        });
    };
    means(&mut book, &[Permission::CommandCancel]);
    assert!(!book.state.rights().holds(&dave, Permission::CommandCancel));
    book.change(Book::granted("on-call", "group:sre"));
    assert!(book.state.rights().holds(&dave, Permission::CommandCancel));
    means(&mut book, &[Permission::OutputRead]);
    assert!(!book.state.rights().holds(&dave, Permission::CommandCancel));
    assert!(book.state.rights().holds(&dave, Permission::OutputRead));
    book.change(Book::group("sre", &["bob"], &["dave"]));
    assert!(!book.state.rights().holds(&dave, Permission::OutputRead));
    assert_eq!(
        book.ask_change("alice", Book::granted("on-call", "group:sre")),
        Err(Refusal::NothingChanges)
    );
    book.change(Book::revoked("on-call", "group:sre"));
    book.audit().unwrap();
}

#[test]
fn rights_are_given_to_nobody_who_is_not_there() {
    let mut book = Book::ready();
    for (body, refused) in [
        (
            Book::granted("admin", "user:nobody"),
            Refusal::UnknownPerson,
        ),
        (
            Book::granted("admin", "group:nobody"),
            Refusal::UnknownGroup,
        ),
        (Book::granted("nobody", "user:bob"), Refusal::UnknownRole),
        (Book::granted("read", "role:admin"), Refusal::Binding("to")),
        (
            Book::granted("admin", "permission:command:read"),
            Refusal::Binding("to"),
        ),
        (Book::granted("admin", "user:bob"), Refusal::NothingChanges),
        (Book::revoked("read", "user:bob"), Refusal::NothingChanges),
        (Book::group("sre", &["nobody"], &[]), Refusal::UnknownPerson),
        (Book::group("sre", &[], &["bob"]), Refusal::NothingChanges),
    ] {
        let what = format!("{body:?}");
        assert_eq!(book.ask_change("alice", body), Err(refused), "{what}");
    }
}

#[test]
fn the_lists_of_a_change_have_one_order() {
    for document in [
        r#"{"add":["bob","alice"],"group":"sre","kind":"group.changed"}"#,
        r#"{"add":["bob","bob"],"group":"sre","kind":"group.changed"}"#,
        r#"{"add":["bob"],"group":"sre","kind":"group.changed","remove":["bob"]}"#,
        r#"{"group":"sre","kind":"group.changed"}"#,
        r#"{"kind":"role.defined","permissions":["output:read","command:read"],"role":"x"}"#,
        r#"{"agent":"web-1","kind":"agent.relabelled","labels":["b=1","a=1"]}"#,
    ] {
        assert!(
            ChangeBody::parse(document.as_bytes()).is_err(),
            "{document}"
        );
    }
    let good = br#"{"add":["alice","bob"],"group":"sre","kind":"group.changed"}"#;
    assert!(ChangeBody::parse(good).is_ok());
}

// Policies

#[test]
fn a_policy_is_published_with_its_text_and_counts_from_there() {
    let mut book = Book::ready();
    let digest = Policy::new(POLICY.into()).unwrap().digest();
    let body = || ChangeBody::PolicyPublished { policy: digest };
    assert_eq!(book.ask_change("alice", body()), Err(Refusal::BodyMissing));
    let other = book.blob(b"1 mallory mallory");
    assert_eq!(
        book.ask_with("alice", body(), Some(other)),
        Err(Refusal::Binding("policy"))
    );
    let nonsense = book.ask_policy("alice", "permit everything");
    assert!(matches!(nonsense, Err(Refusal::Policy(_))), "{nonsense:?}");
    book.publish_text(POLICY);
    let in_force = book.state.rights().policy().unwrap();
    assert_eq!(in_force.reference.digest, digest);
    assert_eq!(in_force.reference.seq, book.entries.len() as u64 - 1);
    book.audit().unwrap();
}

#[test]
fn a_rule_sets_the_quorum_of_changes_of_hosts_and_of_nothing_else() {
    let mut book = Book::ready();
    book.publish_text("2 alice bob,carol\n1 alice,bob alice,bob agents");
    let drained = ChangeBody::AgentDrained {
        agent: "web-1".parse().unwrap(),
    };
    let change = book.ask_change("alice", drained).unwrap();
    assert!(
        book.state.rights().change(&change).is_none(),
        "one is enough, by that rule"
    );
    // Carol's asking is judged by the administrators' threshold: no rule speaks of her.
    let undrained = ChangeBody::AgentUndrained {
        agent: "web-1".parse().unwrap(),
    };
    let change = book.ask_change("carol", undrained).unwrap();
    assert!(book.state.rights().change(&change).is_some());
    let change = book
        .ask_change("alice", Book::group("sre", &["bob"], &[]))
        .unwrap();
    assert!(
        book.state.rights().change(&change).is_some(),
        "people are not hosts"
    );
    book.audit().unwrap();
}

// Hosts

#[test]
fn labels_are_what_administrators_say() {
    let mut book = Book::ready();
    let agent = || "web-1".parse().unwrap();
    let labels = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let body = |texts: &[&str]| ChangeBody::AgentRelabelled {
        agent: agent(),
        labels: labels(texts),
    };
    book.change(body(&["env=prod", "group=web"]));
    let held = |book: &Book| {
        book.state
            .rights()
            .labels(&agent())
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(held(&book), ["env=prod", "group=web"]);
    assert_eq!(
        book.ask_change("alice", body(&["env=prod", "group=web"])),
        Err(Refusal::NothingChanges)
    );
    // A host that enrols anew says nothing of labels, and who accepts its key changes none.
    book.rotate("web-1", "web-1 b");
    assert_eq!(held(&book), ["env=prod", "group=web"]);
    let replaces = Some(public("web-1 b").key_id());
    book.enrol_with("web-1", "web-1 c").unwrap();
    let both = ChangeBody::AgentAccepted {
        agent: agent(),
        key: public("web-1 c"),
        replaces,
        labels: labels(&["env=test"]),
    };
    assert!(ChangeBody::parse(&both.to_document().unwrap()).is_err());
    book.change(body(&[]));
    assert!(held(&book).is_empty());
    book.audit().unwrap();
}

#[test]
fn a_drained_host_is_asked_for_nothing_and_starts_nothing() {
    let mut book = Book::ready();
    let waiting = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", waiting).unwrap();
    book.approve("carol", waiting).unwrap();
    let running = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", running).unwrap();
    book.approve("carol", running).unwrap();
    book.start("web-1", running).unwrap();
    let agent = || "web-1".parse().unwrap();
    book.change(ChangeBody::AgentDrained { agent: agent() });
    assert_eq!(book.start("web-1", waiting), Err(Refusal::Drained));
    assert_eq!(book.request("alice", &["web-1"]), Err(Refusal::Drained));
    // What it had begun it ends.
    book.complete("web-1", running, 0).unwrap();
    let again = book.ask_change("alice", ChangeBody::AgentDrained { agent: agent() });
    assert_eq!(again, Err(Refusal::NothingChanges));
    book.change(ChangeBody::AgentUndrained { agent: agent() });
    book.start("web-1", waiting).unwrap();
    book.request("alice", &["web-1"]).unwrap();
    book.audit().unwrap();
}

#[test]
fn a_retired_hosts_keys_end_and_its_name_is_free() {
    let mut book = Book::ready();
    book.rotate("web-1", "web-1 b");
    let waiting = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", waiting).unwrap();
    book.approve("carol", waiting).unwrap();
    book.change(ChangeBody::AgentRetired {
        agent: "web-1".parse().unwrap(),
    });
    for name in ["web-1", "web-1 b"] {
        let record = book.state.rights().key(&public(name).key_id()).unwrap();
        assert!(record.revoked.is_some(), "{name}");
    }
    assert_eq!(book.start("web-1", waiting), Err(Refusal::RevokedKey));
    assert_eq!(
        book.request("alice", &["web-1"]),
        Err(Refusal::UnknownAgent)
    );
    assert_eq!(book.enrol_with("web-1", "web-1"), Err(Refusal::KeyTaken));
    book.enrol_with("web-1", "web-1 anew").unwrap();
    book.change(ChangeBody::AgentAccepted {
        agent: "web-1".parse().unwrap(),
        key: public("web-1 anew"),
        replaces: None,
        labels: vec![],
    });
    // What was approved for the old host is not the new one's.
    let Event::ExecutionStarted(start) = book.start_event("web-1", waiting) else {
        panic!("a start")
    };
    let anew = Event::from(ExecutionStarted {
        signer: public("web-1 anew").key_id(),
        agent_seq: 0,
        agent_prev: StatementId::ZERO,
        ..start
    });
    assert_eq!(
        book.sign_and_append("web-1 anew", &anew),
        Err(Refusal::NotATarget)
    );
    book.audit().unwrap();
}

#[test]
fn a_rejected_key_does_not_ask_again() {
    let mut book = Book::ready();
    book.enrol_with("web-2", "web-2").unwrap();
    let rejected = ChangeBody::AgentRejected {
        agent: "web-2".parse().unwrap(),
        key_id: public("web-2").key_id(),
    };
    book.change(rejected.clone());
    assert_eq!(book.enrol_with("web-2", "web-2"), Err(Refusal::KeyTaken));
    assert_eq!(book.enrol_with("web-3", "web-2"), Err(Refusal::KeyTaken));
    assert_eq!(
        book.ask_change("alice", rejected),
        Err(Refusal::UnknownAgent)
    );
    book.enrol_with("web-2", "web-2 b").unwrap();
    book.audit().unwrap();
}

#[test]
fn the_keys_of_genesis_have_one_holder_each() {
    let book = Book::genesis();
    let rights = book.state.rights();
    let holder = |name: &str| {
        rights
            .key(&public(name).key_id())
            .map(|record| record.holder.clone())
    };
    assert_eq!(holder("gateway"), Some(Holder::Gateway));
    assert_eq!(holder("checkpoint"), Some(Holder::Reserved));
    assert_eq!(holder("ledger"), Some(Holder::Ledger));
    let genesis = rights.genesis().unwrap();
    for shared in ["ledger", "checkpoint", "alice"] {
        let genesis = LedgerGenesis {
            gateway_key: Some(public(shared)),
            ..genesis.clone()
        };
        assert!(Event::from(genesis).to_payload().is_err(), "{shared}");
    }
    assert_ne!(rights.ledger(), Some(LedgerId::new([0; 32])));
}

#[test]
fn whoever_may_ask_for_hosts_alone_does_not_take_all_places_of_the_administrators() {
    let mut book = Book::ready();
    book.welcome("dave");
    book.change(ChangeBody::RoleDefined {
        role: "hosts".parse().unwrap(),
        permissions: vec![Permission::AgentManage],
    });
    book.change(Book::granted("hosts", "user:dave"));
    let relabelled = |number: usize| ChangeBody::AgentRelabelled {
        agent: "web-1".parse().unwrap(),
        labels: vec![format!("n={number}").parse().unwrap()],
    };
    for number in 0..MAX_OPEN_OF_ONE {
        book.ask_change("dave", relabelled(number)).unwrap();
    }
    let more = book.ask_change("dave", relabelled(MAX_OPEN_OF_ONE));
    assert_eq!(more, Err(Refusal::TooManyOpen));
    book.change(Book::ended("dave"));
}
