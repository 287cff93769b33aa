//! What a transaction will most likely need, told from the request alone: that of a write to where nothing is yet, over
//! whole blocks, or on from where the last write of the array ended (`tail.rs`).
//!
//! A guess is a plan that costs no look at the store. The commit proves it as it proves a plan, need by need; if it was
//! wrong, the transaction is planned, and the next ones on that object are planned at once.
//!
//! # Invariants
//! 1. A guess depends on nothing that is read from the store, so it needs no lock. It stands back where somebody holds or waits for one:
//!    guesses do not overtake a plan for ever.

use std::cell::Cell;

use daos_types::rpc::Op;
use daos_types::{BLOCK_BYTES, ContainerId, ObjectId};
use smallvec::SmallVec;

use crate::record::{BLOCK, INLINE_BYTES_MAX, Span};
use crate::supply::{Base, Need};
use crate::tail::Tails;

/// Objects that are remembered for a wrong guess.
const UNLIKE_MAX: usize = 64;

/// The objects where a guess was wrong last time, each in the place of its hash.
pub(crate) struct Guesses([Cell<Option<ObjectId>>; UNLIKE_MAX]);

impl Default for Guesses {
    fn default() -> Self {
        Self([const { Cell::new(None) }; UNLIKE_MAX])
    }
}

impl Guesses {
    /// The needs of these operations if nothing surprising is stored; `None`: no guess.
    pub fn needs(&self, container: ContainerId, ops: &[Op], tails: &Tails) -> Option<Vec<Need>> {
        if ops.iter().filter_map(array_of).any(|object| self.place(object).get() == Some(object)) {
            return None;
        }
        let mut needs = Vec::with_capacity(ops.len());
        for (op, operation) in ops.iter().enumerate() {
            needs.extend(guess(container, op, operation, tails)?);
        }
        Some(needs)
    }

    /// The guess about these operations was wrong.
    pub fn failed(&self, ops: &[Op]) {
        for object in ops.iter().filter_map(array_of) {
            self.place(object).set(Some(object));
        }
    }

    /// Planned, these operations had these needs: perhaps the next ones can be guessed again.
    pub fn planned(&self, container: ContainerId, ops: &[Op], tails: &Tails, needs: &[Need]) {
        for object in ops.iter().filter_map(array_of) {
            let place = self.place(object);
            if place.get() == Some(object) {
                place.set(None);
                if self.needs(container, ops, tails).as_deref() != Some(needs) {
                    place.set(Some(object));
                }
            }
        }
    }

    fn place(&self, object: ObjectId) -> &Cell<Option<ObjectId>> {
        let mixed = (object.hi ^ object.lo).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.0[(mixed >> 58) as usize]
    }
}

const _: () = assert!(UNLIKE_MAX == 1 << (64 - 58));

fn array_of(op: &Op) -> Option<ObjectId> {
    match op {
        Op::UpdateArray { key, .. } => Some(key.object),
        _ => None,
    }
}

/// The needs of one operation; `None`: they depend on what is there.
fn guess(
    container: ContainerId,
    op: usize,
    operation: &Op,
    tails: &Tails,
) -> Option<SmallVec<[Need; 2]>> {
    let mut needs = SmallVec::new();
    match operation {
        Op::UpdateSingle { value, .. } if value.len() > INLINE_BYTES_MAX => {
            needs.push(Need::Single { op, blocks: value.len().div_ceil(BLOCK_BYTES) as u32 });
        }
        Op::UpdateArray { key, offset, data } => {
            let at = (offset % BLOCK) as usize;
            let mut head = 0;
            if at > 0 {
                head = data.len().min(BLOCK_BYTES - at);
                let base = tails.base(container, key, *offset)?;
                let stays_inline =
                    matches!(base, Base::Bytes { .. }) && at + head <= INLINE_BYTES_MAX;
                if !stays_inline {
                    let span = Span { start: at as u16, end: (at + head) as u16, written: true };
                    needs.push(Need::Merge { op, at: None, base, data: Some((0, span)) });
                }
            }
            let left = data.len() - head;
            let (blocks, rest) = (left / BLOCK_BYTES, left % BLOCK_BYTES);
            if blocks > 0 {
                needs.push(Need::Run { op, skip: head, blocks: blocks as u32, at: None });
            }
            if rest > INLINE_BYTES_MAX {
                let span = Span { start: 0, end: rest as u16, written: true };
                let data = Some((head + blocks * BLOCK_BYTES, span));
                needs.push(Need::Merge { op, at: None, base: Base::Zeros, data });
            }
        }
        Op::Allocate { .. } => return None,
        _ => {}
    }
    Some(needs)
}
