//! Messages as OCSF 1.6.0: which class and activity an event is, and the attributes of it.
//!
//! Attributes that OCSF has no place for stand under `unmapped.countersign`, in the `event` format.
//! What this log does not know, such as addresses and process numbers, is left out and not invented.

use countersign_protocol::event::{
    Author, DeniedWhat, Event, ExecutionCompleted, ReadWhat, SkipReason,
};
use countersign_protocol::hash::KeyId;
use countersign_protocol::name::{AgentName, Principal};
use countersign_protocol::permission::Whom;
use countersign_protocol::view::{outcome_word, refusal_word};
use serde_json::{Map, Value, json};

use super::gather::{Gatherer, Told};
use super::message::{Weight, sentence, stamp, weight};

/// The version of the schema.
const VERSION: &str = "1.6.0";

/// A class: its number, which has its category in front, and its name.
#[derive(Debug, Clone, Copy)]
enum Class {
    Process = 1007,
    Authentication = 3002,
    AuthorizeSession = 3003,
    Entity = 3004,
    UserAccess = 3005,
    Group = 3006,
    Application = 6002,
}

const OTHER: u64 = 99;
const UNKNOWN: u64 = 0;
const SUCCESS: u64 = 1;
const FAILURE: u64 = 2;

/// The part of an event that its class decides.
struct Shape {
    class: Class,
    activity: u64,
    /// What OCSF has no activity for: its name, with the activity 99.
    name: Option<&'static str>,
    status: u64,
    status_code: Option<String>,
    attributes: Map<String, Value>,
}

impl Shape {
    fn new(class: Class, activity: u64, attributes: Value) -> Self {
        let attributes = match attributes {
            Value::Object(attributes) => attributes,
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => Map::new(),
        };
        Self {
            class,
            activity,
            name: None,
            status: SUCCESS,
            status_code: None,
            attributes,
        }
    }

    /// An activity that OCSF has no number for.
    fn other(class: Class, name: &'static str, attributes: Value) -> Self {
        Self {
            name: Some(name),
            ..Self::new(class, OTHER, attributes)
        }
    }

    fn failed(self, code: impl Into<String>) -> Self {
        Self {
            status: FAILURE,
            status_code: Some(code.into()),
            ..self
        }
    }
}

/// Activities of Entity Management.
mod entity {
    pub(super) const CREATE: u64 = 1;
    pub(super) const READ: u64 = 2;
    pub(super) const UPDATE: u64 = 3;
    pub(super) const DELETE: u64 = 4;
    pub(super) const ENROLL: u64 = 6;
    pub(super) const UNENROLL: u64 = 7;
    pub(super) const ACTIVATE: u64 = 10;
    pub(super) const DEACTIVATE: u64 = 11;
    pub(super) const SUSPEND: u64 = 12;
    pub(super) const RESUME: u64 = 13;
}

/// Activities of Process Activity.
const LAUNCH: u64 = 1;
const TERMINATE: u64 = 2;

/// An entry as OCSF. `event` is its `event` format.
pub(super) fn ocsf(told: &Told, gatherer: &Gatherer, event: Map<String, Value>) -> Value {
    let shape = shape(told);
    let class = shape.class as u64;
    let mut out = shape.attributes;
    let mut put = |name: &str, value: Value| {
        out.insert(name.to_owned(), value);
    };
    put("class_uid", json!(class));
    put("category_uid", json!(class / 1000));
    put("activity_id", json!(shape.activity));
    put("type_uid", json!(class * 100 + shape.activity));
    if let Some(name) = shape.name {
        put("activity_name", json!(name));
    }
    put("status_id", json!(shape.status));
    if let Some(code) = shape.status_code {
        put("status_code", json!(code));
    }
    put(
        "severity_id",
        json!(match weight(told) {
            Weight::Routine => 1,
            Weight::Notable => 2,
            Weight::Bad => 3,
            Weight::Grave => 4,
        }),
    );
    put("time", json!(told.time.as_micros() / 1000));
    put("message", json!(sentence(told)));
    put("metadata", metadata(told, gatherer));
    // This class knows no actor.
    if !matches!(shape.class, Class::Application) {
        put("actor", actor(told, matches!(shape.class, Class::Process)));
    }
    put("unmapped", json!({ "countersign": event }));
    Value::Object(out)
}

