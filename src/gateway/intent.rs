//! What a request to WhatsApp carries in `biz_opaque_callback_data`: which reply it sends, by the channel's id and the
//! reply's offset. Meta gives it back in the statuses, so that a reply whose answer was lost is found again.
//!
//! It is ours alone: what a service wrote there itself stays in the journal and reaches nobody else.

use crate::domain::ids::{ChannelId, Offset};

/// What tells ours from everybody else's.
const PREFIX: &str = "sharedline:1:";

/// A reply that was handed to WhatsApp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Intent {
    /// Its channel.
    pub channel: ChannelId,
    /// Where it stands.
    pub reply: Offset,
}

impl Intent {
    /// As it travels.
    #[must_use]
    pub fn to_callback_data(self) -> String {
        format!("{PREFIX}{:032x}:{}", self.channel.0, self.reply.0)
    }

    /// What was written by [`Intent::to_callback_data`]; none where it is another's.
    #[must_use]
    pub fn read(data: &str) -> Option<Self> {
        let (channel, reply) = data.strip_prefix(PREFIX)?.split_once(':')?;
        let intent = Self {
            channel: ChannelId(u128::from_str_radix(channel, 16).ok()?),
            reply: Offset(reply.parse().ok()?),
        };
        (intent.to_callback_data() == data).then_some(intent)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_reads_as_it_was_written(channel: u128, reply: u64) {
            let intent = Intent { channel: ChannelId(channel), reply: Offset(reply) };
            prop_assert_eq!(Intent::read(&intent.to_callback_data()), Some(intent));
        }

        #[test]
        fn what_others_write_is_not_ours(data in ".{0,80}") {
            prop_assert_eq!(Intent::read(&data), None);
        }
    }

    #[test]
    fn nearly_ours_is_not_ours() {
        for data in [
            "sharedline:1:",
            "sharedline:1:zz:1",
            "sharedline:2:00:1",
            "sharedline:1:+1:1",
            "sharedline:1:0:1",
        ] {
            assert_eq!(Intent::read(data), None, "{data}");
        }
    }
}
