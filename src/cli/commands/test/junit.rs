//! Outcomes as JUnit XML, the form that CI servers read: a suite for each file. Pure.

use std::fmt::Write;
use std::time::Duration;

use super::outcome::TestOutcome;

/// The text of a file of JUnit XML.
pub(super) fn junit(outcomes: &[TestOutcome]) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let counts = counts(outcomes);
    let _ = writeln!(xml, "<testsuites name=\"mesophyll test\" {counts}>");
    for of_file in outcomes.chunk_by(|one, other| one.file == other.file) {
        suite(&mut xml, of_file);
    }
    xml.push_str("</testsuites>\n");
    xml
}

fn suite(xml: &mut String, outcomes: &[TestOutcome]) {
    let Some(first) = outcomes.first() else { return };
    // Writing into a String cannot fail.
    let (name, counts) = (escaped(&first.file), counts(outcomes));
    let _ = writeln!(xml, "  <testsuite name=\"{name}\" {counts} skipped=\"0\">");
    for outcome in outcomes {
        let TestOutcome { line, took, output, failure, .. } = outcome;
        let (test, time) = (escaped(&outcome.name), seconds(*took));
        let _ = write!(
            xml,
            "    <testcase name=\"{test}\" classname=\"{name}\" file=\"{name}\" line=\"{line}\" \
             time=\"{time}\">"
        );
        if let Some(failure) = failure {
            let first = escaped(failure.message.lines().next().unwrap_or_default());
            let (line, text) = (failure.line, escaped(&failure.message));
            let _ = write!(
                xml,
                "\n      <failure message=\"{first}\" type=\"failure\">{name}:{line}: {text}</failure>"
            );
        }
        if !output.is_empty() {
            let text = escaped(&output.join("\n"));
            let _ = write!(xml, "\n      <system-out>{text}</system-out>");
        }
        let end = if failure.is_some() || !output.is_empty() { "\n    " } else { "" };
        let _ = writeln!(xml, "{end}</testcase>");
    }
    xml.push_str("  </testsuite>\n");
}

fn counts(outcomes: &[TestOutcome]) -> String {
    let failures = outcomes.iter().filter(|outcome| outcome.failure.is_some()).count();
    let time = seconds(outcomes.iter().map(|outcome| outcome.took).sum());
    format!("tests=\"{}\" failures=\"{failures}\" errors=\"0\" time=\"{time}\"", outcomes.len())
}

fn seconds(time: Duration) -> String {
    format!("{:.6}", time.as_secs_f64())
}

/// A text as it may stand between tags and in a quoted attribute. What XML 1.0 cannot have at all
/// is replaced.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            '\t' => escaped.push('\t'),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            char => escaped.push(char),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::commands::test::outcome::TestFailure;

    fn outcome(file: &str, name: &str, failure: Option<&str>, output: &[&str]) -> TestOutcome {
        TestOutcome {
            file: file.to_owned(),
            line: 3,
            name: name.to_owned(),
            took: Duration::from_micros(1500),
            output: output.iter().map(|line| (*line).to_owned()).collect(),
            failure: failure.map(|message| TestFailure {
                line: 4,
                message: message.to_owned(),
                mismatch: None,
            }),
        }
    }

    #[test]
    fn each_file_is_a_suite_with_its_tests() {
        let xml = junit(&[
            outcome("a.test.luau", "one & \"two\"", None, &[]),
            outcome(
                "a.test.luau",
                "fails",
                Some("expected <1>\n     got 2"),
                &["guild:1: \u{7}]]>"],
            ),
            outcome("b.test.luau", "prints", None, &["x"]),
        ]);
        assert_eq!(
            xml,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <testsuites name=\"mesophyll test\" tests=\"3\" failures=\"1\" errors=\"0\" time=\"0.004500\">\n\
             \x20 <testsuite name=\"a.test.luau\" tests=\"2\" failures=\"1\" errors=\"0\" time=\"0.003000\" skipped=\"0\">\n\
             \x20   <testcase name=\"one &amp; &quot;two&quot;\" classname=\"a.test.luau\" file=\"a.test.luau\" line=\"3\" time=\"0.001500\"></testcase>\n\
             \x20   <testcase name=\"fails\" classname=\"a.test.luau\" file=\"a.test.luau\" line=\"3\" time=\"0.001500\">\n\
             \x20     <failure message=\"expected &lt;1&gt;\" type=\"failure\">a.test.luau:4: expected &lt;1&gt;&#10;     got 2</failure>\n\
             \x20     <system-out>guild:1: \u{fffd}]]&gt;</system-out>\n\
             \x20   </testcase>\n\
             \x20 </testsuite>\n\
             \x20 <testsuite name=\"b.test.luau\" tests=\"1\" failures=\"0\" errors=\"0\" time=\"0.001500\" skipped=\"0\">\n\
             \x20   <testcase name=\"prints\" classname=\"b.test.luau\" file=\"b.test.luau\" line=\"3\" time=\"0.001500\">\n\
             \x20     <system-out>x</system-out>\n\
             \x20   </testcase>\n\
             \x20 </testsuite>\n\
             </testsuites>\n"
        );
    }

    #[test]
    fn without_tests_it_is_an_empty_document() {
        assert!(junit(&[]).contains("tests=\"0\""));
    }
}
