//! `public.blob_texts`: the words of blobs, to search by. Erasing a blob removes them in the same
//! transaction, and nothing here can bring them back: the database takes no text of an erased blob.

use std::collections::BTreeMap;
use std::pin::pin;

use countersign_protocol::command::{Act, CommandSpec, Mode};
use countersign_protocol::event::Event;
use countersign_protocol::hash::Digest;
use futures_util::TryStreamExt as _;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use sqlx::{PgConnection, Row as _};

use super::deeds::reason;
use crate::projections::page::Page;
use crate::projections::rows::Rows;

/// Bytes of a blob that are searched, and of a command's words, as many as are whole in them: a chunk of output is
/// no longer, and an index over more would grow past the log.
const SEARCHED_BYTES: usize = 64 * 1024;

/// What runs a script.
const SHELL: &str = "/bin/sh";

#[derive(Serialize)]
struct Row {
    digest: String,
    text: String,
    program: Option<String>,
    program_name: Option<String>,
    args: Option<Vec<String>>,
    arg_keys: Option<Vec<i64>>,
}

/// Makes the texts of what a page of entries names searchable. Those that are there stay.
///
/// # Errors
/// The database's.
pub(in crate::projections) async fn fill(
    connection: &mut PgConnection,
    page: &Page<'_>,
) -> Result<(), sqlx::Error> {
    let mut wanted: BTreeMap<Digest, Option<&Act>> = BTreeMap::new();
    for entry in page.entries() {
        let event = entry.verified.event();
        if let Event::CommandRequested(request) = event {
            wanted.insert(request.act.spec.digest, Some(&request.act));
        } else if let Event::ExecutionOutput(chunk) = event {
            wanted.entry(chunk.data.digest).or_insert(None);
        }
        if let Some(digest) = reason(event) {
            wanted.entry(digest).or_insert(None);
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let mut rows = rows(connection, &wanted).await?;
    // Whoever rebuilds may write the same texts at the same moment as whoever follows: in one order, or each
    // might wait for the other.
    rows.sort_unstable_by(|a, b| a.digest.cmp(&b.digest));
    let sql = "INSERT INTO public.blob_texts
         SELECT decode(digest, 'hex'), text, program, program_name, args, arg_keys
         FROM jsonb_to_recordset($1::jsonb) AS given (digest text, text text, program text,
             program_name text, args text[], arg_keys bigint[])
         ON CONFLICT DO NOTHING";
    Rows::into(sql).write_all(connection, rows).await
}

/// The rows of those that are there, and were not searchable yet.
async fn rows(
    connection: &mut PgConnection,
    wanted: &BTreeMap<Digest, Option<&Act>>,
) -> Result<Vec<Row>, sqlx::Error> {
    let digests: Vec<&[u8]> = wanted.keys().map(|d| d.as_bytes().as_slice()).collect();
    let blobs = sqlx::query(
        "SELECT digest, content FROM public.blobs
         WHERE digest = ANY($1) AND content IS NOT NULL
             AND NOT EXISTS (SELECT FROM public.blob_texts t WHERE t.digest = blobs.digest)",
    )
    .bind(digests)
    .fetch(connection);
    // One at a time: of each no more is kept than what is searched.
    let mut rows = Vec::new();
    let mut blobs = pin!(blobs);
    while let Some(blob) = blobs.try_next().await? {
        let digest: Vec<u8> = blob.try_get("digest")?;
        let content: Vec<u8> = blob.try_get("content")?;
        let Some(digest) = Digest::from_slice(&digest) else {
            continue;
        };
        let act = wanted.get(&digest).copied().flatten();
        rows.push(row(digest, &content, act));
    }
    Ok(rows)
}

fn row(digest: Digest, content: &[u8], act: Option<&Act>) -> Row {
    // What its act does not fit is no command; it is searched as the text that it is.
    let spec = act.and_then(|act| CommandSpec::parse(content, act).ok());
    let Some(spec) = spec else {
        return Row {
            digest: digest.to_string(),
            text: shown(content),
            program: None,
            program_name: None,
            args: None,
            arg_keys: None,
        };
    };
    let (program, args) = match (spec.mode, spec.argv.split_first()) {
        (Mode::Exec | Mode::Action, Some((program, args))) => (program.clone(), args),
        (Mode::Shell, _) | (_, None) => (SHELL.to_owned(), spec.argv.as_slice()),
    };
    let args = that_fit(args);
    Row {
        digest: digest.to_string(),
        text: shown(spec.argv.join("\n").as_bytes()),
        program_name: Some(program.rsplit('/').next().unwrap_or(&program).to_owned()),
        program: Some(program),
        arg_keys: Some(args.iter().map(|word| key(word)).collect()),
        args: Some(args.to_vec()),
    }
}

/// The words at the beginning that are searched one by one.
fn that_fit(words: &[String]) -> &[String] {
    let mut bytes = 0;
    let long = words.iter().position(|word| {
        bytes += word.len();
        bytes > SEARCHED_BYTES
    });
    words.get(..long.unwrap_or(words.len())).unwrap_or_default()
}

/// The searchable beginning of a text; Postgres holds no zero bytes.
fn shown(content: &[u8]) -> String {
    let part = content.get(..SEARCHED_BYTES).unwrap_or(content);
    String::from_utf8_lossy(part).replace('\0', "\u{fffd}")
}

/// By what a word is found in the index.
pub(super) fn key(word: &str) -> i64 {
    let digest: [u8; 32] = Sha256::digest(word.as_bytes()).into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    i64::from_be_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_command_so_many_words_are_searched_as_fit() {
        let long = "x".repeat(SEARCHED_BYTES);
        let words = ["first".to_owned(), long, "last".to_owned()];
        assert_eq!(that_fit(&words), &words[..1]);
        assert_eq!(that_fit(&words[1..]), &words[1..2]);
        assert_eq!(that_fit(&words[2..]), &words[2..]);
    }

    #[test]
    fn a_text_is_cut_and_holds_no_zero_and_no_stray_byte() {
        assert_eq!(shown(b"a\0b\xffc"), "a\u{fffd}b\u{fffd}c");
        assert_eq!(shown(&[b'x'; SEARCHED_BYTES + 1]).len(), SEARCHED_BYTES);
        assert_ne!(key("restart"), key("restar"));
    }
}
