//! The checks in their order: what is alive, who one is, what is refused, what runs, what is proved.

use std::time::Duration;

use countersign_protocol::hash::CommandId;
use countersign_protocol::key;
use countersign_protocol::lifecycle::Stage;
use countersign_protocol::short;
use countersign_protocol::target::Place;
use futures_util::stream::{self, StreamExt as _};
use tokio::time::Instant;

use super::Arguments;
use super::expected::Check;
use super::report::{Bad, Report};
use super::trial::{Stop, Trial};
use crate::acts::{Answer, Client, Connection, Flip, Hosts, RightsView};
use crate::commands::Globals;
use crate::console;
use crate::exit_code;
use crate::failure::Failure;
use crate::sign::Signer;
use crate::view::CommandView;

/// The server's word for a statement that is not what its signature covers.
const NOT_SIGNED: &str = "statement";

/// Its word for a judgement of one's own request.
const OWN_REQUEST: &str = "own_request";

/// What all checks so far have left for those after them.
struct Story<'a> {
    arguments: &'a Arguments,
    report: Report,
    /// What came through, with its approvals.
    views: Vec<CommandView>,
    /// Everything that was asked for.
    asked: Vec<CommandId>,
}

/// Tries it.
pub(in crate::commands) async fn selfcheck(
    globals: &Globals,
    arguments: Arguments,
) -> Result<u8, Failure> {
    let connection = globals.connection()?;
    let mut story = Story {
        arguments: &arguments,
        report: Report::new(globals.json),
        views: Vec::new(),
        asked: Vec::new(),
    };
    let host = Box::pin(story.tell(globals, &connection)).await?;
    let host = host.as_ref().map(named);
    let allow = arguments.allow_left_out;
    story.report.end(&connection.server, host, allow)
}

fn named(host: &Place) -> String {
    match &host.service {
        Some(service) => format!("{}/{service}", host.agent),
        None => host.agent.to_string(),
    }
}

/// The clients of other people whose keys the caller named.
///
/// # Errors
/// A key is the caller's own person's: nobody approves their own request.
async fn approvers(
    connection: &Connection,
    rights: &RightsView,
    me: &str,
    arguments: &Arguments,
) -> Result<Vec<Client>, Failure> {
    let mut clients = Vec::new();
    for path in &arguments.approver_key {
        let signer = Signer::SshKeygen(path.clone());
        let principal = rights.person(&signer.public_key().await?.key_id())?;
        if principal.as_str() == me {
            return Err(Failure::usage(format!(
                "{} is {me}'s own key, and nobody approves their own request",
                path.display()
            ))
            .hint("give the key of another person, or let others approve: leave it out"));
        }
        let connection = Connection {
            signer,
            principal: Some(principal),
            ..connection.clone()
        };
        clients.push(Client::connect(&connection).await?);
    }
    Ok(clients)
}

