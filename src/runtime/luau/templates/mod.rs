//! Templates and the modules that they require: read and compiled once, shared by all VMs as
//! bytecode.
//!
//! Scripts never touch the file system: `require` looks names up in what was loaded, so there is no
//! path to climb out of and no file that changes under a running script. Compiling happens on the
//! thread that starts the runtime, on the one that watches the directory (`watch`) and, for scripts
//! and tenants' own templates, on I/O threads: it cannot be interrupted.

mod check;
pub(super) mod known;
mod lexer;
mod names;
mod source;
mod template_cache;
mod walk;
mod watch;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use mlua::chunk::Compiler;

pub use self::check::{Finding, check, check_file, check_source};
use self::lexer::LuauToken;
pub(super) use self::template_cache::TemplateCache;
pub(super) use self::watch::{Look, Watch};
use super::config::TemplateSource;

/// The module that a tenant without a template of its own runs.
pub(super) const MAIN: &str = "main";

/// What that is called in errors, and where a directory has it.
pub(super) const MAIN_FILE: &str = "main.luau";

/// A compiled chunk, or why it does not compile.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Compiled {
    /// Name shown in errors and tracebacks: of a module its file's, as editors link it.
    pub(super) name: Arc<str>,
    /// Bytecode, or the compiler's message with name and line.
    pub(super) code: Result<Arc<[u8]>, Arc<str>>,
    /// It may do more with a library than use a member by its name, as with `pairs(string)`.
    pub(super) shows_libraries: bool,
}

/// Libraries of which a VM has a part until a script uses the rest.
pub(super) const PARTIAL_LIBRARIES: [&str; 4] = ["string", "table", "coroutine", "task"];

impl Compiled {
    /// Compiles source text. `limit`: how many bytes it may have.
    pub(super) fn from_source(name: &str, source: &[u8], limit: usize) -> Self {
        let code = compile(name, source, limit).map(Arc::from);
        let code = code.map_err(|problem| Arc::from(problem.to_string()));
        let shows_libraries = code.is_ok() && shows_libraries(source);
        Self { name: Arc::from(name), code, shows_libraries }
    }

    /// A chunk that cannot be had, and why.
    pub(super) fn missing(name: &str, why: &str) -> Self {
        Self { name: Arc::from(name), code: Err(Arc::from(why)), shows_libraries: false }
    }
}

/// Whether a source names what holds all libraries; or one of them without the name of a member
/// behind it, and not as a type or a member itself. There is no other way to have one as a value.
fn shows_libraries(source: &[u8]) -> bool {
    let tokens = lexer::tokens(without_head(source));
    let sign = |at: Option<usize>| match at.and_then(|at| tokens.get(at)) {
        Some((_, LuauToken::Sign(sign))) => *sign,
        _ => "",
    };
    tokens.iter().enumerate().any(|(at, (_, token))| match token {
        LuauToken::Word("_G") => true,
        LuauToken::Word(name) if PARTIAL_LIBRARIES.contains(name) => {
            sign(Some(at + 1)) != "." && !matches!(sign(at.checked_sub(1)), "." | ":" | "::" | "->")
        }
        _ => false,
    })
}

/// A source without the byte order mark that some editors write before it, and without a first line
/// `#!…`, of which the line's end stays: the others keep their numbers.
fn without_head(source: &[u8]) -> &[u8] {
    let source = source.strip_prefix(b"\xef\xbb\xbf").unwrap_or(source);
    if !source.starts_with(b"#!") {
        return source;
    }
    let end = source.iter().position(|byte| *byte == b'\n').unwrap_or(source.len());
    &source[end..]
}

/// # Errors
/// What is wrong with the source of this name.
fn compile(name: &str, source: &[u8], limit: usize) -> Result<Vec<u8>, Finding> {
    if source.len() > limit {
        let message = format!(
            "the source has {} bytes; at most {} KiB are compiled",
            source.len(),
            limit / 1024
        );
        return Err(Finding::fatal(name, 0, message));
    }
    let source = without_head(source);
    // Level 1: what level 2 inlines is missing from tracebacks.
    let compiler = Compiler::new().set_optimization_level(1).set_debug_level(1);
    compiler.compile(source).map_err(|error| {
        let text = match error {
            mlua::Error::SyntaxError { message, .. } => message,
            other => other.to_string(),
        };
        // The compiler writes "12: message".
        match text
            .split_once(": ")
            .map(|(line, message)| (line.trim_start_matches(':').parse(), message))
        {
            Some((Ok(line), message)) => Finding::fatal(name, line, message),
            _ => Finding::fatal(name, 0, text),
        }
    })
}

/// All modules of a template source, by name.
#[derive(Default)]
pub(super) struct Templates {
    modules: HashMap<String, Compiled>,
}

