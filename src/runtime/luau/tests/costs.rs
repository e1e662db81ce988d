//! The longest that each builtin holds an executor, with the worst arguments that a VM has room
//! for.
//!
//! What counts is the longest time between two interrupts, by the processor time of this thread, in
//! units of what one pass over a text of 32 MiB takes in C on the same machine: no builtin may take
//! many of those at a time. A builtin that scripts can reach and that is not in the tables here
//! fails the test. With `MESOPHYLL_MEASURE` set it says what it measured.

use std::cell::Cell;
use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use mlua::{Function, Lua, Table, Value, VmState};

use super::support::*;
use crate::base::clock::ScriptClock;
use crate::base::thread::cpu_time;
use crate::runtime::luau::LuauLimits;
use crate::runtime::luau::control::Control;
use crate::runtime::luau::gauges::Gauges;
use crate::runtime::luau::host::Host;
use crate::runtime::luau::script_feed::ScriptFeed;
use crate::runtime::luau::script_log::ScriptLog;
use crate::runtime::luau::templates::{Compiled, Templates};
use crate::runtime::luau::ticker::Ticker;
use crate::runtime::luau::vm::Vm;
use crate::runtime::{TenantDb, TenantStates};

/// So many passes over 32 MiB are the most that a builtin may take without an interrupt.
const UNITS_MAX: u32 = 3;

/// A case goes on for no longer: what a builtin does in pieces shows its longest piece long before.
const CASE_MAX: Duration = Duration::from_millis(500);

/// Builtins whose cost depends on the number of their arguments alone, or on nothing: called with
/// very many.
#[rustfmt::skip]
const PLAIN: &[&str] = &[
    "assert", "collectgarbage", "getmetatable", "ipairs", "pairs", "rawequal", "rawget", "rawlen",
    "rawset", "select", "setmetatable", "type", "typeof", "bit32.arshift", "bit32.band",
    "bit32.bnot", "bit32.bor", "bit32.btest", "bit32.bxor", "bit32.byteswap", "bit32.countlz",
    "bit32.countrz", "bit32.extract", "bit32.lrotate", "bit32.lshift", "bit32.replace",
    "bit32.rrotate", "bit32.rshift", "buffer.len", "buffer.readbits", "buffer.readf32",
    "buffer.readf64", "buffer.readi16", "buffer.readi32", "buffer.readi8", "buffer.readu16",
    "buffer.readu32", "buffer.readu8", "buffer.writebits", "buffer.writef32", "buffer.writef64",
    "buffer.writei16", "buffer.writei32", "buffer.writei8", "buffer.writeu16", "buffer.writeu32",
    "buffer.writeu8", "coroutine.isyieldable", "coroutine.running", "coroutine.status",
    "coroutine.yield", "integer.from", "interval.from", "math.abs", "math.acos", "math.asin",
    "math.atan", "math.atan2", "math.ceil", "math.clamp", "math.cos", "math.cosh", "math.deg",
    "math.exp", "math.floor", "math.fmod", "math.frexp", "math.isfinite", "math.isinf",
    "math.isnan", "math.ldexp", "math.lerp", "math.log", "math.log10", "math.map", "math.max",
    "math.min", "math.modf", "math.noise", "math.pow", "math.rad", "math.random",
    "math.randomseed", "math.round", "math.sign", "math.sin", "math.sinh", "math.sqrt",
    "math.tan", "math.tanh", "table.freeze", "table.getn", "table.isfrozen", "task.cancel",
    "task.wait", "timestamp.from", "timestamp.now", "vector.abs", "vector.angle", "vector.ceil",
    "vector.clamp", "vector.create", "vector.cross", "vector.dot", "vector.floor", "vector.lerp",
    "vector.magnitude", "vector.max", "vector.min", "vector.normalize", "vector.sign",
];

/// What a case finds of these, if it names it: a long text, a long list, as many arguments as a
/// call takes.
const SETUP: &[(&str, &str)] = &[
    ("long", "string.rep('a', 2 ^ 25)"),
    ("pieces", "string.rep('a,', 2 ^ 20)"),
    ("spaces", "string.rep(' ', 2 ^ 24)"),
    ("digits", "string.rep('1', 2 ^ 24)"),
    ("list", "table.create(2 ^ 20, 'x')"),
    ("many", "table.create(2 ^ 17, 1)"),
    ("unpack", "table.unpack"),
];

/// What a script does without a builtin.
const OPERATORS: &str = "operators";

