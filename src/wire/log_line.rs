//! A line of the log, as JSON or as text: written from a record, and read again by the master where
//! a worker printed it. Any record becomes one line in which nothing acts on a terminal.
//!
//! Pure: nothing here writes anywhere, or knows how a process logs. What a record says of a worker,
//! a tenant or a request it says with the keys below, beside its message, which says it too.

use std::borrow::Cow;
use std::fmt;

use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, Record};
use serde::{Deserialize, Deserializer};

use crate::base::escape;
use crate::base::limits::{LOG_LINE_MAX_BYTES, WORKER_OUTPUT_LINE_MAX_BYTES};
use crate::wire::data::Timestamp;

/// The number of the worker that a record is about.
pub const WORKER: &str = "worker";
/// The tenant that a record is about.
pub const TENANT: &str = "tenant";
/// The request that a record is about: its id in the internal API, or what a dispatch is called on
/// its link.
pub const REQUEST_ID: &str = "request_id";

// What a record has that tells what another process logged; any other has its own.
/// When it was logged.
pub const TS: &str = "ts";
/// What that process is.
pub const ROLE: &str = "role";
/// That process.
pub const PID: &str = "pid";
/// Where in the program.
pub const TARGET: &str = "target";
/// What was logged, without what tells whose it is.
pub const MESSAGE: &str = "message";
/// Lines of their own below the message: what a worker printed last, the backtrace of a panic.
pub const BELOW: &str = "below";

/// Limit: for any member but the message. Ours are much shorter.
const MEMBER_MAX_BYTES: usize = 512;

/// Whose log it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// What the process is: the command that it runs.
    pub role: &'static str,
    /// Its process id.
    pub pid: u32,
    /// The worker's number, if it is one.
    pub worker: Option<usize>,
}

impl Origin {
    /// Limit: of a line. A worker's must be one that its master reads whole.
    fn line_max_bytes(self) -> usize {
        if self.worker.is_some() { WORKER_OUTPUT_LINE_MAX_BYTES } else { LOG_LINE_MAX_BYTES }
    }
}

/// The line of a record, with its end: one JSON object. A message that is too long for it is cut.
pub fn line(record: &Record<'_>, origin: Origin, now: Timestamp) -> Vec<u8> {
    let mut said = Said::default();
    // A visitor of ours has no errors.
    let _ = record.key_values().visit(&mut said);
    let mut object = Object(Vec::with_capacity(256));
    object.text(TS, &said.ts.unwrap_or_else(|| microseconds(now)), MEMBER_MAX_BYTES);
    object.text("level", &record.level().as_str().to_lowercase(), MEMBER_MAX_BYTES);
    object.text(ROLE, said.role.as_deref().unwrap_or(origin.role), MEMBER_MAX_BYTES);
    object.number(PID, said.pid.unwrap_or(origin.pid.into()));
    if let Some(worker) = said.worker.or(origin.worker.map(|worker| worker as u64)) {
        object.number(WORKER, worker);
    }
    for (name, value) in [(TENANT, &said.tenant), (REQUEST_ID, &said.request_id)] {
        if let Some(value) = value {
            object.text(name, value, MEMBER_MAX_BYTES);
        }
    }
    object.text(TARGET, said.target.as_deref().unwrap_or(record.target()), MEMBER_MAX_BYTES);
    let mut message = said.message.unwrap_or_else(|| record.args().to_string());
    said.below
        .iter()
        .flat_map(|below| below.lines())
        .for_each(|line| message += &format!("\n    {line}"));
    object.text(
        MESSAGE,
        &message,
        origin.line_max_bytes().saturating_sub(object.0.len() + AROUND_A_MESSAGE),
    );
    object.0.extend_from_slice(b"}\n");
    object.0
}

/// `,"message":"` and `…"}`, the line's end, and a last character that is twelve bytes long.
const AROUND_A_MESSAGE: usize = 32;

/// A record as a line of text, in parts: what they say is escaped.
#[derive(Debug, PartialEq, Eq)]
pub struct Text {
    /// What the line begins with, with a space behind it; empty where the log has no times.
    pub time: String,
    /// Where in the program.
    pub target: String,
    /// What was logged, and the lines below it, which are set in: none of them passes for a line.
    pub message: String,
}

