//! What a change of an array does to its extents: pure functions from an ordered map and a change to an [`Edit`].
//!
//! # Invariants
//! 1. The newest view needs no merge: one record covers a block of the array, or none does.
//! 2. A record that a snapshot can see (`epoch <= newest snapshot`) never changes its blocks or its spans: what is
//!    hidden of it leaves for the history with its own epoch, and what stays keeps that epoch.
//! 3. A written device block is never written again: a partial write merges into a fresh block. Only blocks that
//!    were allocated before this transaction and hold no data yet are filled in place.
//! 4. Every device block that leaves the newest view is in [`Edit::hidden`] exactly once.
//! 5. Spans are exact to the byte, except in a block of more than [`SPANS_MAX`] spans.
//!
//! # Not here
//! Reading old blocks and placing new ones: supply.rs. What becomes of hidden records: update.rs, history.rs.

use std::ops::ControlFlow;

use daos_types::rpc::ARRAY_OFFSET_MAX;
use daos_types::{BLOCK_BYTES, Csum, Epoch, Error};
use smallvec::SmallVec;

use crate::key::{AkeyPrefix, KeyBuf, Part};
use crate::kv::Kv;
use crate::pages::Abort;
use crate::record::{
    BLOCK, Body, ExtentBody, INLINE_BYTES_MAX, RUN_BLOCKS_MAX, Record, Run, SPANS_MAX, Span,
    UNWRITTEN_BLOCKS_MAX,
};
use crate::supply::{Base, Filled, Need, Supply};

pub(crate) const OTHER_KIND: Error = Error::Invalid("the akey holds the other kind of value");
const STRANGE: &str = "a record of an array is one of this format";

/// When a change happens, and what can see the past.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub epoch: Epoch,
    /// Epoch of the newest snapshot; 0: none.
    pub snapshot: Epoch,
}

impl Moment {
    /// Can a snapshot see a record of this epoch?
    pub fn is_kept(self, epoch: Epoch) -> bool {
        epoch <= self.snapshot
    }
}

/// An extent and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Block of the array.
    pub block: u64,
    pub epoch: Epoch,
    pub body: ExtentBody,
}

impl Extent {
    pub fn end_block(&self) -> u64 {
        self.block + u64::from(self.body.blocks())
    }

    pub fn offset(&self) -> u64 {
        self.block * BLOCK
    }

    fn part(&self, from: u64, to: u64) -> Self {
        let body = self.body.part((from - self.block) as u32, (to - from) as u32);
        Self { block: from, epoch: self.epoch, body }
    }

    fn into_record(self) -> Record {
        Record { epoch: self.epoch, body: Body::Extent(self.body) }
    }
}

/// What a change does to the newest view.
#[derive(Debug, Default)]
pub(crate) struct Edit {
    pub removes: Vec<KeyBuf>,
    pub puts: SmallVec<[(KeyBuf, Vec<u8>); 1]>,
    /// Key and record of what is no longer in the newest view.
    pub hidden: Vec<(KeyBuf, Record)>,
    /// Change of the object's stored bytes.
    pub stored_bytes: i64,
}

/// What becomes of the old record where a new one takes its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Old {
    /// Hidden, with the device blocks it owns.
    Hidden,
    /// Hidden; its device blocks belong to the new record.
    Emptied,
    /// Not hidden: the new record is the old one, changed where no snapshot can see it.
    Replaced,
}

/// New extents for the blocks `from..to` of an array.
#[derive(Debug)]
struct Patch {
    from: u64,
    to: u64,
    old: Old,
    new: Vec<Extent>,
}

