//! Bodies of requests to one target and of its replies. In one process they travel as they are; a codec joins
//! them when they travel by wire.
//!
//! # The object model, as every implementation must hold it
//! 1. A *value* is either single (one blob, replaced whole) or an array of bytes addressed by offset. An akey is of
//!    one kind at a time: an update of the other kind is [`Error::Invalid`](crate::Error::Invalid).
//! 2. An akey exists while it has a single value or at least one written or allocated byte; a dkey while it has an
//!    akey; nothing is created or deleted apart from its values. An object *record* comes with its first change and stays,
//!    even when its last value is punched, until `Op::PunchObject`.
//! 3. `data_epoch` of an object is the epoch of its newest array change (`UpdateArray`, `PunchRange`; not
//!    `Allocate`, single values or punches of keys). It does not fall when values go; `PunchObject` resets it to 0.
//! 4. `array_end` is one past the last *written* byte of the array under `akey` in the greatest dkey that has one;
//!    allocated (unwritten) space does not count, punched space does not count.
//! 5. Reading what was never written, was punched, or is only allocated gives zeros. [`Extents`] tells written
//!    and allocated ranges apart from holes, exact at the ends of runs to the byte for `array_end` and to
//!    [`BLOCK_BYTES`](crate::BLOCK_BYTES) elsewhere: a written range may be reported larger, out to block borders, never smaller, and
//!    what is reported in excess reads as zeros.
//! 6. Conditions of a transaction are all tested against the state before its first op; if any fails nothing changes
//!    and the answer names the first that failed. Ops apply in order, each sees the ones before it. All of it, or nothing,
//!    survives a crash.
//! 7. Epochs grow with every transaction of a target; a reply carries its transaction's epoch.
//! 8. A fetch, query or list at a snapshot's epoch answers what it would have answered when the snapshot was made.

use bytes::Bytes;

use crate::{Akey, ContainerId, Dkey, Epoch, ObjectId, PoolId};

/// Most bytes of array data in one transaction.
pub const DATA_BYTES_MAX: usize = 4 << 20;
/// Largest single value: an xattr of 64 KiB with room to spare.
pub const SINGLE_BYTES_MAX: usize = 256 << 10;
/// Most conditions and ops in one transaction.
pub const OPS_MAX: usize = 64;
/// Most attributes of a container.
pub const ATTRIBUTES_MAX: usize = 64;
/// Longest value of a container's attribute.
pub const ATTRIBUTE_BYTES_MAX: usize = 1024;
/// Arrays end here, inside one dkey.
pub const ARRAY_OFFSET_MAX: u64 = 1 << 48;

/// What a client may ask one target.
#[derive(Clone, Debug)]
pub enum Request {
    /// Change several keys of several objects of one container, atomically. Reply: `Transacted`.
    Transact(Transact),
    /// Read several keys of several objects, all at one moment. Reply: `Fetched`.
    Fetch(Fetch),
    /// List dkeys or akeys in their order. Reply: `Listed`.
    List(List),
    /// Written and allocated ranges of an array. Reply: `Extents`.
    Extents(Extents),
    /// Wait until everything that the target acknowledged before is on stable media. Reply: `Done`.
    Sync,
    PoolCreate {
        id: PoolId,
        label: String,
    },
    /// Reply: `Pools`.
    PoolList,
    /// Reply: `Container`. `id` is chosen by the pool service, unique in the store.
    ContainerCreate {
        pool: PoolId,
        info: ContainerInfo,
    },
    /// Detaches every object at once; space comes back in the background. Reply: `Done`.
    ContainerDestroy {
        pool: PoolId,
        id: ContainerId,
    },
    /// Reply: `Containers`.
    ContainerList {
        pool: PoolId,
    },
    /// Reply: `ContainerUsage`.
    ContainerQuery {
        pool: PoolId,
        id: ContainerId,
    },
    /// Change what a container is called and how much it may hold; `None` leaves a property as it is. Reply: `Done`.
    ContainerSetProps {
        pool: PoolId,
        id: ContainerId,
        label: Option<String>,
        quota: Option<Quota>,
    },
    /// Set attributes, or delete those without a value, all or none of them. Reply: `Done`.
    ContainerSetAttributes {
        container: ContainerId,
        attributes: Vec<(String, Option<String>)>,
    },
    /// Reply: `Attributes`.
    ContainerAttributes {
        container: ContainerId,
    },
    /// A snapshot of now; its name, if it has one, is the container's only one of that name. Reply: `Snapshot`.
    SnapshotCreate {
        container: ContainerId,
        name: Option<String>,
    },
    SnapshotDestroy {
        container: ContainerId,
        epoch: Epoch,
    },
    /// Reply: `Snapshots`.
    SnapshotList {
        container: ContainerId,
    },
    /// Space and counters of the target. Reply: `Usage`.
    Query,
    /// Verify every invariant of the store while it is in use by nobody else. Reply: `Checked`.
    Check {
        repair: bool,
    },
    /// Read and verify some more of what is stored, while it is in use. Reply: `Scrubbed`.
    Scrub(Scrub),
}

