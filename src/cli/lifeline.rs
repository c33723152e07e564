//! How a child process learns that its parent is gone, however that ended: its standard input, a pipe that the parent
//! alone holds, comes to its end.
//!
//! ```text
//! parent ── holds the pipe's end for writing, and writes nothing
//!    │ gone, by SIGKILL too: the system closes it
//! child ─── reads the other end until there is no more, and then ends in its own way
//! ```

use std::io;

use tokio::sync::oneshot;

/// Resolves when standard input has come to its end.
pub(super) struct Lifeline(Option<oneshot::Receiver<()>>);

impl Lifeline {
    /// Holds for ever: nobody is waited for.
    pub(super) fn unbound() -> Self {
        Self(None)
    }

    /// That of a child whose parent holds its standard input.
    pub(super) fn of_stdin() -> io::Result<Self> {
        let (tell, told) = oneshot::channel();
        // A thread of its own, which does not hold up the process's end as the runtime's would.
        std::thread::Builder::new().name("lifeline".to_owned()).spawn(move || {
            // A pipe that can not be read has nobody at its other end either.
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            // Nobody waits only if the process ends already.
            let _ = tell.send(());
        })?;
        Ok(Self(Some(told)))
    }

    /// Waits until the parent is gone; says so once. Cancel safe.
    pub(super) async fn broken(&mut self) {
        match &mut self.0 {
            Some(told) => drop(told.await),
            None => std::future::pending().await,
        }
        self.0 = None;
    }
}
