//! `projections.inbox`: what waits for whom. One row for each person and thing that waits.

use std::collections::BTreeMap;

use countersign_protocol::hash::StatementId;
use countersign_protocol::lifecycle::Command;
use countersign_protocol::name::Principal;
use countersign_protocol::rights::Rights;
use sqlx::PgConnection;

use super::page::{Page, waits};
use super::runner::Projection;

pub(super) struct Inbox;

impl Projection for Inbox {
    const NAME: &'static str = "inbox";
    const VERSION: i32 = 1;
    const TABLE: &'static str = "CREATE TABLE inbox (
        principal text NOT NULL,
        id bytea NOT NULL,
        is_change boolean NOT NULL,
        PRIMARY KEY (principal, id)
    )";
    const INDEXES: &'static [&'static str] = &["CREATE INDEX inbox_by_id ON inbox (id)"];

    async fn apply(connection: &mut PgConnection, page: &Page<'_>) -> Result<(), sqlx::Error> {
        let rights = page.state().rights();
        for command in page.commands() {
            let id = command.id;
            sqlx::query("DELETE FROM inbox WHERE id = $1")
                .bind(id.as_bytes().as_slice())
                .execute(&mut *connection)
                .await?;
            let people = whom(rights, command);
            insert(connection, &BTreeMap::from([(id, people)]), false).await?;
        }
        if page.rights_touched {
            sqlx::query("DELETE FROM inbox WHERE is_change")
                .execute(&mut *connection)
                .await?;
            insert(connection, &changes(rights), true).await?;
        }
        Ok(())
    }
}

/// Who may approve a command and has not.
fn whom(rights: &Rights, command: &Command) -> Vec<Principal> {
    let Some(in_force) = rights.policy().filter(|_| waits(command)) else {
        return Vec::new();
    };
    let open = |person: &&Principal| {
        *person != command.requester()
            && !command
                .approvals
                .iter()
                .any(|given| given.principal == **person)
    };
    in_force
        .policy
        .may_approve
        .iter()
        .filter(open)
        .cloned()
        .collect()
}

/// Administrators who have not consented, for each open change.
fn changes(rights: &Rights) -> BTreeMap<StatementId, Vec<Principal>> {
    let administrators: Vec<Principal> = rights
        .genesis()
        .map(|genesis| genesis.administrators.as_slice())
        .unwrap_or_default()
        .iter()
        .map(|administrator| administrator.principal.clone())
        .filter(|person| rights.is_administrator(person))
        .collect();
    rights
        .changes()
        .map(|(id, change)| {
            let open = |person: &&Principal| {
                !change
                    .consents
                    .iter()
                    .any(|given| given.principal == **person)
            };
            (*id, administrators.iter().filter(open).cloned().collect())
        })
        .collect()
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
