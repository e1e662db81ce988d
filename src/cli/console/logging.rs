//! Where logs go: to stderr, and nowhere else, as lines of text or of JSON. A log that cannot be
//! read ends nothing.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use log::{Level, LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;

use crate::base::process_figures::LOG_LINES_LOST;
use crate::base::sync::Lock;
use crate::base::thread::panic_message;
use crate::master::config::LogFormat;
use crate::wire::data::Timestamp;
use crate::wire::log_line::{self, Origin};

use super::output;

/// How long nothing is logged after a line that could not be written, such as to a pipe that its
/// reader has closed.
const PAUSE: Duration = Duration::from_secs(1);

/// How the targets of our own records begin; every other crate's begin with its name.
const OURS: [&str; 2] = ["mesophyll", "tenant/"];

/// Starts logging at a level, which `log::set_max_level` changes while it runs, as this command
/// (and this worker, if it is one). A second call changes the level only.
pub(in crate::cli) fn init(
    level: LevelFilter,
    format: LogFormat,
    role: &'static str,
    worker: Option<usize>,
) {
    start(
        level,
        match format {
            LogFormat::Text => {
                LogForm::Text { writer: text_writer(), has_time: !is_journal(), scripts: None }
            }
            LogFormat::Json => LogForm::Json(Origin { role, pid: std::process::id(), worker }),
        },
    );
}

/// As [`init`] in text, for a person who tries templates: what scripts print stands without what a
/// log has before it. `others`: of what no script said no more than this level, as long as the
/// level is not changed while it runs.
#[cfg_attr(not(feature = "luau"), allow(dead_code))]
pub(in crate::cli) fn init_for_scripts(level: LevelFilter, others: LevelFilter) {
    let is_terminal = io::stderr().is_terminal();
    start_for_scripts(Scripts { level, others, is_terminal, kept: None });
}

/// As [`init_for_scripts`], but what scripts print is kept for the command to show, and of all else
/// only errors are logged.
#[cfg_attr(not(feature = "luau"), allow(dead_code))]
pub(in crate::cli) fn init_to_keep_scripts() -> Arc<Lock<Vec<String>>> {
    let (kept, others) = (Arc::<Lock<Vec<String>>>::default(), LevelFilter::Error);
    let level = LevelFilter::Debug;
    start_for_scripts(Scripts { level, others, is_terminal: false, kept: Some(kept.clone()) });
    kept
}

fn start_for_scripts(scripts: Scripts) {
    let (writer, has_time, level) = (text_writer(), !is_journal(), scripts.level);
    start(level, LogForm::Text { writer, has_time, scripts: Some(scripts) });
}

fn start(level: LevelFilter, form: LogForm) {
    IS_JSON.store(matches!(form, LogForm::Json(_)), Ordering::Relaxed);
    // What a panic says may quote a tenant's text, and is several lines.
    std::panic::set_hook(Box::new(log_panic));
    // If there is a logger already, it stays.
    let _ = log::set_boxed_logger(Box::new(Steady::new(form)));
    log::set_max_level(level);
}

/// Writes lines of text of any level: which are logged is decided before.
fn text_writer() -> SimpleLogger {
    SimpleLogger::new().with_level(LevelFilter::Trace)
}

/// Whether there is a log in JSON. Written once, before anything is logged.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Logs why a command ends, if that would be a line of text among those of JSON; false if it did
/// not.
pub(in crate::cli) fn takes_last_error(text: &str) -> bool {
    let takes = IS_JSON.load(Ordering::Relaxed) && log::log_enabled!(Level::Error);
    if takes {
        log::error!("{text}");
    }
    takes
}

/// Logs a panic, with a backtrace where RUST_BACKTRACE asks for one; without a log it is said as it
/// is.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let at = panic.location().map_or_else(String::new, |place| format!(" at {place}"));
    let text = format!(
        "thread {} panicked{at}: {}",
        thread.name().unwrap_or("?"),
        panic_message(panic.payload())
    );
    let backtrace = Backtrace::capture();
    let is_captured = backtrace.status() == BacktraceStatus::Captured;
    let below = if is_captured { backtrace.to_string() } else { String::new() };
    if log::log_enabled!(Level::Error) {
        log::error!(below = below.as_str(); "{text}");
    } else {
        output::tell(&text);
    }
}

/// Whether stderr is the journal's, which has a time for each line: systemd.exec(5) has
/// `JOURNAL_STREAM`, and why the name alone does not tell.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let stderr =
        io::stderr().as_fd().try_clone_to_owned().and_then(|stderr| File::from(stderr).metadata());
    stderr.is_ok_and(|stderr| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
}

