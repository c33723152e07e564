//! Reads history off the Arbiters: at most [`READERS`] threads, jobs in the order in which they came.
//!
//! A job reads and then tells an actor; it must not wait for anything else. Each channel has at most one read under
//! way for each of its services, and each connection at most 1,024 requests, so the jobs that wait are bounded.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use crate::journal::Journal;

/// Threads that read backlogs and timelines.
pub(super) const READERS: usize = 2;
/// How much one read brings, in bytes.
pub(super) const READ_BYTES: usize = 256 << 10;

type Job = Box<dyn FnOnce(&dyn Journal) + Send>;

/// The threads that read.
#[derive(Debug, Clone)]
pub(super) struct Readers {
    jobs: mpsc::Sender<Job>,
    /// Jobs that are not done.
    unfinished: Arc<AtomicUsize>,
}

impl Readers {
    /// Starts the threads; they end when the last clone of this is gone.
    pub(super) fn start(journal: &Arc<dyn Journal>) -> std::io::Result<Self> {
        let (jobs, waiting) = mpsc::channel::<Job>();
        let waiting = Arc::new(Mutex::new(waiting));
        let unfinished = Arc::new(AtomicUsize::new(0));
        for reader in 0..READERS {
            let (waiting, journal) = (Arc::clone(&waiting), Arc::clone(journal));
            let unfinished = Arc::clone(&unfinished);
            thread::Builder::new().name(format!("reader-{reader}")).spawn(move || {
                loop {
                    let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(job) = job else { return };
                    if catch_unwind(AssertUnwindSafe(|| job(&*journal))).is_err() {
                        tracing::error!("a read of the journal panicked; what asked for it gets no answer");
                    }
                    unfinished.fetch_sub(1, Ordering::Relaxed);
                }
            })?;
        }
        Ok(Self { jobs, unfinished })
    }

    /// Runs a job when a thread is free.
    pub(super) fn read(&self, job: impl FnOnce(&dyn Journal) + Send + 'static) {
        self.unfinished.fetch_add(1, Ordering::Relaxed);
        // It fails only when every thread is gone, and they end with the last sender.
        let _ = self.jobs.send(Box::new(job));
    }

    /// Jobs that wait or are at work.
    pub(super) fn unfinished(&self) -> usize {
        self.unfinished.load(Ordering::Relaxed)
    }
}