/// Builtins and calls that are the worst for them.
#[rustfmt::skip]
const CASES: &[(&str, &[&str])] = &[
    (OPERATORS, &[
        "return long .. long", "return long < long .. 'b'", "return #list", "for _ in list do end",
        "return integer.parse('9007199254740993') .. long", "return tostring(long .. 1)",
        "local t = {} for i = 1, 2 ^ 19 + 1 do t[i + 0.5] = true end",
        "local t = {} for i = 1, 2 ^ 18 + 1 do t['k' .. i] = true end for k in t do t[k] = nil end return next(t)",
    ]),
    ("array", &["array(list)"]),
    ("coroutine.close", &["coroutine.close(coroutine.create(print))"]),
    ("coroutine.create", &["coroutine.create(print)"]),
    ("coroutine.resume", &["coroutine.resume(coroutine.create(select), '#', unpack(many))"]),
    ("coroutine.wrap", &["coroutine.wrap(select)('#', unpack(many))"]),
    ("integer.parse", &["pcall(integer.parse, digits)"]),
    ("timestamp.parse", &["pcall(timestamp.parse, digits)"]),
    ("timezone.from", &["pcall(timezone.from, long)"]),
    ("task.defer", &["pcall(task.defer, print, unpack(many))"]),
    ("task.delay", &["pcall(task.delay, 1, print, unpack(many))"]),
    ("task.spawn", &["pcall(task.spawn, print, unpack(many))"]),
    ("value", &["value(long)"]),
    ("xpcall", &["xpcall(error, print, long)", "xpcall(assert, print, unpack(many))"]),
    ("table.foreach", &["table.foreach(list, type)"]),
    ("table.foreachi", &["table.foreachi(list, type)"]),
    ("error", &["pcall(error, long)"]),
    ("next", &["next(list, 2 ^ 20)"]),
    ("pcall", &["pcall(assert, unpack(many))"]),
    ("print", &["print(long)", "print(unpack(many))"]),
    ("require", &["pcall(require, long)"]),
    ("tonumber", &["tonumber(spaces)", "tonumber(digits)", "tonumber(digits, 10)", "tonumber(spaces, 36)"]),
    ("tostring", &["tostring(long)"]),
    ("string.find", &[
        "string.find(long, 'ab', 1, true)", "string.find(long, 'b', 1, true)", "string.find(long, 'ab')",
        "string.find(long, string.sub(long, 1, 2 ^ 12) .. 'b', 1, true)",
        "string.find(long, string.sub(long, 1, 2 ^ 24) .. 'b', 1, true)",
        "string.find(long, 'a-b')", "string.find(long, '^a*b')",
    ]),
    ("string.split", &[
        "string.split(long, 'ab')", "string.split(long, 'b')", "string.split(pieces, ',')",
        "string.split(pieces, '')", "string.split(pieces, 'a,')",
        "string.split(long, string.rep('a', 2 ^ 24))", "string.split(string.sub(long, 1, 2 ^ 20), 'a')",
    ]),
    ("string.rep", &["string.rep('a', 2 ^ 26)", "string.rep('', 2 ^ 31 - 1)", "string.rep('ab', 2 ^ 25)"]),
    ("string.reverse", &["string.reverse(long)"]),
    ("string.lower", &["string.lower(long)"]),
    ("string.upper", &["string.upper(long)"]),
    ("string.len", &["string.len(long)"]),
    ("string.sub", &["string.sub(long, 2)"]),
    ("string.byte", &["pcall(string.byte, long, 1, -1)", "select('#', string.byte(long, 1, 2 ^ 19))"]),
    ("string.char", &["string.char(unpack(many))"]),
    ("string.match", &["string.match(long, '^a*$')", "string.match(long, 'b')", "string.match(long, '(a-)b')"]),
    ("string.gmatch", &["string.gmatch(long, 'b')()", "for _ in string.gmatch(long, 'a') do end"]),
    ("string.gsub", &["string.gsub(long, 'b', '')", "string.gsub(long, 'a', 'b')", "string.gsub(long, '', 'b')"]),
    ("string.format", &[
        "string.format(long)", "string.format('%s', long)", "string.format('%q', long)", "string.format('%*', long)",
        "string.format(string.rep('%%', 2 ^ 24))", "pcall(string.format, string.rep('%d', 2 ^ 17), unpack(many))",
        "pcall(string.format, string.rep('%*', 2 ^ 17), unpack(many))",
        "pcall(string.format, string.rep('%99.99f', 2 ^ 17), unpack(many))",
    ]),
    ("string.pack", &["string.pack(string.rep('x', 2 ^ 25))", "string.pack('z', long)", "string.pack('s4', long)"]),
    ("string.packsize", &["string.packsize(string.rep('x', 2 ^ 25))"]),
    ("string.unpack", &["string.unpack(string.rep('x', 2 ^ 25), long)", "pcall(string.unpack, 'z', long)"]),
    ("table.concat", &["table.concat(list)", "table.concat(list, ',')"]),
    ("table.insert", &["table.insert(list, 1, 'y')"]),
    ("table.remove", &["table.remove(list, 1)"]),
    ("table.find", &["table.find(list, 'y')"]),
    ("table.sort", &[
        "local t, p = {}, string.rep('a', 4000)
            for i = 1, 8000 do t[i] = p .. (i * 7919) % 8009 end table.sort(t)",
        "table.sort(list)", "local t = {} for i = 1, 20000 do t[i] = (i * 7919) % 20011 end table.sort(t)",
    ]),
    ("table.unpack", &["pcall(table.unpack, list)", "select('#', unpack(many))"]),
    ("unpack", &["select('#', unpack(many))"]),
    ("table.pack", &["table.pack(unpack(many))"]),
    ("table.move", &["table.move(list, 1, 2 ^ 20, 2)", "table.move(list, 1, 2 ^ 20, 1, {})"]),
    ("table.clone", &["table.clone(list)"]),
    ("table.clear", &["table.clear(list)"]),
    ("table.create", &["table.create(2 ^ 22, 0)"]),
    ("table.maxn", &["table.maxn(list)"]),
    ("utf8.len", &["utf8.len(long)"]),
    ("utf8.offset", &["utf8.offset(long, 2 ^ 25)", "utf8.offset(long, -2 ^ 24)"]),
    ("utf8.codepoint", &["utf8.codepoint(long, 1, 2 ^ 17)", "pcall(utf8.codepoint, long, 1, -1)"]),
    ("utf8.char", &["utf8.char(unpack(many))"]),
    ("utf8.codes", &["utf8.codes(long)"]),
    ("buffer.create", &["buffer.create(2 ^ 26)"]),
    ("buffer.fromstring", &["buffer.fromstring(long)"]),
    ("buffer.tostring", &["buffer.tostring(buffer.create(2 ^ 25))"]),
    ("buffer.fill", &["buffer.fill(buffer.create(2 ^ 25), 0, 1)"]),
    ("buffer.copy", &["local b = buffer.create(2 ^ 25) buffer.copy(b, 1, b, 0, 2 ^ 25 - 1)"]),
    ("buffer.writestring", &["buffer.writestring(buffer.create(2 ^ 25), 0, long)"]),
    ("buffer.readstring", &["buffer.readstring(buffer.create(2 ^ 25), 0, 2 ^ 25)"]),
];

