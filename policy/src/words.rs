//! The words of a command as rules see them: one unambiguous line, and the paths and names in it.
//!
//! Paths are read lexically: no link is followed, for whoever judges is not on the host.

use std::collections::BTreeSet;

use countersign_protocol::command::{CommandSpec, Mode};

/// What a word may have without quotes.
const PLAIN: &[u8] = b"_@%+=:,./-";

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || PLAIN.contains(&byte)
}

/// The word as a POSIX shell would need it: in single quotes unless it is plain.
pub(crate) fn quoted(word: &str) -> String {
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// What stands after the last `/`.
pub(crate) fn last_part(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

/// The program as it was written; nothing for a shell, whose one word is a script.
pub(crate) fn program(spec: &CommandSpec) -> &str {
    match spec.mode {
        Mode::Shell => "",
        Mode::Exec | Mode::Action => spec.argv.first().map_or("", String::as_str),
    }
}

/// The words after the program.
pub(crate) fn arguments(spec: &CommandSpec) -> impl Iterator<Item = &String> {
    let shell = spec.mode == Mode::Shell;
    spec.argv.iter().skip(1).filter(move |_| !shell)
}

/// All words in one line, beginning with `first` instead of the program.
pub(crate) fn line(spec: &CommandSpec, first: &str) -> String {
    if spec.mode == Mode::Shell {
        return spec.argv.join(" ");
    }
    let mut line = quoted(first);
    for word in arguments(spec) {
        line.push(' ');
        line.push_str(&quoted(word));
    }
    line
}

/// The words that a rule on names and paths looks at: each word, unless it is a shell's script, and
/// whatever in one is a run of plain characters, for any word may be a script to a program that starts
/// others. A script can build a name that is not in it.
fn visible(spec: &CommandSpec) -> impl Iterator<Item = &str> {
    let is_edge = |c: char| !u8::try_from(c).is_ok_and(is_plain);
    let is_script = spec.mode == Mode::Shell;
    spec.argv.iter().flat_map(move |word| {
        let has_parts = is_script || word.contains(is_edge);
        let parts = word.split(is_edge).filter(move |_| has_parts);
        let whole = Some(word.as_str()).filter(|_| !is_script);
        whole.into_iter().chain(parts)
    })
}

/// The last path part of every word.
pub(crate) fn names(spec: &CommandSpec) -> BTreeSet<String> {
    let names = visible(spec).map(last_part);
    names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Most bytes of paths that are looked at for one request: a long line of slashes has quadratically
/// many directories, and whoever asks must not fill the memory of whoever judges.
const MAX_PATH_BYTES: usize = 4 * 1024 * 1024;

/// The words mean more paths than a judgement looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "its words could mean more paths than a rule on paths looks at; hand long data over on standard input"
)]
pub(crate) struct TooManyPaths;

/// Every path that a word could mean to the program, with all directories above it.
///
/// A relative word counts from the directory that is asked for, `/` without one. What follows `=`, `:`
/// or `,`, up to the next of them or to the end, counts by itself, and so does what is attached to an
/// option: `if=/dev/sda`, `-t/etc`.
pub(crate) fn paths(spec: &CommandSpec) -> Result<BTreeSet<String>, TooManyPaths> {
    const MARKS: [char; 3] = ['=', ':', ','];
    let mut paths = Paths {
        cwd: spec.cwd.as_deref().unwrap_or("/"),
        left: MAX_PATH_BYTES,
        found: BTreeSet::new(),
    };
    paths.add("")?;
    for word in visible(spec) {
        paths.add(word)?;
        for (at, _) in word.match_indices(MARKS) {
            let rest = word.get(at + 1..).unwrap_or("");
            paths.add(rest)?;
            paths.add(rest.split(MARKS).next().unwrap_or(""))?;
        }
        paths.add(word.split(MARKS).next().unwrap_or(""))?;
        if let Some(option) = word.strip_prefix('-') {
            let attached = option.char_indices().nth(1);
            let attached = attached.and_then(|(at, _)| option.get(at..));
            paths.add(attached.unwrap_or(""))?;
            let rooted = option.find('/').and_then(|at| option.get(at..));
            paths.add(rooted.unwrap_or(""))?;
        }
    }
    Ok(paths.found)
}

/// Paths as they are collected.
struct Paths<'a> {
    cwd: &'a str,
    /// Bytes that may still be looked at.
    left: usize,
    found: BTreeSet<String>,
}

