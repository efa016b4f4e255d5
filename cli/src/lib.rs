//! The client verbs. Not built yet.
