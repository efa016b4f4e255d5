//! `[confine]` and the `confine` of a rule as they are written, to what they mean: limits within
//! their bounds, plain paths, and no demand that the same file makes impossible.
//!
//! It must not ask what this host's kernel can do; that is asked for each command.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use toml::Spanned;

use super::source::{ConfigError, Source};
use super::written::Setting;
use crate::execution::Demand;
use crate::rules::{Cap, CgroupCaps, Confine, Writes};

/// A day of CPU: longer than any request may run, on every core of a large host.
const MAX_CPU_S: u64 = 24 * 3600;

/// Below it no program that is linked to the C library can be loaded.
const MIN_MEMORY: u64 = 16 << 20;

/// A PiB: above every host's memory and every file, and exact in every JSON reader.
const MAX_BYTES: u64 = 1 << 50;

/// The most processes that Linux can have.
const MAX_PROCESSES: u64 = 1 << 22;

/// Below it neither a script nor its interpreter has descriptors enough to begin.
const MIN_OPEN_FILES: u64 = 16;

/// The kernel's own largest number of descriptors, as it comes.
const MAX_OPEN_FILES: u64 = 1 << 20;

/// A thousand CPUs, all of them.
const MAX_CPU_PERCENT: u64 = 100_000;

/// A table of confinement as it is written.
#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenConfine {
    pub(super) protected: Option<Vec<Spanned<PathBuf>>>,
    pub(super) protect_own: Setting<bool>,
    pub(super) profile: Setting<String>,
    pub(super) cpu_s: Setting<Amount>,
    pub(super) memory: Setting<Amount>,
    pub(super) processes: Setting<Amount>,
    pub(super) file_size: Setting<Amount>,
    pub(super) open_files: Setting<Amount>,
    pub(super) cgroup: Option<WrittenCgroup>,
    pub(super) seccomp: Setting<bool>,
    pub(super) demand: Option<Vec<Spanned<String>>>,
    pub(super) umask: Setting<String>,
}

impl WrittenConfine {
    /// Whether nothing is written in it.
    pub(super) const fn is_empty(&self) -> bool {
        let Self {
            protected,
            protect_own,
            profile,
            cpu_s,
            memory,
            processes,
            file_size,
            open_files,
            cgroup,
            seccomp,
            demand,
            umask,
        } = self;
        protected.is_none()
            && protect_own.is_none()
            && profile.is_none()
            && cpu_s.is_none()
            && memory.is_none()
            && processes.is_none()
            && file_size.is_none()
            && open_files.is_none()
            && cgroup.is_none()
            && seccomp.is_none()
            && demand.is_none()
            && umask.is_none()
    }
}

/// `cgroup` of such a table.
#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenCgroup {
    pub(super) memory: Setting<Amount>,
    pub(super) cpu_percent: Setting<Amount>,
    pub(super) processes: Setting<Amount>,
}

/// A limit: a number, a size with its unit, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Amount {
    Lifted,
    Number(u64),
    Size(u64),
}

/// What a limit counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Bytes,
    Pieces,
}

impl FromStr for Amount {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "a limit is a number, a size like \"512M\" (K, M, G or T), or \"none\"";
        if text == "none" {
            return Ok(Self::Lifted);
        }
        let end = text.find(|c: char| !c.is_ascii_digit());
        let (digits, unit) = text.split_at(end.unwrap_or(text.len()));
        let number: u64 = digits.parse().map_err(|_| FORM)?;
        let power = match unit {
            "" => return Ok(Self::Number(number)),
            "K" => 1,
            "M" => 2,
            "G" => 3,
            "T" => 4,
            _unknown => return Err(FORM),
        };
        let size = number.checked_mul(1024_u64.pow(power)).ok_or(FORM)?;
        Ok(Self::Size(size))
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;

        impl Visitor<'_> for Read {
            type Value = Amount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, a size like \"512M\", or \"none\"")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Amount, E> {
                let number = u64::try_from(number);
                number
                    .map(Amount::Number)
                    .map_err(|_| E::custom("a limit is not negative"))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Amount, E> {
                Ok(Amount::Number(number))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Amount, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Read)
    }
}

