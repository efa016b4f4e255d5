//! Output as asciicast v2: a header line, then an event a line, for players that are not ours.
//!
//! A recording for the eye, no evidence: bytes that are no UTF-8 are replaced, both streams are one,
//! and each line feed gets the carriage return that a terminal would have given it. The file is
//! ASCII, so that whoever looks at it itself meets no control character.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use countersign_protocol::event::Stream;
use countersign_protocol::name::{SECOND_US, Time};
use serde::Serialize;

use crate::playback::Cue;
use crate::render::ascii_json;
use crate::streams::Held;
use crate::view::stream_word;

/// The format's version that is written: what all players read.
const VERSION: u8 = 2;

/// Columns of a terminal, which no command here has: what programs take when nobody tells them.
const WIDTH: u16 = 80;

/// Lines of it.
const HEIGHT: u16 = 24;

/// What stands for bytes that are no text.
const REPLACED: char = char::REPLACEMENT_CHARACTER;

/// The first line.
#[derive(Debug, Serialize)]
struct Header<'a> {
    version: u8,
    width: u16,
    height: u16,
    timestamp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_time_limit: Option<f64>,
    title: &'a str,
}

/// What a cast is called and how it is to be played.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// When the run began.
    pub start: Time,
    /// For people.
    pub title: &'a str,
    /// The most that a player should wait between two events.
    pub max_wait: Option<Duration>,
}

/// Writes one run's output; `cues` ascend. Gives the number of events.
///
/// A piece that is not here becomes a marker that says so.
///
/// # Errors
/// It cannot be written.
pub fn write(about: &About<'_>, cues: &[Cue<'_>], out: &mut impl io::Write) -> io::Result<u64> {
    let header = Header {
        version: VERSION,
        width: WIDTH,
        height: HEIGHT,
        timestamp: about.start.as_micros() / SECOND_US,
        idle_time_limit: about.max_wait.map(|most| most.as_secs_f64()),
        title: about.title,
    };
    writeln!(out, "{}", ascii_json(&serde_json::to_string(&header)?))?;
    let mut decoders: BTreeMap<Stream, Decoder> = BTreeMap::new();
    let mut events = Events { out, written: 0 };
    for cue in cues {
        let stream = cue.piece.stream;
        match &cue.piece.bytes {
            Held::Here(bytes) => {
                let text = decoders.entry(stream).or_default().push(bytes);
                events.output(cue.at_us, &text)?;
            }
            Held::Withheld => events.missing(cue, "not for its reader")?,
            Held::Redacted => events.missing(cue, "erased")?,
        }
    }
    let last = cues.last().map_or(0, |cue| cue.at_us);
    for decoder in decoders.values_mut() {
        events.output(last, &decoder.finish())?;
    }
    Ok(events.written)
}

/// The lines after the first.
struct Events<'a, W> {
    out: &'a mut W,
    written: u64,
}

impl<W: io::Write> Events<'_, W> {
    fn output(&mut self, at_us: u64, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.event(at_us, "o", &text.replace('\n', "\r\n"))
    }

    fn missing(&mut self, cue: &Cue<'_>, why: &str) -> io::Result<()> {
        let (len, stream) = (cue.piece.len, stream_word(cue.piece.stream));
        let label = format!("{len} bytes of {stream}: {why}");
        self.event(cue.at_us, "m", &label)
    }

    fn event(&mut self, at_us: u64, code: &str, data: &str) -> io::Result<()> {
        let (seconds, micros) = (at_us / SECOND_US, at_us % SECOND_US);
        let data = ascii_json(&serde_json::to_string(data)?);
        self.written += 1;
        writeln!(self.out, "[{seconds}.{micros:06}, \"{code}\", {data}]")
    }
}

/// Makes text of a stream's bytes as they come: characters may be cut between two pieces.
#[derive(Debug, Default)]
struct Decoder {
    /// The beginning of a character.
    partial: Vec<u8>,
}

impl Decoder {
    fn push(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.partial);
        all.extend_from_slice(bytes);
        let mut out = String::with_capacity(all.len());
        let mut chunks = all.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            out.push_str(chunk.valid());
            let invalid = chunk.invalid();
            if chunks.peek().is_none() && is_beginning(invalid) {
                self.partial = invalid.to_vec();
            } else if !invalid.is_empty() {
                out.push(REPLACED);
            }
        }
        out
    }

    fn finish(&mut self) -> String {
        let partial = std::mem::take(&mut self.partial);
        String::from_utf8_lossy(&partial).into_owned()
    }
}

