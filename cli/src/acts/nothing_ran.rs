//! Whether nothing ran on a host from one time to another, by the verified log: its idle statements,
//! its chains, its runs.

use countersign_protocol::audit::{IdleAuditor, KeyLife, NothingRan};
use countersign_protocol::key::fingerprint;
use countersign_protocol::name::{AgentName, Time};
use countersign_protocol::rights::Holder;

use super::connect::Client;
use super::export::Progress;
use super::read::RightsView;
use crate::failure::Failure;

impl Client {
    /// What the whole log says about a host from `from` to `to`, and how many entries it had.
    ///
    /// Each entry's bytes, signature and link are checked, up to a believed checkpoint; the host's keys
    /// are those of the proved rights; its chains have to go on without a break.
    ///
    /// # Errors
    /// The log may not be read, or evidence of tampering.
    pub async fn nothing_ran(
        &self,
        host: &AgentName,
        (from, to): (Time, Time),
        progress: Progress<'_>,
    ) -> Result<(NothingRan, u64), Failure> {
        let rights = self.rights().await?;
        let size = rights.stream.checkpoint.size();
        let mut auditor = IdleAuditor::new(host.clone());
        let mut log = self.stretch(None, 0, size);
        while let Some(links) = log.page().await? {
            for link in &links {
                auditor.push(&link.entry)?;
            }
            progress(log.at(), size);
        }
        let found = auditor.about(from, to);
        for life in &found.keys {
            rights.confirm(host, life)?;
        }
        Ok((found, size))
    }
}

impl RightsView {
    /// A key began and ended by the rights as the log says: nobody but the ledger says so there, and
    /// the rights are proved with the consents that they rest on.
    fn confirm(&self, host: &AgentName, life: &KeyLife) -> Result<(), Failure> {
        let record = self.state.rights().key(&life.key_id);
        let holds = record.is_some_and(|record| {
            record.holder == Holder::Agent(host.clone())
                && record.since == life.since
                && record.revoked.is_some() == life.ended.is_some()
        });
        if holds {
            return Ok(());
        }
        let (key, seq) = (fingerprint(&life.key_id), life.since);
        Err(Failure::tampering(
            "other_rights",
            format!(
                "entry {seq}: by the proved rights the key {key} is not the host's as the log says"
            ),
        )
        .hint("the server shows two histories; audit the ledger (countersign verify)"))
    }
}
