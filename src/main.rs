//! The `kith` command. All of it is in the library, where tests and other members of the workspace reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    kith::cli::main()
}
