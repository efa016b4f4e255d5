//! The server. Not built yet.
