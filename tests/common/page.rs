//! A page of docs/: its fenced blocks, and the commands in them with the output that they show.
#![allow(dead_code, reason = "each test program uses some of it")]

/// A fenced block.
pub struct Block<'a> {
    /// What follows the opening fence: `console`, `toml` and so on.
    pub language: &'a str,
    pub text: &'a str,
    /// The nearest heading above.
    pub heading: &'a str,
    /// The comment in the line before it, else the last one above that stands by itself: which test runs it, or why
    /// none does.
    pub mark: Option<&'a str>,
}

impl Block<'_> {
    /// Whether a test runs it, this one or another.
    pub fn is_run(&self) -> bool {
        self.mark.is_some_and(|mark| mark.starts_with("run: "))
    }
}

/// The text of a line that is a comment.
pub fn comment(line: &str) -> Option<&str> {
    line.strip_prefix("<!-- ")?.strip_suffix(" -->")
}

pub fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut found = Vec::new();
    let (mut heading, mut general, mut own) = ("", None, None);
    let mut rest = page;
    while let Some((line, after)) = rest.split_once('\n') {
        rest = after;
        if let Some(language) = line.strip_prefix("```") {
            let (text, after) = rest.split_once("\n```").expect("the block has an end");
            found.push(Block {
                language,
                text,
                heading,
                mark: own.take().or(general),
            });
            rest = after.strip_prefix('\n').unwrap_or(after);
        } else if let Some(mark) = comment(line) {
            match rest.starts_with("```") {
                true => own = Some(mark),
                false => general = Some(mark),
            }
        } else if line.starts_with('#') {
            heading = line.trim_start_matches('#').trim();
        }
    }
    found
}

/// The commands of a section that a test runs, which stand behind `# `, as a script.
pub fn script(page: &str, heading: &str) -> String {
    let section = blocks(page)
        .into_iter()
        .filter(|block| block.heading == heading && block.language == "console" && block.is_run());
    let lines = section.flat_map(|block| block.text.lines());
    let lines: Vec<&str> = lines.filter_map(|line| line.strip_prefix("# ")).collect();
    assert!(!lines.is_empty(), "{heading} has commands");
    format!("set -e\n{}", lines.join("\n"))
}

/// A command of a page, with the output that it shows; `…` stands for any text.
pub struct Shown<'a> {
    pub prompt: &'a str,
    pub line: &'a str,
    pub output: Vec<&'a str>,
}

/// The commands of a block, by the prompts before them.
pub fn commands<'a>(block: &'a str, prompts: &[&'a str]) -> Vec<Shown<'a>> {
    let mut found: Vec<Shown> = Vec::new();
    for line in block.lines() {
        let mut prompts = prompts.iter();
        let command = prompts.find_map(|prompt| Some((*prompt, line.strip_prefix(prompt)?)));
        match (command, found.last_mut()) {
            (Some((prompt, line)), _) => found.push(Shown {
                prompt,
                line,
                output: Vec::new(),
            }),
            (None, Some(last)) => last.output.push(line),
            (None, None) => panic!("{line}: output of no command"),
        }
    }
    found
}

impl Shown<'_> {
    /// Whether the command fails, by what it shows.
    pub fn fails(&self) -> bool {
        self.output.iter().any(|line| {
            line.starts_with("curl: (")
                || line.starts_with("denied: ")
                || line.ends_with("no servers could be reached")
        })
    }

    /// Whether each line that it shows was printed.
    pub fn is_in(&self, printed: &str) -> bool {
        let mut shown = self.output.iter();
        shown.all(|wanted| printed.lines().any(|line| matches(line, wanted)))
    }
}

/// Whether the line has these parts in their order.
fn matches(line: &str, shown: &str) -> bool {
    let mut rest = line;
    let mut parts = shown.split('…').enumerate();
    let is_found = parts.all(|(number, part)| match rest.find(part) {
        Some(at) if number > 0 || at == 0 => {
            rest = &rest[at + part.len()..];
            true
        }
        _ => false,
    });
    is_found && (rest.is_empty() || shown.ends_with('…'))
}

#[test]
fn output_matches_what_is_shown() {
    for (line, shown, expected) in [
        ("web-a answers", "web-a answers", true),
        ("web-a answers you", "web-a answers", false),
        ("a web-a answers", "web-a answers", false),
        ("from a:1 (x) to b", "…a:… (x)…", true),
        ("from a:1 (y) to b", "…a:… (x)…", false),
        ("b a", "…a…b", false),
    ] {
        assert_eq!(matches(line, shown), expected, "{line:?} and {shown:?}");
    }
}

#[test]
fn a_comment_is_of_the_next_block_or_of_all_below() {
    let page = "# T\n\n<!-- run: a -->\n\n```sh\none\n```\n\n## H\n\n<!-- not run: b -->\n```sh\ntwo\n```\n\n```sh\nthree\n```\n";
    let marks: Vec<_> = blocks(page)
        .iter()
        .map(|block| (block.heading, block.text, block.mark))
        .collect();
    assert_eq!(
        marks,
        [
            ("T", "one", Some("run: a")),
            ("H", "two", Some("not run: b")),
            ("H", "three", Some("run: a")),
        ]
    );
}
