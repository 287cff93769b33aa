//! The engine's vocabulary: ids, keys, epochs, checksums, request and reply bodies, errors.
//!
//! # Not here
//! I/O, threads, placement, errno (only `dfs` chooses one).
#![forbid(unsafe_code)]

mod csum;
pub mod door;
mod epoch;
mod error;
mod flip;
mod id;
mod key;
pub mod rpc;
mod size;
mod validate;

pub use csum::{Csum, crc32c};
pub use epoch::Epoch;
pub use error::{Damage, Error, Noun, Place, Result};
pub use flip::{Flip, flipped_bit};
pub use id::{ContainerId, ObjectClass, ObjectId, ObjectType, PoolId, StoreId, TargetId};
pub use key::{Akey, Dkey, KEY_BYTES_MAX};
pub use size::ByteSize;
pub use validate::{LABEL_BYTES_MAX, check_label};

/// Unit of data allocation, checksumming and array alignment, in bytes.
pub const BLOCK_BYTES: usize = 4096;
