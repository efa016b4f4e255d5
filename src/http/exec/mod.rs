//! One call for the holders of API tokens: a command, or a line for a shell, on hosts that are named.
//!
//! ```text
//! calls      the endpoints, and what they answer
//! body       what a call says
//! asked      that, checked and frozen into what is signed; compared under a known id
//! identity   a caller's own id of a command
//! ```
//!
//! The gateway's key signs the request in the name of the token's principal, and the statement says
//! so. It is judged, approved and run like every other; the server runs nothing. `docs/API.md`
//! shows calls.

mod asked;
mod body;
pub(super) mod calls;
mod identity;
