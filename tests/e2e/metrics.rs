//! The metrics, scraped by a real Prometheus, and their port.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use crate::lab::{NetnsLab, eventually, text};

const DASHBOARD: &str = include_str!("../../docs/grafana.json");

fn metrics_at(address: &str) -> String {
    format!("[daemon]\nmetrics = \"{address}\"\n")
}

/// The page at an address of the node, or curl's error.
fn page(lab: &NetnsLab, address: &str) -> Result<String, String> {
    let output = lab.run(
        lab.node(),
        &format!("curl -sS --fail -m 10 http://{address}/metrics"),
    );
    let printed = text(&output);
    output
        .status
        .success()
        .then_some(printed.clone())
        .ok_or(printed)
}

/// The result of a query: each series' labels and value.
fn query(lab: &NetnsLab, expression: &str) -> Result<Vec<(Value, f64)>, String> {
    let output = lab
        .command(lab.node(), "curl")
        .args([
            "-sS",
            "-m",
            "10",
            "--data-urlencode",
            &format!("query={expression}"),
        ])
        .arg("http://127.0.0.1:9090/api/v1/query")
        .output()
        .expect("run curl");
    let reply: Value = serde_json::from_slice(&output.stdout).map_err(|_| text(&output))?;
    if reply["status"] != "success" {
        return Err(format!("{expression}: {reply}"));
    }
    let rows = reply["data"]["result"].as_array().expect("a result");
    let value = |row: &Value| row["value"][1].as_str().and_then(|text| text.parse().ok());
    Ok(rows
        .iter()
        .filter_map(|row| Some((row["metric"].clone(), value(row)?)))
        .collect())
}

/// Waits until a query returns one series of at least this value.
fn reaches(lab: &NetnsLab, expression: &str, least: f64) {
    eventually(&format!("{expression} reaches {least}"), || {
        let rows = query(lab, expression)?;
        match rows[..] {
            [(_, value)] if value >= least => Ok(()),
            _ => Err(format!("{rows:?}")),
        }
    });
}

/// A Prometheus on the node that scrapes dpd each second and has our alert rules.
fn start_prometheus(lab: &NetnsLab) {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/alerts.yml");
    let config = format!(
        "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\nrule_files:\n  - {rules:?}\nscrape_configs:\n  - job_name: dpd\n    \
         static_configs:\n      - targets: [\"127.0.0.1:9964\"]\n"
    );
    let file = lab.folder().join("prometheus.yml");
    fs::write(&file, config).expect("write prometheus.yml");
    let data = lab.folder().join("prometheus");
    let line = format!(
        "prometheus --config.file={} --storage.tsdb.path={} --web.listen-address=127.0.0.1:9090",
        file.display(),
        data.display()
    );
    lab.serve(lab.node(), &line, 9090);
}

/// Every expression of the dashboard's panels, with its variables filled in.
fn dashboard_expressions() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("the dashboard is JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().expect("targets"))
        .map(|target| {
            let expression = target["expr"].as_str().expect("an expression");
            let expression = expression.replace("$__rate_interval", "1m");
            expression.replace("$instance", ".*")
        })
        .collect()
}

/// A node with an uplink, and traffic of each kind that the dashboard shows.
fn with_traffic() -> (NetnsLab, NetnsLab) {
    let (lab, other) = NetnsLab::hosts_laid(1500);
    lab.drop_in("metrics", &metrics_at("127.0.0.1:9964"));
    lab.drop_in(
        "prefilter",
        "[prefilter.abusers]\ndeny = [\"203.0.113.9\"]\n",
    );
    lab.start();
    start_prometheus(&lab);
    lab.dig("client", "10.32.0.12").expect("the service works");
    lab.dig("intruder", "10.32.0.12")
        .expect_err("no rule allows it");
    let denied = lab.run("world", "ping -n -c 1 -W 1 192.0.2.1");
    assert!(!denied.status.success(), "{}", text(&denied));
    (lab, other)
}

