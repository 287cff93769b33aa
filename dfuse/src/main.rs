//! The `dfuse` command.
fn main() {}
