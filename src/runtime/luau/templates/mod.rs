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
pub use self::known::definitions;
use self::lexer::LuauToken;
pub use self::source::{TemplateFiles, is_module, is_test, read_files};
pub(super) use self::template_cache::TemplateCache;
pub use self::watch::Look;
pub(super) use self::watch::Watch;
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
    /// Where those are that it does not have: of a tenant's own, those of all tenants.
    others: Option<Arc<Templates>>,
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
        Ok(Self { modules: compiled.collect(), others: None })
    }

    /// A tenant's own modules before those of all tenants.
    pub(super) fn of_tenant(modules: HashMap<String, Compiled>, others: Arc<Self>) -> Arc<Self> {
        if modules.is_empty() {
            return others;
        }
        Arc::new(Self { modules, others: Some(others) })
    }

    /// Whether what is required of these and of those is the same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let others = |of: &Self| of.others.as_ref().map(Arc::as_ptr);
        std::ptr::eq(self, other)
            || (self.others.is_some()
                && others(self) == others(other)
                && self.modules == other.modules)
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
        let others = || self.others.as_ref().and_then(|others| others.module(name));
        self.modules.get(name).or_else(others)
    }

    /// The full name of the module that `name` means in the module `from`.
    ///
    /// # Errors
    /// There is none, or the name leads out of the templates; the text says which.
    pub(super) fn resolve(&self, from: &str, name: &str) -> Result<String, String> {
        resolve(|module| self.module(module).is_some(), from, name)
    }
}

/// The module that a folder stands for, if it has one.
const INIT: &str = "init";

/// The full name of the module that `name` means in the module `from`: the one answer for all that
/// run or check templates. As in Luau, `./x` and `../x` are beside the module and above it, where
/// an `init.luau` stands for its folder, and `@self/x` is in the module's own folder. Any other
/// name is from the top.
fn resolve(exists: impl Fn(&str) -> bool, from: &str, name: &str) -> Result<String, String> {
    let refuse = |why: &str| Err(format!("cannot require \"{name}\": {why}"));
    let own = if from == INIT { "" } else { from.strip_suffix("/init").unwrap_or(from) };
    let beside = own.rsplit_once('/').map_or("", |(folder, _)| folder);
    let (folders, path) = match name.split_once('/') {
        Some(("@self", path)) if from == MAIN => (vec![""], path),
        Some(("@self", path)) if own != from => (vec![own], path),
        // Luau means the folder of the module's name, editors the one that its file is in.
        Some(("@self", path)) => (vec![own, beside], path),
        _ if name.starts_with('@') => return refuse("@self/ is the only alias"),
        Some(("." | "..", _)) if from == INIT => return refuse(LEADS_OUT),
        Some(("." | "..", _)) => (vec![beside], name),
        Some(("", _)) => {
            return refuse(
                "modules are found in the template directory only, so a name does not start with /",
            );
        }
        _ if name.split('/').any(|part| part == "..") => {
            return refuse("a name from the top has no .., one that begins with ./ or ../ may");
        }
        _ => (vec![""], name),
    };
    for folder in folders {
        let module = match joined(folder, path) {
            Ok(module) => module,
            Err(why) => return refuse(why),
        };
        let of_folder = format!("{module}/{INIT}");
        if exists(&module) {
            return Ok(module);
        } else if exists(&of_folder) {
            return Ok(of_folder);
        }
    }
    refuse(if name.ends_with(".luau") { "leave .luau out" } else { "there is no such module" })
}

const LEADS_OUT: &str = "it leads out of the template directory";

/// The name of the module that a path in a folder of the templates leads to.
fn joined(folder: &str, path: &str) -> Result<String, &'static str> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop().ok_or(LEADS_OUT)?;
            }
            "" => return Err("not the name of a module"),
            part if part.contains(['\\', ':', '\0']) => return Err("not the name of a module"),
            part => parts.push(part),
        }
    }
    if parts.is_empty() { Err("not the name of a module") } else { Ok(parts.join("/")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULES: [&str; 9] = [
        "main",
        "words",
        "lib/words",
        "lib/deep/x",
        "lib/deep/init",
        "lib/deep/more/y",
        "lib/words/part",
        "twice",
        "twice/init",
    ];

    fn resolved(from: &str, name: &str) -> Result<String, String> {
        resolve(|module| MODULES.contains(&module), from, name)
    }

    #[track_caller]
    fn assert_resolves(from: &str, names: &[(&str, &str)]) {
        for (name, module) in names {
            assert_eq!(resolved(from, name).as_deref(), Ok(*module), "{name} in {from}");
        }
    }

    #[test]
    fn names_are_from_the_top_or_from_the_module() {
        assert_resolves("main", &[("lib/words", "lib/words"), ("./words", "words")]);
        assert_resolves("main", &[("@self/lib/words", "lib/words"), ("lib/deep", "lib/deep/init")]);
        assert_resolves("lib/words", &[("words", "words"), ("./words", "lib/words")]);
        assert_resolves("lib/words", &[("../words", "words"), ("./../lib/words", "lib/words")]);
        assert_resolves("lib/other", &[("./deep/x", "lib/deep/x"), ("./deep", "lib/deep/init")]);
        assert_resolves("lib/deep/x", &[("../words", "lib/words"), ("../../words", "words")]);
        assert_resolves("lib/deep/x", &[("./more/../x", "lib/deep/x")]);
    }

    #[test]
    fn an_init_stands_for_its_folder() {
        let init = [("./words", "lib/words"), ("../words", "words"), ("@self/x", "lib/deep/x")];
        assert_resolves("lib/deep/init", &init);
        assert_resolves("lib/deep/init", &[("@self/more/y", "lib/deep/more/y")]);
        assert_resolves("init", &[("@self/words", "words"), ("lib/words", "lib/words")]);
        assert_resolves("main", &[("twice", "twice"), ("twice/init", "twice/init")]);
    }

    #[test]
    fn self_is_the_folder_of_the_module_or_of_its_file() {
        assert_resolves(
            "lib/words",
            &[("@self/part", "lib/words/part"), ("@self/deep/x", "lib/deep/x")],
        );
    }

    #[test]
    fn no_name_leads_out_of_the_templates() {
        for (from, name) in [
            ("main", "../main"),
            ("lib/words", "../../main"),
            ("lib/words", "./../../lib/words"),
            ("lib/words", "@self/../../../main"),
            ("lib/deep/init", "../../main"),
            ("init", "./main"),
            ("main", "@self/../main"),
        ] {
            let refusal = resolved(from, name).expect_err(name);
            let expected = format!("cannot require \"{name}\": {LEADS_OUT}");
            assert_eq!(refusal, expected, "in {from}");
        }
        for name in [
            "",
            ".",
            "..",
            "./",
            "../",
            "lib/../../main",
            "/etc/passwd",
            "lib//words",
            "a\\b",
            "C:x",
            "@self",
            "@self/",
            "@other/x",
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
