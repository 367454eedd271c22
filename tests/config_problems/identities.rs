//! `[identities.*]`

use super::check;

#[test]
fn identities() {
    check(&[
(
"ids below 256 are reserved",
"
[identities.a]
id = 255
",
&["2:6..9 `identities.a.id` must be 256 to 65535, not 255"],
),
(
"ids end at 65535",
"
[identities.a]
id = 65536
",
&["2:6..11 `identities.a.id` must be 256 to 65535, not 65536"],
),
(
"an id twice",
"
[identities.a]
id = 300
[identities.b]
id = 300
",
&["4:6..9 the id 300 already belongs to `a` [2:6 first given here] (an id belongs to one identity: choose another)"],
),
(
"a reserved word",
"
[identities.world]
id = 300
",
&[r#"1:13..18 an identity can't be called "world": it is a reserved word of policy peers (give it another name)"#],
),
(
"a selector",
r#"
[identities."label:a"]
id = 300
"#,
&[r#"1:13..22 an identity can't be called "label:a": a `:` marks a selector, as in label:KEY=VALUE (give it another name)"#],
),
(
"a number",
"
[identities.1234]
id = 300
",
&[r#"1:13..17 an identity can't be called "1234": it is a number, and numbers are identities' ids (give it another name)"#],
),
(
"an address",
r#"
[identities."10.0.0.1"]
id = 300
"#,
&[r#"1:13..23 an identity can't be called "10.0.0.1": it is an address (give it another name)"#],
),
(
"an empty name",
r#"
[identities.""]
id = 300
"#,
&["1:13..15 the name is empty"],
),
(
"a name with a tab",
r#"
[identities."a\tb"]
id = 300
"#,
&[r#"1:13..19 the name "a\tb" has '\t' in it (spaces, quotes, backslashes and control characters are not allowed here)"#],
),
(
"a name that is too long",
"
[identities.nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn]
id = 300
",
&["1:13..121 the name has 129 bytes, but may have 128"],
),
(
"a label without a value",
r#"
[identities.a]
id = 300
labels = ["app"]
"#,
&[r#"3:11..16 "app" is no label (a label is KEY=VALUE, as in app=client)"#],
),
(
"a label without a key",
r#"
[identities.a]
id = 300
labels = ["=app"]
"#,
&[r#"3:11..17 "=app" is no label (a label is KEY=VALUE, as in app=client)"#],
),
(
"a label's key twice",
r#"
[identities.a]
id = 300
labels = ["app=a", "app=b"]
"#,
&["3:20..27 the label `app` is given twice [3:11 first given here]"],
),
(
"a label with a quote",
r#"
[identities.a]
id = 300
labels = ['app="a"']
"#,
&[r#"3:11..20 the label "app=\"a\"" has '"' in it (spaces, quotes, backslashes and control characters are not allowed here)"#],
),
]);
}
