//! A command's life, told through whole ledgers: what may follow, what may not, and that an audit
//! of the bytes comes to the same answer.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use countersign_protocol::audit::{self, Reason};
use countersign_protocol::blob::MAX_CHUNK_BYTES;
use countersign_protocol::event::*;
use countersign_protocol::fold::Refusal;
use countersign_protocol::hash::StatementId;
use countersign_protocol::lifecycle::{CommandStatus, LOST_GRACE_US};
use countersign_protocol::name::{SECOND_US, Time};
use countersign_protocol::quorum::Membership;
use countersign_protocol::rights::ChangeBody;
use countersign_protocol::statement::{Statement, StatementError};
use support::{Book, key, public};

#[test]
fn a_command_with_two_approvals_runs_and_audits() {
    let (book, command) = Book::story();
    assert_eq!(book.status(command), "completed");
    let auditor = book.audit().unwrap();
    assert_eq!(auditor.size(), book.entries.len() as u64);
    assert_eq!(
        auditor.root_at(auditor.size()),
        book.tree.root_at(book.tree.size())
    );
    assert_eq!(auditor.not_rejudged(), 0);
    assert_eq!(
        auditor.state().command(&command).unwrap(),
        book.command(command)
    );
}

#[test]
fn one_approval_is_not_enough() {
    let mut book = Book::ready();
    let command = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", command).unwrap();
    assert_eq!(book.status(command), "requested");
    assert_eq!(
        book.start("web-1", command),
        Err(Refusal::Over(CommandStatus::Requested))
    );
}

#[test]
fn a_person_counts_once_also_with_two_keys() {
    let mut book = Book::ready();
    book.change(book.key_of("bob", "bob-2"));
    let command = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", command).unwrap();
    assert_eq!(
        book.approve("bob", command),
        Err(Refusal::DuplicateApproval)
    );
    let Event::CommandApproved(mut second) = book.approval_event("bob", command) else {
        panic!()
    };
    second.signer = public("bob-2").key_id();
    let second = Event::from(second);
    assert_eq!(
        book.sign_and_append("bob-2", &second),
        Err(Refusal::DuplicateApproval)
    );
    assert_eq!(book.status(command), "requested");
}

#[test]
fn nobody_judges_their_own_request() {
    let mut book = Book::ready();
    let command = book.request("alice", &["web-1"]).unwrap();
    assert_eq!(book.approve("alice", command), Err(Refusal::OwnRequest));
}

#[test]
fn an_approval_under_a_revoked_key_is_refused_and_one_given_before_counts_no_more() {
    let mut book = Book::ready();
    let command = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", command).unwrap();
    book.change(ChangeBody::KeyRevoked {
        key_id: public("bob").key_id(),
        suspect_from: None,
    });
    assert_eq!(book.approve("bob", command), Err(Refusal::RevokedKey));
    book.approve("carol", command).unwrap();
    assert_eq!(
        book.status(command),
        "requested",
        "bob's approval ended with his key"
    );
    book.audit().unwrap();
}

#[test]
fn an_approval_repeats_the_act_or_is_refused() {
    let mut book = Book::ready();
    let first = book.request("alice", &["web-1"]).unwrap();
    let second = book.request("alice", &["web-1"]).unwrap();
    let Event::CommandApproved(approval) = book.approval_event("bob", first) else {
        panic!()
    };
    let mut other_command = approval.clone();
    other_command.command = second;
    let mut other_user = approval.clone();
    other_user.act.user = Some("root".parse().unwrap());
    let mut other_requester = approval.clone();
    other_requester.requester = "carol".parse().unwrap();
    let mut other_policy = approval.clone();
    other_policy.policy.seq += 1;
    for (changed, why) in [
        (other_command, Refusal::Binding("act")),
        (other_user, Refusal::Binding("act")),
        (other_requester, Refusal::Binding("requester")),
        (other_policy, Refusal::OtherPolicy),
    ] {
        assert_eq!(book.sign_and_append("bob", &Event::from(changed)), Err(why));
    }
    let mut other_ledger = approval;
    other_ledger.ledger = countersign_protocol::hash::LedgerId::new([1; 32]);
    let other_ledger = Event::from(other_ledger);
    assert_eq!(
        book.sign_and_append("bob", &other_ledger),
        Err(Refusal::WrongLedger)
    );
}

