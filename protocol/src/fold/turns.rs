//! What passing time and ended turns demand, over all commands that are held.

use alloc::vec::Vec;

use super::State;
use crate::hash::{CommandId, StatementId};
use crate::lifecycle::{Command, Due, Turn};
use crate::name::Time;
use crate::refusal::Refusal;

impl State {
    /// What passing time and ended turns demand of the ledger for a command that is held. Each is
    /// legal also after those before it: turns come when nothing else is due, and may call for more.
    #[must_use]
    pub fn due(&self, id: &CommandId, now: Time) -> Vec<Due> {
        let Some(command) = self.commands.get(id) else {
            return Vec::new();
        };
        let due = command.due(now);
        if due.is_empty() {
            return self.turns(command, now).map(Due::Release).collect();
        }
        due
    }

    /// Says whether anything is due at `now`, for a command that is held.
    #[must_use]
    pub fn is_due(&self, now: Time) -> bool {
        self.commands.values().any(|command| {
            let deadline = command.next_deadline();
            deadline.is_some_and(|deadline| deadline <= now)
                || self.turns(command, now).next().is_some()
        })
    }

    /// What a turn of a command waits for at `now`, by the whole log: the ends that its
    /// `execution.released` must name.
    ///
    /// # Errors
    /// It may not begin.
    pub fn waits_for(
        &self,
        id: &CommandId,
        number: u64,
        now: Time,
    ) -> Result<Vec<StatementId>, Refusal> {
        let command = self.commands.get(id).ok_or(Refusal::UnknownCommand)?;
        let turn = command.turn(number, now).ok_or(Refusal::TurnNotFree)?;
        let others = self.gaps.may_begin(command, now)?;
        Ok(turn.after(&others).waited_for)
    }

    /// The turns of a command that may begin now, in their order, with the ends of other commands
    /// that they waited for.
    fn turns<'a>(&self, command: &'a Command, now: Time) -> impl Iterator<Item = Turn> + 'a {
        let others = self.gaps.may_begin(command, now).ok().into_iter();
        others.flat_map(move |others| command.turns(now).map(move |turn| turn.after(&others)))
    }
}
