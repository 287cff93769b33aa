//! One node of a B+tree: its layout in a bucket, reading it, and the edits of one node.
//!
//! # Invariants
//! 1. `HEAD + prefix + 2 * count <= heap <= BUCKET_BYTES`; slots end where they say, cells fill `heap..` without
//!    a hole. So free space is one run, and no compaction exists.
//! 2. Keys of a leaf are `prefix ++ suffix`, strictly increasing by slot. Interior nodes have no prefix.
//! 3. Slot 0 of an interior node stands for everything below slot 1: its key is never looked at.
//! 4. An edit is a few operations of tens of bytes beyond its payload: bytes that are in the node already are
//!    moved, not written.
//!
//! # On disk
//! FORMAT.md, "Tree node".

use std::cmp::Ordering;
use std::ops::Range;

use smallvec::SmallVec;

use crate::kv::{Pair, TREE_KEY_MAX, VALUE_MAX};
use crate::pages::{Abort, BUCKET_BYTES, BUCKET_HEADER_BYTES, BucketId, Pages, PagesMut};

const LEVEL_AT: usize = BUCKET_HEADER_BYTES;
const PREFIX_LEN_AT: usize = BUCKET_HEADER_BYTES + 2;
const COUNT_AT: usize = BUCKET_HEADER_BYTES + 4;
const HEAP_AT: usize = BUCKET_HEADER_BYTES + 6;
/// Where the prefix begins, and after it the slots.
const HEAD: usize = BUCKET_HEADER_BYTES + 8;
const SLOT: usize = 2;
const LEAF_CELL_HEAD: usize = 4;
const INTERIOR_CELL_HEAD: usize = 6;

/// Bytes that prefix, slots and cells of a node share.
pub(super) const CAPACITY: usize = BUCKET_BYTES - HEAD;
/// Most bytes that one more separator takes in an interior node.
pub(super) const SEPARATOR_MAX: usize = SLOT + INTERIOR_CELL_HEAD + TREE_KEY_MAX;

const _: () = assert!(BUCKET_BYTES <= u16::MAX as usize);
// A leaf holds at least three of the largest pairs, so a split always makes room.
const _: () = assert!(3 * (SLOT + LEAF_CELL_HEAD + TREE_KEY_MAX + VALUE_MAX) <= CAPACITY);

type Page = [u8; BUCKET_BYTES];

#[inline]
fn u16_at(bytes: &Page, at: usize) -> usize {
    u16::from_le_bytes([bytes[at], bytes[at + 1]]).into()
}

fn u16_bytes(value: usize) -> [u8; 2] {
    u16::try_from(value).expect("offsets and lengths in a bucket fit 16 bits").to_le_bytes()
}

/// Makes a bucket of zeros an empty leaf.
pub(crate) fn empty_leaf(page: &mut [u8]) {
    page[HEAP_AT..HEAP_AT + 2].copy_from_slice(&u16_bytes(BUCKET_BYTES));
}

/// A node to read.
#[derive(Clone, Copy)]
pub(super) struct Node<'a>(&'a Page);

impl<'a> Node<'a> {
    #[inline]
    pub(super) fn read<P: Pages + ?Sized>(pages: &'a P, bucket: BucketId) -> Result<Self, Abort> {
        let page = pages.page(bucket)?;
        Ok(Self(page.try_into().expect("a bucket has BUCKET_BYTES")))
    }

    #[inline]
    pub(super) fn level(self) -> u8 {
        self.0[LEVEL_AT]
    }

    #[inline]
    pub(super) fn is_leaf(self) -> bool {
        self.level() == 0
    }

    #[inline]
    pub(super) fn count(self) -> usize {
        u16_at(self.0, COUNT_AT)
    }

    #[inline]
    fn heap(self) -> usize {
        u16_at(self.0, HEAP_AT)
    }

