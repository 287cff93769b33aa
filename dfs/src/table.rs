//! Inodes that this mount knows: where each one's record is, what it said last, who has it open.
//!
//! # Invariants
//! 1. A cached record is replaced only by one of the same or a newer version; its home comes and goes with it.
//! 2. Facts (size, data epoch) are kept only if nothing changed them between the start of their fetch and its end.
//! 3. An inode that is open stays in the table; others may be dropped at any time, because homes can be found again
//!    from back pointers. All tables of a [`Budget`] together hold as many inodes as it says and those that are open.
//! 4. Lookups of what is dropped are counted on (`dropped`), of [`DROPPED_PER_INODE`] times as many inodes: the kernel knows many
//!    more than the table, and what is said of "what the kernel knows" is said of them too.
//!
//! # Order
//! Turns on several inodes are taken in the order of their numbers. No mutex here is held across an await.

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use daos_types::Epoch;
use daos_types::rpc::ObjectInfo;

use crate::budget::{Budget, DROPPED_PER_INODE};
use crate::cache::{self, Cache};
use crate::lock::{How, Lock};
use crate::record::Record;
use crate::{Attr, Ino, NAME_BYTES_MAX, Time};

/// Where an inode's record is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Home {
    /// The superblock's `/`.
    Root,
    /// With its only name.
    Entry { parent: Ino, name: Bytes },
    /// The inode table.
    Table,
    /// Without a name, open at this mount, in the orphan object.
    Orphan,
    /// Without a name, open at this mount, in the inode table.
    TableOrphan,
    /// Nowhere: the last name is gone and nothing is stored any more. What is known is what the kernel may still ask.
    Gone,
}

impl Home {
    pub(crate) fn is_named(&self) -> bool {
        matches!(self, Self::Root | Self::Entry { .. } | Self::Table)
    }
}

/// What is known of an inode beyond its record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Facts {
    File(ObjectInfo),
    Directory {
        subdirectories: u64,
        /// When names changed last; 0: not since mkdir.
        stamp: u64,
    },
}

/// A record and where it was found.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) home: Home,
    pub(crate) record: Arc<Record>,
}

/// One known inode.
pub(crate) struct Inode {
    pub(crate) ino: Ino,
    lock: Lock,
    state: Mutex<State>,
}

/// Orders own changes and fetches of this process.
fn tick() -> u64 {
    static TICKS: AtomicU64 = AtomicU64::new(1);
    TICKS.fetch_add(1, Ordering::Relaxed)
}

/// An era that no inode of this process had before: pages outlive the inode that they were read through.
fn next_era() -> u64 {
    static ERAS: AtomicU64 = AtomicU64::new(1);
    ERAS.fetch_add(1, Ordering::Relaxed)
}

#[derive(Default)]
struct State {
    lookups: u64,
    opens: u64,
    loaded: Option<Loaded>,
    /// When an own change of the record was learned last.
    changed: u64,
    /// An access time that is shown, and not stored yet (atime.rs).
    read: Option<Time>,
    facts: Option<Facts>,
    /// `facts` hold but for the stored bytes.
    space_unknown: bool,
    /// Raised whenever facts or data may have changed.
    generation: u64,
    /// Pages of the data cache of other eras are not this file's any more.
    era: u64,
    /// Writes under way.
    writing: Vec<Range<u64>>,
    /// Changes of names in this directory under way, and the newest that ended.
    naming: u32,
    named: Epoch,
    used: bool,
}

