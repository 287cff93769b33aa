//! One thread with its own executor: tasks, poll loop, clock, random numbers, mailboxes; and a simulated twin.
//!
//! A target is one xstream. What runs on it is `!Send` and takes no locks; other threads reach it only through a
//! [`Mailbox`] or a [`oneshot`], and, if it lends its turn while it sleeps ([`Lending`]), run it for a moment
//! themselves ([`Guest`]), one at a time. Code gets time, randomness and tasks from the [`Handle`] that it is given, so that
//! the same code runs under [`sim`] from a seed.

mod clock;
mod executor;
mod guest;
mod handle;
mod mailbox;
pub mod oneshot;
mod random;
pub mod sim;
mod stage;
pub mod sync;
mod thread;
mod timer;
mod turn;
mod wake;

pub use guest::{GUEST_US_MAX, Guest};
pub use handle::{Handle, Sleep, Task, YieldNow};
pub use mailbox::{Inbox, Mailbox, Refused, mailbox};
pub use random::Random;
pub use stage::{Stage, Trace, Traced};
pub use thread::{JoinHandle, Poll, Xstream, XstreamConfig};
pub use turn::Lending;
