//! Who may, as the ledger decides it: by the policy and the rights at the entry's own place, also after
//! a restart and by another server, and without approvals only against a review.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use countersign::ledger::{AppendError, Ledger, Settings, StartRule, Submission};
use countersign_protocol::event::Kind;
use countersign_protocol::fold::Refusal;
use countersign_protocol::hash::StatementId;
use countersign_protocol::judgement::{ChangeQuestion, Judge, Judgement, Question};
use countersign_protocol::lifecycle::CommandStatus;
use countersign_protocol::permission::Permission;
use countersign_protocol::policy::Policy;
use countersign_protocol::quorum::Requirement;
use countersign_protocol::rights::ChangeBody;

use super::append::audit_database;
use super::fairness::hold_the_head;
use crate::cedar;
use crate::statements::public;
use crate::support::TestLedger;

const ADMIN: &str = "admin";

/// One rule asks for approvals; the other one for none, but for a review within the hour.
const GLASS: &str = r#"
@id("careful")
@approvals("2")
permit (principal in Role::"admin", action == Action::"command:execute", resource);

@id("glass")
@review_within("1h")
permit (principal == User::"alice", action == Action::"command:break_glass", resource);
"#;

async fn refusal(ledger: &Ledger, submission: Submission) -> Refusal {
    let error = ledger.append(submission).await.unwrap_err();
    let AppendError::Refused(refusal) = error else {
        unreachable!("{error}")
    };
    refusal
}

/// The kinds of the entries from `from` on.
async fn kinds(book: &TestLedger, from: u64) -> Vec<Kind> {
    let mut connection = book.database.app.acquire().await.unwrap();
    let rows = countersign::ledger::store::entries(&mut connection, from, u64::MAX, u64::MAX);
    let rows = rows.await.unwrap();
    let checked = rows
        .iter()
        .map(|row| countersign_protocol::audit::check_entry(&row.entry).unwrap());
    checked.map(|entry| entry.verified.event().kind()).collect()
}

/// The open reviews of a fold of the whole database.
async fn reviews(book: &TestLedger) -> Vec<StatementId> {
    let auditor = audit_database(&book.database.app).await;
    let reviews = auditor.state().rights().reviews();
    reviews.map(|(command, _)| *command).collect()
}

/// A ledger by the built-in policy: two who hold `command:approve`, which administrators do.
async fn by_role() -> TestLedger {
    let mut book = TestLedger::ready().await;
    book.policy = book.publish(&Policy::built_in()).await;
    book
}

#[tokio::test]
async fn broken_glass_is_authorized_and_reviewed_in_the_same_batch() {
    let book = TestLedger::ready().await;
    book.publish(&Policy::new(GLASS.into()).unwrap()).await;
    let receipt = book.send(book.break_glass()).await.unwrap();
    assert_eq!(receipt.status, Some(CommandStatus::Authorized));
    // The checkpoint of the request covers what the ledger said to it: nobody saw one without the other.
    assert_eq!(receipt.checkpoint.size(), receipt.seq + 3);
    assert_eq!(
        kinds(&book, receipt.seq).await,
        [
            Kind::CommandRequested,
            Kind::CommandAuthorized,
            Kind::ReviewOpened
        ]
    );
    let command = receipt.id;
    book.run(command).await;
    assert_eq!(reviews(&book).await, [command]);
    // Whoever broke it does not look at it alone, on no server, now or later.
    let own = refusal(&book.ledger, book.review("alice", command)).await;
    assert_eq!(own, Refusal::OwnReview);
    let anew = book.reopen().await.unwrap();
    let own = refusal(&anew, book.review("alice", command)).await;
    assert_eq!(own, Refusal::OwnReview);
    anew.append(book.review("bob", command)).await.unwrap();
    let again = refusal(&book.ledger, book.review("carol", command)).await;
    assert_eq!(again, Refusal::UnknownReview);
    assert_eq!(reviews(&book).await, []);
}

