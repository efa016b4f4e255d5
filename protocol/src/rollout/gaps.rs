//! The last turn under each label's gap, over all commands.
//!
//! What a fold that holds few commands does not know, it does not hold against anybody: the ledger
//! holds the last turn of every label, and so does whoever audits the whole log.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::plan::{Gap, Plan};
use crate::event::{Event, ExecutionReleased};
use crate::hash::{CommandId, StatementId};
use crate::lifecycle::{Command, Execution, Over};
use crate::name::{AgentName, Label, Time};
use crate::refusal::Refusal;

/// The last turn of each label.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gaps(BTreeMap<Label, Last>);

#[derive(Debug, Clone)]
struct Last {
    /// Where its `execution.released` stands.
    seq: u64,
    command: CommandId,
    agent: AgentName,
    /// The gap that its own command wants.
    micros: u64,
    over: Option<Over>,
}

/// The gaps of a plan that reach over commands.
fn labelled(plan: &Plan) -> impl Iterator<Item = (&Gap, &Label)> {
    let gaps = plan.gaps.iter();
    gaps.filter_map(|gap| Some((gap, gap.label.as_ref()?)))
}

impl Gaps {
    /// Says whether a turn of this command may begin at `now`, and names the ends of other commands
    /// that it waited for: of each gap the last one, each once.
    pub(crate) fn may_begin(
        &self,
        command: &Command,
        now: Time,
    ) -> Result<Vec<StatementId>, Refusal> {
        let mut waited_for = Vec::new();
        for (gap, label) in command.plan.iter().flat_map(labelled) {
            let mut newest: Option<Over> = None;
            let met = self.0.iter().filter(|(other, _)| Gap::meets(label, other));
            for (_, last) in met {
                let over = last.over.ok_or(Refusal::TurnNotFree)?;
                if over.time.plus_micros(gap.micros().max(last.micros)) > now {
                    return Err(Refusal::TurnNotFree);
                }
                if last.command != command.id && newest.is_none_or(|found| found.time < over.time) {
                    newest = Some(over);
                }
            }
            if let Some(over) = newest
                && !waited_for.contains(&over.id)
            {
                waited_for.push(over.id);
            }
        }
        Ok(waited_for)
    }

    /// After an event of this command.
    pub(crate) fn follow(&mut self, command: &Command, event: &Event) {
        if let Event::ExecutionReleased(ExecutionReleased { agent, .. }) = event {
            self.turn(command, agent);
        }
        self.end(command);
    }

    /// A command is held again: what is known of its last turn.
    pub(crate) fn restore(&mut self, command: &Command) {
        let turns = command.executions.iter();
        let last = turns
            .filter_map(|(agent, part)| Some((part.released?.at.seq, agent)))
            .max();
        if let Some((_, agent)) = last {
            self.turn(command, agent);
            self.end(command);
        }
    }

    fn turn(&mut self, command: &Command, agent: &AgentName) {
        let released = command.executions.get(agent).and_then(|part| part.released);
        let Some(released) = released else {
            return;
        };
        for (gap, label) in command.plan.iter().flat_map(labelled) {
            let known = self.0.get(label);
            if known.is_some_and(|last| last.seq > released.at.seq) {
                continue;
            }
            let last = Last {
                seq: released.at.seq,
                command: command.id,
                agent: agent.clone(),
                micros: gap.micros(),
                over: None,
            };
            self.0.insert(label.clone(), last);
        }
    }

    fn end(&mut self, command: &Command) {
        let own = |last: &&mut Last| last.command == command.id && last.over.is_none();
        for last in self.0.values_mut().filter(own) {
            let part: Option<&Execution> = command.executions.get(&last.agent);
            last.over = part.and_then(|part| part.over);
        }
    }
}
