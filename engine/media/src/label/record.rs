//! One copy of the label, as bytes. Layout: `FORMAT.md`; every offset here is cited there.

use daos_types::{Csum, StoreId, crc32c};

use super::area::{Area, Areas};

/// Version of the label and of everything that it leads to.
pub const VERSION: u32 = 1;
/// Size of one copy.
pub const COPY_BYTES: u64 = 4096;
pub(super) const MAGIC: [u8; 8] = *b"daosfs\x01\xd5";

const AT_VERSION: usize = 8;
const AT_CHECKSUM: usize = 12;
const AT_STORE: usize = 16;
const AT_COMPAT: usize = 32;
const AT_RO_COMPAT: usize = 40;
const AT_INCOMPAT: usize = 48;
const AT_DEVICE_BYTES: usize = 56;
const AT_CREATED: usize = 64;
const AT_ROOT: usize = 72;
const AT_COPY: usize = 80;
const AT_STATE: usize = 84;
const AT_AREAS: usize = 88;
const AREA_BYTES: usize = 16;

const _: () = assert!(AT_AREAS + 4 * AREA_BYTES <= COPY_BYTES as usize);

/// Features that this program knows, of each kind.
const RO_COMPAT_KNOWN: u64 = 0;
const INCOMPAT_KNOWN: u64 = 0;

/// Whose device this is, and what is where on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Label {
    pub store: StoreId,
    /// When it was formatted.
    pub created_unix_ns: u64,
    /// Size of the device when it was formatted.
    pub device_bytes: u64,
    pub areas: Areas,
    /// Byte address of the store's root; in the space. 0 while being formatted.
    pub root: u64,
    /// Features that an unaware program may ignore.
    pub compat: u64,
    /// Features with which an unaware program may only read.
    pub ro_compat: u64,
    /// Features with which an unaware program must do nothing.
    pub incompat: u64,
}

/// How far the store is. Later states are greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum State {
    Formatting = 1,
    Ready = 2,
}

impl Label {
    pub(super) fn new(
        store: StoreId,
        created_unix_ns: u64,
        device_bytes: u64,
        areas: Areas,
    ) -> Self {
        Self {
            store,
            created_unix_ns,
            device_bytes,
            areas,
            root: 0,
            compat: 0,
            ro_compat: 0,
            incompat: 0,
        }
    }

    pub(super) fn unknown_ro_compat(&self) -> u64 {
        self.ro_compat & !RO_COMPAT_KNOWN
    }

    pub(super) fn unknown_incompat(&self) -> u64 {
        self.incompat & !INCOMPAT_KNOWN
    }

    pub(super) fn encode(&self, state: State, copy: u32) -> [u8; COPY_BYTES as usize] {
        let mut bytes = [0; COPY_BYTES as usize];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC);
        put(AT_VERSION, &VERSION.to_le_bytes());
        put(AT_STORE, self.store.0.as_bytes());
        put(AT_COMPAT, &self.compat.to_le_bytes());
        put(AT_RO_COMPAT, &self.ro_compat.to_le_bytes());
        put(AT_INCOMPAT, &self.incompat.to_le_bytes());
        put(AT_DEVICE_BYTES, &self.device_bytes.to_le_bytes());
        put(AT_CREATED, &self.created_unix_ns.to_le_bytes());
        put(AT_ROOT, &self.root.to_le_bytes());
        put(AT_COPY, &copy.to_le_bytes());
        put(AT_STATE, &(state as u32).to_le_bytes());
        for (index, area) in self.areas.all().into_iter().enumerate() {
            put(AT_AREAS + index * AREA_BYTES, &area.start.to_le_bytes());
            put(AT_AREAS + index * AREA_BYTES + 8, &area.bytes.to_le_bytes());
        }
        let checksum = crc32c(&bytes);
        bytes[AT_CHECKSUM..AT_CHECKSUM + 4].copy_from_slice(&checksum.0.to_le_bytes());
        bytes
    }
}

/// Bytes that may be a label.
pub(super) struct RawLabel(Box<[u8; COPY_BYTES as usize]>);

/// What [`RawLabel::verify`] says of them.
pub(super) enum Verified {
    Good((Label, State)),
    /// Not a label at all.
    Absent,
    Newer(u32),
    Damaged {
        expected: Csum,
        found: Csum,
    },
    Senseless(&'static str),
}

impl RawLabel {
    pub fn new(bytes: &[u8]) -> Self {
        Self(Box::new(bytes.try_into().expect("COPY_BYTES long")))
    }

