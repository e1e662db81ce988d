//! The templates of the moment, which may be replaced while tenants run.
//!
//! A user of them keeps the ones that it began with, and looks at the edition before each event: a
//! load of an atomic. Shared by the executors and the watcher of the template directory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Templates;
use crate::base::sync::Lock;

/// Where executors find the templates.
pub(in crate::runtime::luau) struct TemplateCache {
    current: Lock<Arc<Templates>>,
    edition: AtomicU64,
}

impl TemplateCache {
    pub(in crate::runtime::luau) fn new(templates: Templates) -> Self {
        Self { current: Lock::new(Arc::new(templates)), edition: AtomicU64::new(0) }
    }

    /// The templates.
    pub(in crate::runtime::luau) fn current(&self) -> Arc<Templates> {
        self.current.lock().clone()
    }

    /// A number that has changed if templates, also tenants' own, may have changed.
    pub(in crate::runtime::luau) fn edition(&self) -> u64 {
        self.edition.load(Ordering::Acquire)
    }

    /// Replaces the templates.
    pub(in crate::runtime::luau) fn replace(&self, templates: Templates) {
        *self.current.lock() = Arc::new(templates);
        self.doubt();
    }

    /// Has every tenant look again which template it runs, before its next event.
    pub(in crate::runtime::luau) fn doubt(&self) {
        self.edition.fetch_add(1, Ordering::Release);
    }
}
