//! Entries of the log with what is known of their commands: what messages are made from.
//!
//! It reads, checks each entry by itself, and holds no more than one page. It judges nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use countersign_protocol::blob::BlobRef;
use countersign_protocol::checkpoint::Origin;
use countersign_protocol::command::{CommandSpec, Targets};
use countersign_protocol::event::{CommandRequested, Event, Kind};
use countersign_protocol::facts;
use countersign_protocol::hash::{CommandId, Hash, KeyId, LedgerId, StatementId};
use countersign_protocol::name::{AgentName, Time};
use countersign_protocol::target::TargetList;
use countersign_protocol::visible;
use serde_json::Value;
use sqlx::PgConnection;

use super::config::Kinds;
use crate::ledger::store::{self, EntryRow};
use crate::ledger::{OpenError, history};

/// Entries in a page: what is in memory at a time for each sink, some MiB at the most.
pub(super) const PAGE: u64 = 64;

/// Characters of one free text that go out; the rest is counted. A script of megabytes belongs into
/// no receiver's index.
const TEXT_CHARS: usize = 4096;

/// What a message is made from.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) seq: u64,
    pub(super) time: Time,
    pub(super) leaf: Hash,
    pub(super) id: StatementId,
    pub(super) signer: KeyId,
    pub(super) event: Event,
    /// The signed payload.
    pub(super) payload: Value,
    /// The command that it is about, and its request.
    pub(super) command: Option<(CommandId, Option<Arc<Request>>)>,
    /// Free text, safe to show. None: it was erased, or is withheld.
    pub(super) texts: BTreeMap<&'static str, Option<String>>,
}

impl Told {
    pub(super) const fn kind(&self) -> Kind {
        self.event.kind()
    }

    /// The request of its command.
    pub(super) fn request(&self) -> Option<&Request> {
        self.command.as_ref()?.1.as_deref()
    }

    /// The texts of its command, as its host has them.
    fn of_its_request(&self) -> BTreeMap<&'static str, Option<String>> {
        let Some(request) = self.request() else {
            return BTreeMap::new();
        };
        let mut texts = request.texts.clone();
        let own = self.event.host().and_then(|host| request.own.get(host));
        if let Some(own) = own {
            texts.insert("command", Some(own.clone()));
        }
        texts
    }
}

/// What was asked for.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) asked: CommandRequested,
    /// The words side by side, and the folder; nothing where texts stay here.
    texts: BTreeMap<&'static str, Option<String>>,
    /// The words of each host that the page speaks of, where hosts have facts of their own in them.
    own: BTreeMap<AgentName, String>,
}

/// One page.
#[derive(Debug)]
pub(super) struct Gathered {
    /// Entries that are told of.
    pub(super) told: Vec<Told>,
    /// The first entry behind the page.
    pub(super) next: u64,
    /// The leaf of the last one in it.
    pub(super) leaf: Option<Hash>,
}

/// Whose entries they are, and what of them leaves.
#[derive(Debug, Clone)]
pub(super) struct Gatherer {
    pub(super) ledger: LedgerId,
    pub(super) origin: Origin,
    pub(super) kinds: Kinds,
    pub(super) texts: bool,
}

impl Gatherer {
    /// The next page of entries `from..to`.
    pub(super) async fn page(
        &self,
        connection: &mut PgConnection,
        from: u64,
        to: u64,
    ) -> Result<Gathered, OpenError> {
        let rows = store::entries(connection, from, to, PAGE).await?;
        let mut gathered = Gathered {
            told: Vec::new(),
            next: from,
            leaf: None,
        };
        for row in &rows {
            let entry = history::check(row)?;
            (gathered.next, gathered.leaf) = (row.seq + 1, Some(entry.leaf));
            let statement = entry.verified.statement();
            if !self.kinds.holds(statement.kind) {
                continue;
            }
            let payload: Value = serde_json::from_slice(&statement.payload)
                .map_err(|error| history::bad(row.seq, error))?;
            let event = entry.verified.event().clone();
            let id = entry.verified.id();
            let command = command_of(&event, &payload, id).map(|id| (id, None));
            gathered.told.push(Told {
                seq: row.seq,
                time: entry.time,
                leaf: entry.leaf,
                id,
                signer: entry.verified.facts().key_id,
                event,
                payload,
                command,
                texts: BTreeMap::new(),
            });
        }
        self.add_requests(connection, &mut gathered.told).await?;
        Ok(gathered)
    }

