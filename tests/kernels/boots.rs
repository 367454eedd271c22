//! One kernel in each run of the tests: every program loads on the oldest that dpd supports.

use std::process::Command;

#[test]
fn programs_load_on_the_oldest_kernel() {
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernels/run"))
        .arg("6.1")
        .env("SCENARIOS", "none")
        .env("TIMEOUT", "600")
        .output()
        .expect("run tests/kernels/run");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && printed.matches("\tpassed").count() == 1,
        "{printed}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
