//! Events out to the world: SIEMs and webhooks hear of each entry at least once, in its order.
//!
//! What goes out is a copy, and the log is the proof: each message names the entry that it tells of.
//! The room reads the store on connections of its own and cannot append; a receiver that is down,
//! slow or hostile delays its own sink and nothing else.
//!
//! | file | what |
//! |---|---|
//! | `config`, `parse` | what a sink is; the file of sinks, parsed once |
//! | `secret` | signing secrets, and addresses that are one |
//! | `gather` | entries of a page, with what is known of their commands |
//! | `message` | an entry as a message: the `event` format, and one sentence |
//! | `ocsf` | the same as OCSF |
//! | `syslog` | the same as RFC 5424, and its framing |
//! | `outlet` | one receiver: delivered, or why not |
//! | `file`, `wire`, `webhook` | the three kinds of receiver |
//! | `cursor` | how far a sink is, and who feeds it |
//! | `follow` | a sink's task: follow, deliver, move the cursor, wait after trouble |
//! | `standing` | what operators see of it |
//! | `print` | messages on a writer, to try things |

mod config;
mod cursor;
mod file;
mod follow;
mod gather;
mod message;
mod ocsf;
mod outlet;
mod parse;
mod print;
mod secret;
mod standing;
mod syslog;
mod webhook;
mod wire;

pub use config::{Begin, ConfigError, FeedConfig, Format, Kinds, Receiver, SinkConfig, SinkName};
pub use follow::{Feed, Source};
pub use print::{PrintError, Printing, print};
pub use secret::{SecretError, Secrets};
pub use standing::{SinkReport, Standing, State};
