//! Two nodes on one machine are independent.

use crate::lab::{NetnsLab, eventually};

#[test]
fn two_labs_are_independent() {
    let (one, other) = (NetnsLab::started(), NetnsLab::started());
    for lab in [&one, &other] {
        lab.dig("client", "10.32.0.10")
            .expect("each has its own service");
    }
    let flows = other.flows().len();
    one.dig("intruder", "10.32.0.10")
        .expect_err("no rule allows it");
    eventually("the drop is observed on its node", || {
        if one.drops().is_empty() {
            Err(())
        } else {
            Ok(())
        }
    });
    assert_eq!(other.drops(), Vec::<String>::new(), "not on the other");

    let services = other.services();
    let revision = other.revision();
    one.edit("10.32.0.10", "10.32.0.11");
    eventually("the change applies to one", || {
        one.dig("client", "10.32.0.11")
    });
    assert_eq!(other.services(), services, "the other is unchanged");
    assert_eq!(other.revision(), revision);

    one.dpd("ct flush");
    one.stop();
    one.dpd("cleanup");
    assert_eq!(other.attached().len(), 6, "the other keeps its programs");
    other
        .dig("client", "10.32.0.10")
        .expect("its service works");
    let after = other.flows().len();
    assert!(after > flows, "it observes its own flows: {after}");
}