#[tokio::test]
async fn a_retry_of_broken_glass_runs_once_and_opens_one_review() {
    let book = TestLedger::ready().await;
    book.publish(&Policy::new(GLASS.into()).unwrap()).await;
    let before = book.ledger.newest().size();
    let sent = book.break_glass();
    let sends = (0..8).map(|_| book.send(sent.clone()));
    let receipts = futures_util::future::join_all(sends).await;
    assert!(receipts.iter().all(Result::is_ok), "{receipts:?}");
    assert_eq!(book.ledger.newest().size(), before + 3);
    assert_eq!(reviews(&book).await.len(), 1);
}

#[tokio::test]
async fn glass_that_no_rule_lets_break_stays_whole() {
    let book = TestLedger::ready().await;
    let size = book.ledger.newest().size();
    let refused = refusal(&book.ledger, book.break_glass()).await;
    assert_eq!(refused, Refusal::NoRule);
    assert_eq!(book.ledger.newest().size(), size);
    // And a rule for broken glass is none for whoever asks as always.
    book.publish(&Policy::new(GLASS.into()).unwrap()).await;
    let (request, _) = book.request();
    let asked = book.send(request).await.unwrap();
    assert_eq!(asked.status, Some(CommandStatus::Requested));
    assert_eq!(reviews(&book).await, []);
}

#[tokio::test]
async fn open_requests_are_judged_after_a_restart_as_before() {
    let book = by_role().await;
    let (request, act) = book.request();
    let command = book.send(request).await.unwrap().id;
    book.send(book.approval("bob", command, &act))
        .await
        .unwrap();
    // What changed before the restart holds after it, and what changes after it does too.
    book.take_away(ADMIN, "user:carol").await;
    let anew = book.reopen().await.unwrap();
    let approval = book.approval("carol", command, &act);
    assert_eq!(
        refusal(&anew, approval.clone()).await,
        Refusal::NotPermitted(Permission::CommandApprove)
    );
    let own = refusal(&anew, book.approval("alice", command, &act)).await;
    assert_eq!(own, Refusal::OwnRequest);
    let twice = refusal(&anew, book.approval("bob", command, &act)).await;
    assert_eq!(twice, Refusal::DuplicateApproval);
    book.grant(ADMIN, "user:carol").await;
    let receipt = anew.append(approval).await.unwrap();
    assert_eq!(receipt.status, Some(CommandStatus::Authorized));
    audit_database(&book.database.app).await;
}

#[tokio::test]
async fn an_approval_counts_no_more_once_its_giver_may_not_approve() {
    let book = by_role().await;
    book.join("dave").await;
    book.grant(ADMIN, "user:dave").await;
    let (request, act) = book.request();
    let command = book.send(request).await.unwrap().id;
    book.send(book.approval("carol", command, &act))
        .await
        .unwrap();
    book.take_away(ADMIN, "user:carol").await;
    // A server that starts now counts as the one that was there.
    for (who, status, ledger) in [
        ("bob", CommandStatus::Requested, &book.ledger),
        (
            "dave",
            CommandStatus::Authorized,
            &book.reopen().await.unwrap(),
        ),
    ] {
        let approval = book.approval(who, command, &act);
        let receipt = ledger.append(approval).await.unwrap();
        assert_eq!(receipt.status, Some(status), "{who}");
    }
    audit_database(&book.database.app).await;
}

#[tokio::test]
async fn what_one_server_decided_about_rights_binds_the_other() {
    let book = by_role().await;
    let other = book.another_server().await;
    let (request, act) = book.request();
    let command = other.append(request).await.unwrap().id;
    other
        .append(book.approval("bob", command, &act))
        .await
        .unwrap();
    book.take_away(ADMIN, "user:carol").await;
    let late = book.approval("carol", command, &act);
    assert_eq!(
        refusal(&other, late).await,
        Refusal::NotPermitted(Permission::CommandApprove)
    );
    book.grant(ADMIN, "user:carol").await;
    // Under another policy nothing that was said before counts.
    let old = book.approval("carol", command, &act);
    let text = format!("// The same once more.\n{}", Policy::built_in().text());
    let policy = book.publish(&Policy::new(text).unwrap()).await;
    assert_eq!(refusal(&other, old).await, Refusal::OtherPolicy);
    for (who, ledger, status) in [
        ("bob", &other, CommandStatus::Requested),
        ("carol", &book.ledger, CommandStatus::Authorized),
    ] {
        let approval = book.view().approval(who, command, &act, policy);
        let receipt = ledger.append(approval).await.unwrap();
        assert_eq!(receipt.status, Some(status), "{who}");
    }
    audit_database(&book.database.app).await;
}