    #[inline]
    pub(super) fn prefix(self) -> &'a [u8] {
        &self.0[HEAD..HEAD + u16_at(self.0, PREFIX_LEN_AT)]
    }

    #[inline]
    fn slots_at(self) -> usize {
        HEAD + u16_at(self.0, PREFIX_LEN_AT)
    }

    #[inline]
    fn slot(self, index: usize) -> usize {
        u16_at(self.0, self.slots_at() + index * SLOT)
    }

    pub(super) fn free(self) -> usize {
        self.heap() - self.slots_at() - self.count() * SLOT
    }

    pub(super) fn used(self) -> usize {
        CAPACITY - self.free()
    }

    /// Key without the prefix.
    #[inline]
    pub(super) fn suffix(self, index: usize) -> &'a [u8] {
        let cell = self.slot(index);
        let len = u16_at(self.0, cell);
        let start = cell + if self.is_leaf() { LEAF_CELL_HEAD } else { INTERIOR_CELL_HEAD };
        &self.0[start..start + len]
    }

    pub(super) fn key(self, index: usize) -> Vec<u8> {
        [self.prefix(), self.suffix(index)].concat()
    }

    #[inline]
    fn value_range(self, index: usize) -> Range<usize> {
        debug_assert!(self.is_leaf());
        let cell = self.slot(index);
        let start = cell + LEAF_CELL_HEAD + u16_at(self.0, cell);
        start..start + u16_at(self.0, cell + 2)
    }

    #[inline]
    pub(super) fn value(self, index: usize) -> &'a [u8] {
        &self.0[self.value_range(index)]
    }

    #[inline]
    pub(super) fn child(self, index: usize) -> BucketId {
        debug_assert!(!self.is_leaf());
        let at = self.slot(index) + 2;
        BucketId(u32::from_le_bytes(self.0[at..at + 4].try_into().expect("4 bytes")))
    }

    fn cell_len(self, index: usize) -> usize {
        let cell = self.slot(index);
        if self.is_leaf() {
            LEAF_CELL_HEAD + u16_at(self.0, cell) + u16_at(self.0, cell + 2)
        } else {
            INTERIOR_CELL_HEAD + u16_at(self.0, cell)
        }
    }

    /// Bytes that the cell takes, with its slot.
    pub(super) fn cell_cost(self, index: usize) -> usize {
        SLOT + self.cell_len(index)
    }

    /// The slots of the cells that came last, so many bytes of them: cells are put below all others.
    pub(super) fn newest(self, bytes: usize) -> impl Iterator<Item = usize> {
        let end = self.heap() + bytes;
        (0..self.count()).filter(move |slot| self.slot(*slot) < end)
    }

    /// Were the pairs in the `count` slots up to `last` put in last, one after the other?
    pub(super) fn are_newest(self, last: usize, count: usize) -> bool {
        let mut cell = self.heap();
        last + 1 >= count
            && (last + 1 - count..=last).rev().all(|slot| {
                let is_next = self.slot(slot) == cell;
                cell += self.cell_len(slot);
                is_next
            })
    }

    /// Where `key` is in a leaf, or where it belongs.
    pub(super) fn search(self, key: &[u8]) -> Result<usize, usize> {
        let prefix = self.prefix();
        match key.strip_prefix(prefix) {
            Some(suffix) => self.search_suffix(&Target::new(suffix)),
            None => Err(if key < prefix { 0 } else { self.count() }),
        }
    }

    /// As [`Node::search`], if the key lies between two keys of the leaf, or beyond an end that is open.
    pub(super) fn search_inside(
        self,
        key: &[u8],
        open_below: bool,
        open_above: bool,
    ) -> Option<Result<usize, usize>> {
        let (prefix, count) = (self.prefix(), self.count());
        let Some(suffix) = key.strip_prefix(prefix) else {
            return match key < prefix {
                true => open_below.then_some(Err(0)),
                false => open_above.then_some(Err(count)),
            };
        };
        let (target, slots_at) = (Target::new(suffix), self.slots_at());
        // The ends alone tell of most leaves that the key is not in them.
        let is_outside = |index: usize, side: Ordering| {
            let key = self.cell_key(slots_at, index, LEAF_CELL_HEAD);
            target.compare(key) == side
        };
        if count == 0 {
            return (open_below && open_above).then_some(Err(0));
        }
        if !open_below && is_outside(0, Ordering::Greater)
            || !open_above && is_outside(count - 1, Ordering::Less)
        {
            return None;
        }
        Some(self.search_suffix(&target))
    }

    fn search_suffix(self, target: &Target<'_>) -> Result<usize, usize> {
        let slots_at = self.slots_at();
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = low.midpoint(high);
            match target.compare(self.cell_key(slots_at, middle, LEAF_CELL_HEAD)) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    #[inline]
    fn cell_key(self, slots_at: usize, index: usize, head: usize) -> &'a [u8] {
        let cell = u16_at(self.0, slots_at + index * SLOT);
        let len = u16_at(self.0, cell);
        &self.0[cell + head..cell + head + len]
    }

    /// The first slot of a leaf with key `>= key`.
    pub(super) fn lower_bound(self, key: &[u8]) -> usize {
        self.search(key).unwrap_or_else(|index| index)
    }

    /// The slot of an interior node whose child covers `key`.
    pub(super) fn child_index(self, key: &[u8]) -> usize {
        let (target, slots_at) = (Target::new(key), self.slots_at());
        let (mut low, mut high) = (1, self.count());
        while low < high {
            let middle = low.midpoint(high);
            let separator = self.cell_key(slots_at, middle, INTERIOR_CELL_HEAD);
            if target.compare(separator).is_gt() { high = middle } else { low = middle + 1 }
        }
        low - 1
    }

    /// Bytes that a pair with this key takes in this leaf; `None` when the key does not begin with the prefix.
    pub(super) fn pair_cost(self, key: &[u8], value_len: usize) -> Option<usize> {
        let suffix = key.strip_prefix(self.prefix())?;
        Some(SLOT + LEAF_CELL_HEAD + suffix.len() + value_len)
    }

    /// Bytes used if the prefix were cut to `prefix_len`.
    pub(super) fn used_with_prefix(self, prefix_len: usize) -> usize {
        let cut = self.prefix().len() - prefix_len;
        self.used() - cut + self.count() * cut
    }

    /// Breaks of the invariants of one node, told in words; bounds are checked before anything else is read.
    pub(super) fn verify(self) -> Result<(), &'static str> {
        let slots_end = self.slots_at() + self.count() * SLOT;
        if slots_end > self.heap() || self.heap() > BUCKET_BYTES {
            return Err("slots and cells overlap");
        }
        if !self.is_leaf() && !self.prefix().is_empty() {
            return Err("an interior node has a prefix");
        }
        let head = if self.is_leaf() { LEAF_CELL_HEAD } else { INTERIOR_CELL_HEAD };
        let mut cells = Vec::with_capacity(self.count());
        for index in 0..self.count() {
            let cell = self.slot(index);
            if cell < self.heap() || cell + head > BUCKET_BYTES {
                return Err("a slot points outside of the cells");
            }
            cells.push(cell..cell + self.cell_len(index));
        }
        cells.sort_by_key(|cell| cell.start);
        let end = cells.iter().try_fold(self.heap(), |end, cell| {
            if cell.start == end { Ok(cell.end) } else { Err("cells leave a hole or overlap") }
        })?;
        if end != BUCKET_BYTES {
            return Err("cells do not end at the end of the bucket");
        }
        let first = if self.is_leaf() { 1 } else { 2 };
        if (first..self.count()).any(|index| self.suffix(index - 1) >= self.suffix(index)) {
            return Err("keys are not in order");
        }
        Ok(())
    }
}