impl Inode {
    fn new(ino: Ino) -> Self {
        let state = State { era: next_era(), ..State::default() };
        Self { ino, lock: Lock::default(), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this mutex")
    }

    /// Waits for a turn on this inode.
    pub(crate) async fn turn(self: &Arc<Self>, how: How) -> Turn {
        self.lock.acquire(how).await;
        Turn { inode: Arc::clone(self), how }
    }

    /// Somebody has an exclusive turn, or waits for one.
    pub(crate) fn busy(&self) -> bool {
        self.lock.busy()
    }

    pub(crate) fn loaded(&self) -> Option<Loaded> {
        self.state().loaded.clone()
    }

    pub(crate) fn home(&self) -> Option<Home> {
        self.state().loaded.as_ref().map(|loaded| loaded.home.clone())
    }

    /// Takes what an own change made, unless something newer is known (invariant 1).
    pub(crate) fn learn(&self, loaded: Loaded) {
        self.state().changed = tick();
        self.learn_fetched(loaded);
    }

    /// As `learn`, what a fetch showed. If the fetch began before the caller had this inode, it had the table keep what changes
    /// meanwhile (`Table::fetching`).
    pub(crate) fn learn_fetched(&self, loaded: Loaded) {
        let mut state = self.state();
        let newer =
            state.loaded.as_ref().is_some_and(|old| old.record.version > loaded.record.version);
        if !newer {
            state.loaded = Some(loaded);
        }
    }

    /// What was believed did not hold. An inode without a name has nobody else who could change it.
    pub(crate) fn doubt(&self) {
        let mut state = self.state();
        let named = |loaded: &Loaded| loaded.home.is_named();
        if state.loaded.as_ref().is_some_and(named) {
            state.loaded = None;
        }
        state.facts = None;
        state.generation += 1;
    }

    /// Attributes with the access time that was noted, if one was.
    pub(crate) fn shown(&self, attr: Attr) -> Attr {
        Attr { atime: self.state().read.unwrap_or(attr.atime), ..attr }
    }

    /// It was read at `time`. True: nothing was noted before.
    pub(crate) fn note_read(&self, time: Time) -> bool {
        self.state().read.replace(time).is_none()
    }

    pub(crate) fn noted_read(&self) -> Option<Time> {
        self.state().read
    }

    /// The access time was set otherwise.
    pub(crate) fn forget_read(&self) {
        self.state().read = None;
    }

    /// What was noted is stored, in `loaded`; unless it was noted again meanwhile, which is close enough.
    pub(crate) fn stored_read(&self, loaded: Loaded) {
        self.forget_read();
        self.learn(loaded);
    }

    /// What is known for certain, all of it.
    pub(crate) fn facts(&self) -> Option<Facts> {
        let state = self.state();
        if state.space_unknown { None } else { state.facts }
    }

    /// What is known for certain but for the stored bytes.
    pub(crate) fn size_facts(&self) -> Option<Facts> {
        self.state().facts
    }

    /// An own write, begun at `generation`, made of the facts what `change` says, and left `stored` bytes, if that was told. If
    /// anything else has changed since, nobody knows which of the two was later: then the space is to be asked for.
    pub(crate) fn wrote(
        &self,
        generation: u64,
        stored: Option<u64>,
        change: impl FnOnce(ObjectInfo) -> ObjectInfo,
    ) {
        let mut state = self.state();
        let stored = stored.filter(|_| state.generation == generation);
        state.generation += 1;
        state.facts = match state.facts {
            Some(Facts::File(info)) => {
                let info = change(info);
                let stored_bytes = stored.unwrap_or(info.stored_bytes);
                Some(Facts::File(ObjectInfo { stored_bytes, ..info }))
            }
            _ => None,
        };
        state.space_unknown = stored.is_none();
    }

    /// Before a fetch of facts.
    pub(crate) fn generation(&self) -> u64 {
        self.state().generation
    }

    /// After a fetch of facts that began at `generation` (invariant 2).
    pub(crate) fn learn_facts(&self, generation: u64, facts: Facts) {
        let mut state = self.state();
        if state.generation == generation && state.naming == 0 {
            state.facts = Some(facts);
            state.space_unknown = false;
        }
    }

    /// Facts changed by an own transaction to what `change` makes of them; `None`: nobody knows.
    pub(crate) fn change_facts(&self, change: impl FnOnce(Facts) -> Option<Facts>) {
        let mut state = self.state();
        state.generation += 1;
        state.facts = state.facts.and_then(change);
    }

    /// Names in this directory begin to change, for which it will have `delta` subdirectories more.
    pub(crate) fn naming(self: &Arc<Self>, now: u64, delta: i64) -> Naming {
        self.state().naming += 1;
        Naming { inode: Arc::clone(self), now, delta, stored: None }
    }

    /// Whether the data cache may be asked for `range`; the era to ask for.
    pub(crate) fn cached_era(&self, range: &Range<u64>) -> Option<u64> {
        let state = self.state();
        (!state.is_written(range)).then_some(state.era)
    }

    /// Calls `keep` with the era if what a fetch that began at `generation` brought of `range` is still so.
    pub(crate) fn cacheable(&self, generation: u64, range: &Range<u64>, keep: impl FnOnce(u64)) {
        let state = self.state();
        if state.generation == generation && !state.is_written(range) {
            keep(state.era);
        }
    }

    /// Everything of the file may have changed; the caller has an exclusive turn.
    pub(crate) fn new_era(&self) {
        let mut state = self.state();
        state.era = next_era();
        state.generation += 1;
    }

    /// A write of `range` begins. Until the guard is dropped the data cache is not asked for it.
    pub(crate) fn writing<'a>(
        self: &Arc<Self>,
        cache: &'a Cache,
        range: Range<u64>,
    ) -> Writing<'a> {
        self.state().writing.push(range.clone());
        Writing { inode: Arc::clone(self), cache, range }
    }

    pub(crate) fn lookups(&self) -> u64 {
        self.state().lookups
    }

    /// Nobody has it open, the kernel has forgotten it, and it has no name but is stored; or its last name may be going just now.
    pub(crate) fn is_forsaken(&self) -> bool {
        let busy = self.busy();
        let state = self.state();
        (busy || state.is_orphan()) && state.opens == 0 && state.lookups == 0
    }

    pub(crate) fn opens(&self) -> u64 {
        self.state().opens
    }

    pub(crate) fn opened(&self) {
        self.state().opens += 1;
    }

    /// The number of handles that are left.
    pub(crate) fn closed(&self) -> u64 {
        let mut state = self.state();
        state.opens -= 1;
        state.opens
    }

    /// Whether nobody misses it; `oldest` is when the oldest fetch under way began.
    fn evictable(self: &Arc<Self>, oldest: u64) -> bool {
        let mut state = self.state();
        let used = std::mem::take(&mut state.used);
        let in_use = state.opens > 0 || used || state.is_orphan();
        Arc::strong_count(self) == 1 && !in_use && state.changed < oldest
    }
}

