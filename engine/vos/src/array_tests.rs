//! Arrays against a byte map: over a `BTreeMap` and a pretended device, with snapshots.

use std::collections::{BTreeMap, HashMap};

use daos_types::{BLOCK_BYTES, Csum, Epoch, ObjectClass, ObjectId, ObjectType, crc32c};

use crate::array::{self, Edit, Moment};
use crate::draft::{Borrowed, Changes, Draft};
use crate::history::{AtSnapshot, HistoryKey, ObjectPrefix, hidden, parse, split_hidden};
use crate::key::{AkeyPrefix, Part, Place};
use crate::kv::{Kv, KvMut, MapKv};
use crate::pages::Abort;
use crate::pieces::{Piece, pieces};
use crate::record::{BLOCK, Record, epoch_of};
use crate::supply::{Base, Filled, Need, Supply};

const BYTES: usize = 24 * BLOCK_BYTES;

/// 0 hole, 1 allocated, else written with this byte.
type Model = Vec<u8>;

struct Random(u64);

impl Random {
    fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        ((self.0 >> 33) as usize) % below
    }
}

#[derive(Default)]
struct Device {
    blocks: HashMap<u64, Vec<u8>>,
    next: u64,
    data: Vec<u8>,
}

impl Device {
    fn content(&self, need: &Need) -> Vec<u8> {
        match need {
            Need::Run { skip, blocks, .. } => {
                self.data[*skip..*skip + *blocks as usize * BLOCK_BYTES].to_vec()
            }
            Need::Merge { base, data, .. } => {
                let mut block = vec![0; BLOCK_BYTES];
                match base {
                    Base::Zeros => {}
                    Base::Bytes { spans, bytes } => {
                        let mut at = 0;
                        for s in spans {
                            block[s.start as usize..s.end as usize]
                                .copy_from_slice(&bytes[at..at + s.bytes()]);
                            at += s.bytes();
                        }
                    }
                    Base::Block { start, csum, spans } => {
                        let old = &self.blocks[start];
                        assert_eq!(crc32c(old), *csum);
                        for s in spans {
                            let range = s.start as usize..s.end as usize;
                            block[range.clone()].copy_from_slice(&old[range]);
                        }
                    }
                }
                if let Some((skip, span)) = data {
                    block[span.start as usize..span.end as usize]
                        .copy_from_slice(&self.data[*skip..*skip + span.bytes()]);
                }
                block
            }
            Need::Unwritten { .. } | Need::Single { .. } | Need::Count { .. } => Vec::new(),
        }
    }
}

impl Supply for Device {
    fn supply(&mut self, need: Need) -> Result<Vec<Filled>, Abort> {
        let content = self.content(&need);
        let mut filled: Vec<Filled> = Vec::new();
        for index in 0..need.blocks() {
            let start = match need.at() {
                Some(at) => at + u64::from(index),
                None => {
                    // Now and then the allocator leaves a gap: needs are answered by several runs.
                    self.next += if self.next % 7 == 6 { 2 } else { 1 };
                    self.next
                }
            };
            let mut csums = Vec::new();
            if content.is_empty() {
                self.blocks.insert(start, vec![0xee; BLOCK_BYTES]);
            } else {
                let from = index as usize * BLOCK_BYTES;
                let block = content[from..from + BLOCK_BYTES].to_vec();
                csums.push(crc32c(&block));
                self.blocks.insert(start, block);
            }
            match filled.last_mut() {
                Some(last) if last.start + u64::from(last.blocks) == start => {
                    last.blocks += 1;
                    last.csums.extend(csums);
                }
                _ => filled.push(Filled { start, blocks: 1, csums }),
            }
        }
        Ok(filled)
    }
}

struct Fixture {
    kv: MapKv,
    history: MapKv,
    device: Device,
    prefix: AkeyPrefix,
    object: ObjectPrefix,
    epoch: u64,
    snapshot: u64,
    stored: i64,
}

impl Fixture {
    fn new() -> Self {
        let oid = ObjectId::new(ObjectType::ArrayByte, ObjectClass::S1, 0, 1);
        Self {
            kv: MapKv::new(),
            history: MapKv::new(),
            device: Device::default(),
            prefix: Place::of_number(7).akey(&"a".into()),
            object: ObjectPrefix::new(oid, 0),
            epoch: 0,
            snapshot: 0,
            stored: 0,
        }
    }

    fn moment(&mut self) -> Moment {
        self.epoch += 1;
        Moment { epoch: Epoch(self.epoch), snapshot: Epoch(self.snapshot) }
    }