/// The extents of an array that cover blocks `from..to`, and their neighbours on both sides, in order.
/// At most about `max`: when there are more, the first ones are missing.
pub(crate) fn around(
    kv: &dyn Kv,
    prefix: &AkeyPrefix,
    from: u64,
    to: u64,
    max: usize,
) -> Result<Vec<Extent>, Abort> {
    let mut extents = Vec::new();
    let mut strange = None;
    let below = prefix.array(to * BLOCK + 1);
    kv.scan_back(Some(&below), &mut |key, value| {
        match prefix.part(key) {
            Some(Part::Extent(offset)) => {
                extents.push(decode(offset, value));
                let done = offset < from * BLOCK || extents.len() >= max;
                return if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
            }
            Some(Part::Single) => strange = Some(OTHER_KIND),
            None => {}
        }
        ControlFlow::Break(())
    })?;
    extents.reverse();
    strange.map_or(Ok(extents), |error| Err(error.into()))
}

/// An extent from its record.
pub(crate) fn decode(offset: u64, value: &[u8]) -> Extent {
    let record = Record::decode(value).expect(STRANGE);
    let Body::Extent(body) = record.body else { panic!("{STRANGE}") };
    Extent { block: offset / BLOCK, epoch: record.epoch, body }
}

/// `data` replaces what is there.
pub(crate) fn write(
    kv: &dyn Kv,
    now: Moment,
    prefix: &AkeyPrefix,
    (op, offset, data): (usize, u64, &[u8]),
    supply: &mut dyn Supply,
) -> Result<Edit, Abort> {
    let end = offset + data.len() as u64;
    let (from, to) = (offset / BLOCK, end.div_ceil(BLOCK));
    let old = around(kv, prefix, from, to, usize::MAX)?;
    let mut patches = Vec::new();
    let mut block = from;
    while block < to {
        let start = offset.max(block * BLOCK);
        let stop = end.min((block + 1) * BLOCK);
        let skip = (start - offset) as usize;
        if stop - start < BLOCK {
            let span = span_of(block, start, stop, true);
            let piece = &data[skip..skip + span.bytes()];
            patches.push(write_part(now, &old, block, span, (op, skip, piece), supply)?);
            block += 1;
        } else {
            let full_end = block + (end - block * BLOCK) / BLOCK;
            let (stop, at) = same_ground(now, &old, block, full_end);
            let blocks = (stop - block) as u32;
            let filled = supply.supply(Need::Run { op, skip, blocks, at })?;
            let old = if at.is_some() { Old::Emptied } else { Old::Hidden };
            let new = written(now.epoch, block, &filled);
            patches.push(Patch { from: block, to: stop, old, new });
            block = stop;
        }
    }
    Ok(replace(now, prefix, old, patches))
}

/// The range becomes a hole. `max` bounds the extents that are looked at: `None` when there may be more.
pub(crate) fn punch(
    kv: &dyn Kv,
    now: Moment,
    prefix: &AkeyPrefix,
    (op, start, end): (usize, u64, u64),
    max: usize,
    supply: &mut dyn Supply,
) -> Result<Option<Edit>, Abort> {
    if start >= end {
        around(kv, prefix, 0, 0, 1)?;
        return Ok(Some(Edit::default()));
    }
    let (from, to) = (start / BLOCK, end.div_ceil(BLOCK));
    let old = around(kv, prefix, from, to, max)?;
    if old.len() >= max {
        return Ok(None);
    }
    let mut patches = Vec::new();
    let (whole_from, whole_to) = (start.div_ceil(BLOCK), end / BLOCK);
    if whole_from > from {
        let stop = end.min(whole_from * BLOCK);
        patches.extend(punch_part(now, &old, from, (op, start, stop), supply)?);
    }
    if whole_from < whole_to {
        patches.push(Patch { from: whole_from, to: whole_to, old: Old::Hidden, new: Vec::new() });
    }
    if whole_to < to && whole_to >= whole_from {
        patches.extend(punch_part(now, &old, whole_to, (op, whole_to * BLOCK, end), supply)?);
    }
    Ok(Some(replace(now, prefix, old, patches)))
}