/// The parts of a record as text, with the time if there is one.
pub fn text(record: &Record<'_>, now: Option<Timestamp>) -> Text {
    let mut said = Said::default();
    let _ = record.key_values().visit(&mut said);
    let time = now.map(|now| said.ts.take().unwrap_or_else(|| microseconds(now)) + " ");
    let mut message = escape::one_line(&record.args().to_string()).into_owned();
    let below = said.below.unwrap_or_default();
    below.lines().for_each(|line| message += &format!("\n    {}", escape::one_line(line)));
    let target = escape::one_line(record.target()).into_owned();
    Text { time: time.unwrap_or_default(), target, message }
}

/// What a script said, as `guild:1: words` with the line's end, or what one said in a worker
/// process, which comes as the worker logged it; `None` for any other record.
pub fn script_text(record: &Record<'_>) -> Option<String> {
    let mut said = Said::default();
    let _ = record.key_values().visit(&mut said);
    let message =
        said.message.unwrap_or_else(|| format!("[{}] {}", record.target(), record.args()));
    let (tenant, words) = message.strip_prefix("[tenant/")?.split_once("] ")?;
    let level =
        if record.level() <= Level::Warn { format!("{} ", record.level()) } else { String::new() };
    Some(format!("{}\n", escape::one_line(&format!("{tenant}: {level}{words}"))))
}

/// The time with which a line of text begins, if it does, and what follows it.
pub fn split_time(line: &str) -> (Option<&str>, &str) {
    match line.split_once(' ') {
        Some((time, rest)) if time.len() == TIME_BYTES && time.parse::<Timestamp>().is_ok() => {
            (Some(time), rest)
        }
        _ => (None, line),
    }
}

/// The length of every time in a log.
const TIME_BYTES: usize = "2026-01-02T03:04:05.678901Z".len();

/// RFC 3339 with six digits, always: lines sort as texts.
fn microseconds(time: Timestamp) -> String {
    let micros = time.unix_micros();
    let whole = Timestamp::from_unix_micros(micros - micros.rem_euclid(1_000_000))
        .unwrap_or(Timestamp::EPOCH);
    format!("{}.{:06}Z", whole.to_string().trim_end_matches('Z'), micros.rem_euclid(1_000_000))
}

/// What a record says with keys.
#[derive(Default)]
struct Said {
    ts: Option<String>,
    role: Option<String>,
    pid: Option<u64>,
    worker: Option<u64>,
    tenant: Option<String>,
    request_id: Option<String>,
    target: Option<String>,
    message: Option<String>,
    below: Option<String>,
}

impl<'kvs> VisitSource<'kvs> for Said {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let text = || Some(value.to_string());
        match key.as_str() {
            PID => self.pid = value.to_u64(),
            WORKER => self.worker = value.to_u64(),
            TS => self.ts = text(),
            ROLE => self.role = text(),
            TENANT => self.tenant = text(),
            REQUEST_ID => self.request_id = text(),
            TARGET => self.target = text(),
            MESSAGE => self.message = text(),
            BELOW => self.below = text(),
            // A library's own.
            _ => {}
        }
        Ok(())
    }
}

/// An object that is being written, without its last brace.
struct Object(Vec<u8>);

