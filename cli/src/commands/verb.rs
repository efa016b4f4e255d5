//! The table of verbs, and how one is run.

use std::ffi::OsString;

use clap::{Args as _, Subcommand};

use super::{
    Globals, agents, at, audit, changes, decide, export, holds, inbox, keys, list, log, logs,
    people, policy, redact, replay, request, retention, retry, reviews, roles, rollout,
    run as run_verb, seal, selfcheck, show, stop, tokens, whoami,
};
use crate::console;
use crate::exit_code;
use crate::failure::Failure;

/// What a person can do.
#[derive(Debug, Clone, Subcommand)]
pub enum Verb {
    /// Ask for a command; it runs once enough people have approved it
    Request(request::RequestArguments),
    /// Ask for a command, wait, and stream its output; exits as the command does
    Run(run_verb::Arguments),
    /// Run again exactly what was recorded, on the hosts where it did not go well
    Retry(retry::Arguments),
    /// Look at a command or a change of rights, and sign a yes
    Approve(decide::Arguments),
    /// Look at a command or a change of rights, and sign a no: one no ends it
    Reject(decide::Arguments),
    /// Take your own request back
    Withdraw(stop::Arguments),
    /// Stop a command where it runs, and do not start it where it does not
    Cancel(stop::CancelArguments),
    /// Hold a rollout up: no further host has its turn
    Pause(stop::Arguments),
    /// Let a paused rollout go on
    Resume(stop::Arguments),
    /// Let a rollout go on after its canary
    Continue(stop::Arguments),
    /// Show a command or a change, verified from its bytes
    Show(show::Arguments),
    /// List commands, newest first
    List(list::Arguments),
    /// What waits for your judgement
    Inbox,
    /// Runs without approvals that nobody has reviewed yet
    Reviews,
    /// Look at a run without approvals, and sign that you have
    Review(reviews::Arguments),
    /// Who you are in this ledger, and what you may do
    Whoami,
    /// Try a live service: what it must do, and what it must refuse; a line for each
    Selfcheck(selfcheck::Arguments),
    /// Everybody whom the ledger knows; what goes when somebody leaves
    People(people::Arguments),
    /// The hosts that the ledger knows; accept, label, drain or retire one
    Agents(agents::Arguments),
    /// The output of a command
    Logs(logs::Arguments),
    /// Play the output of a command with its timing, or write it as asciicast
    Replay(replay::Arguments),
    /// The entries of the log, one a line
    Log(log::Arguments),
    /// Write a bundle of evidence that proves itself, for whoever trusts none of us
    Export(export::Arguments),
    /// Ask for texts of a command that is over to be erased, for ever
    Redact(redact::Arguments),
    /// Legal holds: what must not be erased
    Hold(holds::Arguments),
    /// What rules of retention would erase; with --propose, ask for it
    Retention(retention::Arguments),
    /// Keys of people: claim, add, revoke, rotate
    Key(keys::Arguments),
    /// What roles mean and who has them
    Role(roles::RoleArguments),
    /// Who is in which group
    Group(roles::GroupArguments),
    /// API tokens for programs
    Token(tokens::Arguments),
    /// Secrets for calls with an API token
    Secret(seal::Arguments),
    /// The rules: show, check, publish, and ask what they would say
    Policy(policy::Arguments),
    /// The changes of rights that wait, or all of them
    Changes(changes::Arguments),
    /// What a verb would have said at a point of the past, from the audited log
    At(at::Arguments),
    /// An auditor's questions: why, ran, person, break-glass, suspect, search
    Audit(audit::Arguments),
}

/// Runs a verb and prints what comes of it, errors too. Gives the exit code.
pub async fn run(globals: &Globals, verb: Verb) -> u8 {
    let is_run = if let Verb::Retry(arguments) = &verb {
        arguments.follows()
    } else {
        matches!(verb, Verb::Run(_))
    };
    let json = globals.json || is_jsonl(&verb);
    match dispatch(globals, verb).await {
        Ok(code) => code,
        Err(failure) => {
            let code = console::report(json, &failure);
            // `run` keeps the small numbers for the command itself.
            if is_run { exit_code::RUN_OURS } else { code }
        }
    }
}

/// Whether a verb's standard output is JSON lines.
fn is_jsonl(verb: &Verb) -> bool {
    if let Verb::Run(arguments) = verb {
        return arguments.is_jsonl();
    }
    if let Verb::Retry(arguments) = verb {
        return arguments.is_jsonl();
    }
    matches!(verb, Verb::Logs(arguments) if arguments.is_jsonl())
}

