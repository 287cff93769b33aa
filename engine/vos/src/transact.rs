//! A transaction from its conditions to its answer, through the stages of a request.
//!
//! # Order
//! Admit > Reserve > Pull > Persist > Commit > Reply. Data writes start in Persist, before the record that refers to them
//! is made in Commit; Reply waits for the commit mark. Locks are held from Reserve to Commit.

use std::cell::Cell;
use std::collections::HashMap;

use daos_types::rpc::{ARRAY_OFFSET_MAX, Condition, Op, Reply, Transact};
use daos_types::{ContainerId, Error, Result};
use daos_xstream::Stage;

use crate::array::Moment;
use crate::commit::{Commit, Finished, stored_bytes_of};
use crate::condition::{Verdict, judge};
use crate::ground::{Ground, PLAN_EPOCH};
use crate::lock::LockKey;
use crate::newest::Newest;
use crate::pages::Abort;
use crate::plan::{Objects, Plan};
use crate::prepare::{Preparation, Prepared};
use crate::record::INLINE_BYTES_MAX;
use crate::store::{Claim, Committed, Lsn, TxOptions, View};
use crate::supply::Need;
use crate::vos::Vos;
use crate::{punch, update};

/// A plan that keeps being overtaken by others is given up after so many times: the locks make that impossible for
/// arrays, and nothing else changes so often.
const PLANS_MAX: u32 = 1000;
/// Times that a transaction waits for space before it is told that there is none.
const SHORT_MAX: u32 = 200;
/// Records that one step of a count looks at.
const COUNT_STEP: usize = 512;

/// What the needs of a transaction are known from.
#[derive(PartialEq)]
enum Basis {
    /// It will hardly have any.
    Nothing,
    Guess(Vec<Need>),
    Plan,
}

/// What the plan found: verdicts that are not known from metadata alone, and their answers.
#[derive(Default)]
struct Judged(Vec<(usize, Verdict, bool)>);

