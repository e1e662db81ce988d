//! What a Luau runtime can be told: how many executors, which templates, and the limits of one
//! event and one VM.
//!
//! Plain data. The defaults are those of `limits.rs`; options of the command line override a few of
//! them.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::ScriptClock;
use crate::base::limits;
use crate::base::thread::ThreadExit;

/// How to start a [`super::LuauRuntime`].
#[derive(Debug, Clone)]
pub struct LuauConfig {
    /// Executor threads; each tenant belongs to one of them. At least one is started.
    pub executors: usize,
    /// Beginning of the names of the runtime's threads, at most 8 bytes (Linux shows 15 in all).
    pub thread_prefix: String,
    /// Where templates and the modules that they require come from.
    pub templates: TemplateSource,
    /// Whether a directory of templates is watched, and what changed in it is picked up.
    pub reload: bool,
    /// A VM in which nothing has run for so long is closed.
    pub vm_idle: Duration,
    /// VMs alive at once, shared evenly among the executors, each of which may have one at least;
    /// one more takes the place of an idle one.
    pub max_vms: usize,
    /// Limits of one event and one VM.
    pub limits: LuauLimits,
    /// What time it is for scripts: their timers, their wall time, `timestamp.now()`.
    pub clock: ScriptClock,
    /// What is told that the runtime is broken.
    pub on_broken: OnBroken,
}

/// Told, on a thread of the runtime that has just ended by a panic, that nothing can be relied on
/// any more: without its ticker no script is interrupted, without an executor its tenants' events
/// fail. The owner of the process ends it.
#[derive(Clone)]
pub struct OnBroken(pub Arc<dyn Fn(String) + Send + Sync>);

impl Default for OnBroken {
    fn default() -> Self {
        Self(Arc::new(|_| {}))
    }
}

impl fmt::Debug for OnBroken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnBroken")
    }
}

impl OnBroken {
    /// What the end of a thread that the runtime cannot do without is to be told to.
    pub(super) fn watch(&self, name: &str) -> impl FnOnce(ThreadExit) + Send + use<> {
        let (on_broken, name) = (self.0.clone(), name.to_owned());
        move |exit| {
            if let ThreadExit::Panicked(message) = exit {
                on_broken(format!("the thread {name} has ended by a panic: {message}"));
            }
        }
    }
}

impl Default for LuauConfig {
    fn default() -> Self {
        Self {
            executors: 1,
            thread_prefix: "luau".to_owned(),
            templates: TemplateSource::BuiltIn,
            reload: false,
            vm_idle: limits::VM_IDLE,
            max_vms: limits::VMS_MAX,
            limits: LuauLimits::default(),
            clock: ScriptClock::default(),
            on_broken: OnBroken::default(),
        }
    }
}

/// Where templates come from. They are read and compiled at the start, and again if a watched
/// directory changes.
#[derive(Debug, Clone)]
pub enum TemplateSource {
    /// The templates in this binary.
    BuiltIn,
    /// A directory with a `main.luau`.
    Directory(PathBuf),
    /// Files by name (`main.luau`, `lib/words.luau`) and text; for tests and embedders.
    Files(Vec<(String, String)>),
}

/// Limits of one event and one VM (docs/templates.md).
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
    /// A running coroutine is preempted after this. Zero preempts it at every third chance, which
    /// only tests want.
    pub slice: Duration,
    /// Where Luau cannot yield an event ends after this.
    pub unyieldable: Duration,
    /// Lines that a tenant may log at once, after a quiet time.
    pub log_burst: u32,
}

impl Default for LuauLimits {
    fn default() -> Self {
        Self {
            memory_bytes: limits::VM_MEMORY_MAX_BYTES,
            running: limits::EVENT_RUNNING_MAX,
            wall: limits::EVENT_WALL_MAX,
            source_bytes: limits::SOURCE_MAX_BYTES,
            tenant_running: limits::TENANT_RUNNING_MAX,
            // And `OnStartup`, which no master sends.
            tenant_waiting: limits::TENANT_QUEUE_MAX + 1,
            coroutines: limits::COROUTINES_MAX,
            spawns: limits::SPAWNS_MAX,
            host_calls: limits::HOST_CALLS_MAX,
            slice: limits::SLICE,
            unyieldable: limits::UNYIELDABLE_MAX,
            log_burst: limits::SCRIPT_LOG_BURST,
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::unbounded;

    use super::*;
    use crate::base::thread::spawn_watched;

    #[test]
    fn a_panic_of_a_thread_is_told_and_its_ordinary_end_is_not() {
        let (why_tx, why_rx) = unbounded();
        let on_broken = OnBroken(Arc::new(move |why| why_tx.send(why).unwrap_or_default()));
        spawn_watched("calm", || (), on_broken.watch("calm")).expect("spawn").join();
        assert!(why_rx.is_empty());
        spawn_watched("tick", || panic!("on purpose"), on_broken.watch("tick"))
            .expect("spawn")
            .join();
        assert_eq!(
            why_rx.try_recv().as_deref(),
            Ok("the thread tick has ended by a panic: on purpose")
        );
    }
}
