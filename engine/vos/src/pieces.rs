//! Where the bytes of a range of an array are.
//!
//! # Not here
//! Reading them: fetch.rs.

use std::ops::ControlFlow;

use daos_types::{BLOCK_BYTES, Csum};

use crate::array::{OTHER_KIND, decode};
use crate::ground::STRANGE;
use crate::key::{AkeyPrefix, Part};
use crate::kv::Kv;
use crate::pages::Abort;
use crate::record::{
    BLOCK, Body, ExtentBody, Record, Single, UNWRITTEN_BLOCKS_MAX, inline_single_of,
};

/// Written bytes of a range, and where they come from. What no piece covers is zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Inline {
        /// Place in the range.
        at: usize,
        bytes: Vec<u8>,
    },
    Blocks {
        /// First block on the device.
        start: u64,
        /// One for each block.
        csums: Vec<Csum>,
        /// Which bytes of the blocks go where in the range.
        copies: Vec<Copy>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Copy {
    pub from: usize,
    pub to: usize,
    pub bytes: usize,
}

impl Piece {
    /// The same piece of a range that begins `bytes` earlier.
    pub fn moved(mut self, bytes: usize) -> Self {
        match &mut self {
            Self::Inline { at, .. } => *at += bytes,
            Self::Blocks { copies, .. } => copies.iter_mut().for_each(|copy| copy.to += bytes),
        }
        self
    }
}

/// The pieces of the `len` bytes from `offset`, in no order.
pub(crate) fn pieces(
    kv: &dyn Kv,
    prefix: &AkeyPrefix,
    offset: u64,
    len: u64,
) -> Result<Vec<Piece>, Abort> {
    let mut pieces = Vec::new();
    let mut is_single = false;
    let end = offset + len;
    let mut seen = false;
    // No extent is longer than this: what begins below does not reach the range.
    let floor = prefix.array(offset.saturating_sub(u64::from(UNWRITTEN_BLOCKS_MAX) * BLOCK));
    kv.scan_down_to(&prefix.array(end), &floor, &mut |key, value| {
        match prefix.part(key) {
            Some(Part::Extent(start)) => {
                seen = true;
                let extent = decode(start, value);
                pieces.extend(piece(&extent.body, start, offset, end));
                return if start <= offset {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                };
            }
            Some(Part::Single) => is_single = true,
            None => {}
        }
        ControlFlow::Break(())
    })?;
    is_single |= !seen && kv.contains(&prefix.single())?;
    if is_single { Err(OTHER_KIND.into()) } else { Ok(pieces) }
}

/// The part of an extent that begins at `start` that lies in `offset..end`.
fn piece(body: &ExtentBody, start: u64, offset: u64, end: u64) -> Option<Piece> {
    if start + u64::from(body.blocks()) * BLOCK <= offset {
        return None;
    }
    match body {
        ExtentBody::Unwritten { .. } => None,
        ExtentBody::Inline { spans, bytes } => {
            // Spans of one block lie close together: one piece from the first to the last, with its zeros.
            let first = start + u64::from(spans[0].start);
            let mut block = vec![0; (start + body.written_end() - first) as usize];
            let mut taken = 0;
            for span in spans {
                let to = (span.start - spans[0].start) as usize;
                block[to..to + span.bytes()].copy_from_slice(&bytes[taken..taken + span.bytes()]);
                taken += span.bytes();
            }
            let (from, to) = clip(first, first + block.len() as u64, offset, end)?;
            let bytes = block[(from - first) as usize..(to - first) as usize].to_vec();
            Some(Piece::Inline { at: (from - offset) as usize, bytes })
        }
        ExtentBody::Blocks { start: device, len, csums } => {
            let (from, to) = clip(start, start + u64::from(*len), offset, end)?;
            let first = ((from - start) / BLOCK) as usize;
            let last = (to - start).div_ceil(BLOCK) as usize;
            let copy = Copy {
                from: (from - start) as usize - first * BLOCK_BYTES,
                to: (from - offset) as usize,
                bytes: (to - from) as usize,
            };
            Some(Piece::Blocks {
                start: device + first as u64,
                csums: csums[first..last].to_vec(),
                copies: vec![copy],
            })
        }
        ExtentBody::Pieces { start: device, csum, spans } => {
            let written = spans.iter().filter(|span| span.written);
            let copies = written.filter_map(|span| {
                let (span_start, span_end) =
                    (start + u64::from(span.start), start + u64::from(span.end));
                let (from, to) = clip(span_start, span_end, offset, end)?;
                Some(Copy {
                    from: (from - start) as usize,
                    to: (from - offset) as usize,
                    bytes: (to - from) as usize,
                })
            });
            let copies: Vec<Copy> = copies.collect();
            let is_there = !copies.is_empty();
            is_there.then(|| Piece::Blocks { start: *device, csums: vec![*csum], copies })
        }
    }
}

fn clip(start: u64, end: u64, from: u64, to: u64) -> Option<(u64, u64)> {
    let (start, end) = (start.max(from), end.min(to));
    (start < end).then_some((start, end))
}

/// The pieces of a stored single value, and its length.
pub(crate) fn single_pieces(value: &[u8]) -> Result<(usize, Vec<Piece>), Abort> {
    if let Some(bytes) = inline_single_of(value) {
        return Ok((bytes.len(), vec![Piece::Inline { at: 0, bytes: bytes.to_vec() }]));
    }
    let record = Record::decode(value).ok_or(STRANGE)?;
    let Body::Single(Single::Blocks { len, runs, csums }) = record.body else {
        return Err(STRANGE.into());
    };
    let mut pieces = Vec::with_capacity(runs.len());
    let mut block = 0;
    for run in runs {
        let at = block * BLOCK_BYTES;
        let next = block + run.blocks as usize;
        let bytes = (next * BLOCK_BYTES).min(len as usize) - at;
        pieces.push(Piece::Blocks {
            start: run.start,
            csums: csums[block..next].to_vec(),
            copies: vec![Copy { from: 0, to: at, bytes }],
        });
        block = next;
    }
    Ok((len as usize, pieces))
}
