//! Many workers behind one [`WorkerLike`]: a tenant's jobs go to the one worker that the sharding
//! formula names.
//!
//! Owns nothing but references to its workers; calls come from any thread.

use std::sync::Arc;

use crate::dispatch::worker_like::WorkerLike;
use crate::dispatch::{Cancelled, Refused, Request, RequestId};
use crate::wire::data::TenantId;
use crate::wire::data::sharding::worker_for;

/// A pool of workers of one kind, numbered from 0.
#[derive(Debug)]
pub struct WorkerPool<W: ?Sized> {
    workers: Vec<Arc<W>>,
}

impl<W: WorkerLike + ?Sized> WorkerPool<W> {
    /// A pool of these workers; `None` if there is none. Their ids are their places.
    pub fn new(workers: Vec<Arc<W>>) -> Option<Self> {
        (!workers.is_empty()).then_some(Self { workers })
    }

    /// The workers, in order of their ids.
    pub fn workers(&self) -> &[Arc<W>] {
        &self.workers
    }

    /// The worker on which a tenant lives.
    pub fn worker_of(&self, tenant: TenantId) -> &Arc<W> {
        &self.workers[worker_for(tenant, self.workers.len())]
    }
}

impl<W: WorkerLike + ?Sized> WorkerLike for WorkerPool<W> {
    fn id(&self) -> usize {
        0
    }

    fn len(&self) -> usize {
        self.workers.len()
    }

    fn try_submit(&self, request: Request) -> Result<(), Box<Refused>> {
        self.worker_of(request.tenant).try_submit(request)
    }

    fn cancel(&self, tenant: TenantId, request_id: RequestId) -> Cancelled {
        self.worker_of(tenant).cancel(tenant, request_id)
    }

    fn kill(&self) {
        for worker in &self.workers {
            worker.kill();
        }
    }
}
