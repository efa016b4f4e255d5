//! What a permit costs: its annotations, read once, and the strictest of several permits.

use std::collections::{BTreeMap, BTreeSet};

use countersign_protocol::judgement::{Denial, Judgement};
use countersign_protocol::name::{Label, MAX_INTEGER, RuleName};
use countersign_protocol::permission::{Permission, Whom};
use countersign_protocol::quorum::{
    BreakGlass, Demand, MAX_DEMANDS, MAX_ELECTORS, MAX_SEATS, Requirement, Seats,
};
use countersign_protocol::rollout::{Gap, MAX_SPAN_MS};

/// What a permit takes when it does not say: two people beside the requester.
const DEFAULT_APPROVALS: u32 = 2;

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

/// The longest time an annotation may name; more is a typing error.
const MAX_DURATION_MS: u64 = 366 * DAY_MS;

/// When the review of a break-glass run is due, when its rule does not say.
const DEFAULT_REVIEW_MS: u64 = 24 * HOUR_MS;

/// What a rule permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Deed {
    /// A command, with approvals.
    Execute,
    /// A command without them, and a review.
    BreakGlass,
    /// A change of hosts.
    Manage,
}

impl Deed {
    pub(crate) const ALL: [Self; 3] = [Self::Execute, Self::BreakGlass, Self::Manage];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Execute => "command:execute",
            Self::BreakGlass => "command:break_glass",
            Self::Manage => "agent:manage",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|deed| deed.as_str() == name)
    }

    /// Which annotations mean something on a permit for this.
    const fn annotations(self) -> &'static [&'static str] {
        match self {
            Self::Execute => &[
                "approvals",
                "from",
                "also_from",
                "expires",
                "max_timeout",
                "max_in_flight",
                "max_errors",
                "canary",
                "gap",
                "gap_label",
                "count_above",
                "reason",
                "rejections",
            ],
            Self::BreakGlass => &[
                "approvals",
                "max_timeout",
                "max_in_flight",
                "max_errors",
                "canary",
                "gap",
                "gap_label",
                "count_above",
                "review_within",
            ],
            Self::Manage => &["approvals", "from", "also_from"],
        }
    }

    /// Who approves when a rule names nobody.
    const fn default_electors(self) -> Permission {
        match self {
            Self::Execute | Self::BreakGlass => Permission::CommandApprove,
            Self::Manage => Permission::AgentManage,
        }
    }
}

/// Annotations that only a reader reads.
const NOTES: [&str; 3] = ["id", "comment", "comments"];

/// What one permit costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Price {
    /// Nothing for break-glass.
    pub(crate) demand: Option<Demand>,
    pub(crate) max_timeout_ms: Option<u64>,
    approval_age_ms: Option<u64>,
    max_in_flight: Option<u32>,
    max_errors: Option<u32>,
    canary: Option<u32>,
    gap: Option<Gap>,
    /// For whoever asks, and no part of what an authorization needs: the count is signed anyway.
    pub(crate) count_above: Option<u32>,
    reason: bool,
    rejections: Option<u32>,
    review_ms: u64,
}

/// Says which annotations of a forbid mean something: a forbid costs nothing.
pub(crate) fn check_notes<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let unknown = names.filter(|name| !NOTES.contains(name));
    unknown
        .map(|name| format!("@{name} means nothing on a forbid, which has only @id and @comment"))
        .collect()
}