/// A key that is searched for, with its first bytes as a number: they decide nearly every comparison.
struct Target<'k> {
    key: &'k [u8],
    head: u64,
}

impl<'k> Target<'k> {
    fn new(key: &'k [u8]) -> Self {
        Self { key, head: head(key) }
    }

    /// How `other` compares with the key.
    #[inline]
    fn compare(&self, other: &[u8]) -> Ordering {
        head(other).cmp(&self.head).then_with(|| other.cmp(self.key))
    }
}

/// The first 8 bytes, zeros for what is missing: where two differ, the keys differ likewise.
#[inline]
fn head(key: &[u8]) -> u64 {
    if let Some(bytes) = key.first_chunk::<8>() {
        return u64::from_be_bytes(*bytes);
    }
    let mut bytes = [0; 8];
    bytes[..key.len()].copy_from_slice(key);
    u64::from_be_bytes(bytes)
}

/// Cells on their way into a node, in one run of bytes.
#[derive(Default)]
pub(super) struct Cells {
    bytes: SmallVec<[u8; 512]>,
    /// Start of each cell in `bytes`, last slot first: later slots lie lower, as appended ones do.
    starts: SmallVec<[usize; 8]>,
}

impl Cells {
    /// One pair for a leaf, or one child (its number as the value) for an interior node; before all that are here.
    fn unshift(&mut self, suffix: [&[u8]; 2], value: &[u8], leaf: bool) {
        self.starts.push(self.bytes.len());
        self.bytes.extend_from_slice(&u16_bytes(suffix[0].len() + suffix[1].len()));
        if leaf {
            self.bytes.extend_from_slice(&u16_bytes(value.len()));
            self.bytes.extend_from_slice(suffix[0]);
            self.bytes.extend_from_slice(suffix[1]);
            self.bytes.extend_from_slice(value);
        } else {
            self.bytes.extend_from_slice(value);
            self.bytes.extend_from_slice(suffix[0]);
            self.bytes.extend_from_slice(suffix[1]);
        }
    }

