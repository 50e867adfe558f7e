//! hostgw: the declarative applier for Kubernetes host gateway networking.
//!
//! An operator describes a cluster once, in a YAML or TOML file. For each node hostgw makes the *desired
//! state* of routes, NAT and sysctls from it, compares it with the *observed state* of the live kernel, and
//! commits the difference, the *plan*, as one *transaction*.
//!
//! # One idea
//!
//! There is one type, [`state::State`], for what is wanted and for what is there, and one pure function,
//! [`plan::plan`], from two states to a [`plan::Plan`]. Everything the tool does is that function with other
//! arguments:
//!
//! | verb | desired | observed |
//! |---|---|---|
//! | plan, apply | from the file | the kernel |
//! | verify after apply | from the file | the kernel again: the plan must be empty |
//! | rollback, crash recovery | the journal's *before* | the kernel |
//! | destroy | nothing, plus the saved sysctls | the kernel |
//! | drift in status | last applied | the kernel |
//! | diff, plan for all nodes | the new file, per node | the old file, per node, or nothing |
//!
//! So there is no second code path for undoing, and none that only a crash exercises. Only the last row is not
//! computed node by node, which would cost the square of the nodes: [`plan::compare`](mod@plan::compare) gives the
//! same for all of them at once, and a test holds it to that.
//!
//! Windows nodes hold other things than Linux nodes: they have a state and a plan of their own, by the same rules
//! ([`plan::windows`]), and a script carries it out.
//!
//! # The way data goes
//!
//! ```text
//! file -> config -> model -> desired state -+
//!                                           +-> plan -> render (text, JSON, Markdown, scripts)
//! kernel ------------------> observed state-+      \-> apply: lock, re-observe, journal, commit,
//!                                                      verify, or roll back
//! ```
//!
//! # Rooms
//!
//! | room | what it is for |
//! |---|---|
//! | [`cli`] | one file a verb; the only place that prints, asks, or picks an exit code |
//! | [`error`] | what failed, on which object, why, what to do next; the exit code per kind |
//! | [`config`] | file -> raw serde types -> validated model; all mistakes at once, with their places |
//! | [`input`] | reads what users name: stored files, pipes and standard input, at most 64 MiB |
//! | [`diagnose`] | the rules: a code, a severity and an explanation for everything that a check or warning says |
//! | [`model`] | the cluster, its nodes, pod CIDRs: valid by construction |
//! | [`state`] | the state of a node; prints as `ip`, `nft` and `sysctl` do |
//! | [`plan`] | desired state, diff, checks against the node, reasons, the comparison of two files: pure |
//! | [`record`] | what hostgw stores and prints about a node: transactions, what was last applied, snapshots |
//! | [`render`] | a plan or a comparison as text, JSON and Markdown; a plan as commands; a node's plan as a script |
//! | [`cni`] | whether the CNI configuration of a node fits the cluster: pure |
//! | [`kernel`] | Linux: observe, commit, try checks, and make what simulate needs. Netlink stays in here; `unsafe` stands in one file of it |
//! | [`apply`] | the transaction: lock, journal, commit, verify, check, roll back |
//! | [`reconcile`] | brings a node to a desired state, or back: observe, plan, approve, commit, verify, wait, undo; prints nothing and prompts nobody |
//! | [`simulate`] | the cluster of a file in network namespaces: applied, and proved with packets |
//! | [`guide`] | the guides: as text for a terminal, as manual pages, and as the modules of their own documentation |
//! | [`text`] | text that people read: [`text::Untrusted`] for what others wrote, escaping, shell words, line breaks |
//! | `clock` | the wall clock |
//! | `fault` | faults on demand, in a build for tests alone |
//!
//! A room uses only rooms on the floors below its own, and no two files of a room use each other, directly or by way
//! of others. `tests/source_rules.rs` reads the imports and holds them to this list, ground floor first:
//!
//! 1. `text`, `hex`, `fault`, `clock`
//! 2. `error`, `input`, `model`
//! 3. `state`, `diagnose`
//! 4. `config`
//! 5. `plan`, `cni`
//! 6. `record`, `render`
//! 7. `apply`, `guide`
//! 8. `kernel`
//! 9. `reconcile`
//! 10. `simulate`
//! 11. `cli`
//!
//! So everything up to `render` is pure: it names neither `kernel` nor `apply`, and builds on any system. Nothing
//! outside `cli` prints or exits, and what `cli` prints passes through its `Output`;
//! `unsafe` stands in `kernel/ffi.rs` alone. Lints refuse `unwrap`, `expect`, `panic!` and `Path::display`.
//!
//! # Text of others
//!
//! A name in a file, a record, the kernel or git may hold anything, such as escape sequences or characters that
//! nobody can see. It is [`text::Untrusted`] from where it is read: it compares raw and prints escaped. `Output`
//! escapes once more whatever does not come from hostgw's own colors, and writes hidden characters of JSON as
//! `\uXXXX`. A printed command is a [`text::ShellCommand`], whose words are quoted.
//!
//! # Synchronous netlink
//!
//! The kernel answers a route request inside the system call that carries it, so there is nothing to wait
//! for and nothing to overlap: messages are built with `rtnetlink`'s types and sent packed, up to 128 in one
//! call, over one plain socket. No async runtime is involved.
//!
//! # What is where on disk
//!
//! `/run/hostgw/net-COOKIE/` (or below `HOSTGW_STATE_DIR`) holds the lock, the journal of the open
//! transaction, the last 20 committed ones, the sysctl values from before hostgw, and what was last applied.
//! None of it is needed to find what hostgw owns: that carries its mark in the kernel. See
//! [`apply::StateDir`].

// Elsewhere some parts have nobody who uses them.
#![cfg_attr(not(target_os = "linux"), allow(dead_code, unused_imports))]

#[cfg(target_os = "linux")]
pub mod apply;
pub mod cli;
mod clock;
pub mod cni;
pub mod config;
pub mod diagnose;
pub mod error;
#[cfg(target_os = "linux")]
mod fault;
pub mod guide;
mod hex;
pub mod input;
#[cfg(target_os = "linux")]
pub mod kernel;
pub mod model;
pub mod plan;
pub mod reconcile;
pub mod record;
pub mod render;
#[cfg(target_os = "linux")]
pub mod simulate;
pub mod state;
pub mod text;
