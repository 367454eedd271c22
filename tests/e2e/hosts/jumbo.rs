//! Links with an MTU of 9000 and XDP: multi-buffer frames.

use std::fs;

use serde_json::Value;

use crate::lab::NetnsLab;
use crate::web;

/// The XDP mode of the uplink.
fn mode(lab: &NetnsLab) -> String {
    let status = lab.json("status");
    let interfaces = status["interfaces"].as_array().expect("interfaces");
    let hooks = interfaces
        .iter()
        .flat_map(|row| row["attachments"].as_array().expect("attachments"));
    hooks
        .filter(|row| row["hook"] == "xdp")
        .map(|row| row["mechanism"].as_str().expect("a word"))
        .collect()
}

#[test]
fn jumbo_frames_pass_the_prefilter() {
    let (a, b) = NetnsLab::hosts(9000);
    web::serve_in(&a, "coredns", "10.200.1.44", "fd00:201::44", "web-b");
    a.serve("coredns", "iperf3 -s -p 5201", 5201);
    let folder = a.folder();
    let sent: Vec<u8> = (0..8 << 20)
        .map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    fs::write(folder.join("sent"), &sent).expect("write a large file");
    let place = folder.display();
    let prefilter = "[prefilter.abusers]\ndeny = [\"203.0.113.0/24\", \"2001:db8:3::9\"]\n";
    for word in ["native", "generic"] {
        for lab in [&a, &b] {
            let uplink = format!("{prefilter}[interfaces.uplink0]\nxdp = \"{word}\"\n");
            lab.apply("prefilter", &uplink);
            assert_eq!(mode(lab), word);
        }
        for host in ["10.32.0.80", "[fd00:32::80]"] {
            let name = format!("{word}-{}", host.replace(['[', ']', ':'], "-"));
            let url = format!("'http://{host}/{name}'");
            a.ok("client", &format!("curl -fsS -m 30 -T {place}/sent {url}"));
            let arrived = fs::read(folder.join("web-b").join(&name)).expect("what was uploaded");
            assert!(arrived == sent, "{word}, {host}: the upload is complete");
            a.ok("client", &format!("curl -fsS -m 30 -o {place}/got {url}"));
            let back = fs::read(folder.join("got")).expect("what was downloaded");
            assert!(back == sent, "{word}, {host}: the download is complete");
        }
        for words in [
            "-c 10.32.0.52 -n 50M",
            "-c fd00:32::52 -n 50M -R",
            "-c 10.32.0.52 -u -b 50M -n 2M -l 8900",
            "-c fd00:32::52 -u -b 50M -n 2M -l 8900 -R",
        ] {
            let printed = a.ok("client", &format!("timeout 60 iperf3 -J -p 52 {words}"));
            let report: Value = serde_json::from_str(&printed).expect(words);
            let bytes = &report["end"]["sum_received"]["bytes"];
            assert!(
                bytes.as_u64() > Some(1_000_000),
                "{word}: {words}: {report}"
            );
        }
        // The host's own packets of 9000 bytes, unfragmented.
        for (to, length) in [("198.51.100.2", 8972), ("2001:db8:2::2", 8952)] {
            a.ok(
                "node-a",
                &format!("ping -n -c 2 -W 5 -M do -s {length} {to}"),
            );
        }
        for (to, length) in [("192.0.2.1", 8972), ("fd00:200::64", 8952)] {
            let line = format!("ping -n -c 1 -W 1 -M do -s {length} {to}");
            let output = a.run("world", &line);
            assert!(!output.status.success(), "{word}: {to} is unreachable");
        }
    }
    let of = |lab: &NetnsLab| lab.drops();
    assert_eq!(
        of(&a),
        ["\"prefilter\" (4)"],
        "only denied packets are dropped"
    );
    assert_eq!(of(&b), Vec::<String>::new());
    for lab in [&a, &b] {
        let malformed = &lab.json("status")["prefilter"]["malformed"];
        assert_eq!(malformed, 0, "every frame was parsed");
    }
}
