//! What became of events without a request id: counted by tenant until the master is told.
//!
//! Executors count. The link's writer tells the master: at once after a quiet time, then every ten
//! milliseconds while there is something to tell. So of what is counted only the first after a
//! quiet time wakes the writer. When there is much to tell, the executor that counts it tells it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::base::error::DispatchError;
use crate::base::sync::Lock;
use crate::dispatch::{DispatchResult, EventWatcher};
use crate::net::link::{LinkSender, SendError};
use crate::wire::data::{IdMap, TenantId};
use crate::wire::message::{ClientMessage, FinishedEvents};

/// The master is told at the latest after so long (docs/protocol.md).
const TOLD_AFTER: Duration = Duration::from_millis(10);

/// So many events are told of at once.
const TOLD_TOGETHER: usize = 256;

/// The events of one link that have ended.
///
/// There is at most one entry for each event that the master has sent and was not told of, of which
/// it has a bound.
#[derive(Debug)]
pub(super) struct FinishedCounts {
    link: LinkSender,
    /// Those that have not ended.
    under_way: AtomicUsize,
    untold: Lock<UntoldEvents>,
}

#[derive(Debug, Default)]
struct UntoldEvents {
    tenants: IdMap<TenantId, FinishedEvents>,
    count: usize,
    /// The writer looks again by itself.
    is_watched: bool,
}

impl FinishedCounts {
    pub(super) fn new(link: LinkSender) -> Self {
        Self { link, under_way: AtomicUsize::new(0), untold: Lock::default() }
    }

    /// An event begins whose end will be counted.
    pub(super) fn begin(&self) {
        self.under_way.fetch_add(1, Ordering::SeqCst);
    }

    /// How many have not ended; what has is counted.
    pub(super) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::SeqCst)
    }

    /// Tells of all that is counted; when to do so again. For the link's writer.
    pub(super) fn beat(&self, now: Instant) -> Option<Instant> {
        let mut untold = self.untold.lock();
        untold.is_watched = untold.count > 0;
        self.tell(&mut untold);
        untold.is_watched.then_some(now + TOLD_AFTER)
    }

    /// Tells of all that is counted, before the link is closed.
    pub(super) fn tell_all(&self) {
        self.tell(&mut self.untold.lock());
    }

    /// An event of the tenant was not even understood.
    pub(super) fn failed(&self, tenant: TenantId) {
        self.count(tenant, |events| events.failed += 1);
    }

    fn count(&self, tenant: TenantId, count: impl FnOnce(&mut FinishedEvents)) {
        let mut untold = self.untold.lock();
        let none = FinishedEvents { tenant, ok: 0, failed: 0, busy: 0 };
        count(untold.tenants.entry(tenant).or_insert(none));
        untold.count += 1;
        if untold.count.is_multiple_of(TOLD_TOGETHER) {
            self.tell(&mut untold);
        } else if !std::mem::replace(&mut untold.is_watched, true) {
            drop(untold);
            self.link.beat_now();
        }
    }

    /// Without room on the link they are told of with those to come. After its end the master has
    /// no use for them.
    fn tell(&self, untold: &mut UntoldEvents) {
        if untold.count == 0 {
            return;
        }
        let message = ClientMessage::Finished(untold.tenants.values().copied().collect());
        if self.link.send(message.encode()) != Err(SendError::Full) {
            untold.tenants.clear();
            untold.count = 0;
        }
    }
}