impl Object {
    fn name(&mut self, name: &str) {
        self.0.extend_from_slice(if self.0.is_empty() { b"{\"" } else { b",\"" });
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    fn number(&mut self, name: &str, number: u64) {
        self.name(name);
        self.0.extend_from_slice(number.to_string().as_bytes());
    }

    /// A text of at most about so many bytes, once it is escaped.
    fn text(&mut self, name: &str, text: &str, room: usize) {
        self.name(name);
        self.0.push(b'"');
        let end = self.0.len() + room;
        for char in text.chars() {
            if self.0.len() >= end {
                self.0.extend_from_slice("…".as_bytes());
                break;
            }
            self.escaped(char);
        }
        self.0.push(b'"');
    }

    /// What would end the text or the line, or act on a terminal, is escaped.
    fn escaped(&mut self, char: char) {
        match char {
            '"' => self.0.extend_from_slice(b"\\\""),
            '\\' => self.0.extend_from_slice(b"\\\\"),
            '\n' => self.0.extend_from_slice(b"\\n"),
            '\t' => self.0.extend_from_slice(b"\\t"),
            _ if escape::is_obeyed(char) => {
                let mut escaped = String::new();
                escape::push_json(&mut escaped, char);
                self.0.extend_from_slice(escaped.as_bytes());
            }
            _ => self.0.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// A line that a worker printed and that is one of a log in JSON. Which worker's, its reader knows
/// better than the line.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PrintedLine {
    /// When.
    pub ts: String,
    /// How much it matters.
    #[serde(deserialize_with = "level")]
    pub level: Level,
    /// Where in the program.
    pub target: String,
    /// What.
    pub message: String,
    /// Whose it is.
    pub tenant: Option<String>,
    /// The request that it is about.
    pub request_id: Option<String>,
}

impl PrintedLine {
    /// Reads a line without its end; `None` for one that is not ours, such as a panic's message, or
    /// half a line.
    pub fn read(line: &str) -> Option<Self> {
        // As our own begin: what else prints JSON is not taken for a log.
        if !line.starts_with("{\"ts\":\"") {
            return None;
        }
        serde_json::from_str(line).ok().filter(|line: &Self| line.ts.parse::<Timestamp>().is_ok())
    }
}

/// As it is in a log of text, on one line.
impl fmt::Display for PrintedLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape::one_line(&format!("[{}] {}", self.target, self.message)))
    }
}

