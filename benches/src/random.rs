//! Random numbers that never change: the same seed must give the same events with every toolchain and lock file, because
//! recomputed totals are compared with them. SplitMix64 (Steele, Lea, Flood 2014) is defined by the lines below alone.

/// A SplitMix64 stream.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

const GOLDEN_GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Random {
    /// The stream that belongs to one `index` of one `purpose` under a seed: streams are independent of each other, so that
    /// any event can be made without making those before it.
    pub fn new(seed: u64, purpose: u64, index: u64) -> Random {
        let state = mix(mix(mix(seed.wrapping_add(GOLDEN_GAMMA)).wrapping_add(purpose)).wrapping_add(index));
        Random { state }
    }

    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN_GAMMA);
        mix(self.state)
    }

    /// A number in `0..bound`; 0 for a bound of 0. The bias is below 2⁻³² for the bounds used here.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// Like [`Random::between`], but small numbers are common and large ones rare, as token counts are.
    pub fn skewed(&mut self, low: u64, high: u64) -> u64 {
        let top = self.below(high - low + 1);
        low + self.below(top + 1)
    }

    /// True `count` times in a hundred.
    pub fn percent(&mut self, count: u64) -> bool {
        self.below(100) < count
    }

    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_of_a_seed_never_changes() {
        let mut random = Random { state: 1_234_567 };
        // The first outputs of the reference implementation for this state.
        assert_eq!(
            [random.next_u64(), random.next_u64(), random.next_u64()],
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn numbers_stay_in_their_bounds_and_reach_both_ends() {
        let mut random = Random::new(7, 0, 0);
        let numbers: Vec<u64> = (0..2_000).map(|_| random.between(3, 9)).collect();
        assert_eq!((numbers.iter().min(), numbers.iter().max()), (Some(&3), Some(&9)));
        assert!((0..2_000).all(|_| (3..=9).contains(&random.skewed(3, 9))));
        assert_eq!(random.below(0), 0);
    }
}
