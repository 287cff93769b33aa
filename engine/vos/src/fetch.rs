//! Reading: what gather finds, read and verified. An answer goes out when the commit mark has passed what it read.

use bytes::{Bytes, BytesMut};
use daos_types::rpc::{Fetch, FetchPart, Fetched, Reply, Value};
use daos_types::{ContainerId, Epoch, Error, Noun, ObjectId, Result};
use daos_xstream::Stage;

use crate::commit::SHARD;
use crate::gather::{Found, ObjectAt, ObjectState, Source, SourceOf};
use crate::ground::STRANGE;
use crate::history::{AtSnapshot, ObjectPrefix, decode_state};
use crate::kv::{Kv, MapKv};
use crate::newest::Newest;
use crate::object::{Keys, ObjectKey, SpreadPairs};
use crate::pages::Abort;
use crate::pieces::Piece;
use crate::plan::Objects;
use crate::store::{BlockAddr, Lsn, View};
use crate::vos::Vos;

/// Times that a fetch in steps is begun, before it gives up to see one moment.
const STEPS_TRIES: u32 = 20;
/// Bytes of an array that such a step looks for, at first and at least.
const STEP_BYTES: u64 = 128 << 10;
const STEP_BYTES_MIN: u64 = 4096;

impl Vos {
    pub(crate) async fn fetch(&self, fetch: &Fetch) -> Result<Reply> {
        // Blocks that are overwritten while we read stay what they are.
        let _guard = self.store.read_guard();
        let (found, lsn) = self.find(fetch).await?;
        Stage::Pull.enter();
        let mut fetched = Vec::with_capacity(found.len());
        for part in found {
            fetched.push(match part {
                Found::Single(None) => Fetched::Single(None),
                Found::Single(Some(source)) => Fetched::Single(Some(self.read(&source).await?)),
                Found::Array(source) => Fetched::Array(self.read(&source).await?),
                Found::Object(info) => Fetched::Object(info),
                Found::Akeys(akeys) => {
                    let mut values = Vec::with_capacity(akeys.len());
                    for (akey, source) in akeys {
                        values.push((akey, self.value(&source).await?));
                    }
                    Fetched::Akeys(values)
                }
            });
        }
        Stage::Reply.enter();
        self.store.acknowledged(lsn).await?;
        Ok(Reply::Fetched(fetched))
    }

    /// All parts at one moment.
    async fn find(&self, fetch: &Fetch) -> Result<(Vec<Found>, Lsn)> {
        match self.find_parts(fetch, &fetch.parts).await {
            Err(Error::TooLarge { .. }) => self.find_in_steps(fetch).await,
            found => found,
        }
    }

