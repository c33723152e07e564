//! The checks, one thing each, in the order in which they are made. Each leaves everything acknowledged.

use std::time::Duration;

use tokio::time::Instant;

use super::Verdict;
use super::ledger::Answer;
use super::manners::Manner;
use super::stand_in::{StandIn, Turn};
use crate::actors::outlet::WINDOW_MAX;
use crate::domain::ids::ConversationId;
use crate::wire::frame::Encoding;
use crate::wire::message::{Delivery, ErrorCode};

/// Every check, and what an adapter does that passes it.
pub(super) const CHECKS: &[(&str, &str)] = &[
    ("answers", "answers a message with one reply and acknowledges it"),
    ("ack_after_work", "acknowledges a message only when its reply is accepted"),
    ("ack_in_order", "acknowledges nothing behind a message that is not done: an ack covers all before it"),
    ("repeat", "a repeat is told by channel and offset: no second reply"),
    ("repeat_later", "a repeat after a reconnection is acknowledged again and not answered again"),
    ("retry", "a reply without an answer is sent again under the same reply_id"),
    ("reconnect", "what was delivered before the connection broke is answered and acknowledged after it"),
    ("pick_up_warning", "a pick-up that is warned of is repeated with the warning's confirm, or let be"),
    ("reply_warning", "a reply that is warned of is repeated with the last warning's confirm"),
    ("later", "`overloaded` is waited out, and the same reply sent again"),
    ("refusal", "a refusal for good is taken: acknowledged, and not tried again and again"),
    ("split_bytes", "a message that comes byte by byte is one message"),
    ("burst", "two hundred messages at once are all answered"),
    ("unknown", "unknown messages and members are passed over"),
    ("others", "every other delivery is acknowledged, but presence, and none is answered"),
    ("goaway", "after goaway it comes back, and not before retry_after_ms"),
    ("back_off", "it comes back at growing distances"),
    ("heartbeat", "it pings as often as it promises"),
    ("replaced", "when a newer session has its name it stays away"),
];

/// How long is watched that something does not happen.
pub(super) const QUIET: Duration = Duration::from_millis(500);
/// Messages of a burst, where the window has room.
const BURST: usize = 200;
/// How long `overloaded` asks to wait.
const LATER: Duration = Duration::from_millis(600);
/// How much sooner than asked is no fault: clocks differ.
pub(super) const TOLERANCE: Duration = Duration::from_millis(20);

impl StandIn {
    /// Makes a check.
    pub(super) async fn check(&mut self, name: &str) -> Verdict {
        self.ledger.faults.clear();
        if self.is_gone {
            return Verdict::NotJudged("the adapter is gone".to_owned());
        }
        if self.link.is_none() && !self.come_back().await {
            return Verdict::Wrong(std::mem::take(&mut self.ledger.faults));
        }
        let not_judged = match name {
            name if self.network.is_some() => self.check_gateway(name).await,
            "answers" => self.answers().await,
            "ack_after_work" => self.acks_after_work().await,
            "ack_in_order" => self.acks_in_order().await,
            "repeat" => self.repeats().await,
            "repeat_later" => self.repeats_later().await,
            "retry" => self.retries().await,
            "reconnect" => self.reconnects().await,
            "pick_up_warning" => self.warns_of_pick_up().await,
            "reply_warning" => self.warns_of_reply().await,
            "later" => self.asks_for_later().await,
            "refusal" => self.refuses().await,
            "split_bytes" => self.splits_bytes().await,
            "burst" => self.bursts().await,
            "unknown" => self.says_unknown_things().await,
            "others" => self.delivers_others().await,
            "goaway" => self.goes_away().await,
            "back_off" => self.turns_away().await,
            "heartbeat" => self.waits_for_pings().await,
            "replaced" => self.replaces().await,
            other => Some(format!("there is no check {other}")),
        };
        let faults = std::mem::take(&mut self.ledger.faults);
        match not_judged {
            _ if !faults.is_empty() => Verdict::Wrong(faults),
            Some(why) => Verdict::NotJudged(why),
            None => Verdict::Passed,
        }
    }

