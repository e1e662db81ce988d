//! A handler with one path for each thing to test.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, bounded, unbounded};

pub(super) use crate::net::http::tests::client::{Answer, Client, PATIENCE};
use crate::net::http::{Body, Handler, HttpLimits, HttpServer, RequestHead, Response};
use crate::net::stream::Stream;
use crate::net::stream::tls::TlsServer;

/// Bytes of the answer to `/big`: more than the sockets' buffers hold.
pub(super) const BIG_BYTES: usize = 16 * 1024 * 1024;

pub(super) fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// The pace of a slow peer; nothing waits for it that could have an event to wait for.
pub(super) fn pace(pause: Duration) {
    let _ = after(pause).recv();
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
    upgraded_tx: Sender<(Stream, Vec<u8>)>,
}

struct SaysItsEnd(Sender<()>);

impl Drop for SaysItsEnd {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

impl Handler for Paths {
    fn handle(&self, head: &RequestHead, body: &mut Body<'_>) -> Response {
        match head.path() {
            "/hello" => Response::text(200, "hello"),
            "/echo" => match body.read_to_end(1024 * 1024) {
                Ok(bytes) => Response::bytes(200, bytes),
                Err(error) => Response::text(error.status(), &error.to_string()),
            },
            "/query" => Response::text(200, head.query("a").unwrap_or("none")),
            "/chunked" => Response::chunked(200, "text/plain", (0..3).map(|n| vec![b'a'; n * 2])),
            // Pauses before its last piece for longer than an answer may take in the tests of that.
            "/slow" | "/unhurried" => {
                let pieces = (0..2).map(|number| {
                    pace(Duration::from_millis(1500 * number));
                    vec![b'a' + u8::try_from(number).unwrap_or(0); 70_000]
                });
                let response = Response::chunked(200, "text/plain", pieces);
                if head.path() == "/slow" { response } else { response.unhurried() }
            }
            // Each piece is counted when it is made; the second is never made of what is broken.
            "/pieces" | "/broken" => {
                let (is_broken, made_tx) = (head.path() == "/broken", self.entered_tx.clone());
                let pieces = (0..1000).map(move |number| {
                    assert!(!is_broken || number == 0, "on purpose");
                    made_tx.send(()).expect("the test counts the pieces");
                    vec![b'x'; 64 * 1024]
                });
                Response::chunked(200, "text/plain", pieces).unhurried()
            }
            // Its second piece is made when the test says so.
            "/live" => {
                let (go_rx, entered_tx) = (self.go_rx.clone(), self.entered_tx.clone());
                let pieces = (0..2).map(move |number| {
                    if number > 0 {
                        entered_tx.send(()).expect("the test counts the entries");
                        go_rx.recv_timeout(PATIENCE).ok();
                    }
                    vec![b'a' + number; 3]
                });
                Response::chunked(200, "text/plain", pieces).live()
            }
            // Has nothing to say after its first piece, and says when it ends.
            "/idle" => {
                let told = SaysItsEnd(self.entered_tx.clone());
                let pieces = (0_u64..).map(move |number| {
                    let _told = &told;
                    pace(Duration::from_millis(10 * number.min(1)));
                    vec![b'a'; if number == 0 { 3 } else { 0 }]
                });
                Response::chunked(200, "text/plain", pieces).live()
            }
            "/split" => Response::text(200, "x").with_header("X-Evil", "a\r\nX-Injected: b"),
            "/empty" => Response::empty(204),
            "/bad" => Response::text(400, "bad"),
            "/big" => Response::bytes(200, vec![b'x'; BIG_BYTES]),
            "/panic" => panic!("on purpose"),
            "/wait" => {
                self.entered_tx.send(()).expect("the test counts the entries");
                self.go_rx.recv_timeout(PATIENCE).ok();
                Response::text(200, "waited")
            }
            "/upgrade" => {
                let upgraded_tx = self.upgraded_tx.clone();
                Response::upgrade(move |stream, early| {
                    upgraded_tx.send((stream, early)).expect("the test takes it");
                })
            }
            _ => Response::text(404, "not found"),
        }
    }
}

/// A server and the ends of its handler's channels.
pub(super) struct Fixture {
    /// Dropped or sent to: `/wait` goes on. First, so that a test that fails does not wait for its
    /// server.
    pub(super) go_tx: Sender<()>,
    pub(super) server: HttpServer,
    /// Something for each request that entered `/wait`.
    pub(super) entered_rx: Receiver<()>,
    pub(super) upgraded_rx: Receiver<(Stream, Vec<u8>)>,
}

pub(super) fn serve(limits: HttpLimits) -> Fixture {
    serve_over(None, limits)
}

pub(super) fn serve_over(tls: Option<Arc<TlsServer>>, limits: HttpLimits) -> Fixture {
    let (entered_tx, entered_rx) = unbounded();
    let (go_tx, go_rx) = bounded(64);
    let (upgraded_tx, upgraded_rx) = unbounded();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let handler = Arc::new(Paths { entered_tx, go_rx, upgraded_tx });
    let server = HttpServer::start_over(listener, tls, "test", limits, handler);
    let server = server.expect("the server starts");
    Fixture { server, entered_rx, go_tx, upgraded_rx }
}

impl Fixture {
    pub(super) fn connect(&self) -> Client {
        Client::connect(self.server.local_addr())
    }

    /// Sends raw bytes on a connection of their own and reads all that comes.
    pub(super) fn ask(&self, request: &[u8]) -> Answer {
        let mut client = self.connect();
        client.send(request);
        client.answer()
    }

    /// Sends a request that must be refused in one line, and its connection closed.
    #[track_caller]
    pub(super) fn assert_refused(&self, request: &str, status: u16) {
        let mut client = self.connect();
        client.send(request.as_bytes());
        // Were the connection kept, this would be answered too.
        client.send(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (status, true), "{request:?}");
        assert_eq!(client.until_end(), b"", "{request:?}");
        assert_eq!(answer.text().lines().count(), 1, "{request:?}");
    }

    /// Asks until there is a place: a connection whose answer has just arrived is still writing for
    /// a moment.
    pub(super) fn ask_until_served(&self) {
        let deadline = soon();
        while self.ask(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").status != 200 {
            assert!(Instant::now() < deadline, "nobody makes room");
        }
    }

    /// Waits until so many connections wait for their peers: an answer is read before its
    /// connection's thread goes on to that.
    #[track_caller]
    pub(super) fn wait_waiting(&self, count: usize) {
        let deadline = soon();
        while self.server.waiting() != count {
            assert!(Instant::now() < deadline, "{} wait, not {count}", self.server.waiting());
            pace(Duration::from_millis(1));
        }
    }

    /// Waits until a figure of the server is as it should be.
    pub(super) fn wait_until(
        &self,
        what: &str,
        is_so: impl Fn(crate::net::http::HttpStats) -> bool,
    ) {
        let deadline = soon();
        while !is_so(self.server.stats()) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.server.stats());
            std::thread::yield_now();
        }
    }
}