impl EventWatcher for FinishedCounts {
    fn ended(&self, tenant: TenantId, result: DispatchResult) {
        self.count(tenant, |events| match result {
            Ok(_) => events.ok += 1,
            Err(
                DispatchError::Busy(_) | DispatchError::NotSent(_) | DispatchError::NoWorker(_),
            ) => events.busy += 1,
            Err(_) => events.failed += 1,
        });
        self.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::net::link::{Link, LinkLimits, close_code};
    use crate::protocol::worker::quiet_link::{WAIT, quiet_link};
    use crate::wire::data::EncodedValue;
    use crate::wire::message::Incoming;
    use tungstenite::WebSocket;

    const ONE: TenantId = TenantId::Guild(1);
    const OTHER: TenantId = TenantId::User(1);

    fn linked(queue_bytes: usize) -> (FinishedCounts, Link, WebSocket<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let master = std::thread::spawn(move || {
            tungstenite::accept(listener.accept().expect("accept").0).expect("a handshake")
        });
        let limits = LinkLimits { queue_bytes, ..LinkLimits::default() };
        let link = quiet_link(address, &limits);
        let counts = FinishedCounts::new(link.sender().clone());
        (counts, link, master.join().expect("a peer"))
    }

    /// What the next message tells, sorted; nothing at the end.
    fn told(peer: &mut WebSocket<TcpStream>) -> Vec<(TenantId, u64, u64, u64)> {
        match peer.read().map(|frame| ClientMessage::decode(&frame.into_data())) {
            Ok(Ok(Incoming::Message(ClientMessage::Finished(events)))) => {
                let of =
                    |events: FinishedEvents| (events.tenant, events.ok, events.failed, events.busy);
                let mut told: Vec<_> = events.into_iter().map(of).collect();
                told.sort();
                told
            }
            _ => vec![],
        }
    }

    #[test]
    fn what_was_counted_is_told_by_tenant_and_once() {
        let (counts, link, mut peer) = linked(1 << 20);
        let now = Instant::now();
        assert_eq!(counts.beat(now), None, "there is nothing to tell");
        counts.ended(ONE, Ok(EncodedValue::null()));
        counts.ended(ONE, Err(DispatchError::Script("oops".to_owned())));
        counts.ended(OTHER, Err(DispatchError::Busy("full".to_owned())));
        counts.ended(ONE, Ok(EncodedValue::null()));
        assert_eq!(counts.beat(now), Some(now + TOLD_AFTER));
        assert_eq!(told(&mut peer), [(ONE, 2, 1, 0), (OTHER, 0, 0, 1)]);
        counts.failed(OTHER);
        assert_eq!(counts.beat(now), Some(now + TOLD_AFTER), "there was something");
        assert_eq!(counts.beat(now), None);
        assert_eq!(told(&mut peer), [(OTHER, 0, 1, 0)]);
        counts.ended(ONE, Ok(EncodedValue::null()));
        counts.tell_all();
        counts.tell_all();
        link.sender().close(close_code::NORMAL);
        assert_eq!(told(&mut peer), [(ONE, 1, 0, 0)]);
        assert_eq!(told(&mut peer), []);
    }

    #[test]
    fn much_is_told_without_the_writer() {
        let (counts, _link, mut peer) = linked(1 << 20);
        (0..2 * TOLD_TOGETHER).for_each(|_| counts.ended(ONE, Ok(EncodedValue::null())));
        assert_eq!(told(&mut peer), [(ONE, 256, 0, 0)]);
        assert_eq!(told(&mut peer), [(ONE, 256, 0, 0)]);
    }

    #[test]
    fn what_finds_no_room_is_told_with_what_comes_after_it() {
        // Only an empty queue takes something.
        let (counts, link, mut peer) = linked(1);
        let large = vec![0; 8 << 20];
        link.sender().send(large.clone()).expect("room");
        let until = Instant::now() + WAIT;
        while link.sender().queued().0 > 0 && Instant::now() < until {
            std::thread::yield_now();
        }
        // The writer has the first one, and no room for it until it is read.
        link.sender().send(large).expect("room");
        let now = Instant::now();
        for _ in 0..2 {
            counts.ended(ONE, Ok(EncodedValue::null()));
            assert_eq!(counts.beat(now), Some(now + TOLD_AFTER));
        }
        assert_eq!(counts.untold.lock().count, 2, "nothing was told");
        assert_eq!((told(&mut peer), told(&mut peer)), (vec![], vec![]), "the large ones");
        counts.tell_all();
        assert_eq!(told(&mut peer), [(ONE, 2, 0, 0)]);
    }
}