#[tokio::test]
async fn broken_glass_on_one_server_is_reviewed_on_the_other() {
    let book = TestLedger::ready().await;
    let other = book.another_server().await;
    book.publish(&Policy::new(GLASS.into()).unwrap()).await;
    let broken = other.append(book.break_glass()).await.unwrap();
    assert_eq!(broken.status, Some(CommandStatus::Authorized));
    assert_eq!(
        refusal(&book.ledger, book.review("alice", broken.id)).await,
        Refusal::OwnReview
    );
    book.send(book.review("carol", broken.id)).await.unwrap();
    let again = refusal(&other, book.review("bob", broken.id)).await;
    assert_eq!(again, Refusal::UnknownReview);
    audit_database(&book.database.app).await;
}

#[tokio::test]
async fn a_policy_that_names_people_binds_both_servers() {
    let mut book = TestLedger::ready().await;
    let other = book.another_server().await;
    book.policy = book.publish(&cedar::names(1, &["alice"], &["carol"])).await;
    let (request, act) = book.request();
    let command = other.append(request).await.unwrap().id;
    for ledger in [&book.ledger, &other] {
        assert_eq!(
            refusal(ledger, book.approval("bob", command, &act)).await,
            Refusal::NotPermitted(Permission::CommandApprove)
        );
    }
    let receipt = other.append(book.approval("carol", command, &act)).await;
    assert_eq!(receipt.unwrap().status, Some(CommandStatus::Authorized));
    audit_database(&book.database.app).await;
}

#[tokio::test]
async fn a_policy_that_makes_no_sense_is_not_even_asked_for() {
    let book = TestLedger::ready().await;
    let size = book.ledger.newest().size();
    let policy = Policy::new("permit (principal, action, resource) when { 1 };".into()).unwrap();
    let digest = policy.digest();
    let body = ChangeBody::PolicyPublished { policy: digest };
    let (request, _) = book.view().change(&body, Some(&policy));
    let refused = refusal(&book.ledger, request).await;
    assert!(matches!(refused, Refusal::Policy(_)), "{refused:?}");
    // A digest without its text, and a text under another's digest.
    let (bare, _) = book.view().change(&body, None);
    assert_eq!(refusal(&book.ledger, bare).await, Refusal::BodyMissing);
    let (swapped, _) = book.view().change(&body, Some(&Policy::built_in()));
    assert_eq!(
        refusal(&book.ledger, swapped).await,
        Refusal::Binding("policy")
    );
    assert_eq!(book.ledger.newest().size(), size);
}

#[tokio::test]
async fn a_key_is_nobodys_without_its_own_word() {
    let book = TestLedger::ready().await;
    let added = |claim| {
        let body = ChangeBody::KeyAdded {
            principal: "dave".parse().unwrap(),
            key: public("dave"),
            claim,
            expires_at: None,
        };
        book.view().change(&body, None).0
    };
    // Another key's word, and its own word that it is somebody else's.
    for claim in [book.claim("mallory", "dave"), book.claim("dave", "mallory")] {
        let refused = refusal(&book.ledger, added(claim)).await;
        assert_eq!(refused, Refusal::KeyClaim);
    }
    book.send(added(book.claim("dave", "dave"))).await.unwrap();
}

