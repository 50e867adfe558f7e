//! The desired state and the plan of Windows nodes.
//!
//! The same configuration serves Windows nodes by other means: routes in two stores that do not record their owner,
//! forwarding per interface, and masquerading by the CNI. They therefore have their own desired state and plan, in
//! terms of the NetTCPIP cmdlets. A script that [`render`](crate::render) writes commits the plan; it plans by the same
//! rules on the node.

mod desired;
mod interfaces;
mod observed;
mod off_link;
mod paths;
mod plan;
mod traffic;

pub use desired::{WindowsDesired, WindowsOrigin, windows_desired};
pub(super) use desired::{to_master, to_node, to_own_pods};
pub use interfaces::{FoundInterfaces, InterfaceRef, POD_ALIASES};
pub use observed::{
    Interface, ManagedRoute, ObservedRoute, SavedForwarding, WindowsAddress, WindowsObserved,
};
pub use off_link::RequiredLink;
pub use paths::{WindowsPaths, WindowsReach};
pub use plan::{
    ForwardingChange, StoreChange, Stores, WindowsCause, WindowsChange, WindowsConflict, WindowsPlan,
    windows_paths, windows_plan, windows_reach,
};
