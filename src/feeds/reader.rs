//! One reader of feeds: what it wants, and what waits for it.
//!
//! A reader that came back first replays what is kept, some events at a time; what is published
//! meanwhile is kept too and reached that way. Then it is offered each event as it comes. What it
//! does not take in time is dropped from the front, and it is told of how many of which tenant.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::{FeedHub, FeedItem, Position};
use crate::base::limits::{FEED_GAPS_MAX, FEED_QUEUE_BYTES, FEED_QUEUE_EVENTS, FEED_REPLAY_STEP};
use crate::base::sync::{Lock, Signal};
use crate::wire::data::TenantId;

/// What a reader wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeedFilter {
    /// Whose events; `None`: those of all tenants of this master.
    pub tenants: Option<HashSet<TenantId>>,
    /// About what; `None`: about everything.
    pub topics: Option<HashSet<String>>,
}

impl FeedFilter {
    fn has(&self, tenant: Option<TenantId>, topic: &str) -> bool {
        let is_of =
            |tenants: &HashSet<TenantId>| tenant.is_some_and(|tenant| tenants.contains(&tenant));
        self.tenants.as_ref().is_none_or(is_of)
            && self.topics.as_ref().is_none_or(|topics| topics.contains(topic))
    }

    fn has_item(&self, item: &FeedItem) -> bool {
        self.has(item.tenant, &item.topic)
    }
}

/// What a reader gets next.
#[derive(Debug)]
pub enum FeedNews {
    /// An event.
    Event(Arc<FeedItem>),
    /// Events of this tenant, or of some tenants, were lost: so many, if that is known.
    Gap(Option<TenantId>, Option<u64>),
    /// Another master has the tenant.
    Moved(TenantId),
    /// Nothing came in time.
    Quiet,
    /// Nothing will come any more.
    Over,
}

/// What the one that reads and those that publish share. Its lock is taken inside that of
/// [`FeedHub`], never the other way round.
#[derive(Debug)]
pub(super) struct Inbox {
    wanted: FeedFilter,
    queue: Lock<ReaderQueue>,
    changed: Signal,
    /// Of all readers.
    lost: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct ReaderQueue {
    /// The reader has all up to this number, and gets the next ones from what is kept.
    replays_from: Option<u64>,
    news: VecDeque<QueuedNews>,
    bytes: usize,
    lost: BTreeMap<Option<TenantId>, Option<u64>>,
    moved: VecDeque<TenantId>,
    is_over: bool,
}

type QueuedNews = Arc<FeedItem>;

impl ReaderQueue {
    /// Notes that events were lost: so many, or some.
    fn lose(&mut self, tenant: Option<TenantId>, count: Option<u64>) {
        let is_known = self.lost.len() < FEED_GAPS_MAX || self.lost.contains_key(&tenant);
        let noted = self.lost.entry(tenant.filter(|_| is_known)).or_insert(Some(0));
        *noted = noted.zip(count).map(|(noted, count)| noted + count);
    }
}

impl Inbox {
    /// One that has all up to `start`, of events up to `number`.
    pub(super) fn new(wanted: FeedFilter, start: u64, number: u64, lost: Arc<AtomicU64>) -> Self {
        let replays_from = (start < number).then_some(start);
        let queue = Lock::new(ReaderQueue { replays_from, ..ReaderQueue::default() });
        Self { wanted, queue, changed: Signal::new(), lost }
    }

    /// The tenants that it names, unless it wants all.
    pub(super) fn tenants(&self) -> Option<impl Iterator<Item = TenantId>> {
        self.wanted.tenants.as_ref().map(|tenants| tenants.iter().copied())
    }

    /// An event was published.
    pub(super) fn offer(&self, item: &Arc<FeedItem>) {
        if self.wanted.has_item(item) && self.queue.lock().replays_from.is_none() {
            self.push(item.clone());
        }
    }

