//! `countersign demo`: one command, two signatures, one host, told as a story.
//!
//! The command's own output goes to stdout and stderr as it comes; the story goes to stderr.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;

use countersign_cli::acts::{Client, RequestSpec, Step};
use countersign_cli::describe;
use countersign_cli::failure::Failure;
use countersign_cli::render;
use countersign_cli::verify::{self, Options, Report, Source};
use countersign_cli::view::CommandView;
use countersign_protocol::event::{Event, Outcome, Stream};
use countersign_protocol::key;
use countersign_protocol::lifecycle::Execution;
use countersign_protocol::short;
use countersign_protocol::target::Place;
use tokio_util::sync::CancellationToken;

use super::agent;
use super::home::{self, Home};
use super::people;
use super::station::{DevError, Station, Wanted};
use crate::clock::Clock;

/// What runs when nothing is asked for: short, real, and different on every machine.
const DEFAULT_COMMAND: [&str; 2] = ["uname", "-a"];

/// The origin line of a demo's checkpoints.
const ORIGIN: &str = "countersign.local/demo";

/// The audit found something.
const AUDIT_FAILED: u8 = 3;

/// As `timeout` says it.
const TIMED_OUT: u8 = 124;

/// Something of ours went wrong, or the command did not run.
const OURS: u8 = 125;

/// As shells say it: 128 and the signal.
const SIGNALLED: u8 = 128;

/// What to show.
#[derive(Debug, Clone)]
pub struct Demo {
    /// Where; a new folder when left out.
    pub data: Option<PathBuf>,
    /// What to run; a short command when empty.
    pub command: Vec<String>,
}

/// Colours only for people who look.
#[derive(Debug, Clone, Copy)]
struct Teller {
    colours: bool,
}

impl Teller {
    fn new() -> Self {
        Self {
            colours: io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        }
    }

    /// A line of the story. Without a stderr there is nobody to tell.
    #[expect(clippy::unused_self, reason = "the story has one voice")]
    fn say(self, text: &str) {
        let _gone = writeln!(io::stderr(), "{text}");
    }

    fn step(self, who: &str, text: &str) {
        let who = format!("{who:>8}");
        let who = if self.colours {
            format!("\u{1b}[1m{who}\u{1b}[0m")
        } else {
            who
        };
        self.say(&format!("{who}  {text}"));
    }

    fn more(self, text: &str) {
        let text = format!("{:>8}  {text}", "");
        let text = text.trim_end().to_owned();
        self.say(&if self.colours {
            format!("\u{1b}[2m{text}\u{1b}[0m")
        } else {
            text
        });
    }
}

/// Runs the demo and gives the exit code: the command's own, 3 when the audit fails, 124 when the
/// command's time ran out, 125 for everything of ours.
pub async fn demo(options: Demo, shutdown: CancellationToken) -> u8 {
    let teller = Teller::new();
    match tell(options, &shutdown, teller).await {
        Ok(code) => code,
        Err(error) => {
            complain(teller, &error);
            OURS
        }
    }
}

/// Says what went wrong, and what to do.
fn complain(teller: Teller, error: &DevError) {
    teller.say(&format!("error: {}", render::line(&error.to_string())));
    if let DevError::Client(Failure {
        hint: Some(hint), ..
    }) = error
    {
        teller.say(&format!("hint: {}", render::line(hint)));
    }
}

async fn tell(options: Demo, shutdown: &CancellationToken, teller: Teller) -> Result<u8, DevError> {
    let now = Clock::system().now();
    let folder = options.data.unwrap_or_else(|| home::demo_folder(now));
    let home = Home::open(&folder)?;
    teller.say("countersign demo: a private Postgres, a server, an agent, three people");
    let listen = ([127, 0, 0, 1], 0).into();
    let origin = ORIGIN.parse().map_err(|_| DevError::Name)?;
    let wanted = Wanted {
        listen,
        public_urls: Vec::new(),
        origin,
        policy: None,
    };
    let starting = Station::start(home, wanted, shutdown.clone());
    let station = tokio::select! {
        started = starting => started?,
        () = shutdown.cancelled() => return Err(DevError::Stopped),
    };
    teller.more(&format!("data    {}", station.home.path().display()));
    teller.more(&format!("ledger  {}", station.ledger()));
    teller.say("");
    let story = tokio::select! {
        told = life(&station, options.command, teller) => told,
        () = shutdown.cancelled() => Err(DevError::Stopped),
    };
    station.stop().await;
    story
}

/// The command's life, and then the audit of all of it.
async fn life(station: &Station, command: Vec<String>, teller: Teller) -> Result<u8, DevError> {
    let clients = station.clients().await?;
    let [alice, bob, carol] = clients.as_slice() else {
        return Err(DevError::Name);
    };
    let argv = if command.is_empty() {
        DEFAULT_COMMAND.map(str::to_owned).to_vec()
    } else {
        command
    };
    let target: Place = agent::NAME.parse().map_err(|_| DevError::Name)?;
    let spec = RequestSpec::new(vec![target], argv.clone(), "to see how it works");
    let requested = alice.request(&spec).await?;
    let id = requested.id;
    teller.step("alice", &format!("asks to run  {}", render::words(&argv)));
    teller.more(&format!(
        "on {}, signed with {}; the request is entry {} and its id {}",
        agent::NAME,
        key::fingerprint(&alice.key_id()),
        requested.accepted.seq,
        short::short(&id),
    ));
    for (name, person) in [("bob", bob), ("carol", carol)] {
        let view = person.check_approval(&id, None).await?;
        let accepted = person.approve_shown(&view, None).await?;
        teller.step(
            name,
            &format!(
                "reads what would run, and approves exactly that: entry {}",
                accepted.seq
            ),
        );
    }
    let view = follow(alice, &id, teller).await?;
    let code = ending(&view, teller)?;
    audit(station, alice, teller)
        .await
        .map(|ok| if ok { code } else { AUDIT_FAILED })
}

