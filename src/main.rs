//! The `fuseboard` program.

use std::process::ExitCode;

/// Allocation is much of what a request costs; this one is faster with many threads and gives memory back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    fuseboard::cli::main()
}