#[test]
fn a_policy_change_ends_earlier_approvals() {
    let mut book = Book::ready();
    let command = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", command).unwrap();
    book.publish(2, &["alice"], &["alice", "bob", "carol"]);
    book.approve("carol", command).unwrap();
    assert_eq!(book.status(command), "requested");
    book.approve("bob", command).unwrap();
    assert_eq!(book.status(command), "authorized");
    book.audit().unwrap();
}

#[test]
fn a_rejection_ends_it() {
    let mut book = Book::ready();
    let command = book.request("alice", &["web-1"]).unwrap();
    let event =
        say!(person book, "bob", CommandRejected { command: command, vote: false, reason: None });
    book.sign_and_append("bob", &event).unwrap();
    assert_eq!(book.status(command), "rejected");
    assert_eq!(
        book.approve("carol", command),
        Err(Refusal::Over(CommandStatus::Rejected))
    );
}

#[test]
fn only_the_requester_withdraws() {
    let mut book = Book::ready();
    let command = book.request("alice", &["web-1"]).unwrap();
    let event =
        say!(person book, "bob", CommandWithdrawn { command: command, token: None, reason: None });
    assert_eq!(book.sign_and_append("bob", &event), Err(Refusal::NotYours));
    let event = say!(person book, "alice", CommandWithdrawn { command: command, token: None, reason: None });
    book.sign_and_append("alice", &event).unwrap();
    assert_eq!(book.status(command), "withdrawn");
}

#[test]
fn time_ends_a_request_and_no_approval_counts_after() {
    let mut book = Book::ready();
    let command = book.request("alice", &["web-1"]).unwrap();
    let expire = book
        .ledger_header()
        .due(command, countersign_protocol::lifecycle::Due::Expire);
    assert_eq!(
        book.sign_and_append("ledger", &expire),
        Err(Refusal::NotYet)
    );
    book.now += 3600 * SECOND_US;
    assert_eq!(book.approve("bob", command), Err(Refusal::Late));
    let due = book
        .command(command)
        .due(Time::from_micros(book.now).unwrap());
    assert_eq!(due, [countersign_protocol::lifecycle::Due::Expire]);
    book.sign_and_append("ledger", &expire).unwrap();
    assert_eq!(book.status(command), "expired");
    book.audit().unwrap();
}

#[test]
fn a_command_starts_once() {
    let mut book = Book::ready();
    let command = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", command).unwrap();
    book.approve("carol", command).unwrap();
    book.start("web-1", command).unwrap();
    assert_eq!(book.start("web-1", command), Err(Refusal::AlreadyStarted));
    book.complete("web-1", command, 0).unwrap();
    assert_eq!(book.start("web-1", command), Err(Refusal::AlreadyStarted));
}

#[test]
fn only_a_target_starts() {
    let mut book = Book::ready();
    book.enrol("db-1");
    let command = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", command).unwrap();
    book.approve("carol", command).unwrap();
    assert_eq!(book.start("db-1", command), Err(Refusal::NotATarget));
}

#[test]
fn output_is_a_chain() {
    let mut book = Book::ready();
    let command = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", command).unwrap();
    book.approve("carol", command).unwrap();
    let started = book.start("web-1", command).unwrap();
    book.output("web-1", command, b"one").unwrap();
    let data = book.blob(b"again");
    let again = say!(agent book, "web-1", ExecutionOutput {
        command: command, started: started, chunk_no: 0, chunk_prev: started,
        stream: Stream::Stdout, offset_us: 1, data: data,
    });
    assert_eq!(
        book.sign_and_append("web-1", &again),
        Err(Refusal::Chain { expected: 1 })
    );
    let skipped = say!(agent book, "web-1", ExecutionOutput {
        command: command, started: started, chunk_no: 2, chunk_prev: started,
        stream: Stream::Stdout, offset_us: 1, data: data,
    });
    assert_eq!(
        book.sign_and_append("web-1", &skipped),
        Err(Refusal::Chain { expected: 1 })
    );
}

