//! What happens in the golden ledger: every kind at least once, in one log that audits.

use countersign_protocol::blob::BlobRef;
use countersign_protocol::checkpoint::{Checkpoint, CheckpointBody};
use countersign_protocol::command::{Act, AtOutputLimit, CommandSpec, Environment, Mode};
use countersign_protocol::effect::Note;
use countersign_protocol::event::*;
use countersign_protocol::facts::Facts;
use countersign_protocol::hash::{Digest, StatementId};
use countersign_protocol::key::{Point, PublicKey};
use countersign_protocol::lifecycle::Due;
use countersign_protocol::name::{Nonce, SECOND_US, Time};
use countersign_protocol::permission::Permission;
use countersign_protocol::retry::Retry;
use countersign_protocol::sshsig;
use countersign_protocol::statement::Statement;
use countersign_protocol::target::{TargetLine, TargetList};
use ed25519_dalek::Signer as _;
use sha2::{Digest as _, Sha256};

use super::{rights, rollout};
use crate::say;
use crate::support::{Book, START, key, public};

pub(super) const HOSTS: [&str; 3] = ["web-1", "web-2", "web-3"];

/// The second key of web-1.
pub(super) const ANEW: &str = "web-1 anew";

/// How long each request stays open.
const OPEN_US: u64 = 3600 * SECOND_US;

/// The finished ledger and what belongs to it.
pub(crate) struct Golden {
    pub(crate) book: Book,
    /// `session.challenge` is signed and never an entry.
    pub(crate) challenge: Statement,
    /// `key.claimed` stands inside of `key.added`, and is never an entry either.
    pub(crate) claim: Statement,
    /// The command with three targets.
    pub(crate) command: StatementId,
    /// The ledger's word on an early size and on the last.
    pub(crate) checkpoints: Vec<Checkpoint>,
}

/// Who holds a key of the story, by the name `ssh-keygen -Y verify -I` takes.
pub(crate) fn identity(public_key: &PublicKey) -> &'static str {
    let own = [
        "ledger", "gateway", "alice", "bob", "carol", "dave", "web-1", "web-2", "web-3", "web-4",
        "web-9",
    ];
    for (anew, holder) in [(ANEW, "web-1"), ("dave-2", "dave")] {
        if *public_key == public(anew) {
            return holder;
        }
    }
    let known = own.into_iter().find(|name| public(name) == *public_key);
    known.unwrap_or_else(|| {
        assert!(*public_key == security_key(), "a key nobody holds");
        "carol"
    })
}

impl Golden {
    pub(crate) fn tell() -> Self {
        let mut book = Book::genesis();
        rights::rights(&mut book);
        let early = checkpoint(&book);
        let command = a_command_on_three_hosts(&mut book);
        commands_that_never_run(&mut book);
        a_cancelled_command(&mut book);
        a_lost_command(&mut book);
        time_runs_out(&mut book, command);
        a_key_is_rotated(&mut book);
        nothing_runs(&mut book);
        rights::a_token_asks(&mut book);
        let voted_down = rights::a_command_is_voted_down(&mut book);
        rights::glass_is_broken(&mut book);
        rights::a_snapshot_for_the_hosts(&mut book);
        somebody_reads(&mut book);
        a_retry(&mut book, command);
        rights::a_text_is_erased(&mut book, voted_down);
        rollout::a_rollout(&mut book);
        facts_in_arguments(&mut book);
        let claim = book.claim("dave", "dave-2");
        let challenge = challenge(&mut book);
        let checkpoints = vec![early, checkpoint(&book)];
        Self {
            book,
            challenge,
            claim,
            command,
            checkpoints,
        }
    }
}

pub(super) fn tick(book: &mut Book) {
    book.now += 250_000;
}

impl Golden {
    /// After its end: carol approves once more, and her security key shows this counter.
    pub(crate) fn approve_with_counter(&mut self, counter: u32) {
        let command = request(&mut self.book, &["web-2"], false);
        authorize(&mut self.book, command, counter);
    }
}

fn checkpoint(book: &Book) -> Checkpoint {
    let size = book.tree.size();
    let body = CheckpointBody {
        origin: "ledger.example.com".parse().unwrap(),
        size,
        root: book.tree.root_at(size).unwrap(),
    };
    Checkpoint::sign(body, &key("checkpoint"))
}

