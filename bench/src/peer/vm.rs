//! The peer's tenants' VMs: one thread with a LocalSet for each worker, because a Luau state stays
//! on its thread.
//!
//! As a service in this style has it: events of all tenants are local tasks of that thread, and a
//! script that does not wait is not preempted; an interrupt ends it when its budget of running
//! time, the same as ours, is used up. Each VM is sandboxed and has a limit of memory. The template
//! is the one that our worker runs: it returns its event's data, and loops for ever on LOOP.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Instant;

use mlua::{Function, Lua, LuaOptions, StdLib, Table, Value, VmState};
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use super::types::{CreateEvent, EventData, Id, KhronosValue};

/// What both sides run. A context object, as templates have it with us too.
pub const TEMPLATE: &str = "return function(ctx)
    local event = ctx:event()
    if event.name == 'LOOP' then while true do end end
    return event.data
end";

type Task = (Id, CreateEvent, oneshot::Sender<Result<KhronosValue, String>>);

/// A handle on the VMs of a worker.
#[derive(Clone)]
pub struct Vms {
    tasks_tx: mpsc::UnboundedSender<Task>,
}

/// A tenant's VM.
pub struct Vm {
    lua: Lua,
    handler: Function,
    began: Rc<Cell<Instant>>,
}

impl Vms {
    /// Starts the thread, which ends with the last handle.
    pub fn start() -> Result<Self, String> {
        let (tasks_tx, mut tasks_rx) = mpsc::unbounded_channel::<Task>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let run = move || {
            LocalSet::new().block_on(&runtime, async move {
                let vms: Rc<RefCell<HashMap<Id, Rc<Vm>>>> = Rc::default();
                while let Some((id, event, answer_tx)) = tasks_rx.recv().await {
                    let vms = vms.clone();
                    tokio::task::spawn_local(async move {
                        let result = Vm::of(&vms, id).and_then(|vm| vm.run(event));
                        let _ = answer_tx.send(result.map_err(|error| error.to_string()));
                    });
                }
            });
        };
        std::thread::Builder::new()
            .name("vms".to_owned())
            .spawn(run)
            .map_err(|error| error.to_string())?;
        Ok(Self { tasks_tx })
    }

    /// Runs a tenant's template on an event.
    pub async fn run(&self, id: Id, event: CreateEvent) -> Result<KhronosValue, String> {
        let (answer_tx, answer_rx) = oneshot::channel();
        self.tasks_tx.send((id, event, answer_tx)).map_err(|_| "the VMs are gone".to_owned())?;
        answer_rx.await.unwrap_or_else(|_| Err("the VMs are gone".to_owned()))
    }
}

impl Vm {
    fn of(vms: &RefCell<HashMap<Id, Rc<Vm>>>, id: Id) -> mlua::Result<Rc<Vm>> {
        if let Some(vm) = vms.borrow().get(&id) {
            return Ok(vm.clone());
        }
        let vm = Rc::new(Vm::new()?);
        vms.borrow_mut().insert(id, vm.clone());
        Ok(vm)
    }

    pub fn new() -> mlua::Result<Self> {
        let lua = Lua::new_with(StdLib::ALL_SAFE, LuaOptions::default())?;
        lua.set_memory_limit(mesophyll::base::limits::VM_MEMORY_MAX_BYTES)?;
        let began = Rc::new(Cell::new(Instant::now()));
        let at = began.clone();
        lua.set_interrupt(move |_| {
            if at.get().elapsed() > mesophyll::base::limits::EVENT_RUNNING_MAX {
                return Err(mlua::Error::runtime("budget exceeded"));
            }
            Ok(VmState::Continue)
        });
        lua.sandbox(true)?;
        let handler = lua.load(TEMPLATE).set_name("main.luau").eval()?;
        Ok(Self { lua, handler, began })
    }

    pub fn run(&self, event: CreateEvent) -> mlua::Result<KhronosValue> {
        let EventData::KhronosValue(data) = event.data else { return Ok(KhronosValue::Null) };
        let table = self.lua.create_table()?;
        table.raw_set("name", event.name)?;
        table.raw_set("data", to_luau(&self.lua, data)?)?;
        table.set_readonly(true);
        let ctx = self.lua.create_table()?;
        ctx.raw_set("event", self.lua.create_function(move |_, _: Table| Ok(table.clone()))?)?;
        self.began.set(Instant::now());
        // A coroutine for each event, so that a handler may wait.
        let thread = self.lua.create_thread(self.handler.clone())?;
        from_luau(thread.resume::<Value>(ctx)?)
    }
}

fn to_luau(lua: &Lua, value: KhronosValue) -> mlua::Result<Value> {
    Ok(match value {
        KhronosValue::Text(text) => Value::String(lua.create_string(&text)?),
        KhronosValue::Integer(number) => Value::Number(number as f64),
        KhronosValue::UnsignedInteger(number) => Value::Number(number as f64),
        KhronosValue::Float(number) => Value::Number(number),
        KhronosValue::Boolean(is) => Value::Boolean(is),
        KhronosValue::Map(pairs) => {
            let table = lua.create_table_with_capacity(0, pairs.len())?;
            for (key, value) in pairs {
                table.raw_set(to_luau(lua, key)?, to_luau(lua, value)?)?;
            }
            Value::Table(table)
        }
        KhronosValue::List(values) => {
            let table = lua.create_table_with_capacity(values.len(), 0)?;
            for value in values {
                table.raw_push(to_luau(lua, value)?)?;
            }
            Value::Table(table)
        }
        KhronosValue::Null => Value::Nil,
        _ => return Err(mlua::Error::runtime("no part of the benchmark")),
    })
}

fn from_luau(value: Value) -> mlua::Result<KhronosValue> {
    Ok(match value {
        Value::Nil => KhronosValue::Null,
        Value::Boolean(is) => KhronosValue::Boolean(is),
        Value::Integer(number) => KhronosValue::Integer(number),
        Value::Number(number) if number.fract() == 0.0 => KhronosValue::Integer(number as i64),
        Value::Number(number) => KhronosValue::Float(number),
        Value::String(text) => KhronosValue::Text(text.to_str()?.to_owned()),
        Value::Table(table) if table.raw_len() > 0 => {
            let values: mlua::Result<Vec<_>> =
                table.sequence_values().map(|value| from_luau(value?)).collect();
            KhronosValue::List(values?)
        }
        Value::Table(table) => {
            let mut pairs = Vec::new();
            table.for_each(|key: Value, value: Value| {
                pairs.push((from_luau(key)?, from_luau(value)?));
                Ok(())
            })?;
            KhronosValue::Map(pairs)
        }
        _ => return Err(mlua::Error::runtime("no part of the benchmark")),
    })
}
