//! What is given back in the background: detached trees, destroyed containers, history that no snapshot sees any more.
//!
//! # Invariants
//! 1. A step is one transaction of bounded size, and takes nothing that a reader can reach.
//! 2. A history record goes only if no snapshot `s` has `epoch <= s < end`; a state only if it is not the first one after
//!    some snapshot.

use std::rc::{Rc, Weak};

use daos_types::rpc::SnapshotInfo;
use daos_types::{ContainerId, Epoch, Error, Result};

use crate::commit::runs_of;
use crate::ground::STRANGE;
use crate::history::{HistoryKey, parse, split_hidden};
use crate::kv::{Kv, Pair, Seek};
use crate::pages::Abort;
use crate::reclaim::{Contents, Reclaimed};
use crate::record::{Record, Run, epoch_of};
use crate::store::{BlockAddr, BlockRun, Claim, Tx, TxOptions, View};
use crate::vos::Vos;

/// Pairs of one step: each may be blocks in another bucket of the segment table.
const PAIRS: usize = 10;
/// Records of the history that one step looks at.
const SWEEP_RECORDS: usize = 64;
/// Steps that a request makes for itself when space is short, before it asks again.
const ROOM_STEPS: usize = 64;

const OPTIONS: TxOptions = TxOptions { claim: Claim::GiveBack, background: true };

impl Vos {
    pub(crate) fn start_background(self: &Rc<Self>) {
        let (vos, kick) = (Rc::downgrade(self), self.background.clone());
        self.handle.spawn(work(vos, kick));
    }

    /// Gives space back that nobody refers to, or waits for what others give back; false: there is none. `frees`: what the store
    /// told before space was short.
    pub(crate) async fn make_room(&self, frees: u64) -> Result<bool> {
        let mut any = false;
        for _ in 0..ROOM_STEPS {
            if !self.reclaim_step().await? && !self.sweep_step().await? {
                break;
            }
            any = true;
        }
        Ok(any || self.store.wait_for_frees(frees).await?)
    }

    /// Frees some of what was detached; false: nothing is left.
    async fn reclaim_step(&self) -> Result<bool> {
        let is_empty = |pages: &View<'_>| self.roots.reclaim.tree.is_empty(pages);
        if self.store.view(is_empty).await?.0 {
            return Ok(false);
        }
        let step = |tx: &mut Tx<'_>| {
            let reclaim = self.roots.reclaim;
            let Some(reclaimed) = reclaim.step(tx, self.roots.objects, PAIRS)? else {
                return Ok(false);
            };
            let Reclaimed { contents, pairs, .. } = reclaimed;
            let runs = match contents {
                Contents::Object => runs_of(&pairs)?,
                Contents::History => self.history_runs(tx, &pairs)?,
            };
            free(tx, runs)?;
            Ok(true)
        };
        Ok(self.store.transact(OPTIONS, step).await?.value)
    }

    /// What pairs of a history own; trees among them are detached.
    fn history_runs(&self, tx: &mut Tx<'_>, pairs: &[Pair]) -> Result<Vec<Run>, Abort> {
        let mut runs = Vec::new();
        for (key, value) in pairs {
            match parse(key).ok_or(STRANGE)? {
                HistoryKey::State { .. } => {}
                HistoryKey::Record { .. } => {
                    let (_, record) = split_hidden(value).ok_or(STRANGE)?;
                    runs.extend(Record::decode(record).ok_or(STRANGE)?.runs());
                }
                HistoryKey::Tree { tree, .. } => {
                    self.roots.reclaim.add_trees(tx, Contents::Object, &[tree])?;
                }
            }
        }
        Ok(runs)
    }

    /// Sweeps some history of a container that is due; false: none is.
    async fn sweep_step(&self) -> Result<bool> {
        let due = |pages: &View<'_>| {
            let all = self.roots.all_containers(pages)?;
            Ok(all.into_iter().find(|(_, record)| record.sweep_due).map(|(id, _)| id))
        };
        let Some(id) = self.store.view(due).await?.0 else { return Ok(false) };
        let from = self.sweeps.borrow().get(&id).cloned().unwrap_or_default();
        let sweep = |tx: &mut Tx<'_>| self.sweep(tx, id, &from);
        let next = match self.store.transact(OPTIONS, sweep).await {
            Ok(done) => done.value,
            // Destroyed meanwhile.
            Err(Error::NonExistent(_)) => return Ok(true),
            Err(error) => return Err(error),
        };
        let mut sweeps = self.sweeps.borrow_mut();
        match next {
            // A snapshot that was destroyed meanwhile has set the sweep back to the start.
            Some(next) if sweeps.get(&id).cloned().unwrap_or_default() == from => {
                sweeps.insert(id, next);
            }
            _ => drop(sweeps.remove(&id)),
        }
        Ok(true)
    }

    /// One step; where to go on, or `None` at the end.
    fn sweep(
        &self,
        tx: &mut Tx<'_>,
        id: ContainerId,
        from: &[u8],
    ) -> Result<Option<Vec<u8>>, Abort> {
        let mut record = self.roots.container(tx, id)?;
        let snapshots = self.roots.snapshots(tx, id)?;
        let Some(history) = record.history else {
            record.sweep_due = false;
            return self.roots.put_container(tx, id, &record).map(|()| None);
        };
        if snapshots.is_empty() {
            record.sweep_due = false;
            record.history = None;
            self.roots.put_container(tx, id, &record)?;
            self.roots.reclaim.add_trees(tx, Contents::History, &[history])?;
            return Ok(None);
        }
        let pairs = history.view(&*tx).range(from, None, SWEEP_RECORDS)?;
        let mut gone: Vec<Pair> = Vec::new();
        let mut next = None;
        for (key, value) in &pairs {
            if gone.len() == PAIRS {
                break;
            }
            next = Some([key, &[0][..]].concat());
            if !is_needed(&history.view(&*tx), &snapshots, key, value)? {
                gone.push((key.clone(), value.clone()));
            }
        }
        if pairs.is_empty() {
            record.sweep_due = false;
            return self.roots.put_container(tx, id, &record).map(|()| None);
        }
        for (key, _) in &gone {
            history.remove(tx, key)?;
        }
        let runs = self.history_runs(tx, &gone)?;
        free(tx, runs)?;
        Ok(next)
    }
}

