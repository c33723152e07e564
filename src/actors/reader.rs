//! Reads history off the Arbiters: at most [`READERS`] threads, jobs in the order in which they came.
//!
//! A job reads and then tells an actor; it must not wait for anything else. Each channel has at most one read under
//! way for each of its services, and each connection at most 1,024 requests, so the jobs that wait are bounded.

use std::panic::{AssertUnwindSafe, catch_unwind};
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
}

impl Readers {
    /// Starts the threads; they end when the last clone of this is gone.
    pub(super) fn start(journal: &Arc<dyn Journal>) -> std::io::Result<Self> {
        let (jobs, waiting) = mpsc::channel::<Job>();
        let waiting = Arc::new(Mutex::new(waiting));
        for reader in 0..READERS {
            let (waiting, journal) = (Arc::clone(&waiting), Arc::clone(journal));
            thread::Builder::new().name(format!("reader-{reader}")).spawn(move || {
                loop {
                    let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(job) = job else { return };
                    if catch_unwind(AssertUnwindSafe(|| job(&*journal))).is_err() {
                        tracing::error!("a read of the journal panicked; what asked for it gets no answer");
                    }
                }
            })?;
        }
        Ok(Self { jobs })
    }

    /// Runs a job when a thread is free.
    pub(super) fn read(&self, job: impl FnOnce(&dyn Journal) + Send + 'static) {
        // It fails only when every thread is gone, and they end with the last sender.
        let _ = self.jobs.send(Box::new(job));
    }
}