fn metadata(told: &Told, gatherer: &Gatherer) -> Value {
    let mut metadata = json!({
        "version": VERSION,
        "product": {
            "name": "countersign",
            "vendor_name": "countersign",
            "version": env!("CARGO_PKG_VERSION"),
        },
        "uid": told.id,
        "event_code": told.kind().as_str(),
        "log_name": gatherer.origin.as_str(),
        "log_provider": "countersign",
        "original_time": stamp(told.time),
    });
    let Some(fields) = metadata.as_object_mut() else {
        return metadata;
    };
    // OCSF's integers have 32 bits; the seq itself stands under `unmapped` too.
    if let Ok(sequence) = i32::try_from(told.seq) {
        fields.insert("sequence".into(), json!(sequence));
    }
    if let Some((command, _)) = &told.command {
        fields.insert("correlation_uid".into(), json!(command));
    }
    metadata
}

fn person(name: &Principal) -> Value {
    json!({ "name": name, "type_id": 1 })
}

fn device(agent: &AgentName) -> Value {
    json!({ "name": agent, "type_id": 0, "type": "Unknown" })
}

/// Who did it: for a run, who asked for it; else who signed.
fn actor(told: &Told, is_run: bool) -> Value {
    let asked = told.request().map(|request| &request.asked);
    if let Some(asked) = asked.filter(|_| is_run) {
        return json!({ "user": person(&asked.principal) });
    }
    match told.event.header().author {
        Author::Person(name) => {
            json!({ "user": { "name": name, "type_id": 1, "credential_uid": told.signer } })
        }
        Author::Agent(agent) => json!({ "app_name": "countersign-agent", "app_uid": agent }),
        Author::Ledger => json!({ "app_name": "countersign", "app_uid": told.signer }),
    }
}

/// A process of a host: named by what its host said first of it, for hosts give it no number that
/// stays.
fn process(told: &Told, agent: &AgentName, uid: &dyn std::fmt::Display) -> Value {
    let mut process = Map::new();
    process.insert("uid".into(), json!(uid.to_string()));
    let text = |name: &str| told.texts.get(name).cloned().flatten();
    if let Some(command) = text("command") {
        process.insert("cmd_line".into(), json!(command));
    }
    if let Some(folder) = text("cwd") {
        process.insert("working_directory".into(), json!(folder));
    }
    if let Some(path) = text("program") {
        let name = path.rsplit('/').next().unwrap_or(&path).to_owned();
        process.insert("name".into(), json!(name));
        let mut file = json!({ "name": name, "path": path, "type_id": 1 });
        if let (Event::ExecutionStarted(started), Some(file)) = (&told.event, file.as_object_mut())
        {
            let hash = json!([{ "algorithm_id": 3, "algorithm": "SHA-256", "value": started.program.sha256 }]);
            file.insert("hashes".into(), hash);
        }
        process.insert("file".into(), file);
    }
    let user = told
        .request()
        .and_then(|request| request.asked.act.user.clone());
    if let Some(user) = user {
        process.insert("user".into(), json!({ "name": user }));
    }
    json!({ "process": process, "device": device(agent) })
}

fn completed(told: &Told, done: &ExecutionCompleted) -> Shape {
    let mut attributes = process(told, &done.agent, &done.started);
    if let Some(fields) = attributes.as_object_mut() {
        fields.insert("duration".into(), json!(done.duration_us / 1000));
        if let Some(code) = done.exit_code {
            fields.insert("exit_code".into(), json!(code));
        }
    }
    let shape = Shape::new(Class::Process, TERMINATE, attributes);
    if done.succeeded() {
        shape
    } else {
        shape.failed(outcome_word(done.outcome))
    }
}

/// A thing that is managed: what it is, and its name.
fn managed(kind: &str, uid: &dyn std::fmt::Display) -> Value {
    json!({ "entity": { "type": kind, "type_id": OTHER, "uid": uid.to_string() } })
}

fn host(agent: &AgentName) -> Value {
    json!({ "entity": { "type": "Device", "type_id": 1, "name": agent, "device": device(agent) } })
}

fn policy(uid: &dyn std::fmt::Display) -> Value {
    let uid = uid.to_string();
    json!({ "entity": { "type": "Policy", "type_id": 5, "uid": uid, "policy": { "uid": uid } } })
}

fn key(id: KeyId, holder: Option<&Principal>) -> Value {
    let mut value = managed("Key", &id);
    if let (Some(holder), Some(entity)) = (holder, value.pointer_mut("/entity")) {
        entity
            .as_object_mut()
            .map(|entity| entity.insert("user".into(), person(holder)));
    }
    value
}

