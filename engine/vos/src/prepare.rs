//! From a plan's needs to blocks that are being filled: stages Reserve and Persist.
//!
//! # Invariants
//! 1. An answer holds exactly the contents that its need names; old blocks are verified before they are merged.
//! 2. What the commit does not publish goes back, once its device write is complete.

use std::collections::HashMap;

use bytes::Bytes;
use daos_types::rpc::Op;
use daos_types::{BLOCK_BYTES, Csum, Error, Result};

use crate::pages::Abort;
use crate::record::{Run, Span};
use crate::store::{BlockAddr, BlockRun, DataWrite, ReadGuard, Reservation, Store, Tx, TxOptions};
use crate::supply::{Base, Filled, Need, PLANNED};
use crate::tail::KnownBlock;
use crate::watch::Watch;

/// Stored bytes by the index of the need that asks for them.
pub(crate) type Counted = HashMap<usize, (u64, Watch)>;

/// Blocks for every need of a plan, being filled.
#[derive(Default)]
pub(crate) struct Prepared {
    pub needs: Vec<Need>,
    /// One for each need.
    pub answers: Vec<Vec<Filled>>,
    /// The block of the last need that is a merge.
    pub last_block: Option<KnownBlock>,
    reservation: Option<Reservation>,
    fresh: Vec<BlockRun>,
    writes: Vec<DataWrite>,
    counted: Counted,
    /// Blocks that are filled in place are not given to anybody else meanwhile.
    _guard: Option<ReadGuard>,
}

impl Prepared {
    /// The transaction allocates the fresh blocks and depends on all writes.
    pub fn publish(&self, tx: &mut Tx<'_>) -> Result<(), Abort> {
        if let Some(reservation) = &self.reservation {
            for run in &self.fresh {
                tx.publish(reservation, *run)?;
            }
        }
        for write in &self.writes {
            tx.depend(write);
        }
        Ok(())
    }

    /// Does this transaction allocate a block of the run?
    pub fn is_fresh(&self, run: Run) -> bool {
        let end = run.start + u64::from(run.blocks);
        self.fresh.iter().any(|fresh| fresh.addr.0 < end && run.start < fresh.end().0)
    }

    /// The stored bytes of the range that need `index` names; `None`: its object has changed since.
    pub fn counted(&self, index: usize) -> Option<u64> {
        let (bytes, watch) = self.counted.get(&index)?;
        (!watch.is_disturbed()).then_some(*bytes)
    }
}

/// Finds blocks for `needs` and starts filling them.
pub(crate) struct Preparation<'a> {
    pub store: &'a Store,
    pub ops: &'a [Op],
    pub options: TxOptions,
    /// For a plan that looked at blocks.
    pub guard: Option<ReadGuard>,
    /// Stored bytes for the needs that are counts.
    pub counted: Counted,
    /// A block that need not be read.
    pub known: Option<KnownBlock>,
}

impl Preparation<'_> {
    pub async fn run(self, needs: Vec<Need>) -> Result<Prepared> {
        let reservation = self.reserve(&needs).await?;
        let Self { store, ops, counted, guard, known, .. } = self;
        let mut work = Work {
            store,
            ops,
            free: reservation.as_ref().map(|r| r.runs().to_vec()).unwrap_or_default(),
            known,
            planned: 0,
            written: Vec::new(),
            prepared: Prepared { counted, ..Prepared::default() },
        };
        work.free.reverse();
        for need in needs {
            work.answer(need).await?;
        }
        let mut prepared = work.prepared;
        prepared.reservation = reservation;
        prepared._guard = guard;
        Ok(prepared)
    }

    async fn reserve(&self, needs: &[Need]) -> Result<Option<Reservation>> {
        let fresh = needs.iter().filter(|need| need.at().is_none());
        let blocks: u64 = fresh.map(|need| u64::from(need.blocks())).sum();
        if blocks == 0 {
            return Ok(None);
        }
        let blocks = u32::try_from(blocks).map_err(|_| Error::NoSpace)?;
        self.store.reserve(blocks, self.options).await.map(Some)
    }
}

/// Blocks of the plan that are being written.
struct Written {
    /// The plan's number of the first.
    planned: u64,
    write: DataWrite,
    bytes: Bytes,
}

impl Written {
    /// A block by the plan's number, or, as the plan knows one that is filled in place, by its own: address, checksum, bytes.
    fn find(&self, block: u64) -> Option<(u64, Csum, Bytes)> {
        let run = self.write.run();
        let index = [self.planned, run.addr.0]
            .into_iter()
            .filter_map(|first| block.checked_sub(first))
            .find(|index| *index < u64::from(run.blocks))?;
        let from = index as usize * BLOCK_BYTES;
        let bytes = self.bytes.slice(from..from + BLOCK_BYTES);
        Some((run.addr.0 + index, self.write.csums()[index as usize], bytes))
    }
}

