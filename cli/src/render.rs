//! Foreign text as it is shown: the protocol's rules for what may reach a screen, and times for
//! people. Everything that came from elsewhere passes through here.

use std::fmt::Write as _;

use countersign_protocol::name::Time;
pub use countersign_protocol::visible::{
    Escaper, MAX_COLUMNS, WRAP_COLUMNS, block, cut, is_foreign, is_plain, line, word, words,
    wrapped,
};

/// A JSON text that a terminal may get: what is not plain in its strings is escaped there, as JSON has
/// it. It says the same.
#[must_use]
pub fn json(text: &str) -> String {
    json_escaped(text, is_plain)
}

/// The same with everything beyond printable ASCII escaped.
#[must_use]
pub fn ascii_json(text: &str) -> String {
    json_escaped(text, |c| c.is_ascii() && c != '\u{7f}')
}

/// No syntax of JSON is beyond ASCII, and its strings hold no lower control character: what is left to
/// escape stands in strings.
fn json_escaped(text: &str, stays: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if stays(c) {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            let written = write!(out, "\\u{unit:04x}");
            debug_assert!(written.is_ok(), "writing to a String does not fail");
        }
    }
    out
}

/// A time for people: UTC, to the second.
#[must_use]
pub fn time(time: Time) -> String {
    let micros = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_microsecond(micros).map_or_else(
        |_| format!("{} us", time.as_micros()),
        |stamp| stamp.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Escaping changes no text, and leaves nothing that commands a terminal.
        #[test]
        fn json_that_is_escaped_reads_as_it_was(text in "\\PC*|.*|[\\x00-\\x1f\\x7f-\\u{9f}\\u{202a}-\\u{202e}\\u{feff}\\u{e0001}a\"]*") {
            let json = serde_json::to_string(&text).unwrap();
            let (ascii, shown) = (ascii_json(&json), self::json(&json));
            prop_assert!(ascii.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
            prop_assert!(shown.chars().all(is_plain));
            for escaped in [ascii, shown] {
                prop_assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text.clone());
            }
        }
    }

    #[test]
    fn json_for_a_terminal_keeps_letters_and_escapes_controls() {
        assert_eq!(
            json("{\"a\":\"caf\u{e9} \u{9b}2J\u{202e}\u{7f}\u{e0041}\"}"),
            r#"{"a":"café \u009b2J\u202e\u007f\udb40\udc41"}"#
        );
    }
}
