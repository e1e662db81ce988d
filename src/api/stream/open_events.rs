//! The events of one stream that have not been answered: those that were handed over, and those
//! that found no room with their tenant's worker and are held until there is some.
//!
//! Pure: no clock, no I/O. An event is held behind the others of its tenant, so that the tenant
//! gets them in the order in which they came.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Instant;

use crate::api::event_keys::EventKey;
use crate::api::event_line::WantedAnswer;
use crate::base::limits::{STREAM_CREDITS, STREAM_HELD_BYTES};
use crate::dispatch::{Job, RequestId};
use crate::wire::data::{IdMap, TenantId};

/// An event that has not been answered.
#[derive(Debug)]
pub(super) struct OpenEvent {
    /// As the caller calls it.
    pub(super) id: u64,
    pub(super) tenant: TenantId,
    pub(super) until: Instant,
    pub(super) want: WantedAnswer,
    pub(super) key: Option<EventKey>,
}

/// An event that is held, with its job.
#[derive(Debug)]
pub(super) struct HeldEvent {
    pub(super) request_id: RequestId,
    pub(super) job: Job,
    pub(super) until: Instant,
    pub(super) want: WantedAnswer,
    pub(super) key: Option<EventKey>,
}

/// Why an event is not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotTakenIn {
    /// As many are unanswered as there are credits.
    NoCredit,
    /// Another one with this id has not been answered.
    RepeatedId,
}

/// The events of one stream, by request.
#[derive(Debug, Default)]
pub(super) struct OpenEvents {
    /// Bound: [`STREAM_CREDITS`].
    events: IdMap<u64, OpenEvent>,
    ids: HashSet<u64>,
    deadlines: BTreeSet<(Instant, RequestId)>,
    /// In their order; a job is away while it is offered again.
    held: HashMap<TenantId, VecDeque<(RequestId, Option<Job>)>>,
    /// Bound: [`STREAM_HELD_BYTES`].
    held_bytes: usize,
}

impl OpenEvents {
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Takes an event in.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn take_in(
        &mut self,
        request_id: RequestId,
        event: OpenEvent,
    ) -> Result<(), NotTakenIn> {
        if self.ids.contains(&event.id) {
            return Err(NotTakenIn::RepeatedId);
        }
        if self.events.len() >= STREAM_CREDITS {
            return Err(NotTakenIn::NoCredit);
        }
        self.ids.insert(event.id);
        self.deadlines.insert((event.until, request_id));
        self.events.insert(request_id.0, event);
        Ok(())
    }

    /// Ends an event; `None`: it has ended before.
    pub(super) fn end(&mut self, request_id: RequestId) -> Option<OpenEvent> {
        let event = self.events.remove(&request_id.0)?;
        self.ids.remove(&event.id);
        self.deadlines.remove(&(event.until, request_id));
        if let Some(held) = self.held.get_mut(&event.tenant)
            && let Some(at) = held.iter().position(|(id, _)| *id == request_id)
        {
            let job = held.remove(at).and_then(|(_, job)| job);
            self.held_bytes -= job.map_or(0, |job| job.bytes());
            if held.is_empty() {
                self.held.remove(&event.tenant);
            }
        }
        Some(event)
    }

