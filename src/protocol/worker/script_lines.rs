//! What scripts have logged and the master is not told of yet.
//!
//! Executors add lines. The link's writer tells the master: at once after a quiet time, then every
//! tenth of a second; and before an answer leaves, the thread that has it tells what was logged
//! before. Lines wait while there is no link, and those that find no room are counted by tenant,
//! which is told as a line too.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use log::Level;

use crate::base::limits::{
    FEED_EVENT_BYTES, SCRIPT_LINES_TOGETHER_BYTES, SCRIPT_LINES_WAITING_BYTES,
    SCRIPT_LINES_WAITING_MAX,
};
use crate::base::metrics::Counter;
use crate::base::sync::Lock;
use crate::net::link::{LinkSender, SendError};
use crate::wire::data::{IdMap, TenantId};
use crate::wire::message::{ClientMessage, ScriptLine};

/// How long lines wait for others, once there were some.
const TOLD_AFTER: Duration = Duration::from_millis(100);

/// How often it is told how many lines are missing.
const MISSING_TOLD_AFTER: Duration = Duration::from_secs(1);

/// The lines of a worker's tenants.
#[derive(Debug, Default)]
pub(super) struct ScriptLines {
    waiting: Lock<WaitingLines>,
    /// Lines that found no room.
    lost: Counter,
    /// There are some: an answer must not wait for the lock to learn that there are none.
    has_some: AtomicBool,
}

#[derive(Debug, Default)]
struct WaitingLines {
    lines: Vec<ScriptLine>,
    bytes: usize,
    /// Limit: the tenants that run here.
    missing: IdMap<TenantId, u64>,
    missing_told: Option<Instant>,
    /// The writer looks again by itself.
    is_watched: bool,
}

impl ScriptLines {
    /// Adds a line, or that one is missing; true if the writer is to look.
    pub(super) fn add(&self, tenant: TenantId, line: Option<(Level, String)>) -> bool {
        let mut waiting = self.waiting.lock();
        match line {
            Some((level, text)) if waiting.has_room(text.len()) => {
                let level = level.as_str().to_lowercase();
                waiting.push(ScriptLine { tenant, level, text });
                self.has_some.store(true, Ordering::Relaxed);
            }
            line => {
                self.lost.add(u64::from(line.is_some()));
                *waiting.missing.entry(tenant).or_default() += 1;
            }
        }
        !std::mem::replace(&mut waiting.is_watched, true)
    }

    /// Tells of all lines that wait, before what is sent next.
    pub(super) fn tell(&self, link: &LinkSender) {
        if self.has_some.load(Ordering::Relaxed) {
            self.tell_waiting(&mut self.waiting.lock(), link);
        }
    }

    /// How many lines found no room.
    pub(super) fn lost(&self) -> u64 {
        self.lost.get()
    }

    /// Tells of all that there is, also how many lines are missing, as the link is closed.
    pub(super) fn tell_all(&self, link: &LinkSender) {
        let mut waiting = self.waiting.lock();
        self.tell_waiting(&mut waiting, link);
        waiting.tell_missing(Instant::now());
        self.tell_waiting(&mut waiting, link);
    }

    /// Tells of what there is; when to do so again. For the link's writer.
    pub(super) fn beat(&self, link: &LinkSender, now: Instant) -> Option<Instant> {
        let mut waiting = self.waiting.lock();
        let had_some = !waiting.lines.is_empty();
        if !waiting.missing.is_empty() && now >= waiting.missing_due(now) {
            waiting.tell_missing(now);
        }
        self.tell_waiting(&mut waiting, link);
        waiting.is_watched = had_some || !waiting.missing.is_empty();
        let due = if had_some { now + TOLD_AFTER } else { waiting.missing_due(now) };
        waiting.is_watched.then_some(due)
    }

    /// Without room on the link they wait.
    fn tell_waiting(&self, waiting: &mut WaitingLines, link: &LinkSender) {
        while !waiting.lines.is_empty() {
            let mut bytes = 0;
            let together = waiting.lines.iter().take_while(|line| {
                bytes += line.text.len() + FEED_EVENT_BYTES;
                bytes <= SCRIPT_LINES_TOGETHER_BYTES
            });
            let count = together.count().max(1);
            let message = ClientMessage::ScriptLog(waiting.lines[..count].to_vec());
            if let Err(SendError::Full | SendError::Closed) = link.send(message.encode()) {
                return;
            }
            let told = waiting.lines.drain(..count).map(|line| line.text.len() + FEED_EVENT_BYTES);
            waiting.bytes -= told.sum::<usize>();
        }
        self.has_some.store(false, Ordering::Relaxed);
    }
}

impl WaitingLines {
    fn has_room(&self, bytes: usize) -> bool {
        self.lines.len() < SCRIPT_LINES_WAITING_MAX
            && self.bytes + bytes + FEED_EVENT_BYTES <= SCRIPT_LINES_WAITING_BYTES
    }

    fn push(&mut self, line: ScriptLine) {
        self.bytes += line.text.len() + FEED_EVENT_BYTES;
        self.lines.push(line);
    }

    fn missing_due(&self, now: Instant) -> Instant {
        self.missing_told.map_or(now, |at| at + MISSING_TOLD_AFTER)
    }

