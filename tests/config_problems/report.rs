//! The report: its text, its order and its limits.

use dpd::config::{Severity, parse};

use super::{brief, problems_of, source};

#[test]
fn the_text_of_problems() {
    let rows = [
        (
            "an unclosed string is not TOML",
            r#"
[node]
name = "a
"#,
            r#"
error: this is not TOML: invalid basic string, expected `"`
 --> dpd.toml:2:10
  |
2 | name = "a
  |          ^

1 error
"#,
        ),
        (
            "a table twice in one file",
            r#"
[services.s]
frontends = ["10.0.0.1:1/tcp"]
backends = ["10.0.0.2:1"]
[services.s]
"#,
            "
error: `s` is given twice
 --> dpd.toml:4:11
  |
4 | [services.s]
  |           ^
 ::: dpd.toml:1:1
  |
1 | [services.s]
  | ----------- first given here
  = help: keep one of the two, or give one of them another name

1 error
",
        ),
        (
            "columns are characters, not bytes",
            r#"
events = { journal = "drops", "größe" = 1 }
"#,
            r#"
error: `events` has no key `größe`
 --> dpd.toml:1:31
  |
1 | events = { journal = "drops", "größe" = 1 }
  |                               ^^^^^^^
  = help: it can have: aggregation, interval, rate, journal

1 error
"#,
        ),
        (
            "a name with a dot must be quoted",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.eth0.100]
role = "endpoint"
identity = "a"
addresses = ["10.0.0.1"]
"#,
            r#"
error: `interfaces` has no table inside of a table: the dot separates two names
 --> dpd.toml:4:18
  |
4 | [interfaces.eth0.100]
  |                  ^^^
  = help: quote a name that has a dot: [interfaces."eth0.100"]

1 error
"#,
        ),
        (
            "an uplink that has what an endpoint has",
            r#"
[interfaces.ens5]
role = "uplink"
identity = "client"
"#,
            r#"
error: `interfaces.ens5` is an uplink, and can't have the key `identity`
 --> dpd.toml:3:1
  |
3 | identity = "client"
  | ^^^^^^^^
  = help: remove it, or give the interface the other role

1 error
"#,
        ),
        (
            "an identity that is nearly right",
            r#"
[identities.client]
id = 300
[interfaces.e0]
role = "endpoint"
identity = "cleint"
addresses = ["10.0.0.1"]
"#,
            r#"
error: there is no identity "cleint"
 --> dpd.toml:5:12
  |
5 | identity = "cleint"
  |            ^^^^^^^^
  = help: did you mean `client`?

1 error
"#,
        ),
        (
            "an address of two endpoints",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[interfaces.e0]
role = "endpoint"
identity = "a"
addresses = ["10.0.0.1"]
[interfaces.e1]
role = "endpoint"
identity = "a"
addresses = ["10.0.0.1"]
"#,
            r#"
error: 10.0.0.1 already belongs to the endpoint `e0`
  --> dpd.toml:11:14
   |
11 | addresses = ["10.0.0.1"]
   |              ^^^^^^^^^^
  ::: dpd.toml:7:14
   |
 7 | addresses = ["10.0.0.1"]
   |              ---------- first given here

1 error
"#,
        ),
        (
            "from in egress",
            r#"
[identities.a]
id = 300
labels = ["app=a"]
[policies.p]
subject = "a"
egress = [{ from = ["any"] }]
"#,
            r#"
error: `policies.p.egress[0]` can't have the key `from`
 --> dpd.toml:6:13
  |
6 | egress = [{ from = ["any"] }]
  |             ^^^^
  = help: an egress rule names who receives: write `to`

1 error
"#,
        ),
    ];
    for (name, file, text) in rows {
        let problems = problems_of(file);
        assert_eq!(problems.to_string(), text.trim_matches('\n'), "{name}");
    }
}

