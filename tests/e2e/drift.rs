//! Other tools at work on the datapath: what they do is refused, or found, put back, said once and counted.

use serde_json::{Value, json};

use crate::lab::{Lab, eventually};

/// The last of the lines that say what something else did.
fn told(lab: &Lab) -> Vec<String> {
    let log = lab.log();
    let said = log
        .lines()
        .filter(|line| line.contains("something else changed the datapath"));
    said.map(str::to_owned).collect()
}

#[test]
fn what_other_tools_do_is_put_back() {
    let lab = Lab::started();
    let root = lab
        .bpf_root()
        .join(format!("abi-{}", dpd::bpf::abi::abi::DPD_ABI_VERSION.0));
    let pins = root.display();
    let drift = |lab: &Lab| lab.json("status")["drift"].clone();
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
    let said = crate::lab::text(&refused);
    assert!(said.contains("Operation not permitted"), "{delete}: {said}");

    lab.ok(
        "node",
        &format!("rm {pins}/maps/dpd_ct_other {pins}/load/1/dpd_calls"),
    );
    lab.ask("client", "10.32.0.10")
        .expect("packets miss nothing");
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
    eventually("all is as it was", || {
        let now = drift(&lab);
        let is_told = now["tables"] == 1 && now["epoch"] == 1 && now["attachments"] == 1;
        is_told.then_some(()).ok_or(now)
    });
    assert_eq!(drift(&lab)["pins"], 2);
    assert_eq!(lab.attached(), attached);
    for server in ["10.32.0.10", "fd00:32::10"] {
        lab.ask("client", server).expect("all is well again");
    }
    let lines = told(&lab);
    for words in [
        "packets were processed under revision 9 instead of 1",
        "the table policy was not in its slot",
        "load/1/dpd_calls was not pinned",
        "interface lxc-c",
    ] {
        let count = lines.iter().filter(|line| line.contains(words)).count();
        assert_eq!(count, 1, "{words}: {lines:?}");
    }
    assert!(lab.revision() > 9, "no connection was judged under it");
    lab.ok("node", &format!("test -e {pins}/load/1/dpd_calls"));
}
