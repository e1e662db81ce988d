//! Every example of docs/templates.md does what it says.

use super::support::*;
use crate::dispatch::Job;
use crate::runtime::luau::LuauLimits;

const DOCS: &str = include_str!("../../../../docs/templates.md");

/// An example: its files, and the lines that say what events answer.
#[derive(Default)]
pub(super) struct Example {
    pub(super) files: Vec<(String, String)>,
    pub(super) script: Option<String>,
    claims: Vec<String>,
}

/// The examples in order. A block without claims is a file of the next one.
pub(super) fn examples() -> Vec<Example> {
    let mut examples = vec![Example::default()];
    for block in DOCS.split("```luau\n").skip(1).filter_map(|rest| rest.split("```").next()) {
        let example = examples.last_mut().expect("there is one");
        let is_claim = |line: &&str| {
            line.starts_with("-- ") && (line.contains(" answers ") || line.contains(" fails with "))
        };
        example.claims.extend(block.lines().filter(is_claim).map(str::to_owned));
        match block.lines().next() {
            Some("-- SCRIPT") => example.script = Some(block.to_owned()),
            Some(first) if first.starts_with("-- FILE ") => {
                example.files.push((first["-- FILE ".len()..].to_owned(), block.to_owned()));
            }
            _ => example.files.push(("main.luau".to_owned(), block.to_owned())),
        }
        if !example.claims.is_empty() {
            examples.push(Example::default());
        }
    }
    examples.pop();
    examples
}

fn same_json(text: &str) -> String {
    let value: serde_json::Value =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    value.to_string()
}

impl Example {
    fn check(&self) {
        let files: Vec<_> =
            self.files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let world = World::with(&files, LuauLimits::default());
        for claim in &self.claims {
            let (what, claimed, succeeds) = match claim.split_once(" answers ") {
                Some((what, result)) => (what, result, true),
                None => claim
                    .split_once(" fails with ")
                    .map(|(what, error)| (what, error, false))
                    .expect("a claim"),
            };
            let (name, data) = what["-- ".len()..].split_once(' ').expect("a name and data");
            let job = match &self.script {
                Some(code) => Job::RunScript {
                    name: "script".to_owned(),
                    code: code.clone(),
                    event: event(name, data),
                },
                None => Job::Dispatch(event(name, data)),
            };
            match (world.submit(TENANT, job).text(), succeeds) {
                (Ok(result), true) => assert_eq!(same_json(&result), same_json(claimed), "{claim}"),
                (Err(error), false) => assert!(error.starts_with(claimed), "{claim}: {error}"),
                (result, _) => panic!("{claim}: {result:?}"),
            }
        }
    }
}

#[test]
fn every_example_does_what_it_says() {
    let examples = examples();
    assert!(examples.len() >= 14, "{}", examples.len());
    examples.iter().for_each(Example::check);
}
