//! The blocks that a change needs, named so that planning and committing ask for the same ones.
//!
//! A change is decided twice by the same functions: once over a draft of the newest view, where every [`Need`] is noted;
//! then, when the blocks are reserved and their contents are on the way to the device, inside the transaction,
//! where every need must be the one that was noted. If it is not, what it rests on has changed and the change
//! is planned again.
//!
//! # Invariants
//! 1. A need holds everything that its blocks' contents depend on: equal needs, equal contents.
//! 2. Planned blocks that no device has yet are numbered from [`PLANNED`] up.

use daos_types::{Csum, ObjectId};

use crate::array::subtract;
use crate::pages::Abort;
use crate::record::Span;

/// Block numbers from here on are of the plan, not of the device. Below 2^48, so that records can hold them.
pub(crate) const PLANNED: u64 = 1 << 47;

/// Blocks that a change asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Blocks that are filled with the data of operation `op` from `skip` on; `at`: in place.
    Run { op: usize, skip: usize, blocks: u32, at: Option<u64> },
    /// One block: `base`, and over it the data of the operation from `skip` on in `span`.
    Merge { op: usize, at: Option<u64>, base: Base, data: Option<(usize, Span)> },
    /// Blocks without contents.
    Unwritten { blocks: u32 },
    /// Blocks for the single value of operation `op`.
    Single { op: usize, blocks: u32 },
    /// No blocks: the stored bytes of a range of an object, before anything is changed.
    Count { object: ObjectId, from: Vec<u8>, to: Option<Vec<u8>> },
}

impl Need {
    pub fn blocks(&self) -> u32 {
        match self {
            Self::Run { blocks, .. } | Self::Unwritten { blocks } | Self::Single { blocks, .. } => {
                *blocks
            }
            Self::Merge { .. } => 1,
            Self::Count { .. } => 0,
        }
    }

    /// Where the blocks already are.
    pub fn at(&self) -> Option<u64> {
        match self {
            Self::Run { at, .. } | Self::Merge { at, .. } => *at,
            Self::Unwritten { .. } | Self::Single { .. } | Self::Count { .. } => None,
        }
    }
}

/// What a merge starts from; zeros elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    Zeros,
    Bytes {
        spans: Vec<Span>,
        bytes: Vec<u8>,
    },
    /// The written spans of a block on the device.
    Block {
        start: u64,
        csum: Csum,
        spans: Vec<Span>,
    },
}

impl Base {
    /// Only what lies inside `spans` stays.
    pub fn limit(&mut self, keep: &[Span]) {
        match self {
            Self::Zeros => {}
            Self::Block { spans, .. } => *spans = intersect(spans, keep),
            Self::Bytes { spans, bytes } => {
                let limited = intersect(spans, keep);
                let mut at = 0;
                let mut kept = Vec::with_capacity(bytes.len());
                for span in spans.iter() {
                    for part in intersect(&[*span], keep) {
                        let from = at + (part.start - span.start) as usize;
                        kept.extend_from_slice(&bytes[from..from + part.bytes()]);
                    }
                    at += span.bytes();
                }
                *spans = limited;
                *bytes = kept;
            }
        }
    }
}

fn intersect(spans: &[Span], keep: &[Span]) -> Vec<Span> {
    let mut out = Vec::new();
    for &span in spans {
        let mut outside = vec![span];
        for &kept in keep {
            outside = subtract(&outside, kept);
        }
        let mut inside = vec![span];
        for &gone in &outside {
            inside = subtract(&inside, gone);
        }
        out.extend(inside);
    }
    out
}

/// Blocks that answer a need. A need may be answered by several, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filled {
    pub start: u64,
    pub blocks: u32,
    /// One for each block; none for unwritten blocks.
    pub csums: Vec<Csum>,
}

pub(crate) trait Supply {
    fn supply(&mut self, need: Need) -> Result<Vec<Filled>, Abort>;
}
