//! `[[action]]` as it is written, to actions: names distinct, marks that mean an argument, and no
//! argument that nothing uses.
//!
//! It must not decide about commands.

use toml::Spanned;

use super::confine::{WrittenConfine, confine};
use super::load::is_on;
use super::source::{ConfigError, Source};
use super::tables::{self, Names};
use super::written::WrittenAction;
use crate::rules::{Action, MAX_ARGUMENTS, MAX_STEPS, StepTemplate, Word};

/// All actions. `least` is the smallest number of people that one may name, and `base` the
/// confinement that theirs lies over.
pub(super) fn actions(
    source: &Source<'_>,
    (least, base): (u32, &WrittenConfine),
    names: &mut Names,
    written: Vec<WrittenAction>,
) -> Result<Vec<Action>, ConfigError> {
    let action = |written: WrittenAction| {
        names.take(source, &written.name)?;
        let args = tables::patterns(source, &written.args)?;
        if args.len() > MAX_ARGUMENTS {
            let problem = format!("an action has at most {MAX_ARGUMENTS} arguments");
            return Err(source.mistake(Some(written.name.span()), problem));
        }
        let steps = steps(source, args.len(), &written.steps)?;
        let is_unused = |at: &usize| !steps.iter().any(|step: &StepTemplate| step.uses(*at));
        if let Some(unused) = (0..args.len()).find(is_unused) {
            let number = unused.saturating_add(1);
            let problem =
                format!("no step uses argument {number}; write {{{number}}} where it belongs");
            return Err(source.mistake(Some(written.steps.span()), problem));
        }
        if let Some(relative) = written
            .cwd
            .as_ref()
            .filter(|cwd| !cwd.get_ref().starts_with('/'))
        {
            let problem = "cwd is an absolute path";
            return Err(source.mistake(Some(relative.span()), problem));
        }
        Ok(Action {
            name: written.name.into_inner(),
            args,
            steps,
            cwd: written.cwd.map(Spanned::into_inner),
            env: is_on(written.env),
            stdin: is_on(written.stdin),
            users: written.users,
            min_approvals: tables::people(source, least, written.min_approvals)?,
            timeout_s: tables::timeout(source, written.timeout_s)?,
            confine: confine(source, &written.confine, base)?,
            reason: written.reason,
        })
    };
    written.into_iter().map(action).collect()
}

fn steps(
    source: &Source<'_>,
    arguments: usize,
    written: &Spanned<Vec<Spanned<Vec<Spanned<String>>>>>,
) -> Result<Vec<StepTemplate>, ConfigError> {
    let steps = written.get_ref();
    if steps.is_empty() || steps.len() > MAX_STEPS {
        let problem = format!("an action has 1 to {MAX_STEPS} steps");
        return Err(source.mistake(Some(written.span()), problem));
    }
    let step = |written: &Spanned<Vec<Spanned<String>>>| {
        let words = words(source, arguments, written.get_ref())?;
        let mistake = |problem: String| source.mistake(Some(written.span()), problem);
        let step = StepTemplate::new(words).map_err(|error| mistake(error.to_string()))?;
        let program = step.program();
        if program.contains('/') && !program.starts_with('/') {
            let problem = "a program is an absolute path, or a file name without / for one in the folders of path";
            return Err(mistake(problem.to_owned()));
        }
        Ok(step)
    };
    steps.iter().map(step).collect()
}

/// Words with marks for so many arguments.
pub(super) fn words(
    source: &Source<'_>,
    arguments: usize,
    written: &[Spanned<String>],
) -> Result<Vec<Word>, ConfigError> {
    let parse = |word: &Spanned<String>| {
        Word::parse(word.get_ref(), arguments)
            .map_err(|error| source.mistake(Some(word.span()), error.to_string()))
    };
    written.iter().map(parse).collect()
}
