//! A question in Cedar's terms: who asks, for what, under which circumstances. Nothing else reaches a
//! rule.
//!
//! Only what some rule of the policy looks at is worked out, for a hundred thousand hosts have many
//! names; a rule that looks at something names it, so nothing that a rule could see is missing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cedar_policy::{
    Context, Entities, Entity, EntityUid, Request, RestrictedExpression as Expression,
};
use countersign_protocol::command::{CommandSpec, Mode};
use countersign_protocol::judgement::{ChangeQuestion, Question};
use countersign_protocol::name::{AgentName, GroupName, Label, Principal, RoleName, Time, TokenId};
use countersign_protocol::permission::{Permission, Whom};
use countersign_protocol::rights::{ChangeBody, Rights};
use countersign_protocol::target::TargetLine;

use crate::moment::Moment;
use crate::price::Deed;
use crate::vocabulary::{REQUEST, Vocabulary, one};
use crate::words;

/// One attribute's value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fact {
    Text(String),
    Number(i64),
    Flag(bool),
    Names(BTreeSet<String>),
}

impl Fact {
    fn number(value: impl TryInto<i64>) -> Self {
        Self::Number(value.try_into().unwrap_or(i64::MAX))
    }

    /// How many texts it holds: what it costs to ask rules about it.
    fn len(&self) -> usize {
        match self {
            Self::Text(_) | Self::Number(_) | Self::Flag(_) => 1,
            Self::Names(names) => names.len(),
        }
    }

    fn into_expression(self) -> Expression {
        match self {
            Self::Text(text) => Expression::new_string(text),
            Self::Number(number) => Expression::new_long(number),
            Self::Flag(flag) => Expression::new_bool(flag),
            Self::Names(names) => {
                Expression::new_set(names.into_iter().map(Expression::new_string))
            }
        }
    }
}

/// Attributes by name.
pub(crate) type Facts = BTreeMap<&'static str, Fact>;

/// What the rules of a policy look at: an attribute or somebody that none of them names changes no
/// judgement.
#[derive(Debug, Default)]
pub(crate) struct LookedAt {
    /// Every word in the rules, attributes among them.
    pub(crate) words: BTreeSet<String>,
    pub(crate) groups: BTreeSet<GroupName>,
    pub(crate) roles: BTreeSet<RoleName>,
    pub(crate) permissions: BTreeSet<Permission>,
}

impl LookedAt {
    fn add(&self, facts: &mut Facts, name: &'static str, fact: impl FnOnce() -> Fact) {
        if self.words.contains(name) {
            facts.insert(name, fact());
        }
    }
}

/// A question as Cedar takes it.
pub(crate) struct Asked {
    pub(crate) deed: Deed,
    /// Whoever asks, and all that they are one of and a rule names.
    pub(crate) keys: Vec<EntityUid>,
    /// The resource's attributes.
    pub(crate) facts: Facts,
    pub(crate) request: Request,
    pub(crate) entities: Entities,
    /// Of an API token whose person is one of more than the token is: the keys and entities that it would have as one
    /// of all of them. Forbids are held against these too, and a permit holds only if it would also then.
    pub(crate) as_person: Option<(Vec<EntityUid>, Entities)>,
}

impl Asked {
    /// A request for a command, of which [`words_facts`] and [`place_facts`] are known.
    ///
    /// # Errors
    /// A sentence why it cannot be judged.
    pub(crate) fn command(
        vocabulary: &Vocabulary,
        looked_at: &LookedAt,
        question: &Question<'_>,
        resource: Facts,
    ) -> Result<Self, String> {
        let deed = if question.act.break_glass {
            Deed::BreakGlass
        } else {
            Deed::Execute
        };
        let who = Who {
            rights: question.rights,
            requester: question.requester,
            token: question.token,
        };
        let mut circumstances = who.circumstances(looked_at, question.now);
        looked_at.add(&mut circumstances, "break_glass", || {
            Fact::Flag(question.act.break_glass)
        });
        Self::new(
            vocabulary,
            deed,
            (&who, looked_at),
            one(&vocabulary.command, REQUEST),
            resource,
            circumstances,
        )
    }

    /// A change of a host; nothing for another change.
    ///
    /// # Errors
    /// A sentence why it cannot be judged.
    pub(crate) fn change(
        vocabulary: &Vocabulary,
        looked_at: &LookedAt,
        question: &ChangeQuestion<'_>,
    ) -> Result<Option<Self>, String> {
        let Some((agent, would_be)) = agent_of(question.body) else {
            return Ok(None);
        };
        let who = Who {
            rights: question.rights,
            requester: question.requester,
            token: None,
        };
        let mut circumstances = who.circumstances(looked_at, question.now);
        looked_at.add(&mut circumstances, "break_glass", || Fact::Flag(false));
        let labels = question.rights.labels(agent).chain(would_be);
        let labels: BTreeSet<String> = labels
            .flat_map(Label::with_wider)
            .map(str::to_owned)
            .collect();
        let facts = Facts::from([
            ("name", Fact::Text(agent.as_str().to_owned())),
            ("labels", Fact::Names(labels)),
            (
                "change",
                Fact::Text(question.body.kind().as_str().to_owned()),
            ),
        ]);
        let asked = Self::new(
            vocabulary,
            Deed::Manage,
            (&who, looked_at),
            one(&vocabulary.agent, agent.as_str()),
            facts,
            circumstances,
        );
        asked.map(Some)
    }