/// What a log looks like.
enum LogForm {
    Text { writer: SimpleLogger, has_time: bool, scripts: Option<Scripts> },
    Json(Origin),
}

/// How what scripts print stands among lines of text.
struct Scripts {
    /// The level that the log started with.
    level: LevelFilter,
    /// The level of everything else.
    others: LevelFilter,
    /// There may be a line of progress to write over.
    is_terminal: bool,
    /// Where it is kept instead. Limit: what tenants may log, until it is taken.
    kept: Option<Arc<Lock<Vec<String>>>>,
}

impl Scripts {
    /// The line of what a script printed, `Some("")` for what is not shown; `None` for a line like
    /// any other.
    fn line(&self, record: &Record<'_>) -> Option<String> {
        match log_line::script_text(record) {
            Some(line) => Some(match &self.kept {
                Some(kept) => {
                    kept.lock().push(line.trim_end().to_owned());
                    String::new()
                }
                None if self.is_terminal => format!("\r\x1b[K{line}"),
                None => line,
            }),
            None => {
                (record.level() > self.others && log::max_level() == self.level).then(String::new)
            }
        }
    }
}

impl Sink for LogForm {
    /// Other crates log what they handle, which is tenants' values and tokens, at their finer
    /// levels; a level that is set for the log of this program does not reach them.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn
            || OURS.iter().any(|ours| metadata.target().starts_with(ours))
    }

    fn write(&self, record: &Record<'_>, begins_anew: bool) -> bool {
        if !self.enabled(record.metadata()) {
            return true;
        }
        let (now, begin) = (Timestamp::now(), if begins_anew { "\n" } else { "" });
        // A message is made into text before the lock, as its making may take locks of its
        // own.
        match self {
            LogForm::Json(origin) => {
                let line = log_line::line(record, *origin, now);
                io::stderr().lock().write_all(&[begin.as_bytes(), &line].concat()).is_ok()
            }
            LogForm::Text { writer, has_time, scripts } => {
                if let Some(line) = scripts.as_ref().and_then(|scripts| scripts.line(record)) {
                    return io::stderr().lock().write_all(line.as_bytes()).is_ok();
                }
                let text = log_line::text(record, has_time.then_some(now));
                // The writer takes this lock again, inside: no other thread tears a line.
                let mut stderr = io::stderr().lock();
                let is_begun = stderr.write_all(format!("{begin}{}", text.time).as_bytes()).is_ok();
                let mut escaped = Record::builder();
                escaped.level(record.level()).target(&text.target);
                writer.log(&escaped.args(format_args!("{}", text.message)).build());
                is_begun
            }
        }
    }
}

thread_local! {
    /// Whether this thread writes a line. Where that panics, as a broken stderr makes it, the hook
    /// would log the panic, whose line would panic in turn, which ends the process.
    static IS_WRITING: Cell<bool> = const { Cell::new(false) };
}

/// Where lines go.
trait Sink: Send + Sync {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool;

    /// Writes a line; false, or a panic, if that failed. `begins_anew`: the line before may have
    /// been written in part.
    fn write(&self, record: &Record<'_>, begins_anew: bool) -> bool;
}

impl<S: Sink> Steady<S> {
    fn new(inner: S) -> Self {
        Self { inner, failed_at: Lock::new(None), lost: AtomicU64::new(0) }
    }

    /// Counts a line that is not written, but for one that another line's writing logs: to say so
    /// would log it again.
    fn lose(&self, record: &Record<'_>) {
        if self.inner.enabled(record.metadata()) {
            LOG_LINES_LOST.fetch_add(1, Ordering::Relaxed);
            self.lost.fetch_add(u64::from(!IS_WRITING.get()), Ordering::Relaxed);
        }
    }

