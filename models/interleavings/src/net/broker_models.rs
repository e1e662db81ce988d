//! The worker's end of a broker, over a real socket that no thread ever waits for.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, recv};

use super::broker::{Ask, Broker, HandOut};
use crate::base::primitives::once_in;
use crate::check::{Model, spawn};

pub fn models() -> Vec<Model> {
    vec![Model { name: "broker", run: broker, is_tiny: false }]
}

/// What came of an ask.
type Asked = Result<(), ErrorKind>;

/// Each ask gets the answer to it, whichever asks come beside it and give up; and none waits for a
/// master that is gone.
fn broker() {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let broker = Arc::new(Broker::new(theirs.try_clone().expect("a socket").into()));
    let lasts = !once_in(4);
    let asks = [(Ask::Link, once_in(4)), (Ask::Database, false), (Ask::Link, false)];
    let asking: Vec<_> = asks
        .map(|(ask, gives_up)| {
            let broker = broker.clone();
            let timeout = Duration::from_secs(if gives_up { 0 } else { 1 << 20 });
            spawn(move || -> Asked {
                broker.connect(ask, timeout).map(drop).map_err(|error| error.kind())
            })
        })
        .into();
    let reads = broker.clone();
    let reader = spawn(move || {
        loop {
            wait_until_readable(&theirs);
            // Asks that the master left unread are an error and an end.
            if !reads.receive().unwrap_or(false) {
                break;
            }
        }
    });
    answer(ours, if lasts { asks.len() } else { 1 });
    reader.join().expect("an end");
    for ((ask, gives_up), asking) in asks.into_iter().zip(asking) {
        let got = asking.join().expect("an end");
        let is_right = match got {
            Ok(()) => ask == Ask::Link,
            Err(ErrorKind::ResourceBusy) => ask == Ask::Database,
            Err(ErrorKind::TimedOut) => gives_up,
            // Its master is gone: it asked in vain, or could not ask.
            Err(ErrorKind::NotConnected | ErrorKind::BrokenPipe) => !lasts,
            Err(_) => false,
        };
        assert!(is_right, "{ask:?} got {got:?}");
    }
}

/// As a master that has room for links only: answers so many asks, and is gone when they were read.
fn answer(ours: UnixStream, asks: usize) {
    let peeks = ours.try_clone().expect("a socket");
    let hand_out = HandOut::new(ours).expect("a socket");
    for _ in 0..asks {
        wait_until_readable(&peeks);
        let mut ask = [0];
        recv(&peeks, &mut ask, RecvFlags::PEEK).expect("a byte");
        assert!(hand_out.answer(&|_| ask[0] == Ask::Link as u8));
    }
}

/// Lets the other threads go on until there is something to read, or the end.
fn wait_until_readable(socket: &UnixStream) {
    let is_readable = || {
        let mut polled = [PollFd::new(socket, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default())).expect("a look") > 0
    };
    while !is_readable() {
        shuttle::thread::yield_now();
    }
}
