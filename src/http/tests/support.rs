//! A handler with one path for each thing to test, and a client that sends raw bytes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::http::{Body, Handler, HttpLimits, HttpServer, Reply, RequestHead, Response};

/// Tests wait at most this long for something that should happen at once.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes of the answer to `/big`: more than the sockets' buffers hold.
pub(super) const BIG_BYTES: usize = 16 * 1024 * 1024;

pub(super) fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// Limits under which nothing happens by time in a test that does not ask for it.
pub(super) fn patient() -> HttpLimits {
    HttpLimits {
        head_timeout: PATIENCE,
        body_timeout: PATIENCE,
        idle_timeout: PATIENCE,
        write_timeout: PATIENCE,
        ..HttpLimits::default()
    }
}

struct Paths {
    entered_tx: Sender<()>,
    go_rx: Receiver<()>,
    upgraded_tx: Sender<(TcpStream, Vec<u8>)>,
}

impl Handler for Paths {
    fn handle(&self, head: &RequestHead, body: &mut Body<'_>) -> Reply {
        match head.path() {
            "/hello" => Response::text(200, "hello").into(),
            "/echo" => match body.read_to_end(1024 * 1024) {
                Ok(bytes) => Response::bytes(200, bytes).into(),
                Err(error) => Response::text(error.status(), &error.to_string()).into(),
            },
            "/query" => Response::text(200, head.query("a").unwrap_or("none")).into(),
            "/chunked" => Response::chunked(200, "text/plain", (0..3).map(|n| vec![b'a'; n * 2])).into(),
            "/split" => Response::text(200, "x").with_header("X-Evil", "a\r\nX-Injected: b").into(),
            "/empty" => Response::empty(204).into(),
            "/bad" => Response::text(400, "bad").into(),
            "/big" => Response::bytes(200, vec![b'x'; BIG_BYTES]).into(),
            "/panic" => panic!("on purpose"),
            "/wait" => {
                self.entered_tx.send(()).expect("the test counts the entries");
                self.go_rx.recv_timeout(PATIENCE).ok();
                Response::text(200, "waited").into()
            }
            "/upgrade" => {
                let upgraded_tx = self.upgraded_tx.clone();
                Reply::Upgrade(Box::new(move |stream, early| {
                    upgraded_tx.send((stream, early)).expect("the test takes it");
                }))
            }
            _ => Response::text(404, "not found").into(),
        }
    }
}

/// A server and the ends of its handler's channels.
pub(super) struct Fixture {
    pub(super) server: HttpServer,
    /// Something for each request that entered `/wait`.
    pub(super) entered_rx: Receiver<()>,
    /// Dropped or sent to: `/wait` goes on.
    pub(super) go_tx: Sender<()>,
    pub(super) upgraded_rx: Receiver<(TcpStream, Vec<u8>)>,
}

pub(super) fn serve(limits: HttpLimits) -> Fixture {
    let (entered_tx, entered_rx) = unbounded();
    let (go_tx, go_rx) = bounded(64);
    let (upgraded_tx, upgraded_rx) = unbounded();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let handler = Arc::new(Paths { entered_tx, go_rx, upgraded_tx });
    let server = HttpServer::start(listener, "test", limits, handler).expect("the server starts");
    Fixture { server, entered_rx, go_tx, upgraded_rx }
}

impl Fixture {
    pub(super) fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.server.local_addr()).expect("the server accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
        Client { stream, rest: Vec::new() }
    }

    /// Sends raw bytes on a connection of their own and reads all that comes.
    pub(super) fn ask(&self, request: &[u8]) -> Answer {
        let mut client = self.connect();
        client.send(request);
        client.answer()
    }

    /// Waits until a figure of the server is as it should be.
    pub(super) fn wait_until(&self, what: &str, is_so: impl Fn(crate::http::HttpStats) -> bool) {
        let deadline = soon();
        while !is_so(self.server.stats()) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.server.stats());
            std::thread::yield_now();
        }
    }
}

/// A client that says what it is told to.
pub(super) struct Client {
    pub(super) stream: TcpStream,
    rest: Vec<u8>,
}

/// An answer as it came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(super) fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }
}

impl Client {
    /// Sends; a server that has closed already is no failure of the client's.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    pub(super) fn finish_writing(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads one answer, by its length.
    pub(super) fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    pub(super) fn answer_to(&mut self, method: &str) -> Answer {
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

    pub(super) fn head(&mut self) -> String {
        self.until(b"\r\n\r\n")
    }

    fn until(&mut self, end: &[u8]) -> String {
        loop {
            if let Some(at) = self.rest.windows(end.len()).position(|window| window == end) {
                let taken: Vec<u8> = self.rest.drain(..at + end.len()).collect();
                return String::from_utf8(taken).expect("text");
            }
            assert!(self.fill() > 0, "the server closed after {:?}", String::from_utf8_lossy(&self.rest));
        }
    }

    pub(super) fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.rest.len() < length {
            assert!(self.fill() > 0, "the server closed too early");
        }
        self.rest.drain(..length).collect()
    }

    /// All that still comes; the server must close, and not by a reset.
    pub(super) fn until_end(&mut self) -> Vec<u8> {
        while self.fill() > 0 {}
        std::mem::take(&mut self.rest)
    }

    fn fill(&mut self) -> usize {
        let mut buffer = [0; 65_536];
        let got = self.stream.read(&mut buffer).expect("bytes or an end before the test's patience ends");
        self.rest.extend_from_slice(&buffer[..got]);
        got
    }
}