    /// Says how many lines were lost before the one that was just written.
    fn say_lost(&self) -> bool {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let mut line = Record::builder();
        line.level(Level::Warn).target(OURS[0]);
        let text = format_args!("{lost} lines of the log were lost: stderr did not take them");
        let is_said = lost == 0 || self.inner.write(&line.args(text).build(), false);
        if !is_said {
            self.lost.fetch_add(lost, Ordering::Relaxed);
        }
        is_said
    }
}

/// A logger whose failure is no panic, not even where a value that is logged panics: it would end
/// the thread that logs: the supervisor, a link, the one that stops the master.
struct Steady<S> {
    inner: S,
    failed_at: Lock<Option<Instant>>,
    /// Lines that were lost and are not said to be.
    lost: AtomicU64,
}

impl<S: Sink> Log for Steady<S> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.inner.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let failed_at = *self.failed_at.lock();
        // After a failure it is tried again, as a stderr may be full for a moment only; but not for
        // each line, as each failure may be a panic that is caught, which costs milliseconds where
        // a backtrace is wanted.
        if failed_at.is_some_and(|at| at.elapsed() < PAUSE) || IS_WRITING.replace(true) {
            return self.lose(record);
        }
        let write = || self.inner.write(record, failed_at.is_some());
        let is_written = catch_unwind(AssertUnwindSafe(write)).unwrap_or(false);
        let say = || is_written && self.say_lost();
        let is_said = catch_unwind(AssertUnwindSafe(say)).unwrap_or(false);
        IS_WRITING.set(false);
        if !is_written {
            self.lose(record);
        }
        if !is_said {
            *self.failed_at.lock() = Some(Instant::now());
        } else if failed_at.is_some() {
            *self.failed_at.lock() = None;
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    /// Fails as `eprintln!` does, or quietly.
    struct Broken {
        lines: AtomicU32,
        is_quiet: bool,
    }

    impl Sink for Broken {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn write(&self, _: &Record<'_>, _: bool) -> bool {
            self.lines.fetch_add(1, Ordering::SeqCst);
            assert!(self.is_quiet, "failed printing to stderr");
            false
        }
    }

    /// Notes each line, with a plus where it begins anew.
    #[derive(Default)]
    struct Well(Lock<Vec<String>>);

    impl Sink for Well {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn write(&self, record: &Record<'_>, begins_anew: bool) -> bool {
            let begin = if begins_anew { "+" } else { "" };
            self.0.lock().push(format!("{begin}{}", record.args()));
            true
        }
    }

    #[test]
    fn a_log_that_cannot_be_written_is_not_tried_each_line() {
        for is_quiet in [false, true] {
            let inner = Broken { lines: AtomicU32::new(0), is_quiet };
            let logger = Steady::new(inner);
            let record = Record::builder().args(format_args!("a line")).build();
            for _ in 0..100 {
                logger.log(&record);
            }
            assert_eq!(logger.inner.lines.load(Ordering::SeqCst), 1);
            *logger.failed_at.lock() = Instant::now().checked_sub(PAUSE);
            logger.log(&record);
            assert_eq!(logger.inner.lines.load(Ordering::SeqCst), 2, "it is tried again");
            assert_eq!(logger.lost.load(Ordering::SeqCst), 101, "all of them are lost");
        }
    }

    /// What it writes logs in its turn, as the hook of a panic does.
    static INNER: Steady<Echo> = Steady {
        inner: Echo(AtomicU32::new(0)),
        failed_at: Lock::new(None),
        lost: AtomicU64::new(0),
    };

    struct Echo(AtomicU32);

    impl Sink for Echo {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn write(&self, record: &Record<'_>, _: bool) -> bool {
            self.0.fetch_add(1, Ordering::SeqCst);
            INNER.log(record);
            true
        }
    }

    #[test]
    fn a_line_that_is_logged_while_a_line_is_written_is_not_written() {
        let record = Record::builder().args(format_args!("a line")).build();
        (0..2).for_each(|_| INNER.log(&record));
        assert_eq!(INNER.inner.0.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn other_crates_are_not_heard_below_warn_at_any_level() {
        let form = LogForm::Text { writer: text_writer(), has_time: true, scripts: None };
        let heard =
            |target, level| form.enabled(&Metadata::builder().target(target).level(level).build());
        for ours in ["mesophyll", "mesophyll::cli", "tenant/guild:5"] {
            assert!(heard(ours, Level::Trace), "{ours}");
        }
        for other in ["tokio_postgres::connection", "tungstenite", "ureq_proto::client", "redb", ""]
        {
            assert!(heard(other, Level::Warn) && !heard(other, Level::Info), "{other}");
        }
    }

    #[test]
    fn only_the_first_line_after_a_failure_begins_anew() {
        let logger = Steady::new(Well::default());
        *logger.failed_at.lock() = Instant::now().checked_sub(PAUSE);
        logger.lost.store(7, Ordering::SeqCst);
        let record = Record::builder().args(format_args!("a line")).build();
        (0..3).for_each(|_| logger.log(&record));
        let lines = ["+a line", "7 lines of the log were lost: stderr did not take them"];
        assert_eq!(*logger.inner.0.lock(), [&lines[..], &["a line", "a line"]].concat());
    }
}