#[test]
fn an_agents_chain_has_no_gap_and_no_fork() {
    let (mut book, _) = Book::story();
    let command = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", command).unwrap();
    book.approve("carol", command).unwrap();
    let Event::ExecutionStarted(start) = book.start_event("web-1", command) else {
        panic!()
    };
    for (agent_seq, agent_prev) in [(0, start.agent_prev), (3, start.agent_prev), (2, command)] {
        let wrong = Event::from(ExecutionStarted {
            agent_seq,
            agent_prev,
            ..start.clone()
        });
        assert_eq!(
            book.sign_and_append("web-1", &wrong),
            Err(Refusal::AgentChain { expected: 2 })
        );
    }
    book.sign_and_append("web-1", &Event::from(start)).unwrap();
}

#[test]
fn a_silent_run_is_presumed_lost_and_its_late_word_is_never_success() {
    let mut book = Book::ready();
    let command = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", command).unwrap();
    book.approve("carol", command).unwrap();
    book.start("web-1", command).unwrap();
    let now = |book: &Book| Time::from_micros(book.now).unwrap();
    book.now += 30 * SECOND_US + LOST_GRACE_US - 1;
    assert!(book.command(command).due(now(&book)).is_empty());
    book.now += 1;
    let due = book.command(command).due(now(&book)).remove(0);
    let lost = book.ledger_header().due(command, due);
    book.sign_and_append("ledger", &lost).unwrap();
    assert_eq!(book.status(command), "lost");
    book.output("web-1", command, b"late").unwrap();
    book.complete("web-1", command, 0).unwrap();
    assert_eq!(book.status(command), "lost");
    let run = &book.command(command).executions[&"web-1".parse().unwrap()];
    assert!(run.late && run.completed.is_some());
    book.audit().unwrap();
}

/// A run of web-1 that goes on.
fn running() -> (Book, StatementId) {
    let mut book = Book::ready();
    let command = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", command).unwrap();
    book.approve("carol", command).unwrap();
    book.start("web-1", command).unwrap();
    (book, command)
}

/// The agent cannot say how the run ended.
fn say_lost(book: &mut Book, command: StatementId) -> Result<StatementId, Refusal> {
    let part = &book.command(command).executions[&"web-1".parse().unwrap()];
    let started = part.started.as_ref().unwrap().1.id;
    let (agent_seq, agent_prev) = book.chain("web-1");
    let event = say!(agent book, "web-1", ExecutionLost {
        command: command, started: started, form: LossForm::Confirmed,
        agent_seq: Some(agent_seq), agent_prev: Some(agent_prev),
    });
    book.sign_and_append("web-1", &event)
}

fn refuse(book: &mut Book, command: StatementId) -> Result<StatementId, Refusal> {
    let (agent_seq, agent_prev) = book.chain("web-1");
    let event = say!(agent book, "web-1", ExecutionRefused {
        command: command, agent_seq: agent_seq, agent_prev: agent_prev,
        why: RefusalReason::Busy, rule: None, detail: None,
    });
    book.sign_and_append("web-1", &event)
}

#[test]
fn no_output_comes_behind_what_the_agent_says_of_the_end() {
    let (mut book, command) = running();
    book.output("web-1", command, b"one").unwrap();
    book.complete("web-1", command, 0).unwrap();
    let more = book.output("web-1", command, b"two");
    assert_eq!(more, Err(Refusal::Transition));
    let (mut book, command) = running();
    say_lost(&mut book, command).unwrap();
    let more = book.output("web-1", command, b"one");
    assert_eq!(more, Err(Refusal::Transition));
    // How it ended may be known after all, and then it is told; no success comes of it.
    book.complete("web-1", command, 0).unwrap();
    assert_eq!(book.status(command), "lost");
    book.audit().unwrap();
}