impl Story<'_> {
    fn leave_out(&mut self, checks: &[Check], why: &str) -> Result<(), Failure> {
        checks.iter().try_for_each(|check| {
            let outcome = Err(Bad::left_out(why));
            self.report.take(*check, outcome, Duration::ZERO)
        })
    }

    /// All checks. Gives the host that it was tried on.
    async fn tell(
        &mut self,
        globals: &Globals,
        connection: &Connection,
    ) -> Result<Option<Place>, Failure> {
        let began = Instant::now();
        let connected = globals.connect().await;
        let client = match connected {
            Ok(client) => client,
            // Somebody answers, and is not whom it must be.
            Err(failure) if failure.exit != exit_code::UNREACHABLE => {
                self.report
                    .take(Check::You, Err(failure.into()), began.elapsed())?;
                self.leave_out(&self.rest_of(Check::You), "there is nothing to be sure of")?;
                return Ok(None);
            }
            Err(failure) => {
                self.report
                    .take(Check::Health, Err(failure.into()), began.elapsed())?;
                self.leave_out(&self.rest_of(Check::Health), "the server does not answer")?;
                return Ok(None);
            }
        };
        let healthy = client.health().await;
        let healthy = healthy.map(|()| format!("{} lives and is ready", connection.server));
        self.report
            .take(Check::Health, healthy.map_err(Bad::from), began.elapsed())?;
        let began = Instant::now();
        let rights = match client.rights().await {
            Ok(rights) => rights,
            Err(failure) => return self.unknown(failure, began),
        };
        let me = match rights.person(&client.key_id()) {
            Ok(me) => me,
            Err(failure) => return self.unknown(failure, began),
        };
        let said = format!(
            "you are {me}, with the key {}; the ledger is the pinned one",
            key::fingerprint(&client.key_id())
        );
        self.report.take(Check::You, Ok(said), began.elapsed())?;
        let approvers = approvers(connection, &rights, me.as_str(), self.arguments).await?;
        let began = Instant::now();
        let host = match self.host(&client, &rights).await? {
            Ok(host) => host,
            Err(bad) => {
                self.report.take(Check::Host, Err(bad), began.elapsed())?;
                self.leave_out(&self.rest_of(Check::Host), "there is no host to try it on")?;
                return Ok(None);
            }
        };
        let said = format!("{} is accepted and takes work", named(&host));
        self.report.take(Check::Host, Ok(said), began.elapsed())?;
        if self.arguments.no_runs {
            self.leave_out(&self.rest_of(Check::Host), "--no-runs")?;
            return Ok(Some(host));
        }
        let name = host.agent.to_string();
        let trial = Trial {
            client: &client,
            approvers: &approvers,
            wait: self.arguments.wait,
            host: &name,
        };
        if approvers.is_empty() {
            Box::pin(self.with_people(&trial, &host)).await?;
        } else {
            Box::pin(self.with_keys(&trial, &host)).await?;
        }
        self.tampered(&client).await?;
        self.audit(&client).await?;
        Ok(Some(host))
    }

    fn unknown(&mut self, failure: Failure, began: Instant) -> Result<Option<Place>, Failure> {
        self.report
            .take(Check::You, Err(failure.into()), began.elapsed())?;
        self.leave_out(&self.rest_of(Check::You), "it is not known who you are")?;
        Ok(None)
    }

    fn rest_of(&self, check: Check) -> Vec<Check> {
        let all = Check::ALL.iter().copied();
        all.skip_while(|known| *known != check).skip(1).collect()
    }

    /// Where it is tried.
    ///
    /// # Errors
    /// There are several, the caller names none, and forgives what is left out: nothing would be tried
    /// on any, and be called well.
    async fn host(
        &self,
        client: &Client,
        rights: &RightsView,
    ) -> Result<Result<Place, Bad>, Failure> {
        const NAME_IT: &str = "say which one to try it on: --host NAME";
        if let Some(host) = self.arguments.host.clone() {
            return Ok(takes_work(rights, host));
        }
        let (choice, service) = (None, None);
        let selected = match client.select(Hosts::Fitting { choice, service }).await {
            Ok(selected) => selected,
            Err(failure) => return Ok(Err(failure.into())),
        };
        let several = match selected.places.as_slice() {
            [only] => return Ok(Ok(only.clone())),
            several => format!("the ledger knows {} hosts", several.len()),
        };
        if self.arguments.allow_left_out {
            return Err(Failure::usage(several).hint(NAME_IT));
        }
        Ok(Err(Bad::left_out(several).hint(NAME_IT)))
    }

    /// Asks for a command, and for the first one tries at once to approve it alone.
    async fn ask(
        &mut self,
        trial: &Trial<'_>,
        (check, host): (Check, &Place),
    ) -> Result<Option<CommandId>, Failure> {
        let began = Instant::now();
        let spec = check.spec(host, &self.arguments.command);
        let requested = match trial.ask(check, spec).await {
            Ok(requested) => requested,
            Err(bad) => {
                if check == Check::Allowed {
                    self.leave_out(&[Check::Refused], "there is no request to try it with")?;
                }
                self.report.take(check, Err(bad), began.elapsed())?;
                return Ok(None);
            }
        };
        self.asked.push(requested.id);
        if check == Check::Allowed {
            let began = Instant::now();
            let outcome = refused_alone(trial.client, &requested.id).await;
            self.report.take(Check::Refused, outcome, began.elapsed())?;
        }
        Ok(Some(requested.id))
    }

    fn judge(&mut self, (check, host): (Check, &Place), view: CommandView) -> Result<String, Bad> {
        let is_own = check == Check::Allowed && !self.arguments.command.is_empty();
        let outcome = check.judge(&view, host, is_own);
        self.views.push(view);
        outcome
    }

    /// One after the other: the keys are here.
    async fn with_keys(&mut self, trial: &Trial<'_>, host: &Place) -> Result<(), Failure> {
        for (index, check) in Check::RUNS.into_iter().enumerate() {
            let Some(id) = self.ask(trial, (check, host)).await? else {
                continue;
            };
            let began = Instant::now();
            let outcome = match trial.approve(&id).await {
                Ok(()) => Box::pin(trial.follow(check, &id)).await,
                Err(bad) => Err(Stop::This(bad)),
            };
            let (outcome, is_away) = match outcome {
                Ok(view) => (self.judge((check, host), view), false),
                Err(Stop::This(bad)) => (Err(bad), false),
                Err(Stop::HostIsAway(bad)) => (Err(bad), true),
            };
            self.report.take(check, outcome, began.elapsed())?;
            if is_away {
                let rest = Check::RUNS.get(index + 1..).unwrap_or_default();
                return self.leave_out(rest, &format!("{} does not answer", trial.host));
            }
        }
        Ok(())
    }

    /// All at once, so that whoever approves has them together.
    async fn with_people(&mut self, trial: &Trial<'_>, host: &Place) -> Result<(), Failure> {
        let mut open = Vec::new();
        for check in Check::RUNS {
            if let Some(id) = self.ask(trial, (check, host)).await? {
                open.push((check, id));
            }
        }
        if !open.is_empty() {
            console::note(&format!(
                "countersign: {} commands wait for other people, for {} s at the most; they look at each and approve it:",
                open.len(),
                trial.wait.as_secs()
            ));
            for (check, id) in &open {
                let code = short::short(id);
                console::note(&format!(
                    "    countersign approve {code}    ({})",
                    check.as_str()
                ));
            }
        }
        let at_once = open.len().max(1);
        let followed = stream::iter(open).map(async |(check, id)| {
            let began = Instant::now();
            let outcome = Box::pin(trial.follow(check, &id)).await;
            (check, outcome, began.elapsed())
        });
        let mut followed = std::pin::pin!(followed.buffer_unordered(at_once));
        while let Some((check, outcome, took)) = followed.next().await {
            let outcome = match outcome {
                Ok(view) => self.judge((check, host), view),
                Err(Stop::This(bad) | Stop::HostIsAway(bad)) => Err(bad),
            };
            self.report.take(check, outcome, took)?;
        }
        Ok(())
    }

    /// An approval that somebody gave, with one bit changed, must be refused and leave nothing.
    async fn tampered(&mut self, client: &Client) -> Result<(), Failure> {
        let began = Instant::now();
        let mut approved = self.views.iter();
        let approved = approved.rfind(|view| !view.command.approvals.is_empty());
        let outcome = match approved {
            Some(view) => refused_changed(client, view).await,
            None => Err(Bad::left_out("there is no approval to change")),
        };
        self.report.take(Check::Tampered, outcome, began.elapsed())
    }

    /// Everything that was asked for stands in the log, with all that was shown of it.
    async fn audit(&mut self, client: &Client) -> Result<(), Failure> {
        let began = Instant::now();
        let outcome = if self.asked.is_empty() {
            Err(Bad::left_out("nothing was asked for"))
        } else {
            proved(client, &self.asked, &self.views).await
        };
        self.report.take(Check::Audit, outcome, began.elapsed())
    }
}