impl State {
    /// What is stored of it would be forgotten with it.
    fn is_orphan(&self) -> bool {
        let home = self.loaded.as_ref().map(|loaded| &loaded.home);
        matches!(home, Some(Home::Orphan | Home::TableOrphan))
    }

    fn is_written(&self, range: &Range<u64>) -> bool {
        // Whole pages are kept, so whole pages count.
        let pages = cache::whole_pages(range);
        self.writing.iter().any(|write| write.start < pages.end && pages.start < write.end)
    }
}

/// A change of names under way. While there is one, what a fetch says of the directory may or may not have it in it, and is not
/// kept; what was known before is known after.
pub(crate) struct Naming {
    inode: Arc<Inode>,
    now: u64,
    delta: i64,
    stored: Option<Epoch>,
}

impl Naming {
    /// It is stored, as of `epoch`.
    pub(crate) fn done(mut self, epoch: Epoch) {
        self.stored = Some(epoch);
    }
}

impl Drop for Naming {
    fn drop(&mut self) {
        let mut state = self.inode.state();
        state.naming -= 1;
        state.generation += 1;
        let (Some(Facts::Directory { subdirectories, stamp }), Some(epoch)) =
            (state.facts, self.stored)
        else {
            // Not stored, or nobody knows whether, or nothing was known before.
            state.facts = None;
            state.named = state.named.max(self.stored.unwrap_or_default());
            return;
        };
        // Of two stamps the one that was stored last is there, which may be the smaller one.
        let last = epoch > state.named;
        state.named = state.named.max(epoch);
        state.facts = Some(Facts::Directory {
            subdirectories: subdirectories.saturating_add_signed(self.delta),
            stamp: if last { self.now } else { stamp },
        });
    }
}

