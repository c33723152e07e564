//! What travels between the broker and others, as pure functions over bytes: no sockets, no clock, no runtime.
//!
//! It stands between `net`, which reads and writes bytes, and `domain`, which never sees an unchecked one.
//!
//! | file | owns |
//! |---|---|
//! | [`frame`] | bytes → lines or frames |
//! | [`codec`] | a line or frame → a request or an answer, and back: what sessions and clients call |
//! | [`delivery`] | a domain's view → bytes, without a message in between; timelines |
//! | [`message`] | the messages as values, each field named once, in the order of the protocol document |
//! | `field`, `values` | how a value stands in a message, whatever the encoding |
//! | `shorten` | what to leave out of a response that would be too long |
//! | `staged` | small pieces, gathered before they go to a buffer |
//! | `json`, `binary` | the encodings: the only places that name a codec, beside the check of content |
//! | [`content`], `redaction` | the check of a message object, and what its redacted copy leaves out |
//! | `members` | the members of an object of JSON, the elements of a list |
//! | `outermost` | the outermost members of an object, found in one pass |
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
mod members;
pub mod message;
mod outermost;
mod redaction;
mod shorten;
mod staged;
mod values;