/// Carol's security key, in software.
pub(super) fn security_key() -> PublicKey {
    let key = Point::from(&key("carol-sk"));
    PublicKey::SkEd25519 { key }
}

/// Its word that it is carol's: a touch too.
pub(super) fn claim_of_the_security_key(book: &Book) -> Statement {
    let event = Event::from(KeyClaimed {
        signer: security_key().key_id(),
        principal: "carol".parse().unwrap(),
        nonce: Nonce::new([0xc1; 16]),
        made_at: Time::from_micros(book.now).unwrap(),
        ledger: book.state.rights().ledger().unwrap(),
    });
    touch(&event, 40)
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    out.extend(bytes);
}

/// What the security key's firmware and `ssh-keygen -Y sign` would make together.
fn touch(event: &Event, counter: u32) -> Statement {
    /// User present and user verified.
    const FLAGS: u8 = 0x05;
    let kind = event.kind();
    let payload = event.to_payload().unwrap();
    let mut message = Sha256::digest("ssh:").to_vec();
    message.push(FLAGS);
    message.extend(counter.to_be_bytes());
    message.extend(Sha256::digest(sshsig::signed_data(
        kind.namespace(),
        &payload,
    )));
    let mut inner = Vec::new();
    string(&mut inner, b"sk-ssh-ed25519@openssh.com");
    string(&mut inner, &key("carol-sk").sign(&message).to_bytes());
    inner.push(FLAGS);
    inner.extend(counter.to_be_bytes());
    let mut signature = b"SSHSIG\0\0\0\x01".to_vec();
    let public_key = security_key().to_blob();
    for field in [
        &public_key,
        kind.namespace().as_bytes(),
        b"",
        b"sha512",
        &inner,
    ] {
        string(&mut signature, field);
    }
    Statement {
        kind,
        payload,
        signature,
    }
}

/// An act with every field in use, or as few as there can be.
pub(super) fn act(book: &mut Book, hosts: &[&str], full: bool) -> Act {
    let user = full.then(|| "www-data".parse().unwrap());
    let script = "printf '%s\\n' \"$GREETING\"; cat >&2";
    let spec = CommandSpec {
        mode: if full { Mode::Shell } else { Mode::Exec },
        argv: if full {
            vec![script.into()]
        } else {
            vec!["/usr/bin/systemctl".into(), "restart".into(), "nsd".into()]
        },
        cwd: full.then(|| "/srv/www".into()),
        user: user.clone(),
        timeout_ms: 30_000,
        output_limit: 1 << 20,
        at_output_limit: full.then_some(AtOutputLimit::Stop),
    };
    let document = spec.to_document().unwrap();
    let (mode, spec) = (spec.mode, book.blob(&document));
    let env = full.then(|| {
        let variables = vec![("GREETING".into(), "Grüße, \u{1f980}".into())];
        let document = Environment::new(variables).unwrap().to_document().unwrap();
        book.blob(&document)
    });
    let stdin = full.then(|| book.blob(b"bytes that are no text: \0\xff\n"));
    let lines = hosts.iter().map(|host| TargetLine {
        agent: host.parse().unwrap(),
        key_id: public(host).key_id(),
        service: (full && *host == "web-3").then(|| "db".parse().unwrap()),
        spec: spec.digest,
        turn: None,
        facts: None,
    });
    let list = TargetList::new(lines.collect()).unwrap();
    let document = book.blob(&list.to_document().unwrap());
    Act {
        mode,
        spec,
        env,
        stdin,
        secrets: None,
        targets: list.describe(document).unwrap(),
        user,
        timeout_ms: 30_000,
        output_limit: 1 << 20,
        at_output_limit: full.then_some(AtOutputLimit::Stop),
        not_before: Time::from_micros(book.now).unwrap(),
        expires_at: Time::from_micros(book.now + OPEN_US).unwrap(),
        max_runs: 1,
        break_glass: false,
        rollout: None,
    }
}

