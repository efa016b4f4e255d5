//! One integration binary; its folders mirror `src/`.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking; helpers are not covered by allow-unwrap-in-tests"
)]

mod architecture;
