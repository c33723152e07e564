//! The one place that prints: plain text on a pipe, colour on a terminal that has it.

use std::io::Write;

/// Prints a line. A reader that has gone away is no reason to fail.
pub(super) fn line(text: &str) {
    let _ = writeln!(anstream::stdout(), "{text}");
}

/// Prints a line, and says whether anybody still reads.
pub(super) fn try_line(text: &str) -> bool {
    let mut out = anstream::stdout();
    writeln!(out, "{text}").and_then(|()| out.flush()).is_ok()
}

/// Prints why something failed, with everything beneath it.
pub(super) fn error(error: &anyhow::Error) {
    let _ = writeln!(anstream::stderr(), "sharedline: {error:#}");
}

/// Prints a line for people beside the output that is for programs.
pub(super) fn note(text: &str) {
    let _ = writeln!(anstream::stderr(), "{text}");
}
