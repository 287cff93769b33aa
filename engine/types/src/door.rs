//! What a program says to dfuse at its door beside the mount: bodies of calls through shared memory, and what an ioctl on an open file
//! answers. Bytes: `dfuse/FORMAT.md`.

pub mod inodes;
pub mod names;

/// Of both sides; one that speaks another leaves the other alone.
pub const VERSION: u32 = 3;

/// `_IOR('D', 0xd0, Pass)`: what a program needs to come to the door with this open file.
pub const IOCTL_PASS: u32 = 2 << 30 | (PASS_BYTES as u32) << 16 | (b'D' as u32) << 8 | 0xd0;
pub const PASS_BYTES: usize = 96;

/// Most bytes of a socket's name.
pub const NAME_BYTES_MAX: usize = 48;
const PASS_MAGIC: u32 = u32::from_le_bytes(*b"dDOR");

/// The word in which a client counts its threads that are opening something.
pub const WORD_OPENING: usize = 0;
/// From here on: the number of a thread that is opening a file which it means to use through the door; 0: none.
pub const WORD_THREADS: usize = 1;

/// What proves that somebody has an open file: nobody can guess it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64, pub u64);

/// The answer of the ioctl.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// `None`: of this file, the kernel is the only way.
    pub token: Option<Token>,
    name: [u8; NAME_BYTES_MAX],
    name_len: usize,
}

impl Token {
    #[must_use]
    pub fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.0.to_le_bytes());
        bytes[8..].copy_from_slice(&self.1.to_le_bytes());
        bytes
    }

    /// `None`: it has another length.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == 16).then(|| Self(u64_at(bytes, 0), u64_at(bytes, 8)))
    }
}

impl Pass {
    /// # Panics
    /// When the name is longer than [`NAME_BYTES_MAX`].
    #[must_use]
    pub fn new(token: Option<Token>, name: &[u8]) -> Self {
        let mut pass = Self { token, name: [0; NAME_BYTES_MAX], name_len: name.len() };
        pass.name[..name.len()].copy_from_slice(name);
        pass
    }

    /// The abstract socket of the door, without the NUL that it begins with.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name[..self.name_len]
    }

    #[must_use]
    pub fn encode(&self) -> [u8; PASS_BYTES] {
        let mut bytes = [0; PASS_BYTES];
        bytes[0..4].copy_from_slice(&PASS_MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        if let Some(Token(high, low)) = self.token {
            bytes[8..12].copy_from_slice(&1u32.to_le_bytes());
            bytes[16..24].copy_from_slice(&high.to_le_bytes());
            bytes[24..32].copy_from_slice(&low.to_le_bytes());
        }
        bytes[12..16].copy_from_slice(&(self.name_len as u32).to_le_bytes());
        bytes[32..32 + NAME_BYTES_MAX].copy_from_slice(&self.name);
        bytes
    }

    /// `None`: it is no pass, or one of another version.
    #[must_use]
    pub fn decode(bytes: &[u8; PASS_BYTES]) -> Option<Self> {
        if (u32_at(bytes, 0), u32_at(bytes, 4)) != (PASS_MAGIC, VERSION) {
            return None;
        }
        let token = (u32_at(bytes, 8) == 1).then(|| Token(u64_at(bytes, 16), u64_at(bytes, 24)));
        let len = (u32_at(bytes, 12) as usize).min(NAME_BYTES_MAX);
        Some(Self::new(token, &bytes[32..32 + len]))
    }
}

/// What is asked at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// `len` bytes from `offset` on, into the slot's data.
    Read { token: Token, offset: u64, len: u32 },
    /// The first `len` bytes of the slot's data, at `offset`.
    Write { token: Token, offset: u64, len: u32 },
    /// The first `len` bytes of the slot's data, at the end of the file, wherever that is.
    Append { token: Token, len: u32 },
    /// What was written before survives a power cut; `data_only`: as fdatasync(2).
    Sync { token: Token, data_only: bool },
}

const READ: u32 = 1;
const WRITE: u32 = 2;
const APPEND: u32 = 3;
const SYNC: u32 = 4;
pub const ASK_BYTES: usize = 32;

impl Ask {
    #[must_use]
    pub fn encode(&self) -> [u8; ASK_BYTES] {
        let (kind, Token(high, low), offset, len) = match *self {
            Self::Read { token, offset, len } => (READ, token, offset, len),
            Self::Write { token, offset, len } => (WRITE, token, offset, len),
            Self::Append { token, len } => (APPEND, token, 0, len),
            Self::Sync { token, data_only } => (SYNC, token, 0, data_only.into()),
        };
        let mut bytes = [0; ASK_BYTES];
        bytes[0..4].copy_from_slice(&kind.to_le_bytes());
        bytes[4..8].copy_from_slice(&len.to_le_bytes());
        bytes[8..16].copy_from_slice(&offset.to_le_bytes());
        bytes[16..24].copy_from_slice(&high.to_le_bytes());
        bytes[24..32].copy_from_slice(&low.to_le_bytes());
        bytes
    }

