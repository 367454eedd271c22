//! Prints a large configuration: `cargo run --release --example generate -- --services 10000 >large.toml`

#[path = "../benches/generate/mod.rs"]
mod generate;

use std::io::{self, Write};

use clap::Parser;
use generate::Size;

#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 10_000)]
    services: usize,
    #[arg(long, default_value_t = 10)]
    backends_per_service: usize,
    #[arg(long, default_value_t = 1_000)]
    endpoints: usize,
    #[arg(long, default_value_t = 5_000)]
    identities: usize,
    #[arg(long, default_value_t = 20_000)]
    rules: usize,
    #[arg(long, default_value_t = 10_000)]
    prefixes: usize,
}

fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let size = Size {
        services: arguments.services,
        backends_per_service: arguments.backends_per_service,
        endpoints: arguments.endpoints,
        identities: arguments.identities,
        rules: arguments.rules,
        prefixes: arguments.prefixes,
    };
    io::stdout().write_all(generate::config(&size).as_bytes())
}
