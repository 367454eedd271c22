//! Two kernels in each run of the tests: every program loads on the oldest that dpd supports, and the DNS service works there; on the
//! newest of Debian, whose verifier may differ most from that of this machine, every program loads.

use std::process::Command;

/// Runs `tests/kernels/run`; so many lines must say that something passed.
fn run(kernel: &str, scenarios: &str, passed: usize) {
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernels/run"))
        .arg(kernel)
        .env("SCENARIOS", scenarios)
        .output()
        .expect("run tests/kernels/run");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && printed.matches("\tpassed").count() == passed,
        "{printed}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn programs_load_and_serve_dns_on_the_oldest_kernel() {
    run("6.1", "short", 2);
}

#[test]
fn programs_load_on_the_newest_kernel() {
    run("newest", "none", 1);
}
