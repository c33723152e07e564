//! Messages and replies that are under way, all at once, while the broker is killed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::ensure;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::cast::Cast;
use super::whatsapp::WhatsApp;
use crate::domain::ids::{ChannelId, CustomerName, Offset};
use crate::wire::message::requests::Reply;
use crate::wire::message::{Addressee, RawContent, Response};

/// Customers that write while the broker is killed.
const CUSTOMERS_AT_THE_KILL: usize = 40;
/// Messages that are under way then.
pub(super) const MESSAGES_AT_THE_KILL: usize = 400;
/// Replies that are under way then.
pub(super) const REPLIES_AT_THE_KILL: usize = 120;
/// Replies that were accepted: where, and how to ask again.
pub(super) type Replies = BTreeMap<String, (Offset, Reply)>;

/// What was acknowledged while the broker was killed.
pub(super) struct Acknowledged {
    pub(super) messages: Vec<String>,
    pub(super) replies: Replies,
}

/// Messages and replies that are being sent, all at once.
pub(super) struct UnderWay {
    messages: JoinSet<Option<String>>,
    replies: JoinSet<Option<(String, Offset, Reply)>>,
    /// So far.
    acknowledged: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    messages: AtomicUsize,
    replies: AtomicUsize,
}

impl UnderWay {
    pub(super) fn begin(cast: &mut Cast, whatsapp: &WhatsApp, channel: ChannelId) -> anyhow::Result<Self> {
        let acknowledged: Arc<Counts> = Arc::default();
        let (mut messages, mut replies) = (JoinSet::new(), JoinSet::new());
        for at in 0..MESSAGES_AT_THE_KILL {
            let wa_id = format!("1650556{:04}", at % CUSTOMERS_AT_THE_KILL);
            let webhook = cast.text_webhook(whatsapp, (&wa_id, "Crowd"), &format!("message {at}"), None);
            let (post, acknowledged) = (whatsapp.post(webhook.body), Arc::clone(&acknowledged));
            messages.spawn(async move {
                let taken = post.await.unwrap_or(false);
                acknowledged.messages.fetch_add(usize::from(taken), Ordering::AcqRel);
                taken.then_some(webhook.message_id)
            });
        }
        for at in 0..REPLIES_AT_THE_KILL {
            let reply_id = format!("k-{at}");
            let content = serde_json::json!({"type": "template", "template": {"name": "hello",
                "language": {"code": "en"}, "components": [{"type": "body", "parameters":
                    [{"type": "text", "text": at.to_string()}]}]}});
            let ask = Reply {
                channel,
                to: Addressee::Customer(CustomerName::read(&format!(
                    "1650557{:04}",
                    at % CUSTOMERS_AT_THE_KILL
                ))?),
                agent: None,
                reply_id: reply_id.parse()?,
                content: RawContent(content.to_string().into()),
                seen: None,
                confirm: None,
            };
            let client = cast.service("crm")?.client.clone();
            let acknowledged = Arc::clone(&acknowledged);
            replies.spawn(async move {
                let Ok(Response::Accepted(accepted)) = client.request(ask.clone()).await else { return None };
                acknowledged.replies.fetch_add(1, Ordering::AcqRel);
                Some((reply_id, accepted.offset, ask))
            });
        }
        Ok(Self { messages, replies, acknowledged })
    }

    /// Waits until so many of each are acknowledged, and the rest is under way.
    pub(super) async fn acknowledged_before(&self, count: usize) -> anyhow::Result<usize> {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let Counts { messages, replies } = &*self.acknowledged;
            let acknowledged = [messages, replies].map(|count| count.load(Ordering::Acquire));
            if acknowledged.iter().all(|acknowledged| *acknowledged >= count) {
                return Ok(acknowledged.iter().sum());
            }
            ensure!(Instant::now() < until, "only {acknowledged:?} were acknowledged in 20 s");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(super) async fn end(mut self) -> Acknowledged {
        let (mut messages, mut replies) = (Vec::new(), Replies::new());
        while let Some(done) = self.messages.join_next().await {
            messages.extend(done.ok().flatten());
        }
        while let Some(done) = self.replies.join_next().await {
            if let Ok(Some((reply_id, offset, ask))) = done {
                replies.insert(reply_id, (offset, ask));
            }
        }
        Acknowledged { messages, replies }
    }
}
