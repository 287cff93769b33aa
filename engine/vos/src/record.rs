//! Values inside an object: what is stored under the keys of key.rs.
//!
//! # On disk
//! Every value begins with the epoch (8, little-endian) and the kind (1); FORMAT.md, "Values inside an object".
//!
//! # Invariants
//! 1. An extent begins at a block border of its array and no two extents of one array cover the same block.
//! 2. `Blocks` hold 1 to [`RUN_BLOCKS_MAX`] blocks, all written; only the last may be written in part (a prefix of it).
//! 3. `Pieces` and `Inline` describe one block: sorted spans that neither overlap nor touch a span of their own kind.
//! 4. What a block holds outside its written spans is not data and is never shown.

use daos_types::{BLOCK_BYTES, Csum, Epoch};

use crate::kv::VALUE_MAX;

/// Bytes of a block, for arithmetic on array offsets.
pub(crate) const BLOCK: u64 = BLOCK_BYTES as u64;
/// Most blocks of a written extent: 128 KiB, and with them most checksums of one record.
pub(crate) const RUN_BLOCKS_MAX: u32 = 32;
/// Most blocks of an unwritten extent: one segment.
pub(crate) const UNWRITTEN_BLOCKS_MAX: u32 = 256;
/// Most bytes of an array block, or of a single value, that are kept in the record itself.
pub(crate) const INLINE_BYTES_MAX: usize = 1024;
/// Most spans of one block. A block in more pieces is reported as written where it is not (and reads as zeros there).
pub(crate) const SPANS_MAX: usize = 64;
const HEADER_BYTES: usize = 9;

const _: () = assert!(HEADER_BYTES + 1 + 4 * SPANS_MAX + INLINE_BYTES_MAX <= VALUE_MAX);
const _: () = assert!(
    HEADER_BYTES + 5 + 14 * 64 + 4 * (daos_types::rpc::SINGLE_BYTES_MAX / BLOCK_BYTES) <= VALUE_MAX
);

const DKEY: u8 = 0;
const SINGLE_INLINE: u8 = 1;
const SINGLE_BLOCKS: u8 = 2;
const INLINE: u8 = 3;
const BLOCKS: u8 = 4;
const UNWRITTEN: u8 = 5;
const PIECES: u8 = 6;
/// In the start of a stored span.
const WRITTEN: u16 = 0x8000;

/// A run of neighbouring blocks of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Number of the first block: device byte address / [`BLOCK_BYTES`]. 0: the record owns no blocks.
    pub start: u64,
    pub blocks: u32,
}

/// Part of an array block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub start: u16,
    pub end: u16,
    /// False: allocated.
    pub written: bool,
}

impl Span {
    pub fn bytes(self) -> usize {
        (self.end - self.start) as usize
    }
}

/// A stored value with the epoch of its change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub epoch: Epoch,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Dkey(Vec<u8>),
    Single(Single),
    Extent(ExtentBody),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Single {
    Inline(Vec<u8>),
    Blocks { len: u32, runs: Vec<Run>, csums: Vec<Csum> },
}

/// What an extent is made of; where it begins is in its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExtentBody {
    /// Spans of one block, all written, and their bytes one after the other.
    Inline { spans: Vec<Span>, bytes: Vec<u8> },
    /// `len` written bytes from the start.
    Blocks { start: u64, len: u32, csums: Vec<Csum> },
    /// Allocated blocks.
    Unwritten { run: Run },
    /// One block, written or allocated in spans. `csum` counts if a span is written.
    Pieces { start: u64, csum: Csum, spans: Vec<Span> },
}

impl ExtentBody {
    /// Blocks of the array that it covers.
    pub fn blocks(&self) -> u32 {
        match self {
            Self::Inline { .. } | Self::Pieces { .. } => 1,
            Self::Blocks { csums, .. } => csums.len() as u32,
            Self::Unwritten { run } => run.blocks,
        }
    }