#[test]
fn a_run_has_as_much_output_as_its_request_keeps_and_not_a_byte_more() {
    let (mut book, command) = running();
    let limit = book.command(command).act().output_limit;
    let chunk = [b'x'; MAX_CHUNK_BYTES];
    let full = limit / chunk.len() as u64;
    assert_eq!(full * chunk.len() as u64, limit);
    for _chunk in 0..full {
        book.output("web-1", command, &chunk).unwrap();
    }
    // Both streams share it.
    let part = &book.command(command).executions[&"web-1".parse().unwrap()];
    let (started, chunk_no, chunk_prev) = (
        part.started.clone().unwrap().1.id,
        part.chunks,
        part.last_chunk,
    );
    let data = book.blob(b"x");
    for stream in [Stream::Stdout, Stream::Stderr] {
        let past = say!(agent book, "web-1", ExecutionOutput {
            command: command, started: started, chunk_no: chunk_no, chunk_prev: chunk_prev,
            stream: stream, offset_us: 1, data: data,
        });
        let refused = book.sign_and_append("web-1", &past).unwrap_err();
        assert!(
            matches!(&refused, Refusal::OverLimit(why) if why.contains("1048577")),
            "{refused}"
        );
    }
    book.complete("web-1", command, 0).unwrap();
    book.audit().unwrap();
}

#[test]
fn an_agent_refuses_once_in_time_or_late() {
    let mut book = Book::ready();
    let command = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", command).unwrap();
    book.approve("carol", command).unwrap();
    refuse(&mut book, command).unwrap();
    assert_eq!(refuse(&mut book, command), Err(Refusal::Transition));
    let (mut book, command) = running();
    book.complete("web-1", command, 0).unwrap();
    refuse(&mut book, command).unwrap();
    let part = &book.command(command).executions[&"web-1".parse().unwrap()];
    assert!(part.late && part.succeeded());
    assert_eq!(refuse(&mut book, command), Err(Refusal::Transition));
    book.audit().unwrap();
}

#[test]
fn an_agent_says_once_that_a_run_is_lost_also_when_the_ledger_presumed_it() {
    let (mut book, command) = running();
    book.now += 30 * SECOND_US + LOST_GRACE_US;
    let now = Time::from_micros(book.now).unwrap();
    let due = book.command(command).due(now).remove(0);
    let presumed = book.ledger_header().due(command, due);
    book.sign_and_append("ledger", &presumed).unwrap();
    book.output("web-1", command, b"late").unwrap();
    say_lost(&mut book, command).unwrap();
    assert_eq!(say_lost(&mut book, command), Err(Refusal::Transition));
    book.audit().unwrap();
    let (mut book, command) = running();
    book.complete("web-1", command, 0).unwrap();
    assert_eq!(say_lost(&mut book, command), Err(Refusal::Transition));
    assert_eq!(book.status(command), "completed");
}

#[test]
fn a_cancel_stops_what_has_not_started() {
    let mut book = Book::ready();
    book.enrol("web-2");
    let command = book.request("alice", &["web-1", "web-2"]).unwrap();
    book.approve("bob", command).unwrap();
    book.approve("carol", command).unwrap();
    book.start("web-1", command).unwrap();
    let event = say!(person book, "alice", CommandCancelRequested { command: command, token: None, reason: None });
    book.sign_and_append("alice", &event).unwrap();
    assert_eq!(
        book.start("web-2", command),
        Err(Refusal::Over(CommandStatus::Cancelled))
    );
    book.complete("web-1", command, 0).unwrap();
    assert_eq!(book.status(command), "partial");
    book.audit().unwrap();
}

