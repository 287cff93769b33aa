//! Calls between two processes of one host, through memory that they share: a few slots, each for one call with its data.
//!
//! The server makes the memory for one client and hands it over. A client takes a free slot, writes its request there, sets the slot's bit
//! in the word of ready ones, rings (however the two have agreed) if the server sleeps, and waits in the slot.
//!
//! # Invariants
//! 1. A slot's state goes FREE > CLAIMED > REQUESTED > SERVING > ANSWERED > FREE; the client makes the first three steps and the last, the
//!    server the others. So the slots are the credits: a client without a free one waits, or does without.
//! 2. Neither side trusts the other: what is read from the memory is copied before it is looked at, lengths are cut to the room that there is,
//!    a slot in a wrong state is passed over.
//! 3. Who goes to sleep says so first and then looks once more; who has something for him sets it first and then looks whether he
//!    sleeps. So no wake is lost.
//!
//! # On the wire
//! FORMAT.md.
//!
//! # Not here
//! What a body means; who may connect (the server's socket).

mod client;
mod layout;
mod region;
mod server;
mod wait;

pub use client::{Client, Lost, Slot};
pub use layout::{BODY_BYTES_MAX, DATA_BYTES_MAX, SLOTS_MAX, Shape, VERSION, WORDS};
pub use server::{Server, Taken};
pub use wait::Patience;

use std::sync::atomic::AtomicU32;

use layout::STATE_AT;
use region::Region;

const FREE: u32 = 0;
const CLAIMED: u32 = 1;
const REQUESTED: u32 = 2;
const SERVING: u32 = 3;
const ANSWERED: u32 = 4;
/// Beside REQUESTED and SERVING: the client sleeps until it is answered.
const WAITING: u32 = 1 << 8;

/// The server's word.
const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;
const GONE: u32 = 2;

fn state(region: &Region, slot: usize) -> &AtomicU32 {
    region.word(Shape::slot_at(slot) + STATE_AT)
}

#[cfg(test)]
mod tests;