    /// The device blocks it owns.
    pub fn run(&self) -> Option<Run> {
        let run = match self {
            Self::Inline { .. } => return None,
            Self::Blocks { start, csums, .. } => Run { start: *start, blocks: csums.len() as u32 },
            Self::Unwritten { run } => *run,
            Self::Pieces { start, .. } => Run { start: *start, blocks: 1 },
        };
        (run.start != 0).then_some(run)
    }

    /// What it adds to an object's stored bytes.
    pub fn stored_bytes(&self) -> u64 {
        match self {
            Self::Inline { bytes, .. } => bytes.len() as u64,
            _ => u64::from(self.blocks()) * BLOCK,
        }
    }

    /// One past the last written byte, from the start of the extent; 0 when nothing is written.
    pub fn written_end(&self) -> u64 {
        match self {
            Self::Blocks { len, .. } => u64::from(*len),
            Self::Unwritten { .. } => 0,
            Self::Inline { spans, .. } | Self::Pieces { spans, .. } => {
                spans.iter().rfind(|span| span.written).map_or(0, |span| u64::from(span.end))
            }
        }
    }

    /// The blocks `from..from + blocks` of it, as an extent of its own.
    pub fn part(&self, from: u32, blocks: u32) -> Self {
        match self {
            Self::Inline { .. } | Self::Pieces { .. } => self.clone(),
            Self::Blocks { start, len, csums } => {
                let skipped = from * BLOCK_BYTES as u32;
                let len = (len - skipped).min(blocks * BLOCK_BYTES as u32);
                let csums = csums[from as usize..(from + blocks) as usize].to_vec();
                Self::Blocks { start: start + u64::from(from), len, csums }
            }
            Self::Unwritten { run } => {
                let start = if run.start == 0 { 0 } else { run.start + u64::from(from) };
                Self::Unwritten { run: Run { start, blocks } }
            }
        }
    }

    /// Its written and allocated spans, from the start of the extent: (start, end, written).
    pub fn spans(&self) -> Vec<(u64, u64, bool)> {
        match self {
            Self::Blocks { len, .. } => vec![(0, u64::from(*len), true)],
            Self::Unwritten { run } => vec![(0, u64::from(run.blocks) * BLOCK, false)],
            Self::Inline { spans, .. } | Self::Pieces { spans, .. } => {
                let span = |s: &Span| (u64::from(s.start), u64::from(s.end), s.written);
                spans.iter().map(span).collect()
            }
        }
    }
}

impl Record {
    /// The device blocks that the record owns.
    pub fn runs(&self) -> Vec<Run> {
        match &self.body {
            Body::Dkey(_) | Body::Single(Single::Inline(_)) => Vec::new(),
            Body::Single(Single::Blocks { runs, .. }) => runs.clone(),
            Body::Extent(extent) => extent.run().into_iter().collect(),
        }
    }

    pub fn stored_bytes(&self) -> u64 {
        match &self.body {
            Body::Dkey(_) => 0,
            Body::Single(Single::Inline(bytes)) => bytes.len() as u64,
            Body::Single(Single::Blocks { csums, .. }) => csums.len() as u64 * BLOCK,
            Body::Extent(extent) => extent.stored_bytes(),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        match &self.body {
            Body::Dkey(dkey) => dkey_record(self.epoch, dkey),
            Body::Single(Single::Inline(bytes)) => single_record(self.epoch, bytes),
            Body::Single(Single::Blocks { len, runs, csums }) => {
                let mut out =
                    header(self.epoch, SINGLE_BLOCKS, 5 + runs.len() * 9 + csums.len() * 4);
                out.extend_from_slice(&len.to_le_bytes());
                out.push(runs.len() as u8);
                for run in runs {
                    put_block(&mut out, run.start);
                    out.extend_from_slice(&run.blocks.to_le_bytes());
                }
                put_csums(&mut out, csums);
                out
            }
            Body::Extent(extent) => encode_extent(self.epoch, extent),
        }
    }

    /// `None`: these bytes are no record of this format.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let (epoch, rest) = value.split_first_chunk()?;
        let (&kind, rest) = rest.split_first()?;
        let body = match kind {
            DKEY => Body::Dkey(rest.to_vec()),
            SINGLE_INLINE => Body::Single(Single::Inline(rest.to_vec())),
            SINGLE_BLOCKS => Body::Single(decode_single_blocks(rest)?),
            _ => Body::Extent(decode_extent(kind, rest)?),
        };
        Some(Self { epoch: Epoch(u64::from_le_bytes(*epoch)), body })
    }
}

