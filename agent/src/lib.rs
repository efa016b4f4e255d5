//! The agent: runs on a host what its people have signed. Not built yet.
