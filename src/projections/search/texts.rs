//! `public.blob_texts`: the words of blobs, to search by. Erasing a blob removes them in the same
//! transaction, and nothing here can bring them back: the database takes no text of an erased blob.

use std::collections::BTreeMap;

use countersign_protocol::command::{Act, CommandSpec, Mode};
use countersign_protocol::event::Event;
use countersign_protocol::hash::Digest;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use sqlx::{PgConnection, Row as _};

use super::deeds::reason;
use crate::projections::page::Page;
use crate::projections::runner::rows_of;

/// Bytes of a blob that are searched: a chunk of output is no longer, and an index over more would
/// grow past the log.
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
    let digests: Vec<&[u8]> = wanted.keys().map(|d| d.as_bytes().as_slice()).collect();
    let blobs = sqlx::query(
        "SELECT digest, content FROM public.blobs
         WHERE digest = ANY($1) AND content IS NOT NULL
             AND NOT EXISTS (SELECT FROM public.blob_texts t WHERE t.digest = blobs.digest)",
    )
    .bind(digests)
    .fetch_all(&mut *connection)
    .await?;
    let mut rows = Vec::new();
    for blob in &blobs {
        let digest: Vec<u8> = blob.try_get("digest")?;
        let content: Vec<u8> = blob.try_get("content")?;
        let Some(digest) = Digest::from_slice(&digest) else {
            continue;
        };
        let act = wanted.get(&digest).copied().flatten();
        rows.push(row(digest, &content, act));
    }
    let Some(rows) = rows_of(rows.into_iter())? else {
        return Ok(());
    };
    sqlx::query(
        "INSERT INTO public.blob_texts
         SELECT decode(digest, 'hex'), text, program, program_name, args, arg_keys
         FROM jsonb_to_recordset($1::jsonb) AS given (digest text, text text, program text,
             program_name text, args text[], arg_keys bigint[])
         ON CONFLICT DO NOTHING",
    )
    .bind(rows)
    .execute(connection)
    .await
    .map(drop)
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
    let words: Vec<String> = spec
        .argv
        .iter()
        .map(|word| word.replace('\0', "\u{fffd}"))
        .collect();
    let (program, args) = match spec.mode {
        Mode::Shell => (SHELL.to_owned(), words.as_slice()),
        Mode::Exec | Mode::Action => match words.split_first() {
            Some((program, args)) => (program.clone(), args),
            None => (String::new(), &[][..]),
        },
    };
    Row {
        digest: digest.to_string(),
        text: words.join("\n"),
        program_name: Some(program.rsplit('/').next().unwrap_or(&program).to_owned()),
        program: Some(program),
        arg_keys: Some(args.iter().map(|word| key(word)).collect()),
        args: Some(args.to_vec()),
    }
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
    fn a_text_is_cut_and_holds_no_zero_and_no_stray_byte() {
        assert_eq!(shown(b"a\0b\xffc"), "a\u{fffd}b\u{fffd}c");
        assert_eq!(shown(&[b'x'; SEARCHED_BYTES + 1]).len(), SEARCHED_BYTES);
        assert_ne!(key("restart"), key("restar"));
    }
}
