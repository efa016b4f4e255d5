//! One command of `selfcheck` on its way: asked for, approved, followed to its end, or given up and
//! taken back, so that nothing of it runs later.

use std::time::Duration;

use countersign_protocol::event::Event;
use countersign_protocol::hash::CommandId;
use countersign_protocol::lifecycle::Stage;
use countersign_protocol::short;
use tokio::sync::watch;
use tokio::time::timeout;

use super::expected::{Check, REASON};
use super::report::Bad;
use crate::acts::{Client, RequestSpec, Requested, Step};
use crate::failure::Failure;
use crate::view::CommandView;
use crate::{console, exit_code};

/// How long a host may take to start what is authorized: an agent that is there takes no second.
const START_LIMIT: Duration = Duration::from_secs(20);

/// How long a run may go on: the longest of them has a timeout of 150 s, and hosts a grace.
const END_LIMIT: Duration = Duration::from_secs(200);

/// So long after its request somebody is told that it still waits for people.
const SILENCE: Duration = Duration::from_secs(2);

/// A request stays open for this much longer than anybody waits for it.
const OPEN_BEYOND: Duration = Duration::from_secs(600);

/// How far a command has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    Asked,
    Authorized,
    Started,
}

/// What went wrong on the way.
#[derive(Debug)]
pub(super) enum Stop {
    /// Of this command alone.
    This(Bad),
    /// The host does not answer, so that no other command will fare better.
    HostIsAway(Bad),
}

/// Who asks, and who approves.
pub(super) struct Trial<'a> {
    pub(super) client: &'a Client,
    pub(super) approvers: &'a [Client],
    pub(super) wait: Duration,
    pub(super) host: &'a str,
}

impl Trial<'_> {
    /// Asks for it.
    pub(super) async fn ask(&self, check: Check, mut spec: RequestSpec) -> Result<Requested, Bad> {
        spec.expires_in = self.wait.saturating_add(OPEN_BEYOND);
        self.client.request(&spec).await.map_err(|failure| {
            if failure.exit != exit_code::REFUSED {
                return failure.into();
            }
            let bad = check.not_possible(format!("you may not ask for it: {failure}"));
            bad.hint("`countersign policy explain` says which rule it is")
        })
    }

    /// Has it approved with the keys that the caller named, as far as it takes them.
    pub(super) async fn approve(&self, id: &CommandId) -> Result<(), Bad> {
        for approver in self.approvers {
            match approver.approve(id, Some(REASON)).await {
                Ok(_) => {}
                // One key more than it takes.
                Err(failure) if failure.code == "over" => break,
                Err(failure) => {
                    self.take_back(id, Moment::Asked).await;
                    return Err(failure.into());
                }
            }
        }
        Ok(())
    }

    /// Follows it to its end, and cancels it as soon as it runs where that is what is tried.
    pub(super) async fn follow(&self, check: Check, id: &CommandId) -> Result<CommandView, Stop> {
        let (tell, heard) = watch::channel(Moment::Asked);
        let mut sink = |step: Step<'_>| {
            if let Step::Entry { link, command } = step {
                let moment = match (link.entry.verified.event(), &command.stage) {
                    (Event::ExecutionStarted(_), _) => Moment::Started,
                    (_, Stage::Authorized { .. }) => Moment::Authorized,
                    _earlier => Moment::Asked,
                };
                tell.send_if_modified(|known| {
                    let is_later = moment > *known;
                    *known = moment.max(*known);
                    is_later
                });
            }
            Ok(())
        };
        let cancels = check == Check::Cancel;
        tokio::select! {
            followed = self.client.follow(id, &mut sink) => {
                followed.map_err(|failure| Stop::This(failure.into()))
            }
            stop = self.watch_over(id, heard, cancels) => Err(stop),
        }
    }

    /// Ends only when there is no use in waiting any longer.
    async fn watch_over(
        &self,
        id: &CommandId,
        mut heard: watch::Receiver<Moment>,
        cancels: bool,
    ) -> Stop {
        let code = short::short(id);
        let mut reached = async |moment, limit: Duration| {
            let waited = timeout(limit, heard.wait_for(|heard| *heard >= moment));
            matches!(waited.await, Ok(Ok(_)))
        };
        if !reached(Moment::Authorized, SILENCE.min(self.wait)).await {
            console::note(&format!(
                "countersign: waiting for others to approve: countersign approve {code}"
            ));
            if !reached(Moment::Authorized, self.wait).await {
                self.take_back(id, Moment::Asked).await;
                let said = format!("too few approved it within {} s", self.wait.as_secs());
                return Stop::This(Bad::left_out(said).hint(
                    "have somebody at hand who approves, or wait longer (--wait); for a trial name their keys (--approver-key)",
                ));
            }
        }
        if !reached(Moment::Started, START_LIMIT).await {
            self.take_back(id, Moment::Authorized).await;
            let (host, limit) = (self.host, START_LIMIT.as_secs());
            let said = format!("{host} did not start it within {limit} s; it was cancelled");
            return Stop::HostIsAway(Bad::failed(said).hint(format!(
                "is the agent there running and connected? On {host}: systemctl status countersign-agent; its log says why not"
            )));
        }
        if cancels && let Err(failure) = self.client.cancel(id, Some(REASON)).await {
            return Stop::This(failure.into());
        }
        tokio::time::sleep(END_LIMIT).await;
        self.take_back(id, Moment::Started).await;
        let limit = END_LIMIT.as_secs();
        Stop::This(Bad::failed(format!(
            "{} did not say within {limit} s how it ended; it was cancelled",
            self.host
        )))
    }

    /// What nobody waits for any more must not run later.
    async fn take_back(&self, id: &CommandId, reached: Moment) {
        let taken: Result<_, Failure> = match reached {
            Moment::Asked => self.client.withdraw(id, Some(REASON)).await,
            Moment::Authorized | Moment::Started => self.client.cancel(id, Some(REASON)).await,
        };
        if let Err(failure) = taken {
            let code = short::short(id);
            console::note(&format!(
                "countersign: {code} could not be taken back ({failure}); look at it: countersign show {code}"
            ));
        }
    }
}