    fn apply(&mut self, edit: Edit) {
        for key in edit.removes {
            assert!(KvMut::remove(&mut self.kv, &key).unwrap());
        }
        for (key, value) in edit.puts {
            KvMut::put(&mut self.kv, &key, &value).unwrap();
        }
        for (key, record) in edit.hidden {
            if record.epoch <= Epoch(self.snapshot) {
                let value = hidden(Epoch(self.epoch), &record.encode());
                let key = self.object.record_key(&key, record.epoch);
                assert!(self.history.insert(key, value).is_none());
            } else {
                for run in record.runs() {
                    for block in run.start..run.start + u64::from(run.blocks) {
                        assert!(self.device.blocks.remove(&block).is_some(), "freed twice");
                    }
                }
            }
        }
        self.stored += edit.stored_bytes;
    }

    fn write(&mut self, offset: usize, data: Vec<u8>) {
        let now = self.moment();
        self.device.data = data.clone();
        let edit =
            array::write(&self.kv, now, &self.prefix, (0, offset as u64, &data), &mut self.device);
        self.apply(edit.unwrap());
    }

    fn punch(&mut self, start: usize, end: usize) {
        let now = self.moment();
        let range = (0, start as u64, end as u64);
        let edit = array::punch(&self.kv, now, &self.prefix, range, usize::MAX, &mut self.device);
        self.apply(edit.unwrap().unwrap());
    }

    fn allocate(&mut self, start: usize, end: usize) {
        let now = self.moment();
        let range = (0, start as u64, end as u64);
        let edit = array::allocate(&self.kv, now, &self.prefix, range, &mut self.device);
        self.apply(edit.unwrap());
    }

    fn read(&self, kv: &dyn Kv, offset: usize, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        for piece in pieces(kv, &self.prefix, offset as u64, len as u64).unwrap() {
            match piece {
                Piece::Inline { at, bytes } => out[at..at + bytes.len()].copy_from_slice(&bytes),
                Piece::Blocks { start, csums, copies } => {
                    let mut blocks = Vec::new();
                    for (index, csum) in csums.iter().enumerate() {
                        let block = &self.device.blocks[&(start + index as u64)];
                        assert_eq!(crc32c(block), *csum);
                        blocks.extend_from_slice(block);
                    }
                    for copy in copies {
                        out[copy.to..copy.to + copy.bytes]
                            .copy_from_slice(&blocks[copy.from..copy.from + copy.bytes]);
                    }
                }
            }
        }
        out
    }