    /// Leaves an event with the reader; what has waited longest makes room.
    fn push(&self, item: Arc<FeedItem>) {
        let mut waiting = self.queue.lock();
        if waiting.is_over {
            return;
        }
        waiting.bytes += item.weight();
        waiting.news.push_back(item);
        while (waiting.news.len() > FEED_QUEUE_EVENTS || waiting.bytes > FEED_QUEUE_BYTES)
            && let Some(oldest) = waiting.news.pop_front()
        {
            waiting.bytes -= oldest.weight();
            waiting.lose(oldest.tenant, Some(1));
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        drop(waiting);
        self.changed.notify_one();
    }

    /// An event is not kept any more: it is lost, if the reader has not got to it.
    pub(super) fn miss_kept(&self, number: u64, item: &FeedItem) {
        if self.queue.lock().replays_from.is_some_and(|from| from < number)
            && self.wanted.has_item(item)
        {
            self.lose(item.tenant, Some(1));
        }
    }

    /// An event was never kept.
    pub(super) fn miss(&self, tenant: TenantId, topic: &str, is_urgent: bool) {
        if self.wanted.has(Some(tenant), topic) {
            self.lose(Some(tenant), Some(1));
            if is_urgent {
                self.changed.notify_one();
            }
        }
    }

    /// So many events of the tenant, or of any, are lost; `None`: some.
    pub(super) fn lose(&self, tenant: Option<TenantId>, count: Option<u64>) {
        if count != Some(0) {
            self.queue.lock().lose(tenant, count);
            self.lost.fetch_add(count.unwrap_or(0), Ordering::Relaxed);
        }
    }

    /// Events may be lost of tenants that `is_of` names.
    pub(super) fn doubt(&self, is_of: &dyn Fn(TenantId) -> bool) {
        match self.tenants() {
            Some(tenants) => tenants
                .filter(|tenant| is_of(*tenant))
                .for_each(|tenant| self.lose(Some(tenant), None)),
            None => self.lose(None, None),
        }
        self.changed.notify_one();
    }

    pub(super) fn push_moved(&self, tenant: TenantId) {
        // Limit: the tenants that it names, each once.
        let mut waiting = self.queue.lock();
        if !waiting.moved.contains(&tenant) {
            waiting.moved.push_back(tenant);
        }
        drop(waiting);
        self.changed.notify_one();
    }

    pub(super) fn end(&self) {
        self.queue.lock().is_over = true;
        self.changed.notify_one();
    }

    /// Goes some way through what is kept.
    pub(super) fn replay<'a>(
        &self,
        mut kept: impl Iterator<Item = (u64, &'a Arc<FeedItem>)>,
    ) -> Vec<Arc<FeedItem>> {
        let mut items = Vec::new();
        let mut seen = None;
        for (number, item) in kept.by_ref().take(FEED_REPLAY_STEP) {
            seen = Some(number);
            items.extend(Some(item).filter(|item| self.wanted.has_item(item)).cloned());
        }
        self.queue.lock().replays_from = seen.filter(|_| kept.next().is_some());
        items
    }
}

/// A reader of feeds. Dropping it ends it.
#[derive(Debug)]
pub struct FeedReader {
    hub: Arc<FeedHub>,
    id: u64,
    inbox: Arc<Inbox>,
    start: Position,
    replayed: VecDeque<Arc<FeedItem>>,
}

/// What another source leaves with a reader, such as what another master sends.
#[derive(Debug, Clone)]
pub struct FeedInlet(Arc<Inbox>);

impl FeedInlet {
    /// Leaves an event with the reader, wanted or not. Never blocks: what has waited longest
    /// makes room.
    pub fn push(&self, item: FeedItem) {
        self.0.push(Arc::new(item));
    }

    /// Tells it that another master has the tenant.
    pub fn push_moved(&self, tenant: TenantId) {
        self.0.push_moved(tenant);
    }
}

impl FeedReader {
    pub(super) fn new(hub: Arc<FeedHub>, id: u64, inbox: Arc<Inbox>, start: Position) -> Self {
        Self { hub, id, inbox, start, replayed: VecDeque::new() }
    }

    /// What it had, or where it begins.
    pub fn start(&self) -> &Position {
        &self.start
    }

    /// Where others leave news for it.
    pub fn inlet(&self) -> FeedInlet {
        FeedInlet(self.inbox.clone())
    }

    /// What is next.
    ///
    /// # Blocks
    /// Until there is something, until `deadline`, or until the feeds end.
    pub fn next(&mut self, deadline: Instant) -> FeedNews {
        loop {
            if let Some(item) = self.replayed.pop_front() {
                return FeedNews::Event(item);
            }
            let has_news = |waiting: &mut ReaderQueue| {
                waiting.is_over
                    || waiting.replays_from.is_some()
                    || !(waiting.news.is_empty()
                        && waiting.lost.is_empty()
                        && waiting.moved.is_empty())
            };
            let waiting = self.inbox.queue.lock();
            let mut waiting = self.inbox.changed.wait_until(waiting, deadline, has_news);
            if let Some((tenant, count)) = waiting.lost.pop_first() {
                return FeedNews::Gap(tenant, count);
            }
            if let Some(after) = waiting.replays_from {
                drop(waiting);
                self.replayed = self.hub.replay(&self.inbox, after).into();
                continue;
            }
            if let Some(item) = waiting.news.pop_front() {
                waiting.bytes -= item.weight();
                return FeedNews::Event(item);
            }
            if let Some(tenant) = waiting.moved.pop_front() {
                return FeedNews::Moved(tenant);
            }
            return if waiting.is_over { FeedNews::Over } else { FeedNews::Quiet };
        }
    }
}

impl Drop for FeedReader {
    fn drop(&mut self) {
        self.hub.forget(self.id);
    }
}