#[test]
fn prometheus_scrapes_them() {
    let (lab, _other) = with_traffic();
    reaches(&lab, r#"up{job="dpd"}"#, 1.0);
    let rows = [
        r#"dpd_forwarded_packets_total{interface="lxc-client",direction="ingress"}"#,
        r#"sum(dpd_dropped_packets_total{reason="policy denied: no rule"})"#,
        r#"dpd_policy_rule_hits_total{rule="dns-clients/ingress/0",action="allow"}"#,
        r#"dpd_service_connections{service="dns-a"}"#,
        r#"sum(dpd_conntrack_connections{protocol="udp"})"#,
        "dpd_config_last_reload_successful",
        "dpd_conntrack_sweep_duration_seconds_count",
        "dpd_events_read_total",
        r#"process_resident_memory_bytes{job="dpd"}"#,
    ];
    for expression in rows {
        reaches(&lab, expression, 1.0);
    }
    for expression in dashboard_expressions() {
        eventually(&format!("the dashboard shows {expression}"), || {
            let rows = query(&lab, &expression)?;
            let is_shown = !rows.is_empty();
            is_shown.then_some(()).ok_or("no series".to_owned())
        });
    }
    let alerts = query(&lab, "ALERTS").expect("a query");
    assert!(alerts.is_empty(), "nothing is amiss: {alerts:?}");

    lab.save("[services]\nfoo = 1\n");
    reaches(&lab, r#"dpd_config_reloads_total{result="failure"}"#, 1.0);
    reaches(&lab, "dpd_config_last_reload_successful == bool 0", 1.0);
    reaches(
        &lab,
        r#"count(ALERTS{alertname="DpdConfigNotApplied"})"#,
        1.0,
    );
    lab.stop();
    reaches(&lab, r#"up{job="dpd"} == bool 0"#, 1.0);
    reaches(&lab, r#"count(ALERTS{alertname="DpdDown"})"#, 1.0);
}

#[test]
fn the_port_is_exclusive_and_follows_the_file() {
    let lab = NetnsLab::laid();
    let taken = lab
        .within("node", || TcpListener::bind("127.0.0.1:9965"))
        .expect("take a port");
    lab.drop_in("metrics", &metrics_at("127.0.0.1:9965"));
    let output = lab.run("node", &format!("{} run", env!("CARGO_BIN_EXE_dpd")));
    let printed = text(&output);
    assert!(!output.status.success(), "{printed}");
    assert!(
        printed.contains("daemon.metrics: listen at 127.0.0.1:9965: Address already in use"),
        "{printed}"
    );
    assert!(!lab.bpf_root().exists(), "nothing was changed");

    lab.drop_in("metrics", &metrics_at("127.0.0.1:9964"));
    lab.start();
    page(&lab, "127.0.0.1:9964").expect("it is served");
    let refused = page(&lab, "127.0.0.1:9964/other").expect_err("there is only one page");
    assert!(refused.contains("404"), "{refused}");

    let is_logged = |word: &str| {
        lab.signal("HUP");
        eventually(&format!("the error has {word:?}"), || {
            let error = lab.json("status")["config"]["last_error"].clone();
            let error = error.as_str().unwrap_or_default().to_owned();
            if error.contains(word) && error.is_empty() == word.is_empty() {
                Ok(())
            } else {
                Err(error)
            }
        });
    };
    lab.drop_in("metrics", &metrics_at("127.0.0.1:9965"));
    is_logged("daemon.metrics: listen at 127.0.0.1:9965: Address already in use");
    let page_of_failure = page(&lab, "127.0.0.1:9964").expect("the old port stays");
    assert!(page_of_failure.contains("\ndpd_config_last_reload_successful 0\n"));

    drop(taken);
    is_logged("");
    page(&lab, "127.0.0.1:9965").expect("a free port is opened");
    page(&lab, "127.0.0.1:9964").expect_err("the old one is closed");

    lab.drop_in("metrics", &metrics_at("[::]:9965"));
    eventually("all addresses with the same port", || {
        page(&lab, "[::1]:9965")
    });
    page(&lab, "127.0.0.1:9965").expect("serve both families");

    fs::remove_file(lab.folder().join("config.d/metrics.toml")).expect("remove the drop-in");
    eventually("without the key nothing listens", || {
        match page(&lab, "[::1]:9965") {
            Ok(page) => Err(page),
            Err(_) => Ok(()),
        }
    });
    assert!(!lab.log().contains("[daemon] has changed"), "{}", lab.log());
}

#[test]
fn silent_clients_keep_neither_prometheus_nor_status_out() {
    const CROWD: usize = 200;
    let address = "127.0.0.1:9966";
    let lab = NetnsLab::laid();
    lab.drop_in("metrics", &metrics_at(address));
    lab.start();
    let _port: Vec<TcpStream> = lab.within("node", || {
        let connect = |_| TcpStream::connect(address).expect("connect to the port");
        (0..CROWD).map(connect).collect()
    });
    let status = lab.json("status");
    let socket = lab.folder().join("dpd.sock");
    let connect = |_| UnixStream::connect(&socket).expect("connect to the socket");
    let _socket: Vec<UnixStream> = (0..CROWD).map(connect).collect();
    let page = page(&lab, address).expect("the page is served");
    assert!(page.contains("dpd_build_info"), "{page}");
    assert_eq!(lab.json("status")["daemon"]["pid"], status["daemon"]["pid"]);
}