    /// The requests of the entries' commands, each read once a page, and the texts.
    async fn add_requests(
        &self,
        connection: &mut PgConnection,
        page: &mut [Told],
    ) -> Result<(), OpenError> {
        let mut hosts: BTreeMap<CommandId, BTreeSet<AgentName>> = BTreeMap::new();
        for told in page.iter() {
            if let Some((id, _)) = told.command {
                let hosts = hosts.entry(id).or_default();
                hosts.extend(told.event.host().cloned());
            }
        }
        let mut requests = BTreeMap::new();
        for (id, hosts) in hosts {
            let request = match first_of(connection, id).await? {
                Some(row) => self.read_request(connection, &row, &hosts).await?,
                None => None,
            };
            requests.insert(id, request.map(Arc::new));
        }
        for told in page {
            if let Some((id, request)) = &mut told.command {
                *request = requests.get(id).cloned().flatten();
            }
            if self.texts {
                told.texts = told.of_its_request();
                told.texts
                    .extend(own_texts(connection, &told.payload).await?);
            }
        }
        Ok(())
    }

    async fn read_request(
        &self,
        connection: &mut PgConnection,
        row: &EntryRow,
        hosts: &BTreeSet<AgentName>,
    ) -> Result<Option<Request>, OpenError> {
        let entry = history::check(row)?;
        let Event::CommandRequested(asked) = entry.verified.event() else {
            return Ok(None);
        };
        let (mut texts, mut own) = (BTreeMap::new(), BTreeMap::new());
        if self.texts {
            let spec = content(connection, &asked.act.spec).await?;
            let spec = spec.and_then(|spec| CommandSpec::parse(&spec, &asked.act).ok());
            let words = spec.as_ref().map(|spec| visible::words(&spec.argv));
            texts.insert("command", words.map(|words| shortened(&words)));
            if let Some(spec) = &spec {
                own = own_words(connection, spec, &asked.act.targets, hosts).await?;
            }
            if let Some(cwd) = spec.and_then(|spec| spec.cwd) {
                texts.insert("cwd", Some(visible::cut(&cwd, TEXT_CHARS)));
            }
        }
        let asked = asked.clone();
        Ok(Some(Request { asked, texts, own }))
    }
}

/// What these hosts run, where hosts have facts of their own in it. Words for all hosts of all requests
/// would take a GiB a page; even their lists together would.
async fn own_words(
    connection: &mut PgConnection,
    spec: &CommandSpec,
    targets: &Targets,
    hosts: &BTreeSet<AgentName>,
) -> Result<BTreeMap<AgentName, String>, OpenError> {
    if hosts.is_empty() || !spec.argv.iter().any(|word| word.contains(facts::MARK)) {
        return Ok(BTreeMap::new());
    }
    let list = content(connection, &targets.list).await?;
    let list = list.and_then(|list| TargetList::parse(&list, targets).ok());
    Ok(list.map_or_else(BTreeMap::new, |list| words_of(spec, &list, hosts)))
}

fn words_of(
    spec: &CommandSpec,
    list: &TargetList,
    hosts: &BTreeSet<AgentName>,
) -> BTreeMap<AgentName, String> {
    let own = hosts.iter().filter_map(|host| {
        let (_, line) = list.line_of(host)?;
        // Nothing gets into the log whose facts cannot be put in.
        let filled = line.facts.is_some().then(|| spec.for_host(line).ok())??;
        Some((host.clone(), shortened(&visible::words(&filled.argv))))
    });
    own.collect()
}

/// What is escaped already, and perhaps too long.
fn shortened(shown: &str) -> String {
    visible::cut(shown, TEXT_CHARS)
}