/// Can a snapshot see this of the history?
fn is_needed(
    history: &dyn Kv,
    snapshots: &[SnapshotInfo],
    key: &[u8],
    value: &[u8],
) -> Result<bool, Abort> {
    let (from, end) = match parse(key).ok_or(STRANGE)? {
        HistoryKey::Record { .. } => {
            let (end, record) = split_hidden(value).ok_or(STRANGE)?;
            (epoch_of(record).ok_or(STRANGE)?, end)
        }
        HistoryKey::Tree { end, .. } => (Epoch::ZERO, end),
        HistoryKey::State { object, end } => {
            let before = history.seek(key, Seek::Lt)?;
            let before = before.and_then(|(key, _)| match parse(&key) {
                Some(HistoryKey::State { object: other, end }) if other == object => Some(end),
                _ => None,
            });
            (before.unwrap_or_default(), end)
        }
    };
    Ok(snapshots.iter().any(|snapshot| from <= snapshot.epoch && snapshot.epoch < end))
}

fn free(tx: &mut Tx<'_>, runs: Vec<Run>) -> Result<(), Abort> {
    for run in runs {
        tx.free_blocks(BlockRun::new(BlockAddr(run.start), run.blocks))?;
    }
    Ok(())
}

async fn work(vos: Weak<Vos>, kick: daos_xstream::sync::Notify) {
    loop {
        let wait = kick.wait();
        loop {
            let Some(vos) = vos.upgrade() else { return };
            if vos.checking.get() {
                break;
            }
            let handle = vos.handle.clone();
            let more = match vos.reclaim_step().await {
                Ok(false) => vos.sweep_step().await,
                more => more,
            };
            drop(vos);
            match more {
                Ok(true) => handle.yield_now().await,
                Ok(false) => break,
                Err(Error::Stopped | Error::ReadOnly | Error::Latched { .. }) => return,
                Err(error) => {
                    tracing::error!(%error, "giving space back has to wait");
                    break;
                }
            }
        }
        wait.await;
    }
}