    /// Delivers a new customer's message.
    async fn new_message(&mut self) -> (ConversationId, Delivery) {
        let (conversation, message) = self.message();
        self.deliver(&message, false).await;
        (conversation, message)
    }

    async fn new_message_with(&mut self, manners: &[Manner]) -> (ConversationId, Delivery) {
        let (conversation, message) = self.message();
        self.manners.insert(conversation, manners.iter().cloned().collect());
        self.deliver(&message, false).await;
        (conversation, message)
    }

    pub(super) async fn answers(&mut self) -> Option<String> {
        let work = self.work();
        self.deliver(&work, false).await;
        self.settle().await;
        None
    }

    async fn acks_after_work(&mut self) -> Option<String> {
        self.new_message_with(&[Manner::Hold]).await;
        self.until(self.patience, |stand_in| !stand_in.held.is_empty()).await;
        self.watch(QUIET).await;
        self.let_go().await;
        self.settle().await;
        None
    }

    async fn acks_in_order(&mut self) -> Option<String> {
        self.new_message_with(&[Manner::Hold]).await;
        self.new_message().await;
        self.until(self.patience, |stand_in| !stand_in.held.is_empty()).await;
        self.watch(QUIET).await;
        self.let_go().await;
        self.settle().await;
        None
    }

    async fn repeats(&mut self) -> Option<String> {
        let (_, message) = self.new_message().await;
        self.settle().await;
        self.deliver(&message, true).await;
        self.watch(QUIET).await;
        self.settle().await;
        None
    }

    async fn repeats_later(&mut self) -> Option<String> {
        let (_, message) = self.new_message().await;
        self.settle().await;
        self.drop_link();
        // As if the acknowledgement had been lost with the connection.
        if self.come_back().await {
            self.deliver(&message, true).await;
            self.watch(QUIET).await;
            self.settle().await;
        }
        None
    }

    async fn retries(&mut self) -> Option<String> {
        let (conversation, _) = self.new_message_with(&[Manner::Drop]).await;
        self.settle().await;
        self.watch(QUIET).await;
        let again = self.ledger.reply_in(conversation).map_or(0, |asked| asked.at.len());
        if again < 2 && self.ledger.faults.is_empty() {
            self.ledger.fault("the reply that had no answer was not sent again");
        }
        None
    }

    async fn reconnects(&mut self) -> Option<String> {
        for _ in 0..5 {
            self.new_message().await;
        }
        self.drop_link();
        self.settle().await;
        self.watch(QUIET).await;
        None
    }

    async fn warns_of_pick_up(&mut self) -> Option<String> {
        let (conversation, message) = self.message();
        self.pick_up_warnings.insert(conversation, "confirm-of-the-pick-up".to_owned());
        let before = self.pick_ups;
        self.deliver(&message, false).await;
        self.settle().await;
        (self.pick_ups == before).then(|| "it picks nothing up".to_owned())
    }

    async fn warns_of_reply(&mut self) -> Option<String> {
        // Somebody else has replied once more before the first confirmation came.
        let warnings =
            ["confirm-of-the-first", "confirm-of-the-second"].map(|text| Manner::Warn(text.to_owned()));
        let (conversation, _) = self.new_message_with(&warnings).await;
        self.settle().await;
        let answer = self.ledger.reply_in(conversation).map(|asked| asked.answer);
        if answer == Some(Answer::Warned) {
            self.ledger.fault("took a warning for an acceptance: nothing was sent");
        }
        None
    }

