//! The `countersign` binary. Not built yet.

fn main() {}
