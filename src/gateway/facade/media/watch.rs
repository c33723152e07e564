//! Finding out which media a service was shown: by watching what it sees, from the beginning of what history still has.
//!
//! Begun with a service's first request for media that are not known, so that services without such requests cost nothing.
//! What is told at a callback URL is known at once, without this.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::shown::{Shown, media_of};
use crate::actors::batch::BatchEntry;
use crate::actors::broker::Connected;
use crate::actors::port::Outgoing;
use crate::actors::{Caller, Deliver};
use crate::domain::ids::{AdapterId, Offset};
use crate::domain::view::{Viewer, view};
use crate::gateway::facade::auth::Who;
use crate::gateway::facade::known::FacadeNumber;

/// The adapter's name. It holds what no name over the wire may hold, so that nobody replaces it.
const ADAPTER: &str = "facade/media";
/// Its window, in deliveries.
const WINDOW: u32 = 4_096;
/// How long nothing must have come until all is taken to have been seen.
const SILENCE: Duration = Duration::from_millis(500);
/// How long is waited for media to be found, at least and at most.
const FOUND_WITHIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(20));
/// How often it is looked whether they are.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One service's watch.
#[derive(Debug)]
struct Watch {
    last_news: Mutex<Instant>,
}

/// The watches of all services.
#[derive(Debug, Default)]
pub(in crate::gateway::facade) struct Watches(Mutex<HashMap<Who, Arc<Watch>>>);

impl Watches {
    /// Waits until the media are found, or the service's watch has seen all that there is.
    pub(super) async fn find(
        &self,
        shown: &Arc<Shown>,
        (caller, who): (&Caller, &Who),
        numbers: &[Arc<FacadeNumber>],
        media_id: &str,
    ) -> Option<(Arc<FacadeNumber>, bool)> {
        if let Some(found) = shown.find(who, numbers, media_id) {
            return Some(found);
        }
        let watch = self.begin(shown, caller, who, numbers)?;
        let began = Instant::now();
        while began.elapsed() < FOUND_WITHIN.1 {
            tokio::time::sleep(LOOK_EVERY).await;
            if let Some(found) = shown.find(who, numbers, media_id) {
                return Some(found);
            }
            let silence = watch.last_news.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
            if silence >= SILENCE && began.elapsed() >= FOUND_WITHIN.0 {
                break;
            }
        }
        None
    }

    /// The service's watch; begins it where it does not run.
    fn begin(
        &self,
        shown: &Arc<Shown>,
        caller: &Caller,
        who: &Who,
        numbers: &[Arc<FacadeNumber>],
    ) -> Option<Arc<Watch>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watch) = all.get(who).filter(|watch| Arc::strong_count(watch) > 1) {
            return Some(Arc::clone(watch));
        }
        let own: Vec<_> = numbers.iter().filter(|number| number.portal == who.portal).cloned().collect();
        let channels = own.iter().filter_map(|number| caller.channel(&number.number));
        let from: BTreeMap<_, _> = channels.map(|(seen, _)| (seen.channel, Offset(1))).collect();
        let connected = caller.connect(AdapterId::trusted(ADAPTER), WINDOW, Deliver::Watch(from)).ok()?;
        let watch = Arc::new(Watch { last_news: Mutex::new(Instant::now()) });
        all.insert(who.clone(), Arc::clone(&watch));
        let running = Running { caller: caller.clone(), who: who.clone(), shown: Arc::clone(shown) };
        actix_web::rt::spawn(running.run(connected, Arc::clone(&watch)));
        Some(watch)
    }
}

struct Running {
    caller: Caller,
    who: Who,
    shown: Arc<Shown>,
}

impl Running {
    /// Ends with the connection; while it runs it holds the watch.
    async fn run(self, connected: Connected, watch: Arc<Watch>) {
        let session = connected.session;
        let outlet = Arc::clone(session.outlet());
        let mut out = Vec::new();
        loop {
            outlet.take(&mut out);
            for outgoing in out.drain(..) {
                match outgoing {
                    Outgoing::Deliveries(slice) => {
                        self.look_at(slice.batch.channel(), slice.entries(), outlet.masking());
                        *watch.last_news.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                        let (deliveries, bytes) = slice.weight();
                        outlet.written(deliveries, bytes);
                    }
                    Outgoing::End(_) | Outgoing::Fail(_) => return,
                    _ => {}
                }
            }
            if outlet.is_ended() {
                return;
            }
            tokio::select! {
                () = outlet.ready() => {}
                () = session.draining() => return,
            }
        }
    }

    fn look_at(
        &self,
        channel: crate::domain::ids::ChannelId,
        entries: &[BatchEntry],
        masking: crate::domain::view::Masking,
    ) {
        let Some(number) = self.caller.number_of(channel) else { return };
        let viewer = Viewer { service: &self.who.service, masking };
        for entry in entries {
            let BatchEntry::Record(record) = entry else { continue };
            let Some((_, seen)) = view(record, &viewer) else { continue };
            media_of(&seen).iter().for_each(|id| self.shown.show(&self.who, &number, id));
        }
    }
}