fn request(book: &mut Book, hosts: &[&str], full: bool) -> StatementId {
    tick(book);
    let act = act(book, hosts, full);
    let reason = book.blob(b"the name server answers no more");
    let client_ref = full.then(|| Digest::new(Sha256::digest("ticket 4711").into()));
    let event = say!(person book, "alice", CommandRequested {
        client_ref: client_ref, token: None, retry: None, act: act, reason: reason,
    });
    book.sign_and_append("alice", &event).unwrap()
}

/// Bob approves with his key, carol with her security key; the ledger authorizes.
pub(super) fn authorize(book: &mut Book, command: StatementId, counter: u32) {
    tick(book);
    book.approve("bob", command).unwrap();
    tick(book);
    let event = book.approval_event("carol", command);
    let Event::CommandApproved(mut approval) = event else {
        unreachable!("it is an approval")
    };
    approval.signer = security_key().key_id();
    approval.reason = Some(book.blob(b"seen on the monitor too"));
    book.append(touch(&approval.into(), counter)).unwrap();
    tick(book);
}

fn started(book: &Book, host: &str, command: StatementId) -> (StatementId, u64, StatementId) {
    let run = &book.command(command).executions[&host.parse().unwrap()];
    let (_, at) = run.started.as_ref().unwrap();
    (at.id, run.chunks, run.last_chunk)
}

fn output(book: &mut Book, host: &str, command: StatementId, stream: Stream, bytes: &[u8]) {
    tick(book);
    let (run, chunk_no, chunk_prev) = started(book, host, command);
    let data = book.blob(bytes);
    let event = say!(agent book, host, ExecutionOutput {
        command: command, started: run, chunk_no: chunk_no, chunk_prev: chunk_prev,
        stream: stream, offset_us: 1500 * (chunk_no + 1), data: data,
    });
    book.sign_and_append(host, &event).unwrap();
}

fn totals(bytes: &[u8]) -> StreamTotals {
    StreamTotals {
        total: bytes.len() as u64,
        kept: bytes.len() as u64,
        sha256: Digest::new(Sha256::digest(bytes).into()),
    }
}

/// The end of a run: its outcome, and what it wrote.
pub(super) fn complete(
    book: &mut Book,
    host: &str,
    command: StatementId,
    outcome: Outcome,
    wrote: [&[u8]; 2],
) {
    tick(book);
    let (run, chunks, last_chunk) = started(book, host, command);
    let (agent_seq, agent_prev) = book.chain(host);
    let event = say!(agent book, host, ExecutionCompleted {
        command: command, agent_seq: agent_seq, agent_prev: agent_prev, started: run,
        detail: None, outcome: outcome, exit_code: (outcome == Outcome::Exited).then_some(0), signal: None,
        duration_us: 21_000, cpu_us: 4_000, max_rss: 3_145_728,
        stdout: totals(wrote[0]), stderr: totals(wrote[1]),
        chunks: chunks, last_chunk: last_chunk, tree_gone: true, masked: None,
    });
    book.sign_and_append(host, &event).unwrap();
}

/// web-1 runs it, web-2 refuses, web-3 is not heard of until time runs out.
fn a_command_on_three_hosts(book: &mut Book) -> StatementId {
    let command = request(book, &HOSTS, true);
    authorize(book, command, 41);
    book.start("web-1", command).unwrap();
    let wrote = ["Grüße, \u{1f980}\n".as_bytes(), b"\x1b[31m\xff\n"];
    output(book, "web-1", command, Stream::Stdout, wrote[0]);
    output(book, "web-1", command, Stream::Stderr, wrote[1]);
    complete(book, "web-1", command, Outcome::Exited, wrote);
    let detail: Option<BlobRef> = Some(book.blob(b"no rule allows a shell here"));
    let (agent_seq, agent_prev) = book.chain("web-2");
    let refused = say!(agent book, "web-2", ExecutionRefused {
        command: command, agent_seq: agent_seq, agent_prev: agent_prev,
        why: RefusalReason::NotAllowed, rule: Some("no-shell".parse().unwrap()), detail: detail,
    });
    book.sign_and_append("web-2", &refused).unwrap();
    command
}

