//! The oldest kernel that dpd supports, in each run of the tests: every program loads, and the DNS service works.

use std::process::Command;

#[test]
fn programs_load_and_serve_dns_on_the_oldest_kernel() {
    let run = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernels/run");
    let output = Command::new(run)
        .arg("6.1")
        .env("SHORT", "1")
        .output()
        .expect("run tests/kernels/run");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && printed.matches("\tpassed").count() == 2,
        "{printed}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