/// Answers, one for each request.
#[derive(Clone, Debug)]
pub enum Reply {
    Done,
    Transacted {
        epoch: Epoch,
        /// Stored bytes of the object of the first operation, on this target, if the transaction changed that object and the target
        /// happens to know.
        stored_bytes: Option<u64>,
    },
    Fetched(Vec<Fetched>),
    Listed(Listed),
    Extents(Vec<ExtentInfo>),
    Pools(Vec<PoolInfo>),
    Container(ContainerInfo),
    Containers(Vec<ContainerInfo>),
    ContainerUsage(ContainerUsage),
    /// In the order of their names.
    Attributes(Vec<(String, String)>),
    Snapshot(SnapshotInfo),
    Snapshots(Vec<SnapshotInfo>),
    Usage(TargetUsage),
    Checked(CheckReport),
    Scrubbed(Scrubbed),
}

#[derive(Clone, Debug)]
pub struct Transact {
    pub container: ContainerId,
    /// At most [`OPS_MAX`].
    pub conditions: Vec<Condition>,
    /// At most [`OPS_MAX`], together at most [`DATA_BYTES_MAX`] of array data.
    pub ops: Vec<Op>,
}

/// A key of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRef {
    pub object: ObjectId,
    pub dkey: Dkey,
    pub akey: Akey,
}

impl KeyRef {
    pub fn new(object: ObjectId, dkey: impl Into<Dkey>, akey: impl Into<Akey>) -> Self {
        Self { object, dkey: dkey.into(), akey: akey.into() }
    }
}

/// What must hold before a transaction for it to change anything.
#[derive(Clone, Debug)]
pub enum Condition {
    DkeyExists {
        object: ObjectId,
        dkey: Dkey,
    },
    DkeyAbsent {
        object: ObjectId,
        dkey: Dkey,
    },
    AkeyExists(KeyRef),
    AkeyAbsent(KeyRef),
    /// The bytes at `offset` (0 for a single value) are there and equal to `bytes`.
    Equals {
        key: KeyRef,
        offset: u64,
        bytes: Bytes,
    },
    /// The object has no dkeys other than `except`.
    Empty {
        object: ObjectId,
        except: Vec<Dkey>,
    },
    /// The greatest dkey that has written bytes under `akey`, and the end of them there, are these; (0, 0) when
    /// there are none. Only for objects with `u64` dkeys.
    ArrayEnd {
        object: ObjectId,
        akey: Akey,
        dkey: u64,
        end: u64,
    },
}

/// One change.
#[derive(Clone, Debug)]
pub enum Op {
    /// At most [`SINGLE_BYTES_MAX`]; may be empty.
    UpdateSingle {
        key: KeyRef,
        value: Bytes,
    },
    /// Write `data` at `offset`; not empty.
    UpdateArray {
        key: KeyRef,
        offset: u64,
        data: Bytes,
    },
    /// Make a range unwritten-but-allocated where it is a hole; bytes that are there stay. A later write into
    /// it cannot fail for lack of data space.
    Allocate {
        key: KeyRef,
        offset: u64,
        len: u64,
    },
    /// Make a range of an array a hole. `len` may reach past everything (`u64::MAX - offset`).
    PunchRange {
        key: KeyRef,
        offset: u64,
        len: u64,
    },
    PunchAkey(KeyRef),
    PunchDkey {
        object: ObjectId,
        dkey: Dkey,
    },
    /// Punch every dkey `>= from`. Only for objects with `u64` dkeys. Counts as an array change for `data_epoch`.
    PunchDkeysFrom {
        object: ObjectId,
        from: u64,
    },
    /// The object and its record go. Large objects are detached at once and reclaimed in the background.
    PunchObject {
        object: ObjectId,
    },
    /// Add to a little-endian `i64` single value; absent counts as 0. Wraps never: overflow is `Invalid`.
    Add {
        key: KeyRef,
        delta: i64,
    },
}

