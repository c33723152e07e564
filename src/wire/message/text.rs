//! Texts and bytes that messages hold and that no log shows, and a service that may be none.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::domain::ids::ServiceId;

macro_rules! private_text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash)]
        pub struct $name(pub Arc<str>);

        impl $name {
            /// The text; not for logs.
            #[must_use]
            pub fn expose(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(Arc::from(text))
            }
        }

        impl From<Arc<str>> for $name {
            fn from(text: Arc<str>) -> Self {
                Self(text)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("<hidden>")
            }
        }
    };
}

private_text!(
    /// What somebody is called. At most [`NAME_BYTES_MAX`](crate::domain::ids::NAME_BYTES_MAX) bytes.
    Name
);
private_text!(
    /// A text that only its receiver may read: a token, a confirmation.
    Private
);

/// A message object as it travels. In a request nobody has checked it: [`wire::content`](crate::wire::content) does.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RawContent(pub Bytes);

impl RawContent {
    /// A text message.
    #[must_use]
    pub fn text(body: &str) -> Self {
        let object = serde_json::json!({"type": "text", "text": {"body": body}});
        Self(Bytes::from(object.to_string()))
    }
}

impl From<Bytes> for RawContent {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

/// Content is nobody's business in a log (B3).
impl fmt::Debug for RawContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<content, {} bytes>", self.0.len())
    }
}

/// The parent of a channel; none where nobody is subscribed. JSON says `null` then and does not leave it out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Parent(pub Option<ServiceId>);

/// Something that JSON says only where it is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flag(pub bool);