async fn dispatch(globals: &Globals, verb: Verb) -> Result<u8, Failure> {
    match verb {
        Verb::Request(arguments) => request::request(globals, arguments).await,
        // The largest future by far; boxed, so that the others do not carry its size.
        Verb::Run(arguments) => Box::pin(run_verb::run(globals, arguments)).await,
        Verb::Retry(arguments) => Box::pin(retry::retry(globals, arguments)).await,
        Verb::Approve(arguments) => Box::pin(decide::approve(globals, arguments)).await,
        Verb::Reject(arguments) => Box::pin(decide::reject(globals, arguments)).await,
        Verb::Withdraw(arguments) => Box::pin(stop::withdraw(globals, arguments)).await,
        Verb::Cancel(arguments) => Box::pin(stop::cancel(globals, arguments)).await,
        Verb::Pause(arguments) => Box::pin(rollout::pause(globals, arguments)).await,
        Verb::Resume(arguments) => Box::pin(rollout::resume(globals, arguments)).await,
        Verb::Continue(arguments) => Box::pin(rollout::go_on(globals, arguments)).await,
        Verb::Show(arguments) => Box::pin(show::show(globals, arguments)).await,
        Verb::List(arguments) => list::list(globals, arguments).await,
        Verb::Inbox => inbox::inbox(globals).await,
        Verb::Agents(arguments) => Box::pin(agents::agents(globals, arguments)).await,
        Verb::Logs(arguments) => Box::pin(logs::logs(globals, arguments)).await,
        Verb::Replay(arguments) => Box::pin(replay::replay(globals, arguments)).await,
        Verb::Log(arguments) => Box::pin(log::log(globals, arguments)).await,
        Verb::Export(arguments) => Box::pin(export::export(globals, arguments)).await,
        Verb::Redact(arguments) => Box::pin(redact::redact(globals, arguments)).await,
        Verb::Hold(arguments) => Box::pin(holds::hold(globals, arguments)).await,
        Verb::Retention(arguments) => Box::pin(retention::retention(globals, arguments)).await,
        Verb::Reviews => Box::pin(reviews::reviews(globals)).await,
        Verb::Review(arguments) => Box::pin(reviews::review(globals, arguments)).await,
        Verb::Whoami => whoami::whoami(globals).await,
        Verb::Selfcheck(arguments) => Box::pin(selfcheck::selfcheck(globals, arguments)).await,
        Verb::People(arguments) => Box::pin(people::people(globals, arguments)).await,
        Verb::Key(arguments) => Box::pin(keys::key(globals, arguments)).await,
        Verb::Role(arguments) => Box::pin(roles::role(globals, arguments)).await,
        Verb::Group(arguments) => Box::pin(roles::group(globals, arguments)).await,
        Verb::Token(arguments) => Box::pin(tokens::token(globals, arguments)).await,
        Verb::Secret(arguments) => seal::secret(globals, arguments).await,
        Verb::Policy(arguments) => Box::pin(policy::policy(globals, arguments)).await,
        Verb::Changes(arguments) => changes::changes(globals, arguments).await,
        Verb::At(arguments) => Box::pin(at::at(globals, arguments)).await,
        Verb::Audit(arguments) => Box::pin(audit::audit(globals, arguments)).await,
    }
}

/// Whether a word is an option that takes the next word as its value and may stand before the verb.
fn takes_value(word: &str) -> bool {
    let globals = Globals::augment_args(clap::Command::new("countersign"));
    let mut globals = globals.get_arguments();
    globals.any(|own| {
        let long = own.get_long();
        own.get_action().takes_values() && long.is_some() && long == word.strip_prefix("--")
    })
}

/// The first word that is no option of ours: the verb, as far as one can tell.
fn verb_of(words: &[String]) -> Option<&str> {
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        if takes_value(word) {
            words.next();
        } else if !word.starts_with('-') {
            return Some(word);
        }
    }
    None
}

/// Reports a command line that cannot be parsed, as JSON when `--json` stands before any `--`.
///
/// `words` begins with the program's name. Help and version are printed as text and are no error.
/// Gives the exit code.
pub fn report_usage(words: impl IntoIterator<Item = OsString>, error: &clap::Error) -> u8 {
    let words: Vec<String> = words
        .into_iter()
        .take_while(|word| word != "--")
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    if !error.use_stderr() {
        // Help that nobody reads any more is no failure.
        drop(error.print());
        return exit_code::DONE;
    }
    if words.iter().any(|word| word == "--json") {
        let text = error.render().to_string();
        let message = text.strip_prefix("error: ").unwrap_or(&text).trim();
        console::report(true, &Failure::usage(message).hint("see --help"));
    } else {
        drop(error.print());
    }
    if ends_as_run(&words) {
        exit_code::RUN_OURS
    } else {
        exit_code::USAGE
    }
}