impl Op {
    /// The object that it changes.
    #[must_use]
    pub fn object(&self) -> ObjectId {
        match self {
            Self::UpdateSingle { key, .. }
            | Self::UpdateArray { key, .. }
            | Self::Allocate { key, .. }
            | Self::PunchRange { key, .. }
            | Self::PunchAkey(key)
            | Self::Add { key, .. } => key.object,
            Self::PunchDkey { object, .. }
            | Self::PunchDkeysFrom { object, .. }
            | Self::PunchObject { object } => *object,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Fetch {
    pub container: ContainerId,
    /// [`Epoch::MAX`] for the newest, else the epoch of a snapshot.
    pub epoch: Epoch,
    /// At most [`OPS_MAX`], together at most [`DATA_BYTES_MAX`] of array data.
    pub parts: Vec<FetchPart>,
}

/// One thing to read.
#[derive(Clone, Debug)]
pub enum FetchPart {
    Single(KeyRef),
    /// `len` bytes from `offset`, holes as zeros.
    Array {
        key: KeyRef,
        offset: u64,
        len: u64,
    },
    /// Every akey under a dkey that begins with `prefix`, with its value: single values whole, arrays their first
    /// `array_bytes_max` bytes up to their end.
    Akeys {
        object: ObjectId,
        dkey: Dkey,
        prefix: Bytes,
        array_bytes_max: u64,
    },
    /// The object's record. `akey` names the array that `array_end` asks about.
    Object {
        object: ObjectId,
        akey: Akey,
    },
}

/// The answer to one [`FetchPart`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// `None`: the akey does not exist.
    Single(Option<Bytes>),
    /// Always `len` bytes.
    Array(Bytes),
    Akeys(Vec<(Akey, Value)>),
    /// `None`: no object record.
    Object(Option<ObjectInfo>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Single(Bytes),
    Array(Bytes),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ObjectInfo {
    /// Rule 3.
    pub data_epoch: Epoch,
    /// Rule 4: greatest dkey with written bytes, and their end in it. (0, 0): none, or dkeys are not `u64`.
    pub array_end: (u64, u64),
    /// Bytes of stored values: whole blocks for what is in blocks or allocated, exact bytes for what is inline. 0 at a snapshot.
    pub stored_bytes: u64,
}

#[derive(Clone, Debug)]
pub struct List {
    pub container: ContainerId,
    pub epoch: Epoch,
    pub what: ListWhat,
    /// Resume after this cursor; 0 from the start.
    ///
    /// Cursors of dkeys are the entry's place in the order: a hashed dkey keeps its cursor for as long as it exists. An entry
    /// that is there during the whole listing is seen exactly once, whatever comes and goes around it. Cursors of hashed
    /// dkeys are at least 3 and below 2^63.
    pub after: Cursor,
    /// Most entries, at least 1.
    pub entries_max: u32,
    /// Stop before the reply passes this many bytes (at least one entry comes).
    pub bytes_max: u32,
}

#[derive(Clone, Debug)]
pub enum ListWhat {
    /// Dkeys of an object, each with the values of those of `akeys` that it has (arrays: their first `array_bytes_max` bytes).
    Dkeys { object: ObjectId, akeys: Vec<Akey>, array_bytes_max: u64 },
    /// Object ids of the container, in the order of their bytes.
    Objects,
}

/// Where a listing goes on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Cursor {
    #[default]
    Start,
    /// Hashed and `u64` dkeys: after the entry with this number.
    Number(u64),
    /// Lexical dkeys and object ids: after this key.
    Key(Bytes),
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Listed {
    pub dkeys: Vec<ListedDkey>,
    pub objects: Vec<ObjectId>,
    /// Nothing comes after the last entry.
    pub end: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedDkey {
    pub cursor: Cursor,
    pub dkey: Dkey,
    pub values: Vec<(Akey, Value)>,
}

#[derive(Clone, Debug)]
pub struct Extents {
    pub container: ContainerId,
    pub epoch: Epoch,
    pub object: ObjectId,
    pub akey: Akey,
    /// First dkey and offset in it to report (objects with `u64` dkeys only).
    pub dkey: u64,
    pub offset: u64,
    /// Most extents, at least 1.
    pub extents_max: u32,
}

/// A range of an array that is written or allocated; in order of (dkey, offset), never overlapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentInfo {
    pub dkey: u64,
    pub offset: u64,
    pub len: u64,
    /// False: allocated, reads as zeros.
    pub written: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolInfo {
    pub id: PoolId,
    pub label: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerInfo {
    /// 0 in a create request: the store allots one.
    pub id: ContainerId,
    pub uuid: uuid::Uuid,
    pub label: String,
    /// Epoch of creation.
    pub created: Epoch,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerUsage {
    pub info: ContainerInfo,
    pub objects: u64,
    /// Sum of the objects' `stored_bytes`.
    pub stored_bytes: u64,
    pub snapshots: u32,
    pub quota: Quota,
}

/// What a container may hold on all targets together. 0: as much as there is room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    pub bytes: u64,
    pub inodes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    pub epoch: Epoch,
    pub name: Option<String>,
}

/// Space and state of one target, in bytes where not said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetUsage {
    /// What data and metadata share.
    pub capacity: u64,
    /// Could be written now or once frees in progress are stable.
    pub free: u64,
    /// Kept back for deletes and checkpoints; part of neither `free` nor used.
    pub reserve: u64,
    pub metadata: u64,
    /// Named counters for `query`: requests by kind, WAL bytes, buckets loaded and evicted, checkpoints, ...
    pub counters: Vec<(String, u64)>,
    /// Why the target accepts no changes, if it does not.
    pub latched: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    pub objects: u64,
    pub keys: u64,
    pub extents: u64,
    pub buckets: u64,
    pub blocks: u64,
    /// One sentence each; empty when the store is sound.
    pub findings: Vec<String>,
    /// Those of the findings that are damaged data: nothing can rebuild it.
    pub data: Vec<DamagedData>,
    /// What a repair has done, and what it could not do: one sentence each.
    pub mended: Vec<String>,
    pub unmended: Vec<String>,
}

/// A finding about data, and whose data it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedData {
    /// Its place among the findings.
    pub finding: usize,
    pub container: crate::ContainerId,
    pub object: ObjectId,
    pub damage: crate::Damage,
}

/// One step of a scrub.
#[derive(Clone, Debug, Default)]
pub struct Scrub {
    /// [`Scrubbed::next`] of the step before; empty at the start.
    pub after: Bytes,
    /// The step ends when it has read so much.
    pub bytes_max: u64,
}

/// What a step of a scrub did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Where the next step goes on; `None`: everything was read.
    pub next: Option<Bytes>,
    /// Bytes that were read and verified.
    pub bytes: u64,
    pub findings: Vec<Finding>,
}

/// Damage, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was read: "data", "a bucket of the object table".
    pub what: String,
    pub container: Option<crate::ContainerId>,
    pub object: Option<ObjectId>,
    /// Hidden by newer changes: only snapshots before this epoch see it.
    pub until: Option<Epoch>,
    /// What is damaged where; `None`: the checksum is right and the content is not.
    pub damage: Option<crate::Damage>,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.what)?;
        if let Some(container) = self.container {
            write!(f, ", container {}", container.0)?;
        }
        if let Some(object) = self.object {
            write!(f, ", object {object}")?;
        }
        if self.until.is_some() {
            write!(f, " (in snapshots only)")?;
        }
        match &self.damage {
            Some(damage) => write!(f, ": {damage}"),
            None => write!(f, ": its content makes no sense"),
        }
    }
}
