//! The program: parse, dispatch, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    purgewatch::commands::main(std::env::args_os())
}
