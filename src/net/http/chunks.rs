//! A request's body in chunks (RFC 9112, 7.1): sizes in hexadecimal, extensions that are skipped,
//! trailers that are thrown away.
//!
//! Strict where leniency has been used for request smuggling: lines end with CR LF, a size has
//! digits only. What the peer says of a chunk's size is believed when its bytes arrive.

use std::io::{self, ErrorKind};
use std::time::Instant;

use super::connection::Wire;
use crate::base::limits::{HTTP_CHUNK_LINE_MAX_BYTES, HTTP_HEAD_MAX_BYTES};

/// Room for a body grows by this as bytes arrive, however large a chunk is said to be.
const STEP_BYTES: usize = 64 * 1024;

/// Reads chunks off a connection. What has been read ahead is consumed when there is need for more,
/// or at the end: a chunk of a byte would otherwise move all that is behind it.
pub(super) struct Chunks<'w> {
    wire: &'w mut Wire,
    at: usize,
    deadline: Instant,
}

impl<'w> Chunks<'w> {
    pub(super) fn new(wire: &'w mut Wire, deadline: Instant) -> Self {
        Self { wire, at: 0, deadline }
    }

    /// Reads all chunks, at most `max_bytes` in all; `room` is asked before the body takes so much
    /// memory.
    ///
    /// # Errors
    /// `InvalidData`: they are malformed. `OutOfMemory`: they are too large. `ResourceBusy`: there
    /// is no room. Else the socket's.
    pub(super) fn read(
        mut self,
        max_bytes: usize,
        room: &mut dyn FnMut(u64) -> bool,
    ) -> io::Result<Vec<u8>> {
        let (mut body, mut granted) = (Vec::new(), 0);
        loop {
            let size = size_of_chunk(&self.line()?)?;
            if size == 0 {
                break;
            }
            let total = body.len() + size;
            if total > max_bytes {
                return Err(ErrorKind::OutOfMemory.into());
            }
            if total > granted {
                granted = total.max(2 * granted).min(max_bytes);
                if !room(granted as u64) {
                    return Err(ErrorKind::ResourceBusy.into());
                }
            }
            self.take(size, &mut body, granted)?;
            if !self.line()?.is_empty() {
                return Err(ErrorKind::InvalidData.into());
            }
        }
        let mut trailers = 0;
        loop {
            let line = self.line()?;
            trailers += line.len();
            match line.len() {
                0 => break,
                _ if trailers <= HTTP_HEAD_MAX_BYTES && is_header(line) => {}
                _ => return Err(ErrorKind::InvalidData.into()),
            }
        }
        self.wire.consume(self.at);
        Ok(body)
    }

    /// The next line, without its end.
    fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let data = &self.wire.data()[self.at..];
            let end = data.iter().position(|byte| *byte == b'\n');
            if end.unwrap_or(data.len()) > HTTP_CHUNK_LINE_MAX_BYTES {
                return Err(ErrorKind::InvalidData.into());
            }
            if let Some(end) = end {
                let line = data[..end].strip_suffix(b"\r").ok_or(ErrorKind::InvalidData)?.to_vec();
                let is_clean = !line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t');
                self.at += end + 1;
                return if is_clean { Ok(line) } else { Err(ErrorKind::InvalidData.into()) };
            }
            self.fill()?;
        }
    }

    /// Appends the next `size` bytes to a body that may take `granted` bytes of memory.
    fn take(&mut self, mut size: usize, body: &mut Vec<u8>, granted: usize) -> io::Result<()> {
        while size > 0 {
            let data = &self.wire.data()[self.at..];
            let part = &data[..size.min(data.len())];
            if part.is_empty() {
                if size < STEP_BYTES {
                    self.fill()?;
                    continue;
                }
                // Of a large chunk past the buffer.
                let start = body.len();
                grow(body, STEP_BYTES, granted);
                body.resize(start + STEP_BYTES, 0);
                let got = self.wire.read(&mut body[start..], self.deadline);
                body.truncate(start + *got.as_ref().unwrap_or(&0));
                size -= if got? == 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                } else {
                    body.len() - start
                };
                continue;
            }
            grow(body, part.len(), granted);
            body.extend_from_slice(part);
            let got = part.len();
            self.at += got;
            size -= got;
        }
        Ok(())
    }

    fn fill(&mut self) -> io::Result<()> {
        self.wire.consume(std::mem::take(&mut self.at));
        match self.wire.fill(self.deadline)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// Makes room for more bytes: a vector that grows by itself takes up to twice of what it needs.
fn grow(body: &mut Vec<u8>, by: usize, granted: usize) {
    let needed = body.len() + by;
    if needed > body.capacity() {
        let capacity = needed.max((2 * body.capacity()).min(granted));
        body.reserve_exact(capacity - body.len());
    }
}

/// Whether a trailer is one line of a head.
fn is_header(mut line: Vec<u8>) -> bool {
    line.extend_from_slice(b"\r\n\r\n");
    let mut slot = [httparse::EMPTY_HEADER];
    httparse::parse_headers(&line, &mut slot).is_ok_and(|parsed| parsed.is_complete())
}

/// The size in a chunk's first line; what follows a semicolon is an extension.
fn size_of_chunk(line: &[u8]) -> io::Result<usize> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    let is_size = (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    let text =
        std::str::from_utf8(digits).ok().filter(|_| is_size).ok_or(ErrorKind::InvalidData)?;
    usize::from_str_radix(text, 16).map_err(|_| ErrorKind::InvalidData.into())
}
