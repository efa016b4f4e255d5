//! What a web page calls, as WebAssembly. No glue is generated: four functions and two buffers.
//!
//! The page asks for room, writes the bundle and the pinned ledger into it, calls `verify` and reads
//! the verdict, all in its own memory; nothing leaves the browser.
#![expect(
    unsafe_code,
    reason = "a page calls functions by name, and the compiler wants that said; no memory is touched here"
)]

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::verify::{Expectations, verify};

/// What the page writes.
static ROOM: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// What the page reads.
static VERDICT: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// A panic ends a page's call and poisons the lock; the next call begins anew.
fn lock(buffer: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    buffer.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Room for so many bytes; where it begins.
#[unsafe(no_mangle)]
pub extern "C" fn countersign_room(len: usize) -> *mut u8 {
    let mut room = lock(&ROOM);
    *room = vec![0; len];
    room.as_mut_ptr()
}

/// Verifies what is in the room: 64 hex digits of the pinned ledger, or as many blanks, and then the
/// bundle. Gives the length of the verdict, a JSON object.
#[unsafe(no_mangle)]
pub extern "C" fn countersign_verify() -> usize {
    let room = std::mem::take(&mut *lock(&ROOM));
    let mut verdict = lock(&VERDICT);
    *verdict = judge(&room).into_bytes();
    verdict.len()
}

/// Where the verdict begins.
#[unsafe(no_mangle)]
pub extern "C" fn countersign_verdict() -> *const u8 {
    lock(&VERDICT).as_ptr()
}

fn judge(room: &[u8]) -> String {
    let refused = |error: String| serde_json::json!({ "error": error }).to_string();
    let Some((pin, bundle)) = room.split_first_chunk::<64>() else {
        return refused("there is no bundle".to_owned());
    };
    let pin = String::from_utf8_lossy(pin);
    let mut expectations = Expectations::default();
    if !pin.trim().is_empty() {
        match pin.parse() {
            Ok(ledger) => expectations.ledger = Some(ledger),
            Err(error) => return refused(format!("the ledger's id: {error}")),
        }
    }
    match verify(bundle, &expectations, &mut |_| {}) {
        Ok(report) => {
            let text = report.to_string();
            let is_suspect = report.is_suspect();
            serde_json::json!({ "report": report, "is_suspect": is_suspect, "text": text })
                .to_string()
        }
        Err(error) => refused(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a page calls it: room, bytes, verdict.
    fn call(bytes: &[u8]) -> serde_json::Value {
        countersign_room(bytes.len());
        lock(&ROOM).copy_from_slice(bytes);
        let len = countersign_verify();
        assert_eq!(countersign_verdict(), lock(&VERDICT).as_ptr());
        let verdict = lock(&VERDICT).clone();
        assert_eq!(verdict.len(), len);
        serde_json::from_slice(&verdict).unwrap()
    }

    #[test]
    fn what_is_no_bundle_gets_a_verdict_or_a_word_and_never_a_crash() {
        assert!(call(b"short")["error"].is_string());
        let bad_pin = [&[b'x'; 64], b"".as_slice()].concat();
        assert!(call(&bad_pin)["error"].is_string());
        let nothing = call(&[b' '; 64]);
        assert_eq!(nothing["report"]["first_bad"]["name"], "cut_off");
    }
}
