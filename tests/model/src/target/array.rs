//! The array of the model: pieces in a sorted map that never overlap.

use std::collections::BTreeMap;

use bytes::Bytes;

/// One array under one akey of one dkey.
#[derive(Clone, Debug, Default)]
pub struct Array {
    /// By offset. Not empty pieces, not overlapping.
    pieces: BTreeMap<u64, Piece>,
}

#[derive(Clone, Debug)]
pub enum Piece {
    Written(Bytes),
    /// Allocated bytes without data.
    Unwritten(u64),
}

impl Piece {
    fn len(&self) -> u64 {
        match self {
            Self::Written(bytes) => bytes.len() as u64,
            Self::Unwritten(len) => *len,
        }
    }

    fn part(&self, from: u64, len: u64) -> Self {
        match self {
            Self::Written(bytes) => {
                Self::Written(bytes.slice(from as usize..(from + len) as usize))
            }
            Self::Unwritten(_) => Self::Unwritten(len),
        }
    }
}

impl Array {
    /// `data` replaces what is there.
    pub fn write(&mut self, offset: u64, data: Bytes) {
        self.punch(offset, offset + data.len() as u64);
        self.pieces.insert(offset, Piece::Written(data));
    }

    /// Holes of the range become unwritten pieces.
    pub fn allocate(&mut self, start: u64, end: u64) {
        let mut at = start;
        for (offset, len, _) in self.clone().within(start, end) {
            if at < offset {
                self.pieces.insert(at, Piece::Unwritten(offset - at));
            }
            at = offset + len;
        }
        if at < end {
            self.pieces.insert(at, Piece::Unwritten(end - at));
        }
    }

    /// The range becomes a hole.
    pub fn punch(&mut self, start: u64, end: u64) {
        let hit: Vec<(u64, Piece)> =
            self.overlapping(start, end).map(|(offset, piece)| (offset, piece.clone())).collect();
        for (offset, piece) in hit {
            self.pieces.remove(&offset);
            let piece_end = offset + piece.len();
            if offset < start {
                self.pieces.insert(offset, piece.part(0, start - offset));
            }
            if end < piece_end {
                self.pieces.insert(end, piece.part(end - offset, piece_end - end));
            }
        }
    }

    /// The bytes of a range, zeros where there are none.
    pub fn read(&self, offset: u64, len: u64) -> Bytes {
        let mut out = vec![0; len as usize];
        for (at, len, written) in self.within(offset, offset + len) {
            if let Some(bytes) = written {
                let to = (at - offset) as usize;
                out[to..to + len as usize].copy_from_slice(&bytes);
            }
        }
        out.into()
    }

    /// Was every byte of the range written?
    pub fn is_written(&self, offset: u64, len: u64) -> bool {
        let written =
            self.within(offset, offset + len).into_iter().filter(|(_, _, data)| data.is_some());
        written.map(|(_, len, _)| len).sum::<u64>() == len
    }

    /// One past the last written byte; 0 when there is none.
    pub fn end(&self) -> u64 {
        let written =
            self.pieces.iter().rev().find(|(_, piece)| matches!(piece, Piece::Written(_)));
        written.map_or(0, |(offset, piece)| offset + piece.len())
    }

    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub fn stored_bytes(&self) -> u64 {
        self.pieces.values().map(Piece::len).sum()
    }

    /// Written and allocated ranges at or after `from`, neighbours of one kind joined: (offset, len, written).
    pub fn ranges(&self, from: u64) -> Vec<(u64, u64, bool)> {
        let mut ranges: Vec<(u64, u64, bool)> = Vec::new();
        for (offset, len, data) in self.within(from, u64::MAX) {
            match ranges.last_mut() {
                Some(last) if last.0 + last.1 == offset && last.2 == data.is_some() => {
                    last.1 += len
                }
                _ => ranges.push((offset, len, data.is_some())),
            }
        }
        ranges
    }

    /// The parts of pieces inside a range: (offset, len, data if written).
    fn within(&self, start: u64, end: u64) -> Vec<(u64, u64, Option<Bytes>)> {
        let clip = |(offset, piece): (u64, &Piece)| {
            let from = offset.max(start);
            let len = (offset + piece.len()).min(end) - from;
            match piece.part(from - offset, len) {
                Piece::Written(bytes) => (from, len, Some(bytes)),
                Piece::Unwritten(_) => (from, len, None),
            }
        };
        self.overlapping(start, end).map(clip).collect()
    }

    fn overlapping(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, &Piece)> {
        let before = self.pieces.range(..start).next_back().map(|(offset, _)| *offset);
        let pieces = self.pieces.range(before.unwrap_or(start)..);
        pieces
            .map(|(offset, piece)| (*offset, piece))
            .take_while(move |(offset, _)| *offset < end)
            .filter(move |(offset, piece)| offset + piece.len() > start && start < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn array_equals_a_vector_over_random_changes() {
        let mut seed = 7u64;
        let mut random = move |below: u64| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        // 0 hole, 1 unwritten, 2.. written with that byte.
        let mut expected = [0u8; 64];
        let mut array = Array::default();
        for _ in 0..20_000 {
            let start = random(64);
            let end = start + random(65 - start);
            match random(3) {
                0 if start < end => {
                    let byte = 2 + random(250) as u8;
                    array.write(start, vec![byte; (end - start) as usize].into());
                    expected[start as usize..end as usize].fill(byte);
                }
                1 => {
                    array.allocate(start, end);
                    for byte in &mut expected[start as usize..end as usize] {
                        *byte = (*byte).max(1);
                    }
                }
                _ => {
                    array.punch(start, end);
                    expected[start as usize..end as usize].fill(0);
                }
            }
            let read = expected.map(|byte| if byte < 2 { 0 } else { byte });
            assert_eq!(array.read(0, 64), read.as_slice());
            let last = expected.iter().rposition(|byte| *byte >= 2);
            assert_eq!(array.end(), last.map_or(0, |at| at as u64 + 1));
            let mut shape = [0u8; 64];
            for (offset, len, written) in array.ranges(0) {
                shape[offset as usize..(offset + len) as usize].fill(if written { 2 } else { 1 });
            }
            assert_eq!(shape, expected.map(|byte| byte.min(2)));
            assert_eq!(array.is_empty(), expected == [0; 64]);
        }
    }
}