fn level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Level, D::Error> {
    let text = Cow::<str>::deserialize(deserializer)?;
    text.parse().map_err(|_| serde::de::Error::custom("it is no level"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    const MASTER: Origin = Origin { role: "master", pid: 7, worker: None };
    const WORKER_3: Origin = Origin { role: "worker", pid: 8, worker: Some(3) };

    fn write(message: &str, pairs: &[(&str, Value<'_>)], origin: Origin) -> String {
        let now = Timestamp::from_unix_micros(1_709_210_096_000_120).expect("a time");
        let mut record = Record::builder();
        let record = record.level(Level::Warn).target("mesophyll::x").key_values(&pairs);
        String::from_utf8(line(&record.args(format_args!("{message}")).build(), origin, now))
            .expect("UTF-8")
    }

    fn parsed(line: &str) -> Json {
        let line = line.strip_suffix('\n').expect("a line");
        assert!(!line.contains(escape::is_obeyed), "{line:?}");
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    #[test]
    fn a_line_has_a_time_an_origin_and_its_subject() {
        let about = [
            (WORKER, Value::from(1usize)),
            (TENANT, Value::from("guild:5")),
            (REQUEST_ID, Value::from("ab")),
        ];
        assert_eq!(
            write("worker 1 did", &about, MASTER),
            "{\"ts\":\"2024-02-29T12:34:56.000120Z\",\"level\":\"warn\",\"role\":\"master\",\"pid\":7,\"worker\":1,\
             \"tenant\":\"guild:5\",\"request_id\":\"ab\",\"target\":\"mesophyll::x\",\"message\":\"worker 1 did\"}\n"
        );
        let plain = parsed(&write("x", &[("colour", Value::from("red"))], WORKER_3));
        assert_eq!(
            (&plain["role"], &plain["pid"], &plain["worker"]),
            (&json!("worker"), &json!(8), &json!(3))
        );
        assert_eq!((plain.get("tenant"), plain.get("colour")), (None, None));
    }

    #[test]
    fn whatever_the_message_it_is_one_line_and_comes_back_as_it_was() {
        let all: String = (0..0x2100u32).filter_map(char::from_u32).collect();
        for message in [
            "",
            "\"}\n{\"ts\":\"",
            "a\r\nb\0c\u{1b}[2J\u{9b}\u{2028}",
            "𝄞 ö \\ \\u0041",
            all.as_str(),
        ] {
            assert!(
                parsed(&write(message, &[], MASTER))["message"] == json!(message),
                "{}",
                message.len()
            );
        }
    }

    #[test]
    fn a_line_of_text_is_one_line_with_its_time_whatever_it_says() {
        let message = "E\nERROR forged \u{1b}[31m\u{202e}\u{9b}2J";
        let about = [(BELOW, Value::from("INFO  [x] y\n\u{1b}[2J"))];
        let written = |now| {
            let mut record = Record::builder();
            let record = record.level(Level::Warn).target("x\n").key_values(&about);
            text(&record.args(format_args!("{message}")).build(), now)
        };
        let escaped =
            "E\\nERROR forged \\u{1b}[31m\\u{202e}\\u{9b}2J\n    INFO  [x] y\n    \\u{1b}[2J";
        let expected =
            Text { time: String::new(), target: "x\\n".to_owned(), message: escaped.to_owned() };
        assert_eq!(written(None), expected);
        let timed = written(Timestamp::from_unix_micros(1_709_210_096_000_120).ok());
        let time = "2024-02-29T12:34:56.000120Z";
        assert_eq!(timed, Text { time: format!("{time} "), ..expected });
        assert_eq!(split_time(&format!("{time} WARN  [x] y")), (Some(time), "WARN  [x] y"));
        // One that a worker printed keeps the time that it had there.
        let earlier = [(TS, Value::from("2024-02-29T12:34:55.000000Z"))];
        let mut record = Record::builder();
        let written = text(
            &record.key_values(&earlier).args(format_args!("a")).build(),
            Some(Timestamp::EPOCH),
        );
        assert_eq!(written.time, "2024-02-29T12:34:55.000000Z ");
        for none in ["", "INFO  x", "2024-02-29T12:34:56Z x", "2024-02-30T12:34:56.000120Z x"] {
            assert_eq!(split_time(none), (None, none));
        }
    }

    #[test]
    fn a_long_message_is_cut_so_that_a_master_reads_the_line() {
        for char in ["x", "\u{1}", "𝄞", "\n", "\u{e0041}"] {
            for length in [8000, 8100, 8190, 100_000] {
                let message = char.repeat(length);
                let line = write(&message, &[(TENANT, Value::from("user:1"))], WORKER_3);
                assert!(line.len() <= WORKER_OUTPUT_LINE_MAX_BYTES, "{}", line.len());
                let read = PrintedLine::read(line.trim_end()).expect("whole");
                let cut = read.message.strip_suffix('…').unwrap_or(&read.message);
                assert!(
                    message.starts_with(cut)
                        && line.len() + 64 > WORKER_OUTPUT_LINE_MAX_BYTES.min(length)
                );
            }
        }
        assert!(write(&"x".repeat(1 << 20), &[], MASTER).len() <= LOG_LINE_MAX_BYTES);
    }

    #[test]
    fn a_line_of_a_worker_is_read_with_its_fields() {
        let about = [(TENANT, Value::from("guild:5")), (REQUEST_ID, Value::from("ab"))];
        let line = write("it \"ran\"", &about, WORKER_3);
        let line = line.trim_end();
        let read = PrintedLine::read(line).expect("ours");
        assert_eq!(
            (read.level, read.to_string().as_str()),
            (Level::Warn, "[mesophyll::x] it \"ran\"")
        );
        assert_eq!(
            (read.tenant.as_deref(), read.request_id.as_deref()),
            (Some("guild:5"), Some("ab"))
        );
        // Logged again it is as it was.
        let again = [
            (TS, Value::from(&*read.ts)),
            (ROLE, Value::from("worker")),
            (PID, Value::from(8u32)),
            (WORKER, Value::from(3usize)),
            (TENANT, Value::from("guild:5")),
            (REQUEST_ID, Value::from("ab")),
            (TARGET, Value::from(&*read.target)),
            (MESSAGE, Value::from(&*read.message)),
        ];
        assert_eq!(write("worker 3 (pid 8): …", &again, MASTER).trim_end(), line);
        let read =
            PrintedLine::read(write("a\n\nERROR b\u{1b}", &[], WORKER_3).trim_end()).expect("ours");
        assert_eq!(read.to_string(), "[mesophyll::x] a\\n\\nERROR b\\u{1b}");
        for end in 0..line.len() {
            assert_eq!(PrintedLine::read(line.get(..end).unwrap_or_default()), None, "half a line");
        }
        for other in [
            "thread 'x' panicked",
            "{}",
            "[]",
            r#"{"ts":"yesterday","level":"warn","target":"","message":""}"#,
            r#"{"ts":"2024-02-29T12:34:56Z","level":"loud","target":"","message":""}"#,
            r#"{"ts":"2024-02-29T12:34:56Z","level":"warn","target":"","message":3}"#,
            r#"{"level":"warn","ts":"2024-02-29T12:34:56Z","target":"","message":""}"#,
        ] {
            assert_eq!(PrintedLine::read(other), None, "{other}");
        }
    }
}
