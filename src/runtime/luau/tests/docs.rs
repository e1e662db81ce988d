//! Every example of docs/templates.md does what it says.

use super::support::*;
use crate::dispatch::Job;
use crate::runtime::luau::{Claimed, Example, LuauLimits, examples};

pub(super) const DOCS: &str = include_str!("../../../../docs/templates.md");

fn same_json(text: &str) -> String {
    let value: serde_json::Value =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    value.to_string()
}

fn check(example: &Example) {
    let files: Vec<_> =
        example.files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let world = World::with(&files, LuauLimits::default());
    for claim in &example.claims {
        let event = event(&claim.name, &claim.data);
        let job = match &example.script {
            Some(code) => Job::RunScript { name: "script".to_owned(), code: code.clone(), event },
            None => Job::Dispatch(event),
        };
        match (world.submit(TENANT, job).text(), &claim.claimed) {
            (Ok(result), Claimed::Answer(answer)) => {
                assert_eq!(same_json(&result), same_json(answer), "{claim:?}");
            }
            (Err(error), Claimed::Failure(begin)) => {
                assert!(error.starts_with(begin), "{claim:?}: {error}");
            }
            (result, _) => panic!("{claim:?}: {result:?}"),
        }
    }
}

#[test]
fn every_example_does_what_it_says() {
    let examples = examples(DOCS);
    assert!(examples.len() >= 14, "{}", examples.len());
    examples.iter().for_each(check);
}