/// Whether more bytes could make a character of these.
fn is_beginning(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use countersign_protocol::name::AgentName;
    use proptest::prelude::*;

    use super::*;
    use crate::view::Piece;

    fn piece(stream: Stream, offset_us: u64, bytes: &[u8]) -> Piece {
        Piece {
            stream,
            offset_us,
            len: 0,
            bytes: Held::Here(bytes.to_vec().into()),
        }
    }

    fn cast(pieces: &[Piece], max_wait: Option<Duration>) -> String {
        let agent: AgentName = "web-1".parse().unwrap();
        let cues: Vec<Cue<'_>> = pieces
            .iter()
            .map(|piece| Cue {
                at_us: piece.offset_us,
                agent: &agent,
                piece,
            })
            .collect();
        let about = About {
            start: Time::from_micros(1_504_467_315_999_999).unwrap(),
            title: "7K3M-9QPX on web-1: caf\u{e9} \u{202e}",
            max_wait,
        };
        let mut out = Vec::new();
        let written = write(&about, &cues, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(written + 1, text.lines().count() as u64);
        text
    }

    #[test]
    fn a_cast_is_this_file() {
        let mut withheld = piece(Stream::Stderr, 3_000_000, b"");
        withheld.bytes = Held::Withheld;
        withheld.len = 12;
        let pieces = [
            piece(Stream::Stdout, 1, b"one\n\x1b[31mtwo \"\\\x7f\n"),
            piece(Stream::Stderr, 248_848, "caf\u{e9}\n".as_bytes()),
            piece(Stream::Stdout, 1_001_376, b"\xff\xfe."),
            withheld,
            piece(Stream::Stdout, 61_000_000, "\u{1f600}".as_bytes()),
        ];
        let golden = r#"{"version":2,"width":80,"height":24,"timestamp":1504467315,"title":"7K3M-9QPX on web-1: caf\u00e9 \u202e"}
[0.000001, "o", "one\r\n\u001b[31mtwo \"\\\u007f\r\n"]
[0.248848, "o", "caf\u00e9\r\n"]
[1.001376, "o", "\ufffd\ufffd."]
[3.000000, "m", "12 bytes of stderr: not for its reader"]
[61.000000, "o", "\ud83d\ude00"]
"#;
        assert_eq!(cast(&pieces, None), golden);
        let limited = cast(&[], Some(Duration::from_millis(1_500)));
        assert!(limited.contains(r#""idle_time_limit":1.5,"#), "{limited}");
    }

    #[test]
    fn a_character_that_is_cut_between_two_pieces_is_one_and_each_stream_has_its_own() {
        let pieces = [
            piece(Stream::Stdout, 1, b"a\xe2\x82"),
            piece(Stream::Stderr, 2, b"\xac"),
            piece(Stream::Stdout, 3, b"\xac!\xe2"),
        ];
        let text = cast(&pieces, None);
        let events: Vec<&str> = text.lines().skip(1).collect();
        let expected = [
            r#"[0.000001, "o", "a"]"#,
            r#"[0.000002, "o", "\ufffd"]"#,
            r#"[0.000003, "o", "\u20ac!"]"#,
            r#"[0.000003, "o", "\ufffd"]"#,
        ];
        assert_eq!(events, expected);
    }

    proptest! {
        /// However a stream is cut, its text is what its bytes are when read in one piece.
        #[test]
        fn the_text_does_not_depend_on_where_it_is_cut(
            pieces in prop::collection::vec(prop::collection::vec(
                prop::sample::select(vec![b'a', b'\n', 0xe2, 0x82, 0xac, 0xf0, 0x9f, 0x98, 0x80, 0xff]), 0..6), 0..8),
        ) {
            let mut decoder = Decoder::default();
            let mut text: String = pieces.iter().map(|piece| decoder.push(piece)).collect();
            text.push_str(&decoder.finish());
            prop_assert_eq!(text, String::from_utf8_lossy(&pieces.concat()).into_owned());
        }
    }
}
