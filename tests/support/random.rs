//! Reproducible random numbers.

use std::{env, time::SystemTime};

use proptest::test_runner::{RngAlgorithm, TestRng};

/// The seed in `HOSTGW_SEED`, if it is set.
pub fn requested_seed() -> Option<u64> {
    env::var("HOSTGW_SEED").ok().map(|seed| seed.parse().expect("HOSTGW_SEED is a number"))
}

/// A seed that changes every second.
pub fn new_seed() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970").as_secs()
}

/// A generator with a seed.
pub fn random(seed: u64) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&u64::to_le_bytes(seed));
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}
