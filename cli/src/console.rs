//! The two streams that people and scripts read: results on stdout, everything else on stderr.
//!
//! What is given here is already safe to show, or is raw on purpose.

use std::io::{self, IsTerminal as _, Write as _};

use anstream::{AutoStream, ColorChoice};
use countersign_protocol::api::Base64;
use serde::Serialize;

use crate::failure::Failure;
use crate::render;

/// Standard output was closed or is full.
fn broken(error: &io::Error) -> Failure {
    Failure::failed("output", format!("cannot write the result: {error}"))
}

/// Writes text to standard output; colours only reach terminals.
///
/// # Errors
/// It cannot be written.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| broken(&error))
}

/// Writes bytes as they are: to standard error when `to_stderr`, else to standard output.
///
/// # Errors
/// They cannot be written.
pub fn write_raw(to_stderr: bool, bytes: &[u8]) -> Result<(), Failure> {
    let written = if to_stderr {
        let mut stream = io::stderr().lock();
        stream.write_all(bytes).and_then(|()| stream.flush())
    } else {
        let mut stream = io::stdout().lock();
        stream.write_all(bytes).and_then(|()| stream.flush())
    };
    written.map_err(|error| broken(&error))
}

/// Writes one JSON document and a line feed to standard output.
///
/// # Errors
/// It cannot be written.
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value)
        .map_err(|error| Failure::failed("output", format!("cannot write the result: {error}")))?;
    print_json_text(text)
}

/// The same of a document that is text already. Its strings may be foreign: a terminal gets what could
/// command it escaped, and a program the text as it is. Both say the same.
///
/// # Errors
/// It cannot be written.
pub fn print_json_text(mut text: String) -> Result<(), Failure> {
    if is_terminal(false) {
        text = render::json(&text);
    }
    text.push('\n');
    write_raw(false, text.as_bytes())
}

/// Says something beside the result. When nobody can hear it, that is no failure.
pub fn note(text: &str) {
    let mut err = anstream::stderr().lock();
    drop(writeln!(err, "{text}"));
}

/// Whether a stream is a terminal: standard error when `stderr`, else standard output.
#[must_use]
pub fn is_terminal(stderr: bool) -> bool {
    if stderr {
        io::stderr().is_terminal()
    } else {
        io::stdout().is_terminal()
    }
}

/// Whether colours are welcome: it is a terminal, and neither it nor its user (`NO_COLOR`) minds.
#[must_use]
pub fn has_colours(stderr: bool) -> bool {
    let choice = if stderr {
        AutoStream::choice(&io::stderr())
    } else {
        AutoStream::choice(&io::stdout())
    };
    is_terminal(stderr) && choice != ColorChoice::Never
}

/// Whether a person can be asked: both ends of the conversation are a terminal.
#[must_use]
pub fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks for a yes, and takes nothing else for one.
///
/// # Errors
/// The answer cannot be read.
pub fn ask(question: &str) -> Result<bool, Failure> {
    Ok(type_in(&format!("{question} Type yes: "))? == "yes")
}

/// Asks, and gives what was typed without the space around it.
///
/// # Errors
/// The answer cannot be read.
pub fn type_in(question: &str) -> Result<String, Failure> {
    let mut err = anstream::stderr().lock();
    drop(write!(err, "{question}"));
    drop(err.flush());
    drop(err);
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::failed("input", format!("cannot read the answer: {error}")))?;
    Ok(answer.trim().to_owned())
}

/// Tells why a verb did not succeed: as JSON on stdout, else for people on stderr. Gives the exit
/// code that says so.
pub fn report(json: bool, failure: &Failure) -> u8 {
    #[derive(Serialize)]
    struct Body<'a> {
        code: &'a str,
        message: &'a str,
        hint: Option<&'a str>,
    }
    #[derive(Serialize)]
    struct Document<'a> {
        error: Body<'a>,
    }
    let hint = failure.hint.as_deref();
    if json {
        let (code, message) = (failure.code.as_ref(), failure.message());
        let error = Body {
            code,
            message,
            hint,
        };
        // Standard output is gone: the exit code still tells.
        drop(print_json(&Document { error }));
    } else {
        note(&format!("error: {failure}"));
        if let Some(hint) = hint {
            note(&format!("hint: {}", render::line(hint)));
        }
    }
    failure.exit
}

/// Bytes as base64 for JSON.
#[must_use]
pub fn base64(bytes: &[u8]) -> Base64 {
    Base64(bytes.to_vec())
}
