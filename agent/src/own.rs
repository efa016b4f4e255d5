//! What this host says of itself, for requests to use in arguments: read from the system, over which the
//! host's own file has the last word; said when it changed; compared before something runs.
//!
//! What it reads is its own business: the ledger takes the host's word for it, people see it before they
//! approve, and the host runs nothing whose line says something else than what it reads then.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use countersign_protocol::event::{AgentFacts, RefusalReason};
use countersign_protocol::facts::{FactValue, Facts, MAX_DOCUMENT_BYTES};
use countersign_protocol::target::TargetLine;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use serde::{Deserialize, Serialize};

use crate::key;
use crate::rules::LocalRefusal;
use crate::spool::About;
use crate::station::{AgentError, Said, Station, agent_event};

/// The table that refusals name.
pub(crate) const SETTING: &str = "facts";

/// How often a running agent looks whether they changed: a little longer than the ledger wants between two
/// words of them, so that one that came too early is taken the next time.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(90);

/// What was said with a key, in the folder of that key.
const FILE: &str = "facts";

/// Most that is read of that file: a document and a number.
const MAX_FILE_BYTES: u64 = 2 * MAX_DOCUMENT_BYTES as u64;

/// Where distributions say what they are.
const OS_RELEASE: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

/// Read of that file at most; a real one has half a kilobyte.
const MAX_OS_RELEASE: u64 = 16 * 1024;

/// Where the facts of a host come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnFacts {
    /// It says none, and runs nothing that uses some.
    Silent,
    /// These, and nothing is read: for a host that is only looked at.
    Fixed(Facts),
    /// What the system says; where its own file has another value, or more, that counts.
    System(Facts),
}

impl OwnFacts {
    /// What they are now.
    #[must_use]
    pub fn read(&self) -> Option<Facts> {
        match self {
            Self::Silent => None,
            Self::Fixed(facts) => Some(facts.clone()),
            Self::System(written) => Some(with_system(written.clone())),
        }
    }

    /// The facts in this host's line are what it reads about itself now.
    pub(crate) fn check(&self, line: &TargetLine) -> Result<(), LocalRefusal> {
        let Some(asked) = &line.facts else {
            return Ok(());
        };
        let refused = |detail: String| {
            let why = RefusalReason::NotAllowed;
            Err(LocalRefusal::new(why, SETTING, detail))
        };
        let Some(own) = self.read() else {
            let detail = "this host says no facts of itself (say_facts = false), and runs nothing that uses some";
            return refused(detail.to_owned());
        };
        let Some((name, value)) = asked.first_other(&own) else {
            return Ok(());
        };
        refused(format!(
            "the request was made for {name} = {value}, and here it is {} now; ask for it anew",
            own.get(name).map_or("nothing", FactValue::as_str)
        ))
    }
}

/// The system's facts where there is no other word. What does not fit into a fact is left out.
fn with_system(mut facts: Facts) -> Facts {
    let mut add = |name: &str, value: &str| {
        if let (Ok(name), Ok(value)) = (name.parse(), value.parse())
            && facts.get(&name).is_none()
        {
            facts.insert(name, value);
        }
    };
    let uname = rustix::system::uname();
    let [host, kernel, arch] = [uname.nodename(), uname.release(), uname.machine()];
    for (name, value) in [("hostname", host), ("kernel", kernel), ("arch", arch)] {
        add(name, &value.to_string_lossy());
    }
    if let Some(text) = OS_RELEASE.into_iter().find_map(|path| read(path).ok()) {
        for (name, key) in [("os.id", "ID"), ("os.version", "VERSION_ID")] {
            if let Some(value) = of_release(&text, key) {
                add(name, value);
            }
        }
    }
    for (name, address) in addresses() {
        add(&name, &address);
    }
    facts
}

fn read(path: &str) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(MAX_OS_RELEASE)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// A value of an `os-release` file, without its quotes.
fn of_release<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut lines = text.lines().filter_map(|line| line.split_once('='));
    let (_, value) = lines.find(|(name, _)| *name == key)?;
    Some(value.trim().trim_matches(['"', '\'']))
}

/// Of each interface the first IPv4 address, in the order in which the kernel has them. Not IPv6 ones:
/// the first may be one of a day, and each change is an entry that everybody reads.
fn addresses() -> Vec<(String, String)> {
    let Ok(all) = getifaddrs() else {
        return Vec::new();
    };
    let of = |interface: InterfaceAddress| {
        let address: Ipv4Addr = interface.address?.as_sockaddr_in()?.ip();
        let name = format!("interface.{}", interface.interface_name);
        Some((name, address.to_string()))
    };
    all.filter_map(of).collect()
}

