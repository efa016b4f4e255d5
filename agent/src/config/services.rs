//! `[[service]]` as it is written, to services: one way in, and words that carry what they name.
//!
//! It must not look whether a service is there; whoever enters it finds out.

use std::collections::BTreeSet;

use countersign_protocol::name::ServiceName;
use toml::Spanned;

use super::actions::words;
use super::load::is_on;
use super::source::{ConfigError, Source};
use super::written::{Setting, WrittenService};
use crate::rules::{Carried, Service, Way, Word};

/// All services.
pub(super) fn services(
    source: &Source<'_>,
    written: Vec<WrittenService>,
) -> Result<Vec<Service>, ConfigError> {
    let mut names: BTreeSet<ServiceName> = BTreeSet::new();
    let service = |mut written: WrittenService| {
        let name = written.name.get_ref().clone();
        if !names.insert(name.clone()) {
            let problem = "another service has this name";
            return Err(source.mistake(Some(written.name.span()), problem));
        }
        Ok(Service {
            name,
            way: way(source, &mut written)?,
            allow_all: is_on(written.allow_all),
            shell: is_on(written.shell),
        })
    };
    written.into_iter().map(service).collect()
}

fn way(source: &Source<'_>, written: &mut WrittenService) -> Result<Way, ConfigError> {
    let at = Some(written.name.span());
    let engine = match (written.docker.take(), written.podman.take()) {
        (Some(_), Some(_)) => {
            return Err(source.mistake(at, "a service is in docker or in podman, not in both"));
        }
        (Some(container), None) => Some(("docker", container)),
        (None, Some(container)) => Some(("podman", container)),
        (None, None) => None,
    };
    let own = [
        &written.enter,
        &written.into,
        &written.env,
        &written.cwd,
        &written.user,
    ];
    let own = own.into_iter().flatten().map(Spanned::span).next();
    match (engine, own.clone()) {
        (Some((engine, container)), None) if written.descends.is_none() => {
            container_way(source, engine, &container)
        }
        (Some(_), _) => {
            let problem =
                "docker and podman say all of the way; write only them, or enter and the rest";
            Err(source.mistake(own.or(at), problem))
        }
        (None, _) => own_way(source, written),
    }
}

/// The client of a container engine. It gets names of variables; their values are in its
/// environment, so that they stand in no list of processes.
fn container_way(
    source: &Source<'_>,
    engine: &str,
    container: &Spanned<String>,
) -> Result<Way, ConfigError> {
    let name = container.get_ref();
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.is_empty() || name.starts_with('-') || !name.chars().all(is_name) {
        let problem = "a container is named by letters, digits and _ . - and does not begin with -";
        return Err(source.mistake(Some(container.span()), problem));
    }
    let option = |text: &str| -> Result<Carried, ConfigError> {
        let parse = |word: &str| {
            Word::parse(word, 1)
                .map_err(|error| source.mistake(Some(container.span()), error.to_string()))
        };
        Ok(Some(vec![parse(text)?, parse("{1}")?]))
    };
    Ok(Way {
        enter: [engine, "exec", "--interactive"]
            .map(str::to_owned)
            .to_vec(),
        into: vec![name.clone()],
        env: option("--env")?,
        cwd: option("--workdir")?,
        user: option("--user")?,
        descends: false,
    })
}

fn own_way(source: &Source<'_>, written: &mut WrittenService) -> Result<Way, ConfigError> {
    let at = Some(written.name.span());
    let enter = match written.enter.take() {
        Some(enter) if !enter.get_ref().is_empty() => plain(enter),
        Some(_) | None => {
            let problem = "a service says how it is entered: docker, podman, or enter = [\"/usr/bin/nsenter\", …]";
            return Err(source.mistake(at, problem));
        }
    };
    let carried = |words_of: Setting<Vec<Spanned<String>>>| -> Result<Carried, ConfigError> {
        let Some(written) = words_of else {
            return Ok(None);
        };
        let carried = words(source, 1, written.get_ref())?;
        if !carried.iter().any(|word| word.uses(0)) {
            let problem = "no word has {1}, so nothing would be carried";
            return Err(source.mistake(Some(written.span()), problem));
        }
        Ok(Some(carried))
    };
    let descends = is_on(written.descends.take());
    if let Some(env) = written.env.as_ref().filter(|_| descends) {
        let problem = "what descends has the environment by itself; leave env out";
        return Err(source.mistake(Some(env.span()), problem));
    }
    Ok(Way {
        enter,
        into: written.into.take().map(plain).unwrap_or_default(),
        env: carried(written.env.take())?,
        cwd: carried(written.cwd.take())?,
        user: carried(written.user.take())?,
        descends,
    })
}

fn plain(words: Spanned<Vec<Spanned<String>>>) -> Vec<String> {
    let words = words.into_inner().into_iter();
    words.map(Spanned::into_inner).collect()
}