impl Paths<'_> {
    fn pay(&mut self, bytes: usize) -> Result<(), TooManyPaths> {
        self.left = self.left.checked_sub(bytes).ok_or(TooManyPaths)?;
        Ok(())
    }

    /// Adds a path and the directories above it.
    fn add(&mut self, word: &str) -> Result<(), TooManyPaths> {
        let base = if word.starts_with('/') { "" } else { self.cwd };
        self.pay(base.len() + word.len())?;
        let mut parts: Vec<&str> = Vec::new();
        for part in base.split('/').chain(word.split('/')) {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                name => parts.push(name),
            }
        }
        self.found.insert("/".to_owned());
        let mut path = String::new();
        for part in parts {
            path.push('/');
            path.push_str(part);
            self.pay(path.len())?;
            self.found.insert(path.clone());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(mode: Mode, argv: &[&str], cwd: Option<&str>) -> CommandSpec {
        CommandSpec {
            mode,
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            cwd: cwd.map(str::to_owned),
            user: None,
            timeout_ms: 1,
            output_limit: 1,
            at_output_limit: None,
        }
    }

    #[test]
    fn a_line_says_where_a_word_ends() {
        let one = spec(
            Mode::Exec,
            &["/bin/rm", "a b", "", "it's", "x*", "k=v"],
            None,
        );
        assert_eq!(
            line(&one, last_part(program(&one))),
            "rm 'a b' '' 'it'\\''s' 'x*' k=v"
        );
        let two = spec(Mode::Exec, &["/bin/rm", "a", "b"], None);
        assert_ne!(
            line(&two, "rm"),
            line(&spec(Mode::Exec, &["rm", "a b"], None), "rm")
        );
        let shell = spec(Mode::Shell, &["rm -rf x | cat"], None);
        assert_eq!(line(&shell, ""), "rm -rf x | cat");
    }

    #[test]
    fn a_path_is_found_however_it_is_written() {
        for (words, cwd) in [
            (&["cat", "/etc/passwd"][..], None),
            (&["cat", "etc/passwd"], None),
            (&["cat", "../etc//./passwd"], Some("/tmp")),
            (&["cat", "/tmp/../etc/passwd"], None),
            (&["ls"], Some("/etc/ssh")),
            (&["dd", "if=/etc/shadow"], None),
            (&["x", "--file=../etc/a"], Some("/srv")),
            (&["cp", "-t/etc", "a"], None),
            (&["x", "-C../etc"], Some("/srv")),
            (&["scp", "host:/etc/a", "."], Some("/tmp")),
            (&["x", "A=/srv:/etc:/b"], Some("/tmp")),
            (&["x", "/etc,/b"], Some("/tmp")),
        ] {
            let found = paths(&spec(Mode::Exec, words, cwd)).unwrap();
            assert!(found.contains("/etc"), "{words:?} {cwd:?}: {found:?}");
        }
        let script = spec(Mode::Shell, &["echo x >/etc/motd"], Some("/tmp"));
        assert!(paths(&script).unwrap().contains("/etc"));
        let behind = spec(Mode::Exec, &["su", "-c", "cat </etc/a"], Some("/tmp"));
        assert!(paths(&behind).unwrap().contains("/etc"));
        let other = spec(Mode::Exec, &["cat", "/etcetera/a"], Some("/tmp"));
        assert!(!paths(&other).unwrap().contains("/etc"));
    }

    #[test]
    fn a_word_of_slashes_fills_no_memory() {
        let long = "a/".repeat(60_000);
        assert_eq!(
            paths(&spec(Mode::Exec, &["ls", &long], None)),
            Err(TooManyPaths)
        );
        let marks = "a:".repeat(60_000);
        assert_eq!(
            paths(&spec(Mode::Exec, &["ls", &marks], None)),
            Err(TooManyPaths)
        );
    }
}
