//! Words for people: what approving takes, whose word counts, and how long things may be. Only escaped
//! text leaves this file.

use std::collections::BTreeSet;

use countersign_protocol::permission::Whom;
use countersign_protocol::quorum::{Demand, Requirement, Seats};

use super::rollout::{canary, gap};
use crate::view::CommandView;

/// What approving takes, and who counts.
#[must_use]
pub fn requirement(view: &CommandView) -> String {
    let needed = match &view.requirement {
        Ok(needed) => needed,
        Err(refusal) => return format!("nobody can approve this: {refusal}"),
    };
    price(needed)
}

/// How many noes there are of those that it takes, where one alone does not end it.
#[must_use]
pub fn votes(view: &CommandView) -> Option<String> {
    let noes = view.requirement.as_ref().ok()?.rejections?;
    let people: BTreeSet<_> = view
        .command
        .votes
        .iter()
        .map(|vote| &vote.principal)
        .collect();
    let who: Vec<&str> = people.iter().map(|who| who.as_str()).collect();
    (noes > 1).then(|| match who.as_slice() {
        [] => format!("0 of {noes}"),
        who => format!("{} of {noes}: {}", who.len(), who.join(", ")),
    })
}

/// What a requirement asks, in one line.
#[must_use]
pub fn price(needed: &Requirement) -> String {
    let mut out = if let Some(owed) = needed.break_glass {
        format!(
            "no approval: it breaks glass, and somebody else reviews it within {}",
            duration(owed.review_ms)
        )
    } else {
        demands(needed)
    };
    if needed.reason {
        out.push_str("; each says why");
    }
    if let Some(noes) = needed.rejections {
        out.push_str(&match noes {
            1 => "; one no ends it".to_owned(),
            noes => format!("; {noes} noes end it"),
        });
    }
    if let Some(age) = needed.approval_age_ms {
        out.push_str(&format!("; an approval counts for {}", duration(age)));
    }
    if let Some(most) = needed.max_in_flight {
        out.push_str(&format!("; at most {most} host(s) at a time"));
    }
    for apart in &needed.gaps {
        out.push_str(&format!("; {}", gap(apart)));
    }
    if let Some(hosts) = needed.canary {
        out.push_str(&format!("; {}", canary(hosts.into())));
    }
    if let Some(most) = needed.max_errors {
        out.push_str(&format!("; at most {most} error(s)"));
    }
    if !needed.rules.is_empty() {
        let rules: Vec<&str> = needed.rules.iter().map(|rule| rule.as_str()).collect();
        out.push_str(&format!("; by {}", rules.join(", ")));
    }
    out
}

/// Who must agree: `2 of: group sre and 1 of: group security`.
#[must_use]
pub fn demands(needed: &Requirement) -> String {
    let seats = |seats: &Seats| {
        let names: Vec<String> = seats.from.iter().map(whom).collect();
        format!("{} of: {}", seats.approvals, names.join(", "))
    };
    let demand = |demand: &Demand| {
        let all: Vec<String> = demand.0.iter().map(seats).collect();
        all.join(" and ")
    };
    let all: Vec<String> = needed.demands.iter().map(demand).collect();
    all.join("; also ")
}

/// People, as a rule names them, in words: a person by name alone.
#[must_use]
pub fn whom(whom: &Whom) -> String {
    match whom {
        Whom::User(name) => name.to_string(),
        Whom::Group(name) => format!("group {name}"),
        Whom::Role(name) => format!("role {name}"),
        Whom::Permission(name) => format!("whoever holds {name}"),
    }
}

/// Milliseconds as people say them.
pub(crate) fn duration(ms: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    match (ms / 1000, ms % 1000) {
        (0, ms) => format!("{ms} ms"),
        (seconds, 0) if seconds >= 2 * HOUR && seconds.is_multiple_of(HOUR) => {
            format!("{} h", seconds / HOUR)
        }
        (seconds, 0) if seconds > 5 * MINUTE && seconds.is_multiple_of(MINUTE) => {
            format!("{} min", seconds / MINUTE)
        }
        (seconds, 0) => format!("{seconds} s"),
        (seconds, ms) => format!("{seconds}.{ms:03} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_names_everything_that_it_takes() {
        let sre: Whom = "group:sre".parse().unwrap();
        let mut needed = Requirement::of(2, vec![sre]);
        assert_eq!(price(&needed), "2 of: group sre");
        needed.reason = true;
        needed.rejections = Some(2);
        needed.approval_age_ms = Some(30 * 60 * 1000);
        needed.max_in_flight = Some(3);
        let said = price(&needed);
        for part in ["says why", "2 noes", "30 min", "at most 3"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }

    #[test]
    fn durations_are_exact() {
        for (ms, said) in [
            (999, "999 ms"),
            (1_500, "1.500 s"),
            (300_000, "300 s"),
            (1_800_000, "30 min"),
            (5_400_000, "90 min"),
            (7_200_000, "2 h"),
            (7_201_000, "7201 s"),
        ] {
            assert_eq!(duration(ms), said);
        }
    }
}
