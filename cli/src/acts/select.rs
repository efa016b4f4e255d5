//! Which hosts a request is for: names, all that fit a choice, all, or any one of them.
//!
//! It ends in names. The request freezes them with their keys, so that nothing is chosen later.

use std::collections::BTreeSet;

use countersign_protocol::name::{AgentName, Label, ServiceName};
use countersign_protocol::rights::Rights;
use countersign_protocol::search::{Pattern, Query, Term};
use countersign_protocol::target::Place;

use super::connect::Client;
use crate::audit::{Fits, judge};
use crate::entropy;
use crate::failure::Failure;

/// Which hosts are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hosts {
    /// These, by their names.
    Named(Vec<Place>),
    /// All that fit a choice, or all there are. A host that is drained is left out.
    Fitting {
        /// What they have in common: hosts and labels only; none for all.
        choice: Option<Query>,
        /// The service of each of them to run it in.
        service: Option<ServiceName>,
    },
}

/// What was chosen, before anything is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// Where it shall run.
    pub places: Vec<Place>,
    /// Hosts that fit and take no new work.
    pub drained: Vec<AgentName>,
}

/// Whether a label is meant: the same or a special case of it; with `*`, or in quotes, its text.
fn means(pattern: &Pattern, label: &Label) -> bool {
    let asked: Option<Label> = match pattern {
        Pattern::Glob(text) if !text.contains('*') => text.parse().ok(),
        Pattern::Exact(_) | Pattern::Glob(_) => None,
    };
    asked.map_or_else(
        || pattern.fits(label.as_str()),
        |asked| label.is_within(&asked),
    )
}

/// A choice has terms of hosts and labels only; any other says nothing of a host and chooses none.
fn fits(choice: &Query, name: &AgentName, labels: &BTreeSet<Label>) -> bool {
    let of_term = |term: &Term| {
        Fits::of(if let Term::Host(pattern) = term {
            pattern.fits(name.as_str())
        } else if let Term::Label(pattern) = term {
            labels.iter().any(|label| means(pattern, label))
        } else {
            false
        })
    };
    judge(choice, &of_term) == Fits::Yes
}

/// Resolves a choice against proven rights; without one all are meant.
fn select(choice: Option<&Query>, service: Option<&ServiceName>, rights: &Rights) -> Selected {
    let mut selected = Selected {
        places: Vec::new(),
        drained: Vec::new(),
    };
    for (name, record) in rights.agents() {
        if !choice.is_none_or(|choice| fits(choice, name, &record.labels)) {
            continue;
        }
        if record.drained {
            selected.drained.push(name.clone());
        } else {
            selected.places.push(Place {
                agent: name.clone(),
                service: service.cloned(),
            });
        }
    }
    selected
}

impl Client {
    /// Resolves a choice of hosts against the rights as they are proven now; names need none.
    ///
    /// # Errors
    /// No host fits; nothing was signed. Or the rights could not be read.
    pub async fn select(&self, hosts: Hosts) -> Result<Selected, Failure> {
        let (choice, service) = match hosts {
            Hosts::Named(places) => {
                return Ok(Selected {
                    places,
                    drained: Vec::new(),
                });
            }
            Hosts::Fitting { choice, service } => (choice, service),
        };
        let rights = self.rights().await?;
        let selected = select(choice.as_ref(), service.as_ref(), rights.state.rights());
        if selected.places.is_empty() {
            let drained = selected.drained.len();
            let message = if drained > 0 {
                format!("no host that takes work fits; {drained} that fit are drained")
            } else {
                "no host fits".to_owned()
            };
            return Err(Failure::failed("no_host", message)
                .hint("countersign agents lists them with their labels; nothing was signed"));
        }
        Ok(selected)
    }
}

/// Any one of these places, drawn by chance; none of none. Who is connected is not in the log, and a
/// server's word on it decides nothing here.
#[must_use]
pub fn any_one(mut places: Vec<Place>) -> Option<Place> {
    let drawn = u64::from_le_bytes(entropy::random());
    let at = usize::try_from(drawn.checked_rem(places.len() as u64)?).ok()?;
    Some(places.swap_remove(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::parse_choice;

    fn chosen(choice: &str) -> Vec<&'static str> {
        let hosts = [
            ("db-1", ["group=db", "site=fra"]),
            ("web-1", ["group=web.dev", "site=fra"]),
            ("web-2", ["group=web.dev.eu", "site=ams"]),
            ("web-3", ["group=web", "site=ams"]),
            ("webb-4", ["group=webb", "site=ams"]),
        ];
        let choice = parse_choice(choice).unwrap();
        let fits_it = |(name, labels): &(&'static str, [&str; 2])| {
            let labels = labels.iter().map(|label| label.parse().unwrap()).collect();
            fits(&choice, &name.parse().unwrap(), &labels).then_some(*name)
        };
        hosts.iter().filter_map(fits_it).collect()
    }

    #[test]
    fn a_label_takes_in_its_special_cases_and_nothing_that_only_begins_alike() {
        assert_eq!(chosen("group=web"), ["web-1", "web-2", "web-3"]);
        assert_eq!(chosen("group=web.dev"), ["web-1", "web-2"]);
        assert_eq!(chosen("group=web.d"), [""; 0]);
        assert_eq!(chosen("label:\"group=web\""), ["web-3"]);
        assert_eq!(chosen("group=web*"), ["web-1", "web-2", "web-3", "webb-4"]);
    }

    #[test]
    fn choices_are_joined_by_and_or_and_not() {
        assert_eq!(chosen("group=web and site=ams"), ["web-2", "web-3"]);
        assert_eq!(chosen("group=web not site=ams"), ["web-1"]);
        assert_eq!(chosen("db-1 or web-3"), ["db-1", "web-3"]);
        assert_eq!(chosen("not (group=web or group=webb)"), ["db-1"]);
        assert_eq!(chosen("web-*"), ["web-1", "web-2", "web-3"]);
    }

    #[test]
    fn one_of_a_pool_is_one_of_it_and_each_may_be() {
        let places = |count: usize| -> Vec<Place> {
            let name = |number| format!("web-{number}").parse::<AgentName>().unwrap();
            (0..count).map(|number| name(number).into()).collect()
        };
        assert_eq!(any_one(Vec::new()), None);
        let drawn: BTreeSet<String> = (0..200)
            .filter_map(|_| any_one(places(3)))
            .map(|place| place.agent.to_string())
            .collect();
        assert_eq!(drawn.len(), 3, "by chance each of three comes in 200 draws");
    }
}
