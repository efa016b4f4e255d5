//! `request`: ask for a command and come back at once.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use countersign_protocol::blob::MAX_BLOB_BYTES;
use countersign_protocol::command::{AtOutputLimit, DEFAULT_OUTPUT_LIMIT, Mode};
use countersign_protocol::facts::Run;
use countersign_protocol::name::OsUser;
use countersign_protocol::short;
use tokio::io::AsyncReadExt as _;

use super::hosts::HostArguments;
use super::rollout::RolloutArguments;
use super::{Globals, decide, secrets};
use crate::acts::{Client, Order, RequestSpec, Requested};
use crate::failure::Failure;
use crate::{console, describe, exit_code, shapes};

/// What to ask for.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  countersign request --on web-1 --reason 'disk is full' -- df -h /var
  countersign request --on web-1,web-2 --shell --reason 'rotate' -- 'cd /var/log && gzip *.1'
  countersign request --on db-1 --stdin fix.sql --reason T-1234 -- psql -d app
  countersign request --on web-1/app --reason T-7 -- ls /srv                          # in the service app of web-1
  countersign request --on web-1 --secret tls.key=@new.key --reason T-9 \\
    --shell -- 'install -m 600 $COUNTERSIGN_SECRETS/tls.key /etc/app/ && kill -HUP $(cat /run/app.pid)'
  pass show db | countersign request --on db-1 --secret PGPASSWORD:env=- --reason T-10 -- psql -c 'select 1'
  countersign request --on web-1 --reason T-8 --action restart_service nginx.service
  countersign request --where 'group=web.dev and not web-3' --reason T-9 -- uptime
  countersign request --where role=dns --one --reason T-10 -- dig +short example.com  # any one of them
  countersign request --where role=dns --reason T-14 -- dig -b @fact.interface.eth0 example.com
  countersign request --all --yes-all 42 --reason T-11 -- uname -r
  countersign request --where role=dns --gap 30m --gap-label role=dns --reason T-12 -- rndc reload
  countersign request --all --max-in-flight 10% --canary 1 --max-errors 2 --reason T-13 -- apt-get -y upgrade")]
pub struct RequestArguments {
    #[command(flatten)]
    hosts: HostArguments,
    /// Run one word as a script of /bin/sh
    #[arg(long)]
    shell: bool,
    /// Run what each host has under this name, with these arguments; those that begin with - come
    /// after --
    #[arg(long, num_args = 1.., value_names = ["NAME", "ARG"], conflicts_with = "shell")]
    action: Vec<String>,
    /// The directory to run in, absolute; / when left out
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// A variable; nothing else is in the environment
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Seconds it may take, at most 300
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    timeout: u64,
    /// What it reads on standard input; - takes ours
    #[arg(long, value_name = "FILE|-")]
    stdin: Option<PathBuf>,
    /// A value that only the hosts can read, from a file or from our standard input, exactly as it
    /// is: sealed here to each host, never shown to approvers, and masked in the output. It comes as
    /// a file of $COUNTERSIGN_SECRETS; as a variable with :env, as standard input with :stdin
    #[arg(long, value_name = "NAME[:file|:env|:stdin]=@FILE|-")]
    secret: Vec<String>,
    /// The account to run as, where the host allows it
    #[arg(long, value_name = "USER")]
    user: Option<OsUser>,
    /// Why; approvers read it
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// How long it stays open, for approvals and for hosts to start: at most 7 days
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = duration)]
    expires: Duration,
    /// Bytes of output that are kept on each host, at most 64 MiB
    #[arg(long, default_value_t = DEFAULT_OUTPUT_LIMIT, value_name = "BYTES")]
    output_limit: u64,
    /// End the command when it has written more than that; otherwise it goes on and the rest is
    /// counted and hashed only
    #[arg(long)]
    stop_at_output_limit: bool,
    /// In an emergency: run without approvals, where a rule of the policy and the host allow it to
    /// you. A review is open from then on, until somebody else closes it
    #[arg(long)]
    break_glass: bool,
    /// With --break-glass: do not ask
    #[arg(long, requires = "break_glass")]
    yes: bool,
    #[command(flatten)]
    rollout: RolloutArguments,
    /// The command and its arguments, after --. Arguments may have facts of each host in them:
    /// @fact.hostname, @fact.interface.eth0 (countersign agents --facts lists them)
    #[arg(
        last = true,
        required_unless_present = "action",
        value_name = "COMMAND"
    )]
    argv: Vec<String>,
}

/// `90s`, `30m`, `2h 15m`, `1 day`
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::Span = text.parse().map_err(|error| format!("{error}"))?;
    let days_are_24_hours = jiff::SpanRelativeTo::days_are_24_hours();
    let duration = span
        .to_duration(days_are_24_hours)
        .map_err(|error| format!("{error}"))?;
    let duration =
        Duration::try_from(duration).map_err(|_| "it must not be negative".to_owned())?;
    if duration.is_zero() {
        return Err("it must be longer than nothing".to_owned());
    }
    Ok(duration)
}

impl RequestArguments {
    /// Which hosts it is for, and how it goes over them.
    pub(super) fn on(&self) -> Where {
        Where {
            hosts: self.hosts.clone(),
            rollout: self.rollout.clone(),
        }
    }

    /// Whether not to ask before glass is broken.
    pub(super) const fn yes(&self) -> bool {
        self.yes
    }