/// The epoch of an encoded record.
pub(crate) fn epoch_of(value: &[u8]) -> Option<Epoch> {
    Some(Epoch(u64::from_le_bytes(*value.first_chunk()?)))
}

/// The bytes of an encoded dkey record.
pub(crate) fn dkey_of(value: &[u8]) -> Option<&[u8]> {
    (*value.get(8)? == DKEY).then(|| &value[HEADER_BYTES..])
}

/// The bytes of an encoded single value that is inline.
pub(crate) fn inline_single_of(value: &[u8]) -> Option<&[u8]> {
    (*value.get(8)? == SINGLE_INLINE).then(|| &value[HEADER_BYTES..])
}

/// Where in its block an encoded inline extent of one span begins, and its bytes.
pub(crate) fn inline_run_of(value: &[u8]) -> Option<(usize, &[u8])> {
    let [INLINE, 1, start_low, start_high, end_low, end_high, bytes @ ..] = value.get(8..)? else {
        return None;
    };
    let start = u16::from_le_bytes([*start_low, *start_high]);
    let (start, is_written) = (usize::from(start & !WRITTEN), start & WRITTEN != 0);
    let end = usize::from(u16::from_le_bytes([*end_low, *end_high]));
    (is_written && end.checked_sub(start) == Some(bytes.len())).then_some((start, bytes))
}

/// An inline extent of one span that begins at `start` of its block.
pub(crate) fn inline_run_record(epoch: Epoch, start: usize, bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() <= INLINE_BYTES_MAX && start + bytes.len() <= BLOCK_BYTES);
    let mut out = header(epoch, INLINE, 1 + 4 + bytes.len());
    put_spans(
        &mut out,
        &[Span { start: start as u16, end: (start + bytes.len()) as u16, written: true }],
    );
    out.extend_from_slice(bytes);
    out
}

pub(crate) fn dkey_record(epoch: Epoch, dkey: &[u8]) -> Vec<u8> {
    let mut out = header(epoch, DKEY, dkey.len());
    out.extend_from_slice(dkey);
    out
}

pub(crate) fn single_record(epoch: Epoch, bytes: &[u8]) -> Vec<u8> {
    let mut out = header(epoch, SINGLE_INLINE, bytes.len());
    out.extend_from_slice(bytes);
    out
}

fn header(epoch: Epoch, kind: u8, more: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES + more);
    out.extend_from_slice(&epoch.0.to_le_bytes());
    out.push(kind);
    out
}

fn encode_extent(epoch: Epoch, extent: &ExtentBody) -> Vec<u8> {
    match extent {
        ExtentBody::Inline { spans, bytes } => {
            let mut out = header(epoch, INLINE, 1 + spans.len() * 4 + bytes.len());
            put_spans(&mut out, spans);
            out.extend_from_slice(bytes);
            out
        }
        ExtentBody::Blocks { start, len, csums } => {
            let mut out = header(epoch, BLOCKS, 10 + csums.len() * 4);
            put_block(&mut out, *start);
            out.extend_from_slice(&len.to_le_bytes());
            put_csums(&mut out, csums);
            out
        }
        ExtentBody::Unwritten { run } => {
            let mut out = header(epoch, UNWRITTEN, 9);
            put_block(&mut out, run.start);
            out.extend_from_slice(&run.blocks.to_le_bytes());
            out
        }
        ExtentBody::Pieces { start, csum, spans } => {
            let mut out = header(epoch, PIECES, 10 + spans.len() * 4);
            put_block(&mut out, *start);
            out.extend_from_slice(&csum.0.to_le_bytes());
            put_spans(&mut out, spans);
            out
        }
    }
}

