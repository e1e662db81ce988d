//! One tenant's Luau VM: made, closed off, and ready to start events.
//!
//! Only the libraries that templates may use are opened; the rest of the base library is removed or
//! replaced by the prelude; then globals and libraries become read-only, and each chunk of code
//! gets a table of its own for what it writes. Belongs to one tenant, lives on its executor's
//! thread.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Once, OnceLock};

use mlua::chunk::{ChunkMode, Compiler};
use mlua::{Function, Lua, LuaOptions, StdLib, Thread, Value};

use super::control::Control;
use super::convert::{install_text_check, values};
use super::host::Host;
use super::memory::peak_bytes;
use super::script_error::HOST_CHUNK;

/// What a VM runs before anything else: one chunk, so that the files share their locals.
const PRELUDE: &str = concat!(
    include_str!("prelude/base.luau"),
    include_str!("prelude/modules.luau"),
    include_str!("prelude/ctx.luau"),
);

/// What a VM loads when it is first used.
const PARTS: [(&str, &str); 4] = [
    ("bounded", include_str!("prelude/bounded.luau")),
    ("coroutines", include_str!("prelude/coroutines.luau")),
    ("members", include_str!("prelude/members.luau")),
    ("slow", include_str!("prelude/slow.luau")),
];

/// What of Luau and mlua a script must not have: other environments, code from text, and what shows
/// the host.
const REMOVED: [&str; 6] = ["getfenv", "setfenv", "loadstring", "newproxy", "gcinfo", "require"];

/// A VM.
pub(super) struct Vm {
    pub(super) lua: Lua,
    pub(super) host: Rc<Host>,
    /// `function(event number, event if it is there)`: runs the tenant's template.
    pub(super) start: Function,
    /// `function(event number, event if it is there, chunk)`: runs a script.
    pub(super) start_script: Function,
    /// Limit: one coroutine of a handler that has returned, which the next one runs in.
    spare: Cell<Option<Thread>>,
}

/// Prepares Luau for the process: before anything of it is used, by any caller.
pub(super) fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Without this fix of Luau's own, which is not yet on by default, a table whose growth
        // fails at the memory limit may be left with a size that is not its size. Scripts can bring
        // that about at will.
        if Lua::set_fflag("LuauTableRobustOom", true).is_err() {
            log::debug!("this Luau no longer has the flag LuauTableRobustOom");
        }
    });
}

impl Vm {
    /// Makes a VM.
    ///
    /// # Errors
    /// The process is short of memory, or the prelude has a fault.
    pub(super) fn new(control: &Rc<Control>, host: Rc<Host>) -> mlua::Result<Self> {
        let libraries = StdLib::TABLE
            | StdLib::STRING
            | StdLib::MATH
            | StdLib::BIT
            | StdLib::UTF8
            | StdLib::BUFFER
            | StdLib::COROUTINE
            | StdLib::VECTOR;
        let lua = Lua::new_with(libraries, LuaOptions::new())?;
        // Nothing of what is made here is garbage for long, and half of it goes if a VM is closed
        // after one event: the collector begins with the first event.
        lua.gc_stop();
        let globals = lua.globals();
        for name in REMOVED {
            globals.raw_set(name, Value::Nil)?;
        }
        globals.raw_set("null", Value::NULL)?;
        values::install(&lua, &globals, control.clock())?;
        let (start, start_script, are_texts) = part(&lua, "prelude")?.call(host.table(&lua)?)?;
        let are_texts: Function = are_texts;
        install_text_check(&lua, {
            let control = control.clone();
            move |table| control.undisturbed(|| are_texts.call(table).unwrap_or(false))
        });
        host.set_globals(&lua, &globals)?;
        lua.sandbox(true)?;
        lua.set_memory_limit(peak_bytes(control.limits().memory_bytes))?;
        lua.set_interrupt({
            let (control, host) = (control.clone(), host.clone());
            move |lua| control.interrupt(lua, &host.pace)
        });
        lua.gc_restart();
        Ok(Self { lua, host, start, start_script, spare: Cell::default() })
    }

    /// A coroutine for a handler.
    ///
    /// # Errors
    /// There is no memory for it.
    pub(super) fn thread(&self, handler: &Function) -> mlua::Result<Thread> {
        match self.spare.take() {
            Some(spare) if spare.reset(handler.clone()).is_ok() => Ok(spare),
            _ => self.lua.create_thread(handler.clone()),
        }
    }

    /// Takes a coroutine back whose handler has returned and that no script has seen: to one that
    /// a script holds the script could do something, and would do it to another event.
    pub(super) fn reuse(&self, thread: Thread) {
        self.spare.set(Some(thread));
    }
}

/// Loads a part of the prelude.
///
/// # Errors
/// There is none of this name, or no memory for it.
pub(super) fn part(lua: &Lua, name: &str) -> mlua::Result<Function> {
    // Compiled once a process.
    static BYTECODE: OnceLock<Vec<(&str, Vec<u8>)>> = OnceLock::new();
    let parts = BYTECODE.get_or_init(|| {
        // Level 1: with inlined functions the levels given to `error` would be wrong.
        let compiler = Compiler::new().set_optimization_level(1).set_debug_level(1);
        let compile = |(name, text)| {
            let code = compiler.compile(text);
            (name, code.expect("it is part of this binary, and tests run it"))
        };
        [("prelude", PRELUDE)].into_iter().chain(PARTS).map(compile).collect()
    });
    let code = parts.iter().find(|(part, _)| *part == name).map(|(_, code)| &code[..]);
    let code = code.ok_or_else(|| mlua::Error::runtime(format!("there is no part {name}")))?;
    lua.load(code).set_name(format!("={HOST_CHUNK}")).set_mode(ChunkMode::Binary).into_function()
}
