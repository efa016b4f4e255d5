//! The strict JSON profile of payloads and documents: every value has exactly one legal encoding.
//! PROTOCOL 1.
//!
//! The profile is RFC 8785 (JCS) without its loose parts: integers only, no null, keys
//! `[a-z0-9_]+`, bounded depth and size. [`check_payload`] and [`check_document`] accept the one
//! encoding and nothing else; the `from_` functions check and then parse the same bytes.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::name::MAX_INTEGER;

/// Largest payload in bytes: with its signature it stays an entry of at most 32 KiB.
pub const MAX_PAYLOAD_BYTES: usize = 16 * 1024;

/// Deepest nesting: no shape of ours needs more, and a parser's stack stays small.
pub const MAX_DEPTH: usize = 8;

/// Why bytes are not canonical. `at` is the offset of the byte that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// More bytes than allowed.
    #[error("{len} bytes where at most {max} are allowed")]
    TooLarge {
        /// How many there are.
        len: usize,
        /// How many may be.
        max: usize,
    },
    /// Not UTF-8.
    #[error("byte {at} is not UTF-8")]
    Utf8 {
        /// Where.
        at: usize,
    },
    /// Something else than the grammar wants here, white space and null included.
    #[error("byte {at}: expected {expected}")]
    Expected {
        /// Where.
        at: usize,
        /// What should stand there.
        expected: &'static str,
    },
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("byte {at}: nested deeper than 8")]
    TooDeep {
        /// Where.
        at: usize,
    },
    /// A number that is no integer, is too large, or is spelled in a second way.
    #[error(
        "byte {at}: a number is an integer of at most 2^53-1, without sign, zeros or exponent that it does not need"
    )]
    Number {
        /// Where.
        at: usize,
    },
    /// A string spelled in a second way.
    #[error("byte {at}: a string in other than its one legal spelling")]
    String {
        /// Where.
        at: usize,
    },
    /// A key that stands twice, out of order, or is none of `[a-z0-9_]+`.
    #[error("byte {at}: keys are of a-z, 0-9 and _, sorted, each once")]
    Key {
        /// Where.
        at: usize,
    },
    /// Bytes follow the end.
    #[error("byte {at}: bytes follow the end")]
    Trailing {
        /// Where.
        at: usize,
    },
    /// Canonical, but not what is wanted here.
    #[error("not the expected shape: {0}")]
    Shape(String),
}

/// Reads canonical JSON off a text, keeping nothing.
struct Checker<'a> {
    text: &'a str,
    at: usize,
}

impl Checker<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), CanonicalError> {
        if self.peek() != Some(byte) {
            return Err(CanonicalError::Expected {
                at: self.at,
                expected,
            });
        }
        self.at += 1;
        Ok(())
    }

    fn word(&mut self, word: &str) -> Result<(), CanonicalError> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word) {
            return Err(CanonicalError::Expected {
                at: self.at,
                expected: "a value",
            });
        }
        self.at += word.len();
        Ok(())
    }

    fn value(&mut self, depth: usize) -> Result<(), CanonicalError> {
        match self.peek() {
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => self.string(),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _other => Err(CanonicalError::Expected {
                at: self.at,
                expected: "a value: object, array, string, integer, true or false",
            }),
        }
    }

    fn enter(&mut self, depth: usize) -> Result<(), CanonicalError> {
        if depth > MAX_DEPTH {
            return Err(CanonicalError::TooDeep { at: self.at });
        }
        self.at += 1;
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Result<(), CanonicalError> {
        self.enter(depth)?;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        let mut last = "";
        loop {
            let key_at = self.at;
            self.string()?;
            let key = self.text.get(key_at + 1..self.at - 1).unwrap_or_default();
            let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            if key.is_empty() || !key.bytes().all(legal) || key <= last {
                return Err(CanonicalError::Key { at: key_at });
            }
            last = key;
            self.expect(b':', "':'")?;
            self.value(depth)?;
            if self.peek() != Some(b',') {
                return self.expect(b'}', "',' or '}'");
            }
            self.at += 1;
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), CanonicalError> {
        self.enter(depth)?;
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth)?;
            if self.peek() != Some(b',') {
                return self.expect(b']', "',' or ']'");
            }
            self.at += 1;
        }
    }

    fn number(&mut self) -> Result<(), CanonicalError> {
        let begin = self.at;
        let malformed = CanonicalError::Number { at: begin };
        while matches!(
            self.peek(),
            Some(b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')
        ) {
            self.at += 1;
        }
        let text = self.text.get(begin..self.at).unwrap_or_default();
        let number: i64 = text.parse().map_err(|_| malformed.clone())?;
        // One spelling: printing it again gives the same text (no "-0", no "007", no "+1").
        let digits = text.strip_prefix('-').unwrap_or(text);
        let has_one_spelling = text == "0" || matches!(digits.as_bytes(), [b'1'..=b'9', ..]);
        if number.unsigned_abs() > MAX_INTEGER || !has_one_spelling {
            return Err(malformed);
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), CanonicalError> {
        self.expect(b'"', "a string")?;
        loop {
            let at = self.at;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(0..=0x1f) | None => return Err(CanonicalError::String { at }),
                Some(_) => self.at += 1,
            }
        }
    }

    /// An escape that RFC 8785 demands; every other character stands for itself.
    fn escape(&mut self) -> Result<(), CanonicalError> {
        let begin = self.at;
        let rest = self.text.as_bytes().get(begin + 1..).unwrap_or_default();
        let len = match rest {
            [b'"' | b'\\' | b'b' | b't' | b'n' | b'f' | b'r', ..] => 2,
            [b'u', b'0', b'0', high @ (b'0' | b'1'), low, ..] => {
                let short = *high == b'0' && matches!(low, b'8' | b'9' | b'a' | b'c' | b'd');
                let hex = matches!(low, b'0'..=b'9' | b'a'..=b'f');
                if short || !hex {
                    return Err(CanonicalError::String { at: begin });
                }
                6
            }
            _other => return Err(CanonicalError::String { at: begin }),
        };
        self.at += len;
        Ok(())
    }
}