fn decode_single_blocks(rest: &[u8]) -> Option<Single> {
    let (len, rest) = take_u32(rest)?;
    let (&count, mut rest) = rest.split_first()?;
    let mut runs = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let (start, after) = take_block(rest)?;
        let (blocks, after) = take_u32(after)?;
        runs.push(Run { start, blocks });
        rest = after;
    }
    let csums = take_csums(rest)?;
    let blocks: u64 = runs.iter().map(|run| u64::from(run.blocks)).sum();
    let fits = csums.len() as u64 == blocks && u64::from(len).div_ceil(BLOCK) == blocks;
    fits.then_some(Single::Blocks { len, runs, csums })
}

fn decode_extent(kind: u8, rest: &[u8]) -> Option<ExtentBody> {
    match kind {
        INLINE => {
            let (spans, bytes) = take_spans(rest)?;
            let fits = spans.iter().map(|span| span.bytes()).sum::<usize>() == bytes.len();
            let fits = fits && spans.iter().all(|span| span.written);
            fits.then(|| ExtentBody::Inline { spans, bytes: bytes.to_vec() })
        }
        BLOCKS => {
            let (start, rest) = take_block(rest)?;
            let (len, rest) = take_u32(rest)?;
            let csums = take_csums(rest)?;
            let blocks = csums.len() as u64;
            let fits = u64::from(len).div_ceil(BLOCK) == blocks;
            let fits = fits && (1..=u64::from(RUN_BLOCKS_MAX)).contains(&blocks);
            fits.then_some(ExtentBody::Blocks { start, len, csums })
        }
        UNWRITTEN => {
            let (start, rest) = take_block(rest)?;
            let (blocks, rest) = take_u32(rest)?;
            let fits = rest.is_empty() && (1..=UNWRITTEN_BLOCKS_MAX).contains(&blocks);
            fits.then_some(ExtentBody::Unwritten { run: Run { start, blocks } })
        }
        PIECES => {
            let (start, rest) = take_block(rest)?;
            let (csum, rest) = take_u32(rest)?;
            let (spans, rest) = take_spans(rest)?;
            rest.is_empty().then_some(ExtentBody::Pieces { start, csum: Csum(csum), spans })
        }
        _ => None,
    }
}

/// 48 bits: 2^48 blocks of 4 KiB are 2^60 bytes.
fn put_block(out: &mut Vec<u8>, block: u64) {
    assert!(block < 1 << 48, "a block number has 48 bits");
    out.extend_from_slice(&block.to_le_bytes()[..6]);
}

fn put_csums(out: &mut Vec<u8>, csums: &[Csum]) {
    out.extend(csums.iter().flat_map(|csum| csum.0.to_le_bytes()));
}

/// Count, then (start, end) with the kind in the top bit of start: offsets in a block need 13 bits.
fn put_spans(out: &mut Vec<u8>, spans: &[Span]) {
    assert!((1..=SPANS_MAX).contains(&spans.len()), "a block has 1 to SPANS_MAX spans");
    out.push(spans.len() as u8);
    for span in spans {
        let kind = if span.written { WRITTEN } else { 0 };
        out.extend_from_slice(&(span.start | kind).to_le_bytes());
        out.extend_from_slice(&span.end.to_le_bytes());
    }
}

fn take_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (head, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*head), rest))
}

fn take_block(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<6>()?;
    let mut wide = [0; 8];
    wide[..6].copy_from_slice(head);
    Some((u64::from_le_bytes(wide), rest))
}

fn take_csums(bytes: &[u8]) -> Option<Vec<Csum>> {
    let (chunks, rest) = bytes.as_chunks::<4>();
    rest.is_empty().then(|| chunks.iter().map(|chunk| Csum(u32::from_le_bytes(*chunk))).collect())
}

