//! What workers print: line by line into the master's log, with the worker's number and pid.
//!
//! A worker is never to wait for our log. So its output is drained always, by its own watch
//! (`watch-I`, see `child`), and handed to one thread for all workers (`wk-log`) that does the
//! writing. Lines that come faster than the bound, or while the log itself is stuck, are counted
//! and dropped. The last ones are kept, dropped or not, to be shown with the worker's death.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, unbounded};
use log::kv::Value;
use log::{Level, Record};

use crate::base::limits;
use crate::base::metrics::Counter;
use crate::base::thread::{self, OwnedThread};
use crate::base::throttle::Rate;
use crate::wire::log_line::{self, PrintedLine};

/// The thread that logs the lines of all workers. Owned by the `Spawner`; it ends when the last
/// [`Lines`] is gone.
#[derive(Debug)]
pub(super) struct OutputLog {
    // In this order: the thread's wake-up before it is joined.
    lines_tx: Sender<OutputLine>,
    room: usize,
    dropped: Arc<Counter>,
    _thread: OwnedThread,
}

#[derive(Debug)]
struct OutputLine {
    worker_id: usize,
    pid: u32,
    level: Level,
    text: String,
    /// When it was logged, if the worker logs in text.
    ts: Option<String>,
    /// What it said, if the worker logs in JSON.
    printed: Option<Box<PrintedLine>>,
}

impl OutputLog {
    pub(super) fn start() -> io::Result<Self> {
        // The senders keep to the bound: a channel that has one makes all its places at once.
        let (lines_tx, lines_rx) = unbounded();
        let thread = thread::spawn("wk-log", move || write(&lines_rx))?;
        let room = limits::WORKER_OUTPUT_QUEUE_LINES;
        Ok(Self { lines_tx, room, dropped: Arc::default(), _thread: thread })
    }

    /// Lines that were dropped, of all workers.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// The lines of one process.
    pub(super) fn lines(&self, worker_id: usize, pid: u32) -> Lines {
        Lines {
            worker_id,
            pid,
            lines_tx: self.lines_tx.clone(),
            room: self.room,
            line: Vec::new(),
            is_cut: false,
            tail: VecDeque::new(),
            rate: Rate::new(limits::WORKER_OUTPUT_LINES_PER_SECOND, limits::WORKER_OUTPUT_BURST),
            dropped: 0,
            dropped_in_all: self.dropped.clone(),
        }
    }
}

fn write(lines_rx: &Receiver<OutputLine>) {
    for line in lines_rx {
        line.log();
    }
}

impl OutputLine {
    /// Logs it as the worker's own, with the time and the fields that it had there, for a log that
    /// has fields.
    fn log(&self) {
        let Self { worker_id, pid, level, text, ts, printed } = self;
        let mut about = vec![
            (log_line::ROLE, Value::from("worker")),
            (log_line::PID, Value::from(*pid)),
            (log_line::WORKER, Value::from(*worker_id)),
        ];
        if let Some(printed) = printed {
            about.extend([
                (log_line::TS, Value::from(&*printed.ts)),
                (log_line::TARGET, Value::from(&*printed.target)),
                (log_line::MESSAGE, Value::from(&*printed.message)),
            ]);
            about.extend(
                printed.tenant.as_deref().map(|tenant| (log_line::TENANT, Value::from(tenant))),
            );
            about.extend(
                printed.request_id.as_deref().map(|id| (log_line::REQUEST_ID, Value::from(id))),
            );
        } else {
            // Whose it is stands beside it.
            about.push((log_line::MESSAGE, Value::from(&**text)));
            about.extend(ts.as_deref().map(|ts| (log_line::TS, Value::from(ts))));
        }
        if *level <= log::max_level() {
            let mut record = Record::builder();
            let record = record.level(*level).target(module_path!()).key_values(&about);
            log::logger()
                .log(&record.args(format_args!("worker {worker_id} (pid {pid}): {text}")).build());
        }
    }
}

