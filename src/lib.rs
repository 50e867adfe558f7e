//! hostgw: the declarative applier for Kubernetes host gateway networking.
#![allow(missing_docs)]
pub mod config;
pub mod kernel;
pub mod model;
pub mod state;
