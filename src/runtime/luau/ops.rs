//! The calls that wait, as numbers that the prelude and the executor share.

use mlua::{LightUserData, Lua, Table, Value};

/// First value of a yield that is for the executor.
pub(super) const HOST_TAG: usize = 1;
/// First value of a yield that is for the script that resumed.
pub(super) const SCRIPT_TAG: usize = 2;

/// A tag: something that a script can neither make nor get hold of.
pub(super) fn tag(number: usize) -> Value {
    Value::LightUserData(LightUserData(std::ptr::without_provenance_mut(number)))
}

/// The number of a tag, 0 for any other value.
pub(super) fn tag_number(value: Option<&Value>) -> usize {
    match value {
        Some(Value::LightUserData(data)) => data.0.addr(),
        _ => 0,
    }
}

macro_rules! ops {
    ($($(#[$doc:meta])* $op:ident = $number:literal, $name:literal;)*) => {
        /// A call that waits.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum CallOp {
            $($(#[$doc])* $op = $number,)*
        }

        impl CallOp {
            pub(super) const ALL: &[(&str, CallOp)] = &[$(($name, CallOp::$op),)*];
        }
    };
}

ops! {
    /// `task.wait`
    Wait = 1, "wait";
    /// `task.spawn`, and waking a task
    Spawn = 2, "spawn";
    /// `KV:get`
    KvGet = 3, "kv_get";
    /// `KV:getrecord`
    KvGetRecord = 4, "kv_getrecord";
    /// `KV:set`
    KvSet = 5, "kv_set";
    /// `KV:delete`
    KvDelete = 6, "kv_delete";
    /// `KV:find`
    KvFind = 7, "kv_find";
    /// `KV:list_scopes`
    KvListScopes = 8, "kv_list_scopes";
    /// `KV:update`: take the record's lock and read it
    KvUpdate = 9, "kv_update";
    /// `KV:update`: write it and give the lock back
    KvUpdateSet = 10, "kv_update_set";
    /// `KV:update`: give the lock back
    KvUpdateDrop = 11, "kv_update_drop";
    /// `GlobalKV:find`
    GlobalFind = 12, "global_find";
    /// `GlobalKV:get`
    GlobalGet = 13, "global_get";
    /// `GlobalKV:create`
    GlobalCreate = 14, "global_create";
    /// `GlobalKV:delete`
    GlobalDelete = 15, "global_delete";
    /// `Runtime:settenantstate`
    SetTenantState = 16, "set_tenant_state";
    /// `Messages:send`
    SendMessage = 17, "send_message";
    /// `Messages:allow`
    MessagesAllow = 18, "messages_allow";
    /// `Messages:disallow`
    MessagesDisallow = 19, "messages_disallow";
    /// `Messages:allowed`
    MessagesAllowed = 20, "messages_allowed";
    /// `GlobalKV:watch`
    GlobalWatch = 21, "global_watch";
    /// `GlobalKV:unwatch`
    GlobalUnwatch = 22, "global_unwatch";
    /// `GlobalKV:watched`
    GlobalWatched = 23, "global_watched";
    /// `Timers:at`
    TimerAt = 24, "timer_at";
    /// `Timers:after`
    TimerAfter = 25, "timer_after";
    /// `Timers:every`
    TimerEvery = 26, "timer_every";
    /// `Timers:cancel`
    TimerCancel = 27, "timer_cancel";
    /// `Timers:list`
    TimerList = 28, "timer_list";
    /// `Host:call`
    HostCall = 30, "host_call";
}

impl CallOp {
    /// The call that a yielded number stands for.
    pub(super) fn from_value(value: Option<&Value>) -> Option<Self> {
        let number = value.and_then(Value::as_usize)?;
        Self::ALL.iter().map(|(_, op)| *op).find(|op| *op as usize == number)
    }

    /// The numbers by name, for the prelude.
    pub(super) fn table(lua: &Lua) -> mlua::Result<Table> {
        lua.create_table_from(Self::ALL.iter().map(|(name, op)| (*name, *op as usize)))
    }
}
