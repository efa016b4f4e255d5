//! Messages as RFC 5424, and how they stand one after the other on a stream (RFC 6587, RFC 5425).
//!
//! The structured data alone names the entry; the text behind it is JSON in ASCII, so that no byte
//! order mark is needed, which many receivers would take for a part of it.

use std::fmt::Write as _;

use countersign_protocol::checkpoint::Origin;
use serde_json::Value;

use super::message::{Message, Weight, stamp};

/// "Log audit" of RFC 5424.
const FACILITY: u8 = 13;

/// The element of structured data. The number is the one that IANA set aside for documentation
/// (RFC 5612): this project has none of its own.
const ELEMENT: &str = "countersign@32473";

/// Most bytes of a datagram over IPv4.
pub(super) const MAX_DATAGRAM: usize = 65_507;

/// Longest host name in a header.
const MAX_HOST: usize = 255;

/// One message without framing.
pub(super) fn line(message: &Message, origin: &Origin) -> String {
    let mut line = header(message, origin);
    line.push(' ');
    ascii(&message.body, &mut line);
    line
}

/// One message that fits into a datagram: without its text when that is too long. The structured
/// data names the entry, and `cut` says that there was more.
pub(super) fn datagram(message: &Message, origin: &Origin) -> String {
    let whole = line(message, origin);
    if whole.len() <= MAX_DATAGRAM {
        return whole;
    }
    format!("{} {{\"cut\":true}}", header(message, origin))
}

/// One message on a stream: its length, a blank, and it (octet counting).
pub(super) fn frame(message: &Message, origin: &Origin, out: &mut Vec<u8>) {
    let line = line(message, origin);
    out.extend(line.len().to_string().into_bytes());
    out.push(b' ');
    out.extend(line.into_bytes());
}

fn header(message: &Message, origin: &Origin) -> String {
    let severity = match message.weight {
        Weight::Routine => 6,
        Weight::Notable => 5,
        Weight::Bad => 4,
        Weight::Grave => 3,
    };
    // A log's origin is an address without a scheme; its host is the name of the ledger.
    let host = origin.as_str().split('/').next().unwrap_or_default();
    let host: String = host
        .chars()
        .filter(char::is_ascii_graphic)
        .take(MAX_HOST)
        .collect();
    let mut header = format!(
        "<{}>1 {} {} countersign - {} [{ELEMENT}",
        FACILITY * 8 + severity,
        stamp(message.time),
        if host.is_empty() { "-" } else { &host },
        message.kind.as_str(),
    );
    for (name, value) in &message.place {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => value.to_string(),
        };
        let _written = write!(header, " {name}=\"{}\"", parameter(&text));
    }
    header.push(']');
    header
}

/// As RFC 5424 writes values in quotes.
fn parameter(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '"' | '\\' | ']') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// JSON whose other characters are escapes.
fn ascii(value: &Value, out: &mut String) {
    for c in value.to_string().chars() {
        if c.is_ascii() {
            out.push(c);
            continue;
        }
        let mut units = [0; 2];
        for unit in c.encode_utf16(&mut units) {
            let _written = write!(out, "\\u{unit:04x}");
        }
    }
}
