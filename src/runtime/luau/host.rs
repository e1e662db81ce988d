//! The host's side of a VM: what the prelude can call that does not wait.
//!
//! One [`Host`] a VM, shared with the callbacks of that VM. What a callback wants done to tasks it
//! leaves as a [`HostAction`], because the tasks belong to the tenant, which is busy resuming one
//! of them just then.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use mlua::chunk::ChunkMode;
use mlua::{FromLuaMulti, Function, IntoLuaMulti, Lua, MultiValue, Table, Thread, Value};

use super::budget::{Doom, Meter, RunSpan};
use super::control::Control;
use super::convert::values::ValueName;
use super::convert::{
    ConvertError, ConvertErrorKind, ToLuau, install_lists, json_from_luau, value_from_luau,
};
use super::memory::Pace;
use super::ops::{CallOp, HOST_TAG, SCRIPT_TAG, tag};
use super::outside::Outside;
use super::script_error;
use super::script_feed::ScriptFeed;
use super::script_log::ScriptLog;
use super::templates::{Compiled, PARTIAL_LIBRARIES, Templates};
use super::vm;
use crate::base::limits::{
    FEED_DATA_MAX_BYTES, SCRIPT_ERROR_VALUE_MAX_BYTES, SCRIPT_LOG_LINE_MAX_BYTES,
    SCRIPT_LOG_VALUE_MAX_BYTES, SMALL_EVENT_MAX_BYTES,
};
use crate::runtime::TenantStates;
use crate::wire::data::IdMap;
use crate::wire::data::{CreateEvent, EventData, TenantId, TenantState};
use crate::wire::json::value_to_json;

/// The name under which the prelude asks for the tenant's template; no script can require it.
const MAIN: &str = "@main";

/// What callbacks of one VM need and leave behind.
pub(super) struct Host {
    tenant: TenantId,
    control: Rc<Control>,
    templates: Arc<Templates>,
    states: Arc<dyn TenantStates>,
    log: Rc<ScriptLog>,
    feed: Rc<ScriptFeed>,
    pub(super) pace: Pace,
    program: RefCell<Option<Compiled>>,
    events: RefCell<IdMap<u64, Rc<CreateEvent>>>,
    meter: RefCell<Option<Rc<Meter>>>,
    /// The task that the executor resumed, by its thread's address; only ever compared.
    task: Cell<usize>,
    /// A script was given that task's coroutine since it was resumed.
    has_shown_task: Cell<bool>,
    actions: RefCell<Vec<HostAction>>,
    /// Reads what a chunk's own globals lack from the VM's, which are read-only.
    globals_metatable: RefCell<Option<Table>>,
    /// What the script raised last, if it is no text.
    thrown: RefCell<Option<Value>>,
}

/// What a callback wants done to a task.
pub(super) enum HostAction {
    /// Start it, or wake it, after so many seconds.
    Delay { seconds: f64, thread: Thread, args: MultiValue },
    /// End it.
    Cancel(Thread),
}

/// A result that may not be there: mlua hands the prelude the value, or nil and why.
type OrWhy<T> = Result<T, String>;

impl Host {
    pub(super) fn new(
        tenant: TenantId,
        control: &Rc<Control>,
        templates: &Arc<Templates>,
        states: &Arc<dyn TenantStates>,
        log: &Rc<ScriptLog>,
        feed: &Rc<ScriptFeed>,
        outside: &Arc<Outside>,
    ) -> Rc<Self> {
        Rc::new(Self {
            tenant,
            control: control.clone(),
            templates: templates.clone(),
            states: states.clone(),
            log: log.clone(),
            feed: feed.clone(),
            pace: Pace::new(control.limits().memory_bytes, outside),
            program: RefCell::default(),
            events: RefCell::default(),
            meter: RefCell::default(),
            task: Cell::new(0),
            has_shown_task: Cell::new(false),
            actions: RefCell::default(),
            globals_metatable: RefCell::default(),
            thrown: RefCell::default(),
        })
    }

    /// The VM is made: from now on chunks can be loaded.
    pub(super) fn set_globals(&self, lua: &Lua, globals: &Table) -> mlua::Result<()> {
        let metatable = lua.create_table_from([("__index", globals)])?;
        metatable.raw_set("__metatable", "locked")?;
        metatable.set_readonly(true);
        *self.globals_metatable.borrow_mut() = Some(metatable);
        Ok(())
    }