fn check(bytes: &[u8], max: usize, object_only: bool) -> Result<(), CanonicalError> {
    if bytes.len() > max {
        return Err(CanonicalError::TooLarge {
            len: bytes.len(),
            max,
        });
    }
    let text = core::str::from_utf8(bytes).map_err(|error| CanonicalError::Utf8 {
        at: error.valid_up_to(),
    })?;
    let mut checker = Checker { text, at: 0 };
    match checker.peek() {
        Some(b'{') => {}
        Some(b'[') if !object_only => {}
        _other => {
            return Err(CanonicalError::Expected {
                at: 0,
                expected: "'{' as the first byte",
            });
        }
    }
    checker.value(0)?;
    if checker.at != text.len() {
        return Err(CanonicalError::Trailing { at: checker.at });
    }
    Ok(())
}

/// Says whether bytes are a legal payload: an object, at most [`MAX_PAYLOAD_BYTES`].
///
/// # Errors
/// The first byte that is wrong, and why.
pub fn check_payload(bytes: &[u8]) -> Result<(), CanonicalError> {
    check(bytes, MAX_PAYLOAD_BYTES, true)
}

/// Says whether bytes are a legal document: an object or array of at most `max` bytes.
///
/// # Errors
/// The first byte that is wrong, and why.
pub fn check_document(bytes: &[u8], max: usize) -> Result<(), CanonicalError> {
    check(bytes, max, false)
}

fn shape<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CanonicalError> {
    serde_json::from_slice(bytes).map_err(|error| CanonicalError::Shape(error.to_string()))
}

/// Checks a payload, then parses the same bytes. `T` should deny unknown fields.
///
/// # Errors
/// Not canonical, or not `T`'s shape.
pub fn from_payload<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CanonicalError> {
    check_payload(bytes)?;
    shape(bytes)
}

/// Checks a document, then parses the same bytes. `T` should deny unknown fields.
///
/// # Errors
/// Not canonical, or not `T`'s shape.
pub fn from_document<T: DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, CanonicalError> {
    check_document(bytes, max)?;
    shape(bytes)
}

/// The one legal encoding of a value. Its size is the caller's to check.
///
/// # Errors
/// The value has a null, a float, a large integer, an illegal key, or nests too deep.
pub fn to_vec<T: Serialize>(value: &T) -> Result<Vec<u8>, CanonicalError> {
    let value =
        serde_json::to_value(value).map_err(|error| CanonicalError::Shape(error.to_string()))?;
    let mut out = Vec::new();
    write(&mut out, &value);
    check_document(&out, usize::MAX)?;
    Ok(out)
}

/// Writes a value with sorted keys. What the profile forbids is caught by the check afterwards.
fn write(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            out.extend_from_slice(value.to_string().as_bytes());
        }
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(out, item);
            }
            out.push(b']');
        }
        Value::Object(map) => {
            // serde_json's own order depends on a feature that any crate may switch on.
            let mut fields: Vec<_> = map.iter().collect();
            fields.sort_by_key(|(key, _)| key.as_str());
            out.push(b'{');
            for (index, (key, item)) in fields.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_string(out, key);
                out.push(b':');
                write(out, item);
            }
            out.push(b'}');
        }
    }
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0..=0x1f => out.extend_from_slice(alloc::format!("\\u{byte:04x}").as_bytes()),
            _plain => out.push(byte),
        }
    }
    out.push(b'"');
}