#[test]
fn one_administrator_changes_nothing_alone() {
    let mut book = Book::ready();
    let body = book.key_of("dave", "dave");
    let change = book.ask_change("alice", body).unwrap();
    assert_eq!(
        book.consent("alice", change),
        Err(Refusal::DuplicateApproval)
    );
    assert!(book.state.rights().key(&public("dave").key_id()).is_none());
    book.consent("carol", change).unwrap();
    assert!(book.state.rights().key(&public("dave").key_id()).is_some());
}

#[test]
fn the_ledger_cannot_put_into_effect_what_nobody_consented_to() {
    let mut book = Book::ready();
    let body = book.key_of("dave", "dave");
    let change = book.ask_change("alice", body.clone()).unwrap();
    let effect = countersign_protocol::fold::Effect::Change {
        change,
        body,
        rests_on: vec![],
    };
    let event = book.ledger_header().effect(effect);
    assert_eq!(book.sign_and_append("ledger", &event), Err(Refusal::Quorum));
}

#[test]
fn the_ledger_cannot_authorize_without_the_approvals() {
    let mut book = Book::ready();
    let command = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", command).unwrap();
    let waiting = book.command(command);
    let requirement = book.state.requirement(waiting).unwrap();
    let lie = |name: &str| Membership {
        of: format!("user:{name}").parse().unwrap(),
        people: vec![name.parse().unwrap()],
    };
    let authorized = countersign_protocol::fold::Effect::Authorize {
        command,
        request_seq: waiting.requested.seq,
        approvals: waiting.approvals.iter().map(|given| given.seq).collect(),
        policy: book.state.rights().policy().unwrap().reference,
        requirement,
        // It may say of people what it likes: nobody of them has approved.
        members: ["alice", "bob", "carol"].map(lie).to_vec(),
    };
    let event = book.ledger_header().effect(authorized);
    assert_eq!(book.sign_and_append("ledger", &event), Err(Refusal::Quorum));
}

#[test]
fn a_key_is_used_only_in_its_role() {
    let mut book = Book::ready();
    let command = book.request("alice", &["web-1"]).unwrap();
    let Event::CommandApproved(mut approval) = book.approval_event("bob", command) else {
        panic!()
    };
    approval.signer = public("web-1").key_id();
    assert_eq!(
        book.sign_and_append("web-1", &Event::from(approval.clone())),
        Err(Refusal::KeyRole)
    );
    approval.signer = public("checkpoint").key_id();
    assert_eq!(
        book.sign_and_append("checkpoint", &Event::from(approval.clone())),
        Err(Refusal::KeyRole)
    );
    approval.signer = public("mallory").key_id();
    assert_eq!(
        book.sign_and_append("mallory", &Event::from(approval)),
        Err(Refusal::UnknownKey)
    );
}

#[test]
fn somebody_elses_payload_signed_anew_is_refused() {
    let mut book = Book::ready();
    let event = book.request_event("alice", &["web-1"]);
    // Carol signs alice's very payload.
    let payload = event.to_payload().unwrap();
    let kind = event.kind();
    let signature = countersign_protocol::sshsig::sign(&key("carol"), kind.namespace(), &payload);
    let stolen = Statement {
        kind,
        payload,
        signature: signature.to_blob(),
    };
    assert_eq!(stolen.verify().unwrap_err(), StatementError::Signer);
    // Carol names her own key but alice as the principal.
    let Event::CommandRequested(mut request) = event else {
        panic!()
    };
    request.signer = public("carol").key_id();
    assert_eq!(
        book.sign_and_append("carol", &Event::from(request)),
        Err(Refusal::KeyHolder)
    );
}

#[test]
fn an_old_or_future_statement_is_refused() {
    let mut book = Book::ready();
    let event = book.request_event("alice", &["web-1"]);
    book.now += 25 * 3600 * SECOND_US;
    assert_eq!(book.sign_and_append("alice", &event), Err(Refusal::MadeAt));
    let now = book.now;
    book.now += 121 * SECOND_US;
    let event = book.request_event("alice", &["web-1"]);
    book.now = now;
    assert_eq!(book.sign_and_append("alice", &event), Err(Refusal::MadeAt));
}

