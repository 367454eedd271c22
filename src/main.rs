//! The `dpd` program.

fn main() -> std::process::ExitCode {
    dpd::cli::main()
}