/// A role goes to, or from, whom.
fn role(whom: &Whom, role: &str, activity: u64) -> Shape {
    match whom {
        Whom::User(name) => Shape::new(
            Class::UserAccess,
            activity,
            json!({ "user": person(name), "privileges": [role] }),
        ),
        Whom::Group(group) => Shape::new(
            Class::Group,
            activity,
            json!({ "group": { "name": group }, "privileges": [role] }),
        ),
        Whom::Role(_) | Whom::Permission(_) => Shape::new(
            Class::Group,
            activity,
            json!({ "group": { "name": whom.to_string() }, "privileges": [role] }),
        ),
    }
}

fn members(told: &countersign_protocol::event::GroupChanged) -> Shape {
    let group = json!({ "group": { "name": told.group } });
    let one = |activity: u64, who: &Principal| {
        let attributes = json!({ "group": { "name": told.group }, "user": person(who) });
        Shape::new(Class::Group, activity, attributes)
    };
    match (told.add.as_slice(), told.remove.as_slice()) {
        ([who], []) => one(3, who),
        ([], [who]) => one(4, who),
        _several => Shape::other(Class::Group, "Members Changed", group),
    }
}

fn denied(told: &countersign_protocol::event::AccessDenied) -> Shape {
    // OCSF demands a user; of most of those who are turned away nothing is proved.
    let user = match &told.principal {
        Some(name) => person(name),
        None => json!({ "name": "unknown", "type_id": 0 }),
    };
    let code = match told.what {
        DeniedWhat::SignIn => "sign_in",
        DeniedWhat::Token => "token",
        DeniedWhat::Permission => "permission",
        DeniedWhat::Statement => "statement",
        DeniedWhat::RateLimit => "rate_limit",
    };
    let mut shape = match (told.what, told.permission) {
        (DeniedWhat::SignIn | DeniedWhat::Token, _) => {
            let service = json!({ "name": "countersign" });
            let attributes = json!({ "user": user, "service": service });
            Shape::new(Class::Authentication, 1, attributes)
        }
        (_, Some(permission)) => {
            let attributes = json!({ "user": user, "privileges": [permission] });
            Shape::new(Class::AuthorizeSession, 1, attributes)
        }
        (_, None) => Shape::other(Class::Entity, "Denied", managed("Access", &code)),
    };
    // Counts of OCSF have 32 bits.
    let count = i32::try_from(told.count).unwrap_or(i32::MAX);
    let times = [
        ("count", json!(count)),
        ("start_time", json!(told.from.as_micros() / 1000)),
        ("end_time", json!(told.to.as_micros() / 1000)),
    ];
    let times = times.map(|(name, value)| (name.to_owned(), value));
    shape.attributes.extend(times);
    shape.failed(code)
}

