//! What a structure may do with metadata buckets inside one transaction: the line between the arena below and the trees
//! above. Implemented by the store's transaction and view, and by a `HashMap` in tests.

use daos_types::Error;

use crate::btree::Fingers;

/// Bytes of one metadata bucket.
pub const BUCKET_BYTES: usize = 16384;
/// The arena's own bytes at the start of each bucket; a structure never touches them.
pub const BUCKET_HEADER_BYTES: usize = 64;

/// Number of a metadata bucket: its device byte address / [`BUCKET_BYTES`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct BucketId(pub u32);

/// What a bucket holds; in its header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum BucketKind {
    /// The roots of everything and the counters.
    Root = 1,
    /// Entries of the segment table.
    Segments = 2,
    /// A node of a B+tree.
    Node = 3,
}

impl BucketKind {
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Root),
            2 => Some(Self::Segments),
            3 => Some(Self::Node),
            _ => None,
        }
    }
}

/// Why a closure over buckets ended before its end. Its changes are undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Abort {
    /// The bucket is not resident: it is loaded, then the closure runs again from its start.
    Fault(BucketId),
    /// The arena has no room for one more bucket: some are written back, then the closure runs again.
    NoFrame,
    /// No free bucket is at hand: the store makes room, then the closure runs again, or the request ends with `NoSpace`.
    NoBucket,
    /// The request ends with this error.
    Error(Error),
}

impl From<Error> for Abort {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Reading buckets.
pub trait Pages {
    /// The bucket's [`BUCKET_BYTES`] bytes.
    fn page(&self, bucket: BucketId) -> Result<&[u8], Abort>;
    fn kind(&self, bucket: BucketId) -> Result<BucketKind, Abort>;
    /// Where this run's last searches of trees ended.
    fn fingers(&self) -> &Fingers;
}

/// Changing buckets. Each call is one redo operation on one bucket.
pub trait PagesMut: Pages {
    fn write(&mut self, bucket: BucketId, at: usize, bytes: &[u8]) -> Result<(), Abort>;
    /// Moves `len` bytes inside the bucket; the ranges may overlap.
    fn copy_within(
        &mut self,
        bucket: BucketId,
        from: usize,
        to: usize,
        len: usize,
    ) -> Result<(), Abort>;
    fn fill(&mut self, bucket: BucketId, at: usize, len: usize, byte: u8) -> Result<(), Abort>;
    /// A new bucket: zeros after its header.
    fn alloc(&mut self, kind: BucketKind) -> Result<BucketId, Abort>;
    fn free(&mut self, bucket: BucketId) -> Result<(), Abort>;
    /// A tree changes its shape; `alloc` and `free` imply it.
    fn lift_fingers(&mut self);
}
