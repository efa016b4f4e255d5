//! The `countersign-agent` binary. Not built yet.

fn main() {}
