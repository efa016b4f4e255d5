//! The short form of a command's id: 40 bits in Crockford's base32, `XXXX-XXXX`.
//!
//! A typing aid and no proof: two ids may share it, and one that does can be searched for. Whoever
//! acts on it fetches the command, recomputes the whole id and looks at the content.

use alloc::string::String;

use crate::hash::StatementId;

/// Bytes of the id that the short form keeps.
pub const SHORT_BYTES: usize = 5;

/// Crockford's alphabet: no I, L, O or U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The short form of an id.
#[must_use]
pub fn short(id: &StatementId) -> String {
    let bits = id
        .as_bytes()
        .iter()
        .take(SHORT_BYTES)
        .fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    let mut text = String::with_capacity(9);
    for place in (0..8_u32).rev() {
        let digit = usize::try_from(bits >> (place * 5) & 31).unwrap_or_default();
        text.push(char::from(*ALPHABET.get(digit).unwrap_or(&b'0')));
        if place == 4 {
            text.push('-');
        }
    }
    text
}

/// The first bytes of the id that this short form stands for. Case and the hyphen do not matter;
/// O reads as 0, I and L as 1. Nothing when it is no short form.
#[must_use]
pub fn parse(text: &str) -> Option<[u8; SHORT_BYTES]> {
    let mut bits = 0_u64;
    let mut digits = 0;
    for letter in text.bytes().filter(|letter| *letter != b'-') {
        let letter = match letter.to_ascii_uppercase() {
            b'O' => b'0',
            b'I' | b'L' => b'1',
            other => other,
        };
        let digit = ALPHABET.iter().position(|known| *known == letter)?;
        bits = bits << 5 | digit as u64;
        digits += 1;
        if digits > 8 {
            return None;
        }
    }
    let [_, _, _, bytes @ ..] = bits.to_be_bytes();
    (digits == 8).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_form_reads_back_whatever_way_it_is_typed() {
        let mut bytes = [0; 32];
        bytes[..5].copy_from_slice(&[0x00, 0x44, 0x32, 0x14, 0xc7]);
        let id = StatementId::new(bytes);
        assert_eq!(short(&id), "0123-4567");
        assert_eq!(parse("0123-4567"), Some([0x00, 0x44, 0x32, 0x14, 0xc7]));
        assert_eq!(parse("oi23-4567"), parse("01234567"));
    }

    #[test]
    fn what_is_no_short_form_is_none() {
        for text in ["", "0123-456", "0123-45678", "U123-4567", "0123 4567"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
