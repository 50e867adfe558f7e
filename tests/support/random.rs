//! Random numbers that can be had again.

use std::{env, time::SystemTime};

use proptest::test_runner::{RngAlgorithm, TestRng};

/// Random numbers, with the seed that gives them again when it stands in `HOSTGW_SEED`.
pub fn random() -> (u64, TestRng) {
    let given = env::var("HOSTGW_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock that goes right").as_secs()
    });
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&u64::to_le_bytes(seed));
    (seed, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}
