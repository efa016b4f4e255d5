//! Words for people: people, keys, roles, groups, tokens and reviews. Only escaped text leaves this
//! file.

use countersign_protocol::name::Time;
use countersign_protocol::permission::Permission;

use super::command::{filled, paragraph, row, table};
use crate::acts::OpenReviews;
use crate::render;
use crate::shapes::{
    GroupShape, KeyShape, PersonShape, ReviewShape, RoleShape, TokenShape, WhoamiShape,
};

/// A status word as people read it.
fn word(status: &str) -> String {
    status.replace('_', " ")
}

fn time(us: u64) -> String {
    Time::from_micros(us).map_or_else(|| format!("{us} us"), render::time)
}

/// Until when, or that it has no end.
fn until(us: Option<u64>) -> String {
    us.map_or_else(|| "no end".to_owned(), time)
}

fn words(permissions: &[Permission]) -> String {
    let words: Vec<&str> = permissions.iter().map(|right| right.as_str()).collect();
    words.join(", ")
}

fn or_none(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

/// How a key stands: its status, and what else is to know.
fn standing(key: &KeyShape) -> String {
    let mut text = word(key.status);
    if let Some(seq) = key.revoked {
        text.push_str(&format!(" at entry {seq}"));
    }
    if let Some(seq) = key.suspect_from {
        text.push_str(&format!(", suspect from entry {seq} on"));
    }
    text
}

/// `key list`
#[must_use]
pub fn keys(keys: &[KeyShape]) -> String {
    let rows = keys.iter().map(|key| {
        vec![
            key.principal
                .clone()
                .unwrap_or_else(|| format!("({})", key.holder)),
            key.fingerprint.clone(),
            standing(key),
            until(key.expires_us),
            key.since.to_string(),
        ]
    });
    table(
        &["WHOSE", "KEY", "STATUS", "UNTIL", "SINCE"],
        rows.collect(),
    )
}

/// `people`: a line for each key; the person stands in the first of theirs.
#[must_use]
pub fn people(people: &[PersonShape]) -> String {
    let mut rows = Vec::new();
    for person in people {
        let mut name = [
            person.principal.clone(),
            person.roles.join(", "),
            person.groups.join(", "),
        ];
        for key in &person.keys {
            let [who, roles, groups] = std::mem::take(&mut name);
            rows.push(vec![
                who,
                roles,
                groups,
                key.fingerprint.clone(),
                standing(key),
                until(key.expires_us),
            ]);
        }
    }
    let headings = ["PERSON", "ROLES", "GROUPS", "KEY", "STATUS", "UNTIL"];
    table(&headings, rows)
}

/// `people show`
#[must_use]
pub fn person(person: &PersonShape) -> String {
    let mut out = String::new();
    row(&mut out, "person", &person.principal);
    paragraph(&mut out, "roles", &or_none(&person.roles));
    paragraph(&mut out, "groups", &or_none(&person.groups));
    let may = words(&person.permissions);
    paragraph(
        &mut out,
        "may",
        if may.is_empty() { "nothing" } else { &may },
    );
    for key in &person.keys {
        let end = match key.expires_us {
            Some(us) => format!(", until {}", time(us)),
            None => String::new(),
        };
        let line = format!(
            "{}  {}, since entry {}{end}",
            key.fingerprint,
            standing(key),
            key.since
        );
        row(&mut out, "key", &line);
    }
    out
}

/// `whoami`
#[must_use]
pub fn whoami(me: &WhoamiShape) -> String {
    let mut out = person(&me.person);
    row(&mut out, "signs with", &me.fingerprint);
    row(&mut out, "ledger", &me.ledger);
    for review in &me.reviews {
        let line = format!(
            "{} waits for somebody else's look, {}",
            review.short,
            due(review)
        );
        row(&mut out, "review", &line);
    }
    out
}

/// `role list`
#[must_use]
pub fn roles(roles: &[RoleShape]) -> String {
    let rows = roles.iter().map(|role| {
        let kind = if role.built_in { "built in" } else { "defined" };
        vec![
            role.role.clone(),
            kind.to_owned(),
            role.granted_to.join(", "),
            words(&role.permissions),
        ]
    });
    table(&["ROLE", "", "GRANTED TO", "MAY"], rows.collect())
}

/// `group list`
#[must_use]
pub fn groups(groups: &[GroupShape]) -> String {
    let rows = groups.iter().map(|group| {
        vec![
            group.group.clone(),
            group.members.join(", "),
            group.roles.join(", "),
        ]
    });
    table(&["GROUP", "MEMBERS", "ROLES"], rows.collect())
}

/// `token list`
#[must_use]
pub fn tokens(tokens: &[TokenShape]) -> String {
    let scope = |token: &TokenShape| {
        let labels = token.labels.iter().map(|label| format!("on {label}"));
        let commands = token.commands.iter().map(|name| format!("only {name}"));
        let all: Vec<String> = labels.chain(commands).collect();
        all.join(", ")
    };
    let rows = tokens.iter().map(|token| {
        let roles = token.roles.iter().map(|role| format!("role {role}"));
        let rights = token.permissions.iter().map(ToString::to_string);
        let may: Vec<String> = roles.chain(rights).collect();
        vec![
            token.token.clone(),
            token.principal.clone(),
            word(token.status),
            may.join(", "),
            scope(token),
            time(token.expires_us),
            token.last_used_us.map_or_else(|| "never".to_owned(), time),
        ]
    });
    let headings = [
        "TOKEN", "FOR", "STATUS", "MAY", "SCOPE", "UNTIL", "LAST USE",
    ];
    table(&headings, rows.collect())
}

/// By when a review is due.
fn due(review: &ReviewShape) -> String {
    if review.overdue {
        format!("OVERDUE since {}", time(review.due_us))
    } else {
        format!("due {}", time(review.due_us))
    }
}

/// `reviews`
#[must_use]
pub fn reviews(reviews: &[ReviewShape]) -> String {
    let rows = reviews.iter().map(|review| {
        let argv = review.argv.as_deref();
        let words = argv.map(|argv| filled(argv, &review.runs));
        vec![
            review.short.clone(),
            review.requester.clone(),
            time(review.opened_us),
            due(review),
            words.unwrap_or_else(|| "(you may not read this)".to_owned()),
        ]
    });
    table(&["ID", "RAN BY", "SINCE", "DUE", "COMMAND"], rows.collect())
}

/// The line of every status page while reviews are open; nothing when none is.
#[must_use]
pub fn open_reviews(reviews: OpenReviews) -> Option<String> {
    let late = match reviews.overdue {
        0 => String::new(),
        late => format!(", {late} OVERDUE"),
    };
    let runs = match reviews.open {
        0 => return None,
        1 => "1 run without approvals waits".to_owned(),
        many => format!("{many} runs without approvals wait"),
    };
    Some(format!("{runs} for review{late}: countersign reviews"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_reviews_are_told_and_overdue_ones_louder() {
        let told = |open, overdue| open_reviews(OpenReviews { open, overdue });
        assert_eq!(told(0, 0), None);
        assert!(!told(1, 0).unwrap().contains("OVERDUE"));
        assert!(told(3, 2).unwrap().contains("2 OVERDUE"));
    }
}
