//! The examples of the help, as somebody pastes them into a shell.

use clap::{Args as _, Command, Subcommand as _};
use countersign_cli::{Globals, Verb, VerifyArguments};

/// Other programs that examples use.
const OTHERS: [&str; 4] = ["curl", "jq", "pass", "ssh-keygen"];

/// What stands for a variable whose value must be of a certain form.
const VARIABLES: [(&str, &str); 1] = [(
    "LEDGER",
    "0000000000000000000000000000000000000000000000000000000000000000",
)];

/// The command line as the binaries have it, with all verbs that this crate makes.
fn line() -> Command {
    let line = Globals::augment_args(Command::new("countersign"));
    let verify = VerifyArguments::augment_args(Command::new("verify"));
    Verb::augment_subcommands(line).subcommand(verify)
}

fn collect(command: &Command, name: &str, found: &mut Vec<(String, String)>) {
    let help = command.get_after_help().map(ToString::to_string);
    let help = help.unwrap_or_default();
    let mut lines = help.lines();
    while let Some(heading) = lines.next() {
        let heading = heading.strip_suffix(':').unwrap_or_default();
        if !matches!(heading, "Example" | "Examples") && !heading.starts_with("Example, ") {
            continue;
        }
        let block = lines.by_ref().take_while(|line| line.starts_with("  "));
        let block: Vec<&str> = block.collect();
        // Long ones go on in the next line, as in a shell.
        for example in block.join("\n").replace(" \\\n    ", " ").lines() {
            found.push((name.to_owned(), example.to_owned()));
        }
    }
    for sub in command.get_subcommands() {
        collect(sub, &format!("{name} {}", sub.get_name()), found);
    }
}

fn value_of(variable: &str) -> String {
    let known = VARIABLES.iter().find(|(name, _)| *name == variable);
    known.map_or_else(|| variable.to_lowercase(), |(_, value)| (*value).to_owned())
}

/// Splits a line into the programs of a pipe and their words, as a shell does with what examples use:
/// quotes, variables, `|`, `> FILE` and comments. Two blanks between words are an explanation that
/// forgot its `#`.
fn split(line: &str) -> Result<Vec<Vec<String>>, String> {
    let mut programs = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = line.trim().chars().peekable();
    let mut is_file = false;
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (Some('\''), _) => word.get_or_insert_default().push(character),
            (_, '$') => {
                let mut name = String::new();
                while let Some(letter) =
                    characters.next_if(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
                {
                    name.push(letter);
                }
                if name.is_empty() {
                    return Err("it runs a command for a word".to_owned());
                }
                word.get_or_insert_default().push_str(&value_of(&name));
            }
            (Some(_), '\\') => word.get_or_insert_default().extend(characters.next()),
            (Some(_), _) => word.get_or_insert_default().push(character),
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, '(' | ')' | ';' | '&' | '`' | '<') => {
                return Err(format!("{character:?} outside quotes"));
            }
            (None, ' ' | '|' | '>') => {
                let program = programs.last_mut().unwrap();
                match word.take() {
                    Some(_) if is_file => is_file = false,
                    Some(ended) => program.push(ended),
                    None => {}
                }
                if character == '|' {
                    programs.push(Vec::new());
                } else if character == '>' {
                    is_file = true;
                } else {
                    let more = std::iter::from_fn(|| characters.next_if_eq(&' ')).count();
                    if more > 0 && characters.peek() != Some(&'#') {
                        return Err("words that stand apart without a # before them".to_owned());
                    }
                }
            }
            (None, _) => word.get_or_insert_default().push(character),
        }
    }
    if quote.is_some() {
        return Err("a quote that is never closed".to_owned());
    }
    let last = word.filter(|_| !is_file);
    programs.last_mut().unwrap().extend(last);
    Ok(programs)
}

/// Says what is wrong with an example.
fn judge(example: &str) -> Result<(), String> {
    for words in split(example)? {
        let is_assignment = |word: &&String| {
            word.split_once('=').is_some_and(|(name, _)| {
                let mut letters = name.bytes();
                !name.is_empty() && letters.all(|b| b.is_ascii_uppercase() || b == b'_')
            })
        };
        let words: Vec<&String> = words.iter().skip_while(is_assignment).collect();
        match words.first().map(|word| word.as_str()) {
            Some("countersign") => {
                let parsed = line().try_get_matches_from(words);
                parsed.map_err(|error| error.to_string())?;
            }
            Some(other) if OTHERS.contains(&other) => {}
            program => return Err(format!("it runs {program:?}")),
        }
    }
    Ok(())
}

#[test]
fn every_example_of_the_help_can_be_pasted_into_a_shell() {
    let mut found = Vec::new();
    collect(&line(), "countersign", &mut found);
    assert!(found.len() > 90, "only {} examples", found.len());
    let wrong: Vec<String> = found
        .iter()
        .filter_map(|(verb, example)| {
            let said = judge(example).err()?;
            Some(format!("{verb} --help: {example}\n    {said}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_example_that_a_shell_would_not_take_is_found() {
    for good in [
        "countersign show 7K3M-9QPX  # what it was",
        "countersign show 7K3M-9QPX --json | jq -r '.executions[0].stdout' > out.txt",
        "A=b countersign run --on a --reason 'is it (up)?' -- sh -c \"true; ls\"",
    ] {
        assert_eq!(judge(good), Ok(()), "{good}");
    }
    for bad in [
        "countersign show 7K3M-9QPX (what it was)",
        "countersign list  what there was",
        "countersign export -o ledger.tar   the whole ledger",
        "countersign show 7K3M-9QPX --jsno",
        "countersign run --on a --reason it's -- true",
        "countersing list",
    ] {
        assert!(judge(bad).is_err(), "{bad}");
    }
}