    pub(super) fn set_program(&self, program: &Compiled) {
        self.program.borrow_mut().get_or_insert_with(|| program.clone());
    }

    /// Whether the VM has begun to run another template than this one, or finds other modules.
    pub(super) fn runs_another(&self, program: &Compiled, templates: &Templates) -> bool {
        !self.templates.is_same(templates)
            || self.program.borrow().as_ref().is_some_and(|held| held != program)
    }

    pub(super) fn add_event(&self, id: u64, event: CreateEvent) {
        self.events.borrow_mut().insert(id, Rc::new(event));
    }

    pub(super) fn remove_event(&self, id: u64) {
        self.events.borrow_mut().remove(&id);
    }

    /// A task of an event is about to be resumed.
    pub(super) fn enter(&self, meter: &Rc<Meter>, thread: &Thread) {
        *self.meter.borrow_mut() = Some(meter.clone());
        self.task.set(thread.to_pointer().addr());
        self.has_shown_task.set(false);
        self.thrown.take();
    }

    /// Whether a script was given the coroutine of the task that was resumed last.
    pub(super) fn has_shown_task(&self) -> bool {
        self.has_shown_task.get()
    }

    /// What callbacks have left since the last time.
    pub(super) fn take_actions(&self) -> Vec<HostAction> {
        if self.actions.borrow().is_empty() { Vec::new() } else { self.actions.take() }
    }

    /// The text of a failed conversion; one that exceeded a budget dooms the event.
    pub(super) fn convert_failed(&self, error: &ConvertError) -> String {
        if *error.kind() == ConvertErrorKind::Memory {
            self.control.set_doom(Doom::Memory(self.pace.limit()));
        }
        error.to_string()
    }

    /// The text of an error that ended a coroutine; of what is no text, its value.
    pub(super) fn describe(&self, lua: &Lua, error: &mlua::Error) -> String {
        let thrown = self.thrown.take().filter(|value| script_error::is_of(error, value));
        let value =
            thrown.map(|value| match value_from_luau(lua, &value, SCRIPT_ERROR_VALUE_MAX_BYTES) {
                _ if value.is_nil() => Ok("nil".to_owned()),
                Ok(encoded) => value_to_json(&encoded).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            });
        script_error::describe(error, value)
    }

    /// Loads compiled code as a function with globals of its own. Only code that we compiled gets
    /// here: bytecode is not checked by Luau.
    ///
    /// Luau looks names up once, when code is loaded, and may do so only if no other code can
    /// change them afterwards: hence no two chunks share a table of globals.
    ///
    /// # Errors
    /// It did not compile; the text says why. Or memory does not suffice.
    pub(super) fn load(&self, lua: &Lua, compiled: &Compiled) -> OrWhy<Function> {
        let code = compiled.code.as_ref().map_err(|problem| problem.to_string())?;
        let load = || -> mlua::Result<Function> {
            if compiled.shows_libraries {
                self.control.undisturbed(|| fill_libraries(lua))?;
            }
            let globals = lua.create_table()?;
            globals.set_metatable(self.globals_metatable.borrow().clone())?;
            globals.set_safeenv(true);
            let chunk = lua
                .load(&code[..])
                .set_name(format!("={}", compiled.name))
                .set_mode(ChunkMode::Binary);
            chunk.set_environment(globals).into_function()
        };
        load().map_err(|error| {
            if script_error::is_out_of_memory(&error) {
                self.control.set_doom(Doom::Memory(self.pace.limit()));
            }
            script_error::describe(&error, None)
        })
    }

    fn module(&self, lua: &Lua, name: &str) -> OrWhy<Function> {
        if name == MAIN {
            let program = self.program.borrow().clone();
            return self.load(lua, &program.ok_or("there is no template")?);
        }
        let compiled =
            self.templates.module(name).ok_or_else(|| format!("there is no module \"{name}\""))?;
        self.load(lua, compiled)
    }