/// A write under way; when it ends, its pages are out of the data cache.
pub(crate) struct Writing<'a> {
    inode: Arc<Inode>,
    cache: &'a Cache,
    range: Range<u64>,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let era = {
            let mut state = self.inode.state();
            // From here on no older fetch leaves anything.
            state.generation += 1;
            state.era
        };
        self.cache.drop_range(self.inode.ino, era, &self.range);
        let mut state = self.inode.state();
        if let Some(at) = state.writing.iter().position(|range| *range == self.range) {
            state.writing.swap_remove(at);
        }
    }
}

/// A turn on an inode; ends when dropped.
pub(crate) struct Turn {
    inode: Arc<Inode>,
    how: How,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.inode.lock.release(self.how);
    }
}

/// Exclusive turns on up to two inodes, in the order of their numbers.
pub(crate) async fn turns(a: &Arc<Inode>, b: Option<&Arc<Inode>>) -> (Turn, Option<Turn>) {
    match b {
        Some(b) if b.ino < a.ino => {
            let second = b.turn(How::Exclusive).await;
            (a.turn(How::Exclusive).await, Some(second))
        }
        Some(b) if b.ino > a.ino => {
            let first = a.turn(How::Exclusive).await;
            (first, Some(b.turn(How::Exclusive).await))
        }
        _ => (a.turn(How::Exclusive).await, None),
    }
}

/// All known inodes of a mount.
pub(crate) struct Table {
    budget: Arc<Budget>,
    inodes: Arc<Inodes>,
}

/// What a table and the [`Budget`] share.
#[derive(Default)]
pub(crate) struct Inodes {
    state: Mutex<TableState>,
    /// How many `state` holds, without its lock.
    count: AtomicUsize,
}

impl std::fmt::Debug for Inodes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} inodes", self.len())
    }
}

impl Inodes {
    fn state(&self) -> MutexGuard<'_, TableState> {
        self.state.lock().expect("no code panics while it holds this mutex")
    }

    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Looks for some that nobody misses.
    fn sweep(&self, budget: &Budget) {
        let mut state = self.state();
        let before = state.inodes.len();
        state.sweep(budget);
        self.went(budget, before - state.inodes.len());
    }

    fn went(&self, budget: &Budget, count: usize) {
        self.count.fetch_sub(count, Ordering::Relaxed);
        budget.went(count);
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        let mut state = self.inodes.state();
        self.inodes.went(&self.budget, state.inodes.len());
        self.budget.dropped_went(state.dropped.len());
        *state = TableState::default();
    }
}

#[derive(Default)]
struct TableState {
    inodes: HashMap<Ino, Arc<Inode>>,
    /// Every inode of the table, next to be looked at by eviction first. One that went and came again is in it more than once, until it is tidied.
    clock: VecDeque<Ino>,
    /// Lookups of inodes that are not in `inodes` and that the kernel has not forgotten.
    dropped: HashMap<Ino, u64>,
    /// When fetches under way began whose inodes are known only at their end, each once.
    fetches: BTreeSet<u64>,
}

/// A fetch under way, of inodes that are known only at its end: what changes meanwhile stays in the table, so that what the fetch
/// brings is not taken for the newest.
pub(crate) struct Fetching<'a> {
    table: &'a Table,
    began: u64,
}

impl Drop for Fetching<'_> {
    fn drop(&mut self) {
        self.table.state().fetches.remove(&self.began);
    }
}

/// Most inodes that one insert looks at in search of one to drop.
const SWEEP_MAX: usize = 16;