/// Makes lines of what one process prints. Nothing here blocks.
#[derive(Debug)]
pub(super) struct Lines {
    worker_id: usize,
    pid: u32,
    lines_tx: Sender<OutputLine>,
    /// Limit: lines of all workers that wait, and of each worker one that comes at the same moment.
    room: usize,
    /// The line that has begun.
    line: Vec<u8>,
    /// More of it came than a line may have.
    is_cut: bool,
    tail: VecDeque<String>,
    rate: Rate,
    /// Since that was last told.
    dropped: u64,
    dropped_in_all: Arc<Counter>,
}

impl Lines {
    /// Takes in what was read.
    pub(super) fn push(&mut self, bytes: &[u8], now: Instant) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) =
                piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            let room = limits::WORKER_OUTPUT_LINE_MAX_BYTES - self.line.len();
            self.is_cut |= text.len() > room;
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if ends {
                self.end_line(now);
            }
        }
    }

    /// The process has ended: its last lines, the oldest first.
    pub(super) fn finish(mut self, now: Instant) -> VecDeque<String> {
        if !self.line.is_empty() {
            self.end_line(now);
        }
        // However many they are: nothing more comes that could tell.
        self.log_dropped();
        self.tail
    }

    fn end_line(&mut self, now: Instant) {
        let mut text = String::from_utf8_lossy(self.line.trim_ascii_end()).into_owned();
        if std::mem::take(&mut self.is_cut) {
            text.push_str(" […]");
        }
        self.line.clear();
        let (ts, rest) = log_line::split_time(&text);
        let ts = ts.map(str::to_owned);
        text = rest.to_owned();
        let printed = PrintedLine::read(&text).map(Box::new);
        if let Some(printed) = &printed {
            // For people, as it is in a log of text.
            text = format!("{:<5} {printed}", printed.level);
        }
        if self.tail.len() == limits::WORKER_OUTPUT_TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(text.clone());
        if !self.rate.admits(now) {
            self.count_dropped();
            return;
        }
        self.log_dropped();
        let (level, text) = level(&text);
        if !self.is_sent(level, text.to_owned(), ts, printed) {
            self.count_dropped();
        }
    }

    fn count_dropped(&mut self) {
        self.dropped += 1;
        self.dropped_in_all.inc();
    }

    fn log_dropped(&mut self) {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            let text = format!("{dropped} lines of its output were dropped: too many at once");
            // A log that is stuck takes not even that line.
            self.dropped = if self.is_sent(Level::Warn, text, None, None) { 0 } else { dropped };
        }
    }

    /// Hands a line over; false if there is no room for it.
    fn is_sent(
        &self,
        level: Level,
        text: String,
        ts: Option<String>,
        printed: Option<Box<PrintedLine>>,
    ) -> bool {
        let line =
            OutputLine { worker_id: self.worker_id, pid: self.pid, level, text, ts, printed };
        self.lines_tx.len() < self.room && self.lines_tx.send(line).is_ok()
    }
}

