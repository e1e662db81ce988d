//! A tenant's hold on its VMs: the one that new events start in, and one that is out of date.

use std::rc::{Rc, Weak};

use super::live_vm::LiveVm;

/// The VMs of a tenant.
#[derive(Default)]
pub(super) struct TenantVm {
    /// What new events start in. Those that run in an older one hold it themselves.
    current: Option<Rc<LiveVm>>,
    /// Limit: one VM in which events finish with an older template. While there is one, a second
    /// that is outdated starts nothing more and is replaced when what runs in it has ended.
    retired: Weak<LiveVm>,
    /// The executor has a slot for its VM.
    may_make: bool,
    /// Another tenant waits for its VM: it starts nothing new in it.
    is_asked: bool,
}

impl TenantVm {
    /// The VM that new events start in.
    pub(super) fn current(&self) -> Option<&Rc<LiveVm>> {
        self.current.as_ref()
    }

    /// Whether new events start in this one.
    pub(super) fn is_current(&self, vm: &Rc<LiveVm>) -> bool {
        self.current.as_ref().is_some_and(|current| Rc::ptr_eq(current, vm))
    }

    /// Whether a new event may start in the VM, or in one that is made for it.
    pub(super) fn admits_events(&self) -> bool {
        if self.current.is_some() { !self.is_asked } else { self.may_make }
    }

    /// Whether there is a VM and no event runs in it: an event that runs in it holds it.
    pub(super) fn is_unused(&self) -> bool {
        self.current.as_ref().is_some_and(|vm| Rc::strong_count(vm) == 1)
    }

    /// The executor has a slot for the VM, or has one no more.
    pub(super) fn set_may_make(&mut self, may_make: bool) {
        (self.may_make, self.is_asked) = (may_make, false);
    }

    /// The VM is wanted by another tenant: it goes when what runs in it has ended.
    pub(super) fn ask(&mut self) {
        self.is_asked = true;
    }

    pub(super) fn is_asked(&self) -> bool {
        self.is_asked
    }

    /// From now on new events start in this one.
    pub(super) fn made(&mut self, vm: LiveVm) {
        self.current = Some(Rc::new(vm));
    }

    /// Leaves an outdated VM to what runs in it; later, if there is such a VM already. Whether the
    /// next event gets a new one.
    pub(super) fn retire(&mut self) -> bool {
        let Some(vm) = self.current.take_if(|_| self.retired.strong_count() == 0) else {
            self.is_asked |= self.current.is_some();
            return false;
        };
        self.retired = Rc::downgrade(&vm);
        true
    }

    /// Lets go of the VM: it is closed when no event runs in it.
    pub(super) fn close(&mut self) {
        self.current = None;
    }

    /// Every VM that is alive.
    pub(super) fn all(&self) -> impl Iterator<Item = Rc<LiveVm>> + use<> {
        self.current.clone().into_iter().chain(self.retired.upgrade())
    }
}