impl Price {
    /// Reads the annotations of a permit.
    ///
    /// # Errors
    /// A sentence for each that means nothing here or is malformed.
    pub(crate) fn read<'a>(
        deed: Deed,
        annotations: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Vec<String>> {
        let given: BTreeMap<&str, &str> = annotations.collect();
        let mut wrong: Vec<String> = Vec::new();
        for name in given.keys() {
            if !NOTES.contains(name) && !deed.annotations().contains(name) {
                wrong.push(format!(
                    "@{name} means nothing on a permit for {}; it may have @id, @comment, @{}",
                    deed.as_str(),
                    deed.annotations().join(", @")
                ));
            }
        }
        let demand = match deed {
            Deed::BreakGlass => {
                if given.get("approvals").is_some_and(|text| *text != "0") {
                    wrong.push("break-glass takes no approvals: leave @approvals out".to_owned());
                }
                None
            }
            Deed::Execute | Deed::Manage => note(&mut wrong, demand(deed, &given)),
        };
        let mut time = |name: &str| {
            let text = given.get(name)?;
            note(&mut wrong, duration(name, text))
        };
        let approval_age_ms = time("expires");
        let max_timeout_ms = time("max_timeout");
        let gap_ms = time("gap");
        let review_ms = time("review_within").unwrap_or(DEFAULT_REVIEW_MS);
        let mut number = |name: &str, most: u32| {
            let text = given.get(name)?;
            note(&mut wrong, count(name, text, most))
        };
        let max_in_flight = number("max_in_flight", u32::MAX);
        let canary = number("canary", u32::MAX);
        let count_above = number("count_above", u32::MAX);
        let rejections = number("rejections", MAX_SEATS).filter(|needed| *needed > 1);
        let max_errors = given.get("max_errors").and_then(|text| {
            let read = text.parse::<u32>().map_err(|_| {
                format!("@max_errors has {text:?}, where a number from 0 up is expected")
            });
            note(&mut wrong, read)
        });
        let gap = gap(&mut wrong, gap_ms, given.get("gap_label").copied());
        let reason = match given.get("reason").copied() {
            None => false,
            Some("required") => true,
            Some(other) => {
                wrong.push(format!(
                    "@reason(\"{other}\") is unknown: the only value is \"required\""
                ));
                true
            }
        };
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(Self {
            demand,
            max_timeout_ms,
            approval_age_ms,
            max_in_flight,
            max_errors,
            canary,
            gap,
            count_above,
            reason,
            rejections,
            review_ms,
        })
    }
}

fn note<T>(wrong: &mut Vec<String>, read: Result<T, String>) -> Option<T> {
    read.map_err(|sentence| wrong.push(sentence)).ok()
}

/// How far apart hosts run, and which.
fn gap(wrong: &mut Vec<String>, ms: Option<u64>, label: Option<&str>) -> Option<Gap> {
    let label = label.and_then(|text| {
        let read = text.parse::<Label>().map_err(|_| {
            format!("@gap_label has {text:?}, where a label is expected, such as role=dns")
        });
        note(wrong, read)
    });
    if ms.is_none() && label.is_some() {
        wrong.push(
            "@gap_label says which hosts are kept apart and nothing how far: add @gap".to_owned(),
        );
    }
    if ms.is_some_and(|ms| ms > MAX_SPAN_MS) {
        wrong.push("@gap is at most 7d, as long as a request stays open".to_owned());
    }
    ms.map(|ms| Gap { label, ms })
}

/// The seats of one permit, its own and those beside.
fn demand(deed: Deed, given: &BTreeMap<&str, &str>) -> Result<Demand, String> {
    let approvals = match given.get("approvals") {
        Some(text) => count("approvals", text, MAX_SEATS)?,
        None => DEFAULT_APPROVALS,
    };
    let from = match given.get("from") {
        Some(text) => electors(text)?,
        None => vec![Whom::Permission(deed.default_electors())],
    };
    let mut seats = vec![Seats { approvals, from }];
    for item in given
        .get("also_from")
        .into_iter()
        .flat_map(|text| text.split(','))
    {
        let malformed = || {
            format!(
                "@also_from has {item:?}, which is not NAME:COUNT, such as security:1 or user:alice:1"
            )
        };
        let (name, approvals) = item.trim().rsplit_once(':').ok_or_else(malformed)?;
        if approvals.parse::<u32>().is_err() {
            return Err(malformed());
        }
        let approvals = count("also_from", approvals, MAX_SEATS)?;
        let from = electors(name)?;
        seats.push(Seats { approvals, from });
    }
    seats.sort();
    let total: u32 = seats.iter().map(|seats| seats.approvals).sum();
    if total > MAX_SEATS {
        return Err(format!(
            "it takes {total} approvals in all, and {MAX_SEATS} are the most"
        ));
    }
    for Seats { approvals, from } in &seats {
        let people = from.iter().all(|whom| matches!(whom, Whom::User(_)));
        if people && from.len() < *approvals as usize {
            return Err(format!(
                "it takes {approvals} approvals and names only {} who could give one",
                from.len()
            ));
        }
    }
    let demand = Demand(seats);
    let alone = Requirement {
        demands: vec![demand.clone()],
        ..Requirement::of(total, Vec::new())
    };
    alone.check().map_err(|why| why.to_string())?;
    Ok(demand)
}