/// Streams the output and tells what the ledger and the host say.
async fn follow(
    client: &Client,
    id: &countersign_protocol::hash::CommandId,
    teller: Teller,
) -> Result<CommandView, DevError> {
    let mut sink = |step: Step<'_>| {
        match step {
            Step::Entry { link, .. } => {
                tell_entry(link.entry.verified.event(), link.entry.seq, teller)
            }
            Step::Output { stream, bytes, .. } => write_out(stream, bytes)?,
            Step::Hidden { .. } => {}
        }
        Ok(())
    };
    Ok(client.follow(id, &mut sink).await?)
}

fn tell_entry(event: &Event, seq: u64, teller: Teller) {
    if let Event::CommandAuthorized(authorized) = event {
        teller.step(
            "ledger",
            &format!(
                "counts {} of {} approvals: authorized, entry {seq}",
                authorized.approvals.len(),
                authorized.requirement.least()
            ),
        );
    } else if let Event::ExecutionStarted(started) = event {
        teller.step(
            started.agent.as_str(),
            &format!(
                "finds {} people it pins behind exactly this, proved to be in the log, and starts: entry {seq}",
                people::APPROVALS
            ),
        );
    }
}

/// The command's bytes, as they are, to where the command wrote them.
fn write_out(stream: Stream, bytes: &[u8]) -> Result<(), Failure> {
    let written = match stream {
        Stream::Stdout => {
            let mut out = io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        }
        Stream::Stderr => io::stderr().lock().write_all(bytes),
    };
    // Whoever reads may have had enough; the story goes on.
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::failed(
            "output",
            format!("the command's output cannot be written: {error}"),
        )),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Tells how it ended, and gives the exit code.
fn ending(view: &CommandView, teller: Teller) -> Result<u8, DevError> {
    let name = agent::NAME.parse().map_err(|_| DevError::Name)?;
    let execution: Option<&Execution> = view.command.executions.get(&name);
    let Some(done) = execution.and_then(|execution| execution.completed.as_ref()) else {
        let status = view.command.status();
        teller.step(
            "ledger",
            &format!("the command is {status}; nothing came back"),
        );
        if let Some(why) = execution.and_then(|execution| execution.refused.as_ref()) {
            teller.more(&describe::refused(view, why));
        }
        return Ok(OURS);
    };
    let (code, how) = match (done.outcome, done.exit_code, done.signal) {
        (Outcome::Exited, Some(code), _) => (code, format!("exit code {code}")),
        (Outcome::Signalled, _, Some(signal)) => {
            (SIGNALLED.saturating_add(signal), format!("signal {signal}"))
        }
        (Outcome::TimedOut, ..) => (TIMED_OUT, "its time ran out".to_owned()),
        (Outcome::NotFound, ..) => (127, "there is no such program".to_owned()),
        (Outcome::NotExecutable, ..) => (126, "it cannot be executed".to_owned()),
        (Outcome::Exited | Outcome::Signalled | Outcome::Cancelled | Outcome::OutputLimit, ..) => {
            (OURS, "it was stopped".to_owned())
        }
    };
    teller.step(
        agent::NAME,
        &format!(
            "{how} after {} ms; {} bytes of output in {} signed {}",
            done.duration_us / 1000,
            done.stdout.total + done.stderr.total,
            done.chunks,
            if done.chunks == 1 { "chunk" } else { "chunks" }
        ),
    );
    Ok(code)
}

/// Audits the whole ledger from its bytes.
async fn audit(station: &Station, client: &Client, teller: Teller) -> Result<bool, DevError> {
    let remembered = client
        .trust()
        .remembered()
        .map_err(Failure::from)?
        .map(|checkpoint| (checkpoint.size(), checkpoint.root()));
    let report = verify::verify(Options {
        ledger: Some(station.ledger()),
        remembered,
        ..Options::new(Source::Database(station.database().to_owned()))
    })
    .await
    .map_err(Failure::from)?;
    tell_audit(&report, teller);
    if report.ok {
        let note = client
            .trust()
            .remembered()
            .map_err(Failure::from)?
            .map(|checkpoint| checkpoint.note().to_owned())
            .unwrap_or_default();
        teller.say("");
        teller.more(
            "the ledger's word on its size, signed; keep it, and nobody can take an entry back:",
        );
        teller.say("");
        note.lines().for_each(|line| teller.more(line));
        teller.say("");
        teller.more(
            "next: countersign dev, the same parts staying up, to try with countersign selfcheck",
        );
    }
    Ok(report.ok)
}

fn tell_audit(report: &Report, teller: Teller) {
    match &report.first_bad {
        None => teller.step(
            "audit",
            &format!(
                "{} entries, {} checkpoints, {} texts: every hash, signature, right and proof holds",
                report.size, report.checkpoints, report.blobs.ok
            ),
        ),
        Some(bad) => teller.step(
            "audit",
            &format!("FAILED at entry {}: {}", bad.seq, render::line(&bad.reason)),
        ),
    }
}