/// The command that an event is about: the one that it names, or itself.
fn command_of(event: &Event, payload: &Value, id: StatementId) -> Option<CommandId> {
    if matches!(event, Event::CommandRequested(_)) {
        return Some(id);
    }
    payload.get("command")?.as_str()?.parse().ok()
}

async fn first_of(
    connection: &mut PgConnection,
    id: CommandId,
) -> Result<Option<EntryRow>, OpenError> {
    let places = store::places(connection, &[id]).await?;
    let Some(seq) = places.get(&id).copied() else {
        return Ok(None);
    };
    let rows = store::entries(connection, seq, seq.saturating_add(1), 1).await?;
    Ok(rows.into_iter().next())
}

/// The texts that a payload names: reasons, details and the program's path. Never output, standard
/// input, environment or documents.
async fn own_texts(
    connection: &mut PgConnection,
    payload: &Value,
) -> Result<BTreeMap<&'static str, Option<String>>, OpenError> {
    const NAMED: [(&str, &str); 3] = [
        ("reason", "/reason"),
        ("detail", "/detail"),
        ("program", "/program/path"),
    ];
    let mut texts = BTreeMap::new();
    for (name, place) in NAMED {
        let named = payload.pointer(place).cloned();
        let Some(named) = named.and_then(|named| serde_json::from_value::<BlobRef>(named).ok())
        else {
            continue;
        };
        let text = content(connection, &named).await?;
        let text = text.map(|text| visible::cut(&String::from_utf8_lossy(&text), TEXT_CHARS));
        texts.insert(name, text);
    }
    Ok(texts)
}

/// A blob's content, if it is here and is what was signed.
async fn content(
    connection: &mut PgConnection,
    named: &BlobRef,
) -> Result<Option<Vec<u8>>, OpenError> {
    let blob = store::blob(connection, &named.digest).await?.flatten();
    let blob = blob.filter(|blob| blob.verify(named).is_ok());
    Ok(blob.map(countersign_protocol::blob::Blob::into_content))
}

#[cfg(test)]
mod tests {
    use countersign_protocol::command::Mode;
    use countersign_protocol::facts::Facts;
    use countersign_protocol::hash::Digest;
    use countersign_protocol::target::TargetLine;

    use super::*;

    fn line(host: &str, rack: Option<&str>) -> TargetLine {
        let facts = rack.map(|rack| {
            let mut facts = Facts::default();
            facts.insert("rack".parse().unwrap(), rack.parse().unwrap());
            facts
        });
        TargetLine {
            agent: host.parse().unwrap(),
            key_id: KeyId::new([0; 32]),
            service: None,
            spec: Digest::new([0; 32]),
            turn: None,
            facts,
        }
    }

    fn spec(argv: &[&str]) -> CommandSpec {
        CommandSpec {
            mode: Mode::Exec,
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            cwd: None,
            user: None,
            timeout_ms: 1_000,
            output_limit: 1_000,
            at_output_limit: None,
        }
    }

    /// A page has 64 entries, and requests for a hundred thousand hosts.
    #[test]
    fn words_are_made_for_the_hosts_that_a_page_speaks_of_and_no_others() {
        let spec = spec(&["/bin/echo", "@fact.rack"]);
        let lines = (0..1_000).map(|n| line(&format!("web-{n}"), Some(&format!("r-{n}"))));
        let list = TargetList::new(lines.collect()).unwrap();
        let hosts = ["web-7", "web-800", "db-1"].map(|host| host.parse().unwrap());
        let own = words_of(&spec, &list, &hosts.into());
        let own: Vec<_> = own
            .iter()
            .map(|(host, words)| (host.as_str(), &**words))
            .collect();
        assert_eq!(
            own,
            [("web-7", "/bin/echo r-7"), ("web-800", "/bin/echo r-800")]
        );
        assert!(words_of(&spec, &list, &BTreeSet::new()).is_empty());
        let plain = TargetList::new(vec![line("web-7", None)]).unwrap();
        let hosts = BTreeSet::from(["web-7".parse().unwrap()]);
        assert!(
            words_of(&spec, &plain, &hosts).is_empty(),
            "every word means itself"
        );
    }
}
