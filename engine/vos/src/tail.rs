//! Where the last writes of some arrays ended in the middle of a block, and what that block holds: who goes on there (a log, `tar`, a program
//! with a buffer of its own) needs no plan and no read.
//!
//! # Invariants
//! 1. A tail is learned in the moment of its commit, and gone with the next change of its object that is not a write: so it is what is
//!    stored, but for what the commit finds out.
//! 2. A tail's block has data from its start to the tail, and none behind it.

use std::cell::RefCell;

use bytes::Bytes;
use daos_types::rpc::{KeyRef, Op, Transact};
use daos_types::{BLOCK_BYTES, ContainerId, Csum, ObjectId, ObjectType};

use crate::prepare::Prepared;
use crate::record::{BLOCK, INLINE_BYTES_MAX, Span};
use crate::supply::{Base, Need};

/// Tails that are remembered, each in the place of its object's hash.
const TAILS_MAX: usize = 64;

/// A block on the device and what is in it.
#[derive(Clone, Debug)]
pub(crate) struct KnownBlock {
    pub start: u64,
    pub csum: Csum,
    pub bytes: Bytes,
}

struct Tail {
    container: ContainerId,
    key: KeyRef,
    /// One past the last byte.
    end: u64,
    base: Base,
    /// If the base is one.
    block: Option<KnownBlock>,
}

pub(crate) struct Tails([RefCell<Option<Tail>>; TAILS_MAX]);

impl Default for Tails {
    fn default() -> Self {
        Self([const { RefCell::new(None) }; TAILS_MAX])
    }
}

impl Tails {
    /// What the block holds in whose middle the array ends, if it ends at `offset`.
    pub fn base(&self, container: ContainerId, key: &KeyRef, offset: u64) -> Option<Base> {
        let tail = self.place(key.object).borrow();
        tail.as_ref().filter(|tail| tail.is(container, key, offset)).map(|tail| tail.base.clone())
    }

    /// The block that a write goes on in.
    pub fn block(&self, request: &Transact) -> Option<KnownBlock> {
        let [Op::UpdateArray { key, offset, .. }] = request.ops.as_slice() else { return None };
        let tail = self.place(key.object).borrow();
        tail.as_ref().filter(|tail| tail.is(request.container, key, *offset))?.block.clone()
    }

    /// These operations were committed just now. Of transactions of several, nothing is remembered.
    pub fn learn(&self, request: &Transact, prepared: &Prepared) {
        if let [Op::UpdateArray { key, offset, data }] = request.ops.as_slice()
            && key.object.object_type() == Some(ObjectType::ArrayByte)
        {
            let mut place = self.place(key.object).borrow_mut();
            let before = place.take();
            *place = Tail::after(before, request.container, key, (*offset, data), prepared);
            return;
        }
        for op in &request.ops {
            let mut place = self.place(op.object()).borrow_mut();
            if place.as_ref().is_some_and(|tail| tail.key.object == op.object()) {
                *place = None;
            }
        }
    }

    fn place(&self, object: ObjectId) -> &RefCell<Option<Tail>> {
        let mixed = (object.hi ^ object.lo).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.0[(mixed >> 58) as usize]
    }
}

const _: () = assert!(TAILS_MAX == 1 << (64 - 58));

impl Tail {
    fn is(&self, container: ContainerId, key: &KeyRef, end: u64) -> bool {
        self.end == end && self.container == container && self.key == *key
    }

    /// The tail that a write leaves behind; `None`: it ends with a block, or it is not known what else is in its last one.
    fn after(
        before: Option<Self>,
        container: ContainerId,
        key: &KeyRef,
        (offset, data): (u64, &Bytes),
        prepared: &Prepared,
    ) -> Option<Self> {
        let end = offset + data.len() as u64;
        let stop = (end % BLOCK) as usize;
        if stop == 0 {
            return None;
        }
        let start = if offset / BLOCK == end / BLOCK { (offset % BLOCK) as usize } else { 0 };
        let piece = &data[data.len() - (stop - start)..];
        let span =
            |start: usize, end: usize| Span { start: start as u16, end: end as u16, written: true };
        let is_begin = |spans: &[Span]| *spans == [span(0, start)];
        let merged = prepared.needs.last().filter(|need| {
            matches!(need, Need::Merge { data: Some((_, merged)), .. } if *merged == span(start, stop))
        });
        let (base, block) = match merged {
            Some(Need::Merge { base, .. }) => {
                let known = match base {
                    Base::Zeros => start == 0,
                    Base::Bytes { spans, .. } | Base::Block { spans, .. } => is_begin(spans),
                };
                let block = prepared.last_block.clone().filter(|_| known)?;
                let (start, csum) = (block.start, block.csum);
                (Base::Block { start, csum, spans: vec![span(0, stop)] }, Some(block))
            }
            _ if stop > INLINE_BYTES_MAX => return None,
            _ => {
                let mut bytes = match before.filter(|before| before.is(container, key, offset)) {
                    _ if start == 0 => Vec::with_capacity(stop),
                    Some(Self { base: Base::Bytes { bytes, .. }, .. }) => bytes,
                    _ => return None,
                };
                bytes.extend_from_slice(piece);
                (Base::Bytes { spans: vec![span(0, stop)], bytes }, None)
            }
        };
        debug_assert!(block.as_ref().is_none_or(|block| block.bytes.len() == BLOCK_BYTES));
        Some(Self { container, key: key.clone(), end, base, block })
    }
}
