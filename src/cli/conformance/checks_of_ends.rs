//! Checks of how a connection ends, and when the adapter comes back.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::checks::TOLERANCE;
use super::stand_in::{StandIn, Turn};
use crate::wire::message::responses::{Error, Goaway};
use crate::wire::message::{ErrorCode, Response};

/// What `goaway` asks for.
const RETRY_AFTER: Duration = Duration::from_millis(1_500);
/// How long after it the connection ends.
const ENDS_AFTER: Duration = Duration::from_millis(200);
/// Connections that are ended at once.
const TURNED_AWAY: usize = 6;
/// The shortest distance between two of them: a broker that starts again must not be stormed.
const DISTANCE_MIN: Duration = Duration::from_millis(10);
/// A pause that need not grow any more.
const LONG: Duration = Duration::from_secs(1);
/// How long who was replaced must stay away, as far as it is watched.
const AWAY: Duration = Duration::from_secs(3);

impl StandIn {
    pub(super) async fn goes_away(&mut self) -> Option<String> {
        let retry_after_ms = u64::try_from(RETRY_AFTER.as_millis()).unwrap_or(u64::MAX);
        self.say(0, &Response::Goaway(Goaway { retry_after_ms })).await;
        let said = Instant::now();
        self.may_end = true;
        while self.turn(said + ENDS_AFTER).await == Turn::Took {}
        self.may_end = false;
        let gone = Instant::now().min(said + ENDS_AFTER);
        self.drop_link();
        if self.come_back().await && gone.elapsed() + TOLERANCE < RETRY_AFTER {
            let (came, asked) = (gone.elapsed().as_millis(), RETRY_AFTER.as_millis());
            self.ledger.fault(format!("came back after {came} ms, though goaway asked for {asked}"));
        }
        self.answers().await
    }

    pub(super) async fn turns_away(&mut self) -> Option<String> {
        self.drop_link();
        let mut came = Vec::new();
        for _ in 0..TURNED_AWAY {
            match self.turn_away().await {
                Some(at) => came.push(at),
                None => {
                    self.is_gone = true;
                    self.ledger.fault("gave up after connections that ended at once");
                    return None;
                }
            }
        }
        let distances: Vec<Duration> = came
            .iter()
            .zip(came.iter().skip(1))
            .map(|(before, after)| after.duration_since(*before))
            .collect();
        let in_words: Vec<String> =
            distances.iter().map(|distance| format!("{} ms", distance.as_millis())).collect();
        if let (Some(first), Some(last)) = (distances.first(), distances.last()) {
            if distances.iter().any(|distance| *distance < DISTANCE_MIN) {
                self.ledger.fault(format!("came back without a pause: {}", in_words.join(", ")));
            } else if *last < 2 * *first && *last < LONG {
                self.ledger.fault(format!("its pauses do not grow: {}", in_words.join(", ")));
            }
        }
        self.answers().await
    }

    pub(super) async fn replaces(&mut self) -> Option<String> {
        let error = Error::new(ErrorCode::Replaced, "a newer session has this adapter's name");
        self.say(0, &Response::Error(error)).await;
        self.drop_link();
        if timeout(AWAY, self.listener.accept()).await.is_ok() {
            self.ledger.fault("came back under the name that a newer session has: the two would push each other out for ever");
        }
        None
    }
}
