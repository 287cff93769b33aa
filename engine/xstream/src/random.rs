//! Random numbers of an xstream: SplitMix64 (Steele, Lea, Flood 2014). Not for secrets.

use std::hash::{BuildHasher, Hasher};

/// A reproducible stream of random numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// Seeded from the operating system, through the hasher that std keys at random.
    #[must_use]
    pub fn from_entropy() -> Self {
        Self(std::collections::hash_map::RandomState::new().build_hasher().finish())
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number `< bound`; `bound` is not 0. The bias of at most `bound / 2^64` does not matter here.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0);
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// True once in `n` on average.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_numbers_and_bounds_hold() {
        let mut first = Random::from_seed(7);
        let mut second = Random::from_seed(7);
        let mut seen = [false; 5];
        for _ in 0..1000 {
            let number = first.below(5);
            assert_eq!(number, second.below(5));
            seen[number as usize] = true;
        }
        assert_eq!(seen, [true; 5]);
        assert_ne!(Random::from_seed(1).next_u64(), Random::from_seed(2).next_u64());
    }
}