    fn event(&self, lua: &Lua, id: u64) -> OrWhy<Table> {
        let event = self.events.borrow().get(&id).cloned();
        let event = event.ok_or("the event that this ctx belongs to has ended")?;
        self.event_table(lua, &event).map_err(|error| self.convert_failed(&error))
    }

    /// An event as a script gets it, if it is small: to ask for it would take longer than to make
    /// it. Nil also if it cannot be made, which the script is told when it asks.
    pub(super) fn small_event(&self, lua: &Lua, id: u64) -> Option<Table> {
        let event = self.events.borrow().get(&id).cloned()?;
        if event.bytes() <= SMALL_EVENT_MAX_BYTES {
            self.event_table(lua, &event).ok()
        } else {
            None
        }
    }

    fn event_table(&self, lua: &Lua, event: &CreateEvent) -> Result<Table, ConvertError> {
        let mut to_luau = ToLuau::frozen(lua, &self.pace);
        let table = to_luau.table(0, 3)?;
        table.raw_set("name", to_luau.text(&event.name)?)?;
        if let Some(author) = &event.author {
            table.raw_set("author", to_luau.text(author)?)?;
        }
        let data = match &event.data {
            EventData::Json(json) => to_luau.json(json)?,
            EventData::KhronosValue(value) => to_luau.value(value)?,
            EventData::RawValue(text) => to_luau.json_text(text)?,
        };
        table.raw_set("data", data)?;
        table.set_readonly(true);
        Ok(table)
    }

    fn tenant_state(&self, lua: &Lua) -> OrWhy<Table> {
        let state = self.states.get(self.tenant);
        let build = |state: &TenantState| -> Result<Table, ConvertError> {
            let mut to_luau = ToLuau::new(lua, &self.pace);
            let events = to_luau.list_of(&state.events, ToLuau::text)?;
            let table = to_luau.table(0, 2)?;
            table.raw_set("events", events)?;
            table.raw_set("data", to_luau.json(&state.data)?)?;
            Ok(table)
        };
        build(&state).map_err(|error| self.convert_failed(&error))
    }

    fn stats(&self, lua: &Lua) -> mlua::Result<Table> {
        let table = lua.create_table_with_capacity(0, 5)?;
        table.raw_set("memory_bytes", lua.used_memory())?;
        table.raw_set("memory_limit_bytes", self.pace.limit())?;
        table.raw_set("events", self.events.borrow().len())?;
        if let Some(meter) = &*self.meter.borrow() {
            table.raw_set("coroutines", meter.live())?;
            table.raw_set("running_seconds", meter.running.get().as_secs_f64())?;
        }
        Ok(table)
    }

    /// Counts a coroutine that the running event makes: the event's number, and whether too many
    /// seem to be alive.
    fn spawned(&self) -> (u64, bool) {
        let meter = self.meter.borrow();
        let Some(meter) = &*meter else { return (0, false) };
        let limits = self.control.limits();
        if let Err(doom) = meter.spawn(limits) {
            self.control.set_doom(doom);
        }
        (meter.event, meter.seems_over())
    }

    /// Why a call cannot wait for so long, if it cannot: the running event ends before.
    fn beyond(&self, seconds: f64, call: &str) -> Option<String> {
        let deadline = self.meter.borrow().as_ref()?.wall_deadline;
        let now = self.control.clock().at(Instant::now());
        let (limit, left) = (self.control.limits().wall, deadline.saturating_duration_since(now));
        if seconds > limit.as_secs_f64() {
            Some(format!(
                "{call}: {seconds} s is longer than an event may live ({})",
                RunSpan(limit)
            ))
        } else if seconds > left.as_secs_f64() {
            let left = left.as_secs_f64();
            Some(format!(
                "{call}: {seconds} s is longer than this event may still live ({left:.1} s of {})",
                RunSpan(limit)
            ))
        } else {
            None
        }
    }

    fn ended(&self, event: u64) -> mlua::Result<()> {
        if let Some(meter) = &*self.meter.borrow()
            && meter.event == event
        {
            meter.end();
        }
        Ok(())
    }

    fn recounted(&self, live: usize) -> mlua::Result<()> {
        if let Some(meter) = &*self.meter.borrow() {
            let limit = self.control.limits().coroutines;
            meter.set_live(live, limit);
            if live > limit {
                self.control.set_doom(Doom::Coroutines(limit));
            }
        }
        Ok(())
    }