fn take_spans(bytes: &[u8]) -> Option<(Vec<Span>, &[u8])> {
    let (&count, rest) = bytes.split_first()?;
    let (head, rest) = rest.split_at_checked(count as usize * 4)?;
    let mut spans = Vec::with_capacity(count as usize);
    let mut last = 0;
    for chunk in head.as_chunks::<4>().0 {
        let start = u16::from_le_bytes([chunk[0], chunk[1]]);
        let end = u16::from_le_bytes([chunk[2], chunk[3]]);
        let span = Span { start: start & !WRITTEN, end, written: start & WRITTEN != 0 };
        if span.start < last || span.end <= span.start || span.end as usize > BLOCK_BYTES {
            return None;
        }
        last = span.end;
        spans.push(span);
    }
    (!spans.is_empty()).then_some((spans, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: u16, end: u16, written: bool) -> Span {
        Span { start, end, written }
    }

    fn samples() -> Vec<Body> {
        let csums = vec![Csum(1), Csum(2), Csum(3)];
        vec![
            Body::Dkey(b"name".to_vec()),
            Body::Single(Single::Inline(Vec::new())),
            Body::Single(Single::Inline(vec![7; 1024])),
            Body::Single(Single::Blocks {
                len: 9000,
                runs: vec![Run { start: 77, blocks: 2 }, Run { start: 99, blocks: 1 }],
                csums: csums.clone(),
            }),
            Body::Extent(ExtentBody::Inline {
                spans: vec![span(3, 5, true), span(9, 10, true)],
                bytes: vec![1, 2, 3],
            }),
            Body::Extent(ExtentBody::Blocks { start: (1 << 48) - 1, len: 8193, csums }),
            Body::Extent(ExtentBody::Unwritten { run: Run { start: 0, blocks: 256 } }),
            Body::Extent(ExtentBody::Pieces {
                start: 5,
                csum: Csum(9),
                spans: vec![span(0, 1, true), span(1, 4096, false)],
            }),
        ]
    }

    #[test]
    fn records_come_back_from_their_bytes() {
        for body in samples() {
            let record = Record { epoch: Epoch(42), body };
            let bytes = record.encode();
            assert!(bytes.len() <= VALUE_MAX);
            assert_eq!(Record::decode(&bytes), Some(record));
            assert_eq!(epoch_of(&bytes), Some(Epoch(42)));
        }
    }

    #[test]
    fn inline_runs_are_what_decoding_says() {
        for body in samples() {
            let value = Record { epoch: Epoch(7), body: body.clone() }.encode();
            let expected = match &body {
                Body::Extent(ExtentBody::Inline { spans, bytes }) if spans.len() == 1 => {
                    Some((usize::from(spans[0].start), bytes.as_slice()))
                }
                _ => None,
            };
            assert_eq!(inline_run_of(&value), expected, "{body:?}");
            if let Some((start, bytes)) = expected {
                assert_eq!(inline_run_record(Epoch(7), start, bytes), value);
            }
        }
        let run = inline_run_record(Epoch(7), 5, b"abc");
        assert_eq!(inline_run_of(&run), Some((5, &b"abc"[..])));
        assert!((0..run.len()).all(|len| inline_run_of(&run[..len]).is_none()));
    }

    #[test]
    fn cut_or_strange_bytes_are_refused() {
        for body in samples() {
            let opaque = matches!(body, Body::Dkey(_) | Body::Single(Single::Inline(_)));
            let bytes = Record { epoch: Epoch(1), body }.encode();
            for len in 0..bytes.len() {
                let cut = Record::decode(&bytes[..len]);
                assert!(cut.is_none() || (opaque && len >= HEADER_BYTES), "{len} of {bytes:?}");
            }
            let mut strange = bytes;
            strange[8] = 99;
            assert_eq!(Record::decode(&strange), None);
        }
    }

    #[test]
    fn part_of_blocks_keeps_addresses_checksums_and_the_partial_end() {
        let extent =
            ExtentBody::Blocks { start: 10, len: 8193, csums: vec![Csum(1), Csum(2), Csum(3)] };
        let tail = extent.part(1, 2);
        assert_eq!(
            tail,
            ExtentBody::Blocks { start: 11, len: 4097, csums: vec![Csum(2), Csum(3)] }
        );
        assert_eq!(extent.part(0, 2).written_end(), 8192);
    }
}