/// Memory that a known inode takes with its record, the longest name, the places in the tables and what the allocator adds.
pub const INODE_BYTES_MAX: usize = 1024;
const _: () = {
    let allocated = size_of::<Inode>() + size_of::<Record>() + NAME_BYTES_MAX;
    let places = 2 * (size_of::<(Ino, Arc<Inode>)>() + 3 * size_of::<Ino>());
    let dropped = (DROPPED_PER_INODE + 1) * (size_of::<(Ino, u64)>() + 1);
    assert!(allocated + places + dropped + 96 < INODE_BYTES_MAX);
};

impl Table {
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        let inodes = Arc::default();
        budget.join(&inodes);
        Self { budget, inodes }
    }

    fn state(&self) -> MutexGuard<'_, TableState> {
        self.inodes.state()
    }

    pub(crate) fn known(&self, ino: Ino) -> Option<Arc<Inode>> {
        self.state().inodes.get(&ino).map(Arc::clone)
    }

    /// The inode with this number, known or not, stored or not.
    pub(crate) fn get(&self, ino: Ino) -> Arc<Inode> {
        let mut table = self.state();
        let TableState { inodes, clock, dropped, .. } = &mut *table;
        let inode = match inodes.entry(ino) {
            Slot::Occupied(slot) => Arc::clone(slot.get()),
            Slot::Vacant(slot) => {
                clock.push_back(ino);
                let inode = Inode::new(ino);
                if let Some(lookups) = dropped.remove(&ino) {
                    inode.state().lookups = lookups;
                    self.budget.dropped_went(1);
                }
                self.inodes.count.fetch_add(1, Ordering::Relaxed);
                self.budget.came();
                Arc::clone(slot.insert(Arc::new(inode)))
            }
        };
        inode.state().used = true;
        drop(table);
        if self.budget.is_exceeded() {
            self.budget.who_drops(&self.inodes).sweep(&self.budget);
        }
        inode
    }

    pub(crate) fn fetching(&self) -> Fetching<'_> {
        let mut state = self.state();
        let began = tick();
        state.fetches.insert(began);
        Fetching { table: self, began }
    }

    pub(crate) fn remember(&self, ino: Ino, count: u64) {
        self.get(ino).state().lookups += count;
    }

    pub(crate) fn is_looked_up(&self, ino: Ino) -> bool {
        let table = self.state();
        let known = table.inodes.get(&ino);
        known.is_some_and(|inode| inode.state().lookups > 0) || table.dropped.contains_key(&ino)
    }

    /// A lookup ends of which nobody was told; whether none is left. The inode stays: it was just used.
    pub(crate) fn unremember(&self, ino: Ino) -> bool {
        let mut table = self.state();
        let Some(inode) = table.inodes.get(&ino) else {
            return table.forget_dropped(ino, 1, &self.budget);
        };
        let mut state = inode.state();
        state.lookups = state.lookups.saturating_sub(1);
        state.lookups == 0
    }

    /// Whether no lookup is left.
    pub(crate) fn forget(&self, ino: Ino, count: u64) -> bool {
        let mut table = self.state();
        let Some(inode) = table.inodes.get(&ino) else {
            return table.forget_dropped(ino, count, &self.budget);
        };
        let mut state = inode.state();
        state.lookups = state.lookups.saturating_sub(count);
        let last = state.lookups == 0;
        let in_use = state.opens > 0 || state.is_orphan();
        let unused = last && !in_use && state.changed < table.oldest_fetch();
        drop(state);
        if unused && Arc::strong_count(inode) == 1 {
            table.inodes.remove(&ino);
            self.inodes.went(&self.budget, 1);
            // Its place in `clock` goes when the sweep comes by, or when there are too many such.
            table.tidy();
        }
        last
    }

    pub(crate) fn len(&self) -> usize {
        self.inodes.len()
    }

    /// Those with lookups that are not forgotten.
    pub(crate) fn looked_up(&self) -> Vec<Ino> {
        let known = |(ino, inode): (&Ino, &Arc<Inode>)| (inode.state().lookups > 0).then_some(*ino);
        let table = self.state();
        table.inodes.iter().filter_map(known).chain(table.dropped.keys().copied()).collect()
    }
}