    fn act(&self, action: HostAction) -> mlua::Result<()> {
        self.actions.borrow_mut().push(action);
        Ok(())
    }

    fn out_of_memory(&self) -> mlua::Result<()> {
        self.control.set_doom(Doom::Memory(self.pace.limit()));
        Ok(())
    }

    fn write_log(&self, level: &str, text: &mlua::LuaString) -> mlua::Result<()> {
        let request_id = self.meter.borrow().as_ref().map(|meter| meter.request_id);
        // No more of it than is shown, and a little: that tells the log that there is more.
        let text = text.as_bytes();
        let text = String::from_utf8_lossy(&text[..text.len().min(SCRIPT_LOG_LINE_MAX_BYTES + 4)]);
        self.log.write(level.parse().unwrap_or(log::Level::Info), request_id, &text);
        Ok(())
    }

    /// A table as a line of the log has it: as JSON, and no more of it than a line takes. None if
    /// it tells its text by itself, or has no JSON.
    fn shown(&self, lua: &Lua, value: &Value) -> Option<String> {
        if script_error::tells_its_text(value) {
            return None;
        }
        let value = value_from_luau(lua, value, SCRIPT_LOG_VALUE_MAX_BYTES)
            .map_err(|error| self.convert_failed(&error));
        let json = value_to_json(&value.ok()?).ok()?;
        Some(script_error::cut(&json, SCRIPT_LOG_LINE_MAX_BYTES + 4).to_owned())
    }

    /// Publishes to those that read the tenant's feed; true, or why not.
    fn publish(&self, lua: &Lua, topic: &Value, data: &Value) -> OrWhy<bool> {
        let Some(topic) = topic.as_string().and_then(|topic| topic.to_str().ok()) else {
            return Err(format!("the topic must be a string, not {}", topic.type_name()));
        };
        let data = || {
            json_from_luau(lua, data, FEED_DATA_MAX_BYTES)
                .map_err(|error| self.convert_failed(&error))
        };
        self.feed.publish(topic.to_owned(), data).map(|()| true)
    }

    /// The text of an error of the host; any other value as it is. (A panic does not get here: mlua
    /// passes it on.)
    fn error_text(&self, lua: &Lua, value: Value) -> mlua::Result<Value> {
        let Value::Error(error) = value else { return Ok(value) };
        if script_error::is_out_of_memory(&error) {
            self.control.set_doom(Doom::Memory(self.pace.limit()));
        }
        lua.create_string(script_error::caught(&error)).map(Value::String)
    }

    /// What the prelude gets as its argument: a few values, and what it calls the host by, each
    /// made when it is first used, as few events use many.
    pub(super) fn table(self: &Rc<Self>, lua: &Lua) -> mlua::Result<Table> {
        let table = lua.create_table_with_capacity(0, 16)?;
        table.raw_set("HOST", tag(HOST_TAG))?;
        table.raw_set("SCRIPT", tag(SCRIPT_TAG))?;
        table.raw_set("null", Value::NULL)?;
        table.raw_set("lists", install_lists(lua)?)?;
        let host = self.clone();
        let index = lua.create_function(move |lua, (table, name): (Table, String)| {
            let member = host.member(lua, &name)?;
            table.raw_set(name, &member)?;
            Ok(member)
        })?;
        table.set_metatable(Some(lua.create_table_from([("__index", index)])?))?;
        Ok(table)
    }

    fn member(self: &Rc<Self>, lua: &Lua, name: &str) -> mlua::Result<Value> {
        match name {
            "ops" => CallOp::table(lua).map(Value::Table),
            "tenant" => {
                let tenant = lua.create_table_with_capacity(0, 2)?;
                tenant.raw_set("type", self.tenant.kind().as_str())?;
                tenant.raw_set("id", self.tenant.snowflake().to_string())?;
                Ok(Value::Table(tenant))
            }
            _ => match self.coroutine_function(lua, name).or_else(|| self.function(lua, name)) {
                Some(function) => function.map(Value::Function),
                None => Err(mlua::Error::runtime(format!("the host has no {name}"))),
            },
        }
    }