/// Holes of the range become allocated.
pub(crate) fn allocate(
    kv: &dyn Kv,
    now: Moment,
    prefix: &AkeyPrefix,
    (op, start, end): (usize, u64, u64),
    supply: &mut dyn Supply,
) -> Result<Edit, Abort> {
    let (from, to) = (start / BLOCK, end.div_ceil(BLOCK));
    let old = around(kv, prefix, from, to, usize::MAX)?;
    let mut patches = Vec::new();
    let mut block = from;
    while block < to {
        let here = old.iter().find(|extent| extent.end_block() > block && extent.block < to);
        match here {
            Some(extent) if extent.block <= block => {
                let stop = extent.end_block().min(to);
                patches.extend(allocate_over(now, extent, stop, (op, start, end), supply)?);
                block = stop;
            }
            next => {
                let stop = next.map_or(to, |extent| extent.block);
                allocate_hole(now, block, stop, (start, end), supply, &mut patches)?;
                block = stop;
            }
        }
    }
    Ok(replace(now, prefix, old, patches))
}

/// One past the last written byte of the array; 0 when there is none.
pub(crate) fn end(kv: &dyn Kv, prefix: &AkeyPrefix) -> Result<u64, Abort> {
    let mut end = 0;
    kv.scan_down_to(&prefix.end(), &prefix.0, &mut |key, value| {
        let Some(Part::Extent(offset)) = prefix.part(key) else { return ControlFlow::Break(()) };
        let written = decode(offset, value).body.written_end();
        if written == 0 {
            return ControlFlow::Continue(());
        }
        end = offset + written;
        ControlFlow::Break(())
    })?;
    Ok(end)
}

fn span_of(block: u64, start: u64, stop: u64, written: bool) -> Span {
    let base = block * BLOCK;
    Span { start: (start - base) as u16, end: (stop - base) as u16, written }
}

/// How far from `block` on the ground is the same: blocks that can be filled in place, or blocks that cannot.
fn same_ground(now: Moment, old: &[Extent], block: u64, to: u64) -> (u64, Option<u64>) {
    let mut fillable = old.iter().filter_map(|e| Some((e.block, e.end_block(), ground(now, e)?)));
    match fillable.find(|(_, end, _)| *end > block) {
        Some((start, end, at)) if start <= block => (end.min(to), Some(at + (block - start))),
        Some((start, ..)) => (start.min(to), None),
        None => (to, None),
    }
}

/// The device address of an extent that can be filled in place.
fn ground(now: Moment, extent: &Extent) -> Option<u64> {
    let empty = extent.body.written_end() == 0 && extent.epoch < now.epoch;
    if empty { extent.body.run().map(|run| run.start) } else { None }
}

fn at_block(old: &[Extent], block: u64) -> Option<Extent> {
    let extent = old.iter().find(|e| e.block <= block && block < e.end_block())?;
    Some(extent.part(block, block + 1))
}

fn write_part(
    now: Moment,
    old: &[Extent],
    block: u64,
    span: Span,
    (op, skip, piece): (usize, usize, &[u8]),
    supply: &mut dyn Supply,
) -> Result<Patch, Abort> {
    let old = at_block(old, block);
    let spans = overlay(&block_spans(old.as_ref()), span);
    let at = old.as_ref().and_then(|extent| ground(now, extent));
    let inline = match old.as_ref().map(|extent| &extent.body) {
        None => Some((&[] as &[Span], &[] as &[u8])),
        Some(ExtentBody::Inline { spans, bytes }) => Some((spans.as_slice(), bytes.as_slice())),
        Some(_) => None,
    };
    let bytes_total: usize = spans.iter().map(|span| span.bytes()).sum();
    if let Some((old_spans, old_bytes)) = inline
        && bytes_total <= INLINE_BYTES_MAX
        && spans.len() <= SPANS_MAX
    {
        let bytes = inline_bytes(old_spans, old_bytes, &spans, Some((span, piece)));
        let body = ExtentBody::Inline { spans, bytes };
        return Ok(patch(now, block, Old::Hidden, body));
    }
    let base = base_of(old.as_ref());
    let filled = supply.supply(Need::Merge { op, at, base, data: Some((skip, span)) })?;
    let old = if at.is_some() { Old::Emptied } else { Old::Hidden };
    Ok(patch(now, block, old, one_block(&filled, coarsen(spans))))
}

