//! Lines in templates, and in documents about them, that say what the template answers to events:
//!
//! ```text
//! -- NAME DATA answers RESULT
//! -- NAME DATA fails with THE BEGINNING OF THE ERROR
//! ```
//!
//! DATA and RESULT are JSON. Pure: `mesophyll test` and the tests of docs/templates.md carry them
//! out.

/// A line that says what an event is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Where it stands, from 1 on.
    pub line: usize,
    /// The event's name.
    pub name: String,
    /// Its data, as JSON.
    pub data: String,
    /// What is to come of it.
    pub claimed: Claimed,
}

/// What is to come of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// This answer, as JSON.
    Answer(String),
    /// An error that begins so.
    Failure(String),
}

/// An example of a document.
#[derive(Debug, Clone, Default)]
pub struct Example {
    /// The line of the document in which it begins.
    pub line: usize,
    /// Its files, by name.
    pub files: Vec<(String, String)>,
    /// What is run instead of the template, if it is a script.
    pub script: Option<String>,
    /// What it claims; the lines are those of the document.
    pub claims: Vec<Claim>,
    /// Its files of tests, behind as many lines as stand before them in the document.
    pub tests: Vec<String>,
}

/// The claims of a source.
pub fn claims(source: &str) -> Vec<Claim> {
    let lines = source.lines().enumerate();
    lines.filter_map(|(number, line)| claim(number + 1, line)).collect()
}

/// A comment in prose is no claim: its second word does not begin as JSON does.
fn claim(number: usize, line: &str) -> Option<Claim> {
    let line_of = |(what, claimed): (&str, Claimed)| {
        let (name, data) = what.split_once(' ')?;
        let is_json = data.starts_with(|first: char| "{[\"-".contains(first))
            || data.starts_with(|first: char| first.is_ascii_digit())
            || ["null", "true", "false"].contains(&data);
        is_json.then(|| Claim { line: number, name: name.into(), data: data.into(), claimed })
    };
    let text = line.strip_prefix("-- ")?;
    let answers = text.split_once(" answers ");
    let fails = || text.split_once(" fails with ");
    let answers = answers.map(|(what, json)| (what, Claimed::Answer(json.trim_end().to_owned())));
    answers
        .or_else(|| fails().map(|(what, error)| (what, Claimed::Failure(error.to_owned()))))
        .and_then(line_of)
}

/// The examples of a document in Markdown, in order: its blocks of Luau. A block that claims
/// nothing is a file of the next one that does, or that is a file of tests; one of these behind a
/// whole example belongs to it. A block that begins with `-- FILE NAME` is that file, one with
/// `-- SCRIPT` a script, any other `main.luau`.
pub fn examples(document: &str) -> Vec<Example> {
    let (mut examples, mut example) = (Vec::<Example>::new(), Example::default());
    let mut lines = document.lines().enumerate();
    while let Some((fence, line)) = lines.next() {
        if line != "```luau" {
            continue;
        }
        let block: Vec<&str> =
            lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
        if example.files.is_empty() {
            example.line = fence + 1;
        }
        let source = block.join("\n");
        let found = claims(&source).into_iter();
        // The fence is line `fence + 1`.
        let found = found.map(|claim| Claim { line: claim.line + fence + 1, ..claim });
        example.claims.extend(found);
        match block.first() {
            Some(&"-- SCRIPT") => example.script = Some(source),
            Some(first) if first.starts_with("-- FILE ") && first.ends_with(".test.luau") => {
                let tests = format!("{}{source}", "\n".repeat(fence + 1));
                match examples.last_mut().filter(|_| example.files.is_empty()) {
                    Some(last) => last.tests.push(tests),
                    None => example.tests.push(tests),
                }
            }
            Some(first) => {
                let name = first.strip_prefix("-- FILE ").unwrap_or("main.luau");
                example.files.push((name.to_owned(), source));
            }
            None => {}
        }
        if !example.claims.is_empty() || !example.tests.is_empty() {
            examples.push(std::mem::take(&mut example));
        }
    }
    examples
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_told_from_comments() {
        let source = "-- It answers what it is told, and fails with an error\n\
                      return function() end\n\
                      -- the bot answers a question\n\
                      -- E {\"a\": 1} answers [1, 2] \n\
                      -- F null fails with main.luau:2: no\n\
                      \t-- G 1 answers 2";
        let claim = |line, name: &str, data: &str, claimed| Claim {
            line,
            name: name.to_owned(),
            data: data.to_owned(),
            claimed,
        };
        assert_eq!(
            claims(source),
            [
                claim(4, "E", "{\"a\": 1}", Claimed::Answer("[1, 2]".to_owned())),
                claim(5, "F", "null", Claimed::Failure("main.luau:2: no".to_owned())),
            ]
        );
    }

    #[test]
    fn an_example_is_blocks_up_to_one_with_claims() {
        let document = "# Title\n```luau\n-- FILE a.luau\nreturn 1\n```\ntext\n```sh\nls\n```\n\
                        ```luau\nreturn print\n-- E {} answers null\n```\n\
                        ```luau\n-- SCRIPT\n-- E {} answers null\n```\n\
                        ```luau\n-- FILE a.test.luau\ntest()\n```\n\
                        ```luau\nreturn 1\n```\n```luau\n-- FILE b.test.luau\n```\n\
                        ```luau\nlost\n```\n";
        let examples = examples(document);
        assert_eq!(examples.len(), 3, "{examples:?}");
        let names: Vec<_> = examples[0].files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((examples[0].line, names), (2, vec!["a.luau", "main.luau"]));
        assert_eq!(examples[0].claims[0].line, 12);
        assert_eq!(examples[1].script.as_deref(), Some("-- SCRIPT\n-- E {} answers null"));
        assert!(examples[1].files.is_empty());
        assert_eq!(examples[1].tests, [format!("{}-- FILE a.test.luau\ntest()", "\n".repeat(18))]);
        assert_eq!((examples[2].files.len(), examples[2].tests.len()), (1, 1));
    }
}