    fn coroutine_function(
        self: &Rc<Self>,
        lua: &Lua,
        name: &str,
    ) -> Option<mlua::Result<Function>> {
        Some(match name {
            "spawned" => self.callback(lua, |host, _, ()| Ok(host.spawned())),
            "ended" => self.callback(lua, |host, _, event: u64| host.ended(event)),
            "collect" => self.callback(lua, |_, lua, ()| lua.gc_collect()),
            "recounted" => self.callback(lua, |host, _, live: usize| host.recounted(live)),
            "is_task" => self.callback(lua, |host, _, co: Thread| {
                let is_task = co.to_pointer().addr() == host.task.get();
                host.has_shown_task.set(host.has_shown_task.get() || is_task);
                Ok(is_task)
            }),
            "delay" => self.callback(lua, |host, _, (seconds, thread, args)| {
                host.act(HostAction::Delay { seconds, thread, args })
            }),
            "beyond" => self.callback(lua, |host, _, (seconds, call): (f64, String)| {
                Ok(host.beyond(seconds, &call))
            }),
            "cancel" => self.callback(lua, |host, _, co| host.act(HostAction::Cancel(co))),
            _ => return None,
        })
    }

    fn function(self: &Rc<Self>, lua: &Lua, name: &str) -> Option<mlua::Result<Function>> {
        Some(match name {
            "out_of_memory" => self.callback(lua, |host, _, ()| host.out_of_memory()),
            "error_text" => self.callback(lua, |host, lua, value| host.error_text(lua, value)),
            "log" => self.callback(lua, |host, _, (level, text): (String, mlua::LuaString)| {
                host.write_log(&level, &text)
            }),
            "shown" => self.callback(lua, |host, lua, value: Value| Ok(host.shown(lua, &value))),
            "publish" => self.callback(lua, |host, lua, (topic, data): (Value, Value)| {
                Ok(host.publish(lua, &topic, &data))
            }),
            "thrown" => self.callback(lua, |host, _, value: Value| {
                *host.thrown.borrow_mut() = Some(value);
                Ok(())
            }),
            "freeze" => self.callback(lua, |_, _, table: Table| {
                table.set_readonly(true);
                Ok(table)
            }),
            "fill" => self.callback(lua, |_, _, (library, members): (Table, Table)| {
                library.set_readonly(false);
                let filled = members
                    .for_each(|name: Value, member: Value| library.raw_set(name, member))
                    .and_then(|()| library.set_metatable(None));
                library.set_readonly(true);
                filled
            }),
            "resolve" => self.callback(lua, |host, lua, ValueName(name)| {
                // 0 is this callback, 1 the prelude's `require`, 2 the caller of that.
                let from = lua.inspect_stack(2, |frame| {
                    frame.source().short_src.map(|name| name.into_owned())
                });
                let from = from.flatten().unwrap_or_default();
                Ok(host.templates.resolve(from.trim_end_matches(".luau"), &name))
            }),
            "module" => self.callback(lua, |host, lua, name: String| Ok(host.module(lua, &name))),
            "part" => self.callback(lua, |_, lua, name: String| vm::part(lua, &name)),
            "event" => self.callback(lua, |host, lua, id| Ok(host.event(lua, id))),
            "tenant_state" => self.callback(lua, |host, lua, ()| Ok(host.tenant_state(lua))),
            "stats" => self.callback(lua, |host, lua, ()| host.stats(lua)),
            _ => return None,
        })
    }

    /// A function that the prelude can call with this host.
    fn callback<A: FromLuaMulti, R: IntoLuaMulti>(
        self: &Rc<Self>,
        lua: &Lua,
        run: impl Fn(&Host, &Lua, A) -> mlua::Result<R> + 'static,
    ) -> mlua::Result<Function> {
        let host = self.clone();
        lua.create_function(move |lua, args| run(&host, lua, args))
    }
}

/// Has the libraries that are loaded in parts be whole: to look for what is not there does it.
fn fill_libraries(lua: &Lua) -> mlua::Result<()> {
    PARTIAL_LIBRARIES.into_iter().try_for_each(|name| {
        let library: Table = lua.globals().get(name)?;
        library.get("").map(|_: Value| ())
    })
}