/// One is rejected, one withdrawn; a third is left to expire.
fn commands_that_never_run(book: &mut Book) {
    let command = request(book, &["web-1"], false);
    let reason = Some(book.blob(b"not on a friday"));
    let rejected =
        say!(person book, "bob", CommandRejected { command: command, vote: false, reason: reason });
    book.sign_and_append("bob", &rejected).unwrap();
    let command = request(book, &["web-1"], false);
    let withdrawn = say!(person book, "alice", CommandWithdrawn { command: command, token: None, reason: None });
    book.sign_and_append("alice", &withdrawn).unwrap();
    request(book, &["web-2"], false);
}

fn a_cancelled_command(book: &mut Book) {
    let command = request(book, &["web-1"], false);
    authorize(book, command, 42);
    book.start("web-1", command).unwrap();
    tick(book);
    let cancel = say!(person book, "carol", CommandCancelRequested { command: command, token: None, reason: None });
    book.sign_and_append("carol", &cancel).unwrap();
    complete(book, "web-1", command, Outcome::Cancelled, [b"", b""]);
}

/// The ledger presumes it; the agent's own late word follows.
fn a_lost_command(book: &mut Book) {
    let host = "web-1";
    let command = request(book, &[host], false);
    authorize(book, command, 43);
    let run = book.start(host, command).unwrap();
    book.now += 100 * SECOND_US;
    let due = Due::PresumeLost(host.parse().unwrap(), run);
    let presumed = book.ledger_header().due(command, due);
    book.sign_and_append("ledger", &presumed).unwrap();
    output(book, host, command, Stream::Stdout, b"before the crash");
    let (agent_seq, agent_prev) = book.chain(host);
    let confirmed = say!(agent book, host, ExecutionLost {
        command: command, started: run, form: LossForm::Confirmed,
        agent_seq: Some(agent_seq), agent_prev: Some(agent_prev),
    });
    book.sign_and_append(host, &confirmed).unwrap();
}

/// What was open says so: a request expires, a host that never started is skipped.
fn time_runs_out(book: &mut Book, three_hosts: StatementId) {
    book.now = START + 2 * OPEN_US;
    let now = Time::from_micros(book.now).unwrap();
    let due: Vec<_> = book
        .state
        .commands()
        .flat_map(|command| command.due(now).into_iter().map(|due| (command.id, due)))
        .collect();
    assert!(due.contains(&(three_hosts, Due::Skip("web-3".parse().unwrap(), None))));
    assert_eq!(due.len(), 2, "{due:?}");
    for (command, due) in due {
        let event = book.ledger_header().due(command, due);
        book.sign_and_append("ledger", &event).unwrap();
    }
}

/// The command on three hosts once more, on the one that refused it.
fn a_retry(book: &mut Book, of: StatementId) {
    tick(book);
    let earlier = book.command(of);
    let mut act = earlier.act().clone();
    let lines = earlier.targets.as_ref().unwrap().lines().iter();
    let refused = lines.filter(|line| line.agent.as_str() == "web-2").cloned();
    let list = TargetList::new(refused.collect()).unwrap();
    let document = book.blob(&list.to_document().unwrap());
    act.targets = list.describe(document).unwrap();
    act.not_before = Time::from_micros(book.now).unwrap();
    act.expires_at = Time::from_micros(book.now + OPEN_US).unwrap();
    let reason = book.blob(b"the rule is there now");
    let event = say!(person book, "alice", CommandRequested {
        client_ref: None, token: None, retry: Some(Retry { of, lost: false }), act: act, reason: reason,
    });
    book.sign_and_append("alice", &event).unwrap();
}

/// web-1 gets a second key; the first says its last word.
fn a_key_is_rotated(book: &mut Book) {
    tick(book);
    book.rotate("web-1", ANEW);
    tick(book);
    let (agent_seq, agent_prev) = book.chain("web-1");
    let retired = say!(agent book, "web-1", AgentKeyRetired {
        agent_seq: agent_seq, agent_prev: agent_prev,
    });
    book.sign_and_append("web-1", &retired).unwrap();
}