/// A table in a host's file, over `base` if it is a rule's: checked, and no demand in it is one
/// that the two together rule out.
pub(super) fn confine(
    source: &Source<'_>,
    written: &WrittenConfine,
    base: &WrittenConfine,
) -> Result<Confine, ConfigError> {
    use Unit::{Bytes, Pieces};
    let cap = |limit: &Setting<Amount>, unit, bounds| cap(source, limit.as_ref(), unit, bounds);
    let cgroup = match &written.cgroup {
        None => None,
        Some(cgroup) => Some(CgroupCaps {
            memory: cap(&cgroup.memory, Bytes, (MIN_MEMORY, MAX_BYTES))?,
            cpu_percent: cap(&cgroup.cpu_percent, Pieces, (1, MAX_CPU_PERCENT))?,
            processes: cap(&cgroup.processes, Pieces, (1, MAX_PROCESSES))?,
        }),
    };
    let confine = Confine {
        protected: written
            .protected
            .as_ref()
            .map(|paths| protected(source, paths))
            .transpose()?,
        protect_own: written.protect_own.as_ref().map(|own| *own.get_ref()),
        profile: written
            .profile
            .as_ref()
            .map(|text| profile(source, text))
            .transpose()?,
        cpu_s: cap(&written.cpu_s, Pieces, (1, MAX_CPU_S))?,
        memory: cap(&written.memory, Bytes, (MIN_MEMORY, MAX_BYTES))?,
        processes: cap(&written.processes, Pieces, (1, MAX_PROCESSES))?,
        file_size: cap(&written.file_size, Bytes, (1, MAX_BYTES))?,
        open_files: cap(
            &written.open_files,
            Pieces,
            (MIN_OPEN_FILES, MAX_OPEN_FILES),
        )?,
        cgroup,
        seccomp: written.seccomp.as_ref().map(|on| *on.get_ref()),
        demand: written
            .demand
            .as_ref()
            .map(|words| demand(source, words))
            .transpose()?,
        umask: written
            .umask
            .as_ref()
            .map(|text| umask(source, text))
            .transpose()?,
    };
    check_demands(source, written, base)?;
    Ok(confine)
}

fn cap(
    source: &Source<'_>,
    limit: Option<&Spanned<Amount>>,
    unit: Unit,
    (least, most): (u64, u64),
) -> Result<Option<Cap>, ConfigError> {
    let Some(limit) = limit else {
        return Ok(None);
    };
    let number = match *limit.get_ref() {
        Amount::Lifted => return Ok(Some(Cap::Lifted)),
        Amount::Size(_) if unit == Unit::Pieces => {
            let problem = "this limit is a plain number, or \"none\"";
            return Err(source.mistake(Some(limit.span()), problem));
        }
        Amount::Number(number) | Amount::Size(number) => number,
    };
    if (least..=most).contains(&number) {
        return Ok(Some(Cap::At(number)));
    }
    let unit = match unit {
        Unit::Bytes => " bytes",
        Unit::Pieces => "",
    };
    let problem = format!("the limit must be between {least} and {most}{unit}, or \"none\"");
    Err(source.mistake(Some(limit.span()), problem))
}

/// A setting in bytes that cannot be lifted.
pub(super) fn bytes(
    source: &Source<'_>,
    written: Option<Spanned<Amount>>,
    default: u64,
    (least, most): (u64, u64),
) -> Result<u64, ConfigError> {
    let Some(written) = written else {
        return Ok(default);
    };
    match *written.get_ref() {
        Amount::Number(bytes) | Amount::Size(bytes) if (least..=most).contains(&bytes) => Ok(bytes),
        Amount::Number(_) | Amount::Size(_) | Amount::Lifted => {
            let problem = format!(
                "the size must be between {least} and {most} bytes, such as \"256M\" (K, M, G or T)"
            );
            Err(source.mistake(Some(written.span()), problem))
        }
    }
}