struct Work<'a> {
    store: &'a Store,
    ops: &'a [Op],
    /// Reserved runs that are left, the next one last.
    free: Vec<BlockRun>,
    known: Option<KnownBlock>,
    planned: u64,
    /// What became of planned blocks.
    written: Vec<Written>,
    prepared: Prepared,
}

impl Work<'_> {
    async fn answer(&mut self, mut need: Need) -> Result<()> {
        let content = self.content(&mut need).await?;
        let planned = PLANNED + self.planned;
        self.planned += u64::from(need.blocks());
        let mut filled = Vec::new();
        let mut done = 0;
        while done < need.blocks() {
            let run = match need.at() {
                Some(at) => BlockRun::new(BlockAddr(at), need.blocks()),
                None => self.take(need.blocks() - done),
            };
            if need.at().is_none() {
                self.prepared.fresh.push(run);
            }
            filled.push(match &content {
                Some(content) => {
                    let from = done as usize * BLOCK_BYTES;
                    let bytes = content.slice(from..from + run.bytes() as usize);
                    self.write(run, bytes, planned + u64::from(done))?
                }
                None => Filled { start: run.addr.0, blocks: run.blocks, csums: Vec::new() },
            });
            done += run.blocks;
        }
        if let (Need::Merge { .. }, [one], Some(bytes)) = (&need, filled.as_slice(), content) {
            let (start, csum) = (one.start, one.csums[0]);
            self.prepared.last_block = Some(KnownBlock { start, csum, bytes });
        }
        self.prepared.needs.push(need);
        self.prepared.answers.push(filled);
        Ok(())
    }

    fn write(&mut self, run: BlockRun, bytes: Bytes, planned: u64) -> Result<Filled> {
        let write = self.store.write_data(run, bytes.clone())?;
        let csums = write.csums().to_vec();
        self.written.push(Written { planned, write: write.clone(), bytes });
        self.prepared.writes.push(write);
        Ok(Filled { start: run.addr.0, blocks: run.blocks, csums })
    }

    /// At most `blocks` blocks of the reservation.
    fn take(&mut self, blocks: u32) -> BlockRun {
        let run = self.free.pop().expect("the reservation has as many blocks as the needs");
        if run.blocks > blocks {
            self.free.push(run.part(blocks, run.blocks - blocks));
        }
        run.part(0, run.blocks.min(blocks))
    }

    /// What goes into the blocks; a planned base in the need becomes the real one.
    async fn content(&mut self, need: &mut Need) -> Result<Option<Bytes>> {
        match need {
            Need::Unwritten { .. } | Need::Count { .. } => Ok(None),
            Need::Run { op, skip, blocks, .. } => {
                Ok(Some(self.data(*op).slice(*skip..*skip + *blocks as usize * BLOCK_BYTES)))
            }
            Need::Single { op, blocks } => {
                let mut bytes = vec![0; *blocks as usize * BLOCK_BYTES];
                let value = self.data(*op);
                bytes[..value.len()].copy_from_slice(&value);
                Ok(Some(bytes.into()))
            }
            Need::Merge { op, base, data, .. } => {
                let mut block = vec![0; BLOCK_BYTES];
                self.lay_base(base, &mut block).await?;
                if let Some((skip, span)) = data {
                    let piece = &self.data(*op)[*skip..*skip + span.bytes()];
                    block[span.start as usize..span.end as usize].copy_from_slice(piece);
                }
                Ok(Some(block.into()))
            }
        }
    }

    async fn lay_base(&mut self, base: &mut Base, block: &mut [u8]) -> Result<()> {
        match base {
            Base::Zeros => {}
            Base::Bytes { spans, bytes } => {
                let mut at = 0;
                for span in spans {
                    lay(block, *span, &bytes[at..at + span.bytes()]);
                    at += span.bytes();
                }
            }
            Base::Block { start, csum, spans } => {
                let ours = self.written.iter().rev().find_map(|written| written.find(*start));
                let known = self.known.as_ref();
                let known = known.filter(|known| (known.start, known.csum) == (*start, *csum));
                let old = match (ours, known) {
                    (Some((real, real_csum, bytes)), _) => {
                        (*start, *csum) = (real, real_csum);
                        bytes
                    }
                    (None, Some(known)) => known.bytes.clone(),
                    (None, None) => self.store.read_data(BlockAddr(*start), &[*csum]).await?,
                };
                for span in spans {
                    lay(block, *span, &old[span.start as usize..span.end as usize]);
                }
            }
        }
        Ok(())
    }

    fn data(&self, op: usize) -> Bytes {
        match &self.ops[op] {
            Op::UpdateArray { data, .. } => data.clone(),
            Op::UpdateSingle { value, .. } => value.clone(),
            _ => Bytes::new(),
        }
    }
}

fn lay(block: &mut [u8], span: Span, bytes: &[u8]) {
    block[span.start as usize..span.end as usize].copy_from_slice(bytes);
}