impl Station {
    /// Says the host's facts, where they are others than this key said last. Whoever may not have them
    /// in the log hears of them again at the next look.
    pub(crate) async fn say_facts(self: Arc<Self>, own: OwnFacts) -> Result<(), AgentError> {
        let path = self.identity.folder().join(FILE);
        let looked = tokio::task::spawn_blocking(move || look(&own, path)).await;
        let looked = looked.map_err(|error| AgentError::Task(error.to_string()))?;
        let Some((document, next, path)) = looked else {
            return Ok(());
        };
        let blob = self.blob(document)?;
        let facts = blob.reference();
        let said = self.say(About::Facts, vec![blob], vec![], |header, chain| {
            agent_event!(
                header,
                AgentFacts {
                    agent_seq: chain.next,
                    agent_prev: chain.prev,
                    facts,
                }
            )
        });
        match said.await? {
            Said::Accepted(_) => {
                let kept = tokio::task::spawn_blocking(move || next.keep(&path));
                // Forgotten, they are said once more at the next look.
                if let Ok(Err(error)) = kept.await {
                    tracing::warn!(%error, "what was said of this host is not remembered");
                }
            }
            Said::Refused(problem) => tracing::warn!(
                code = problem.code,
                detail = problem.detail,
                "the ledger does not take this host's facts; they are said again later"
            ),
            Said::Unanswered => {}
        }
        Ok(())
    }
}

/// What this key has said of the host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered {
    /// The last time.
    facts: Facts,
    /// How often.
    times: u64,
}

impl Remembered {
    /// Nothing, where it cannot be read: then it is said again.
    fn read(path: &Path) -> Self {
        let read = |path| -> io::Result<Self> {
            let mut bytes = Vec::new();
            File::open(path)?
                .take(MAX_FILE_BYTES)
                .read_to_end(&mut bytes)?;
            Ok(serde_json::from_slice(&bytes)?)
        };
        read(path).unwrap_or_default()
    }

    fn keep(&self, path: &Path) -> io::Result<()> {
        key::replace_private(path, &serde_json::to_vec(self)?)
    }
}

/// How many statements of a key's chain are of this kind, as far as is remembered: they start nothing.
pub(crate) fn times_said(folder: &Path) -> u64 {
    Remembered::read(&folder.join(FILE)).times
}

/// The document to say, and what is to be remembered where; nothing where it was said before, or the host
/// says none.
fn look(own: &OwnFacts, path: PathBuf) -> Option<(Vec<u8>, Remembered, PathBuf)> {
    let facts = own.read()?;
    let before = Remembered::read(&path);
    if before.times > 0 && before.facts == facts {
        return None;
    }
    let document = facts.to_document().ok()?;
    let times = before.times.saturating_add(1);
    Some((document, Remembered { facts, times }, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_file_is_read_without_its_quotes() {
        let text = "NAME=\"Debian GNU/Linux\"\nVERSION_ID=\"13\"\nID=debian\n";
        assert_eq!(of_release(text, "ID"), Some("debian"));
        assert_eq!(of_release(text, "VERSION_ID"), Some("13"));
        assert_eq!(of_release(text, "VARIANT"), None);
    }

    #[test]
    fn the_hosts_own_file_has_the_last_word_and_the_system_the_rest() {
        let mut written = Facts::default();
        assert!(written.insert("hostname".parse().unwrap(), "other".parse().unwrap()));
        assert!(written.insert("rack".parse().unwrap(), "r12".parse().unwrap()));
        let read = OwnFacts::System(written).read().unwrap();
        let value = |name: &str| read.get(&name.parse().unwrap()).map(FactValue::as_str);
        assert_eq!(value("hostname"), Some("other"));
        assert_eq!(value("rack"), Some("r12"));
        let machine = rustix::system::uname();
        assert_eq!(value("arch"), machine.machine().to_str().ok());
        assert_eq!(OwnFacts::Silent.read(), None);
    }

    #[test]
    fn what_was_said_is_not_said_again_and_what_changed_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let facts = |value: &str| {
            let mut facts = Facts::default();
            facts.insert("rack".parse().unwrap(), value.parse().unwrap());
            OwnFacts::Fixed(facts)
        };
        let (_, next, _) = look(&facts("r1"), path.clone()).unwrap();
        assert_eq!(times_said(folder.path()), 0);
        next.keep(&path).unwrap();
        assert_eq!(times_said(folder.path()), 1);
        assert_eq!(look(&facts("r1"), path.clone()), None);
        assert!(look(&facts("r2"), path).is_some());
    }
}
