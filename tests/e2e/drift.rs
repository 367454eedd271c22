//! Changes of the datapath by other tools: refused, or found, repaired, logged once and counted.

use serde_json::{Value, json};

use crate::lab::{NetnsLab, eventually};

/// The last log line on repaired drift.
fn drift_lines(lab: &NetnsLab) -> Vec<String> {
    let log = lab.log();
    let printed = log.lines().filter(|line| line.contains("drift repaired"));
    printed.map(str::to_owned).collect()
}

#[test]
fn drift_is_repaired() {
    let lab = NetnsLab::started();
    let root = lab
        .bpf_root()
        .join(format!("abi-{}", dpd::bpf::abi::abi::DPD_ABI_VERSION.0));
    let pins = root.display();
    let drift = |lab: &NetnsLab| lab.json("status")["drift"].clone();
    let none = json!({"attachments": 0, "epoch": 0, "pins": 0, "tables": 0});
    assert_eq!(drift(&lab), none);
    let attached = lab.attached();
    let revision = lab.revision();

    let table = format!("{pins}/gen/{revision}/services");
    let key = lab.ok("node", &format!("bpftool -j map dump pinned {table}"));
    let rows: Vec<Value> = serde_json::from_str(&key).expect("rows in JSON");
    let key = rows[0]["key"].as_array().expect("a key in bytes");
    let key: Vec<&str> = key.iter().filter_map(Value::as_str).collect();
    let delete = format!(
        "bpftool map delete pinned {table} key hex {}",
        key.join(" ").replace("0x", "")
    );
    let refused = lab.run("node", &delete);
    let printed = crate::lab::text(&refused);
    assert!(
        printed.contains("Operation not permitted"),
        "{delete}: {printed}"
    );

    lab.ok(
        "node",
        &format!("rm {pins}/maps/dpd_ct_other {pins}/load/1/dpd_calls"),
    );
    lab.dig("client", "10.32.0.10")
        .expect("packets are not affected");
    lab.ok(
        "node",
        &format!("bpftool link detach pinned $(ls {pins}/links/*-ingress | head -n1)"),
    );
    let slot = revision & 1;
    lab.ok(
        "node",
        &format!("bpftool map delete pinned {pins}/maps/dpd_policy key {slot} 0 0 0"),
    );
    lab.ok(
        "node",
        &format!(
            "bpftool map update pinned {pins}/maps/dpd_live key 0 0 0 0 value 9 0 0 0 0 0 0 0"
        ),
    );
    eventually("the drift is repaired", || {
        let now = drift(&lab);
        let is_counted = now["tables"] == 1 && now["epoch"] == 1 && now["attachments"] == 1;
        is_counted.then_some(()).ok_or(now)
    });
    assert_eq!(drift(&lab)["pins"], 2);
    assert_eq!(lab.attached(), attached);
    for server in ["10.32.0.10", "fd00:32::10"] {
        lab.dig("client", server).expect("the service works again");
    }
    let lines = drift_lines(&lab);
    for words in [
        "packets were processed under revision 9 instead of 1",
        "the table policy was not in its slot",
        "load/1/dpd_calls was not pinned",
        "interface lxc-c",
    ] {
        let count = lines.iter().filter(|line| line.contains(words)).count();
        assert_eq!(count, 1, "{words}: {lines:?}");
    }
    assert!(lab.revision() > 9, "the foreign epoch is never used");
    lab.ok("node", &format!("test -e {pins}/load/1/dpd_calls"));
}
