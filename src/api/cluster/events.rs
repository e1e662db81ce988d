//! Events of streams, and of requests with many, whose tenants another master has: each is asked
//! of that master like any request for a tenant.
//!
//! A tenant's events go one after the other, in their order, on threads that are there while there
//! are some.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::api::error::ApiError;
use crate::api::event_keys::EventKey;
use crate::api::{Api, InternalEndpoint};
use crate::base::error::DispatchError;
use crate::base::limits::{
    EVENT_FORWARD_IDLE_MAX, EVENT_FORWARD_THREADS, EVENT_RETRY_EVERY, EVENTS_TO_FORWARD_BYTES,
    EVENTS_TO_FORWARD_MAX,
};
use crate::base::on_demand_threads::OnDemandThreads;
use crate::base::sync::{Lock, Signal};
use crate::base::thread::panic_message;
use crate::dispatch::worker_like::no_worker_in_time;
use crate::dispatch::{DispatchResult, Job, Refused, Request, RequestId};
use crate::net::http::{Response, ResponseBody};
use crate::wire::data::{CreateEvent, EncodedValue, EventData, Shares, TenantId};
use crate::wire::json;

/// The events that go to other masters.
pub(in crate::api) struct EventForwarder {
    api: OnceLock<Weak<Api>>,
    state: Lock<ForwardState>,
    stopped: Signal,
    threads: OnDemandThreads<TenantId, TenantId>,
}

#[derive(Default)]
struct ForwardState {
    /// In their order; a tenant is here as long as a thread has one of its events.
    waiting: HashMap<TenantId, VecDeque<EventToForward>>,
    /// By what each of them weighs.
    shares: Shares,
    is_stopping: bool,
}

/// An event on its way to another master.
pub(in crate::api) struct EventToForward {
    pub(in crate::api) request: Request,
    /// Its answer is what the tenant answers; else null, once it is in the tenant's queue.
    pub(in crate::api) is_awaited: bool,
    /// Its key, which is taken when it leaves.
    pub(in crate::api) key: Option<EventKey>,
}

/// An event as a request for its tenant has it.
#[derive(Serialize)]
struct EventBody<'e> {
    name: &'e str,
    data: &'e RawValue,
}

