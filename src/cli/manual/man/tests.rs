//! What Markdown becomes, construct by construct.

use super::from_markdown;

#[test]
fn each_construct_of_the_documents() {
    // (sentence, Markdown, man)
    let rows = [
        (
            "lines of a paragraph are one",
            "one\ntwo\n\nthree",
            "one two\n.PP\nthree\n",
        ),
        (
            "code is bold, and its hyphens can be copied",
            "an option `--config FILE` and re-use",
            "an option \\fB\\-\\-config FILE\\fR and re-use\n",
        ),
        ("code that spans lines", "a `b\nc` d", "a \\fBb c\\fR d\n"),
        (
            "strong text and emphasis",
            "**bold.** *thin*, 2 * 3 * 4",
            "\\fBbold.\\fR \\fIthin\\fR, 2 * 3 * 4\n",
        ),
        (
            "a link is its text, also one of code",
            "see [the `file`](config.md#a-b), [x] and `[[y]](z)`",
            "see the \\fBfile\\fR, [x] and \\fB[[y]](z)\\fR\n",
        ),
        (
            "a list",
            "They are:\n- one\n  more\n- two\n\nEnd",
            "They are:\n.IP \\(bu 2\none more\n.IP \\(bu 2\ntwo\n.PP\nEnd\n",
        ),
        (
            "headings",
            "## `[node]`\n### Of \"it\"",
            ".SH \"[node]\"\n.SS \"Of \\(dqit\\(dq\"\n",
        ),
        (
            "a table with a column between",
            "| key | default | meaning |\n|---|---|---|\n| `a.b` | `1` | so |\n| `c` | | thus |",
            ".TP\n\\fBa.b\\fR (default: \\fB1\\fR)\nso\n.TP\n\\fBc\\fR\nthus\n",
        ),
        (
            "a table whose terms have no other sign of what they are",
            "So.\n\n| key | meaning |\n|---|---|\n| `a` | b |",
            "So.\n.PP\nKeys in JSON:\n.TP\n\\fBa\\fR\nb\n",
        ),
        (
            "a block, with lines that look like macros",
            "```toml\n.a = '\\n'\n'b' ~ `c`\n```\nEnd",
            ".RS 4\n.nf\n\\&.a = \\(aq\\(rsn\\(aq\n\\(aqb\\(aq \\(ti \\(gac\\(ga\n.fi\n.RE\n.PP\nEnd\n",
        ),
        ("no text is a macro", ".TH is\n'so'", "\\&.TH is 'so'\n"),
        ("not ASCII", "a → b", "a \\[u2192] b\n"),
    ];
    for (sentence, markdown, man) in rows {
        assert_eq!(from_markdown(markdown), man, "{sentence}");
    }
}
