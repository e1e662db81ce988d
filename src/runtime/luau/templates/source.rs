//! Reads a template source: the files in this binary, a directory, or files that were given.
//!
//! Runs once, at the start or in `check`. A symbolic link is followed only to a file inside the
//! directory, and what is read is a regular file of bounded size, so that nothing outside can be
//! read through a template directory.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use super::MAIN_FILE;
use super::check::Finding;
use crate::base::limits::{SOURCE_MAX_BYTES, TEMPLATE_FILES_MAX, TEMPLATE_FOLDERS_DEEP};
use crate::runtime::luau::config::TemplateSource;

/// The built-in templates.
const BUILT_IN: &[(&str, &str)] = &[
    ("activity.luau", include_str!("../../../../templates/activity.luau")),
    ("commands.luau", include_str!("../../../../templates/commands.luau")),
    ("describe.luau", include_str!("../../../../templates/describe.luau")),
    ("main.luau", include_str!("../../../../templates/main.luau")),
    ("members.luau", include_str!("../../../../templates/members.luau")),
    ("messages.luau", include_str!("../../../../templates/messages.luau")),
    ("reactions.luau", include_str!("../../../../templates/reactions.luau")),
    ("settings.luau", include_str!("../../../../templates/settings.luau")),
];

/// How the names of files of tests end.
const TEST_END: &str = ".test.luau";

/// How those of definitions for editors end.
const DEFINITIONS_END: &str = ".d.luau";

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) files: Vec<File>,
    /// What could not be read, and why.
    pub(super) findings: Vec<Finding>,
    /// The names of those that are too many.
    left_out: Vec<String>,
}

/// A file of templates.
#[derive(Debug)]
pub(super) struct File {
    /// Its name as people know it: `lib/words.luau`.
    pub(super) name: String,
    /// Its name as `require` knows it: `lib/words`.
    pub(super) module: String,
    /// Its text; of one that is too large, just too much.
    pub(super) text: Vec<u8>,
}

impl Files {
    /// Whether there is a module of this name.
    pub(super) fn has(&self, module: &str) -> bool {
        self.files.iter().any(|file| file.module == module)
    }

    fn add(&mut self, name: &str, text: Vec<u8>) {
        let module = name.trim_end_matches(".luau").to_owned();
        self.files.push(File { name: name.to_owned(), module, text });
    }

    fn finding(&mut self, name: &str, message: impl Into<String>) {
        self.findings.push(Finding::fatal(name, 0, message));
    }
}

/// Reads a source, in the order of the names.
///
/// # Errors
/// The directory cannot be read.
pub(super) fn read(source: &TemplateSource, source_limit: usize) -> io::Result<Files> {
    let mut files = Files::default();
    match source {
        TemplateSource::BuiltIn => {
            BUILT_IN.iter().for_each(|(name, text)| files.add(name, text.as_bytes().to_vec()));
        }
        TemplateSource::Files(given) => {
            given.iter().for_each(|(name, text)| files.add(name, text.as_bytes().to_vec()));
        }
        TemplateSource::Directory(directory) => {
            return read_directory(directory, is_module, source_limit);
        }
    }
    Ok(files)
}

/// # Errors
/// The directory cannot be read.
fn read_directory(
    directory: &Path,
    is_wanted: fn(&str) -> bool,
    source_limit: usize,
) -> io::Result<Files> {
    let mut files = Files::default();
    let root = directory.canonicalize()?;
    walk(&mut files, &root, &root, "", is_wanted, source_limit)?;
    if let Some(first) = files.left_out.first() {
        let count = files.left_out.len();
        let message = format!(
            "more than {TEMPLATE_FILES_MAX} modules: {count} were not loaded, from {first} on"
        );
        files.finding(".", message);
    }
    Ok(files)
}

/// What a directory of templates has: names and texts of files, and what could not be read.
pub type TemplateFiles = (Vec<(String, String)>, Vec<Finding>);

/// Reads the files of a directory of templates whose names will do, as templates are read.
///
/// # Errors
/// The directory cannot be read.
pub fn read_files(directory: &Path, is_wanted: fn(&str) -> bool) -> io::Result<TemplateFiles> {
    let files = read_directory(directory, is_wanted, SOURCE_MAX_BYTES)?;
    let text = |file: File| (file.name, String::from_utf8_lossy(&file.text).into_owned());
    Ok((files.files.into_iter().map(text).collect(), files.findings))
}

/// Whether a file of this name is one of tests.
pub fn is_test(file_name: &str) -> bool {
    file_name.ends_with(TEST_END) && !file_name.starts_with(['.', '#'])
}

/// Whether a file of this name is a module. What editors leave beside one (`.#x.luau`, `#x.luau`,
/// `.x.luau`) is none, and neither are a file of tests (`x.test.luau`) and definitions for editors
/// (`x.d.luau`).
pub fn is_module(file_name: &str) -> bool {
    file_name.ends_with(".luau")
        && ![TEST_END, DEFINITIONS_END].iter().any(|end| file_name.ends_with(end))
        && !file_name.starts_with(['.', '#'])
}

fn walk(
    files: &mut Files,
    root: &Path,
    folder: &Path,
    prefix: &str,
    is_wanted: fn(&str) -> bool,
    source_limit: usize,
) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    // main.luau first: a tenant may do without any other module.
    entries.sort_by_key(|entry| {
        (!(prefix.is_empty() && entry.file_name() == MAIN_FILE), entry.file_name())
    });
    for entry in entries {
        let Ok(file_name) = entry.file_name().into_string() else { continue };
        let name = format!("{prefix}{file_name}");
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if file_name.starts_with('.') {
                continue;
            }
            if name.matches('/').count() >= TEMPLATE_FOLDERS_DEEP {
                files.finding(&name, "folders nest too deep; it was not looked into");
            } else if let Err(error) =
                walk(files, root, &entry.path(), &format!("{name}/"), is_wanted, source_limit)
            {
                files.finding(&name, error.to_string());
            }
        } else if is_wanted(&file_name) {
            if files.files.len() >= TEMPLATE_FILES_MAX {
                files.left_out.push(name);
                continue;
            }
            match read_file(root, &entry.path(), source_limit) {
                Ok(text) => files.add(&name, text),
                Err(message) => files.finding(&name, message),
            }
        }
    }
    Ok(())
}

fn read_file(root: &Path, path: &Path, source_limit: usize) -> Result<Vec<u8>, String> {
    let real = path.canonicalize().map_err(|error| error.to_string())?;
    if !real.starts_with(root) {
        return Err("a link out of the template directory; it was not loaded".to_owned());
    }
    // Before it is opened: opening a pipe waits for its writer.
    if !fs::metadata(&real).is_ok_and(|metadata| metadata.is_file()) {
        return Err("not a regular file; it was not loaded".to_owned());
    }
    let file = fs::File::open(&real).map_err(|error| error.to_string())?;
    let mut text = Vec::new();
    // One byte more than is compiled, so that too large a file is known as one.
    file.take(source_limit as u64 + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    Ok(text)
}
