//! Windows nodes: what they shall hold, and what must change on them.
//!
//! The same file serves them, by other means: routes in two stores without a mark of their owner, forwarding by
//! interface, masquerade by the CNI. So they have a desired state and a plan of their own, in the words of the
//! NetTCPIP cmdlets. What carries the plan out is a script that [`render`](crate::render) writes; it plans by the
//! same rules on the node.

mod desired;
mod observed;
mod plan;
mod traffic;

pub use desired::{WindowsDesired, WindowsOrigin, windows_desired};
pub(super) use desired::{own, to_master, to_node};
pub use observed::{Interface, ObservedRoute, OwnedRoute, SavedForwarding, WindowsAddress, WindowsObserved};
pub use plan::{
    ForwardingChange, InterfaceRef, POD_ALIASES, StoreChange, Stores, WindowsCause, WindowsChange,
    WindowsConflict, WindowsPlan, windows_plan,
};
