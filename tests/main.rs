//! The one test binary.

mod config_cases;
