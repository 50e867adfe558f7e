//! Linux: observe and commit. Netlink stays in here.

pub mod nat;
pub mod netlink;
#[cfg(test)]
mod testing;