/// Class, activity and attributes of every kind.
fn shape(told: &Told) -> Shape {
    use Class::{Application, Entity, Process};
    let of = |activity, attributes| Shape::new(Entity, activity, attributes);
    let itself = &told.id;
    match &told.event {
        Event::ExecutionStarted(e) => Shape::new(Process, LAUNCH, process(told, &e.agent, itself)),
        Event::ExecutionRefused(e) => {
            Shape::new(Process, LAUNCH, process(told, &e.agent, &e.command))
                .failed(refusal_word(e.why))
        }
        Event::ExecutionSkipped(e) => {
            let why = e.why.map_or("skipped", SkipReason::as_str);
            Shape::new(Process, LAUNCH, process(told, &e.agent, &e.command)).failed(why)
        }
        Event::ExecutionReleased(e) => {
            Shape::other(Process, "Released", process(told, &e.agent, &e.command))
        }
        Event::ExecutionOutput(e) => {
            Shape::other(Process, "Output", process(told, &e.agent, &e.started))
        }
        Event::ExecutionCompleted(e) => completed(told, e),
        Event::ExecutionLost(e) => {
            let lost = Shape::other(Process, "Lost", process(told, &e.agent, &e.started));
            Shape {
                status: UNKNOWN,
                ..lost.failed("lost")
            }
        }
        Event::CommandRequested(_) => of(entity::CREATE, managed("Command", itself)),
        Event::CommandApproved(e) => of(entity::UPDATE, managed("Command", &e.command)),
        Event::CommandRejected(e) => of(entity::UPDATE, managed("Command", &e.command)),
        Event::CommandCancelRequested(e) => of(entity::UPDATE, managed("Command", &e.command)),
        Event::RolloutPaused(e) => of(entity::SUSPEND, managed("Command", &e.command)),
        Event::RolloutResumed(e) => of(entity::RESUME, managed("Command", &e.command)),
        Event::RolloutContinued(e) => of(entity::RESUME, managed("Command", &e.command)),
        Event::CommandAuthorized(e) => of(entity::ACTIVATE, managed("Command", &e.command)),
        Event::CommandVotedDown(e) => of(entity::DEACTIVATE, managed("Command", &e.command)),
        Event::CommandWithdrawn(e) => of(entity::DEACTIVATE, managed("Command", &e.command)),
        Event::CommandExpired(e) => of(entity::DEACTIVATE, managed("Command", &e.command)),
        Event::ChangeRequested(_) => of(entity::CREATE, managed("Change", itself)),
        Event::ChangeApproved(e) => of(entity::UPDATE, managed("Change", &e.change)),
        Event::ChangeRejected(e) => of(entity::DEACTIVATE, managed("Change", &e.change)),
        Event::KeyAdded(e) => of(entity::ENROLL, key(e.key.key_id(), Some(&e.principal))),
        Event::KeyRevoked(e) => of(entity::UNENROLL, key(e.key_id, None)),
        Event::RoleDefined(e) => of(entity::UPDATE, managed("Role", &e.role)),
        Event::RoleGranted(e) => role(&e.to, e.role.as_str(), 1),
        Event::RoleRevoked(e) => role(&e.from, e.role.as_str(), 2),
        Event::GroupChanged(e) => members(e),
        Event::PolicyPublished(e) => of(entity::ACTIVATE, policy(&e.policy)),
        Event::PolicySnapshot(e) => of(entity::CREATE, policy(&e.document.digest)),
        Event::TokenIssued(e) => of(entity::ENROLL, managed("Token", &e.token)),
        Event::TokenRevoked(e) => of(entity::UNENROLL, managed("Token", &e.token)),
        Event::AgentEnrolled(e) => of(entity::ENROLL, host(&e.agent)),
        Event::AgentAccepted(e) => of(entity::ACTIVATE, host(&e.agent)),
        Event::AgentRejected(e) => of(entity::DEACTIVATE, host(&e.agent)),
        Event::AgentRelabelled(e) => of(entity::UPDATE, host(&e.agent)),
        Event::AgentDrained(e) => of(entity::SUSPEND, host(&e.agent)),
        Event::AgentUndrained(e) => of(entity::RESUME, host(&e.agent)),
        Event::AgentRetired(e) => of(entity::UNENROLL, host(&e.agent)),
        Event::AgentKeyRetired(e) => of(entity::UNENROLL, key(e.signer, None)),
        Event::BlobRedacted(e) => of(entity::DELETE, managed("Text", &e.command)),
        Event::HoldPlaced(e) => of(entity::CREATE, managed("Hold", &e.hold)),
        Event::HoldLifted(e) => of(entity::DELETE, managed("Hold", &e.hold)),
        Event::AgentFacts(e) => of(entity::UPDATE, host(&e.agent)),
        Event::AgentIdle(e) => Shape::other(Entity, "Idle", host(&e.agent)),
        Event::ReviewOpened(e) => of(entity::CREATE, managed("Review", &e.command)),
        Event::ReviewClosed(e) => of(entity::DEACTIVATE, managed("Review", &e.command)),
        Event::AuditRead(e) => {
            let what = match e.what {
                ReadWhat::Output => "Output",
                ReadWhat::Log => "Log",
                ReadWhat::Replay => "Replay",
                ReadWhat::Export => "Export",
            };
            let reader = e
                .command
                .map_or_else(|| e.ledger.to_string(), |id| id.to_string());
            let mut read = managed(what, &reader);
            if let Some(read) = read.pointer_mut("/entity").and_then(Value::as_object_mut) {
                read.insert("user".into(), person(&e.reader));
            }
            of(entity::READ, read)
        }
        Event::AccessDenied(e) => denied(e),
        Event::LedgerGenesis(_) => Shape::new(Application, 1, app()),
        Event::LedgerHeartbeat(_) => Shape::other(Application, "Heartbeat", app()),
        // Never entries of the log.
        Event::KeyClaimed(_) | Event::SessionChallenge(_) => {
            Shape::other(Entity, "None", managed("None", itself))
        }
    }
}

fn app() -> Value {
    json!({ "app": { "name": "countersign", "vendor_name": "countersign", "version": env!("CARGO_PKG_VERSION") } })
}