impl Vos {
    pub(crate) async fn transact(&self, request: &Transact) -> Result<Reply> {
        let mut basis = match wants_plan(&request.ops) {
            true => self.guess(request).map_or(Basis::Plan, Basis::Guess),
            false => Basis::Nothing,
        };
        Stage::Reserve.enter();
        let mut held = None;
        let mut short = 0;
        for _ in 0..PLANS_MAX {
            if basis == Basis::Plan && held.is_none() {
                held = Some(self.locks.acquire(self.lock_keys(request)).await);
            }
            let frees = self.store.frees();
            let attempt = self.attempt(request, &basis).await;
            match attempt {
                Ok(Some(committed)) => {
                    drop(held.take());
                    let Finished { detached, stored_bytes } = committed.value;
                    if detached {
                        self.background.notify_all();
                    }
                    Stage::Reply.enter();
                    self.store.acknowledged(committed.lsn).await?;
                    return Ok(Reply::Transacted { epoch: committed.epoch, stored_bytes });
                }
                Ok(None) => {
                    if matches!(basis, Basis::Guess(_)) {
                        self.guesses.failed(&request.ops);
                    }
                    basis = Basis::Plan;
                }
                Err(error @ Error::Condition { .. }) => return Err(error),
                // Whatever else is wrong with it, its plan says it, and what it may do about space.
                Err(_) if matches!(basis, Basis::Guess(_)) => basis = Basis::Plan,
                Err(Error::NoSpace) if short < SHORT_MAX => {
                    short += 1;
                    // Nothing is held meanwhile that others could wait for: who gives back may need the same dkey.
                    held = None;
                    if !self.make_room(frees).await? {
                        return Err(Error::NoSpace);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Invalid("the objects of the transaction change too fast"))
    }

    /// Prepares it and commits it; `None`: it has to be planned, or planned again.
    async fn attempt(
        &self,
        request: &Transact,
        basis: &Basis,
    ) -> Result<Option<Committed<Finished>>> {
        let (prepared, judged, claim) = match basis {
            Basis::Nothing => (Prepared::default(), Judged::default(), claim(&request.ops)),
            Basis::Guess(needs) => {
                let (prepared, claim) = self.fill(request, needs.clone()).await?;
                (prepared, Judged::default(), claim)
            }
            Basis::Plan => self.prepare(request).await?,
        };
        Stage::Commit.enter();
        let committed = self.commit(request, &prepared, &judged, claim).await?;
        if committed.is_some() {
            self.tails.learn(request, &prepared);
        }
        Ok(committed)
    }

    /// What the transaction will most likely need; `None`: it has to be planned.
    fn guess(&self, request: &Transact) -> Option<Vec<Need>> {
        let needs = || self.guesses.needs(request.container, &request.ops, &self.tails);
        self.locks.are_free(locked(request)).then(needs).flatten()
    }

    /// Starts filling guessed blocks.
    async fn fill(&self, request: &Transact, needs: Vec<Need>) -> Result<(Prepared, Claim)> {
        Stage::Persist.enter();
        let (store, ops) = (&self.store, request.ops.as_slice());
        let claim = claim(ops);
        let options = TxOptions { claim, ..TxOptions::default() };
        let (counted, known) = (HashMap::new(), self.tails.block(request));
        let preparation = Preparation { store, ops, options, guard: None, counted, known };
        Ok((preparation.run(needs).await?, claim))
    }

    /// Everything in one closure; `None`: it has to be planned again.
    async fn commit(
        &self,
        request: &Transact,
        prepared: &Prepared,
        judged: &Judged,
        claim: Claim,
    ) -> Result<Option<Committed<Finished>>> {
        let stale = Cell::new(false);
        let failed = Cell::new(false);
        let run = |tx: &mut crate::store::Tx<'_>| {
            stale.set(false);
            failed.set(false);
            let roots = (&self.roots, self.hash());
            let place = (request.container, claim);
            let mut ground = Commit::begin(tx, roots, place, prepared, &stale)?;
            for (index, condition) in request.conditions.iter().enumerate() {
                let holds = match judge(&ground, condition)? {
                    Verdict::Known(holds) => holds,
                    verdict => judged.answer(index, &verdict).ok_or_else(|| ground.stale())?,
                };
                if !holds {
                    failed.set(true);
                    return Err(Error::Condition { index: index as u32 }.into());
                }
            }
            apply(&mut ground, &request.ops)?;
            ground.finish(request.ops.first().map(Op::object))
        };
        let options = TxOptions { claim, ..TxOptions::default() };
        let result = self.store.transact(options, run).await;
        if stale.get() && result.is_err() {
            return Ok(None);
        }
        if failed.get() && result.is_err() {
            // What made it fail must not be lost after we told.
            self.store.acknowledged(self.store.newest()).await?;
        }
        if result.is_ok() && !self.watches.is_empty() {
            let objects = request.ops.iter().map(Op::object);
            objects.for_each(|object| self.watches.disturb(request.container, object));
        }
        result.map(Some)
    }

    /// Decides the transaction without changing anything, and starts filling the blocks that it needs.
    async fn prepare(&self, request: &Transact) -> Result<(Prepared, Judged, Claim)> {
        self.count("plans");
        let guard = self.store.read_guard();
        let plan = |pages: &View<'_>| self.plan(pages, request);
        let ((verdicts, planned), lsn) = self.store.view(plan).await?;
        let judged = self.judge_all(&request.conditions, verdicts, lsn).await?;
        // Conditions come first: what an operation would have said does not matter if they fail.
        let (needs, claim) = planned?;
        self.guesses.planned(request.container, &request.ops, &self.tails, &needs);
        Stage::Pull.enter();
        let mut counted = HashMap::new();
        for (index, need) in needs.iter().enumerate() {
            if let Need::Count { object, .. } = need {
                let watch = self.watches.set(request.container, *object);
                let bytes = self.stored_in(request.container, need).await?;
                counted.insert(index, (bytes, watch));
            }
        }
        Stage::Persist.enter();
        let (store, ops) = (&self.store, request.ops.as_slice());
        let options = TxOptions { claim, ..TxOptions::default() };
        let preparation =
            Preparation { store, ops, options, guard: Some(guard), counted, known: None };
        Ok((preparation.run(needs).await?, judged, claim))
    }

    #[allow(clippy::type_complexity)]
    fn plan(
        &self,
        pages: &View<'_>,
        request: &Transact,
    ) -> Result<(Vec<Verdict>, Result<(Vec<Need>, Claim)>), Abort> {
        let record = self.roots.container(pages, request.container)?;
        let moment = Moment { epoch: PLAN_EPOCH, snapshot: record.newest_snapshot };
        let objects = Newest { pages, roots: &self.roots, container: request.container };
        let mut ground = Plan::new(&objects, moment, self.hash());
        let judged = request.conditions.iter().map(|condition| judge(&ground, condition));
        let verdicts = judged.collect::<Result<_, Abort>>()?;
        match apply(&mut ground, &request.ops) {
            Ok(()) => {
                let claim = match claim(&request.ops) {
                    Claim::Grow if ground.replaces() => Claim::Replace,
                    claim => claim,
                };
                Ok((verdicts, Ok((ground.into_needs(), claim))))
            }
            Err(Abort::Error(error)) => Ok((verdicts, Err(error))),
            Err(abort) => Err(abort),
        }
    }

    async fn judge_all(
        &self,
        conditions: &[Condition],
        verdicts: Vec<Verdict>,
        lsn: Lsn,
    ) -> Result<Judged> {
        let mut judged = Judged::default();
        for (index, verdict) in verdicts.into_iter().enumerate() {
            let holds = match &verdict {
                Verdict::Known(holds) => *holds,
                Verdict::Read { len, pieces } => {
                    let Condition::Equals { bytes, .. } = &conditions[index] else {
                        unreachable!("only bytes are compared");
                    };
                    self.read_pieces(*len, pieces).await?.starts_with(bytes)
                }
            };
            if !holds {
                self.store.acknowledged(lsn).await?;
                return Err(Error::Condition { index: index as u32 });
            }
            judged.0.push((index, verdict, holds));
        }
        Ok(judged)
    }

    /// Stored bytes of a range of an object, in bounded steps.
    async fn stored_in(&self, container: ContainerId, need: &Need) -> Result<u64> {
        let Need::Count { object, from, to } = need else { return Ok(0) };
        let mut next = from.clone();
        let mut bytes = 0;
        loop {
            let step = |pages: &View<'_>| {
                let newest = Newest { pages, roots: &self.roots, container };
                newest.kv(*object)?.range(&next, to.as_deref(), COUNT_STEP)
            };
            let (pairs, _) = self.store.view(step).await?;
            for (_, value) in &pairs {
                bytes += stored_bytes_of(value).map_err(|_| crate::ground::STRANGE)?;
            }
            match pairs.last() {
                Some((key, _)) if pairs.len() == COUNT_STEP => next = [key, &[0][..]].concat(),
                _ => return Ok(bytes),
            }
        }
    }

    /// The dkeys whose arrays the transaction changes, each once.
    fn lock_keys(&self, request: &Transact) -> Vec<LockKey> {
        let mut keys: Vec<LockKey> = locked(request).collect();
        keys.sort();
        keys.dedup();
        keys
    }
}

/// The dkeys whose arrays the transaction changes.
fn locked(request: &Transact) -> impl Iterator<Item = LockKey> {
    request.ops.iter().filter_map(|op| match op {
        Op::UpdateArray { key, .. } | Op::Allocate { key, .. } | Op::PunchRange { key, .. } => {
            Some((request.container, key.object, key.dkey.clone()))
        }
        _ => None,
    })
}

impl Judged {
    fn answer(&self, index: usize, verdict: &Verdict) -> Option<bool> {
        let found = self.0.iter().find(|(judged, there, _)| *judged == index && there == verdict);
        found.map(|(_, _, holds)| *holds)
    }
}

/// Carries out operations in their order.
fn apply(ground: &mut dyn Ground, ops: &[Op]) -> Result<(), Abort> {
    for (index, op) in ops.iter().enumerate() {
        match op {
            Op::UpdateSingle { key, value } => update::update_single(ground, index, key, value)?,
            Op::UpdateArray { key, offset, data } => {
                update::update_array(ground, index, key, *offset, data)?;
            }
            Op::Allocate { key, offset, len } => {
                update::allocate(ground, index, key, (*offset, *len))?;
            }
            Op::PunchRange { key, offset, len } => {
                punch::punch_range(ground, index, key, (*offset, *len))?;
            }
            Op::PunchAkey(key) => punch::punch_akey(ground, key)?,
            Op::PunchDkey { object, dkey } => punch::punch_dkey(ground, *object, dkey)?,
            Op::PunchDkeysFrom { object, from } => {
                punch::punch_dkeys_from(ground, *object, *from)?;
            }
            Op::PunchObject { object } => punch::punch_object(ground, *object)?,
            Op::Add { key, delta } => update::add(ground, key, *delta)?,
        }
    }
    Ok(())
}

/// Will it need blocks, as far as can be seen from here? If not, the closure is tried at once.
fn wants_plan(ops: &[Op]) -> bool {
    ops.iter().any(|op| match op {
        Op::UpdateArray { .. } | Op::Allocate { .. } => true,
        Op::UpdateSingle { value, .. } => value.len() > INLINE_BYTES_MAX,
        _ => false,
    })
}

/// What it does to the space, as far as can be seen from here. Deletes and truncates give back; other punches may leave
/// more records than there were.
fn claim(ops: &[Op]) -> Claim {
    let gives_back = |op: &Op| match op {
        Op::PunchObject { .. } | Op::PunchDkeysFrom { .. } => true,
        Op::PunchRange { offset, len, .. } => offset.saturating_add(*len) >= ARRAY_OFFSET_MAX,
        _ => false,
    };
    let punches =
        |op: &Op| matches!(op, Op::PunchRange { .. } | Op::PunchAkey(_) | Op::PunchDkey { .. });
    match () {
        () if wants_plan(ops) => Claim::Grow,
        () if ops.iter().any(gives_back) => Claim::GiveBack,
        () if ops.iter().any(punches) => Claim::Replace,
        () => Claim::Grow,
    }
}
