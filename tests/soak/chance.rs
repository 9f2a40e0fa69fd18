//! Chance with a seed.

/// Xorshift. Everybody who draws has one of their own, made from the seed of the run.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64, who: u64) -> Self {
        // Neighbours among seeds are far from each other after this (the end of splitmix64).
        let mixed =
            seed.wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ who.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self((mixed ^ (mixed >> 31)) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub(crate) fn choose<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}