/// A comma list of people; a bare word is a group.
fn electors(text: &str) -> Result<Vec<Whom>, String> {
    let mut from = BTreeSet::new();
    for name in text.split(',').map(str::trim) {
        let whom = if name.contains(':') {
            name.parse().map_err(|_| ())
        } else {
            name.parse().map(Whom::Group).map_err(|_| ())
        };
        from.insert(whom.map_err(|()| {
            format!("{name:?} names nobody: a group, or user:NAME, group:NAME, role:NAME, permission:NAME")
        })?);
    }
    if from.len() > MAX_ELECTORS {
        return Err(format!(
            "it names {} who could approve, and {MAX_ELECTORS} are the most; make a group of them",
            from.len()
        ));
    }
    Ok(from.into_iter().collect())
}

fn count(name: &str, text: &str, most: u32) -> Result<u32, String> {
    let number = text.parse::<u32>().ok();
    number
        .filter(|number| (1..=most).contains(number))
        .ok_or_else(|| format!("@{name} has {text:?}, where a number from 1 to {most} is expected"))
}

/// Milliseconds of `30m`: a whole number and `ms`, `s`, `m`, `h` or `d`.
pub(crate) fn duration(name: &str, text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).unwrap_or((text, ""));
    let unit = match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(MINUTE_MS),
        "h" => Some(HOUR_MS),
        "d" => Some(DAY_MS),
        _other => None,
    };
    let number = number.parse::<u64>().ok();
    let ms = number
        .zip(unit)
        .and_then(|(number, unit)| number.checked_mul(unit));
    ms.filter(|ms| (1..=MAX_DURATION_MS.min(MAX_INTEGER)).contains(ms))
        .ok_or_else(|| {
            format!(
                "@{name} has {text:?}, where a time up to 366d is expected, such as 500ms, 30s, 30m, 24h, 7d"
            )
        })
}

/// What several permits that all hold demand together: the strictest of each. `permits` is sorted by
/// name and not empty. `timeout_ms` is what the request asks for; a change has none.
pub(crate) fn strictest(
    deed: Deed,
    permits: &[(&RuleName, &Price)],
    timeout_ms: Option<u64>,
) -> Judgement {
    let over = |price: &Price| {
        let most = price.max_timeout_ms?;
        timeout_ms.filter(|asked| *asked > most).map(|_| most)
    };
    let tightest = permits
        .iter()
        .filter_map(|(name, price)| Some((over(price)?, *name)));
    if let Some((most, name)) = tightest.min() {
        let limit = format!("with a timeout of at most {most} ms");
        return Judgement::Denied(Denial::Limit(name.clone(), limit));
    }
    let demands: BTreeSet<&Demand> = permits
        .iter()
        .filter_map(|(_, price)| price.demand.as_ref())
        .collect();
    if permits.len() > MAX_DEMANDS || demands.len() > MAX_DEMANDS {
        return Judgement::Denied(Denial::Broken(format!(
            "{} rules permit this at once, and an authorization names at most {MAX_DEMANDS}; \
             make their conditions narrower",
            permits.len()
        )));
    }
    let prices = || permits.iter().map(|(_, price)| *price);
    let mut gaps: Vec<Gap> = Vec::new();
    for gap in prices().filter_map(|price| price.gap.as_ref()) {
        match gaps.iter_mut().find(|other| other.label == gap.label) {
            Some(same) => same.ms = same.ms.max(gap.ms),
            None => gaps.push(gap.clone()),
        }
    }
    gaps.sort();
    // Without the annotation one no is enough, which no number is stricter than.
    let veto = prices().any(|price| price.rejections.is_none());
    let rejections = prices().filter_map(|price| price.rejections).min();
    let review_ms = prices().map(|price| price.review_ms).min();
    Judgement::Permitted(Requirement {
        demands: demands.into_iter().cloned().collect(),
        rules: permits.iter().map(|(name, _)| (*name).clone()).collect(),
        approval_age_ms: prices().filter_map(|price| price.approval_age_ms).min(),
        max_in_flight: prices().filter_map(|price| price.max_in_flight).min(),
        max_errors: prices().filter_map(|price| price.max_errors).min(),
        canary: prices().filter_map(|price| price.canary).min(),
        gaps,
        reason: prices().any(|price| price.reason),
        rejections: rejections.filter(|_| !veto),
        break_glass: review_ms
            .filter(|_| deed == Deed::BreakGlass)
            .map(|review_ms| BreakGlass { review_ms }),
    })
}