    /// The only way from bytes to a [`Label`].
    pub fn verify(&self, copy: u32) -> Verified {
        if self.0[..MAGIC.len()] != MAGIC {
            return Verified::Absent;
        }
        // Before the checksum: a newer version may keep it elsewhere.
        if self.u32(AT_VERSION) > VERSION {
            return Verified::Newer(self.u32(AT_VERSION));
        }
        if !self.is_right() {
            let (expected, found) = self.sums();
            return Verified::Damaged { expected, found };
        }
        match self.decode(copy) {
            Ok(good) => Verified::Good(good),
            Err(why) => Verified::Senseless(why),
        }
    }

    /// The checksum that is stored, and that of what is there.
    pub fn sums(&self) -> (Csum, Csum) {
        let mut bytes = self.0.clone();
        bytes[AT_CHECKSUM..AT_CHECKSUM + 4].fill(0);
        (Csum(self.u32(AT_CHECKSUM)), crc32c(&bytes[..]))
    }

    pub fn is_right(&self) -> bool {
        let (expected, found) = self.sums();
        expected == found
    }

    fn decode(&self, copy: u32) -> Result<(Label, State), &'static str> {
        if self.u32(AT_VERSION) != VERSION {
            return Err("there was never a version 0");
        }
        if self.u32(AT_COPY) != copy {
            return Err("a copy is in the other's place");
        }
        let state = match self.u32(AT_STATE) {
            1 => State::Formatting,
            2 => State::Ready,
            _ => return Err("unknown state"),
        };
        let area = |index: usize| Area {
            start: self.u64(AT_AREAS + index * AREA_BYTES),
            bytes: self.u64(AT_AREAS + index * AREA_BYTES + 8),
        };
        let areas = Areas { header: area(0), strip: area(1), wal: area(2), space: area(3) };
        let label = Label {
            store: StoreId(uuid::Uuid::from_bytes(self.array(AT_STORE))),
            created_unix_ns: self.u64(AT_CREATED),
            device_bytes: self.u64(AT_DEVICE_BYTES),
            areas,
            root: self.u64(AT_ROOT),
            compat: self.u64(AT_COMPAT),
            ro_compat: self.u64(AT_RO_COMPAT),
            incompat: self.u64(AT_INCOMPAT),
        };
        areas.check(label.device_bytes)?;
        if state == State::Ready && !areas.space.contains(label.root) {
            return Err("the root is outside the space");
        }
        Ok((label, state))
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0[at..at + N].try_into().expect("N bytes long")
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label() -> Label {
        let areas = Areas::plan(1 << 30, None).unwrap();
        let store = StoreId(uuid::Uuid::from_u128(7));
        Label { root: areas.space.start, ..Label::new(store, 3, 1 << 30, areas) }
    }

    #[test]
    fn a_label_comes_back_as_it_was_and_any_flipped_bit_is_seen() {
        let bytes = label().encode(State::Ready, 1);
        match RawLabel::new(&bytes).verify(1) {
            Verified::Good((found, State::Ready)) => assert_eq!(found, label()),
            _ => panic!("a good label was refused"),
        }
        for bit in (0..bytes.len() * 8).step_by(5) {
            let mut rotten = bytes;
            rotten[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(RawLabel::new(&rotten).verify(1), Verified::Good(_)), "bit {bit}");
        }
    }

    #[test]
    fn fields_of_any_value_are_refused_or_sound_and_never_panic() {
        let mut random = daos_xstream::Random::from_seed(1);
        let mut refused = 0;
        for _ in 0..20_000 {
            let mut bytes = label().encode(State::Ready, 0);
            for _ in 0..=random.below(3) {
                let at = AT_COMPAT + random.below((152 - AT_COMPAT as u64) / 8) as usize * 8;
                let value = random.next_u64() << random.below(64) >> random.below(64);
                bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            }
            bytes[AT_CHECKSUM..AT_CHECKSUM + 4].fill(0);
            let checksum = crc32c(&bytes);
            bytes[AT_CHECKSUM..AT_CHECKSUM + 4].copy_from_slice(&checksum.0.to_le_bytes());
            match RawLabel::new(&bytes).verify(0) {
                Verified::Good((label, _)) => label.areas.check(label.device_bytes).unwrap(),
                Verified::Senseless(_) => refused += 1,
                _ => panic!("the checksum and the version are right"),
            }
        }
        assert!(refused > 1000);
    }

    #[test]
    fn the_bytes_are_those_of_format_md() {
        let bytes = label().encode(State::Ready, 0);
        assert_eq!(&bytes[..12], b"daosfs\x01\xd5\x01\0\0\0");
        assert_eq!(bytes[31], 7, "the store's uuid, as its text reads");
        assert_eq!(bytes[56..64], (1u64 << 30).to_le_bytes());
        assert_eq!(bytes[88..104], [&8192u64.to_le_bytes()[..], &8192u64.to_le_bytes()].concat());
        assert_eq!(bytes[152..], [0; 4096 - 152]);
    }
}
