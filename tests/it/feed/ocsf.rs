//! Messages against OCSF 1.6.0, by a table that `tests/vectors/ocsf/extract.py` takes out of the
//! compiled schema.

use std::collections::BTreeSet;

use countersign::feed::{self, Format, Kinds, Printing};
use serde_json::{Map, Value};

use crate::support::database;
use crate::vectors::golden;

fn table() -> Value {
    let path = golden::folder().join("ocsf/table.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// What is wrong with a thing of a class or of an object.
fn faults(
    table: &Value,
    of: &Value,
    thing: &Map<String, Value>,
    at: &str,
    found: &mut Vec<String>,
) {
    let attributes = of["attributes"].as_object().unwrap();
    for (name, attribute) in attributes {
        if attribute["required"] == true && !thing.contains_key(name) {
            found.push(format!("{at}/{name} is missing"));
        }
    }
    let of_constraint = |name: &str| {
        let names = of["constraints"][name].as_array()?.iter();
        Some(
            names
                .filter(|one| thing.contains_key(one.as_str().unwrap()))
                .count(),
        )
    };
    if of_constraint("at_least_one") == Some(0) {
        found.push(format!(
            "{at} has none of {}",
            of["constraints"]["at_least_one"]
        ));
    }
    if of_constraint("just_one").is_some_and(|count| count != 1) {
        found.push(format!(
            "{at} has not one of {}",
            of["constraints"]["just_one"]
        ));
    }
    for (name, value) in thing {
        let at = format!("{at}/{name}");
        let Some(attribute) = attributes.get(name) else {
            found.push(format!("{at} is not in the schema"));
            continue;
        };
        let values = if attribute["array"] == true {
            value.as_array().cloned().unwrap_or_else(|| {
                found.push(format!("{at} is no list"));
                Vec::new()
            })
        } else {
            vec![value.clone()]
        };
        for value in values {
            fault_of_value(table, attribute, &value, &at, found);
        }
    }
}

fn fault_of_value(
    table: &Value,
    attribute: &Value,
    value: &Value,
    at: &str,
    found: &mut Vec<String>,
) {
    let kind = attribute["type"].as_str().unwrap();
    let holds = match kind {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "float" => value.is_number(),
        "json" => true,
        "long" => value.is_i64(),
        "integer" => value
            .as_i64()
            .is_some_and(|number| i32::try_from(number).is_ok()),
        // What is of no class of its own.
        "object" => value.is_object(),
        object => {
            let of = &table["objects"][object];
            assert!(of.is_object(), "{at}: extract.py leaves {object} out");
            match value.as_object() {
                Some(thing) => {
                    faults(table, of, thing, at, found);
                    true
                }
                None => false,
            }
        }
    };
    if !holds {
        found.push(format!("{at} is no {kind}: {value}"));
    }
    if let Some(known) = attribute["enum"].as_array()
        && !known.contains(value)
    {
        found.push(format!("{at} is none of the schema's: {value}"));
    }
}

/// What is wrong with a message.
fn check(table: &Value, message: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let class = &table["classes"][message["class_uid"].to_string()];
    if !class.is_object() {
        return vec![format!(
            "class {} is not in the table",
            message["class_uid"]
        )];
    }
    faults(table, class, message.as_object().unwrap(), "", &mut found);
    let number = |name: &str| message[name].as_i64().unwrap();
    if number("type_uid") != number("class_uid") * 100 + number("activity_id") {
        found.push("type_uid is not class and activity".to_owned());
    }
    if number("category_uid") != number("class_uid") / 1000 {
        found.push("category_uid is not that of the class".to_owned());
    }
    if number("activity_id") == 99 && !message["activity_name"].is_string() {
        found.push("an activity of no number needs a name".to_owned());
    }
    found
}

/// The golden ledger, which has an entry of every kind, as a sink would tell of it.
async fn golden_messages(texts: bool, format: Format) -> Vec<Value> {
    let database = database().await;
    golden::fill(&database.app, golden::entries().len()).await;
    golden::fill_side_tables(&database.app).await;
    let printing = Printing {
        from: 0,
        format,
        kinds: Kinds::of(&["*".to_owned()]).unwrap(),
        texts,
    };
    let mut out = Vec::new();
    feed::print(&database.app, printing, &mut out)
        .await
        .unwrap();
    let text = String::from_utf8(out).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn kind(message: &Value) -> String {
    message["unmapped"]["countersign"]["kind"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// For `extract.py --check`, which asks a validator that is not ours.
fn keep(messages: &[Value]) {
    if let Some(path) = std::env::var_os("COUNTERSIGN_OCSF_SAMPLE") {
        let lines: String = messages.iter().map(|one| format!("{one}\n")).collect();
        std::fs::write(path, lines).unwrap();
    }
}

#[tokio::test]
async fn every_kind_is_told_as_the_schema_has_it() {
    let table = table();
    assert_eq!(table["version"], "1.6.0");
    for texts in [false, true] {
        let messages = golden_messages(texts, Format::Ocsf).await;
        keep(&messages);
        let mut kinds = BTreeSet::new();
        for message in &messages {
            let found = check(&table, message);
            assert!(found.is_empty(), "{found:#?}\n{message:#}");
            assert_eq!(message["metadata"]["version"], table["version"]);
            kinds.insert(kind(message));
        }
        let all = countersign_protocol::event::Kind::ALL.iter();
        let all = all
            .filter(|kind| kind.is_event())
            .map(|kind| kind.as_str().to_owned());
        assert_eq!(kinds, all.collect());
    }
}

#[tokio::test]
async fn a_message_that_the_schema_would_not_take_is_found() {
    let table = table();
    let messages = golden_messages(true, Format::Ocsf).await;
    let started = messages
        .iter()
        .find(|one| kind(one) == "execution.started")
        .unwrap();
    assert!(check(&table, started).is_empty());
    for name in started.as_object().unwrap().keys() {
        let attribute = &table["classes"]["1007"]["attributes"][name];
        let mut without = started.clone();
        without.as_object_mut().unwrap().remove(name);
        if ["class_uid", "category_uid", "activity_id", "type_uid"].contains(&name.as_str()) {
            continue;
        }
        let is_missed = !check(&table, &without).is_empty();
        assert_eq!(is_missed, attribute["required"] == true, "{name}");
    }
    let changes: [(&str, Value); 6] = [
        ("/process/file/type_id", "1".into()),
        ("/severity_id", 7.into()),
        ("/time", "now".into()),
        ("/metadata/sequence", (1_i64 << 40).into()),
        ("/actor", Value::Object(Map::new())),
        ("/process/uid", Value::Null),
    ];
    for (place, value) in changes {
        let mut other = started.clone();
        *other.pointer_mut(place).unwrap() = value;
        assert!(!check(&table, &other).is_empty(), "{place}");
    }
}

#[tokio::test]
async fn a_run_is_a_process_of_a_host_started_by_its_requester() {
    let messages = golden_messages(true, Format::Ocsf).await;
    let find = |word: &str| messages.iter().find(|one| kind(one) == word).unwrap();
    let started = find("execution.started");
    assert_eq!(started["class_uid"], 1007);
    assert_eq!(started["type_uid"], 100_701);
    let requested = find("command.requested");
    let payload = &requested["unmapped"]["countersign"]["payload"];
    assert_eq!(started["actor"]["user"]["name"], payload["principal"]);
    assert!(started["process"]["cmd_line"].is_string(), "{started:#}");
    assert_eq!(started["metadata"]["uid"], started["process"]["uid"]);
    let completed = find("execution.completed");
    assert_eq!(completed["type_uid"], 100_702);
    assert_eq!(
        completed["metadata"]["correlation_uid"],
        started["metadata"]["correlation_uid"]
    );
    for name in ["ledger", "seq", "id", "kind", "time", "leaf"] {
        let inside = &started["unmapped"]["countersign"][name];
        assert!(!inside.is_null(), "{name}");
    }
}

/// Output, standard input and environment never leave; other texts only where a sink asks for them.
#[tokio::test]
async fn without_texts_no_free_text_leaves_and_output_never_does() {
    let contents = golden::blobs();
    let texts: Vec<String> = contents
        .iter()
        .filter_map(|[_, _, content]| String::from_utf8(content.clone()).ok())
        .filter(|text| text.len() >= 6)
        .collect();
    assert!(texts.len() > 10);
    for format in [Format::Ocsf, Format::Event, Format::Slack] {
        let told = golden_messages(false, format).await;
        let all = Value::Array(told).to_string();
        for text in &texts {
            let quoted = Value::String(text.clone()).to_string();
            assert!(!all.contains(quoted.trim_matches('"')), "{format}: {text}");
        }
    }
    let told = golden_messages(true, Format::Event).await;
    let mut named = BTreeSet::new();
    for message in &told {
        if let Some(texts) = message["texts"].as_object() {
            named.extend(texts.keys().cloned());
        }
    }
    let known = ["command", "cwd", "detail", "program", "reason"];
    assert_eq!(named, known.map(ToOwned::to_owned).into());
    let output = told
        .iter()
        .find(|one| one["kind"] == "execution.output")
        .unwrap();
    let texts: Vec<&String> = output["texts"].as_object().unwrap().keys().collect();
    assert!(
        texts
            .iter()
            .all(|name| ["command", "cwd"].contains(&name.as_str())),
        "{texts:?}"
    );
}
