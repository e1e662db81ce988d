//! The binary: parse, run, map the error to an exit code. The only place that prints an error.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// A bug (docs/options.md).
const EXIT_BUG: u8 = 70;

fn main() -> ExitCode {
    match catch_unwind(AssertUnwindSafe(|| mesophyll::cli::run(std::env::args_os().skip(1)))) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            let text = error.to_string();
            if !text.is_empty() {
                // Where stderr is closed nothing can be said. What came from outside is escaped in
                // it.
                let _ = writeln!(std::io::stderr(), "mesophyll: {text}");
            }
            ExitCode::from(error.code())
        }
        // The panic's own message is on stderr already.
        Err(_) => ExitCode::from(EXIT_BUG),
    }
}
