//! The messages of the protocol as owned values, the same for every encoding and for both sides.
//!
//! Stands between the codecs, which make them of bytes and bytes of them, and sessions, adapters and gateways, which
//! read and write nothing else. What a service is shown on the hot path is not made from these: it is written straight
//! from the domain's view, in the bytes that these would have.
//!
//! **Invariants:** a variant that was published keeps its number, name and fields for ever; a new field is a new
//! variant with the next number. Ids are checked before a value of these types is decoded. What a person could be
//! recognised by, content and tokens hide themselves in `Debug`.

mod call;
mod delivery;
mod error;
mod request;
mod response;
mod text;

pub mod deliveries {
    //! The fields of each delivery.
    pub use super::delivery::{
        Claim, ConversationMerged, DetailedReceipt, Gap, MaskedReply, Membership, Message, Notice, Presence,
        Receipt, Reply, Send, Thread,
    };
}
pub mod requests {
    //! The fields of each request.
    pub use super::request::{
        Ack, ActivateChannel, ConfigureChannel, CreateChannel, DeactivateChannel, DeleteChannel, GetChannel,
        Hello, Inbound, ListChannels, ListConversations, Open, PickUp, Ping, Presence, Release, Reply,
        Roster, Sent, Status, ThreadControl, ThreadOwner, Transfer,
    };
}
pub mod responses {
    //! The fields of each response.
    pub use super::response::{
        Accepted, Channel, Channels, Conversation, Conversations, Error, Goaway, InboundAccepted, Ok,
        PickedUp, Pong, Thread, Warning, Welcome,
    };
}
pub use super::values::word_sets;
pub use call::{Call, Confirmable, OrWarning};
pub use delivery::{Delivery, GapReason};
pub use error::{ErrorCode, Holder};
pub use request::{
    Addressee, DeliverMode, OPEN_LIMIT_DEFAULT, PROTOCOL_VERSION, Positions, Request, SentOutcome, StatusOf,
    ThreadVerb, WINDOW_DEFAULT, Who,
};
pub use response::{ConversationEntry, Response, ThreadOwnership};
pub use text::{Flag, Name, Parent, Private, RawContent};

/// A variant of a message, as the protocol document lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VariantInfo {
    /// Its number in the binary encoding, among those that travel in its direction.
    pub number: u32,
    /// Its `type` in JSON. Two variants may share one; then their fields tell them apart.
    pub name: &'static str,
    /// Its fields in the order in which the binary encoding has them.
    pub fields: Vec<FieldInfo>,
}

/// A field of a variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldInfo {
    /// Its name.
    pub name: &'static str,
    /// Its type, by the protocol document's name for it.
    pub kind: String,
}

/// A message from the broker, as a client reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerMessage {
    /// The id of the request that it answers; 0 where it answers none.
    pub id: u64,
    /// What it says.
    pub body: ServerBody,
}

/// What the broker says.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerBody {
    /// The answer to a request, an error that ends the connection, or `goaway`.
    Response(Response),
    /// News of a channel.
    Delivery(Delivery),
}

/// Declares an enum of messages, and a struct for the fields of each.
///
/// `or 27 with { field: Type }` behind a variant's fields gives the struct one more, optional field: with it the message is
/// the variant of that later number, which has all of the older one's fields and then this, and without it the older.
macro_rules! messages {
    (
        $(#[$doc:meta])*
        pub enum $name:ident {
            $(
                $(#[$variant_doc:meta])*
                $number:literal $variant:ident = $json:literal $(checked by $check:ident)? {
                    $( $(#[$field_doc:meta])* $field:ident : $type:ty $(= $default:expr)? ),* $(,)?
                }
                $(or $later:literal with { $(#[$more_doc:meta])* $more:ident : $more_type:ty $(,)? })?
            )*
        }
    ) => {
        $(
            $(#[$variant_doc])*
            #[derive(Debug, Clone, PartialEq)]
            pub struct $variant {
                $( $(#[$field_doc])* pub $field: $type, )*
                $( $(#[$more_doc])* pub $more: Option<$more_type>, )?
            }

            impl Fields for $variant {
                #[inline]
                fn variant(&self) -> (u32, &'static str) {
                    $( if self.$more.is_some() { return ($later, $json); } )?
                    ($number, $json)
                }

                fn put_fields<W: Writer>(&self, _to: &mut W) {
                    $( self.$field.put_as(stringify!($field), _to); )*
                    $( if let Some(more) = &self.$more { more.put_as(stringify!($more), _to); } )?
                }
            }

            impl $variant {
                #[inline]
                pub(in crate::wire) fn take_fields<'a, R: Reader<'a>>(
                    _from: &mut R,
                    _is_later: bool,
                ) -> Result<Self, Fault> {
                    let fields = Self {
                        $( $field: take_member!(_from, stringify!($field) $(, or $default)?), )*
                        $( $more: if _is_later { Some(take_member!(_from, stringify!($more))) } else { None }, )?
                    };
                    $( $check(&fields)?; )?
                    Ok(fields)
                }

                fn field_infos() -> Vec<FieldInfo> {
                    vec![$( FieldInfo { name: stringify!($field), kind: <$type as Take>::kind() } ),*]
                }
            }

            impl From<$variant> for $name {
                fn from(fields: $variant) -> Self {
                    Self::$variant(fields)
                }
            }
        )*

        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub enum $name {
            $( $(#[$variant_doc])* $variant($variant), )*
        }

        impl $name {
            /// The `type` of this message in JSON.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self { $( Self::$variant(_) => $json, )* }
            }

            /// The number of this variant in the binary encoding.
            #[must_use]
            pub fn number(&self) -> u32 {
                match self { $( Self::$variant(fields) => fields.variant().0, )* }
            }

            /// Every variant, by its number.
            #[must_use]
            pub fn variants() -> Vec<VariantInfo> {
                let mut all = vec![$(
                    VariantInfo { number: $number, name: $json, fields: $variant::field_infos() }
                ),*];
                $( $(
                    let mut fields = $variant::field_infos();
                    fields.push(FieldInfo { name: stringify!($more), kind: <$more_type as Take>::kind() });
                    all.push(VariantInfo { number: $later, name: $json, fields });
                )? )*
                all.sort_by_key(|variant| variant.number);
                all
            }

            /// The names in JSON, with the variants' numbers.
            pub(in crate::wire) const NAMES: &[(&'static str, u32)] =
                &[$( ($json, $number), )* $( $( ($json, $later), )? )*];

            /// The field without which a message is not of that later variant but of the older of its name.
            pub(in crate::wire) const LATER: &[(u32, &'static str)] =
                &[$( $( ($later, stringify!($more)), )? )*];

            /// Reads the fields of the variant with this number; nothing, where there is none.
            pub(in crate::wire) fn take_fields<'a, R: Reader<'a>>(
                number: u32,
                from: &mut R,
            ) -> Option<Result<Self, Fault>> {
                match number {
                    $( $number => Some($variant::take_fields(from, false).map(Self::$variant)), )*
                    $( $( $later => Some($variant::take_fields(from, true).map(Self::$variant)), )? )*
                    _ => None,
                }
            }
        }

        impl Fields for $name {
            fn variant(&self) -> (u32, &'static str) {
                (self.number(), self.name())
            }

            fn put_fields<W: Writer>(&self, to: &mut W) {
                match self { $( Self::$variant(fields) => fields.put_fields(to), )* }
            }
        }
    };
}
use messages;