    /// What these arguments ask for.
    pub(super) async fn spec(self) -> Result<RequestSpec, Failure> {
        if self.shell && self.argv.len() != 1 {
            return Err(Failure::usage(format!(
                "--shell takes exactly one word, this has {}",
                self.argv.len()
            ))
            .hint("quote the whole script: --shell -- 'cd /tmp && ls'"));
        }
        let env = self.env.iter().map(|pair| {
            let split = pair.split_once('=').filter(|(name, _)| !name.is_empty());
            let split = split.map(|(name, value)| (name.to_owned(), value.to_owned()));
            split.ok_or_else(|| Failure::usage(format!("--env takes NAME=VALUE, not {pair:?}")))
        });
        let ours_is_taken = self
            .stdin
            .as_ref()
            .is_some_and(|path| path.as_os_str() == "-");
        let timeout_ms = self.timeout.checked_mul(1000);
        Ok(RequestSpec {
            // Chosen once the rights are proven.
            targets: Vec::new(),
            mode: match (self.shell, self.action.is_empty()) {
                (true, _) => Mode::Shell,
                (false, false) => Mode::Action,
                (false, true) => Mode::Exec,
            },
            env: env.collect::<Result<_, _>>()?,
            argv: [self.action, self.argv].concat(),
            cwd: self.cwd,
            user: self.user,
            timeout_ms: timeout_ms.unwrap_or(u64::MAX),
            output_limit: self.output_limit,
            at_output_limit: self.stop_at_output_limit.then_some(AtOutputLimit::Stop),
            break_glass: self.break_glass,
            stdin: match self.stdin {
                Some(path) => Some(read_stdin(path).await?),
                None => None,
            },
            secrets: secrets::read(&self.secret, ours_is_taken).await?,
            // Of how many hosts, that is known then.
            rollout: None,
            order: Order::Name,
            reason: self.reason,
            expires_in: self.expires,
        })
    }
}

/// Where it runs and how it goes over the hosts: known once the rights are proven.
pub(super) struct Where {
    hosts: HostArguments,
    rollout: RolloutArguments,
}

impl Where {
    /// Chooses the hosts, shows them, and says how it goes over them.
    pub(super) async fn choose(
        self,
        client: &Client,
        spec: &mut RequestSpec,
    ) -> Result<(), Failure> {
        self.hosts.choose(client, spec).await?;
        (spec.rollout, spec.order) = self.rollout.of(spec.targets.len(), spec.expires_in)?;
        Ok(())
    }
}

/// Reads what the command will get on standard input, no more than fits.
async fn read_stdin(path: PathBuf) -> Result<Vec<u8>, Failure> {
    let cap = MAX_BLOB_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    let read = if path.as_os_str() == "-" {
        // Nothing else goes on yet that a blocking read could hold up.
        std::io::Read::take(std::io::stdin(), cap).read_to_end(&mut bytes)
    } else {
        match tokio::fs::File::open(&path).await {
            Ok(file) => file.take(cap).read_to_end(&mut bytes).await,
            Err(error) => Err(error),
        }
    };
    read.map_err(|error| {
        Failure::usage(format!("cannot read --stdin {}: {error}", path.display()))
    })?;
    if bytes.len() > MAX_BLOB_BYTES {
        return Err(Failure::usage("--stdin takes at most 4 MiB")
            .hint("put the file on the host by other means and name its SHA-256 in the reason"));
    }
    Ok(bytes)
}

/// Before glass is broken: is there a rule for it, and does whoever breaks it know what that means?
pub(super) async fn may_break_glass(
    client: &Client,
    spec: &RequestSpec,
    yes: bool,
) -> Result<(), Failure> {
    if !spec.break_glass {
        return Ok(());
    }
    if !yes && !console::can_ask() {
        return Err(Failure::usage(
            "there is no terminal to ask on whether to break glass; nothing was signed",
        )
        .hint("give --yes when you are sure"));
    }
    let owed = client.check_break_glass(spec).await?;
    console::note(&format!(
        "BREAKING GLASS: this runs on your signature alone, on hosts that allow it to you, and stays on every status page until somebody else has reviewed it ({}).",
        describe::price(&owed)
    ));
    decide::confirm(yes, "Run it without approvals?")
}

/// Asks.
pub(super) async fn request(globals: &Globals, arguments: RequestArguments) -> Result<u8, Failure> {
    let (yes, on) = (arguments.yes(), arguments.on());
    let mut spec = arguments.spec().await?;
    let client = globals.connect().await?;
    on.choose(&client, &mut spec).await?;
    may_break_glass(&client, &spec, yes).await?;
    let requested = client.request_telling(&spec, tell_runs).await?;
    print_requested(globals, &requested, spec.break_glass)?;
    Ok(exit_code::DONE)
}

/// What each host will run, where hosts have their own facts in it, before it is signed.
pub(super) fn tell_runs(runs: &[Run<'_>]) {
    for line in describe::runs(runs) {
        console::note(&format!("countersign: {line}"));
    }
}

/// Says where a request stands and what it waits for.
pub(super) fn print_requested(
    globals: &Globals,
    requested: &Requested,
    break_glass: bool,
) -> Result<(), Failure> {
    let short = short::short(&requested.id);
    if globals.json {
        console::print_json(&shapes::requested(&requested.id, "requested"))?;
    } else {
        console::print(&format!("{short}  {}\n", requested.id))?;
        let seq = requested.accepted.seq;
        console::note(&if break_glass {
            format!(
                "it is entry {seq} of the log and runs; follow it with: countersign logs {short} -f"
            )
        } else {
            format!(
                "it is entry {seq} of the log and waits for approval: countersign approve {short}"
            )
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        let seconds = |text| duration(text).unwrap().as_secs();
        assert_eq!(seconds("90s"), 90);
        assert_eq!(seconds("1h"), 3600);
        assert_eq!(seconds("2h 15m"), 8100);
        assert_eq!(seconds("1 day"), 86_400);
        for bad in ["", "5", "0s", "-1h", "soon", "1 month"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }
}
