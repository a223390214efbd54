//! The `loadtest` command. All of it is in the library, where tests and scenarios reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    loadtest::cli::main()
}