impl Templates {
    /// Reads and compiles everything. What does not compile is a script error later; here it is
    /// only logged.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(super) fn load(source: &TemplateSource, source_limit: usize) -> io::Result<Self> {
        let files = source::read(source, source_limit)?;
        files.findings.iter().for_each(|finding| log::warn!("templates: {finding}"));
        let compiled = files.files.iter().map(|file| {
            let compiled = Compiled::from_source(&file.name, &file.text, source_limit);
            if let Err(problem) = &compiled.code {
                log::warn!("templates: {problem}");
            }
            (file.module.clone(), compiled)
        });
        Ok(Self { modules: compiled.collect() })
    }

    /// What a tenant without a template of its own runs.
    pub(super) fn main(&self) -> Compiled {
        let missing = || Compiled::missing(MAIN_FILE, "there is no main.luau among the templates");
        self.modules.get(MAIN).cloned().unwrap_or_else(missing)
    }

    /// Whether a module does not compile, or there is none to begin with.
    pub(super) fn is_broken(&self) -> bool {
        self.main().code.is_err() || self.modules.values().any(|module| module.code.is_err())
    }

    /// A module by its full name.
    pub(super) fn module(&self, name: &str) -> Option<&Compiled> {
        self.modules.get(name)
    }

    /// The full name of the module that `name` means in the module `from`.
    ///
    /// # Errors
    /// There is none, or the name leads out of the templates; the text says which.
    pub(super) fn resolve(&self, from: &str, name: &str) -> Result<String, String> {
        resolve(|module| self.modules.contains_key(module), from, name)
    }
}

/// The full name of the module that `name` means in the module `from`: `./x` is beside it, any
/// other from the top.
fn resolve(exists: impl Fn(&str) -> bool, from: &str, name: &str) -> Result<String, String> {
    let refuse = |why: &str| Err(format!("cannot require \"{name}\": {why}"));
    if name.is_empty() || name.contains(['\\', ':', '\0']) {
        return refuse("not the name of a module");
    }
    if name.starts_with('/') {
        return refuse(
            "modules are found in the template directory only, so a name does not start with /",
        );
    }
    if name.starts_with('@') {
        return refuse("there are no aliases");
    }
    let beside = name.strip_prefix("./");
    let folder = beside.and_then(|_| from.rsplit_once('/')).map_or("", |(folder, _)| folder);
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in beside.unwrap_or(name).split('/') {
        match part {
            ".." => return refuse("a name has no .."),
            "" | "." => return refuse("not the name of a module"),
            part => parts.push(part),
        }
    }
    let module = parts.join("/");
    if exists(&module) {
        Ok(module)
    } else if name.ends_with(".luau") {
        refuse("leave .luau out")
    } else {
        refuse("there is no such module")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(from: &str, name: &str) -> Result<String, String> {
        resolve(|module| ["main", "words", "lib/words", "lib/deep/x"].contains(&module), from, name)
    }

    #[test]
    fn names_are_from_the_top_or_beside() {
        assert_eq!(resolved("main", "lib/words").as_deref(), Ok("lib/words"));
        assert_eq!(resolved("lib/words", "words").as_deref(), Ok("words"));
        assert_eq!(resolved("lib/other", "./words").as_deref(), Ok("lib/words"));
        assert_eq!(resolved("lib/other", "./deep/x").as_deref(), Ok("lib/deep/x"));
        assert_eq!(resolved("main", "./words").as_deref(), Ok("words"));
    }

    #[test]
    fn no_name_leads_out_of_the_templates() {
        for name in [
            "",
            "..",
            "../main",
            "lib/../../main",
            "./../main",
            "/etc/passwd",
            "lib//words",
            "a\\b",
            "C:x",
            "@self",
            "x\0",
        ] {
            let refusal = resolved("lib/words", name).expect_err(name);
            assert!(refusal.starts_with("cannot require"), "{refusal}");
        }
        assert_eq!(
            resolved("main", "words.luau"),
            Err("cannot require \"words.luau\": leave .luau out".to_owned())
        );
    }

    #[test]
    fn compile_errors_have_name_and_line() {
        let compiled = Compiled::from_source("lib/words", b"local x = 1\nlocal = 2", 1024);
        let problem = compiled.code.expect_err("it is wrong");
        assert!(problem.starts_with("lib/words:2: Expected identifier"), "{problem}");
    }

    #[test]
    fn a_source_shows_a_library_that_it_has_as_a_value() {
        let shows =
            |source: &str| Compiled::from_source("x", source.as_bytes(), 1024).shows_libraries;
        for source in [
            "return pairs(string)",
            "local t = table t.sort({})",
            "return task.wait, coroutine",
            "return _G.string",
            "return table:clone()",
            "return string..setmetatable({}, ...)",
            "return `{string}`",
            "return task -- .wait",
            "return (table).sort",
        ] {
            assert!(shows(source), "{source}");
        }
        for source in [
            "return string.format('%d', 1), table . sort, ('table')",
            "local function f(x: string): string return x.task, x:table() end",
            "-- string\nreturn print, 'string', [[table]], `task`",
            "local type F = () -> string return x :: string",
        ] {
            assert!(!shows(source), "{source}");
        }
    }

    #[test]
    fn a_source_that_is_too_large_is_not_compiled() {
        let compiled = Compiled::from_source("big", &[b' '; 2049], 2048);
        let problem = compiled.code.expect_err("too large");
        assert_eq!(&*problem, "big: the source has 2049 bytes; at most 2 KiB are compiled");
    }
}