/// The level of a line of a worker's own log, and what follows; anything else is something that
/// should not happen, such as a panic's message.
fn level(line: &str) -> (Level, &str) {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let is_level = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase());
    match word.parse() {
        Ok(level) if is_level => (level, rest.trim_start()),
        _ => (Level::Warn, line),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn lines(room: usize) -> (Lines, Receiver<OutputLine>) {
        let (lines_tx, lines_rx) = unbounded();
        let dropped = Arc::default();
        let log = OutputLog {
            lines_tx,
            room,
            dropped,
            _thread: thread::spawn("none", || ()).expect("spawn"),
        };
        (log.lines(3, 77), lines_rx)
    }

    fn texts(lines_rx: &Receiver<OutputLine>) -> Vec<String> {
        lines_rx.try_iter().map(|line| format!("{} {}", line.level, line.text)).collect()
    }

    #[test]
    fn lines_come_whole_with_the_level_that_they_name() {
        let (mut lines, lines_rx) = lines(100);
        let now = Instant::now();
        for piece in ["INFO  [x] a", "b\nDEBUG c\nthread 'x' pan", "icked\n\nERRORS d\nlast"] {
            lines.push(piece.as_bytes(), now);
        }
        assert_eq!(
            texts(&lines_rx),
            ["INFO [x] ab", "DEBUG c", "WARN thread 'x' panicked", "WARN ", "WARN ERRORS d"]
        );
        assert_eq!(lines.finish(now).back().map(String::as_str), Some("last"));
        assert_eq!(texts(&lines_rx), ["WARN last"]);
    }

    #[test]
    fn a_time_that_a_line_begins_with_is_its_own_and_not_said_twice() {
        let (mut lines, lines_rx) = lines(100);
        lines.push(b"2026-01-02T03:04:05.678901Z ERROR [x] a\nERROR [x] b\n", Instant::now());
        let sent: Vec<OutputLine> = lines_rx.try_iter().collect();
        assert_eq!((sent[0].level, sent[0].text.as_str()), (Level::Error, "[x] a"));
        assert_eq!(
            (sent[0].ts.as_deref(), &sent[1].ts),
            (Some("2026-01-02T03:04:05.678901Z"), &None)
        );
    }

    #[test]
    fn a_line_of_json_keeps_its_fields_and_half_of_one_is_text() {
        let (mut lines, lines_rx) = lines(100);
        let now = Instant::now();
        let line = r#"{"ts":"2026-01-02T03:04:05.678901Z","level":"debug","role":"worker","pid":1,"worker":9,"tenant":"guild:5","target":"tenant/guild:5","message":"a\nb"}"#;
        lines.push(
            format!("{line}\n{{\"ts\":\"x\"}}\n{}", &line[..line.len() - 10]).as_bytes(),
            now,
        );
        let tail = lines.finish(now);
        let sent: Vec<OutputLine> = lines_rx.try_iter().collect();
        assert_eq!(
            (sent[0].level, sent[0].text.as_str()),
            (Level::Debug, "[tenant/guild:5] a\\nb")
        );
        let printed = sent[0].printed.as_ref().expect("understood");
        assert_eq!(
            (printed.tenant.as_deref(), printed.message.as_str()),
            (Some("guild:5"), "a\nb")
        );
        assert_eq!((sent[1].level, &sent[1].printed), (Level::Warn, &None));
        assert_eq!(
            (sent[2].level, &sent[2].printed),
            (Level::Warn, &None),
            "killed in the middle of a line"
        );
        assert!(sent[2].text.starts_with("{\"ts\":\"2026-"));
        assert_eq!(tail[0], "DEBUG [tenant/guild:5] a\\nb", "for people");
    }

    #[test]
    fn a_line_without_end_takes_no_more_memory_than_a_line_may() {
        let (mut lines, lines_rx) = lines(100);
        for _ in 0..1000 {
            lines.push(&[b'x'; 1000], Instant::now());
        }
        assert!(lines.line.capacity() <= 2 * limits::WORKER_OUTPUT_LINE_MAX_BYTES);
        lines.push(b"\nnext\n", Instant::now());
        let texts = texts(&lines_rx);
        assert!(texts[0].ends_with("xxx […]") && texts[1] == "WARN next", "{texts:?}");
    }

    #[test]
    fn a_flood_is_counted_and_dropped_and_its_end_is_kept() {
        let (mut lines, lines_rx) = lines(1_000_000);
        let start = Instant::now();
        for number in 0..100_000 {
            lines.push(format!("INFO {number}\n").as_bytes(), start);
        }
        let burst = limits::WORKER_OUTPUT_BURST as usize;
        assert_eq!(texts(&lines_rx).len(), burst);
        lines.push(b"INFO later\n", start + Duration::from_secs(1));
        let said =
            format!("WARN {} lines of its output were dropped: too many at once", 100_000 - burst);
        assert_eq!(lines.dropped_in_all.get(), 100_000 - burst as u64);
        assert_eq!(texts(&lines_rx), [said, "INFO later".to_owned()]);
        let tail = lines.finish(start);
        assert_eq!(
            (tail.len(), tail[0].as_str()),
            (limits::WORKER_OUTPUT_TAIL_LINES, "INFO 99951")
        );
    }

    #[test]
    fn a_stuck_log_drops_lines_and_says_so_later() {
        let (mut lines, lines_rx) = lines(2);
        let now = Instant::now();
        for _ in 0..10 {
            lines.push(b"INFO x\n", now);
        }
        assert_eq!(texts(&lines_rx).len(), 2);
        lines.push(b"INFO y\n", now);
        let said = "WARN 8 lines of its output were dropped: too many at once".to_owned();
        assert_eq!(texts(&lines_rx), [said, "INFO y".to_owned()]);
    }
}