/// A host that the caller names, if it is there to try it on.
fn takes_work(rights: &RightsView, host: Place) -> Result<Place, Bad> {
    let record = rights.state.rights().agent_record(&host.agent);
    let record = record.ok_or_else(|| {
        Bad::failed(format!("there is no accepted agent {}", host.agent))
            .hint("countersign agents lists them; an administrator accepts one")
    })?;
    if record.drained {
        let said = format!("{} is drained: it takes no new work", host.agent);
        return Err(Bad::left_out(said).hint("name another host: --host NAME"));
    }
    Ok(host)
}

/// One's own approval of one's own request is refused, and leaves nothing.
async fn refused_alone(client: &Client, id: &CommandId) -> Result<String, Bad> {
    let view = client.fetch_command(id).await?;
    let answer = client.approve_own(&view).await?;
    let after = client.fetch_command(id).await?;
    let me = client.rights().await?.person(&client.key_id())?;
    // Others may approve at this very moment: of approvals, only one's own are looked at.
    let stands = after
        .command
        .approvals
        .iter()
        .any(|one| one.principal == me);
    judged_alone(answer, &after.command.stage, stands)
}

/// What one's own approval came to, by the server's answer, how far the command is after it, and whether
/// such an approval stands in the log.
fn judged_alone(answer: Answer, stage: &Stage, stands: bool) -> Result<String, Bad> {
    match answer {
        Answer::Entered { seq } => Err(accepted("your own approval of your own request", seq)),
        Answer::Refused { .. } if stands => Err(stands_all_the_same()),
        Answer::Refused { code } if code == OWN_REQUEST => Ok(
            "you alone get nothing to run: your approval of your own request was refused"
                .to_owned(),
        ),
        Answer::Refused { code } if *stage != Stage::Requested => Err(Bad::left_out(format!(
            "others had said yes or no before your own approval came, which was refused for that: {code}"
        ))),
        Answer::Refused { code } => Err(Bad::failed(format!(
            "your own approval of your own request was refused, but for another reason: {code}"
        ))),
    }
}

