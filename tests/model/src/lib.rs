//! Oracles with an opinion of their own: a target made of sorted maps, and what runs the real ones against it.
#![forbid(unsafe_code)]

pub mod posix;
mod serve;
mod target;

pub use serve::{spawn_model, spawn_model_refusing};
pub use target::ModelTarget;
