//! Two nodes on one machine know nothing of each other.

use crate::lab::{Lab, eventually};

#[test]
fn two_labs_do_not_disturb_each_other() {
    let (one, other) = (Lab::started(), Lab::started());
    for lab in [&one, &other] {
        lab.ask("client", "10.32.0.10")
            .expect("each has its own service");
    }
    let flows = other.flows().len();
    one.ask("intruder", "10.32.0.10")
        .expect_err("no rule allows it");
    eventually("the drop is told where it was", || {
        if one.drops().is_empty() {
            Err(())
        } else {
            Ok(())
        }
    });
    assert_eq!(
        other.drops(),
        Vec::<String>::new(),
        "and not where it was not"
    );

    let services = other.dpd("service list");
    let revision = other.revision();
    one.edit("10.32.0.10", "10.32.0.11");
    eventually("one changes", || one.ask("client", "10.32.0.11"));
    assert_eq!(other.dpd("service list"), services, "the other does not");
    assert_eq!(other.revision(), revision);

    one.dpd("ct flush");
    one.stop();
    one.dpd("cleanup");
    assert_eq!(other.attached().len(), 6, "the other keeps its programs");
    other.ask("client", "10.32.0.10").expect("and its service");
    let after = other.flows().len();
    assert!(after > flows, "and tells its own flows: {after}");
}
