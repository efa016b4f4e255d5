//! Server-sent events: bytes of the stream in, events out. Bounded; knows no socket.

/// Largest event: one request body with its blobs, and the room that framing takes.
pub const MAX_EVENT_BYTES: usize = 2 * countersign_protocol::api::MAX_BODY_BYTES;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerEvent {
    /// Its name: `entry`.
    pub event: String,
    /// The id to go on after: the entry's seq.
    pub id: Option<u64>,
    /// Its data.
    pub data: String,
}

/// The stream holds an event larger than any that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is larger than {MAX_EVENT_BYTES} bytes")]
pub struct TooLarge;

/// Cuts a stream into events, whatever way its bytes come.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    event: ServerEvent,
    size: usize,
    has_data: bool,
}

impl Parser {
    /// Takes the next bytes and gives the events that they complete.
    ///
    /// # Errors
    /// [`TooLarge`]; the stream is of no more use then.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<ServerEvent>, TooLarge> {
        let mut events = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.size += part.len();
            if self.size > MAX_EVENT_BYTES {
                return Err(TooLarge);
            }
            self.line.extend_from_slice(part);
            if self.line.pop_if(|byte| *byte == b'\n').is_some() {
                self.line.pop_if(|byte| *byte == b'\r');
                let line = std::mem::take(&mut self.line);
                events.extend(self.end_of_line(&String::from_utf8_lossy(&line)));
            }
        }
        Ok(events)
    }

    fn end_of_line(&mut self, line: &str) -> Option<ServerEvent> {
        if line.is_empty() {
            self.size = 0;
            let event = std::mem::take(&mut self.event);
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event.event = value.to_owned(),
            "id" => self.event.id = value.parse().ok(),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // A comment (its field is empty) or a field that we do not know.
            _other => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b": ping\n\nevent: entry\nid: 7\ndata: {\"a\":1}\n\ndata: x\r\ndata:y\r\n\r\n";

    #[test]
    fn events_are_the_same_whatever_way_the_bytes_come() {
        let whole = Parser::default().push(STREAM).unwrap();
        let mut parser = Parser::default();
        let single: Vec<_> = STREAM
            .iter()
            .flat_map(|byte| parser.push(&[*byte]).unwrap())
            .collect();
        assert_eq!(whole, single);
        assert_eq!(whole[0].id, Some(7));
        assert_eq!(whole[0].event, "entry");
        assert_eq!(whole[0].data, "{\"a\":1}");
        assert_eq!(whole[1].data, "x\ny");
        assert_eq!(whole.len(), 2);
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = Parser::default();
        let chunk = vec![b'x'; MAX_EVENT_BYTES];
        assert!(parser.push(&chunk).is_ok());
        assert_eq!(parser.push(b"x"), Err(TooLarge));
    }
}
