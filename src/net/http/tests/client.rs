//! A client for tests of servers: it says what it is told to, byte by byte, and waits for nothing
//! longer than its patience.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use crate::net::stream::Stream;

/// Tests wait at most this long for something that should happen at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A client that says what it is told to.
pub(crate) struct Client {
    pub(crate) stream: Stream,
    rest: Vec<u8>,
}

/// An answer as it came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }
}

impl Client {
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        Self::over(TcpStream::connect(addr).expect("the server accepts"))
    }

    pub(crate) fn over(stream: impl Into<Stream>) -> Self {
        let stream = stream.into();
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
        Self { stream, rest: Vec::new() }
    }

    /// Sends; a server that has closed already is no failure of the client's.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    pub(crate) fn finish_writing(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads one answer, by its length.
    pub(crate) fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    pub(crate) fn answer_to(&mut self, method: &str) -> Answer {
        let head = self.head();
        let status = head[9..12].parse().expect("a status");
        let mut answer = Answer { status, head, body: Vec::new() };
        if method == "HEAD" || status == 100 || status == 204 {
            return answer;
        }
        if answer.header("transfer-encoding") == Some("chunked") {
            loop {
                let line = self.until(b"\r\n");
                let size = usize::from_str_radix(line.trim_end(), 16).expect("a chunk's size");
                let chunk = self.exactly(size + 2);
                if size == 0 {
                    return answer;
                }
                answer.body.extend_from_slice(&chunk[..size]);
            }
        }
        match answer.header("content-length") {
            Some(length) => answer.body = self.exactly(length.parse().expect("a length")),
            None => answer.body = self.until_end(),
        }
        answer
    }

    pub(crate) fn head(&mut self) -> String {
        self.until(b"\r\n\r\n")
    }

    fn until(&mut self, end: &[u8]) -> String {
        loop {
            if let Some(at) = self.rest.windows(end.len()).position(|window| window == end) {
                let taken: Vec<u8> = self.rest.drain(..at + end.len()).collect();
                return String::from_utf8(taken).expect("text");
            }
            assert!(
                self.fill() > 0,
                "the server closed after {:?}",
                String::from_utf8_lossy(&self.rest)
            );
        }
    }

    pub(crate) fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.rest.len() < length {
            assert!(self.fill() > 0, "the server closed too early");
        }
        self.rest.drain(..length).collect()
    }

    /// All that still comes; the server must close, and not by a reset.
    pub(crate) fn until_end(&mut self) -> Vec<u8> {
        while self.fill() > 0 {}
        std::mem::take(&mut self.rest)
    }

    fn fill(&mut self) -> usize {
        let mut buffer = [0; 65_536];
        let got =
            self.stream.read(&mut buffer).expect("bytes or an end before the test's patience ends");
        self.rest.extend_from_slice(&buffer[..got]);
        got
    }
}