impl EventForwarder {
    /// No thread is started yet.
    pub(in crate::api) fn new() -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| {
            let this = this.clone();
            let work = move |tenant| {
                if let Some(forwarder) = this.upgrade() {
                    forwarder.forward_next(tenant);
                }
            };
            let names = (0..EVENT_FORWARD_THREADS).map(|number| format!("event-{number}"));
            let (jobs_max, idle_max) = (EVENTS_TO_FORWARD_MAX, EVENT_FORWARD_IDLE_MAX);
            let threads = OnDemandThreads::new(names.collect(), jobs_max, idle_max, work);
            let (api, state, stopped) = (OnceLock::new(), Lock::default(), Signal::new());
            Self { api, state, stopped, threads }
        })
    }

    /// Asks other masters through this API from now on.
    pub(in crate::api) fn ask_through(&self, api: Weak<Api>) {
        // The first and only time.
        let _ = self.api.set(api);
    }

    /// Whether events of the tenant are on their way, behind which others have to wait.
    pub(in crate::api) fn has(&self, tenant: TenantId) -> bool {
        self.state.lock().waiting.contains_key(&tenant)
    }

    /// Takes an event, whose answer comes from another master.
    ///
    /// # Errors
    /// There is no room for it.
    pub(in crate::api) fn submit(&self, event: EventToForward) -> Result<(), Box<Refused>> {
        let (tenant, weight) = (event.request.tenant, weight(&event.request));
        let mut state = self.state.lock();
        if state.is_stopping || !state.shares.has_room(tenant, weight, EVENTS_TO_FORWARD_BYTES) {
            let text = "too many events for tenants of other masters wait".to_owned();
            return Err(event.request.refused(DispatchError::Busy(text)));
        }
        state.shares.add(Some(tenant), weight);
        if let Some(waiting) = state.waiting.get_mut(&tenant) {
            waiting.push_back(event);
            return Ok(());
        }
        state.waiting.insert(tenant, VecDeque::from([event]));
        drop(state);
        self.start(tenant);
        Ok(())
    }

    /// Has a thread take the tenant's next event.
    fn start(&self, tenant: TenantId) {
        if self.threads.submit(tenant, tenant).is_ok() {
            return;
        }
        // It stops, or the system has no thread.
        while let Some(EventToForward { request, .. }) = self.next(tenant) {
            let text = "the master has no thread to forward it".to_owned();
            request.answer.send(Err(DispatchError::NotSent(text)));
        }
    }

    /// The tenant's next event; `None`: it has none, and the next one to come is started anew.
    fn next(&self, tenant: TenantId) -> Option<EventToForward> {
        let mut state = self.state.lock();
        let Some(event) = state.waiting.get_mut(&tenant).and_then(VecDeque::pop_front) else {
            state.waiting.remove(&tenant);
            return None;
        };
        state.shares.remove(Some(tenant), weight(&event.request));
        Some(event)
    }

    /// Gives up an event that waits, and answers it so; false: it does not wait here.
    pub(in crate::api) fn cancel(&self, tenant: TenantId, id: RequestId) -> bool {
        let mut state = self.state.lock();
        let event = state.waiting.get_mut(&tenant).and_then(|waiting| {
            let at = waiting.iter().position(|event| event.request.id == id)?;
            waiting.remove(at)
        });
        let Some(EventToForward { request, .. }) = event else { return false };
        state.shares.remove(Some(tenant), weight(&request));
        drop(state);
        request.answer.send(Err(no_worker_in_time()));
        true
    }

    /// Forwards one event, so that other tenants have their turns before the next one.
    fn forward_next(&self, tenant: TenantId) {
        let Some(event) = self.next(tenant) else { return };
        if let (Some(key), Some(api)) = (&event.key, self.api.get().and_then(Weak::upgrade)) {
            api.event_keys.taken(key);
        }
        let result = catch_unwind(AssertUnwindSafe(|| self.forward(&event)));
        let result = result.unwrap_or_else(|payload| {
            let panic = panic_message(payload.as_ref());
            log::error!(tenant:% = tenant; "forwarding an event of {tenant} panicked: {panic}");
            Err(DispatchError::OutcomeUnknown("forwarding it failed".to_owned()))
        });
        event.request.answer.send(result);
        self.start(tenant);
    }

    /// Has another master run an event; tries again as long as that has no room for it.
    ///
    /// Blocks: until it is answered, or its deadline.
    fn forward(&self, event: &EventToForward) -> DispatchResult {
        loop {
            let result = self.forward_once(event);
            let again = Instant::now() + EVENT_RETRY_EVERY;
            let is_busy = matches!(result, Err(DispatchError::Busy(_)));
            if !is_busy || again >= event.request.deadline {
                return result;
            }
            let state = self.state.lock();
            if self.stopped.wait_until(state, again, |state| state.is_stopping).is_stopping {
                return result;
            }
        }
    }

    fn forward_once(
        &self,
        EventToForward { request, is_awaited, .. }: &EventToForward,
    ) -> DispatchResult {
        let api = self.api.get().and_then(Weak::upgrade);
        let (Some(api), Job::Dispatch(event)) = (api, &request.job) else {
            return Err(DispatchError::NotOwner);
        };
        let body = body_of(event)?;
        let (kind, snowflake) = (request.tenant.kind().as_str(), request.tenant.snowflake());
        let query = if *is_awaited { "" } else { "?nowait=true" };
        let path = format!("/i/dispatch-event/{kind}/{snowflake}{query}");
        let author = event.author.as_deref().and_then(|author| author.parse().ok());
        let caller = InternalEndpoint { user_id: author.unwrap_or(0), acts_as_any: false };
        match api.ask_as_master(&path, Some(caller), body, request.deadline) {
            Ok(response) => result_of(&response),
            Err(error) => Err(error.into_dispatch_error()),
        }
    }

    /// Refuses further events, lets those that wait be answered and joins the threads.
    ///
    /// # Blocks
    /// Until they are answered, each within its deadline; the end of the cluster's table and of its
    /// client is the wake-up.
    pub(in crate::api) fn finish(&self) {
        self.state.lock().is_stopping = true;
        self.stopped.notify_all();
        self.threads.finish();
    }
}

/// An event without data weighs something too: so their number is bounded with their bytes, and a
/// tenant's share of it.
fn weight(request: &Request) -> usize {
    request.job.bytes() + EVENTS_TO_FORWARD_BYTES / EVENTS_TO_FORWARD_MAX
}

fn body_of(event: &CreateEvent) -> Result<Vec<u8>, DispatchError> {
    let EventData::Json(data) = &event.data else { return Err(DispatchError::NotOwner) };
    let unwritable = |_| DispatchError::BadInput("the data cannot be written as JSON".to_owned());
    let data = json::json_from_encoded(data).map_err(unwritable)?;
    let written = RawValue::from_string(data)
        .and_then(|data| serde_json::to_vec(&EventBody { name: &event.name, data: &data }));
    written.map_err(|_| DispatchError::BadInput("the event cannot be written as JSON".to_owned()))
}

/// What an answer of this or another master says.
fn result_of(response: &Response) -> DispatchResult {
    let bytes = match &response.body {
        ResponseBody::Bytes(bytes) => bytes.as_slice(),
        ResponseBody::Chunked(_) => &[],
    };
    let unreadable = || {
        let text = "the master that has the tenant answered something else";
        DispatchError::OutcomeUnknown(text.to_owned())
    };
    match response.status {
        202 => Ok(EncodedValue::null()),
        200 => json::value_from_json(bytes).map_err(|_| unreadable()),
        _ => Err(ApiError::parse(bytes).map_or_else(unreadable, ApiError::into_dispatch_error)),
    }
}
