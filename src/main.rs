//! The program: a shell around the command line of the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    sharedline::cli::main()
}