    fn pair(suffix: &[u8], value: &[u8]) -> Self {
        let mut cells = Self::default();
        cells.unshift([suffix, b""], value, true);
        cells
    }

    fn separator(key: &[u8], child: BucketId) -> Self {
        let mut cells = Self::default();
        cells.unshift([key, b""], &child.0.to_le_bytes(), false);
        cells
    }

    /// Pairs whose keys all begin with the same `prefix_len` bytes.
    pub(super) fn of_pairs(pairs: &[Pair], prefix_len: usize) -> Self {
        let mut cells = Self::default();
        for (key, value) in pairs.iter().rev() {
            cells.unshift([&key[prefix_len..], b""], value, true);
        }
        cells
    }

    /// Pairs of a leaf under a prefix of `prefix_len` bytes, before all that are here.
    pub(super) fn unshift_pairs(&mut self, from: Node<'_>, slots: Range<usize>, prefix_len: usize) {
        for index in slots.rev() {
            let (prefix, suffix) = (from.prefix(), from.suffix(index));
            let parts = if prefix_len <= prefix.len() {
                [&prefix[prefix_len..], suffix]
            } else {
                [&suffix[prefix_len - prefix.len()..], b"".as_slice()]
            };
            self.unshift(parts, from.value(index), true);
        }
    }

    /// Children of an interior node; the first of them under `first_key`.
    pub(super) fn children(from: Node<'_>, slots: Range<usize>, first_key: &[u8]) -> Self {
        let mut cells = Self::default();
        for index in slots.clone().rev() {
            let key = if index == slots.start { first_key } else { from.suffix(index) };
            cells.unshift([key, b""], &from.child(index).0.to_le_bytes(), false);
        }
        cells
    }
}

/// Makes the bucket an empty node.
pub(super) fn format<P: PagesMut + ?Sized>(
    pages: &mut P,
    bucket: BucketId,
    level: u8,
    prefix: &[u8],
) -> Result<(), Abort> {
    let mut head: SmallVec<[u8; 64]> = SmallVec::new();
    head.extend_from_slice(&[level, 0]);
    head.extend_from_slice(&u16_bytes(prefix.len()));
    head.extend_from_slice(&u16_bytes(0));
    head.extend_from_slice(&u16_bytes(BUCKET_BYTES));
    head.extend_from_slice(prefix);
    pages.write(bucket, LEVEL_AT, &head)
}

fn write_count_and_heap<P: PagesMut + ?Sized>(
    pages: &mut P,
    bucket: BucketId,
    count: usize,
    heap: usize,
) -> Result<(), Abort> {
    let mut both = [0; 4];
    both[..2].copy_from_slice(&u16_bytes(count));
    both[2..].copy_from_slice(&u16_bytes(heap));
    pages.write(bucket, COUNT_AT, &both)
}

