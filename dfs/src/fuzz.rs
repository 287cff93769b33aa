//! Doors for `tests/fuzz` to what reads stored records and names: each takes any bytes and asserts what must hold.

use bytes::Bytes;
use daos_types::{Akey, Dkey};

use crate::keys::{self, Pointer};
use crate::lookup::check_name;
use crate::record::Record;
use crate::{Ino, NAME_BYTES_MAX};

/// An inode record: damage, or the same when it is stored again.
pub fn inode_record(data: &[u8]) {
    let bytes = Record::sealed(data);
    let Ok(record) = Record::decode(&bytes, String::new) else { return };
    let stored = record.encode();
    let again = Record::decode(&stored, String::new).expect("an encoded record is one");
    assert_eq!(again, record);
    let _kind = record.kind();
    let reference = record.reference();
    assert!(reference.is_reference());
    assert_eq!(Record::decode(&reference.encode(), String::new).ok(), Some(reference));
    // Any flipped bit is seen, and put right.
    let mut rotten = stored.to_vec();
    let bit = usize::from(data.first().copied().unwrap_or(0)) * 4 % (rotten.len() * 8);
    rotten[bit / 8] ^= 1 << (bit % 8);
    let rotten = Bytes::from(rotten);
    assert!(Record::decode(&rotten, String::new).is_err());
    if !(88..90).contains(&(bit / 8)) {
        assert_eq!(Record::mended(&rotten), Some(record));
    }
}

/// A name, and what is stored of it in keys.
pub fn name(data: &[u8]) {
    let fits =
        (1..=NAME_BYTES_MAX).contains(&data.len()) && !data.iter().any(|b| b"/\0".contains(b));
    assert_eq!(check_name(data).is_ok(), fits);
    if fits {
        let name = Bytes::copy_from_slice(data);
        let parent = Ino(u64::from(data[0]));
        let back = Pointer::of(&keys::back_akey(parent, data));
        assert_eq!(back, Some(Pointer::Back(parent, name.clone())));
        assert_eq!(Pointer::of(&keys::name_akey(parent, data)), Some(Pointer::Name(parent, name)));
    }
    if (1..=1024).contains(&data.len()) {
        let _pointer = Pointer::of(&Akey::from(data.to_vec()));
        if let Some((lease, ino)) = keys::orphan_of(&Dkey::from(data.to_vec())) {
            assert_eq!(keys::orphan_dkey(lease, ino).as_bytes(), data);
        }
    }
}