/// Two hosts say what they are, and a request uses it.
fn facts_in_arguments(book: &mut Book) {
    let hosts = ["web-2", "web-3"];
    let facts = |pairs: &[(&str, &str)]| {
        let mut facts = Facts::default();
        for (name, value) in pairs {
            assert!(facts.insert(name.parse().unwrap(), value.parse().unwrap()));
        }
        facts
    };
    for host in hosts {
        tick(book);
        let said = facts(&[("hostname", host), ("interface.eth0", "192.0.2.7")]);
        let blob = book.blob(&said.to_document().unwrap());
        let (agent_seq, agent_prev) = book.chain(host);
        let event = say!(agent book, host, AgentFacts {
            agent_seq: agent_seq, agent_prev: agent_prev, facts: blob,
        });
        book.sign_and_append(host, &event).unwrap();
    }
    tick(book);
    let mut act = act(book, &hosts, false);
    // What that would run is named by nobody.
    for unused in [act.spec, act.targets.list] {
        book.blobs.remove(&unused.digest);
    }
    let spec = CommandSpec {
        mode: Mode::Exec,
        argv: [
            "/bin/echo",
            "--name=@fact.hostname",
            "@fact.{hostname}.example",
            "@fact.{}",
        ]
        .map(Into::into)
        .to_vec(),
        cwd: None,
        user: None,
        timeout_ms: act.timeout_ms,
        output_limit: act.output_limit,
        at_output_limit: None,
    };
    act.spec = book.blob(&spec.to_document().unwrap());
    let lines = hosts.iter().map(|host| TargetLine {
        agent: host.parse().unwrap(),
        key_id: public(host).key_id(),
        service: None,
        spec: act.spec.digest,
        turn: None,
        facts: Some(facts(&[("hostname", host)])),
    });
    let list = TargetList::new(lines.collect()).unwrap();
    let document = book.blob(&list.to_document().unwrap());
    act.targets = list.describe(document).unwrap();
    let reason = book.blob(b"each by its own name");
    let event = say!(person book, "alice", CommandRequested {
        client_ref: None, token: None, retry: None, act: act, reason: reason,
    });
    book.sign_and_append("alice", &event).unwrap();
}

/// web-2 says for how long it has started nothing.
fn nothing_runs(book: &mut Book) {
    let from = Time::from_micros(book.now).unwrap();
    book.now += OPEN_US;
    let to = Time::from_micros(book.now).unwrap();
    let (agent_seq, agent_prev) = book.chain("web-2");
    let idle = say!(agent book, "web-2", AgentIdle {
        agent_seq: agent_seq, agent_prev: agent_prev, from: from, to: to, running: 0,
    });
    book.sign_and_append("web-2", &idle).unwrap();
}

/// Carol reads output that is not hers; a stranger is turned away, and so is a token.
fn somebody_reads(book: &mut Book) {
    tick(book);
    let command = request(book, &["web-2"], false);
    let read = Note::Read {
        reader: "carol".parse().unwrap(),
        key_id: Some(public("carol").key_id()),
        token: None,
        what: ReadWhat::Output,
        command: Some(command),
    };
    let (from, to) = (book.now, book.now + 60 * SECOND_US);
    book.now = to;
    let [from, to] = [from, to].map(|us| Time::from_micros(us).unwrap());
    let denied = |what, principal, permission| Note::Denied {
        what,
        principal,
        permission,
        count: 3,
        from,
        to,
    };
    let reader = Some("dave".parse().unwrap());
    let right = Some(Permission::AuditRead);
    for note in [
        read,
        denied(DeniedWhat::SignIn, None, None),
        denied(DeniedWhat::Permission, reader, right),
    ] {
        let event = book.ledger_header().note(note);
        book.sign_and_append("ledger", &event).unwrap();
    }
}

fn challenge(book: &mut Book) -> Statement {
    let event = Event::from(SessionChallenge {
        signer: public("alice").key_id(),
        principal: Some("alice".parse().unwrap()),
        agent: None,
        nonce: Nonce::new([0xa5; 16]),
        made_at: Time::from_micros(book.now).unwrap(),
        ledger: book.state.rights().ledger().unwrap(),
        server: "https://ledger.example.com".parse().unwrap(),
        challenge: Digest::new([0x5a; 32]),
    });
    Statement::sign(&event, &key("alice")).unwrap()
}