/// What a call needs to find.
pub(super) fn setup(call: &str) -> String {
    let needed = SETUP.iter().filter(|(name, _)| call.contains(name));
    needed.map(|(name, value)| format!("local {name} = {value} ")).collect()
}

/// Each builtin with its worst arguments.
pub(super) fn calls() -> Vec<String> {
    let plain = PLAIN.iter().map(|name| format!("pcall({name}, unpack(many))"));
    let worst = CASES.iter().flat_map(|(_, calls)| calls.iter().map(|call| (*call).to_owned()));
    plain.chain(worst).collect()
}

/// What watches the interrupts of a VM.
#[derive(Default)]
struct Watch {
    since: Cell<Option<(Instant, Duration)>>,
    longest: Cell<Duration>,
    until: Cell<Option<Instant>>,
}

impl Watch {
    /// An interrupt, or an end: what went by since the last one. Asks for the processor time only
    /// where it matters.
    fn mark(&self) {
        let now = Instant::now();
        if let Some((at, processor)) = self.since.get() {
            if now - at < Duration::from_micros(500) {
                return;
            }
            let took = cpu_time();
            self.longest.set(self.longest.get().max(took - processor));
            self.since.set(Some((Instant::now(), took)));
        }
    }

    /// How long the longest pause of a call was.
    fn longest(&self, call: impl FnOnce()) -> Duration {
        self.longest.set(Duration::ZERO);
        self.until.set(Some(Instant::now() + CASE_MAX));
        self.since.set(Some((Instant::now(), cpu_time())));
        call();
        self.mark();
        self.since.set(None);
        self.until.set(None);
        self.longest.get()
    }
}

/// A VM as tenants have it, but for its interrupt.
struct Arena {
    vm: Vm,
    watch: Rc<Watch>,
}