#[test]
fn any_flipped_bit_of_any_entry_is_found_at_that_entry() {
    let (book, _) = Book::story();
    for (seq, bytes) in (0_u64..).zip(&book.entries) {
        let index = usize::try_from(seq).unwrap();
        for at in 0..bytes.len() {
            let mut entries = book.entries.clone();
            entries[index][at] ^= 1 << (at % 8);
            // Cheap and usual: the entry alone shows it.
            if audit::check_entry(&entries[index]).is_err() {
                continue;
            }
            // Time and link are not signed: the next entry's link shows them, or the root.
            match book.audit_of(&entries) {
                Err(finding) => assert!(finding.seq <= seq + 1, "byte {at}: {finding}"),
                Ok(auditor) => {
                    assert_eq!(index, entries.len() - 1);
                    assert_ne!(
                        auditor.root_at(auditor.size()),
                        book.tree.root_at(book.tree.size())
                    );
                }
            }
        }
    }
}

#[test]
fn a_cut_a_swap_and_a_repeat_are_found() {
    let (book, _) = Book::story();
    let mut cut = book.entries.clone();
    cut.remove(3);
    assert_eq!(book.audit_of(&cut).unwrap_err().seq, 3);
    let mut swapped = book.entries.clone();
    swapped.swap(4, 5);
    assert_eq!(book.audit_of(&swapped).unwrap_err().seq, 4);
    let mut repeated = book.entries.clone();
    repeated.insert(4, repeated[3].clone());
    assert_eq!(book.audit_of(&repeated).unwrap_err().reason, Reason::Seq(3));
}

#[test]
fn a_seen_of_another_history_is_found() {
    let mut book = Book::ready();
    let Event::CommandRequested(mut request) = book.request_event("alice", &["web-1"]) else {
        panic!()
    };
    request.seen.root = countersign_protocol::hash::Hash::ZERO;
    book.sign_and_append("alice", &Event::from(request))
        .unwrap();
    let finding = book.audit().unwrap_err();
    assert_eq!(finding.reason, Reason::Refused(Refusal::SeenFork));
}

#[test]
fn a_host_that_was_accepted_anew_begins_a_new_chain() {
    let (mut book, _) = Book::story();
    let (old, new) = (public("web-1").key_id(), public("web-1 anew"));
    assert_ne!(book.state.chain(&old).unwrap().next, 0);
    book.change(ChangeBody::KeyRevoked {
        key_id: old,
        suspect_from: None,
    });
    let Event::AgentEnrolled(enrolled) =
        say!(agent book, "web-1", AgentEnrolled { key: new.clone(), sealing_key: None })
    else {
        panic!()
    };
    let enrolled = Event::from(AgentEnrolled {
        signer: new.key_id(),
        ..enrolled
    });
    book.sign_and_append("web-1 anew", &enrolled).unwrap();
    book.change(ChangeBody::AgentAccepted {
        agent: "web-1".parse().unwrap(),
        key: new.clone(),
        replaces: None,
        labels: Vec::new(),
    });
    let command = book.request("alice", &["web-1"]).unwrap();
    book.approve("bob", command).unwrap();
    book.approve("carol", command).unwrap();
    let Event::ExecutionStarted(start) = book.start_event("web-1", command) else {
        panic!()
    };
    let at = |agent_seq, agent_prev| {
        Event::from(ExecutionStarted {
            signer: new.key_id(),
            agent_seq,
            agent_prev,
            ..start.clone()
        })
    };
    assert_eq!(
        book.sign_and_append("web-1 anew", &at(start.agent_seq, start.agent_prev)),
        Err(Refusal::AgentChain { expected: 0 })
    );
    book.sign_and_append("web-1 anew", &at(0, StatementId::ZERO))
        .unwrap();
}