    /// Ends all that is held, but what is being offered, and returns it.
    pub(super) fn end_held(&mut self) -> Vec<OpenEvent> {
        let held = self.held.values().flatten().filter(|(_, job)| job.is_some());
        let ids: Vec<RequestId> = held.map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.end(id)).collect()
    }

    /// Whether an event of the tenant is held, behind which others have to wait.
    pub(super) fn holds(&self, tenant: TenantId) -> bool {
        self.held.contains_key(&tenant)
    }

    /// The tenants of which events are held.
    pub(super) fn held_tenants(&self) -> Vec<TenantId> {
        self.held.keys().copied().collect()
    }

    /// Whether any event is held.
    pub(super) fn holds_any(&self) -> bool {
        !self.held.is_empty()
    }

    /// Holds the job of an event behind the others of its tenant; false if there is no room, or the
    /// event has ended.
    pub(super) fn hold(&mut self, request_id: RequestId, tenant: TenantId, job: Job) -> bool {
        let bytes = self.held_bytes + job.bytes();
        if bytes > STREAM_HELD_BYTES || !self.events.contains_key(&request_id.0) {
            return false;
        }
        self.held_bytes = bytes;
        self.held.entry(tenant).or_default().push_back((request_id, Some(job)));
        true
    }

    /// The first event that is held of a tenant, to be offered again. Until it has ended or is
    /// [put back](Self::put_back), the others wait behind it.
    pub(super) fn first_held(&mut self, tenant: TenantId) -> Option<HeldEvent> {
        let (request_id, job) = self.held.get_mut(&tenant)?.front_mut()?;
        let (event, job) = (self.events.get(&request_id.0)?, job.take()?);
        self.held_bytes -= job.bytes();
        let (until, want, key) = (event.until, event.want, event.key.clone());
        Some(HeldEvent { request_id: *request_id, job, until, want, key })
    }

    /// The event was taken, and is no longer held; it is still to be answered.
    pub(super) fn let_go(&mut self, request_id: RequestId, tenant: TenantId) {
        let Some(held) = self.held.get_mut(&tenant) else { return };
        if held.front().is_some_and(|(id, _)| *id == request_id) {
            held.pop_front();
        }
        if held.is_empty() {
            self.held.remove(&tenant);
        }
    }

    /// The event found no room again.
    pub(super) fn put_back(&mut self, request_id: RequestId, tenant: TenantId, back: Job) {
        let first = self.held.get_mut(&tenant).and_then(VecDeque::front_mut);
        if let Some((_, job)) = first.filter(|(id, _)| *id == request_id) {
            self.held_bytes += back.bytes();
            *job = Some(back);
        }
    }

    /// The event whose deadline is first.
    pub(super) fn first_deadline(&self) -> Option<(Instant, RequestId)> {
        self.deadlines.first().copied()
    }

    /// Whose an event is, and whether it is held: not while it is offered again, as it may be
    /// taken.
    pub(super) fn place(&self, request_id: RequestId) -> Option<(TenantId, bool)> {
        let tenant = self.events.get(&request_id.0)?.tenant;
        let is_held = self
            .held
            .get(&tenant)
            .is_some_and(|held| held.iter().any(|(id, job)| *id == request_id && job.is_some()));
        Some((tenant, is_held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::MESSAGE_MAX_BYTES;
    use crate::wire::data::{CreateEvent, EncodedJson, EventData};
    use std::time::Duration;

    const A: TenantId = TenantId::Guild(1);
    const B: TenantId = TenantId::Guild(2);

    fn event(id: u64, tenant: TenantId, until: Instant) -> OpenEvent {
        OpenEvent { id, tenant, until, want: WantedAnswer::Result, key: None }
    }

    fn job(name: &str) -> Job {
        let data = EventData::Json(EncodedJson::null());
        Job::Dispatch(CreateEvent { name: name.to_owned(), author: None, data })
    }

    fn with(events: &[(u64, TenantId)]) -> (OpenEvents, Instant) {
        let (mut open, now) = (OpenEvents::default(), Instant::now());
        for &(id, tenant) in events {
            let until = now + Duration::from_secs(id);
            assert_eq!(open.take_in(RequestId(id), event(id, tenant, until)), Ok(()));
        }
        (open, now)
    }

    #[test]
    fn credits_and_ids_are_free_again_once_an_event_has_ended() {
        let (mut open, now) = with(&[]);
        for id in 0..STREAM_CREDITS as u64 {
            assert_eq!(open.take_in(RequestId(id), event(id, A, now)), Ok(()));
        }
        let more =
            |open: &mut OpenEvents, id| open.take_in(RequestId(id + 1_000_000), event(id, A, now));
        assert_eq!(more(&mut open, 1_000_000), Err(NotTakenIn::NoCredit));
        assert_eq!(more(&mut open, 7), Err(NotTakenIn::RepeatedId));
        assert!(open.end(RequestId(7)).is_some());
        assert!(open.end(RequestId(7)).is_none(), "once");
        assert_eq!(more(&mut open, 7), Ok(()));
    }

    #[test]
    fn what_is_held_of_a_tenant_comes_in_its_order() {
        let (mut open, _) = with(&[(1, A), (2, A), (3, B), (4, A)]);
        for (id, tenant) in [(1, A), (2, A), (3, B), (4, A)] {
            assert!(open.hold(RequestId(id), tenant, job(&id.to_string())));
        }
        let first = open.first_held(A).expect("the first one");
        assert_eq!((first.request_id, first.job.name()), (RequestId(1), "1"));
        assert!(open.first_held(A).is_none(), "it is being offered");
        open.put_back(RequestId(1), A, first.job);
        assert_eq!(open.first_held(A).map(|held| held.request_id), Some(RequestId(1)));
        open.let_go(RequestId(1), A);
        assert!(open.end(RequestId(4)).is_some(), "its deadline has passed");
        assert_eq!(open.first_held(A).map(|held| held.request_id), Some(RequestId(2)));
        open.let_go(RequestId(2), A);
        assert!(!open.holds(A) && open.holds(B) && open.holds_any());
        assert_eq!(open.held_tenants(), [B]);
        assert!(open.end(RequestId(3)).is_some());
        assert!(!open.holds_any());
        assert_eq!(open.held_bytes, 0);
    }

    #[test]
    fn what_is_held_has_a_bound_in_bytes() {
        let (mut open, _) = with(&[(1, A), (2, B)]);
        assert!(open.hold(RequestId(1), A, job(&"x".repeat(MESSAGE_MAX_BYTES - 100))));
        let large = job(&"x".repeat(STREAM_HELD_BYTES - MESSAGE_MAX_BYTES + 200));
        assert!(!open.hold(RequestId(2), B, large.clone()));
        assert!(open.end(RequestId(1)).is_some());
        assert!(open.hold(RequestId(2), B, large));
    }

    #[test]
    fn deadlines_come_in_their_order() {
        let (mut open, now) = with(&[(2, A), (1, B)]);
        assert!(open.hold(RequestId(2), A, job("held")));
        let first = |open: &OpenEvents| open.first_deadline();
        assert_eq!(first(&open), Some((now + Duration::from_secs(1), RequestId(1))));
        assert_eq!(open.place(RequestId(1)), Some((B, false)));
        assert!(open.end(RequestId(1)).is_some());
        assert_eq!(first(&open), Some((now + Duration::from_secs(2), RequestId(2))));
        assert_eq!(open.place(RequestId(2)), Some((A, true)));
        assert_eq!(open.place(RequestId(1)), None);
    }
}
