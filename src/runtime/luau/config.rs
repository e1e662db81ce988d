//! What a Luau runtime can be told: how many executors, which templates, and the limits of one event and one VM.
//!
//! Plain data. The defaults are those of `limits.rs`; options of the command line override a few of them.

use std::path::PathBuf;
use std::time::Duration;

use crate::limits;

/// How to start a [`super::LuauRuntime`].
#[derive(Debug, Clone)]
pub struct LuauConfig {
    /// Executor threads; each tenant belongs to one of them. At least one is started.
    pub executors: usize,
    /// Beginning of the names of the runtime's threads, at most 8 bytes (Linux shows 15 in all).
    pub thread_prefix: String,
    /// Where templates and the modules that they require come from.
    pub templates: TemplateSource,
    /// Limits of one event and one VM.
    pub limits: LuauLimits,
}

impl Default for LuauConfig {
    fn default() -> Self {
        Self {
            executors: 1,
            thread_prefix: "luau".to_owned(),
            templates: TemplateSource::BuiltIn,
            limits: LuauLimits::default(),
        }
    }
}

/// Where templates come from. They are read and compiled once, at the start.
#[derive(Debug, Clone)]
pub enum TemplateSource {
    /// The templates in this binary.
    BuiltIn,
    /// A directory with a `main.luau`.
    Directory(PathBuf),
    /// Files by name (`main.luau`, `lib/words.luau`) and text; for tests and embedders.
    Files(Vec<(String, String)>),
}

/// Limits of one event and one VM (interface.md: "Limits").
#[derive(Debug, Clone)]
pub struct LuauLimits {
    /// Live data of one VM, in bytes.
    pub memory_bytes: usize,
    /// Running time of one event; waiting does not count.
    pub running: Duration,
    /// Wall time of one event, from its start.
    pub wall: Duration,
    /// Source of one template module or script, in bytes.
    pub source_bytes: usize,
    /// Events of one tenant that run at once.
    pub tenant_running: usize,
    /// Events of one tenant that wait; one more is busy at once.
    pub tenant_waiting: usize,
    /// Live coroutines of one event.
    pub coroutines: usize,
    /// Coroutines that one event may start in all.
    pub spawns: usize,
    /// Waiting calls (database and time) of one event.
    pub host_calls: usize,
    /// A running coroutine is preempted after this. Zero preempts it at every third chance, which only tests want.
    pub slice: Duration,
    /// Where Luau cannot yield an event ends after this.
    pub unyieldable: Duration,
}

impl Default for LuauLimits {
    fn default() -> Self {
        Self {
            memory_bytes: limits::VM_MEMORY_MAX_BYTES,
            running: limits::EVENT_RUNNING_MAX,
            wall: limits::EVENT_WALL_MAX,
            source_bytes: limits::SOURCE_MAX_BYTES,
            tenant_running: limits::TENANT_RUNNING_MAX,
            tenant_waiting: limits::TENANT_QUEUE_MAX,
            coroutines: limits::COROUTINES_MAX,
            spawns: limits::SPAWNS_MAX,
            host_calls: limits::HOST_CALLS_MAX,
            slice: limits::SLICE,
            unyieldable: limits::UNYIELDABLE_MAX,
        }
    }
}
