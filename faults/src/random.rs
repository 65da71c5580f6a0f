//! Numbers and bytes that are the same for the same seed.

/// Splitmix64: small, and every seed is a good one.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// One that depends on all of these, in this order.
    pub fn of(seeds: &[u64]) -> Random {
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        for seed in seeds {
            random.0 ^= *seed;
            random.0 = random.next();
        }
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not zero.
    pub fn below(&mut self, end: usize) -> usize {
        // The remainder is smaller than a usize was.
        usize::try_from(self.next() % end as u64).unwrap_or_default()
    }

    /// True `of` times out of `among`.
    pub fn chance(&mut self, of: usize, among: usize) -> bool {
        self.below(among) < of
    }
}

/// Bytes that do not repeat.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