/// Puts cells in at `index`. There is room: the caller has looked.
pub(super) fn insert<P: PagesMut + ?Sized>(
    pages: &mut P,
    bucket: BucketId,
    index: usize,
    cells: &Cells,
) -> Result<(), Abort> {
    let node = Node::read(pages, bucket)?;
    let (count, added, slots_at) = (node.count(), cells.starts.len(), node.slots_at());
    assert!(node.free() >= cells.bytes.len() + added * SLOT, "the caller made room");
    let heap = node.heap() - cells.bytes.len();
    let mut slots: SmallVec<[u8; 64]> = SmallVec::new();
    for start in cells.starts.iter().rev() {
        slots.extend_from_slice(&u16_bytes(heap + start));
    }
    pages.write(bucket, heap, &cells.bytes)?;
    let at = slots_at + index * SLOT;
    if index < count {
        pages.copy_within(bucket, at, at + added * SLOT, (count - index) * SLOT)?;
    }
    pages.write(bucket, at, &slots)?;
    write_count_and_heap(pages, bucket, count + added, heap)
}

pub(super) fn insert_pair<P: PagesMut + ?Sized>(
    pages: &mut P,
    bucket: BucketId,
    index: usize,
    suffix: &[u8],
    value: &[u8],
) -> Result<(), Abort> {
    insert(pages, bucket, index, &Cells::pair(suffix, value))
}

pub(super) fn insert_child<P: PagesMut + ?Sized>(
    pages: &mut P,
    bucket: BucketId,
    index: usize,
    key: &[u8],
    child: BucketId,
) -> Result<(), Abort> {
    insert(pages, bucket, index, &Cells::separator(key, child))
}

pub(super) fn set_child<P: PagesMut + ?Sized>(
    pages: &mut P,
    bucket: BucketId,
    index: usize,
    child: BucketId,
) -> Result<(), Abort> {
    let at = Node::read(pages, bucket)?.slot(index) + 2;
    pages.write(bucket, at, &child.0.to_le_bytes())
}

/// Overwrites the key of a child by one of the same length.
pub(super) fn set_separator<P: PagesMut + ?Sized>(
    pages: &mut P,
    bucket: BucketId,
    index: usize,
    key: &[u8],
) -> Result<(), Abort> {
    let node = Node::read(pages, bucket)?;
    assert_eq!(node.suffix(index).len(), key.len(), "only the bytes change");
    let at = node.slot(index) + INTERIOR_CELL_HEAD;
    pages.write(bucket, at, key)
}

/// Takes the cells of `slots` out; what lies below them moves up.
pub(super) fn remove<P: PagesMut + ?Sized>(
    pages: &mut P,
    bucket: BucketId,
    slots: Range<usize>,
) -> Result<(), Abort> {
    if slots.is_empty() {
        return Ok(());
    }
    let node = Node::read(pages, bucket)?;
    let (count, heap, slots_at) = (node.count(), node.heap(), node.slots_at());
    let gaps = gaps(node, slots.clone());
    let removed: usize = gaps.iter().map(Range::len).sum();

    // Slots as they are after the cells have moved up and the rest has closed up.
    let kept = |index: usize| if index < slots.start { index } else { index + slots.len() };
    let changed = changed_slots(count - slots.len(), |index| {
        let cell = node.slot(kept(index));
        (cell, cell + space_above(&gaps, cell))
    });

    // From the top down, so that nothing is overwritten before it has moved.
    let mut shift = 0;
    for (index, gap) in gaps.iter().enumerate().rev() {
        shift += gap.len();
        let below = if index == 0 { heap } else { gaps[index - 1].end };
        if below < gap.start {
            pages.copy_within(bucket, below, below + shift, gap.start - below)?;
        }
    }
    if slots.end < count {
        let (from, to) = (slots_at + slots.end * SLOT, slots_at + slots.start * SLOT);
        pages.copy_within(bucket, from, to, (count - slots.end) * SLOT)?;
    }
    write_slots(pages, bucket, slots_at, changed)?;
    write_count_and_heap(pages, bucket, count - slots.len(), heap + removed)
}

