//! Makes foreign text safe to show. Everything that came from elsewhere passes through here.
//!
//! What leaves this file holds no control character but the line feeds that its caller asked for,
//! no escape sequence, nothing that changes direction or has no width. [`word`] and [`block`] are exact
//! as well: two different words, or texts, never look the same, so that nobody approves the one and gets
//! the other.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

/// Columns of one line of output that a terminal gets; more is counted and not shown.
pub const MAX_COLUMNS: usize = 2_000;

/// Columns after which the text of an approval goes on in a next line.
pub const WRAP_COLUMNS: usize = 120;

/// Stands before the rest of a line that was too long for one, with a blank.
const CONTINUED: char = '\u{21b3}';

/// What an escape of a [`block`] may begin with after its backslash: `\r`, `\t`, `\x1b`, `\u{202e}`.
const ESCAPES: [char; 4] = ['r', 't', 'x', 'u'];

/// Says whether a character may be shown as it is.
#[must_use]
pub fn is_plain(c: char) -> bool {
    let invisible = matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
        | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}'
        | '\u{13430}'..='\u{1345f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e000}'..='\u{f8ff}' | '\u{e0000}'..='\u{e0fff}' | '\u{f0000}'..='\u{10ffff}');
    // Of white space only the plain blank: others look like it, or start a line.
    c == ' ' || !(c.is_control() || c.is_whitespace() || invisible)
}

fn push_escaped(out: &mut String, c: char) {
    let written = match c {
        '\n' => write!(out, "\\n"),
        '\r' => write!(out, "\\r"),
        '\t' => write!(out, "\\t"),
        c if u32::from(c) < 0x80 => write!(out, "\\x{:02x}", u32::from(c)),
        c => write!(out, "\\u{{{:x}}}", u32::from(c)),
    };
    debug_assert!(written.is_ok(), "writing to a String does not fail");
}

/// One line: every character that is not plain, line feeds too, is shown as an escape.
#[must_use]
pub fn line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_plain(c) {
            out.push(c);
        } else {
            push_escaped(&mut out, c);
        }
    }
    out
}

/// One line of at most so many columns; what is cut off is counted.
#[must_use]
pub fn cut(text: &str, columns: usize) -> String {
    let shown = line(text);
    let all = shown.chars().count();
    if all <= columns {
        return shown;
    }
    let kept: String = shown.chars().take(columns).collect();
    format!("{kept}\u{2026} ({} more characters)", all - columns)
}

/// All of a text, or of bytes: line feeds stay, the rest is escaped, bytes that are no UTF-8 as `\xff`,
/// and long lines go on in a marked next one. Exact: backslashes are doubled where they would read as an
/// escape, and only there, and a mark at the beginning of a line is escaped.
#[must_use]
pub fn block(text: impl AsRef<[u8]>, indent: &str) -> String {
    let mut out = String::new();
    for part in text.as_ref().split(|byte| *byte == b'\n') {
        wrap(&mut out, &exact_line(part), indent);
    }
    out
}

/// The same of a text that was made safe already, as words or output are: no escape is put before its
/// escapes.
#[must_use]
pub fn wrapped(shown: &str, indent: &str) -> String {
    let mut out = String::new();
    for part in shown.split('\n') {
        wrap(&mut out, &line(part), indent);
    }
    out
}

fn wrap(out: &mut String, shown: &str, indent: &str) {
    let shown: Vec<char> = shown.chars().collect();
    let mut pieces = shown.chunks(WRAP_COLUMNS);
    out.push_str(indent);
    out.extend(pieces.next().unwrap_or_default());
    out.push('\n');
    for piece in pieces {
        out.push_str(indent);
        out.push(CONTINUED);
        out.push(' ');
        out.extend(piece);
        out.push('\n');
    }
}

