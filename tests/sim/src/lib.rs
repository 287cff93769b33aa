//! The whole stack, from a filesystem call to the blocks of a device, in one thread and from one seed.
//!
//! `tree` says what a filesystem holds, `workload` changes it at random, `machine` is a store on a device that can lose
//! power. What must hold is in `tests/`.
#![forbid(unsafe_code)]

pub mod machine;
pub mod tree;
pub mod workload;