/// The byte ranges of the cells of `slots`, upwards, neighbours joined.
fn gaps(node: Node<'_>, slots: Range<usize>) -> SmallVec<[Range<usize>; 8]> {
    let mut cells: SmallVec<[Range<usize>; 8]> =
        slots.map(|index| node.slot(index)..node.slot(index) + node.cell_len(index)).collect();
    cells.sort_unstable_by_key(|cell| cell.start);
    let mut gaps: SmallVec<[Range<usize>; 8]> = SmallVec::new();
    for cell in cells {
        match gaps.last_mut() {
            Some(gap) if gap.end == cell.start => gap.end = cell.end,
            _ => gaps.push(cell),
        }
    }
    gaps
}

fn space_above(gaps: &[Range<usize>], cell: usize) -> usize {
    gaps.iter().rev().take_while(|gap| gap.start > cell).map(Range::len).sum()
}

/// The run of slots from the first to the last that changes, and its first.
fn changed_slots(
    count: usize,
    old_and_new: impl Fn(usize) -> (usize, usize),
) -> Option<(usize, SmallVec<[u8; 512]>)> {
    let (mut first, mut bytes, mut end) = (None, SmallVec::new(), 0);
    for index in 0..count {
        let (old, new) = old_and_new(index);
        if old == new && first.is_none() {
            continue;
        }
        first.get_or_insert(index);
        bytes.extend_from_slice(&u16_bytes(new));
        if old != new {
            end = bytes.len();
        }
    }
    bytes.truncate(end);
    first.map(|first| (first, bytes))
}

fn write_slots<P: PagesMut + ?Sized>(
    pages: &mut P,
    bucket: BucketId,
    slots_at: usize,
    changed: Option<(usize, SmallVec<[u8; 512]>)>,
) -> Result<(), Abort> {
    match changed {
        Some((first, bytes)) => pages.write(bucket, slots_at + first * SLOT, &bytes),
        None => Ok(()),
    }
}

/// Replaces `removed` bytes of a value at `at` by `inserted`. There is room for what it grows by.
pub(super) fn splice<P: PagesMut + ?Sized>(
    pages: &mut P,
    bucket: BucketId,
    index: usize,
    at: usize,
    removed: usize,
    inserted: &[u8],
) -> Result<(), Abort> {
    let node = Node::read(pages, bucket)?;
    let (cell, value, heap) = (node.slot(index), node.value_range(index), node.heap());
    assert!(at + removed <= value.len(), "a splice lies inside its value");
    let place = value.start + at;
    if removed == inserted.len() {
        return if removed == 0 { Ok(()) } else { pages.write(bucket, place, inserted) };
    }
    assert!(node.free() + removed >= inserted.len(), "the caller made room");
    // Everything from the heap's start to the place moves by the difference.
    let moved = |offset: usize| offset + removed - inserted.len();
    let changed = changed_slots(node.count(), |index| {
        let other = node.slot(index);
        (other, if other <= cell { moved(other) } else { other })
    });
    let slots_at = node.slots_at();
    pages.copy_within(bucket, heap, moved(heap), place - heap)?;
    if !inserted.is_empty() {
        pages.write(bucket, moved(place), inserted)?;
    }
    pages.write(bucket, moved(cell) + 2, &u16_bytes(value.len() + inserted.len() - removed))?;
    write_slots(pages, bucket, slots_at, changed)?;
    pages.write(bucket, HEAP_AT, &u16_bytes(moved(heap)))
}

/// Makes `to` hold what `from` holds, level included.
pub(super) fn copy<P: PagesMut + ?Sized>(
    pages: &mut P,
    from: BucketId,
    to: BucketId,
) -> Result<(), Abort> {
    let node = Node::read(pages, from)?;
    let slots_end = node.slots_at() + node.count() * SLOT;
    let head = node.0[LEVEL_AT..slots_end].to_vec();
    let cells = node.0[node.heap()..].to_vec();
    pages.write(to, LEVEL_AT, &head)?;
    if cells.is_empty() { Ok(()) } else { pages.write(to, BUCKET_BYTES - cells.len(), &cells) }
}