impl Arena {
    fn new() -> Self {
        let limits = LuauLimits::default();
        let (ticker, mut ticks) =
            Ticker::start("costs", 1, Duration::from_secs(1)).expect("a ticker");
        let control = Control::new(
            limits,
            ScriptClock::System,
            ticks.remove(0),
            Arc::new(AtomicBool::new(false)),
        );
        let states: Arc<dyn TenantStates> = Arc::new(States::default());
        let db: Arc<dyn TenantDb> = Arc::new(MemoryDb::default());
        let log = Rc::new(ScriptLog::new(TENANT, 1, &db, &Arc::new(Gauges::default())));
        let feed = Rc::new(ScriptFeed::new(TENANT, &db, &Arc::default()));
        let host = Host::new(
            TENANT,
            &control,
            &Arc::new(Templates::default()),
            &states,
            &log,
            &feed,
            &Arc::default(),
        );
        let vm = Vm::new(&control, host).expect("a VM");
        ticker.stop();
        let watch = Rc::new(Watch::default());
        vm.lua.set_interrupt({
            let watch = watch.clone();
            move |_| {
                watch.mark();
                match watch.until.get() {
                    Some(until) if Instant::now() > until => {
                        Err(mlua::Error::runtime("enough seen"))
                    }
                    _ => Ok(VmState::Continue),
                }
            }
        });
        Self { vm, watch }
    }

    fn load(&self, code: &str) -> Function {
        let compiled = Compiled::from_source("costs", code.as_bytes(), 1 << 20);
        self.vm.host.load(&self.vm.lua, &compiled).expect("it compiles")
    }

    /// The longest pause of a call, after what it needs has been made.
    fn hold(&self, call: &str) -> Duration {
        let setup = setup(call);
        let made: Function = self
            .load(&format!("{setup} return function() {call} end"))
            .call(())
            .expect("it is set up");
        let _ = self.vm.lua.gc_collect();
        let hold = self.watch.longest(|| drop(made.call::<()>(())));
        drop(made);
        let _ = self.vm.lua.gc_collect();
        hold
    }
}

/// Every function that a script can reach by a name, such as `string.find`.
fn reachable(lua: &Lua) -> Vec<String> {
    fn add(table: &Table, prefix: &str, names: &mut Vec<String>) {
        for pair in table.pairs::<Value, Value>() {
            let (Value::String(name), value) = pair.expect("a pair") else { continue };
            let name = format!("{prefix}{}", name.to_string_lossy());
            match value {
                Value::Function(_) => names.push(name),
                Value::Table(inner) if prefix.is_empty() && name != "_G" => {
                    add(&inner, &format!("{name}."), names)
                }
                _ => {}
            }
        }
    }
    let mut names = Vec::new();
    // To look for what is not in a library loads what is otherwise loaded when it is used.
    let all = "local none = string[''] or table[''] or coroutine[''] or task['']";
    lua.load(all).exec().expect("they are there");
    // In front of the libraries is a table that is the sandbox's.
    let libraries =
        lua.globals().metatable().expect("a sandbox").raw_get("__index").expect("the libraries");
    add(&libraries, "", &mut names);
    names.sort();
    names
}

#[test]
fn every_builtin_has_its_worst_arguments_here() {
    let reachable = reachable(&Arena::new().vm.lua);
    let listed: Vec<&str> =
        CASES.iter().map(|(name, _)| *name).chain(PLAIN.iter().copied()).collect();
    let missing: Vec<_> =
        reachable.iter().filter(|name| !listed.contains(&name.as_str())).collect();
    assert!(missing.is_empty(), "enter these with the arguments that take longest: {missing:?}");
    let is_there =
        |name: &&&str| reachable.iter().any(|there| there == **name) || **name == OPERATORS;
    let gone: Vec<_> = listed.iter().filter(|name| !is_there(name)).collect();
    assert!(gone.is_empty(), "scripts no longer have these: {gone:?}");
}

#[test]
fn no_builtin_holds_an_executor_for_long() {
    let arena = Arena::new();
    let unit = (0..3).map(|_| arena.hold("string.reverse(long)")).min().expect("a time");
    let mut held: Vec<(Duration, String)> = Vec::new();
    for call in calls() {
        let mut hold = arena.hold(&call);
        for _ in 0..4 {
            // Others may have had the caches, and the kernel may be short of pages.
            if hold > unit * UNITS_MAX {
                hold = hold.min(arena.hold(&call));
            }
        }
        held.push((hold, call));
    }
    held.sort();
    let report = held.iter().rev().take(40).map(|(hold, call)| {
        let units = hold.as_secs_f64() / unit.as_secs_f64();
        format!("{units:5.2} units, {hold:9.2?}: {call}\n")
    });
    let report: String = report.collect();
    if std::env::var_os("MESOPHYLL_MEASURE").is_some() {
        // Not `print`, which is for results of commands.
        let _ = std::io::stderr().write_all(report.as_bytes());
    }
    let longest = held.last().map(|(hold, _)| *hold).expect("there are cases");
    assert!(longest <= unit * UNITS_MAX, "more than {UNITS_MAX} units of {unit:?}:\n{report}");
}