async fn refused_changed(client: &Client, view: &CommandView) -> Result<String, Bad> {
    let view = client.fetch_command(&view.id()).await?;
    for flip in [Flip::Payload, Flip::Signature] {
        match client.approve_tampered(&view, flip).await? {
            Some(Answer::Refused { code }) if code == NOT_SIGNED => {}
            Some(Answer::Refused { code }) => {
                return Err(Bad::failed(format!(
                    "an approval with one bit changed was refused, but for another reason than its signature: {code}"
                )));
            }
            Some(Answer::Entered { seq }) => {
                return Err(accepted("an approval with one bit changed", seq));
            }
            None => return Err(Bad::left_out("there is no approval to change")),
        }
    }
    // The command is over, so that nobody approves it any more.
    let after = client.fetch_command(&view.id()).await?;
    if after.command.approvals.len() != view.command.approvals.len() {
        return Err(stands_all_the_same());
    }
    Ok(
        "an approval with one bit changed was refused, in its words and in its signature"
            .to_owned(),
    )
}

fn accepted(what: &str, seq: u64) -> Bad {
    Bad::failed(format!("the server took {what}: entry {seq}")).hint(
        "do not rely on this service; keep this output and audit the ledger (countersign verify)",
    )
}

/// A refused statement must leave nothing in the log.
fn stands_all_the_same() -> Bad {
    Bad::failed("what was refused stands in the log all the same")
        .hint("audit the ledger: countersign verify")
}

async fn proved(
    client: &Client,
    asked: &[CommandId],
    shown: &[CommandView],
) -> Result<String, Bad> {
    let (mut entries, mut size) = (0, 0);
    for id in asked {
        let view = client.fetch_command(id).await?;
        let known = shown.iter().find(|shown| shown.id() == *id);
        let mut known = known.into_iter().flat_map(|known| &known.entries);
        if !known.all(|known| view.entries.iter().any(|link| link.bytes == known.bytes)) {
            let code = short::short(id);
            return Err(Failure::tampering(
                "shown_and_gone",
                format!("an entry of {code} that was shown is not in the proven log"),
            )
            .into());
        }
        entries += view.entries.len();
        size = view.size.max(size);
    }
    Ok(format!(
        "{entries} entries of {} commands, each with its signature, its right and its proof in the log of {size}",
        asked.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit_code;

    fn refused(code: &str) -> Answer {
        Answer::Refused { code: code.into() }
    }

    fn exit(outcome: Result<String, Bad>) -> u8 {
        outcome.map_or_else(|bad| bad.exit, |_| exit_code::DONE)
    }

    #[test]
    fn ones_own_approval_must_be_refused_as_ones_own_and_leave_nothing() {
        let waits = Stage::Requested;
        let judged = |answer, stands| exit(judged_alone(answer, &waits, stands));
        assert_eq!(judged(refused(OWN_REQUEST), false), exit_code::DONE);
        assert_eq!(judged(refused(OWN_REQUEST), true), exit_code::FAILED);
        assert_eq!(judged(refused("busy"), false), exit_code::FAILED);
        let entered = Answer::Entered { seq: 7 };
        assert_eq!(judged(entered, false), exit_code::FAILED);
    }

    #[test]
    fn where_others_ended_the_wait_before_it_could_be_tried_it_is_left_out() {
        let late = |code, stands| exit(judged_alone(refused(code), &Stage::Rejected, stands));
        assert_eq!(late("over", false), exit_code::LEFT_OUT);
        assert_eq!(late(OWN_REQUEST, false), exit_code::DONE);
        assert_eq!(late("over", true), exit_code::FAILED);
    }
}