/// A line of a [`block`]. A run of backslashes in front of what follows an escape's own, or in front of an
/// escape, is shown twice as long; with an odd number in front of one of [`ESCAPES`] that is an escape,
/// with an even one it is not, and in front of everything else backslashes are themselves.
fn exact_line(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    // Backslashes of the text that stand at the end of what is shown so far.
    let mut slashes = 0;
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            let is_mark = c == CONTINUED && out.is_empty();
            let is_escape = is_mark || !is_plain(c);
            if is_escape || ESCAPES.contains(&c) {
                out.extend(core::iter::repeat_n('\\', slashes));
            }
            slashes = if c == '\\' { slashes + 1 } else { 0 };
            if is_escape {
                push_escaped(&mut out, c);
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            out.extend(core::iter::repeat_n('\\', slashes));
            slashes = 0;
            push_byte(&mut out, *byte);
        }
    }
    out
}

/// A byte that is no part of a character.
fn push_byte(out: &mut String, byte: u8) {
    let written = write!(out, "\\x{byte:02x}");
    debug_assert!(written.is_ok(), "writing to a String does not fail");
}

/// A word as a shell takes it back: bare, in single quotes, or in `$'…'` with escapes. Exact.
#[must_use]
pub fn word(text: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !text.is_empty() && text.chars().all(bare) {
        return text.to_owned();
    }
    if text.chars().all(|c| is_plain(c) && c != '\'') {
        return format!("'{text}'");
    }
    let mut out = String::from("$'");
    for c in text.chars() {
        match c {
            '\\' | '\'' => {
                out.push('\\');
                out.push(c);
            }
            c if is_plain(c) => out.push(c),
            c => push_escaped(&mut out, c),
        }
    }
    out.push('\'');
    out
}

/// Words side by side, each exact.
#[must_use]
pub fn words(words: &[String]) -> String {
    let shown: Vec<String> = words.iter().map(|text| word(text)).collect();
    shown.join(" ")
}

/// Says whether a text has letters that may look like others: told beside it, never hidden.
#[must_use]
pub fn is_foreign(text: &str) -> bool {
    !text.is_ascii()
}

/// Makes a stream of output safe as it comes: characters may be cut anywhere between two pieces.
#[derive(Debug, Default)]
pub struct Escaper {
    partial: Vec<u8>,
    column: usize,
    hidden: usize,
}