/// Whether a line that cannot be parsed is of a verb that exits as the command does.
fn ends_as_run(words: &[String]) -> bool {
    match verb_of(words) {
        Some("run") => true,
        Some("retry") => words.iter().any(|word| {
            let short = word.strip_prefix('-').filter(|rest| !rest.starts_with('-'));
            word == "--follow" || short.is_some_and(|letters| letters.contains('f'))
        }),
        Some(_) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        globals: Globals,
        #[command(subcommand)]
        verb: Verb,
    }

    fn parse(line: &str) -> Result<Line, clap::Error> {
        Line::try_parse_from(line.split(' '))
    }

    fn usage(line: &str) -> u8 {
        let error = parse(line).unwrap_err();
        report_usage(line.split(' ').map(OsString::from), &error)
    }

    #[test]
    fn json_goes_anywhere_before_the_double_dash_and_nowhere_after() {
        for line in [
            "x --json show 0123-4567",
            "x show --json 0123-4567",
            "x show 0123-4567 --json",
        ] {
            assert!(parse(line).unwrap().globals.json, "{line}");
        }
        let line = "x run --on a --json --reason r -- ls --help";
        assert!(parse(line).unwrap().globals.json);
        let line = "x run --on a --reason r -- ls --json";
        assert!(!parse(line).unwrap().globals.json);
    }

    #[test]
    fn every_verb_of_the_interface_parses() {
        for line in [
            "x request --on a,b --shell --cwd /d --env K=V --env L= --timeout 5 --stdin - --user u --reason r -- w",
            "x run --on a --reason r -- ls -l --all",
            "x run --on a,b --jsonl --progress plain --reason r -- ls",
            "x run --on a,b --grouped --reason r -- ls",
            "x logs 0123-4567 -f --jsonl",
            "x retry 0123-4567",
            "x retry 0123-4567 --on a,b --also-lost --reason r --expires 2h --yes-all 2 --follow --jsonl",
            "x approve 0123-4567 --yes --reason r",
            "x reject 0123-4567",
            "x withdraw 0123-4567",
            "x cancel 0123-4567 --reason r --wait 5s",
            "x show 0123-4567",
            "x list --status running --limit 5 --cursor c",
            "x inbox",
            "x agents",
            "x agents accept web-1 --fingerprint SHA256:x",
            "x agents accept web-1 --fingerprint SHA256:x --label env=prod --label a=b",
            "x agents reject web-1 --fingerprint SHA256:x --reason r",
            "x agents label web-1 env=prod a=b --remove env=test",
            "x agents label web-1 --remove env=test",
            "x agents drain web-1",
            "x agents undrain web-1 --reason r",
            "x agents retire web-1",
            "x reviews",
            "x review 0123-4567 --reason r --yes",
            "x run --on a --reason r --break-glass --yes -- ls",
            "x whoami",
            "x selfcheck",
            "x selfcheck --host a --approver-key b,c --wait 5m --allow-left-out --json -- uptime -p",
            "x selfcheck --no-runs",
            "x people",
            "x people show dave",
            "x people leave dave --reason r",
            "x key claim dave --key k --ledger 0000000000000000000000000000000000000000000000000000000000000000 -o f",
            "x key add dave claim.json --expires 365d --reason r",
            "x key revoke SHA256:x --suspect-from 7",
            "x key revoke dave",
            "x key list --all",
            "x key rotate new --expires 12h",
            "x role list",
            "x role define ops command:read command:execute",
            "x role grant ops --to alice",
            "x role revoke ops --from group:sre --reason r",
            "x group list",
            "x group add sre alice bob",
            "x group remove sre bob",
            "x token issue -r read -p command:execute --for ci@example.com --ttl 90d --label env=test --command ls --name ci",
            "x token list",
            "x token revoke ci",
            "x policy show --at 7",
            "x policy check p.cedar",
            "x policy publish p.toml --reason r",
            "x policy publish",
            "x policy snapshot --valid 12h --min-approvals 3 --new --yes",
            "x policy diff a.cedar b.json",
            "x policy explain --as alice --on web-1,web-2/db --user u --timeout 5 -- ls -l --all",
            "x policy explain --as alice --on web-1 --shell --break-glass -- w",
            "x policy explain --as alice --on web-1 --action restart nginx",
            "x policy replay --with p.cedar --since 7d",
            "x logs 0123-4567 -f --agent a",
            "x replay 0123-4567 --agent a --speed 2 --max-wait 2s --from 10s -f --raw",
            "x replay 0123-4567 --no-wait",
            "x replay 0123-4567 --cast - --agent a --max-wait 2s",
            "x export 0123-4567 --cast --agent a -o f",
            "x log --from 7 -f",
            "x key add dave dave.pub",
            "x policy set file",
            "x changes --all",
            "x redact 0123-4567 --only output,stdin --only reason --reason r --legal-basis gdpr-17 --yes",
            "x redact 0123-4567 --digest 0000000000000000000000000000000000000000000000000000000000000000 --reason r --legal-basis gdpr-17",
            "x hold place case-1 0123-4567 --host web-1 --by alice --reason r",
            "x hold lift case-1 --reason r",
            "x hold list",
            "x retention --rules f --propose --yes",
            "x at 7 show 0123-4567",
            "x at 2026-01-31T12:00:00Z list --status running --limit 5",
            "x at 30d inbox --for bob",
            "x at 7 agents",
            "x at 7 policy",
            "x at 7 changes --all",
            "x audit why 0123-4567 --csv",
            "x audit ran --host a --user root --from 30d --to 2026-01-31",
            "x audit person dave --limit 5 --cursor 9-5",
            "x audit break-glass --without-review",
            "x audit suspect --marked",
            "x audit search host:a",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
        }
    }

    /// A global option and an argument of the same name would be one: what is given for the one would
    /// silently be taken for the other.
    #[test]
    fn no_argument_of_a_verb_has_the_name_of_a_global_option() {
        let line = Line::command();
        let global = |id: &str| {
            let mut own = line.get_arguments();
            own.any(|own| own.is_global_set() && own.get_id() == id)
        };
        let mut commands: Vec<&clap::Command> = line.get_subcommands().collect();
        while let Some(command) = commands.pop() {
            for argument in command.get_arguments() {
                let (verb, id) = (command.get_name(), argument.get_id().as_str());
                assert!(!global(id), "{id} of {verb}");
            }
            commands.extend(command.get_subcommands());
        }
    }

    #[test]
    fn a_line_that_does_not_parse_is_a_usage_error_and_125_for_run() {
        assert_eq!(usage("x show"), exit_code::USAGE);
        assert_eq!(usage("x request --on a -- ls"), exit_code::USAGE);
        assert_eq!(usage("x list --status odd"), exit_code::USAGE);
        assert_eq!(usage("x role define ops root"), exit_code::USAGE);
        assert_eq!(usage("x role grant ops --to role:admin"), exit_code::USAGE);
        assert_eq!(usage("x agents label web-1"), exit_code::USAGE);
        assert_eq!(usage("x token issue -r read --for ci"), exit_code::USAGE);
        assert_eq!(usage("x review 0123-4567"), exit_code::USAGE);
        assert_eq!(
            usage("x redact 0123-4567 --reason r --legal-basis b"),
            exit_code::USAGE
        );
        assert_eq!(usage("x hold place case-1 --reason r"), exit_code::USAGE);
        for options in ["--speed 0", "--speed -1", "--speed nan", "--speed 1e9"] {
            let line = format!("x replay 0123-4567 {options}");
            assert_eq!(usage(&line), exit_code::USAGE, "{line}");
        }
        assert_eq!(usage("x replay 0123-4567 --cast f -f"), exit_code::USAGE);
        assert_eq!(usage("x export --cast -o f"), exit_code::USAGE);
        let line = "x agents accept a --fingerprint f --rotate --label a=b";
        assert_eq!(usage(line), exit_code::USAGE);
        assert_eq!(usage("x --server run show"), exit_code::USAGE);
        assert_eq!(usage("x run --on a -- ls"), exit_code::RUN_OURS);
        assert_eq!(
            usage("x --json --key k run --on a -- ls"),
            exit_code::RUN_OURS
        );
    }
    /// Whatever stands before it: 2 would be taken for the command's own code.
    #[test]
    fn a_bad_line_of_run_is_125_behind_every_global_option() {
        let line = Line::command();
        let globals = line.get_arguments().filter(|own| own.is_global_set());
        let mut seen = 0;
        for own in globals {
            let name = own.get_long().unwrap();
            let takes_value = own.get_action().takes_values();
            let option = if takes_value {
                format!("--{name} value")
            } else {
                format!("--{name}")
            };
            let line = format!("x {option} run --resaon r --on a -- ls");
            assert_eq!(usage(&line), exit_code::RUN_OURS, "{line}");
            seen += u32::from(takes_value);
        }
        assert!(seen >= 8, "{seen}");
    }

    #[test]
    fn a_bad_line_of_a_retry_that_follows_is_125_and_of_another_one_2() {
        for follow in ["--follow", "-f"] {
            let line = format!("x retry 0123-4567 {follow} --resaon r");
            assert_eq!(usage(&line), exit_code::RUN_OURS, "{line}");
            let line = format!("x --json retry --resaon r {follow} 0123-4567");
            assert_eq!(usage(&line), exit_code::RUN_OURS, "{line}");
        }
        assert_eq!(usage("x retry 0123-4567 --resaon r"), exit_code::USAGE);
        assert_eq!(usage("x logs -f"), exit_code::USAGE);
    }
}
