//! `mesophyll check`: what is wrong with a template directory, without running anything of it.

use std::fmt;
use std::io;
use std::path::Path;

use super::source::{self, File, Files, is_test, read_files};
use super::walk::{walk, walk_tests};
use super::{INIT, MAIN, MAIN_FILE, compile, lexer::At, resolve, without_head};
use crate::base::limits::SOURCE_MAX_BYTES;
use crate::runtime::luau::config::TemplateSource;
use crate::runtime::luau::vm;

/// Something wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Finding {
    /// The file, relative to the directory: `lib/words.luau`.
    pub file: String,
    /// The line, from 1 on; 0 for the file as a whole.
    pub line: usize,
    /// The column, from 1 on, a character each; 0 for the line as a whole.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// The file was not loaded, or does not compile; else it can be run.
    #[serde(skip)]
    pub is_fatal: bool,
}

impl Finding {
    /// A file was not loaded, or does not compile.
    pub(super) fn fatal(file: &str, line: usize, message: impl Into<String>) -> Self {
        let (file, message) = (file.to_owned(), message.into());
        Self { file, line, column: 0, message, is_fatal: true }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        for number in [self.line, self.column].into_iter().filter(|number| *number > 0) {
            write!(f, ":{number}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Compiles every `.luau` file of a directory, tests too, follows what they require, and looks for
/// globals and members of `ctx` that there are none of. Nothing is executed.
///
/// # Errors
/// The directory cannot be read.
pub fn check(directory: &Path) -> io::Result<Vec<Finding>> {
    vm::prepare();
    let mut files = read(directory)?;
    let mut findings = std::mem::take(&mut files.findings);
    let exists = |module: &str| files.has(module);
    if !exists(MAIN) {
        let message = "there is none: tenants without a template of their own have nothing to run";
        findings.push(Finding::fatal(MAIN_FILE, 0, message));
    }
    let twice = files.files.iter().filter(|file| exists(&format!("{}/{INIT}", file.module)));
    findings.extend(twice.map(|File { name, module, .. }| {
        let message = format!("it is what \"{module}\" means, and {module}/init.luau is not");
        Finding { is_fatal: false, ..Finding::fatal(name, 0, message) }
    }));
    let found = files
        .files
        .iter()
        .flat_map(|file| of_source(&file.name, &file.module, &file.text, &exists));
    findings.extend(found);
    for (name, text) in read_files(directory, is_test)?.0 {
        let of_tests = of_source(&name, &name, text.as_bytes(), &exists).into_iter();
        // Templates can be run without their tests.
        findings.extend(of_tests.map(|finding| Finding { is_fatal: false, ..finding }));
    }
    findings.sort();
    Ok(findings)
}

/// Checks a file as a tenant's own template, or as a script, which says so by `local ctx = ...`.
/// What it requires is looked for in `directory`, if there is one. A file of tests is checked as
/// that. Nothing is executed.
///
/// # Errors
/// The directory cannot be read.
pub fn check_file(file: &str, source: &[u8], directory: Option<&Path>) -> io::Result<Vec<Finding>> {
    vm::prepare();
    let files = directory.map(read).transpose()?;
    let exists = |module: &str| files.as_ref().is_none_or(|files| files.has(module));
    let mut findings = of_source(file, MAIN, source, &exists);
    findings.sort();
    Ok(findings)
}

fn read(directory: &Path) -> io::Result<Files> {
    source::read(&TemplateSource::Directory(directory.to_owned()), SOURCE_MAX_BYTES)
}

/// What is wrong with a source that is this module.
fn of_source(
    file: &str,
    module: &str,
    source: &[u8],
    exists: &dyn Fn(&str) -> bool,
) -> Vec<Finding> {
    if let Some(problem) = check_source(file, source) {
        return vec![problem];
    }
    let finding = |(At { line, column }, message)| Finding {
        file: file.to_owned(),
        line,
        column,
        message,
        is_fatal: false,
    };
    let source = without_head(source);
    let seen = if is_test(file) { walk_tests(source) } else { walk(source, module == MAIN) };
    let required = seen
        .requires
        .into_iter()
        .filter_map(|(at, name)| Some((at, resolve(exists, module, &name).err()?)));
    seen.findings.into_iter().chain(required).map(finding).collect()
}

/// Why a template that a tenant is to have of its own does not compile, if it does not. Nothing is
/// executed.
pub fn check_source(file: &str, source: &[u8]) -> Option<Finding> {
    vm::prepare();
    compile(file, source, SOURCE_MAX_BYTES).err()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    /// A directory that is gone when the test is over.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let path =
                std::env::temp_dir().join(format!("mesophyll-check-{}-{name}", std::process::id()));
            for (name, text) in files {
                let file = path.join(name);
                fs::create_dir_all(file.parent().expect("in a folder")).expect("make the folder");
                fs::write(file, text).expect("write the file");
            }
            Self(path)
        }

        fn findings(&self) -> Vec<String> {
            check(&self.0).expect("readable").iter().map(Finding::to_string).collect()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_sound_directory_has_no_findings() {
        let sound = Scratch::new(
            "sound",
            &[
                (
                    "main.luau",
                    "local words = require('lib/words')\nreturn function(ctx) return words end",
                ),
                ("lib/words.luau", "-- require('nothing')\nreturn require './more'"),
                ("lib/more.luau", "return { text = \"require('nothing')\" }"),
                ("readme.txt", "not Luau"),
            ],
        );
        assert_eq!(sound.findings(), Vec::<String>::new());
    }

    #[test]
    fn every_kind_of_fault_is_found_with_file_and_line() {
        let big = format!("return '{}'", "x".repeat(SOURCE_MAX_BYTES));
        let faulty = Scratch::new(
            "faulty",
            &[
                ("lib/a.luau", "local ok = 1\n\nreturn require('nowhere')"),
                ("lib/b.luau", "return require(\"../../main\")"),
                ("lib/c.luau", "local x =\nreturn 1"),
                ("lib/big.luau", &big),
            ],
        );
        let findings = faulty.findings();
        assert_eq!(findings.len(), 5, "{findings:#?}");
        assert_eq!(
            findings[0],
            "lib/a.luau:3:16: cannot require \"nowhere\": there is no such module"
        );
        assert_eq!(
            findings[1],
            "lib/b.luau:1:16: cannot require \"../../main\": it leads out of the template directory"
        );
        assert_eq!(
            findings[2],
            "lib/big.luau: the source has 196609 bytes; at most 192 KiB are compiled"
        );
        assert!(findings[3].starts_with("lib/c.luau:2: Expected identifier"), "{}", findings[3]);
        assert!(findings[4].starts_with("main.luau: there is none"), "{}", findings[4]);
    }

    #[test]
    fn a_name_that_means_two_modules_is_found() {
        let files = [
            ("main.luau", "return require('./lib')"),
            ("lib.luau", "return require('@self/a')"),
            ("lib/init.luau", "return require('@self/a'), require('./main')"),
            ("lib/a.luau", "return 1"),
        ];
        let said = "lib.luau: it is what \"lib\" means, and lib/init.luau is not";
        assert_eq!(Scratch::new("twice", &files).findings(), [said]);
    }

    #[test]
    fn of_too_many_modules_main_is_loaded_and_the_rest_told() {
        let names: Vec<_> = (0..1100).map(|number| format!("a{number:04}.luau")).collect();
        let mut modules: Vec<_> = names.iter().map(|name| (name.as_str(), "return 1")).collect();
        modules.extend([("main.luau", "return require('nothing')"), ("lib/z.luau", "return 1")]);
        let many = Scratch::new("many", &modules);
        assert_eq!(
            many.findings(),
            [
                ".: more than 1000 modules: 102 were not loaded, from a0999.luau on",
                "main.luau:1:16: cannot require \"nothing\": there is no such module",
            ]
        );
    }

    #[test]
    fn what_editors_leave_beside_modules_is_no_module() {
        let beside = Scratch::new(
            "editors",
            &[
                ("main.luau", "return print"),
                (".main.luau", "return ("),
                (".#main.luau", "me@host.1"),
                ("#main.luau", "return ("),
                ("#main.luau#", "return ("),
                ("main.luau~", "return ("),
                (".main.luau.swp", "return ("),
            ],
        );
        assert_eq!(beside.findings(), Vec::<String>::new());
    }

    #[test]
    fn a_file_is_checked_as_a_template_or_as_a_script() {
        let found = |source: &str, directory: Option<&Path>| {
            let findings = check_file("mine.luau", source.as_bytes(), directory).expect("readable");
            findings.iter().map(Finding::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            found("return {}", None),
            ["mine.luau:1:1: the template must return function(ctx), not a table"]
        );
        assert_eq!(found("local ctx = ... return { ctx.tenant.id }", None), Vec::<String>::new());
        assert_eq!(found("return function(c) return c.kv end", None).len(), 1);
        assert!(found("return (", None)[0].starts_with("mine.luau:1: Expected"));
        let folder = Scratch::new("beside", &[("words.luau", "return (")]);
        assert_eq!(found("return require('words')", Some(&folder.0)), Vec::<String>::new());
        assert_eq!(found("return require('other')", None), Vec::<String>::new());
        assert_eq!(
            found("return require('other')", Some(&folder.0)),
            ["mine.luau:1:16: cannot require \"other\": there is no such module"]
        );
        assert!(check_file("mine.luau", b"", Some(Path::new("no such directory"))).is_err());
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        assert!(check(Path::new("no such directory")).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_is_not_waited_for() {
        let folder = Scratch::new("pipe", &[("main.luau", "return print")]);
        let made = std::process::Command::new("mkfifo")
            .arg(folder.0.join("pipe.luau"))
            .status()
            .expect("mkfifo");
        assert!(made.success());
        assert_eq!(folder.findings(), ["pipe.luau: not a regular file; it was not loaded"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_out_of_the_directory_is_not_followed() {
        let outside = Scratch::new("outside", &[("secret.luau", "return 'secret'")]);
        let inside = Scratch::new(
            "inside",
            &[("main.luau", "return require('leak')"), ("same.luau", "return 1")],
        );
        std::os::unix::fs::symlink(outside.0.join("secret.luau"), inside.0.join("leak.luau"))
            .expect("link");
        std::os::unix::fs::symlink(inside.0.join("same.luau"), inside.0.join("inner.luau"))
            .expect("link");
        assert_eq!(
            inside.findings(),
            [
                "leak.luau: a link out of the template directory; it was not loaded",
                "main.luau:1:16: cannot require \"leak\": there is no such module",
            ]
        );
    }
}
