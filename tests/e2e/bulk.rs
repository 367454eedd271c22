//! Bulk data through a service, with segmentation offload, and fragmented datagrams.

use serde_json::Value;

use crate::lab::NetnsLab;

#[test]
fn bulk_data_passes_the_service_in_both_directions() {
    let lab = NetnsLab::started();
    lab.serve("coredns", "iperf3 -s -p 5201", 5201);
    let offload = lab.ok("client", "ethtool -k eth0");
    for feature in [
        "tcp-segmentation-offload: on",
        "generic-segmentation-offload: on",
    ] {
        assert!(
            offload.contains(feature),
            "{feature} is tested here: {offload}"
        );
    }
    let rows = [
        ("TCP", "-c 10.32.0.52 -n 200M"),
        ("TCP, towards the client", "-c 10.32.0.52 -n 200M -R"),
        ("TCP over IPv6", "-c fd00:32::52 -n 200M"),
        (
            "TCP over IPv6, towards the client",
            "-c fd00:32::52 -n 200M -R",
        ),
        ("UDP", "-c 10.32.0.52 -u -b 20M -n 1M"),
        (
            "UDP, towards the client",
            "-c 10.32.0.52 -u -b 20M -n 1M -R",
        ),
        ("UDP over IPv6", "-c fd00:32::52 -u -b 20M -n 1M"),
        ("UDP in fragments", "-c 10.32.0.52 -u -b 20M -n 1M -l 4000"),
        (
            "UDP in fragments, towards the client",
            "-c 10.32.0.52 -u -b 20M -n 1M -l 4000 -R",
        ),
        (
            "UDP in fragments over IPv6",
            "-c fd00:32::52 -u -b 20M -n 1M -l 4000",
        ),
        (
            "UDP in fragments over IPv6, towards the client",
            "-c fd00:32::52 -u -b 20M -n 1M -l 4000 -R",
        ),
    ];
    for (sentence, words) in rows {
        let printed = lab.ok("client", &format!("timeout 60 iperf3 -J -p 52 {words}"));
        let report: Value = serde_json::from_str(&printed).expect(sentence);
        let end = &report["end"];
        let is_udp = words.contains(" -u ");
        let received = if is_udp {
            &end["sum"]
        } else {
            &end["sum_received"]
        };
        assert!(
            received["bytes"].as_u64().is_some_and(|bytes| bytes > 0),
            "{sentence}: {end}"
        );
        if is_udp {
            let packets = received["packets"].as_u64().expect("packets");
            let lost = received["lost_packets"].as_u64().expect("lost packets");
            assert!(
                packets > 100 && lost * 20 < packets,
                "{sentence}: {lost} of {packets} lost"
            );
        }
    }
    assert_eq!(lab.drops(), Vec::<String>::new(), "nothing was dropped");
}
