//! The example adapters, each as the process that it is, against a real broker that is killed in the midst of it.
//!
//! Each customer's message is answered exactly once, whatever was lost between; another service's pick-up is a warning
//! that the adapter confirms. The conformance kit passes them and names what is made wrong in them. The embedding gateway is a broker itself, and is killed as one.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's helpers fail as its test does")]

mod embedded;
mod judged;
mod process;
mod restart;
#[path = "../world/serving.rs"]
mod serving;
mod stopping;
