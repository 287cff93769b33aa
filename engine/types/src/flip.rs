//! Which single bit was flipped, told by the checksum: CRC-32C differs between any two flips of one bit in everything that is
//! checksummed here, so the difference of two checksums names the bit.
//!
//! Damage of another shape looks like one flipped bit with a probability of (bits / 2^32): 3 in 100,000 for a bucket. So this is for
//! structures that have more to prove them than the checksum, and for repairs that somebody asked for; never for a read of data.

use crate::Csum;

/// The remainder of the byte with one bit, `bits` in the reversed order of CRC-32C.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// Where the flipped bit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flip {
    /// Bit `bit` of byte `byte` of what is checksummed.
    Covered { byte: usize, bit: u8 },
    /// In the stored checksum.
    Checksum,
}

/// The single bit whose flip explains that `len` bytes have the checksum `found` where `expected` is stored.
#[must_use]
pub fn flipped_bit(len: usize, expected: Csum, found: Csum) -> Option<Flip> {
    let difference = expected.0 ^ found.0;
    if difference == 0 {
        return None;
    }
    if difference.count_ones() == 1 {
        return Some(Flip::Checksum);
    }
    // What the highest bit of the last byte changes; each bit further from the end is one more step of the register.
    let mut change = POLYNOMIAL;
    for distance in 0..len * 8 {
        if change == difference {
            return Some(Flip::Covered {
                byte: len - 1 - distance / 8,
                bit: 7 - (distance % 8) as u8,
            });
        }
        change = if change & 1 == 1 { change >> 1 ^ POLYNOMIAL } else { change >> 1 };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crc32c;

    #[test]
    fn each_flipped_bit_is_named_and_two_are_none() {
        let mut bytes: Vec<u8> = (0..600_u32).map(|n| (n * 7) as u8).collect();
        let expected = crc32c(&bytes);
        assert_eq!(flipped_bit(bytes.len(), expected, expected), None);
        for at in 0..bytes.len() * 8 {
            let (byte, bit) = (at / 8, (at % 8) as u8);
            bytes[byte] ^= 1 << bit;
            let found = flipped_bit(bytes.len(), expected, crc32c(&bytes));
            assert_eq!(found, Some(Flip::Covered { byte, bit }));
            bytes[byte] ^= 1 << bit;
        }
        for bit in 0..32 {
            let stored = Csum(expected.0 ^ 1 << bit);
            assert_eq!(flipped_bit(bytes.len(), stored, expected), Some(Flip::Checksum));
        }
        for (a, b) in [(0, 1), (5, 4000), (17, 4799), (800, 803)] {
            let mut two = bytes.clone();
            two[a / 8] ^= 1 << (a % 8);
            two[b / 8] ^= 1 << (b % 8);
            assert_eq!(flipped_bit(two.len(), expected, crc32c(&two)), None, "bits {a} and {b}");
        }
    }
}
