//! What tenants publish to those that read their feeds, such as dashboards: at most once, bounded,
//! and lossy only with a notice.
//!
//! [`Feeds`] is a master's. Those that publish (a link's reader thread, or an executor in
//! thread-pool mode) hold its lock for as long as it takes to keep an event (`rings`) and to leave
//! it with each reader that wants it (`reader`); they never wait for one. Positions are what makes
//! a reader that comes back miss nothing that is kept (`position`); `sse` reads what a master
//! writes.

mod position;
mod reader;
mod rings;
pub mod sse;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use log::Level;

use crate::base::error::DbError;
use crate::base::limits::{
    FEED_DATA_MAX_BYTES, FEED_EVENT_BYTES, FEED_RINGS_BYTES, FEED_TAKEN, FEED_TOPIC_MAX_BYTES,
    LOG_RINGS_BYTES,
};
use crate::base::metrics::Counter;
use crate::base::random;
use crate::base::rates::Rates;
use crate::base::sync::Lock;
use crate::wire::data::sharding::{Shard, ShardSet};
use crate::wire::data::{EncodedJson, TenantId, Timestamp};
use crate::wire::json::{json_from_encoded, logged_to_json};

pub use self::position::{Position, Positions};
use self::reader::Inbox;
pub use self::reader::{FeedFilter, FeedInlet, FeedNews, FeedReader};
use self::rings::Rings;

/// The kind of news that a line of a log is.
const LINE: &str = "line";

/// Names of what a stream itself says, and of what clients of such streams say of them.
const OWN_WORDS: [&str; 4] = ["gap", "moved", "open", "error"];

/// An event on its way to readers.
#[derive(Debug)]
pub struct FeedItem {
    /// Whose it is.
    pub tenant: Option<TenantId>,
    /// What it is about; empty for what is no tenant's.
    topic: String,
    /// Which one it is, if it has a number.
    pub at: Option<Position>,
    /// Its lines but that of its id, with the empty one behind them; nothing if it is a position
    /// only.
    pub lines: String,
}

impl FeedItem {
    /// One that came from another master.
    pub fn passed_on(tenant: Option<TenantId>, at: Option<Position>, lines: String) -> Self {
        Self { tenant, topic: String::new(), at, lines }
    }

    fn text_bytes(&self) -> usize {
        self.topic.len() + self.lines.len()
    }

    fn weight(&self) -> usize {
        self.text_bytes() + FEED_EVENT_BYTES
    }

    #[cfg(test)]
    fn test(tenant: TenantId, number: u64, text_bytes: usize) -> Self {
        let at = Some(Position { incarnation: "0".into(), number });
        let (topic, lines) = (String::new(), "x".repeat(text_bytes));
        Self { tenant: Some(tenant), topic, at, lines }
    }
}

/// Checks what a tenant wants to publish.
///
/// # Errors
/// `Refused`: the topic is none, or there is too much data.
pub fn check(topic: &str, data: &EncodedJson) -> Result<(), DbError> {
    check_topic(topic)?;
    let bytes = data.as_bytes().len();
    if bytes > FEED_DATA_MAX_BYTES {
        return Err(DbError::Refused(format!(
            "the data has {bytes} bytes; at most {FEED_DATA_MAX_BYTES} are allowed"
        )));
    }
    Ok(())
}

/// Checks a topic: a word that stands in a line of a stream, and in a list of them.
///
/// # Errors
/// `Refused`: it is none.
pub fn check_topic(topic: &str) -> Result<(), DbError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:/".contains(&byte);
    if topic.is_empty() || topic.len() > FEED_TOPIC_MAX_BYTES || !topic.bytes().all(is_plain) {
        return Err(DbError::Refused(format!(
            "a topic has 1 to {FEED_TOPIC_MAX_BYTES} letters, digits and _ - . : /"
        )));
    }
    if OWN_WORDS.contains(&topic) {
        let words = OWN_WORDS.join(", ");
        return Err(DbError::Refused(format!("{words} are no topics, as streams have them")));
    }
    Ok(())
}

/// What there is to count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FeedFigures {
    /// Events that were published.
    pub published: u64,
    /// Events that workers sent and that are none.
    pub refused: u64,
    /// Events of which there were too many at once.
    pub excess: u64,
    /// Events that a reader was told it lost, counted once a reader.
    pub lost: u64,
    /// Readers now.
    pub readers: u64,
    /// Bytes of events that are kept.
    pub bytes: u64,
}

/// Where a reader begins.
#[derive(Debug, Clone, Copy)]
pub enum FeedStart<'p> {
    /// With what comes.
    Now,
    /// With what is kept, as far as that goes back.
    Kept,
    /// Behind what it had when it went.
    After(&'p Positions),
}

