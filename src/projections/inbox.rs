//! `projections.inbox`: what waits for whom. One row for each person and thing that waits.

use std::collections::BTreeMap;

use countersign_protocol::fold::State;
use countersign_protocol::hash::StatementId;
use countersign_protocol::lifecycle::Command;
use countersign_protocol::name::Principal;
use sqlx::PgConnection;

use super::page::{Page, waits};
use super::runner::Projection;

pub(super) struct Inbox;

impl Projection for Inbox {
    const NAME: &'static str = "inbox";
    const VERSION: i32 = 2;
    const TABLE: &'static str = "CREATE TABLE inbox (
        principal text NOT NULL,
        id bytea NOT NULL,
        is_change boolean NOT NULL,
        PRIMARY KEY (principal, id)
    )";
    const INDEXES: &'static [&'static str] = &["CREATE INDEX inbox_by_id ON inbox (id)"];

    async fn apply(connection: &mut PgConnection, page: &Page<'_>) -> Result<(), sqlx::Error> {
        let state = page.state();
        for command in page.commands() {
            let id = command.id;
            sqlx::query("DELETE FROM inbox WHERE id = $1")
                .bind(id.as_bytes().as_slice())
                .execute(&mut *connection)
                .await?;
            let people = whom(state, command);
            insert(connection, &BTreeMap::from([(id, people)]), false).await?;
        }
        if page.rights_touched {
            sqlx::query("DELETE FROM inbox WHERE is_change")
                .execute(&mut *connection)
                .await?;
            insert(connection, &changes(state), true).await?;
        }
        Ok(())
    }
}

/// Who may approve a command and has not, under the policy in force.
fn whom(state: &State, command: &Command) -> Vec<Principal> {
    let in_force = state.rights().policy().map(|in_force| in_force.reference);
    if !waits(command) {
        return Vec::new();
    }
    let given = |person: &Principal| {
        let mut given = command.approvals.iter();
        given.any(|given| given.principal == *person && Some(given.policy) == in_force)
    };
    let voted = |person: &Principal| command.votes.iter().any(|vote| vote.principal == *person);
    let open = state.approvers(command).into_iter();
    open.filter(|person| !given(person) && !voted(person))
        .cloned()
        .collect()
}

/// Those whose consent counts and is not given, for each open change.
fn changes(state: &State) -> BTreeMap<StatementId, Vec<Principal>> {
    let rights = state.rights();
    let Some(now) = rights.changed_at() else {
        return BTreeMap::new();
    };
    let of = |change| {
        let awaited = rights.awaited(change, state.judge(), now).into_iter();
        awaited.cloned().collect()
    };
    let changes = rights.changes();
    changes.map(|(id, change)| (*id, of(change))).collect()
}

async fn insert(
    connection: &mut PgConnection,
    waiting: &BTreeMap<StatementId, Vec<Principal>>,
    is_change: bool,
) -> Result<(), sqlx::Error> {
    for (id, people) in waiting {
        let people: Vec<&str> = people.iter().map(Principal::as_str).collect();
        sqlx::query("INSERT INTO inbox SELECT name, $2, $3 FROM unnest($1::text[]) AS name")
            .bind(people)
            .bind(id.as_bytes().as_slice())
            .bind(is_change)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