#[test]
fn every_problem_is_reported_in_the_order_of_locations() {
    let main = r#"
[identities.a]
id = 5
[services.s]
frontends = ["10.0.0.1:53/upd"]
backends = ["10.0.0.2"]
[policies.p]
subject = "b"
"#;
    let drop_in = r#"
[events]
rate = "many"
[policy]
audt = true
"#;
    let sources = vec![source("dpd.toml", main), source("dpd.d/10.toml", drop_in)];
    let problems = parse(sources).expect_err("seven mistakes");
    let places: Vec<_> = problems
        .0
        .iter()
        .map(|p| (p.file.to_str().unwrap(), p.excerpt.as_ref().unwrap().line))
        .collect();
    let expected = [
        ("dpd.toml", 2),
        ("dpd.toml", 4),
        ("dpd.toml", 5),
        ("dpd.toml", 6),
        ("dpd.toml", 7),
        ("dpd.d/10.toml", 2),
        ("dpd.d/10.toml", 4),
    ];
    assert_eq!(places, expected, "{problems}");
    assert!(problems.to_string().ends_with("\n\n7 errors"), "{problems}");
}

#[test]
fn a_long_line_is_shown_around_the_mark() {
    let peers = "\"any\", ".repeat(1000);
    let file = format!(
        "[identities.a]\nid = 300\n[policies.p]\nsubject = \"a\"\ningress = [{{ from = [{peers}\"nobody\"] }}]\n"
    );
    let problems = problems_of(&file);
    let place = problems.0.iter().find(|p| p.severity == Severity::Error);
    let place = place.and_then(|p| p.excerpt.as_ref()).expect("a place");
    let marked: String = place
        .text
        .chars()
        .skip(place.mark.start)
        .take(place.mark.len())
        .collect();
    assert_eq!((place.line, place.column), (5, 7022));
    assert_eq!(marked, "\"nobody\"");
    assert!(place.text.chars().count() <= 120, "{place:?}");
}

#[test]
fn no_name_breaks_a_line_or_hides_characters() {
    let tables = [
        ("an identity", "[identities.NAME]\nid = 300\n"),
        (
            "a service",
            "[services.NAME]\nfrontends = [\"10.0.0.1:1/tcp\"]\nbackends = [\"10.0.0.2:1\"]\n",
        ),
        (
            "a policy",
            "[identities.a]\nid = 300\n[policies.NAME]\nsubject = \"a\"\ningress = []\n",
        ),
        (
            "a node",
            "[interfaces.up]\nrole = \"uplink\"\n[nodes.NAME]\naddresses = [\"192.0.2.2\"]\n",
        ),
        ("an interface", "[interfaces.NAME]\nrole = \"uplink\"\n"),
        (
            "a table of the prefilter",
            "[interfaces.up]\nrole = \"uplink\"\n[prefilter.NAME]\ndeny = []\n",
        ),
        ("this node", "[node]\nname = NAME\n"),
        ("a label", "[identities.a]\nid = 300\nlabels = [NAME]\n"),
    ];
    // As TOML writes them.
    let names = [
        r#""a b=""#,
        r#""a\"b=""#,
        r#""a'b=""#,
        r#""a\nb=""#,
        r#""a\tb=""#,
        r#""a\u0000b=""#,
        r#""a\u001b[2Jb=""#,
        r#""a\u007fb=""#,
        r#""a\u0085b=""#,
        r#""a\u00a0b=""#,
        r#""a\u2028b=""#,
        r#""a\u200bb=""#,
        r#""a\u202eb=""#,
        r#""a\ufeffb=""#,
        r#""a\\b=""#,
        "\"a\u{202e}b=\"",
    ];
    for (what, table) in tables {
        for name in names {
            let file = table.replace("NAME", name);
            let text = problems_of(&file).to_string();
            assert!(
                text.contains("are not allowed here"),
                "{what} called {name}: {text}"
            );
            let hides =
                |c: char| c != '\n' && (c.is_control() || c == '\u{202e}' || c == '\u{feff}');
            assert!(!text.contains(hides), "{what} called {name}: {text:?}");
        }
    }
}

#[test]
fn a_thousand_problems_are_reported_and_the_rest_is_counted() {
    let slips: String = (0..1500).map(|n| format!("[colour{n}]\n")).collect();
    let problems = problems_of(&slips);
    assert_eq!(problems.0.len(), 1001);
    let last = problems.0.last().map(brief);
    assert_eq!(last.as_deref(), Some("500 more errors are not shown"));

    // An error beyond the limit still counts, although only warnings are reported.
    let twice = "\"any\", ".repeat(1500);
    let file = format!(
        "[identities.a]\nid = 300\n[policies.p]\nsubject = \"a\"\ningress = [{{ from = [{twice}] }}]\negress = 1\n"
    );
    let problems = problems_of(&file);
    assert_eq!((problems.0.len(), problems.error_count()), (1002, 1));
}
