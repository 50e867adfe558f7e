//! What the tests share.

pub mod cases;
pub mod model;
pub mod namespace;
pub mod random;