    /// Hole, allocated or written, for each byte.
    fn shape(&self, kv: &dyn Kv) -> Vec<u8> {
        let mut shape = vec![0; BYTES];
        let mut last = 0;
        kv.scan(&self.prefix.extents(), &mut |key, value| {
            let Some(Part::Extent(offset)) = self.prefix.part(key) else { panic!("strange key") };
            let extent = array::decode(offset, value);
            assert!(extent.block >= last, "extents overlap");
            last = extent.end_block();
            for (start, end, written) in extent.body.spans() {
                let range = (offset + start) as usize..(offset + end) as usize;
                shape[range].fill(if written { 2 } else { 1 });
            }
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
        shape
    }

    fn check(&self, model: &Model, kv: &dyn Kv, at: (usize, usize)) {
        let shape: Vec<u8> = model.iter().map(|byte| (*byte).min(2)).collect();
        assert!(self.shape(kv) == shape, "written and allocated ranges differ");
        let bytes: Vec<u8> = model.iter().map(|b| if *b < 2 { 0 } else { *b }).collect();
        assert!(self.read(kv, at.0, at.1) == bytes[at.0..at.0 + at.1], "bytes differ");
        let end = model.iter().rposition(|byte| *byte >= 2).map_or(0, |at| at + 1);
        assert_eq!(array::end(kv, &self.prefix).unwrap(), end as u64);
    }

    /// Every block of the device is owned by exactly one record, and stored bytes are their sum.
    fn audit(&self) {
        let mut owned: BTreeMap<u64, u32> = BTreeMap::new();
        let mut stored = 0;
        let mut own = |record: &Record| {
            for run in record.runs() {
                for block in run.start..run.start + u64::from(run.blocks) {
                    *owned.entry(block).or_default() += 1;
                }
            }
        };
        for value in self.kv.values() {
            let record = Record::decode(value).unwrap();
            stored += record.stored_bytes() as i64;
            own(&record);
        }
        for (key, value) in &self.history {
            let (end, record) = split_hidden(value).unwrap();
            assert!(epoch_of(record).unwrap() < end);
            assert!(matches!(parse(key), Some(HistoryKey::Record { .. })));
            own(&Record::decode(record).unwrap());
        }
        assert!(owned.values().all(|owners| *owners == 1), "a block has two owners");
        let mut blocks: Vec<u64> = self.device.blocks.keys().copied().collect();
        blocks.sort_unstable();
        assert!(blocks.iter().eq(owned.keys()), "a block is leaked or lost");
        assert_eq!(stored, self.stored);
    }
}

fn random_range(random: &mut Random) -> (usize, usize) {
    let len = match random.below(6) {
        0 => 1 + random.below(30),
        1 => 1 + random.below(1500),
        2 => 1 + random.below(3 * BLOCK_BYTES),
        3 => (1 + random.below(6)) * BLOCK_BYTES,
        4 => 1 + random.below(BYTES),
        _ => 1 + random.below(BLOCK_BYTES),
    };
    let mut start = random.below(BYTES);
    if random.below(2) == 0 {
        start -= start % BLOCK_BYTES;
    }
    let end = match random.below(3) {
        0 => (start + len).next_multiple_of(BLOCK_BYTES),
        _ => start + len,
    };
    (start, end.min(BYTES))
}

fn run(seed: u64, steps: usize) {
    let mut random = Random(seed);
    let mut fixture = Fixture::new();
    let mut model: Model = vec![0; BYTES];
    let mut snapshots: Vec<(u64, Model)> = Vec::new();
    for _ in 0..steps {
        let (start, end) = random_range(&mut random);
        match random.below(10) {
            0..=4 => {
                let byte = 2 + random.below(250) as u8;
                model[start..end].fill(byte);
                fixture.write(start, vec![byte; end - start]);
            }
            5 | 6 => {
                model[start..end].iter_mut().for_each(|byte| *byte = (*byte).max(1));
                fixture.allocate(start, end);
            }
            7 | 8 => {
                model[start..end].fill(0);
                fixture.punch(start, end);
            }
            _ if snapshots.len() < 3 && random.below(8) == 0 => {
                fixture.snapshot = fixture.moment().epoch.0;
                snapshots.push((fixture.snapshot, model.clone()));
            }
            _ => {}
        }
        let at = random.below(BYTES);
        let some = (at, 1 + random.below(BYTES - at));
        fixture.check(&model, &fixture.kv, some);
        let draft = Draft { below: Box::new(Borrowed(&fixture.kv)), changes: &Changes::new() };
        fixture.check(&model, &draft, some);
        for (epoch, model) in &snapshots {
            let view = AtSnapshot {
                newest: vec![Box::new(Borrowed(&fixture.kv))],
                history: &fixture.history,
                object: fixture.object.clone(),
                epoch: Epoch(*epoch),
            };
            fixture.check(model, &view, some);
        }
        fixture.audit();
    }
}

#[test]
fn arrays_equal_a_byte_map_over_random_changes_and_at_snapshots() {
    for seed in 0..40 {
        let outcome = std::panic::catch_unwind(|| run(seed, 150));
        assert!(outcome.is_ok(), "seed {seed}: run({seed}, 150)");
    }
}

#[test]
fn small_appends_join_into_one_extent() {
    let mut fixture = Fixture::new();
    fixture.device.next = 100_000 * 7;
    for index in 0..5 {
        fixture.write(index * BLOCK_BYTES, vec![3; BLOCK_BYTES]);
    }
    assert_eq!(fixture.kv.len(), 1, "five neighbouring blocks are one extent");
}

#[test]
fn trim_at_the_end_moves_no_data() {
    let mut fixture = Fixture::new();
    fixture.write(0, vec![3; 3 * BLOCK_BYTES]);
    let blocks = fixture.device.blocks.len();
    fixture.punch(2 * BLOCK_BYTES + 5, 1 << 40);
    assert_eq!((fixture.kv.len(), fixture.device.blocks.len()), (1, blocks));
    assert_eq!(array::end(&fixture.kv, &fixture.prefix).unwrap(), 2 * BLOCK + 5);
}

#[test]
fn a_write_into_allocated_blocks_fills_them_in_place() {
    let mut fixture = Fixture::new();
    fixture.allocate(0, 8 * BLOCK_BYTES);
    let before: Vec<u64> = fixture.device.blocks.keys().copied().collect();
    fixture.write(100, vec![9; 5 * BLOCK_BYTES]);
    assert!(before.iter().all(|block| fixture.device.blocks.contains_key(block)));
    assert_eq!(before.len(), fixture.device.blocks.len());
}

#[test]
fn damage_is_not_possible_to_overlook_in_tests() {
    // The pretended device verifies every merge and read: a wrong checksum must fail.
    let mut fixture = Fixture::new();
    fixture.write(0, vec![3; BLOCK_BYTES]);
    fixture.device.blocks.values_mut().for_each(|block| block[0] ^= 1);
    assert_ne!(crc32c(fixture.device.blocks.values().next().unwrap()), Csum::default());
    assert!(std::panic::catch_unwind(|| fixture.read(&fixture.kv, 0, 10)).is_err());
}