    /// Makes lines that say how many are missing, as far as there is room.
    fn tell_missing(&mut self, now: Instant) {
        self.missing_told = Some(now);
        for (tenant, count) in std::mem::take(&mut self.missing) {
            let text = format!("lines missing: {count}, too many at once");
            if self.has_room(text.len()) {
                self.push(ScriptLine { tenant, level: "warn".to_owned(), text });
            } else {
                self.missing.insert(tenant, count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use tungstenite::WebSocket;

    use super::*;
    use crate::net::link::{Link, LinkLimits};
    use crate::protocol::worker::quiet_link::quiet_link;
    use crate::wire::message::Incoming;

    const ONE: TenantId = TenantId::Guild(1);

    fn linked() -> (Link, WebSocket<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let master = std::thread::spawn(move || {
            tungstenite::accept(listener.accept().expect("accept").0).expect("a handshake")
        });
        let link = quiet_link(address, &LinkLimits::default());
        (link, master.join().expect("a peer"))
    }

    /// What the next message tells.
    fn told(peer: &mut WebSocket<TcpStream>) -> Vec<String> {
        match ClientMessage::decode(&peer.read().expect("a message").into_data()) {
            Ok(Incoming::Message(ClientMessage::ScriptLog(lines))) => {
                lines.into_iter().map(|line| format!("{} {}", line.level, line.text)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn line(text: impl ToString) -> Option<(Level, String)> {
        Some((Level::Info, text.to_string()))
    }

    #[test]
    fn lines_are_told_once_and_in_order_and_the_writer_looks_again() {
        let (lines, (link, mut peer)) = (ScriptLines::default(), linked());
        let now = Instant::now();
        assert_eq!(lines.beat(link.sender(), now), None, "there is nothing to tell");
        assert!(lines.add(ONE, line("a")), "the writer is to look");
        assert!(!lines.add(ONE, Some((Level::Error, "b".to_owned()))), "it will");
        assert_eq!(lines.beat(link.sender(), now), Some(now + TOLD_AFTER));
        assert_eq!(told(&mut peer), ["info a", "error b"]);
        assert!(!lines.add(ONE, line("c")), "it looks again by itself");
        lines.tell(link.sender());
        lines.tell(link.sender());
        assert_eq!(told(&mut peer), ["info c"]);
        assert_eq!(lines.beat(link.sender(), now), None);
        assert!(lines.add(ONE, line("d")));
    }

    #[test]
    fn what_finds_no_room_is_counted_and_told_once_a_second() {
        let (lines, (link, mut peer)) = (ScriptLines::default(), linked());
        for number in 0..SCRIPT_LINES_WAITING_MAX + 7 {
            lines.add(ONE, line(number));
        }
        assert_eq!(lines.waiting.lock().lines.len(), SCRIPT_LINES_WAITING_MAX);
        let now = Instant::now();
        // There is no room for the number before the lines have left.
        assert_eq!(lines.beat(link.sender(), now), Some(now + TOLD_AFTER));
        let mut all = Vec::new();
        while all.len() < SCRIPT_LINES_WAITING_MAX {
            all.extend(told(&mut peer));
        }
        let number = |text: &String| text.trim_start_matches("info ").parse::<usize>();
        let numbers: Result<Vec<_>, _> = all.iter().map(number).collect();
        assert_eq!(numbers, Ok((0..SCRIPT_LINES_WAITING_MAX).collect()));
        let later = now + MISSING_TOLD_AFTER;
        assert_eq!(lines.beat(link.sender(), later), None, "all is told");
        assert_eq!(told(&mut peer), ["warn lines missing: 7, too many at once"]);
        lines.add(ONE, None);
        let soon = later + TOLD_AFTER;
        let last = later + MISSING_TOLD_AFTER;
        assert_eq!(lines.beat(link.sender(), soon), Some(last), "not yet");
        lines.add(ONE, line("x"));
        assert_eq!(lines.beat(link.sender(), last), Some(last + TOLD_AFTER));
        assert_eq!(told(&mut peer), ["info x", "warn lines missing: 1, too many at once"]);
        assert_eq!(lines.lost(), 7, "the others were lost before");
        lines.add(ONE, None);
        lines.tell_all(link.sender());
        assert_eq!(told(&mut peer), ["warn lines missing: 1, too many at once"], "at the end too");
    }

    #[test]
    fn few_long_lines_fill_the_room_and_leave_in_small_messages() {
        let (lines, (link, mut peer)) = (ScriptLines::default(), linked());
        let long = "x".repeat(2048);
        for _ in 0..SCRIPT_LINES_WAITING_MAX {
            lines.add(ONE, line(&long));
        }
        let (count, missing) = {
            let waiting = lines.waiting.lock();
            assert!(waiting.bytes <= SCRIPT_LINES_WAITING_BYTES);
            (waiting.lines.len(), waiting.missing[&ONE])
        };
        assert_eq!(count + missing as usize, SCRIPT_LINES_WAITING_MAX);
        lines.tell(link.sender());
        let mut seen = 0;
        while seen < count {
            let together = told(&mut peer).len();
            assert!(together * long.len() <= SCRIPT_LINES_TOGETHER_BYTES, "{together}");
            seen += together;
        }
        assert_eq!(lines.waiting.lock().bytes, 0);
    }
}
