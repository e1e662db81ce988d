//! A VM that is counted while it is alive, however it ends.
//!
//! Shared by its tenant, as long as new events start in it, and by the events that run in it: when
//! a template changes, those finish in the VM in which they began, and it goes with the last of
//! them.

use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::gauges::Gauges;
use super::vm::Vm;
use crate::wire::data::TenantId;

/// A VM that is alive.
pub(super) struct LiveVm {
    /// Gone only while it is dropped.
    vm: Option<Vm>,
    tenant: TenantId,
    gauges: Arc<Gauges>,
}

impl LiveVm {
    pub(super) fn new(tenant: TenantId, vm: Vm, gauges: &Arc<Gauges>) -> Self {
        gauges.vm_made(tenant);
        Self { vm: Some(vm), tenant, gauges: gauges.clone() }
    }
}

impl Deref for LiveVm {
    type Target = Vm;

    fn deref(&self) -> &Vm {
        self.vm.as_ref().expect("it is taken out by the drop only")
    }
}

impl Drop for LiveVm {
    fn drop(&mut self) {
        let vm = self.vm.take();
        // All of it is freed: to look for what is garbage first would take as long again.
        vm.iter().for_each(|vm| vm.lua.gc_stop());
        // One that met a panic may meet another one in its end.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(vm)));
        self.gauges.vm_closed(self.tenant);
    }
}