/// `None`: there is nothing to punch.
fn punch_part(
    now: Moment,
    old: &[Extent],
    block: u64,
    (op, start, stop): (usize, u64, u64),
    supply: &mut dyn Supply,
) -> Result<Option<Patch>, Abort> {
    let Some(old) = at_block(old, block) else { return Ok(None) };
    let before = block_spans(Some(&old));
    let spans = subtract(&before, span_of(block, start, stop, false));
    if spans == before {
        return Ok(None);
    }
    if spans.is_empty() {
        return Ok(Some(Patch { from: block, to: block + 1, old: Old::Hidden, new: Vec::new() }));
    }
    if let ExtentBody::Inline { spans: old_spans, bytes } = &old.body
        && spans.len() <= SPANS_MAX
    {
        let bytes = inline_bytes(old_spans, bytes, &spans, None);
        return Ok(Some(patch(now, block, Old::Hidden, ExtentBody::Inline { spans, bytes })));
    }
    reshape(now, &old, spans, op, supply).map(Some)
}

/// The block of `old` with other spans, none of them newly written.
fn reshape(
    now: Moment,
    old: &Extent,
    spans: Vec<Span>,
    op: usize,
    supply: &mut dyn Supply,
) -> Result<Patch, Abort> {
    let (start, csum) = match &old.body {
        ExtentBody::Blocks { start, csums, .. } => (*start, csums[0]),
        ExtentBody::Unwritten { run } => (run.start, Csum::default()),
        ExtentBody::Pieces { start, csum, .. } => (*start, *csum),
        ExtentBody::Inline { .. } => (0, Csum::default()),
    };
    let has_data = old.body.written_end() > 0;
    let must_copy = start == 0 || spans.len() > SPANS_MAX || (now.is_kept(old.epoch) && has_data);
    if must_copy {
        let mut base = base_of(Some(old));
        base.limit(&spans);
        let filled = supply.supply(Need::Merge { op, at: None, base, data: None })?;
        return Ok(patch(now, old.block, Old::Hidden, one_block(&filled, coarsen(spans))));
    }
    let body = one_block_body(start, csum, spans);
    let kept = now.is_kept(old.epoch);
    let epoch = if kept { now.epoch } else { old.epoch };
    let new = vec![Extent { block: old.block, epoch, body }];
    let old_is = if kept { Old::Emptied } else { Old::Replaced };
    Ok(Patch { from: old.block, to: old.block + 1, old: old_is, new })
}

/// Allocates the gaps of the last block of `extent` before `stop`: all others of it have none.
fn allocate_over(
    now: Moment,
    extent: &Extent,
    stop: u64,
    (op, start, end): (usize, u64, u64),
    supply: &mut dyn Supply,
) -> Result<Option<Patch>, Abort> {
    let block = stop - 1;
    let old = extent.part(block, stop);
    let before = block_spans(Some(&old));
    let range_start = start.max(block * BLOCK);
    let range_stop = end.min(stop * BLOCK);
    let spans = fill_gaps(&before, span_of(block, range_start, range_stop, false));
    if spans == before { Ok(None) } else { reshape(now, &old, spans, op, supply).map(Some) }
}