/// News of a master's tenants of one kind, with those that read them.
#[derive(Debug)]
struct FeedHub {
    incarnation: Arc<str>,
    state: Lock<FeedState>,
    taken: Rates<TenantId>,
    published: Counter,
    refused: Counter,
    excess: Counter,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
struct FeedState {
    rings: Rings,
    readers: HashMap<u64, Arc<Inbox>>,
    next_reader: u64,
    /// The master stops: no reader is to wait any more.
    is_over: bool,
}

impl FeedHub {
    /// `kept_bytes`: of all tenants' news.
    fn new(kept_bytes: usize) -> Self {
        let state = FeedState {
            rings: Rings::new(kept_bytes),
            readers: HashMap::new(),
            next_reader: 0,
            is_over: false,
        };
        Self {
            incarnation: format!("{:016x}", random::u64()).into(),
            state: Lock::new(state),
            taken: Rates::new(FEED_TAKEN),
            published: Counter::default(),
            refused: Counter::default(),
            excess: Counter::default(),
            lost: Arc::default(),
        }
    }

    /// Publishes what a tenant says. Never waits for a reader.
    ///
    /// # Errors
    /// See [`check`]; `Busy`: the tenant has published too much of late, and its readers are told
    /// that this event is lost.
    fn publish(&self, tenant: TenantId, topic: &str, data: &EncodedJson) -> Result<(), DbError> {
        let checked = check(topic, data).and_then(|()| {
            json_from_encoded(data).map_err(|error| DbError::Refused(error.to_string()))
        });
        let data = checked.inspect_err(|_| self.refused.inc())?;
        self.keep(tenant, topic, |at| {
            // Neither a tenant nor a time has a character that JSON would escape, and JSON text has
            // no line break.
            format!(
                "event: {topic}\ndata: {{\"tenant\":\"{tenant}\",\"at\":\"{at}\",\"data\":{data}}}\n\n"
            )
        })
    }

    /// Keeps news of the tenant, whose lines are made with the time, and leaves them with readers.
    ///
    /// # Errors
    /// `Busy`: there were too many of late, and the readers are told that these are lost.
    fn keep(
        &self,
        tenant: TenantId,
        topic: &str,
        lines: impl FnOnce(Timestamp) -> String,
    ) -> Result<(), DbError> {
        if !self.taken.admits(tenant, Instant::now()) {
            self.lose(tenant, topic, true);
            return Err(DbError::Busy("too much was published of late".to_owned()));
        }
        let lines = lines(Timestamp::now());
        let make = |number| FeedItem {
            tenant: Some(tenant),
            topic: topic.to_owned(),
            at: Some(Position { incarnation: self.incarnation.clone(), number }),
            lines,
        };
        let mut state = self.state.lock();
        let FeedState { rings, readers, .. } = &mut *state;
        let mut gone = |number, item: &FeedItem| {
            readers.values().for_each(|reader| reader.miss_kept(number, item));
        };
        let item = rings.push(tenant, make, &mut gone);
        self.published.inc();
        readers.values().for_each(|reader| reader.offer(&item));
        Ok(())
    }

    /// Keeps a line that a script of the tenant logged.
    fn log(&self, tenant: TenantId, level: Level, text: &str) {
        let line = |at| logged_to_json(tenant, at, level, text);
        // Of one that is not kept its readers are told.
        let _ = self.keep(tenant, LINE, |at| format!("event: {LINE}\ndata: {}\n\n", line(at)));
    }

    /// An event of the tenant is not taken, as there are too many: its readers are told, at once
    /// (`is_urgent`) or within a second, so that of a flood they are told together.
    fn lose(&self, tenant: TenantId, topic: &str, is_urgent: bool) {
        self.excess.inc();
        let mut state = self.state.lock();
        state.rings.skip(tenant);
        state.readers.values().for_each(|reader| reader.miss(tenant, topic, is_urgent));
    }

    /// The last news of tenants that `is_of` names may be lost: their readers are told, also those
    /// that come back.
    fn doubt(&self, is_of: &dyn Fn(TenantId) -> bool) {
        let mut state = self.state.lock();
        state.rings.doubt(is_of);
        state.readers.values().for_each(|reader| reader.doubt(is_of));
    }

    /// Begins to read.
    fn read(self: &Arc<Self>, wanted: FeedFilter, from: FeedStart<'_>) -> FeedReader {
        let mut state = self.state.lock();
        let number = state.rings.number();
        let known = match from {
            FeedStart::After(had) => Some(had.of(&self.incarnation)),
            FeedStart::Now | FeedStart::Kept => None,
        };
        let start = match from {
            FeedStart::Kept => 0,
            // Of another run, or of another master, nothing says how far the reader got with this
            // one.
            _ => known.flatten().map_or(number, |had| had.min(number)),
        };
        let is_of_any_topic = wanted.topics.is_none();
        let inbox = Arc::new(Inbox::new(wanted, start, number, self.lost.clone()));
        if let Some(known) = known {
            // How many went is known of this run of this master, and not by topic.
            let count = |lost: Option<u64>| {
                lost.filter(|lost| known.is_some() && (is_of_any_topic || *lost == 0))
            };
            match inbox.tenants() {
                Some(tenants) => tenants.for_each(|tenant| {
                    inbox.lose(Some(tenant), count(state.rings.lost(tenant, start)));
                }),
                None => inbox.lose(None, count(state.rings.lost_of_any(start))),
            }
        }
        if state.is_over {
            inbox.end();
        }
        let id = state.next_reader;
        state.next_reader += 1;
        state.readers.insert(id, inbox.clone());
        drop(state);
        let start = Position { incarnation: self.incarnation.clone(), number: start };
        FeedReader::new(self.clone(), id, inbox, start)
    }

