//! Which hosts a command is for: chosen from proven rights, shown, and counted before it is signed.

use clap::Args;
use countersign_protocol::name::{AgentName, ServiceName};
use countersign_protocol::search::Query;
use countersign_protocol::target::Place;

use crate::acts::{Client, Hosts, RequestSpec, any_one};
use crate::audit::parse_choice;
use crate::console;
use crate::failure::Failure;

/// Above so many hosts the count is to be typed, where no rule of the policy says how many
/// (`@count_above`): more are not taken in at a glance.
const UNASKED: u32 = 20;

/// Most names that are written out before it is signed; `show` has all of them.
const SHOWN: usize = 20;

/// Which hosts: one of the three is always given, there is no default.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The hosts, by their agents' names, or HOST/SERVICE for a service that the host declares
    #[arg(long, value_delimiter = ',', value_name = "HOST[/SERVICE],…")]
    on: Vec<Place>,
    /// All hosts that fit: labels (group=web takes in group=web.dev), names (web-*), and, or, not, ( )
    #[arg(long = "where", value_name = "CHOICE", value_parser = parse_choice)]
    fitting: Option<Query>,
    /// All hosts; asks for their number
    #[arg(long)]
    all: bool,
}

/// Which hosts, and what of them.
#[derive(Debug, Clone, Args)]
pub(super) struct HostArguments {
    #[command(flatten)]
    which: Which,
    /// Any one of them, drawn by chance
    #[arg(long)]
    one: bool,
    /// With --where or --all: in this service of each of them
    #[arg(long, value_name = "SERVICE", conflicts_with = "on")]
    service: Option<ServiceName>,
    /// Do not ask, if it is exactly so many hosts
    #[arg(long, value_name = "COUNT")]
    yes_all: Option<usize>,
}

impl HostArguments {
    /// Chooses for what is asked, shows what was chosen, and has the count typed where it is large.
    ///
    /// # Errors
    /// No host fits, or the count is not the one that was meant; nothing was signed.
    pub(super) async fn choose(
        self,
        client: &Client,
        spec: &mut RequestSpec,
    ) -> Result<(), Failure> {
        let Which { on, fitting, all } = self.which;
        let by_name = !on.is_empty();
        let hosts = if by_name {
            Hosts::Named(on)
        } else {
            Hosts::Fitting {
                choice: fitting,
                service: self.service,
            }
        };
        let mut selected = client.select(hosts).await?;
        if self.one {
            selected.places = any_one(selected.places).into_iter().collect();
        }
        spec.targets = selected.places;
        let count = spec.targets.len();
        // One host is within every limit: no rights are read for it.
        let limit = match count {
            0 | 1 => None,
            _more => client.count_above(spec).await?,
        };
        let limit = Limit::new(limit);
        if !by_name || limit.is_passed(count) {
            tell(&spec.targets, &selected.drained);
        }
        if all && !self.one {
            counted(count, self.yes_all)?;
        } else {
            limit.confirm(count, self.yes_all)?;
        }
        Ok(())
    }
}

/// Above how many hosts their number is typed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit(u32);

impl Limit {
    /// What the policy says, where it says something.
    pub(super) fn new(policy: Option<u32>) -> Self {
        Self(policy.unwrap_or(UNASKED))
    }

    fn is_passed(self, count: usize) -> bool {
        u32::try_from(count).map_or(true, |count| count > self.0)
    }

    /// Has the count typed where it is large.
    ///
    /// # Errors
    /// It is not the one that was meant; nothing was signed.
    pub(super) fn confirm(self, count: usize, meant: Option<usize>) -> Result<(), Failure> {
        if self.is_passed(count) || meant.is_some() {
            counted(count, meant)?;
        }
        Ok(())
    }
}

fn names<'a>(all: impl ExactSizeIterator<Item = String> + 'a) -> String {
    let more = all.len().saturating_sub(SHOWN);
    let mut names: Vec<String> = all.take(SHOWN).collect();
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    names.join(", ")
}

fn tell(places: &[Place], drained: &[AgentName]) {
    let shown = names(places.iter().map(|place| match &place.service {
        Some(service) => format!("{}/{service}", place.agent),
        None => place.agent.to_string(),
    }));
    console::note(&format!("countersign: {}: {shown}", hosts(places.len())));
    if !drained.is_empty() {
        let left_out = names(drained.iter().map(ToString::to_string));
        console::note(&format!("countersign: left out, drained: {left_out}"));
    }
}

fn hosts(count: usize) -> String {
    if count == 1 {
        "1 host".to_owned()
    } else {
        format!("{count} hosts")
    }
}

/// The count that somebody means must be the count that it is.
fn counted(count: usize, meant: Option<usize>) -> Result<(), Failure> {
    let this = format!("this is for {}", hosts(count));
    let typed = match meant {
        Some(meant) => Some(meant),
        None if console::can_ask() => {
            console::type_in(&format!("countersign: {this}. Type their number: "))?
                .parse()
                .ok()
        }
        None => {
            return Err(Failure::usage(format!(
                "{this}, and there is no terminal to ask on; nothing was signed"
            ))
            .hint("give --yes-all with the number of hosts that you mean"));
        }
    };
    match typed {
        Some(typed) if typed == count => Ok(()),
        Some(typed) => Err(Failure::usage(format!(
            "{this} and not for {typed}; nothing was signed"
        ))),
        None => Err(Failure::usage("that is no number; nothing was signed")),
    }
}
