//! The broker as the webhooks' [`Intake`]: each update goes to every channel of its number.

use super::intent::Intent;
use super::{Fate, Intake, News, Unavailable, Update};
use crate::actors::Broker;
use crate::actors::broker::Submission;
use crate::actors::port::{Answered, Refusal};

impl Intake for Broker {
    async fn take(&self, updates: Vec<Update>) -> Result<Vec<Fate>, Unavailable> {
        if self.halt_reason().is_some() {
            return Err(Unavailable);
        }
        // All are submitted before the first is waited for, so that they share commits and keep their order.
        let submitted: Vec<_> = updates
            .into_iter()
            .map(|update| {
                let submission = match update.news {
                    News::Message(inbound) => Submission::Message(inbound),
                    News::Status(status) => Submission::Status(status),
                    News::OfReply { intent, message_id, status } => {
                        let Intent { channel, reply } = intent;
                        Submission::OfReply { channel, reply, message_id, status }
                    }
                    News::Echo(echo) => Submission::Echo(echo),
                    News::Notice { field, content } => Submission::Notice { field, content },
                };
                self.submit(&update.to.number, &submission)
            })
            .collect();
        let mut fates = Vec::with_capacity(submitted.len());
        for submitted in submitted {
            let answers = match submitted {
                Some(submitted) => submitted.answers().await,
                None => Vec::new(),
            };
            fates.push(fate(&answers)?);
        }
        Ok(fates)
    }
}

/// What all channels together say. One that could not take it makes the whole webhook come again.
fn fate(answers: &[Answered]) -> Result<Fate, Unavailable> {
    let mut whole = Fate::Nowhere;
    for answer in answers {
        let one = match answer {
            Answered::Taken { channels: 0, .. } => Fate::Nowhere,
            Answered::Taken { duplicate: true, .. } => Fate::Known,
            Answered::Refused(Refusal::Unavailable | Refusal::Overloaded { .. }) => return Err(Unavailable),
            Answered::Refused(_) => Fate::Refused,
            _ => Fate::Recorded,
        };
        whole = match (whole, one) {
            (Fate::Recorded, _) | (_, Fate::Recorded) => Fate::Recorded,
            (Fate::Known, _) | (_, Fate::Known) => Fate::Known,
            (Fate::Refused, _) | (_, Fate::Refused) => Fate::Refused,
            _ => Fate::Nowhere,
        };
    }
    Ok(whole)
}
