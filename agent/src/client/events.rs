//! Server-sent events: bytes in whatever pieces they come, whole events out.
//!
//! Knows `event:`, `data:`, comments and all three line ends; `id:` and `retry:` are not used here.

use std::mem;

/// Largest event: a grant with a full standard input, environment and command spec in base64.
pub(super) const MAX_EVENT_BYTES: usize = 24 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerEvent {
    /// Its type; `message` when the server gave none.
    pub kind: String,
    /// Its data lines, joined by newlines.
    pub data: String,
}

/// An event is larger than any that is meant for an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server sent an event larger than {0} bytes")]
pub struct Oversize(usize);

/// Puts events together from pieces of a stream.
#[derive(Debug)]
pub struct EventParser {
    limit: usize,
    line: Vec<u8>,
    /// The last byte was a carriage return, so a newline that follows belongs to it.
    after_return: bool,
    kind: String,
    /// Its data lines so far, joined: a line of its own for each would cost more than its bytes.
    data: Option<String>,
}

impl Default for EventParser {
    fn default() -> Self {
        Self::with_limit(MAX_EVENT_BYTES)
    }
}

impl EventParser {
    /// A parser that refuses events of more than `limit` bytes.
    #[must_use]
    pub const fn with_limit(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            after_return: false,
            kind: String::new(),
            data: None,
        }
    }

    /// Takes a piece and gives the events that it completes.
    ///
    /// # Errors
    /// [`Oversize`] once an unfinished event passes the limit; the stream is then of no use.
    pub fn push(&mut self, mut piece: &[u8]) -> Result<Vec<ServerEvent>, Oversize> {
        let mut events = Vec::new();
        while let Some((byte, rest)) = piece.split_first() {
            if mem::take(&mut self.after_return) && *byte == b'\n' {
                piece = rest;
                continue;
            }
            let end = piece.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let (text, rest) = piece.split_at(end.unwrap_or(piece.len()));
            if self.held() + self.line.len() + text.len() > self.limit {
                return Err(Oversize(self.limit));
            }
            self.line.extend_from_slice(text);
            piece = rest;
            if let Some((end, rest)) = rest.split_first() {
                self.after_return = *end == b'\r';
                piece = rest;
                events.extend(self.end_of_line());
            }
        }
        Ok(events)
    }

    /// Bytes of the unfinished event that are kept.
    fn held(&self) -> usize {
        self.kind.len() + self.data.as_ref().map_or(0, String::len)
    }

    fn end_of_line(&mut self) -> Option<ServerEvent> {
        let line = mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        if line.is_empty() {
            let (kind, data) = (mem::take(&mut self.kind), self.data.take());
            let kind = if kind.is_empty() {
                "message".to_owned()
            } else {
                kind
            };
            return data.map(|data| ServerEvent { kind, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.kind),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            _comment_or_unused => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b": hello\n\nevent: work\nid: 7\ndata: {\"a\":\ndata: 1}\n\r\ndata:x\r\r\nevent: none\n\n";

    fn events() -> Vec<ServerEvent> {
        let event = |kind: &str, data: &str| ServerEvent {
            kind: kind.into(),
            data: data.into(),
        };
        vec![event("work", "{\"a\":\n1}"), event("message", "x")]
    }

    #[test]
    fn any_cutting_gives_the_same_events() {
        for size in 1..=STREAM.len() {
            let mut parser = EventParser::default();
            let mut heard = Vec::new();
            for piece in STREAM.chunks(size) {
                heard.extend(parser.push(piece).unwrap());
            }
            assert_eq!(heard, events(), "in pieces of {size}");
        }
    }

    #[test]
    fn an_event_over_the_limit_is_refused_in_one_line_or_many() {
        let mut parser = EventParser::with_limit(64);
        assert!(parser.push(&[b'x'; 64]).is_ok());
        assert!(parser.push(b"x").is_err());
        let mut parser = EventParser::with_limit(64);
        let lines = b"data: 0123456789\n".repeat(6);
        assert!(parser.push(&lines).is_err());
    }

    #[test]
    fn lines_without_content_cost_no_more_memory_than_is_counted() {
        let mut parser = EventParser::with_limit(1 << 20);
        let lines = b"data\n".repeat(1 << 19);
        assert_eq!(parser.push(&lines), Ok(vec![]));
        assert_eq!(parser.held(), (1 << 19) - 1);
        let kept = parser.data.as_ref().unwrap().capacity();
        assert!(kept <= 1 << 20, "{kept}");
        let event = parser.push(b"\n").unwrap().remove(0);
        assert_eq!(event.data, "\n".repeat((1 << 19) - 1));
        assert!(parser.push(&b"data\n".repeat((1 << 20) + 2)).is_err());
        // A name counts as well.
        let mut parser = EventParser::with_limit(64);
        assert!(
            parser
                .push(format!("event:{}\n", "x".repeat(50)).as_bytes())
                .is_ok()
        );
        assert!(parser.push(&[b'y'; 15]).is_err());
    }

    #[test]
    fn the_limit_is_for_each_event_not_for_the_stream() {
        let mut parser = EventParser::with_limit(64);
        for _ in 0..100 {
            assert_eq!(parser.push(b"data: 0123456789\n\n").unwrap().len(), 1);
        }
    }
}