    /// These shards come: of what their tenants published elsewhere nothing is known, and a reader
    /// that comes back is told so.
    fn take(&self, shards: &ShardSet) {
        self.state.lock().rings.forget_shards(shards);
    }

    /// Tells readers that other masters have the tenants of these shards, and forgets their events.
    fn leave(&self, shards: &ShardSet) {
        let mut state = self.state.lock();
        state.rings.forget_shards(shards);
        for reader in state.readers.values() {
            let tenants = reader.tenants().into_iter().flatten();
            tenants
                .filter(|tenant| shards.contains(Shard::of(*tenant)))
                .for_each(|tenant| reader.push_moved(tenant));
        }
    }

    /// Ends all readers when they have got what waits for them, and lets none wait any more.
    fn end(&self) {
        let mut state = self.state.lock();
        state.is_over = true;
        state.readers.values().for_each(|reader| reader.end());
    }

    /// What there is to count.
    fn figures(&self) -> FeedFigures {
        let state = self.state.lock();
        FeedFigures {
            published: self.published.get(),
            refused: self.refused.get(),
            excess: self.excess.get(),
            lost: self.lost.load(Ordering::Relaxed),
            readers: state.readers.len() as u64,
            bytes: state.rings.bytes() as u64,
        }
    }

    /// Some of the kept events behind that number that a reader wants; from the last of all on it
    /// is offered what comes.
    fn replay(&self, inbox: &Inbox, after: u64) -> Vec<Arc<FeedItem>> {
        let state = self.state.lock();
        inbox.replay(state.rings.after(after))
    }

    fn forget(&self, reader: u64) {
        self.state.lock().readers.remove(&reader);
    }
}

/// What the tenants of a master say to those that read it.
#[derive(Debug)]
pub struct Feeds {
    published: Arc<FeedHub>,
    logged: Arc<FeedHub>,
}

impl Default for Feeds {
    fn default() -> Self {
        Self {
            published: Arc::new(FeedHub::new(FEED_RINGS_BYTES)),
            logged: Arc::new(FeedHub::new(LOG_RINGS_BYTES)),
        }
    }
}

impl Feeds {
    /// Publishes what a tenant says. Never waits for a reader.
    ///
    /// # Errors
    /// See [`check`]; `Busy`: the tenant has published too much of late, and its readers are told
    /// that this event is lost.
    pub fn publish(
        &self,
        tenant: TenantId,
        topic: &str,
        data: &EncodedJson,
    ) -> Result<(), DbError> {
        self.published.publish(tenant, topic, data)
    }

    /// An event of the tenant is not taken, as there are too many: its readers are told.
    pub fn lose(&self, tenant: TenantId, topic: &str) {
        self.published.lose(tenant, topic, true);
    }

    /// Keeps a line that a script of the tenant logged, for those that read its log. Never waits
    /// for a reader.
    pub fn log(&self, tenant: TenantId, level: Level, text: &str) {
        self.logged.log(tenant, level, text);
    }

    /// A line of a script of the tenant is missing: those that read its log are told.
    pub fn lose_line(&self, tenant: TenantId) {
        self.logged.lose(tenant, LINE, false);
    }

    /// What the tenants that `is_of` names said last may be lost, as the link that it came over
    /// broke: their readers are told.
    pub fn doubt(&self, is_of: &dyn Fn(TenantId) -> bool) {
        self.both().for_each(|hub| hub.doubt(is_of));
    }

    /// Begins to read what tenants publish; `after` is what a reader that came back had last.
    pub fn read(&self, wanted: FeedFilter, after: Option<&Positions>) -> FeedReader {
        self.published.read(wanted, after.map_or(FeedStart::Now, FeedStart::After))
    }

    /// Begins to read what scripts log.
    pub fn read_log(&self, wanted: FeedFilter, from: FeedStart<'_>) -> FeedReader {
        self.logged.read(wanted, from)
    }

    /// These shards come: of what their tenants said elsewhere nothing is known, and a reader that
    /// comes back is told so.
    pub fn take(&self, shards: &ShardSet) {
        self.both().for_each(|hub| hub.take(shards));
    }

    /// Tells readers that other masters have the tenants of these shards, and forgets their news.
    pub fn leave(&self, shards: &ShardSet) {
        self.both().for_each(|hub| hub.leave(shards));
    }

    /// Ends all readers when they have got what waits for them, and lets none wait any more.
    pub fn end(&self) {
        self.both().for_each(|hub| hub.end());
    }

    fn both(&self) -> impl Iterator<Item = &Arc<FeedHub>> {
        [&self.published, &self.logged].into_iter()
    }

    /// What there is to count of what was published.
    pub fn figures(&self) -> FeedFigures {
        self.published.figures()
    }

    /// What there is to count of what scripts log.
    pub fn log_figures(&self) -> FeedFigures {
        self.logged.figures()
    }
}

#[cfg(test)]
mod tests;
