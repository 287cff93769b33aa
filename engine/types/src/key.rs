//! Distribution and attribute keys.

/// Longest dkey or akey in bytes. A directory entry needs 255, an xattr's akey `x:` and 255.
pub const KEY_BYTES_MAX: usize = 512;

macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(bytes::Bytes);

        impl $name {
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }

            /// Takes over bytes without copying them.
            #[must_use]
            pub fn from_shared(bytes: bytes::Bytes) -> Self {
                Self(bytes)
            }
        }

        impl From<&[u8]> for $name {
            fn from(bytes: &[u8]) -> Self {
                Self(bytes::Bytes::copy_from_slice(bytes))
            }
        }

        impl From<Vec<u8>> for $name {
            fn from(bytes: Vec<u8>) -> Self {
                Self(bytes.into())
            }
        }

        impl From<&'static str> for $name {
            fn from(text: &'static str) -> Self {
                Self(bytes::Bytes::from_static(text.as_bytes()))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0.escape_ascii())
            }
        }
    };
}

key! {
    /// Distribution key: what lies under one dkey is on one target. 1 to [`KEY_BYTES_MAX`] bytes;
    /// exactly 8 in objects whose type orders dkeys as `u64`.
    Dkey
}
key! {
    /// Attribute key: names one value under a dkey. 1 to [`KEY_BYTES_MAX`] bytes.
    Akey
}

impl Dkey {
    /// The dkey of a `u64` in an object of type `DkeyUint64` or `ArrayByte`: 8 bytes, big-endian.
    #[must_use]
    pub fn from_u64(number: u64) -> Self {
        Self(bytes::Bytes::copy_from_slice(&number.to_be_bytes()))
    }

    /// The number of an 8-byte dkey.
    #[must_use]
    pub fn to_u64(&self) -> Option<u64> {
        Some(u64::from_be_bytes(self.0.as_ref().try_into().ok()?))
    }
}
