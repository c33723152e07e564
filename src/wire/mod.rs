//! What travels between the broker and others, as pure functions over bytes: no sockets, no clock, no runtime.
//!
//! It stands between `net`, which reads and writes bytes, and `domain`, which never sees an unchecked one.
//!
//! **Architecture invariant:** a message object is checked here once; whoever holds a
//! [`Content`](crate::domain::content::Content) need not read it again.

mod binary;
pub mod codec;
pub mod content;
pub mod delivery;
mod field;
pub mod frame;
mod json;
pub mod message;
mod redaction;
mod values;