/// Allocates blocks `from..to`, which are a hole; the first and the last perhaps in part.
fn allocate_hole(
    now: Moment,
    from: u64,
    to: u64,
    (start, end): (u64, u64),
    supply: &mut dyn Supply,
    patches: &mut Vec<Patch>,
) -> Result<(), Abort> {
    let mut block = from;
    while block < to {
        let span_start = start.max(block * BLOCK);
        let span_stop = end.min((block + 1) * BLOCK);
        if span_stop - span_start < BLOCK {
            let filled = supply.supply(Need::Unwritten { blocks: 1 })?;
            let span = span_of(block, span_start, span_stop, false);
            let body = one_block_body(filled[0].start, Csum::default(), vec![span]);
            patches.push(patch(now, block, Old::Hidden, body));
            block += 1;
            continue;
        }
        let full_end = to.min(end / BLOCK);
        for filled in supply.supply(Need::Unwritten { blocks: (full_end - block) as u32 })? {
            let new = unwritten(now.epoch, block, &filled);
            let stop = block + u64::from(filled.blocks);
            patches.push(Patch { from: block, to: stop, old: Old::Hidden, new });
            block = stop;
        }
    }
    Ok(())
}

fn patch(now: Moment, block: u64, old: Old, body: ExtentBody) -> Patch {
    let new = vec![Extent { block, epoch: now.epoch, body }];
    Patch { from: block, to: block + 1, old, new }
}

fn written(epoch: Epoch, block: u64, filled: &[Filled]) -> Vec<Extent> {
    let mut extents = Vec::new();
    let mut at = block;
    for run in filled {
        for (index, csums) in run.csums.chunks(RUN_BLOCKS_MAX as usize).enumerate() {
            let start = run.start + index as u64 * u64::from(RUN_BLOCKS_MAX);
            let len = (csums.len() * BLOCK_BYTES) as u32;
            let body = ExtentBody::Blocks { start, len, csums: csums.to_vec() };
            extents.push(Extent { block: at, epoch, body });
            at += csums.len() as u64;
        }
    }
    extents
}

fn unwritten(epoch: Epoch, block: u64, filled: &Filled) -> Vec<Extent> {
    let mut extents = Vec::new();
    let mut done = 0;
    while done < filled.blocks {
        let blocks = (filled.blocks - done).min(UNWRITTEN_BLOCKS_MAX);
        let run = Run { start: filled.start + u64::from(done), blocks };
        let body = ExtentBody::Unwritten { run };
        extents.push(Extent { block: block + u64::from(done), epoch, body });
        done += blocks;
    }
    extents
}

fn one_block(filled: &[Filled], spans: Vec<Span>) -> ExtentBody {
    one_block_body(filled[0].start, filled[0].csums[0], spans)
}

/// The plainest body for a block with these spans.
fn one_block_body(start: u64, csum: Csum, spans: Vec<Span>) -> ExtentBody {
    match spans.as_slice() {
        [Span { start: 0, end, written: true }] => {
            ExtentBody::Blocks { start, len: u32::from(*end), csums: vec![csum] }
        }
        [Span { start: 0, end, written: false }] if *end as usize == BLOCK_BYTES => {
            ExtentBody::Unwritten { run: Run { start, blocks: 1 } }
        }
        _ => ExtentBody::Pieces { start, csum, spans },
    }
}

/// The spans of a one-block extent.
fn block_spans(extent: Option<&Extent>) -> Vec<Span> {
    let spans = extent.map(|extent| extent.body.spans()).unwrap_or_default();
    let span = |(start, end, written)| Span { start: start as u16, end: end as u16, written };
    spans.into_iter().map(span).collect()
}

/// What a merge starts from.
fn base_of(extent: Option<&Extent>) -> Base {
    let Some(extent) = extent else { return Base::Zeros };
    let spans = || block_spans(Some(extent)).into_iter().filter(|span| span.written).collect();
    match &extent.body {
        ExtentBody::Inline { spans, bytes } => {
            Base::Bytes { spans: spans.clone(), bytes: bytes.clone() }
        }
        _ if extent.body.written_end() == 0 => Base::Zeros,
        ExtentBody::Blocks { start, csums, .. } => {
            Base::Block { start: *start, csum: csums[0], spans: spans() }
        }
        ExtentBody::Pieces { start, csum, .. } => {
            Base::Block { start: *start, csum: *csum, spans: spans() }
        }
        ExtentBody::Unwritten { .. } => Base::Zeros,
    }
}