    fn new(
        vocabulary: &Vocabulary,
        deed: Deed,
        (who, looked_at): (&Who<'_>, &LookedAt),
        resource: EntityUid,
        facts: Facts,
        circumstances: Facts,
    ) -> Result<Self, String> {
        let principal = one(&vocabulary.user, who.requester.as_str());
        let parents = who.parents(vocabulary, looked_at)?;
        let context = circumstances
            .into_iter()
            .map(|(name, fact)| (name.to_owned(), fact.into_expression()));
        let context = Context::from_pairs(context).map_err(|error| error.to_string())?;
        let attributes: HashMap<String, Expression> = facts
            .iter()
            .map(|(name, fact)| ((*name).to_owned(), fact.clone().into_expression()))
            .collect();
        let thing = Entity::new(resource.clone(), attributes, HashSet::new())
            .map_err(|error| error.to_string())?;
        let known = |parents: Vec<EntityUid>| {
            let parents_of = parents.iter().cloned().collect();
            let person = Entity::new_no_attrs(principal.clone(), parents_of);
            let entities = Entities::from_entities([person, thing.clone()], None);
            let mut keys = parents;
            keys.push(principal.clone());
            entities
                .map(|entities| (keys, entities))
                .map_err(|error| error.to_string())
        };
        let mut more = Vec::new();
        if who.token.is_some() {
            more = who.of_person(vocabulary, looked_at);
            more.retain(|one| !parents.contains(one));
        }
        let as_person = (!more.is_empty())
            .then(|| known(parents.iter().cloned().chain(more).collect()))
            .transpose()?;
        let (keys, entities) = known(parents)?;
        let action = vocabulary.action(deed);
        let request = Request::new(principal.clone(), action, resource, context, None);
        Ok(Self {
            deed,
            keys,
            facts,
            request: request.map_err(|error| error.to_string())?,
            entities,
            as_person,
        })
    }
}

/// Whoever asks.
struct Who<'a> {
    rights: &'a Rights,
    requester: &'a Principal,
    token: Option<&'a TokenId>,
}

impl Who<'_> {
    /// What the requester is one of, of all that the policy names.
    ///
    /// # Errors
    /// The token is unknown.
    fn parents(
        &self,
        vocabulary: &Vocabulary,
        looked_at: &LookedAt,
    ) -> Result<Vec<EntityUid>, String> {
        let Some(token) = self.token else {
            return Ok(self.of_person(vocabulary, looked_at));
        };
        let record = self.rights.token(token);
        let record = record.ok_or("the ledger does not know the API token")?;
        let roles: BTreeSet<&RoleName> = record.issued.roles.iter().collect();
        Ok(named(
            (vocabulary, looked_at),
            &roles,
            &self.rights.rights_of_token(record),
        ))
    }

    /// What the person is one of, of all that the policy names; a token is in none of their groups.
    fn of_person(&self, vocabulary: &Vocabulary, looked_at: &LookedAt) -> Vec<EntityUid> {
        let rights = self.rights;
        let groups = self.groups(looked_at).into_iter();
        let groups = groups.map(|group| one(&vocabulary.group, group.as_str()));
        let others = named(
            (vocabulary, looked_at),
            &rights.roles_of(self.requester),
            &rights.rights_of(self.requester),
        );
        groups.chain(others).collect()
    }

    /// The person's groups, of those that the policy names: by the shorter of the two lists.
    fn groups<'a>(&'a self, looked_at: &'a LookedAt) -> Vec<&'a GroupName> {
        let known = self.rights.groups();
        if known.size_hint().0 < looked_at.groups.len() {
            let own = self.rights.groups_of(self.requester);
            return own
                .filter(|group| looked_at.groups.contains(*group))
                .collect();
        }
        let is_in = |group: &GroupName| {
            let whom = Whom::Group(group.clone());
            self.rights.belongs(self.requester, &whom)
        };
        looked_at
            .groups
            .iter()
            .filter(|group| is_in(group))
            .collect()
    }

    fn circumstances(&self, looked_at: &LookedAt, now: Time) -> Facts {
        let moment = Moment::of(now);
        let mut facts = Facts::new();
        let mut add = |name, fact: &dyn Fn() -> Fact| looked_at.add(&mut facts, name, fact);
        add("hour", &|| Fact::number(moment.hour()));
        add("minute_of_day", &|| Fact::number(moment.minute_of_day));
        add("weekday", &|| Fact::Text(moment.weekday.to_owned()));
        add("time_us", &|| Fact::number(now.as_micros()));
        add("token", &|| {
            Fact::Text(self.token.map_or("", TokenId::as_str).to_owned())
        });
        let reviews = || {
            let all = self.rights.reviews().map(|(_, review)| review);
            all.filter(|review| review.requester == *self.requester)
        };
        add("open_reviews", &|| Fact::number(reviews().count()));
        add("overdue_reviews", &|| {
            Fact::number(reviews().filter(|review| review.due_at <= now).count())
        });
        facts
    }
}

