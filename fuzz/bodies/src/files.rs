//! Files that the host's own people write, and the agent's key.

use std::cell::LazyCell;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use countersign_agent::config::{Config, ConfigError, Variables};
use countersign_agent::key;
use countersign_agent::rules::{NamePattern, Pattern, Rules, is_dangerous};
use countersign_agent::signers::AllowedSigners;
use countersign_protocol::blob::MAX_BLOB_BYTES;
use countersign_protocol::canonical;
use countersign_protocol::command::{CommandSpec, Environment, Mode};
use countersign_protocol::event::Kind;
use tempfile::TempDir;

use crate::bytes::split;
use crate::story::{NOW, config as config_of, time};

/// Characters of a pattern and of a text up to which a reading that tries everything is quick.
const TRIED: usize = 14;

/// `agent.toml`, and behind a zero byte variables, a line each. Absence never means yes.
pub fn config(data: &[u8]) {
    let (text, variables) = split(data);
    let (Ok(text), Ok(variables)) = (str::from_utf8(text), str::from_utf8(variables)) else {
        return;
    };
    let pairs = variables.lines().filter_map(|line| line.split_once('='));
    let pairs = pairs.map(|(name, value)| {
        let name = format!("COUNTERSIGN_AGENT_{name}");
        (OsString::from(name), OsString::from(value))
    });
    let given: Variables = pairs.collect();
    let signers = |path: PathBuf| {
        assert!(path.is_absolute());
        Ok(AllowedSigners::parse(include_str!("allowed_signers")).unwrap())
    };
    let path = Path::new("/etc/countersign/agent.toml");
    match Config::of_text(path, text, given, signers) {
        Ok(config) => {
            let said = |word: &str| text.contains(word);
            let everywhere = |word: &str| said(word) || variables.contains(word);
            // A key may be written with escapes, and then nothing can be said about the text.
            if !said("\\") {
                assert!(!config.rules.execution || everywhere("true"));
                assert!(!config.rules.commands.allow_all || said("allow_all"));
                assert!(config.rules.commands.allow.is_empty() || said("allow"));
                assert!(!config.rules.shell || said("shell"));
                assert!(config.rules.min_approvals > 0 || said("unattended"));
                assert!(config.rules.shell_min_approvals > 0 || said("unattended"));
            }
            assert!((1..=256).contains(&config.max_runs));
        }
        Err(ConfigError::Mistake { line, .. }) => {
            assert!((1..=text.split('\n').count()).contains(&line));
        }
        Err(ConfigError::Variable { name, .. }) => {
            let setting = name.strip_prefix("COUNTERSIGN_AGENT_").unwrap();
            assert!(variables.contains(setting));
        }
        Err(other) => panic!("nothing else is read: {other}"),
    }
}

/// `allowed_signers`. Whoever counts stands there as a word of a line of their own.
pub fn signers(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    match AllowedSigners::parse(text) {
        Ok(signers) => {
            let people = signers.people();
            assert!(!people.is_empty());
            for person in &people {
                assert!(signers.knows(person));
                let begins = |line: &str| line.split([' ', '\t']).next() == Some(person.as_str());
                assert!(text.lines().map(str::trim).any(begins), "{person}");
            }
            for name in ["alice", "bob", "mallory"] {
                let key = crate::story::public(name);
                let owner = signers.owner_of(&key);
                for kind in Kind::ALL {
                    let counts = |who: &countersign_protocol::name::Principal| {
                        signers.check(&key, who, *kind, time(NOW)).is_ok()
                    };
                    assert!(people.iter().all(|who| !counts(who) || owner == Some(who)));
                }
                assert!(
                    owner.is_none() || text.contains(key.to_openssh().split(' ').nth(1).unwrap())
                );
            }
            let commented = format!("# a word\n\n{text}");
            let again = AllowedSigners::parse(&commented);
            assert!(again.is_err() || again.unwrap().people() == people);
        }
        Err(error) => assert!((1..=text.lines().count().max(1)).contains(&error.line)),
    }
}

/// A pattern, a zero byte, a text. Both readings are those of a matcher that tries everything.
pub fn patterns(data: &[u8]) {
    let (pattern, text) = split(data);
    let (Ok(pattern), Ok(text)) = (str::from_utf8(pattern), str::from_utf8(text)) else {
        return;
    };
    if let Some(name) = NamePattern::parse(pattern) {
        assert_eq!(NamePattern::parse(pattern), Some(name));
        assert!(!pattern.starts_with('*'));
    }
    assert_eq!(is_dangerous(text), is_dangerous(&text.to_ascii_lowercase()));
    assert!(!text.starts_with("LD_") || is_dangerous(text));
    let Ok(parsed) = Pattern::parse(pattern) else {
        return;
    };
    assert_eq!(parsed.as_str(), pattern);
    let (allows, forbids) = (parsed.allows(text), parsed.forbids(text));
    assert!(!allows || forbids, "what is let through is also found");
    let small = |text: &str| text.chars().count() <= TRIED;
    if small(pattern) && small(text) {
        let text: Vec<char> = text.chars().collect();
        let readings = expand(&pattern.chars().collect::<Vec<_>>());
        let any = |broad| readings.iter().any(|one| one_allows(one, &text, broad));
        assert_eq!(forbids, any(true), "{pattern:?} in {text:?}");
        assert_eq!(allows, any(false), "{pattern:?} for {text:?}");
    }
}

