//! The netlink client of this module: dumps, single requests, packed changes and nftables batches, with the kernel's
//! own error texts.
//!
//! It is synchronous because the kernel handles a request inside `send`. When the call returns, every reply (of a dump,
//! the first part) is queued on the socket, so there is nothing to wait for.

mod error;
mod socket;
#[cfg(test)]
mod tests;
mod wire;

pub use error::{KernelError, Malformed};
pub use socket::{Dump, Message, Notification, Refused, Requests, Socket, open_route_socket};
pub use wire::{Attributes, HEADER, NLM_F_REQUEST, attribute_at, put_attribute, put_message, retain, text};