    /// `None`: this is nothing that can be asked.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; ASK_BYTES] = bytes.try_into().ok()?;
        let token = Token(u64_at(bytes, 16), u64_at(bytes, 24));
        let (offset, len) = (u64_at(bytes, 8), u32_at(bytes, 4));
        match u32_at(bytes, 0) {
            READ => Some(Self::Read { token, offset, len }),
            WRITE => Some(Self::Write { token, offset, len }),
            APPEND => Some(Self::Append { token, len }),
            SYNC => Some(Self::Sync { token, data_only: len == 1 }),
            _ => None,
        }
    }
}

/// What the door answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// So many bytes.
    Done(u32),
    /// So many bytes, which end there.
    Appended { bytes: u32, end: u64 },
    /// `errno.h`'s number of an error.
    Failed(u32),
    /// Nothing was done: this file is the kernel's until it is opened again; or, of a name, so is what is in its directory.
    Kernel,
    /// Nothing was done: this call is the kernel's, but not the next one.
    NotThis,
}

pub const ANSWER_BYTES: usize = 16;
const DONE: u32 = 0;
const FAILED: u32 = 1;
const KERNEL: u32 = 2;
const APPENDED: u32 = 3;
const NOT_THIS: u32 = 4;

impl Answer {
    #[must_use]
    pub fn encode(self) -> [u8; ANSWER_BYTES] {
        let (kind, value, end) = match self {
            Self::Done(bytes) => (DONE, bytes, 0),
            Self::Failed(errno) => (FAILED, errno, 0),
            Self::Kernel => (KERNEL, 0, 0),
            Self::NotThis => (NOT_THIS, 0, 0),
            Self::Appended { bytes, end } => (APPENDED, bytes, end),
        };
        let mut bytes = [0; ANSWER_BYTES];
        bytes[0..4].copy_from_slice(&kind.to_le_bytes());
        bytes[4..8].copy_from_slice(&value.to_le_bytes());
        bytes[8..16].copy_from_slice(&end.to_le_bytes());
        bytes
    }

    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; ANSWER_BYTES] = bytes.try_into().ok()?;
        match u32_at(bytes, 0) {
            DONE => Some(Self::Done(u32_at(bytes, 4))),
            FAILED => Some(Self::Failed(u32_at(bytes, 4))),
            KERNEL => Some(Self::Kernel),
            NOT_THIS => Some(Self::NotThis),
            APPENDED => Some(Self::Appended { bytes: u32_at(bytes, 4), end: u64_at(bytes, 8) }),
            _ => None,
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("2 bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

const _: () = assert!(32 + NAME_BYTES_MAX <= PASS_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_comes_back_and_garbage_does_not() {
        let token = Token(1 << 63 | 5, 7);
        for token in [None, Some(token)] {
            let pass = Pass::new(token, b"daosfs-door-0123456789abcdef");
            assert_eq!(Pass::decode(&pass.encode()), Some(pass));
        }
        for ask in [
            Ask::Read { token, offset: u64::MAX, len: 9 },
            Ask::Write { token, offset: 4096, len: u32::MAX },
            Ask::Append { token, len: 17 },
        ] {
            assert_eq!(Ask::decode(&ask.encode()), Some(ask));
        }
        let appended = Answer::Appended { bytes: 3, end: 1 << 40 };
        for answer in [Answer::Done(5), Answer::Failed(28), Answer::Kernel, appended] {
            assert_eq!(Answer::decode(&answer.encode()), Some(answer));
        }
        assert_eq!(Pass::decode(&[0; PASS_BYTES]), None);
        assert_eq!(Ask::decode(&[9; ASK_BYTES]), None);
        assert_eq!(Ask::decode(b"short"), None);
        assert_eq!(Answer::decode(&[9; ANSWER_BYTES]), None);
    }

    /// Numbers that look random, from a seed.
    fn next(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ mixed >> 29
    }

    #[test]
    fn any_bytes_are_nothing_or_what_they_say() {
        let seed = std::env::var("DAOS_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or(20_261_129);
        println!("replay: DAOS_TEST_SEED={seed} cargo test -p daos-types door");
        let mut state = seed;
        for _ in 0..200_000 {
            let mut bytes = [0; PASS_BYTES];
            bytes.fill_with(|| next(&mut state) as u8);
            // Mostly near to something: a kind that there is, a header that is right.
            if !next(&mut state).is_multiple_of(4) {
                bytes[0..4].copy_from_slice(&((next(&mut state) % 6) as u32).to_le_bytes());
            }
            let len = next(&mut state) as usize % (PASS_BYTES + 1);
            for len in [len, ASK_BYTES, ANSWER_BYTES] {
                if let Some(ask) = Ask::decode(&bytes[..len]) {
                    assert_eq!(Ask::decode(&ask.encode()), Some(ask));
                }
                if let Some(answer) = Answer::decode(&bytes[..len]) {
                    assert_eq!(Answer::decode(&answer.encode()), Some(answer));
                }
            }
            if !next(&mut state).is_multiple_of(4) {
                bytes[0..4].copy_from_slice(&PASS_MAGIC.to_le_bytes());
                bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
            }
            if let Some(pass) = Pass::decode(&bytes) {
                assert!(pass.name().len() <= NAME_BYTES_MAX);
                assert_eq!(Pass::decode(&pass.encode()), Some(pass));
            }
        }
    }
}