/// A character as it is written, or one that a backslash makes ordinary.
#[derive(Clone, Copy, PartialEq)]
enum Sign {
    Wild(char),
    Plain(char),
}

/// Every text without braces that a legal pattern stands for.
fn expand(pattern: &[char]) -> Vec<Vec<Sign>> {
    let after = |count: usize| expand(&pattern[count..]);
    let before = |sign: Sign, tails: Vec<Vec<Sign>>| -> Vec<Vec<Sign>> {
        let joined = tails.into_iter().map(|tail| [vec![sign], tail].concat());
        joined.collect()
    };
    match pattern {
        [] => vec![vec![]],
        ['\\', escaped, ..] => before(Sign::Plain(*escaped), after(2)),
        ['{', ..] => {
            let (choices, length) = choices(pattern);
            let tails = after(length);
            let join =
                |choice: Vec<Sign>| tails.iter().map(move |tail| [&choice[..], tail].concat());
            choices.into_iter().flat_map(join).collect()
        }
        [wild @ ('*' | '?'), ..] => before(Sign::Wild(*wild), after(1)),
        [plain, ..] => before(Sign::Plain(*plain), after(1)),
    }
}

/// What stands between braces, and how long it is with them.
fn choices(pattern: &[char]) -> (Vec<Vec<Sign>>, usize) {
    let (mut choices, mut at) = (vec![vec![]], 1);
    loop {
        let sign = match pattern[at] {
            '}' => return (choices, at + 1),
            ',' => {
                choices.push(vec![]);
                at += 1;
                continue;
            }
            '\\' => {
                at += 1;
                Sign::Plain(pattern[at])
            }
            wild @ ('*' | '?') => Sign::Wild(wild),
            plain => Sign::Plain(plain),
        };
        choices.last_mut().unwrap().push(sign);
        at += 1;
    }
}

fn one_allows(pattern: &[Sign], text: &[char], broad: bool) -> bool {
    let wild = pattern.iter().any(|sign| matches!(sign, Sign::Wild(_)));
    let option = text.first() == Some(&'-') && pattern.first() != Some(&Sign::Plain('-'));
    let climbs = wild && text.split(|c| *c == '/').any(|part| part == ['.', '.']);
    (broad || !(option || climbs)) && tries(pattern, text, broad)
}

/// A star is tried at every length.
fn tries(pattern: &[Sign], text: &[char], broad: bool) -> bool {
    let is_wild = |c: &char| broad || (*c != '/' && !c.is_control());
    match (pattern, text) {
        ([], rest) => rest.is_empty(),
        ([Sign::Wild('*'), rest @ ..], text) => (0..=text.len())
            .take_while(|cut| text[..*cut].iter().all(is_wild))
            .any(|cut| tries(rest, &text[cut..], broad)),
        ([Sign::Wild(_), rest @ ..], [first, tail @ ..]) => {
            is_wild(first) && tries(rest, tail, broad)
        }
        ([Sign::Plain(c), rest @ ..], [first, tail @ ..]) => c == first && tries(rest, tail, broad),
        (_, []) => false,
    }
}

/// A command spec, a zero byte, an environment, asked of a host with few rules. Whatever it lets
/// through is named by a rule, argument by argument.
pub fn rules(data: &[u8]) {
    thread_local! {
        static RULES: LazyCell<Rules> =
            LazyCell::new(|| config_of(include_str!("careful.toml")).rules);
    }
    let (spec, environment) = split(data);
    let Ok(spec) = canonical::from_document::<CommandSpec>(spec, MAX_BLOB_BYTES) else {
        return;
    };
    let environment = Environment::parse(environment).ok();
    let judged = RULES.with(|rules| rules.judge(None, &spec, environment.as_ref()));
    let Ok(allowed) = judged else { return };
    let words: Vec<&str> = spec.argv.iter().map(String::as_str).collect();
    let listed = match words.as_slice() {
        ["true" | "/usr/bin/true" | "/bin/true", "restart", unit] => {
            ["nginx", "nginx.service"].contains(unit) || unit.starts_with("app-")
        }
        ["echo" | "/usr/bin/echo" | "/bin/echo", rest @ ..] => {
            !rest.iter().any(|word| word.contains("secret"))
        }
        _other => false,
    };
    assert!(listed, "{words:?} by {}", allowed.rule);
    assert!(
        words
            .iter()
            .all(|word| !word.contains("..") || words[0].ends_with("echo"))
    );
    assert_eq!(spec.mode, Mode::Exec);
    assert_eq!(spec.user, None);
    assert_eq!(allowed.runner.uid, 1000);
    for (name, _) in environment.iter().flat_map(Environment::variables) {
        assert!(name == "LANG" || name.starts_with("APP_"), "{name}");
    }
}

/// The file of the agent's key: what is read from it is the key that the protocol reads.
pub fn key_file(data: &[u8]) {
    thread_local! {
        static STATE: LazyCell<TempDir> = LazyCell::new(|| {
            let state = TempDir::new().unwrap();
            fs::create_dir(state.path().join("identity")).unwrap();
            state
        });
    }
    STATE.with(|state| {
        fs::write(state.path().join("identity/key"), data).unwrap();
        let Some(public) = key::public_key(state.path()) else {
            return;
        };
        let (mark, pem) = str::from_utf8(data).unwrap().split_once('\n').unwrap();
        assert!(mark.starts_with("# journal "));
        let private = countersign_protocol::key::from_openssh_private(pem).unwrap();
        assert_eq!(countersign_protocol::key::PublicKey::of(&private), public);
    });
}