/// The roles and permissions that the policy names, as Cedar names them.
fn named(
    (vocabulary, looked_at): (&Vocabulary, &LookedAt),
    roles: &BTreeSet<&RoleName>,
    permissions: &BTreeSet<Permission>,
) -> Vec<EntityUid> {
    let roles = looked_at.roles.iter().filter(|role| roles.contains(role));
    let roles = roles.map(|role| one(&vocabulary.role, role.as_str()));
    let permissions = permissions.intersection(&looked_at.permissions);
    let permissions = permissions.map(|right| one(&vocabulary.permission, right.as_str()));
    roles.chain(permissions).collect()
}

/// How many texts the rules would look at.
pub(crate) fn size(facts: &Facts) -> usize {
    facts.values().map(Fact::len).sum()
}

/// Of what runs: all that may differ from host to host.
///
/// # Errors
/// A sentence why it cannot be judged.
pub(crate) fn words_facts(looked_at: &LookedAt, spec: &CommandSpec) -> Result<Facts, String> {
    let program = words::program(spec);
    let name = words::last_part(program);
    let mut facts = Facts::new();
    if looked_at.words.contains("paths") {
        let paths = words::paths(spec).map_err(|error| error.to_string())?;
        facts.insert("paths", Fact::Names(paths));
    }
    let text = |text: &str| Fact::Text(text.to_owned());
    let mut add = |name, fact: &dyn Fn() -> Fact| looked_at.add(&mut facts, name, fact);
    add("mode", &|| {
        text(match spec.mode {
            Mode::Exec => "exec",
            Mode::Shell => "shell",
            Mode::Action => "action",
        })
    });
    add("program", &|| text(program));
    add("name", &|| text(name));
    add("arguments", &|| {
        Fact::Names(words::arguments(spec).cloned().collect())
    });
    add("names", &|| Fact::Names(words::names(spec)));
    add("words", &|| Fact::number(spec.argv.len()));
    add("line", &|| Fact::Text(words::line(spec, program)));
    add("name_line", &|| Fact::Text(words::line(spec, name)));
    add("cwd", &|| text(spec.cwd.as_deref().unwrap_or("")));
    Ok(facts)
}

/// Of how and where it runs: the same for all of its command lines.
pub(crate) fn place_facts(looked_at: &LookedAt, question: &Question<'_>) -> Facts {
    let act = question.act;
    let lines = || question.targets.lines().iter();
    let mut facts = Facts::new();
    let mut add = |name, fact: &dyn Fn() -> Fact| looked_at.add(&mut facts, name, fact);
    add("user", &|| {
        let user = act.user.as_ref().map_or("", |user| user.as_str());
        Fact::Text(user.to_owned())
    });
    add("has_environment", &|| Fact::Flag(act.env.is_some()));
    add("has_stdin", &|| Fact::Flag(act.stdin.is_some()));
    add("has_secrets", &|| Fact::Flag(act.secrets.is_some()));
    add("timeout_ms", &|| Fact::number(act.timeout_ms));
    add("output_limit", &|| Fact::number(act.output_limit));
    add("hosts", &|| {
        Fact::Names(lines().map(|line| line.agent.to_string()).collect())
    });
    add("host_count", &|| Fact::number(lines().count()));
    add("services", &|| {
        let services = lines().filter_map(|line| line.service.as_ref());
        Fact::Names(services.map(ToString::to_string).collect())
    });
    add("on_host_itself", &|| {
        Fact::Flag(lines().any(|line| line.service.is_none()))
    });
    add("labels", &|| {
        let all = lines().flat_map(|line| labels_of(question.rights, line));
        Fact::Names(all.map(str::to_owned).collect())
    });
    add("common_labels", &|| Fact::Names(common_labels(question)));
    facts
}

/// A host's labels with their wider forms.
fn labels_of<'a>(rights: &'a Rights, line: &'a TargetLine) -> impl Iterator<Item = &'a str> {
    rights.labels(&line.agent).flat_map(Label::with_wider)
}

/// The labels that every target has.
fn common_labels(question: &Question<'_>) -> BTreeSet<String> {
    let mut lines = question.targets.lines().iter();
    let first = lines.next().into_iter();
    let mut common: BTreeSet<&str> = first
        .flat_map(|line| labels_of(question.rights, line))
        .collect();
    for line in lines {
        if common.is_empty() {
            break;
        }
        let own: BTreeSet<&str> = labels_of(question.rights, line).collect();
        common.retain(|label| own.contains(label));
    }
    common.into_iter().map(str::to_owned).collect()
}

/// The host that a change is about, and the labels that it would get.
fn agent_of(body: &ChangeBody) -> Option<(&AgentName, &[Label])> {
    let labels: &[Label] = if let ChangeBody::AgentAccepted { labels, .. }
    | ChangeBody::AgentRelabelled { labels, .. } = body
    {
        labels
    } else {
        &[]
    };
    Some((body.agent()?, labels))
}