fn protected(
    source: &Source<'_>,
    written: &[Spanned<PathBuf>],
) -> Result<Vec<PathBuf>, ConfigError> {
    let check = |path: &Spanned<PathBuf>| {
        let text = path.get_ref();
        let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
        let problem = if text.as_path() == Path::new("/") {
            "protecting / leaves nothing to run; name what is to be protected"
        } else if text.is_absolute() && text.components().all(plain) {
            return Ok(text.clone());
        } else {
            "what is protected is an absolute path without .. in it"
        };
        Err(source.mistake(Some(path.span()), problem))
    };
    written.iter().map(check).collect()
}

fn profile(source: &Source<'_>, text: &Spanned<String>) -> Result<Writes, ConfigError> {
    match text.get_ref().as_str() {
        "none" => Ok(Writes::Anything),
        "read-only" => Ok(Writes::Nothing),
        "write-only-here" => Ok(Writes::OnlyHere),
        _unknown => {
            let problem = "a profile is \"read-only\", \"write-only-here\" or \"none\"";
            Err(source.mistake(Some(text.span()), problem))
        }
    }
}

fn demand(source: &Source<'_>, words: &[Spanned<String>]) -> Result<Demand, ConfigError> {
    let mut demand = Demand::default();
    for word in words {
        match word.get_ref().as_str() {
            "no_new_privs" => demand.no_new_privs = true,
            "landlock" => demand.landlock = true,
            "seccomp" => demand.seccomp = true,
            "cgroup" => demand.cgroup = true,
            _unknown => {
                let problem = "what can be demanded is landlock, cgroup, seccomp or no_new_privs";
                return Err(source.mistake(Some(word.span()), problem));
            }
        }
    }
    Ok(demand)
}

/// A text, as `umask = 22` would be another number than it looks like.
fn umask(source: &Source<'_>, text: &Spanned<String>) -> Result<u32, ConfigError> {
    let digits = text.get_ref();
    let is_octal = digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    match u32::from_str_radix(digits, 8) {
        Ok(bits) if is_octal && bits <= 0o777 => Ok(bits),
        Ok(_) | Err(_) => {
            let problem = "a umask is octal digits up to \"777\", such as \"027\"";
            Err(source.mistake(Some(text.span()), problem))
        }
    }
}

/// A demand that every run would fail by is a slip, told now and not when it is needed.
fn check_demands(
    source: &Source<'_>,
    own: &WrittenConfine,
    base: &WrittenConfine,
) -> Result<(), ConfigError> {
    let demanded = own.demand.as_ref().or(base.demand.as_ref());
    let has = |word: &Spanned<String>, name| word.get_ref() == name;
    for word in demanded.into_iter().flatten() {
        let fault = if has(word, "seccomp") {
            let off = own.seccomp.as_ref().or(base.seccomp.as_ref());
            let off = off.filter(|on| !on.get_ref());
            off.map(|off| (off.span(), "seccomp is demanded and switched off"))
        } else if has(word, "cgroup") {
            let none = own.cgroup.is_none() && base.cgroup.is_none();
            none.then(|| {
                let problem = "a cgroup is demanded and not asked for; add cgroup = {}, or limits";
                (word.span(), problem)
            })
        } else if has(word, "landlock") {
            guards_nothing(own, base).then(|| {
                let problem = "landlock is demanded and has nothing to guard: there is neither a \
                               protected path nor a profile";
                (word.span(), problem)
            })
        } else {
            None
        };
        if let Some((span, problem)) = fault {
            return Err(source.mistake(Some(span), problem));
        }
    }
    Ok(())
}

fn guards_nothing(own: &WrittenConfine, base: &WrittenConfine) -> bool {
    let protected = own.protected.as_ref().or(base.protected.as_ref());
    let protect_own = own.protect_own.as_ref().or(base.protect_own.as_ref());
    let profile = own.profile.as_ref().or(base.profile.as_ref());
    protected.is_none_or(Vec::is_empty)
        && protect_own.is_some_and(|own| !own.get_ref())
        && profile.is_none_or(|profile| profile.get_ref() == "none")
}