/// The bytes of `spans`, from those of `old` and from `piece`.
fn inline_bytes(
    old: &[Span],
    old_bytes: &[u8],
    spans: &[Span],
    piece: Option<(Span, &[u8])>,
) -> Vec<u8> {
    if let (Some((span, piece)), [only]) = (piece, spans)
        && span == *only
    {
        return piece.to_vec(); // Nothing of the old bytes is left.
    }
    let mut block = [0; BLOCK_BYTES];
    let mut at = 0;
    for span in old {
        block[span.start as usize..span.end as usize]
            .copy_from_slice(&old_bytes[at..at + span.bytes()]);
        at += span.bytes();
    }
    if let Some((span, piece)) = piece {
        block[span.start as usize..span.end as usize].copy_from_slice(piece);
    }
    let mut bytes = Vec::with_capacity(spans.iter().map(|span| span.bytes()).sum());
    spans.iter().for_each(|s| bytes.extend_from_slice(&block[s.start as usize..s.end as usize]));
    bytes
}

/// `span` on top of `spans`.
fn overlay(spans: &[Span], span: Span) -> Vec<Span> {
    let mut all = subtract(spans, span);
    all.push(span);
    tidy(all)
}

/// `spans` without the range of `hole`.
pub(crate) fn subtract(spans: &[Span], hole: Span) -> Vec<Span> {
    let mut left = Vec::with_capacity(spans.len() + 1);
    for &span in spans {
        if span.start < hole.start {
            left.push(Span { end: span.end.min(hole.start), ..span });
        }
        if span.end > hole.end {
            left.push(Span { start: span.start.max(hole.end), ..span });
        }
    }
    left.retain(|span| span.start < span.end);
    left
}

/// `spans`, with `span` where they leave it open.
fn fill_gaps(spans: &[Span], span: Span) -> Vec<Span> {
    let mut gaps = vec![span];
    for &taken in spans {
        gaps = subtract(&gaps, taken);
    }
    gaps.extend_from_slice(spans);
    tidy(gaps)
}

/// Sorted, touching spans of one kind joined.
fn tidy(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_by_key(|span| span.start);
    let mut joined: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match joined.last_mut() {
            Some(last) if last.end == span.start && last.written == span.written => {
                last.end = span.end;
            }
            _ => joined.push(span),
        }
    }
    joined
}

/// At most [`SPANS_MAX`] spans: the narrowest gaps become written. Their bytes are zeros in a merged block.
fn coarsen(mut spans: Vec<Span>) -> Vec<Span> {
    while spans.len() > SPANS_MAX {
        let gap = |i: &usize| spans[i + 1].end - spans[*i].start;
        let narrowest = (0..spans.len() - 1).min_by_key(gap).expect("there are spans");
        let next = spans.remove(narrowest + 1);
        spans[narrowest] = Span { start: spans[narrowest].start, end: next.end, written: true };
    }
    tidy(spans)
}

/// Carries out patches: splits what they cover in part, hides what they cover, joins what becomes contiguous.
fn replace(now: Moment, prefix: &AkeyPrefix, old: Vec<Extent>, patches: Vec<Patch>) -> Edit {
    let mut edit = Edit::default();
    let mut parts: Vec<(Extent, bool)> = Vec::with_capacity(old.len() + patches.len());
    for extent in &old {
        let mut block = extent.block;
        let first = patches.partition_point(|patch| patch.to <= extent.block);
        for patch in patches[first..].iter().take_while(|patch| patch.from < extent.end_block()) {
            let (from, to) = (patch.from.max(extent.block), patch.to.min(extent.end_block()));
            if block < from {
                parts.push((extent.part(block, from), true));
            }
            hide(&mut edit, prefix, extent.part(from, to), patch.old, now);
            block = to;
        }
        if block < extent.end_block() {
            parts.push((extent.part(block, extent.end_block()), block > extent.block));
        }
    }
    for patch in patches {
        parts.extend(patch.new.into_iter().map(|extent| (extent, true)));
    }
    parts.sort_by_key(|(extent, _)| extent.block);
    store(&mut edit, prefix, &old, join(now, parts));
    edit
}

