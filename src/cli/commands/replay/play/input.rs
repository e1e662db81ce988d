//! A replay's input as numbered lines, read by a thread of its own (`input`): a silent stdin must
//! hold up neither the results of events that were read before nor a signal.
//!
//! Owned by the replay, which joins the thread; what wakes it from a read that blocks is the other
//! end of a socket pair.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::base::thread::{self, OwnedThread};

use super::line::LINE_MAX_BYTES;
use crate::cli::console::interruptible::Interruptible;

/// Limit: lines that are read but not dispatched; each may be large, and two are enough to keep
/// both threads busy.
const LINES_AHEAD: usize = 2;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A line of the input, without its end; of one that is too long only the beginning.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InputLine {
    /// From 1.
    pub(super) number: u64,
    pub(super) text: Vec<u8>,
}

/// The lines of an input, as they come. The channel closes at its end.
#[derive(Debug)]
pub(super) struct ReplayInput {
    lines_rx: Receiver<io::Result<InputLine>>,
    // In this order: the thread has its wake-up, and no receiver, before it is joined.
    _wake: UnixStream,
    _thread: OwnedThread,
}

impl ReplayInput {
    /// Opens a file (`-` is stdin) and starts to read it, `rounds` times.
    ///
    /// # Errors
    /// There is no such file, or no thread for it.
    pub(super) fn open(path: &str, rounds: usize) -> io::Result<Self> {
        let open = opener(path);
        // The likeliest mistake, a missing file, is found before anything is started.
        let first = open()?;
        let (wake, woken) = UnixStream::pair()?;
        let (lines_tx, lines_rx) = bounded(LINES_AHEAD);
        let thread = thread::spawn("input", move || {
            let mut files = std::iter::once(Ok(first)).chain((1..rounds).map(|_| open()));
            while files.next().is_some_and(|file| send_lines(file, &woken, &lines_tx)) {}
        })?;
        Ok(Self { lines_rx, _wake: wake, _thread: thread })
    }

    /// The lines that have been read.
    pub(super) fn lines_rx(&self) -> &Receiver<io::Result<InputLine>> {
        &self.lines_rx
    }
}

fn opener(path: &str) -> impl Fn() -> io::Result<File> + Send + 'static {
    let path = (path != "-").then(|| PathBuf::from(path));
    move || match &path {
        Some(path) => File::open(path),
        None => Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?)),
    }
}

/// Sends every line of a file that has any text; false if no more is wanted.
fn send_lines(
    file: io::Result<File>,
    woken: &UnixStream,
    lines_tx: &Sender<io::Result<InputLine>>,
) -> bool {
    let mut number = 0;
    let mut text = Vec::new();
    let mut input = match file {
        Ok(file) => BufReader::with_capacity(64 * 1024, Interruptible { file, woken }),
        Err(error) => return lines_tx.send(Err(error)).is_ok(),
    };
    loop {
        match read_line(&mut input, &mut text) {
            Ok(false) => return true,
            Ok(true) => {
                number += 1;
                // Some editors write it before a file's text.
                if number == 1 && text.starts_with(BYTE_ORDER_MARK) {
                    text.drain(..BYTE_ORDER_MARK.len());
                }
            }
            Err(error) => {
                // The reader stops at an error, and the receiver may be gone.
                let _ = lines_tx.send(Err(error));
                return false;
            }
        }
        if !text.trim_ascii().is_empty()
            && lines_tx.send(Ok(InputLine { number, text: text.clone() })).is_err()
        {
            return false;
        }
    }
}

/// Reads a line without its end; of one that is too long only the beginning, and the rest is
/// skipped. False at the end.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let buffer = match input.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if buffer.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let piece = &buffer[..end.unwrap_or(buffer.len())];
        // One byte more than allowed, so that the parser can tell.
        let room = (LINE_MAX_BYTES + 1).saturating_sub(line.len());
        line.extend_from_slice(&piece[..piece.len().min(room)]);
        let used = end.map_or(buffer.len(), |end| end + 1);
        input.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(mut input: &[u8]) -> Vec<Vec<u8>> {
        let mut line = Vec::new();
        let mut lines = Vec::new();
        while read_line(&mut input, &mut line).expect("reads") {
            lines.push(line.clone());
        }
        lines
    }

    #[test]
    fn lines_end_with_the_input_too() {
        assert_eq!(lines(b"a\n\nb"), [b"a".to_vec(), b"".to_vec(), b"b".to_vec()]);
        assert_eq!(lines(b""), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn a_line_too_long_neither_grows_memory_nor_ends_the_run() {
        let mut input = vec![b'x'; LINE_MAX_BYTES * 2];
        input.extend_from_slice(b"\nnext\n");
        let lines = lines(&input);
        assert_eq!(lines[0].len(), LINE_MAX_BYTES + 1);
        assert_eq!(lines[1], b"next");
    }

    #[test]
    fn an_input_that_cannot_be_read_is_an_error_in_its_place() {
        let input = ReplayInput::open("/", 2).expect("a directory opens");
        assert!(matches!(input.lines_rx().recv(), Ok(Err(_))));
        assert!(input.lines_rx().recv().is_err(), "and nothing comes after it");
        assert!(ReplayInput::open("/nowhere", 1).is_err());
    }

    #[test]
    fn lines_keep_their_numbers_and_every_round_begins_anew() {
        let path = std::env::temp_dir().join(format!("mesophyll-input-{}", std::process::id()));
        std::fs::write(&path, "\u{feff}a\n \n\nb").expect("a file");
        let input = ReplayInput::open(path.to_str().expect("a plain path"), 2).expect("opens");
        let lines: Vec<(u64, Vec<u8>)> = input
            .lines_rx()
            .iter()
            .map(|line| line.map(|line| (line.number, line.text)).expect("reads"))
            .collect();
        std::fs::remove_file(&path).expect("removed");
        let round = [(1, b"a".to_vec()), (4, b"b".to_vec())];
        assert_eq!(lines, [round.clone(), round].concat());
    }
}
