//! Workloads made by tools: runtime drop-ins come into effect, are skipped and removed, and the operator's file is never held up.

use std::fs;
use std::path::PathBuf;

use crate::lab::{NetnsLab, eventually, text};

const PAGE: &str = include_str!("../../docs/workloads-by-tools.md");

const WORKLOAD: &str = "
[interfaces.lxc-job]
role      = \"endpoint\"
addresses = [\"10.200.0.70\"]
identity  = \"job\"

[identities.job]
id = 20070
";

fn folder(lab: &NetnsLab) -> PathBuf {
    lab.folder().join("run.d")
}

/// A lab whose node has a folder of runtime drop-ins.
fn lab() -> NetnsLab {
    let lab = NetnsLab::laid();
    let folder = folder(&lab);
    let place = format!("[daemon]\nruntime_config = {folder:?}\n");
    lab.drop_in("runtime", &place);
    lab
}

fn drop_in(lab: &NetnsLab, name: &str, text: &str) {
    fs::create_dir_all(folder(lab)).expect("the folder");
    let new = folder(lab).join(".new");
    fs::write(&new, text).expect("write a drop-in");
    fs::rename(&new, folder(lab).join(name)).expect("put it in place");
}

/// The states by name, as `a in_effect, b skipped`.
fn states(lab: &NetnsLab) -> String {
    let status = lab.json("status");
    let drop_ins = status["drop_ins"].as_array().expect("drop-ins").iter();
    let states = drop_ins.map(|drop_in| {
        let path = PathBuf::from(drop_in["path"].as_str().expect("a path"));
        let name = path.file_stem().expect("a name").to_string_lossy();
        format!("{name} {}", drop_in["state"].as_str().expect("a state"))
    });
    Vec::from_iter(states).join(", ")
}

/// Followed without a reload.
fn become_states(lab: &NetnsLab, wanted: &str) {
    eventually(wanted, || match states(lab) {
        now if now == wanted => Ok(()),
        now => Err(now),
    });
}

fn endpoints(lab: &NetnsLab) -> String {
    lab.dpd("endpoint list")
}

/// The shell examples of the page, which share their variables.
fn examples() -> Vec<&'static str> {
    let blocks = PAGE.split("```sh\n").skip(1);
    let blocks = blocks.filter_map(|block| block.split("```").next());
    blocks.filter(|block| block.contains("drop_ins")).collect()
}

#[test]
fn the_pages_example_creates_and_removes_a_workload() {
    let lab = lab();
    lab.start();
    lab.ok("node", "ip link add lxc-job type veth peer name job && ip link set lxc-job up && ip link set job up");
    let [create, remove] = examples()[..] else {
        panic!("the page has two examples");
    };
    let dpd = env!("CARGO_BIN_EXE_dpd");
    let shell = |example: &str| {
        let folder = folder(&lab).display().to_string();
        let example = example.replace("/run/dpd/config.d", &folder);
        lab.ok(
            "node",
            &format!("set -e\ndrop_ins={folder}\ndpd() {{ {dpd} \"$@\"; }}\n{example}"),
        );
    };
    shell(create);
    assert_eq!(states(&lab), "job in_effect");
    assert!(
        endpoints(&lab).contains("10.200.0.70"),
        "{}",
        endpoints(&lab)
    );
    shell(remove);
    assert_eq!(states(&lab), "");
    assert!(!endpoints(&lab).contains("10.200.0.70"));
}

#[test]
fn they_are_followed_skipped_and_never_hold_up_the_operators_file() {
    let lab = lab();
    lab.start();
    assert_eq!(states(&lab), "");
    // The folder appears later.
    drop_in(&lab, "m.toml", WORKLOAD);
    become_states(&lab, "m in_effect");

    // What is in effect wins over an earlier name, over a restart too.
    drop_in(&lab, "a.toml", &WORKLOAD.replace("job", "other"));
    become_states(&lab, "a skipped, m in_effect");
    let screen = lab.dpd("status");
    assert!(
        screen.contains("drop-ins:   1 in effect, 1 skipped") && screen.contains("a.toml:8:"),
        "{screen}"
    );
    assert_eq!(
        lab.log().matches("a.toml is skipped").count(),
        1,
        "logged once"
    );
    lab.dpd("reload");
    assert_eq!(
        lab.log().matches("a.toml is skipped").count(),
        1,
        "logged once"
    );
    lab.stop();
    lab.start();
    assert_eq!(states(&lab), "a skipped, m in_effect");
    for words in ["check", "plan"] {
        let output = lab.run("node", &format!("{} {words}", env!("CARGO_BIN_EXE_dpd")));
        let printed = text(&output);
        assert!(output.status.success(), "{words}: {printed}");
        assert!(
            printed.contains("a.toml is skipped") && !printed.contains("m.toml is"),
            "{words}: {printed}"
        );
    }

    // The operator's file takes the address.
    let revision = lab.revision();
    let mine = WORKLOAD.replace("20070", "20071").replace("job", "mine");
    lab.drop_in("mine", &mine);
    lab.dpd("reload");
    assert!(lab.revision() > revision);
    assert_eq!(states(&lab), "a skipped, m skipped");
    assert!(lab.dpd("identity list").contains("20071"));

    // It gives the address back: the names decide, as neither is in effect.
    fs::remove_file(lab.config().with_extension("d").join("mine.toml")).expect("remove it");
    become_states(&lab, "a in_effect, m skipped");
    fs::remove_dir_all(folder(&lab)).expect("remove the folder");
    become_states(&lab, "");
    assert!(!endpoints(&lab).contains("10.200.0.70"));
}

#[test]
fn a_pipe_and_a_forbidden_table_are_skipped() {
    let lab = lab();
    lab.start();
    drop_in(&lab, "settings.toml", "[policy]\nenforcement = \"never\"\n");
    lab.ok(
        "node",
        &format!("mkfifo {}/pipe.toml", folder(&lab).display()),
    );
    drop_in(&lab, "right.toml", WORKLOAD);
    lab.dpd("reload");
    assert_eq!(
        states(&lab),
        "pipe skipped, right in_effect, settings skipped"
    );
}

/// What is wrong with it shows on the host alone: its interface is the operator's by another name.
#[test]
fn a_start_is_not_prevented_by_a_drop_in() {
    let lab = lab();
    lab.ok(
        "node",
        "ip link property add dev lxc-client altname client-port",
    );
    drop_in(&lab, "m.toml", &WORKLOAD.replace("lxc-job", "client-port"));
    lab.start();
    assert_eq!(states(&lab), "m skipped");
    let screen = lab.dpd("status");
    assert!(screen.contains("names of one interface"), "{screen}");
    lab.dig("client", "10.32.0.10").expect("others are served");
    lab.ok(
        "node",
        "ip link property del dev lxc-client altname client-port",
    );
    lab.dpd("reload");
    assert_eq!(states(&lab), "m in_effect");
}
