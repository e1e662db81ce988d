//! One tenant's Luau VM: made, closed off, and ready to start events.
//!
//! Only the libraries that templates may use are opened; the rest of the base library is removed or
//! replaced by the prelude; then globals and libraries become read-only, and each chunk of code
//! gets a table of its own for what it writes. Belongs to one tenant, lives on its executor's
//! thread.

use std::rc::Rc;
use std::sync::{Once, OnceLock};

use mlua::chunk::{ChunkMode, Compiler};
use mlua::{Function, Lua, LuaOptions, StdLib, Value};

use super::control::Control;
use super::convert::values;
use super::host::Host;
use super::memory::peak_bytes;
use super::script_error::HOST_CHUNK;

/// The prelude's files: one chunk, so that they share their locals.
const PRELUDE: &str = concat!(
    include_str!("prelude/base.luau"),
    include_str!("prelude/bounded.luau"),
    include_str!("prelude/coroutines.luau"),
    include_str!("prelude/tasks.luau"),
    include_str!("prelude/modules.luau"),
    include_str!("prelude/ctx.luau"),
);

/// What of Luau and mlua a script must not have: other environments, code from text, and what shows
/// the host.
const REMOVED: [&str; 6] = ["getfenv", "setfenv", "loadstring", "newproxy", "gcinfo", "require"];

/// A VM.
pub(super) struct Vm {
    pub(super) lua: Lua,
    pub(super) host: Rc<Host>,
    /// `function(event number)`: runs the tenant's template.
    pub(super) start: Function,
    /// `function(event number, chunk)`: runs a script.
    pub(super) start_script: Function,
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
        let globals = lua.globals();
        for name in REMOVED {
            globals.raw_set(name, Value::Nil)?;
        }
        globals.raw_set("null", Value::NULL)?;
        values::install(&lua, &globals)?;
        let prelude =
            lua.load(prelude()).set_name(format!("={HOST_CHUNK}")).set_mode(ChunkMode::Binary);
        let (start, start_script) = prelude.call(host.table(&lua)?)?;
        host.set_globals(&lua, &globals)?;
        lua.sandbox(true)?;
        // What it took to get here is garbage now; with it goes a tenth of the VM.
        lua.gc_collect()?;
        lua.set_memory_limit(peak_bytes(control.limits().memory_bytes))?;
        lua.set_interrupt({
            let (control, host) = (control.clone(), host.clone());
            move |lua| control.interrupt(lua, &host.pace)
        });
        Ok(Self { lua, host, start, start_script })
    }
}

/// The prelude, compiled once a process.
fn prelude() -> &'static [u8] {
    static BYTECODE: OnceLock<Vec<u8>> = OnceLock::new();
    BYTECODE.get_or_init(|| {
        // Level 1: with inlined functions the levels given to `error` would be wrong.
        let compiler = Compiler::new().set_optimization_level(1).set_debug_level(1);
        compiler.compile(PRELUDE).expect("the prelude is part of this binary, and tests run it")
    })
}
