//! The B+tree: an ordered map of byte keys in metadata buckets. `node` is one bucket, `tree` what holds them together,
//! `check` proves the invariants of both.
//!
//! # Not here
//! What keys and values mean (`object`, and the semantics above it); residence, logging and undo of buckets (the arena).

mod check;
mod cut;
mod finger;
mod leaf;
mod node;
mod tree;

pub use check::{Reached, TreeCheck, TreeCounts};
pub use finger::Fingers;
pub use leaf::Way;
pub(crate) use node::empty_leaf;
pub(crate) use tree::check_sizes;
pub use tree::{Tree, TreeEdit, TreeView};

#[cfg(test)]
mod tests;