/// Forty groups and two people who are in all of them, with names as long as they may be: who is one
/// of whom does not fit into an entry.
#[tokio::test]
async fn a_statement_to_which_the_ledger_could_not_answer_is_refused_and_the_ledger_goes_on() {
    let mut book = TestLedger::ready().await;
    let people = ["dave", "erin"].map(|name| format!("{name}-{}", "x".repeat(120)));
    for name in &people {
        book.join(name).await;
    }
    let groups: Vec<String> = (0..40)
        .map(|n| format!("g{n}-{}", "x".repeat(95)))
        .collect();
    for group in &groups {
        let members: Vec<&str> = people.iter().map(String::as_str).collect();
        book.regroup(group, &members, &[]).await;
    }
    let rule = format!(
        r#"@id("wide") @approvals("2") @from("{}")
           permit (principal == User::"alice", action == Action::"command:execute", resource);"#,
        groups.join(",")
    );
    book.policy = book.publish(&Policy::new(rule).unwrap()).await;
    let (request, act) = book.request();
    let command = book.send(request).await.unwrap().id;
    book.send(book.approval(&people[0], command, &act))
        .await
        .unwrap();
    let size = book.ledger.newest().size();
    // Beside one that nobody has anything against, in one batch or two.
    let (fine, _) = book.request();
    let last = book.approval(&people[1], command, &act);
    let (refused, taken) = tokio::join!(refusal(&book.ledger, last.clone()), book.send(fine));
    assert_eq!(refused, Refusal::TooLarge);
    assert_eq!(taken.unwrap().status, Some(CommandStatus::Requested));
    assert_eq!(book.ledger.newest().size(), size + 1);
    assert_eq!(refusal(&book.ledger, last).await, Refusal::TooLarge);
    // With a rule that says it shorter the same people authorize it.
    book.policy = book
        .publish(&cedar::names(2, &["alice"], &[&people[0], &people[1]]))
        .await;
    for name in &people {
        book.send(book.approval(name, command, &act)).await.unwrap();
    }
    let auditor = audit_database(&book.database.app).await;
    let found = auditor.state().command(&command).unwrap().status();
    assert_eq!(found, CommandStatus::Authorized);
}

/// A judge that takes its time.
#[derive(Debug)]
struct Slow(Arc<dyn Judge>);

impl Judge for Slow {
    fn check(&self, policy: &Policy) -> Result<(), String> {
        self.0.check(policy)
    }

    fn judge(&self, policy: &Policy, question: &Question<'_>) -> Judgement {
        std::thread::sleep(Duration::from_millis(100));
        self.0.judge(policy, question)
    }

    fn judge_change(&self, policy: &Policy, question: &ChangeQuestion<'_>) -> Option<Requirement> {
        self.0.judge_change(policy, question)
    }
}

#[tokio::test]
async fn what_takes_long_to_judge_keeps_neither_other_servers_from_the_head_nor_other_people_from_a_turn()
 {
    let book = TestLedger::ready().await;
    let (waiting, act) = book.request();
    let waiting = book.send(waiting).await.unwrap().id;
    let pool = book.database.another_app().await;
    let settings = book.settings(pool, StartRule::FileRequired);
    let ledger = Ledger::open(Settings {
        judge: Arc::new(Slow(settings.judge)),
        ..settings
    });
    let ledger = ledger.await.unwrap();
    let mut admitted = Vec::new();
    for _each in 0..12 {
        admitted.push(ledger.admit(book.request().0).await.unwrap());
    }
    let late = ledger.admit(book.approval("bob", waiting, &act)).await;
    let last = ledger.admit(book.request().0).await;
    let mut connection = book.database.owner.acquire().await.unwrap();
    let held = hold_the_head(&mut connection).await;
    let entering = admitted.into_iter().map(|admitted| {
        let ledger = ledger.clone();
        tokio::spawn(async move { ledger.enter(admitted).await })
    });
    let entering: Vec<_> = entering.collect();
    book.database.until_a_lock_is_awaited().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    held.rollback().await.unwrap();
    let mut entering = entering.into_iter();
    let first = entering.next().unwrap().await.unwrap().unwrap();
    let (late, last) = tokio::join!(ledger.enter(late.unwrap()), ledger.enter(last.unwrap()));
    let (late, last) = (late.unwrap(), last.unwrap());
    let (mut batches, mut before) = (BTreeSet::from([first.checkpoint.size()]), 1);
    for entered in entering {
        let receipt = entered.await.unwrap().unwrap();
        batches.insert(receipt.checkpoint.size());
        before += usize::from(receipt.seq < late.seq);
        assert!(receipt.seq < last.seq, "one's own stay in their order");
    }
    // Some three in each; the first that the writer took, and all others, would be two.
    assert!(batches.len() > 2, "{batches:?}");
    assert!(before < 12, "all of the flood came before who came late");
    audit_database(&book.database.app).await;
}
