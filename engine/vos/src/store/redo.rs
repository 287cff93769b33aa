//! Redo operations: what a transaction did to its buckets, one bucket per operation.
//!
//! # On disk
//! FORMAT.md, "Redo operations".

use super::bytes::{get_u16, get_u32};
use crate::pages::{BUCKET_BYTES, BUCKET_HEADER_BYTES, BucketId, BucketKind};

const FORMAT: u8 = 1;
const WRITE: u8 = 2;
const MOVE: u8 = 3;
const FILL: u8 = 4;
const FREE: u8 = 5;

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Redo<'a> {
    /// The bucket becomes one of this kind, all zeros.
    Format {
        bucket: BucketId,
        kind: BucketKind,
    },
    Write {
        bucket: BucketId,
        at: usize,
        bytes: &'a [u8],
    },
    Move {
        bucket: BucketId,
        from: usize,
        to: usize,
        len: usize,
    },
    Fill {
        bucket: BucketId,
        at: usize,
        len: usize,
        byte: u8,
    },
    /// The bucket's content is not needed any more.
    Free {
        bucket: BucketId,
    },
}

impl<'a> Redo<'a> {
    pub(super) fn bucket(&self) -> BucketId {
        match *self {
            Self::Format { bucket, .. }
            | Self::Write { bucket, .. }
            | Self::Move { bucket, .. }
            | Self::Fill { bucket, .. }
            | Self::Free { bucket } => bucket,
        }
    }

    /// Whether nothing that the bucket held before matters after this.
    pub(super) fn resets(&self) -> bool {
        matches!(self, Self::Format { .. } | Self::Free { .. })
    }

    pub(super) fn encode(&self, log: &mut Vec<u8>) {
        let start = |log: &mut Vec<u8>, kind: u8, bucket: BucketId| {
            log.push(kind);
            log.extend_from_slice(&bucket.0.to_le_bytes());
        };
        let number = |log: &mut Vec<u8>, value: usize| {
            log.extend_from_slice(&(value as u16).to_le_bytes());
        };
        match *self {
            Self::Format { bucket, kind } => {
                start(log, FORMAT, bucket);
                log.push(kind as u8);
            }
            Self::Write { bucket, at, bytes } => {
                start(log, WRITE, bucket);
                number(log, at);
                number(log, bytes.len());
                log.extend_from_slice(bytes);
            }
            Self::Move { bucket, from, to, len } => {
                start(log, MOVE, bucket);
                number(log, from);
                number(log, to);
                number(log, len);
            }
            Self::Fill { bucket, at, len, byte } => {
                start(log, FILL, bucket);
                number(log, at);
                number(log, len);
                log.push(byte);
            }
            Self::Free { bucket } => start(log, FREE, bucket),
        }
    }

    /// Takes the first operation off `log`; `None` if it is not one.
    pub(super) fn decode(log: &mut &'a [u8]) -> Option<Self> {
        let bytes: &'a [u8] = log;
        if bytes.len() < 5 {
            return None;
        }
        let bucket = BucketId(get_u32(bytes, 1));
        let number = |index: usize| {
            let at = 5 + 2 * index;
            (bytes.len() >= at + 2).then(|| usize::from(get_u16(bytes, at)))
        };
        let (operation, used) = match bytes[0] {
            FORMAT => (Self::Format { bucket, kind: BucketKind::from_u8(*bytes.get(5)?)? }, 6),
            WRITE => {
                let (at, len) = (number(0)?, number(1)?);
                let operation = Self::Write { bucket, at, bytes: bytes.get(9..9 + len)? };
                (in_bucket(at, len).then_some(operation)?, 9 + len)
            }
            MOVE => {
                let (from, to, len) = (number(0)?, number(1)?, number(2)?);
                let inside = in_bucket(from, len) && in_bucket(to, len);
                (inside.then_some(Self::Move { bucket, from, to, len })?, 11)
            }
            FILL => {
                let (at, len) = (number(0)?, number(1)?);
                let operation = Self::Fill { bucket, at, len, byte: *bytes.get(9)? };
                (in_bucket(at, len).then_some(operation)?, 10)
            }
            FREE => (Self::Free { bucket }, 5),
            _ => return None,
        };
        *log = &bytes[used..];
        Some(operation)
    }

    /// Does to a bucket what the transaction did. `Free` leaves the bytes alone.
    pub(super) fn apply(&self, page: &mut [u8]) {
        match *self {
            Self::Format { .. } => page.fill(0),
            Self::Write { at, bytes, .. } => page[at..at + bytes.len()].copy_from_slice(bytes),
            Self::Move { from, to, len, .. } => page.copy_within(from..from + len, to),
            Self::Fill { at, len, byte, .. } => page[at..at + len].fill(byte),
            Self::Free { .. } => {}
        }
    }
}

/// Whether a range is inside a bucket and outside its header.
pub(super) fn in_bucket(at: usize, len: usize) -> bool {
    at >= BUCKET_HEADER_BYTES && at + len <= BUCKET_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_come_back_and_cut_ones_do_not() {
        let bucket = BucketId(77);
        let all = [
            Redo::Format { bucket, kind: BucketKind::Node },
            Redo::Write { bucket, at: 64, bytes: b"abc" },
            Redo::Move { bucket, from: 64, to: 66, len: 3 },
            Redo::Fill { bucket, at: 16383, len: 1, byte: 9 },
            Redo::Free { bucket },
        ];
        let mut log = Vec::new();
        all.iter().for_each(|operation| operation.encode(&mut log));
        let mut rest = &log[..];
        for operation in all {
            for cut in 0..rest.len() {
                if let Some(found) = Redo::decode(&mut &rest[..cut]) {
                    assert_eq!(found, operation, "whole before the cut");
                }
            }
            assert_eq!(Redo::decode(&mut rest), Some(operation));
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn operations_outside_a_bucket_are_not_operations() {
        let mut log = Vec::new();
        Redo::Fill { bucket: BucketId(1), at: 63, len: 1, byte: 0 }.encode(&mut log);
        assert_eq!(Redo::decode(&mut &log[..]), None);
        log.clear();
        Redo::Fill { bucket: BucketId(1), at: 16383, len: 2, byte: 0 }.encode(&mut log);
        assert_eq!(Redo::decode(&mut &log[..]), None);
    }
}
