//! An entry as a message: where it stands, what was signed, and one sentence for people.
//!
//! Every message carries enough to tell repetitions apart and to ask for the proof: ledger, seq,
//! statement id and leaf. It decides no wording of OCSF or syslog.

use countersign_protocol::event::{Author, Event, Kind, LossForm};
use countersign_protocol::hash::StatementId;
use countersign_protocol::name::Time;
use countersign_protocol::{short, visible};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::config::Format;
use super::gather::{Gatherer, Told};
use super::ocsf;

/// Characters of each text in the sentence.
const SENTENCE_CHARS: usize = 200;

/// How much somebody should care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// What happens all day.
    Routine,
    /// A decision of people.
    Notable,
    /// A no, a failure, a denial.
    Bad,
    /// Rules were gone around, or nobody can say what happened.
    Grave,
}

/// A message, ready for any receiver.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) id: StatementId,
    pub(super) kind: Kind,
    pub(super) time: Time,
    pub(super) weight: Weight,
    pub(super) format: Format,
    /// What a receiver needs to tell repetitions apart and to ask for the proof.
    pub(super) place: Map<String, Value>,
    pub(super) body: Value,
}

impl Message {
    pub(super) fn new(told: &Told, gatherer: &Gatherer, format: Format) -> Self {
        let place = place(told, gatherer);
        let body = match format {
            Format::Event => Value::Object(event(told, place.clone())),
            Format::Ocsf => ocsf::ocsf(told, gatherer, event(told, place.clone())),
            Format::Slack => json!({ "text": for_chat(&sentence(told)) }),
        };
        Self {
            id: told.id,
            kind: told.kind(),
            time: told.time,
            weight: weight(told),
            format,
            place,
            body,
        }
    }
}

/// A time as RFC 3339 with microseconds.
pub(super) fn stamp(time: Time) -> String {
    let micros = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    // Every time of ours is before the year 2256.
    let stamp = Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX);
    format!("{stamp:.6}")
}

fn place(told: &Told, gatherer: &Gatherer) -> Map<String, Value> {
    let mut place = Map::new();
    place.insert("ledger".into(), json!(gatherer.ledger));
    place.insert("seq".into(), json!(told.seq));
    place.insert("id".into(), json!(told.id));
    place.insert("kind".into(), json!(told.kind().as_str()));
    place.insert("time".into(), json!(stamp(told.time)));
    place.insert("leaf".into(), json!(told.leaf));
    place
}

/// The `event` format.
fn event(told: &Told, place: Map<String, Value>) -> Map<String, Value> {
    let mut event = place;
    event.insert("message".into(), json!(sentence(told)));
    event.insert("by".into(), json!(by(told)));
    event.insert("key_id".into(), json!(told.signer));
    if let Some(request) = told.request() {
        event.insert("requester".into(), json!(request.asked.principal));
    }
    event.insert("payload".into(), told.payload.clone());
    if !told.texts.is_empty() {
        event.insert("texts".into(), json!(told.texts));
    }
    event
}

/// Who signed, as text.
fn by(told: &Told) -> String {
    match told.event.header().author {
        Author::Ledger => "ledger".to_owned(),
        Author::Person(person) => person.to_string(),
        Author::Agent(agent) => agent.to_string(),
    }
}

/// One sentence for people.
pub(super) fn sentence(told: &Told) -> String {
    let mut text = format!("{} by {}", told.kind().as_str(), by(told));
    if let Some((command, request)) = &told.command {
        text.push_str(&format!(", command {}", short::short(command)));
        let requester = request.as_ref().map(|request| &request.asked.principal);
        if let Some(requester) = requester.filter(|who| who.as_str() != by(told)) {
            text.push_str(&format!(" of {requester}"));
        }
    }
    for name in ["command", "reason", "detail"] {
        if let Some(Some(shown)) = told.texts.get(name) {
            text.push_str(&format!(
                ", {name}: {}",
                visible::cut(shown, SENTENCE_CHARS)
            ));
        }
    }
    text
}

/// As chat services take text: their three special characters stand for themselves.
fn for_chat(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// How much somebody should care.
pub(super) fn weight(told: &Told) -> Weight {
    let kind = told.kind();
    if let Event::CommandRequested(asked) = &told.event
        && asked.act.break_glass
    {
        return Weight::Grave;
    }
    if let Event::ExecutionCompleted(done) = &told.event {
        return if done.succeeded() {
            Weight::Routine
        } else {
            Weight::Bad
        };
    }
    if let Event::ExecutionLost(lost) = &told.event {
        return match lost.form {
            LossForm::Presumed => Weight::Grave,
            LossForm::Confirmed => Weight::Bad,
        };
    }
    if kind == Kind::ReviewOpened {
        return Weight::Grave;
    }
    if matches!(
        kind,
        Kind::ExecutionRefused | Kind::AccessDenied | Kind::CommandRejected | Kind::ChangeRejected
    ) {
        return Weight::Bad;
    }
    let family = kind.as_str().split('.').next();
    if matches!(family, Some("execution" | "ledger")) || kind == Kind::AgentIdle {
        Weight::Routine
    } else {
        Weight::Notable
    }
}