    async fn asks_for_later(&mut self) -> Option<String> {
        let (conversation, _) = self.new_message_with(&[Manner::Later(LATER)]).await;
        self.settle().await;
        let waited = self.ledger.reply_in(conversation).map(|asked| match asked.at.as_slice() {
            [first, second, ..] => Some(second.duration_since(*first)),
            _ => None,
        });
        match waited {
            Some(Some(waited)) if waited + TOLERANCE < LATER => {
                let text =
                    format!("came again after {} ms, asked for {}", waited.as_millis(), LATER.as_millis());
                self.ledger.fault(text);
            }
            Some(None) if self.ledger.faults.is_empty() => self.ledger.fault("the reply was not sent again"),
            _ => {}
        }
        None
    }

    async fn refuses(&mut self) -> Option<String> {
        let refusal = Manner::Refuse(ErrorCode::WindowClosed);
        let (conversation, _) = self.new_message_with(&vec![refusal; 16]).await;
        self.settle().await;
        self.watch(QUIET).await;
        let tries: usize = self
            .ledger
            .asked
            .iter()
            .filter(|asked| asked.conversation == conversation)
            .map(|asked| asked.at.len())
            .sum();
        if tries > 2 {
            self.ledger.fault(format!("tried {tries} times what was refused with window_closed"));
        }
        None
    }

    pub(super) async fn splits_bytes(&mut self) -> Option<String> {
        let message = self.work();
        let frame = self.frame(&message, false);
        for byte in &frame {
            self.write(std::slice::from_ref(byte)).await;
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        self.settle().await;
        None
    }

    async fn bursts(&mut self) -> Option<String> {
        let window = self.hello.as_ref().map_or(1, |hello| hello.window.clamp(1, WINDOW_MAX));
        let count = BURST.min(usize::try_from(window).unwrap_or(BURST));
        let mut frames = Vec::new();
        for _ in 0..count {
            let (_, message) = self.message();
            frames.extend_from_slice(&self.frame(&message, false));
        }
        self.write(&frames).await;
        self.settle().await;
        None
    }

    pub(super) async fn says_unknown_things(&mut self) -> Option<String> {
        let message = self.work();
        let frame = self.frame(&message, false);
        let channel = self.channel;
        let bytes = match self.link.as_ref().map(|link| link.encoding) {
            Some(Encoding::Binary) => [&[0, 0, 0, 5, 0, 250, 1, 2, 3][..], &frame].concat(),
            _ => {
                let news = format!(
                    "{{\"type\":\"of_tomorrow\",\"channel\":\"{channel}\",\"news\":{{\"a\":[1]}}}}\n"
                );
                let member = br#"{"of_tomorrow":{"x":[1,null]},"#;
                [news.as_bytes(), member, frame.get(1..).unwrap_or_default()].concat()
            }
        };
        self.write(&bytes).await;
        self.settle().await;
        None
    }

    async fn delivers_others(&mut self) -> Option<String> {
        let before = self.ledger.asked.len();
        for delivery in self.others() {
            self.deliver(&delivery, true).await;
        }
        self.settle().await;
        self.watch(QUIET).await;
        if self.ledger.asked.len() > before {
            self.ledger.fault("answered what no customer wrote");
        }
        None
    }

    pub(super) async fn waits_for_pings(&mut self) -> Option<String> {
        let Some(heartbeat) = self.hello.as_ref().and_then(|hello| hello.heartbeat_ms) else {
            return Some("it promises none".to_owned());
        };
        let most = Duration::from_millis(heartbeat).saturating_mul(3);
        if most > self.patience {
            return Some(format!(
                "its heartbeat_ms of {heartbeat} is too long for the patience; see --patience"
            ));
        }
        // Twice so long: what it asks at the beginning is no ping.
        let end = Instant::now() + 2 * most;
        let mut came = Turn::Took;
        while came == Turn::Took && Instant::now() < end {
            came = self.turn(Instant::now() + most).await;
        }
        if came == Turn::Quiet {
            self.ledger.fault(format!(
                "promised a ping every {heartbeat} ms, and sent nothing for three times that"
            ));
        }
        None
    }
}
