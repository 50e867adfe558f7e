//! Random numbers that can be had again.

use std::{env, time::SystemTime};

use proptest::test_runner::{RngAlgorithm, TestRng};

/// The seed that `HOSTGW_SEED` names.
pub fn asked_seed() -> Option<u64> {
    env::var("HOSTGW_SEED").ok().map(|seed| seed.parse().expect("HOSTGW_SEED is a number"))
}

/// A seed that is another every second.
pub fn new_seed() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock that goes right").as_secs()
}

/// The random numbers of a seed.
pub fn random(seed: u64) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&u64::to_le_bytes(seed));
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}
