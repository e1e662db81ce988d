//! What there is to test: files of tests, and lines that say what events answer.

use std::io;
use std::path::{Path, PathBuf};

use super::fixtures;
use crate::runtime::luau::{
    Claim, Example, Look, claims, examples, is_module, is_test, read_files,
};

/// What a directory has.
#[derive(Debug)]
pub(super) struct Suite {
    /// The directory, without links in its path.
    pub(super) root: PathBuf,
    /// What is tested: the directory's templates, and each example of its documents.
    pub(super) subjects: Vec<Subject>,
}

/// Templates with their tests.
#[derive(Debug, Default)]
pub(super) struct Subject {
    /// Names and texts.
    pub(super) templates: Vec<(String, String)>,
    /// What claims are about instead of the template.
    pub(super) script: Option<String>,
    /// Files of tests: names and texts.
    pub(super) tests: Vec<(String, String)>,
    /// What a file, or an example in it, claims.
    pub(super) claims: Vec<(ClaimsName, Vec<Claim>)>,
}

/// The file that has claims, and what they are called together.
#[derive(Debug)]
pub(super) struct ClaimsName {
    pub(super) file: String,
    pub(super) name: String,
}

/// Whether a file has something to do with what is tested.
fn is_wanted(name: &str) -> bool {
    is_module(name) || is_test(name) || is_document(name)
}

fn is_document(name: &str) -> bool {
    name.ends_with(".md") && !name.starts_with(['.', '#'])
}

/// How all that counts for the tests of a directory looks from outside.
///
/// # Errors
/// The directory cannot be read.
pub(super) fn look(path: &Path) -> io::Result<Look> {
    let is_watched =
        |name: &str| is_wanted(name) || fixtures::ENDS.iter().any(|end| name.ends_with(end));
    Look::at(directory_of(path), is_watched)
}

/// A file is one of its directory's.
fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if path.is_file() && parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) if path.is_file() => parent,
        _ => path,
    }
}

impl Suite {
    /// Reads a directory, or of its directory one file of tests or document.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let directory = directory_of(path);
        let only = path.is_file().then(|| path.file_name()).flatten();
        let is_asked = |name: &String| only.is_none_or(|only| only.to_str() == Some(name));
        let (files, findings) = read_files(directory, is_wanted)?;
        findings.iter().for_each(|finding| log::error!("{finding}"));
        let (mut own, mut documents) = (Subject::default(), Vec::new());
        for (name, text) in files {
            match (is_test(&name), is_document(&name)) {
                (true, _) if is_asked(&name) => own.tests.push((name, text)),
                (_, true) if is_asked(&name) => documents.push((name, text)),
                (false, false) => own.templates.push((name, text)),
                _ => {}
            }
        }
        let found = own.templates.iter().filter(|_| only.is_none());
        let found = found.map(|(file, text)| {
            let claims = claims(text);
            // A line that is meant as one, and is none, is missing in the number.
            let name = match claims.len() {
                1 => "what its comments say of one answer".to_owned(),
                number => format!("what its comments say of {number} answers"),
            };
            (ClaimsName { file: file.clone(), name }, claims)
        });
        own.claims = found.filter(|(_, claims)| !claims.is_empty()).collect();
        let of_documents = documents.iter().flat_map(|(file, text)| {
            examples(text).into_iter().map(|example| Subject::of_example(file, example))
        });
        let subjects = [own].into_iter().chain(of_documents);
        let subjects = subjects.filter(|subject| !subject.is_empty()).collect();
        Ok(Self { root: directory.canonicalize()?, subjects })
    }
}

impl Subject {
    fn of_example(file: &str, example: Example) -> Self {
        let name = format!("the example at line {}", example.line);
        let claims = (ClaimsName { file: file.to_owned(), name }, example.claims);
        Self {
            templates: example.files,
            script: example.script,
            tests: example.tests.into_iter().map(|text| (file.to_owned(), text)).collect(),
            claims: [claims].into_iter().filter(|(_, claims)| !claims.is_empty()).collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.tests.is_empty() && self.claims.is_empty()
    }
}