impl TableState {
    fn oldest_fetch(&self) -> u64 {
        self.fetches.first().copied().unwrap_or(u64::MAX)
    }

    /// Takes places out of `clock` when half of them are nobody's, or another's of the same inode.
    fn tidy(&mut self) {
        let Self { inodes, clock, .. } = self;
        if clock.len() > 2 * inodes.len() + SWEEP_MAX {
            let mut seen = HashSet::with_capacity(inodes.len());
            clock.retain(|ino| inodes.contains_key(ino) && seen.insert(*ino));
        }
    }

    /// Whether no lookup is left of an inode that is not known.
    fn forget_dropped(&mut self, ino: Ino, count: u64, budget: &Budget) -> bool {
        let Slot::Occupied(mut lookups) = self.dropped.entry(ino) else { return true };
        *lookups.get_mut() = lookups.get().saturating_sub(count);
        let last = *lookups.get() == 0;
        if last {
            lookups.remove();
            budget.dropped_went(1);
        }
        last
    }

    fn sweep(&mut self, budget: &Budget) {
        let oldest = self.oldest_fetch();
        for _ in 0..SWEEP_MAX {
            let Some(ino) = self.clock.pop_front() else { return };
            match self.inodes.get(&ino) {
                None => {}
                Some(inode) if inode.evictable(oldest) => {
                    let lookups = inode.state().lookups;
                    if lookups > 0 && budget.takes_dropped() {
                        self.dropped.insert(ino, lookups);
                    }
                    self.inodes.remove(&ino);
                }
                Some(_) => self.clock.push_back(ino),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::sample;

    fn loaded(version: u64) -> Loaded {
        Loaded { home: Home::Table, record: Arc::new(Record { version, ..sample() }) }
    }

    #[test]
    fn an_old_record_never_replaces_a_newer_one() {
        let inode = Inode::new(Ino(5));
        inode.learn(loaded(3));
        inode.learn(loaded(2));
        assert_eq!(inode.loaded().unwrap().record.version, 3);
        inode.learn(loaded(4));
        assert_eq!(inode.loaded().unwrap().record.version, 4);
    }

    #[test]
    fn an_inode_that_changes_during_a_fetch_outlasts_it() {
        let table = Table::new(Budget::new(16));
        let crowd = || (100..300).for_each(|ino| drop(table.get(Ino(ino))));
        let fetching = table.fetching();
        table.get(Ino(5)).learn(loaded(3));
        crowd();
        table.forget(Ino(5), 1);
        // What the fetch brings is older, and is not taken.
        table.get(Ino(5)).learn_fetched(loaded(2));
        assert_eq!(table.get(Ino(5)).loaded().unwrap().record.version, 3);
        drop(fetching);
        crowd();
        crowd();
        assert!(table.known(Ino(5)).is_none(), "and it goes when nobody can bring older things");
    }

    #[test]
    fn facts_fetched_across_a_change_are_not_kept() {
        let inode = Inode::new(Ino(5));
        let generation = inode.generation();
        inode.change_facts(|_| None);
        inode.learn_facts(generation, Facts::File(ObjectInfo::default()));
        assert_eq!(inode.facts(), None);
        inode.learn_facts(inode.generation(), Facts::File(ObjectInfo::default()));
        assert!(inode.facts().is_some());
    }

    #[test]
    fn the_table_is_bounded_but_keeps_what_is_open() {
        let table = Table::new(Budget::new(16));
        table.get(Ino(1)).opened();
        for ino in 2..1000 {
            table.get(Ino(ino));
        }
        assert!(table.len() <= 16 + SWEEP_MAX, "{} inodes", table.len());
        assert!(table.known(Ino(1)).is_some());
    }

    #[test]
    fn tables_of_one_budget_give_way_to_each_other() {
        let budget = Budget::new(100);
        let tables: Vec<_> = (0..5).map(|_| Table::new(budget.clone())).collect();
        let total = || tables.iter().map(Table::len).sum::<usize>();
        for (number, table) in tables.iter().enumerate() {
            for ino in 0..1000 {
                table.get(Ino(number as u64 * 10_000 + ino));
                assert!(
                    total() <= 100 + 2 * SWEEP_MAX,
                    "{tables:?}",
                    tables = tables.iter().map(Table::len).collect::<Vec<_>>()
                );
            }
            assert!(table.len() > 30, "the one that is used now has {}", table.len());
        }
        // One at a time, each gets its part, and what is gone takes nothing.
        for ino in 0..1000 {
            tables.iter().for_each(|table| drop(table.get(Ino(100_000 + ino))));
        }
        assert!(tables.iter().all(|table| table.len() > 5));
        drop(tables);
        let alone = Table::new(budget);
        (0..100).for_each(|ino| drop(alone.get(Ino(ino))));
        assert_eq!(alone.len(), 100);
    }

    #[test]
    fn lookups_of_what_was_dropped_are_counted_on() {
        let table = Table::new(Budget::new(16));
        table.remember(Ino(5), 3);
        (100..300).for_each(|ino| drop(table.get(Ino(ino))));
        assert!(table.known(Ino(5)).is_none());
        assert_eq!(table.looked_up(), [Ino(5)]);
        assert!(!table.forget(Ino(5), 1), "the kernel still knows it");
        assert_eq!(table.get(Ino(5)).lookups(), 2);
        (100..300).for_each(|ino| drop(table.get(Ino(ino))));
        table.remember(Ino(5), 1);
        assert_eq!(table.looked_up(), [Ino(5)], "once");
        (100..300).for_each(|ino| drop(table.get(Ino(ino))));
        assert!(table.forget(Ino(5), 3));
        assert!(table.looked_up().is_empty() && table.forget(Ino(5), 1));
        // Not without bounds.
        (1000..3000).for_each(|ino| table.remember(Ino(ino), 1));
        assert!(table.looked_up().len() <= 8 * 16 + SWEEP_MAX, "{}", table.looked_up().len());
    }

    #[test]
    fn forgotten_inodes_leave_no_trace() {
        let table = Table::new(Budget::new(1000));
        for ino in 0..5000 {
            table.remember(Ino(ino), 2);
            table.forget(Ino(ino), 1);
            assert_eq!(table.looked_up(), [Ino(ino)]);
            table.forget(Ino(ino), 1);
        }
        assert_eq!(table.len(), 0);
        assert!(table.state().clock.len() <= 2 * SWEEP_MAX);
    }

    #[test]
    fn inodes_that_come_and_go_have_one_place_in_the_end() {
        let table = Table::new(Budget::new(1000));
        (0..400).for_each(|ino| table.remember(Ino(ino), 1));
        for ino in (0..5).flat_map(|_| 0..400) {
            assert!(table.forget(Ino(ino), 1));
            table.remember(Ino(ino), 1);
            let state = table.state();
            assert!(state.clock.len() <= 2 * state.inodes.len() + SWEEP_MAX + 2);
        }
        assert_eq!(table.len(), 400);
    }

    #[test]
    fn who_was_told_nothing_leaves_the_inode_where_it_is() {
        let table = Table::new(Budget::new(1000));
        table.remember(Ino(5), 2);
        assert!(!table.unremember(Ino(5)) && table.is_looked_up(Ino(5)));
        assert!(table.unremember(Ino(5)) && !table.is_looked_up(Ino(5)));
        assert!(table.looked_up().is_empty() && table.known(Ino(5)).is_some());
        assert!(table.unremember(Ino(6)), "nobody knows it");
    }
}