    async fn find_parts(&self, fetch: &Fetch, parts: &[FetchPart]) -> Result<(Vec<Found>, Lsn)> {
        let find = |pages: &View<'_>| {
            self.check_view(pages, fetch.container, fetch.epoch)?;
            let parts = parts.iter().map(|part| {
                let place = (fetch.container, object_of(part), fetch.epoch);
                let wants_state = matches!(part, FetchPart::Object { .. });
                self.object_at(pages, place, wants_state, |object| object.find(part))
            });
            parts.collect()
        };
        self.store.view(find).await
    }

    /// Parts that lie in more buckets than one view may hold: one after the other, and again from the start if
    /// something changed meanwhile. A single array, or a snapshot, needs no one moment.
    async fn find_in_steps(&self, fetch: &Fetch) -> Result<(Vec<Found>, Lsn)> {
        let one_moment = fetch.parts.len() > 1 && fetch.epoch == Epoch::MAX;
        for _ in 0..STEPS_TRIES {
            let before = self.store.newest();
            let (mut found, mut newest) = (Vec::new(), Lsn::ZERO);
            for part in &fetch.parts {
                let (some, lsn) = self.find_part(fetch, part).await?;
                found.push(some);
                newest = newest.max(lsn);
            }
            if !one_moment || self.store.newest() == before {
                return Ok((found, newest));
            }
        }
        let max = STEPS_TRIES.into();
        Err(Error::TooLarge { what: "a fetch of what changes all the time: its steps", max })
    }

    /// One part; of a long array one piece after the other.
    async fn find_part(&self, fetch: &Fetch, part: &FetchPart) -> Result<(Found, Lsn)> {
        let FetchPart::Array { key, offset, len } = part else {
            let (mut found, lsn) = self.find_parts(fetch, std::slice::from_ref(part)).await?;
            return Ok((found.remove(0), lsn));
        };
        let (mut pieces, mut newest) = (Vec::new(), Lsn::ZERO);
        let (mut at, mut step) = (0, STEP_BYTES);
        while at < *len {
            step = step.min(len - at);
            let (key, offset) = (key.clone(), offset + at);
            let part = FetchPart::Array { key, offset, len: step };
            let (found, lsn) = match self.find_parts(fetch, &[part]).await {
                Err(Error::TooLarge { .. }) if step > STEP_BYTES_MIN => {
                    step /= 2;
                    continue;
                }
                found => found?,
            };
            if let Some(Found::Array(source)) = found.into_iter().next() {
                pieces.extend(source.pieces.into_iter().map(|piece| piece.moved(at as usize)));
            }
            newest = newest.max(lsn);
            at += step;
        }
        Ok((Found::Array(Source { len: *len as usize, pieces }), newest))
    }

    /// The container, and the snapshot if one is meant, must be there.
    pub(crate) fn check_view(
        &self,
        pages: &View<'_>,
        container: ContainerId,
        epoch: Epoch,
    ) -> Result<(), Abort> {
        if !self.roots.has_container(pages, container)? {
            return Err(Error::NonExistent(Noun::Container).into());
        }
        if epoch != Epoch::MAX && !self.roots.has_snapshot(pages, container, epoch)? {
            return Err(Error::NonExistent(Noun::Snapshot).into());
        }
        Ok(())
    }

    /// Shows an object as it is, or as it was at a snapshot; with its record only if that is wanted.
    pub(crate) fn object_at<T>(
        &self,
        pages: &View<'_>,
        (container, object, epoch): (ContainerId, ObjectId, Epoch),
        wants_state: bool,
        with: impl FnOnce(&ObjectAt<'_>) -> Result<T, Abort>,
    ) -> Result<T, Abort> {
        let newest = Newest { pages, roots: &self.roots, container };
        let hash = self.hash();
        if epoch == Epoch::MAX {
            let kv = newest.kv(object)?;
            let state = if wants_state { newest.state(object)? } else { None };
            return with(&ObjectAt { object, hash, kv: &*kv, state });
        }
        let lost = object..=object;
        self.roots.check_losses(pages, self.store.target(), (container, epoch), &lost)?;
        let empty = MapKv::new();
        let tree = self.roots.container(pages, container)?.history.map(|tree| tree.view(pages));
        let history: &dyn Kv = tree.as_ref().map_or(&empty, |tree| tree);
        let prefix = ObjectPrefix::new(object, SHARD);
        let state = match prefix.state_at(history, epoch)? {
            Some(value) => decode_state(&value)
                .ok_or(STRANGE)?
                .map(|data_epoch| ObjectState { data_epoch, stored_bytes: 0 }),
            None => newest.state(object)?.map(|state| ObjectState { stored_bytes: 0, ..state }),
        };
        let mut maps = vec![newest.kv(object)?];
        for (tree, keys) in prefix.trees_after(history, epoch)? {
            maps.push(match keys {
                Keys::Own => Box::new(tree.view(pages)),
                Keys::Whole => {
                    let key = ObjectKey::new(container, object, SHARD);
                    Box::new(SpreadPairs { tree, key }.view(pages))
                }
            });
        }
        let kv = AtSnapshot { newest: maps, history, object: prefix, epoch };
        with(&ObjectAt { object, hash, kv: &kv, state })
    }

    pub(crate) async fn value(&self, source: &SourceOf) -> Result<Value> {
        Ok(match source {
            SourceOf::Single(source) => Value::Single(self.read(source).await?),
            SourceOf::Array(source) => Value::Array(self.read(source).await?),
        })
    }

    async fn read(&self, source: &Source) -> Result<Bytes> {
        self.read_pieces(source.len, &source.pieces).await
    }

    /// `len` bytes made of pieces, zeros where there is none. A single run that covers all is not copied.
    pub(crate) async fn read_pieces(&self, len: usize, pieces: &[Piece]) -> Result<Bytes> {
        if let [Piece::Inline { at: 0, bytes }] = pieces
            && bytes.len() == len
        {
            return Ok(Bytes::copy_from_slice(bytes));
        }
        if let [Piece::Blocks { start, csums, copies }] = pieces
            && let [copy] = copies.as_slice()
            && copy.bytes == len
        {
            let blocks = self.store.read_data(BlockAddr(*start), csums).await?;
            return Ok(blocks.slice(copy.from..copy.from + len));
        }
        let mut out = BytesMut::zeroed(len);
        for piece in pieces {
            match piece {
                Piece::Inline { at, bytes } => out[*at..*at + bytes.len()].copy_from_slice(bytes),
                Piece::Blocks { start, csums, copies } => {
                    let blocks = self.store.read_data(BlockAddr(*start), csums).await?;
                    for copy in copies {
                        out[copy.to..copy.to + copy.bytes]
                            .copy_from_slice(&blocks[copy.from..copy.from + copy.bytes]);
                    }
                }
            }
        }
        Ok(out.freeze())
    }
}

fn object_of(part: &FetchPart) -> ObjectId {
    match part {
        FetchPart::Single(key) | FetchPart::Array { key, .. } => key.object,
        FetchPart::Akeys { object, .. } | FetchPart::Object { object, .. } => *object,
    }
}
