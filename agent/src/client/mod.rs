//! The client room: the only code of the agent that talks to the server.
//!
//! | file | owns |
//! |---|---|
//! | `http` | requests, sessions, limits, which errors are worth another try |
//! | `events` | the event stream: bytes into events, with caps |
//! | `tls` | whom connections trust, and the words for what fails in TLS |
//! | `backoff` | how long to wait between tries |
//!
//! What arrives here is words of a party that is not trusted: shapes are checked, nothing else.

mod backoff;
mod events;
mod http;
mod tls;

pub use backoff::Backoff;
pub use events::{EventParser, Oversize, ServerEvent};
pub use http::{Client, ClientError, SignIn, WorkStream};
pub use tls::{Ca, is_this_machine};