fn hide(edit: &mut Edit, prefix: &AkeyPrefix, mut extent: Extent, old: Old, now: Moment) {
    match old {
        Old::Replaced => return,
        Old::Emptied if !now.is_kept(extent.epoch) => return,
        Old::Emptied => match &mut extent.body {
            ExtentBody::Unwritten { run } => run.start = 0,
            ExtentBody::Pieces { start, .. } => *start = 0,
            _ => unreachable!("only blocks without data are filled in place"),
        },
        Old::Hidden => {}
    }
    edit.hidden.push((prefix.array(extent.offset()), extent.into_record()));
}

/// Joins neighbours, if one of them is new and no snapshot separates them.
fn join(now: Moment, parts: Vec<(Extent, bool)>) -> Vec<Extent> {
    let mut joined: Vec<(Extent, bool)> = Vec::with_capacity(parts.len());
    for (next, is_new) in parts {
        if let Some((last, last_is_new)) = joined.last_mut()
            && (*last_is_new || is_new)
            && absorb(now, last, &next)
        {
            *last_is_new = true;
        } else {
            joined.push((next, is_new));
        }
    }
    joined.into_iter().map(|(extent, _)| extent).collect()
}

/// Makes `next` a part of `last`, if they are one run here and on the device.
fn absorb(now: Moment, last: &mut Extent, next: &Extent) -> bool {
    let one_view =
        last.epoch == next.epoch || !(now.is_kept(last.epoch) || now.is_kept(next.epoch));
    if last.end_block() != next.block || !one_view {
        return false;
    }
    let blocks = last.body.blocks() + next.body.blocks();
    match (&mut last.body, &next.body) {
        (
            ExtentBody::Blocks { start, len, csums },
            ExtentBody::Blocks { start: next_start, len: next_len, csums: more },
        ) => {
            let full = *len as usize == csums.len() * BLOCK_BYTES;
            let one_run = *start + csums.len() as u64 == *next_start;
            if !full || !one_run || blocks > RUN_BLOCKS_MAX {
                return false;
            }
            *len += next_len;
            csums.extend_from_slice(more);
        }
        (ExtentBody::Unwritten { run }, ExtentBody::Unwritten { run: more }) => {
            let one_run = run.start + u64::from(run.blocks) == more.start;
            if !one_run || blocks > UNWRITTEN_BLOCKS_MAX {
                return false;
            }
            run.blocks = blocks;
        }
        _ => return false,
    }
    last.epoch = last.epoch.max(next.epoch);
    true
}

/// The difference between the extents that were there and those that are to be.
fn store(edit: &mut Edit, prefix: &AkeyPrefix, old: &[Extent], new: Vec<Extent>) {
    let stored = |extents: &[Extent]| {
        extents.iter().map(|extent| extent.body.stored_bytes() as i64).sum::<i64>()
    };
    edit.stored_bytes = stored(&new) - stored(old);
    let is_there = |extents: &[Extent], block| {
        extents.binary_search_by_key(&block, |extent| extent.block).ok()
    };
    for extent in old.iter().filter(|extent| is_there(&new, extent.block).is_none()) {
        edit.removes.push(prefix.array(extent.offset()));
    }
    for extent in new {
        let same = is_there(old, extent.block).is_some_and(|index| old[index] == extent);
        if !same {
            let key = prefix.array(extent.offset());
            edit.puts.push((key, extent.into_record().encode()));
        }
    }
}

const _: () = assert!(ARRAY_OFFSET_MAX.is_multiple_of(BLOCK));