impl Escaper {
    /// The next piece, shown. Line feeds stay; bytes that are no UTF-8 become `\xff`.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        let mut out = String::new();
        self.partial.extend_from_slice(bytes);
        let held = core::mem::take(&mut self.partial);
        let mut rest = held.as_slice();
        while !rest.is_empty() {
            let (valid, bad) = match core::str::from_utf8(rest) {
                Ok(valid) => (valid, None),
                Err(error) => {
                    let (valid, _) = rest
                        .split_at_checked(error.valid_up_to())
                        .unwrap_or_default();
                    (
                        core::str::from_utf8(valid).unwrap_or_default(),
                        Some(error.error_len()),
                    )
                }
            };
            self.show(&mut out, valid);
            rest = rest.get(valid.len()..).unwrap_or_default();
            match bad {
                // The character's other bytes have not come yet.
                Some(None) => {
                    self.partial = rest.to_vec();
                    break;
                }
                Some(Some(len)) => rest = self.skip(&mut out, rest, len),
                None => {}
            }
        }
        out
    }

    /// What is left at the end of the stream.
    pub fn finish(&mut self) -> String {
        let mut out = String::new();
        let partial = core::mem::take(&mut self.partial);
        let len = partial.len();
        self.skip(&mut out, &partial, len);
        self.end_line(&mut out);
        out
    }

    fn skip<'a>(&mut self, out: &mut String, bytes: &'a [u8], len: usize) -> &'a [u8] {
        let (bad, rest) = bytes.split_at_checked(len).unwrap_or((bytes, &[]));
        for byte in bad {
            let mut shown = String::new();
            push_byte(&mut shown, *byte);
            self.put(out, &shown);
        }
        rest
    }

    fn show(&mut self, out: &mut String, text: &str) {
        let mut buffer = String::new();
        for c in text.chars() {
            if c == '\n' {
                self.end_line(out);
                out.push('\n');
                self.column = 0;
                continue;
            }
            buffer.clear();
            if is_plain(c) {
                buffer.push(c);
            } else {
                push_escaped(&mut buffer, c);
            }
            self.put(out, &buffer);
        }
    }

    fn put(&mut self, out: &mut String, shown: &str) {
        if self.column >= MAX_COLUMNS {
            self.hidden += 1;
            return;
        }
        self.column += shown.chars().count();
        out.push_str(shown);
    }

    fn end_line(&mut self, out: &mut String) {
        let hidden = core::mem::take(&mut self.hidden);
        if hidden > 0 {
            let written = write!(out, "\u{2026} ({hidden} more characters; --raw shows them)");
            debug_assert!(written.is_ok(), "writing to a String does not fail");
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    fn is_safe(shown: &str) -> bool {
        shown.chars().all(|c| c == '\n' || is_plain(c))
            && !shown
                .bytes()
                .any(|byte| (byte < 0x20 && byte != b'\n') || byte == 0x7f)
    }

    /// Text of the characters that attacks are made of, and some others.
    fn hostile() -> impl Strategy<Value = String> {
        let nasty = prop::sample::select(vec![
            '\u{1b}',
            '\r',
            '\n',
            '\t',
            '\0',
            '\u{7f}',
            '\u{9b}',
            '\u{202e}',
            '\u{200b}',
            '\u{2028}',
            '\u{feff}',
            '\u{e0041}',
            '\\',
            '\'',
            'a',
            ' ',
            'ä',
            '\u{a0}',
        ]);
        prop::collection::vec(prop_oneof![nasty, any::<char>()], 0..60)
            .prop_map(|chars| chars.into_iter().collect())
    }

    /// Bytes that one could take for others when they are shown.
    fn look_alike() -> impl Strategy<Value = Vec<u8>> {
        let long = || vec![b'x'; WRAP_COLUMNS];
        let part = prop_oneof![
            prop::sample::select(vec![
                "\\",
                "\t",
                "t",
                "\r",
                "r",
                "\\t",
                "\u{1b}",
                "x1b",
                "\\x1b",
                "\u{202e}",
                "u{202e}",
                "\n",
                "n",
                "\u{21b3} ",
                "\u{21b3}",
                "u{21b3}",
                " ",
                "\u{e9}",
                "ff",
            ])
            .prop_map(|text| text.as_bytes().to_vec()),
            Just(vec![0xff]),
            Just(vec![0xc3]),
            (0..3_usize).prop_map(move |less| long().split_off(less)),
            hostile().prop_map(String::into_bytes),
        ];
        prop::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
    }

    /// What a reader takes a block for.
    fn read_back(shown: &str, indent: &str) -> Vec<u8> {
        let mut lines: Vec<String> = Vec::new();
        for shown in shown.strip_suffix('\n').unwrap().split('\n') {
            let shown = shown.strip_prefix(indent).unwrap();
            match shown.strip_prefix("\u{21b3} ") {
                Some(rest) => lines.last_mut().unwrap().push_str(rest),
                None => lines.push(shown.to_owned()),
            }
        }
        let lines: Vec<Vec<u8>> = lines.iter().map(|line| read_line(line)).collect();
        lines.join(&b'\n')
    }

    fn read_line(mut rest: &str) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(c) = rest.chars().next() {
            let after = rest.trim_start_matches('\\');
            let slashes = rest.len() - after.len();
            let is_special = after.starts_with(ESCAPES);
            if slashes == 0 {
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &rest[c.len_utf8()..];
                continue;
            }
            out.extend(vec![b'\\'; if is_special { slashes / 2 } else { slashes }]);
            rest = after;
            if !is_special || slashes.is_multiple_of(2) {
                continue;
            }
            if let Some(after) = rest.strip_prefix("u{") {
                let (digits, after) = after.split_once('}').unwrap();
                let c = char::from_u32(u32::from_str_radix(digits, 16).unwrap()).unwrap();
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                rest = after;
            } else if let Some(after) = rest.strip_prefix('x') {
                out.push(u8::from_str_radix(&after[..2], 16).unwrap());
                rest = &after[2..];
            } else {
                out.push(if rest.starts_with('t') { b'\t' } else { b'\r' });
                rest = &rest[1..];
            }
        }
        out
    }

    proptest! {
        #[test]
        fn nothing_shown_holds_a_raw_control_character(text in hostile(), len in 0..40_usize) {
            prop_assert!(!line(&text).contains('\n') && is_safe(&line(&text)));
            prop_assert!(!word(&text).contains('\n') && is_safe(&word(&text)));
            prop_assert!(is_safe(&cut(&text, len)));
            prop_assert!(is_safe(&block(&text, "  ")));
            prop_assert!(is_safe(&wrapped(&text, "  ")));
        }

        #[test]
        fn a_stream_is_safe_and_the_same_however_it_is_cut(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            text in hostile(),
            at in 0..200_usize,
        ) {
            let bytes = [bytes, text.into_bytes()].concat();
            let mut whole = Escaper::default();
            let expected = whole.push(&bytes) + &whole.finish();
            prop_assert!(is_safe(&expected));
            let (first, second) = bytes.split_at(at.min(bytes.len()));
            let mut parts = Escaper::default();
            let shown = parts.push(first) + &parts.push(second) + &parts.finish();
            prop_assert_eq!(shown, expected);
        }

        /// It can be read back, so no two are shown alike.
        #[test]
        fn two_different_texts_never_look_the_same(a in look_alike(), b in look_alike()) {
            for indent in ["", "    "] {
                prop_assert_eq!(&read_back(&block(&a, indent), indent), &a);
                prop_assert_eq!(a == b, block(&a, indent) == block(&b, indent));
            }
        }

        #[test]
        fn two_different_words_never_look_the_same(a in hostile(), b in hostile()) {
            prop_assert_eq!(a == b, word(&a) == word(&b));
        }
    }

    #[test]
    fn escapes_read_as_what_they_are() {
        assert_eq!(line("a\u{1b}[2Jb\r\u{202e}c"), "a\\x1b[2Jb\\r\\u{202e}c");
        assert_eq!(word("a b"), "'a b'");
        assert_eq!(word("a\nb"), "$'a\\nb'");
        assert_eq!(word("a\\nb"), "'a\\nb'");
        assert_eq!(word(""), "''");
        assert_eq!(cut("abcdef", 3), "abc\u{2026} (3 more characters)");
    }

    #[test]
    fn a_usual_script_is_shown_as_it_is_and_what_could_be_taken_for_another_is_not() {
        let usual = "printf '%s\\n' \"$HOME\\\"\" | sed 's/\\\\/\\//' \\\n    | grep '\\.\\(a\\)'";
        assert_eq!(block(usual, ""), usual.to_owned() + "\n");
        assert_eq!(block("a\tb", ""), "a\\tb\n");
        assert_eq!(block("a\\tb", ""), "a\\\\tb\n");
        assert_eq!(block("\\\u{1b}", ""), "\\\\\\x1b\n");
        let first = "x".repeat(WRAP_COLUMNS);
        let (one, two) = (first.clone() + "rm", first + "\n\u{21b3} rm");
        assert!(block(one, "").ends_with("\n\u{21b3} rm\n"));
        assert!(block(two, "").ends_with("\n\\u{21b3} rm\n"));
        assert_eq!(block(b"\xff", ""), "\\xff\n");
        assert_eq!(wrapped(&word("a\tb c"), ""), word("a\tb c") + "\n");
    }

    #[test]
    fn a_line_of_ten_thousand_columns_is_cut_and_counted_or_goes_on_marked() {
        let long = "x".repeat(10_000);
        let mut escaper = Escaper::default();
        let shown = escaper.push(long.as_bytes()) + &escaper.push(b"\nnext\n");
        assert!(shown.contains("(8000 more characters"));
        assert!(shown.ends_with("\nnext\n"));
        let whole = block(&long, "");
        assert_eq!(whole.matches('x').count(), 10_000);
        assert!(
            whole
                .lines()
                .all(|line| line.chars().count() <= WRAP_COLUMNS + 2)
        );
    }
}
