//! Connections that a master hands to its own workers, so that these need no `socket` and no
//! `connect`.
//!
//! The two hold the ends of one socket pair, which is also the worker's lifeline: it ends with the
//! master. The worker asks with a byte; the master makes another pair, serves one end of it and
//! sends the other (`SCM_RIGHTS`), or says that there is no room. Answers come in the order in
//! which the worker asked.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg, sockopt,
};

use super::stream::Stream;
use crate::base::limits::{BROKER_ASKS_MAX, BROKER_SEND_BYTES};
use crate::base::sync::Lock;

/// The variable that tells a worker that the other end of its stdin is a broker.
pub const BROKER_VARIABLE: &str = "MESOPHYLL_BROKER";

/// Its only value.
pub const BROKER_STDIN: &str = "stdin";

/// What a worker asks for: the byte that it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// A connection for its link.
    Link = b'w' as isize,
    /// A connection for database calls.
    Database = b'd' as isize,
}

/// The byte that comes with a connection.
const HANDED_OUT: u8 = b'c';

/// The byte that comes without one.
const NO_ROOM: u8 = b'n';

/// The worker's end. Any thread asks; one thread, the lifeline's, takes the answers.
#[derive(Debug)]
pub struct Broker {
    channel: UnixStream,
    state: Lock<BrokerState>,
}

#[derive(Debug, Default)]
struct BrokerState {
    is_cut: bool,
    /// Those that asked and have no answer yet, also if they do not wait any more.
    asking: VecDeque<Sender<Option<OwnedFd>>>,
}

impl Broker {
    /// A broker at the other end of this socket.
    pub fn new(channel: OwnedFd) -> Self {
        Self { channel: channel.into(), state: Lock::default() }
    }

    /// A connection to the master.
    ///
    /// # Blocks
    /// Until the master has handed one out, at most `timeout`.
    ///
    /// # Errors
    /// `ResourceBusy`: this worker has all that it may have; `NotConnected`: the master is gone;
    /// `TimedOut`.
    pub fn connect(&self, ask: Ask, timeout: Duration) -> io::Result<Stream> {
        let (handed_out_tx, handed_out_rx) = bounded(1);
        {
            // Under one lock, so that the places in the line are in the order of the bytes.
            let mut state = self.state.lock();
            if state.is_cut {
                return Err(ErrorKind::NotConnected.into());
            }
            // A master that is stopped answers nothing: then the channel must not fill up.
            if state.asking.len() >= BROKER_ASKS_MAX {
                return Err(ErrorKind::TimedOut.into());
            }
            (&self.channel).write_all(&[ask as u8])?;
            state.asking.push_back(handed_out_tx);
        }
        match handed_out_rx.recv_timeout(timeout) {
            Ok(Some(socket)) => Ok(UnixStream::from(socket).into()),
            Ok(None) => Err(ErrorKind::ResourceBusy.into()),
            Err(RecvTimeoutError::Timeout) => Err(ErrorKind::TimedOut.into()),
            Err(RecvTimeoutError::Disconnected) => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// Takes an answer and passes it on to the thread that asked first; false once the master is
    /// gone.
    ///
    /// # Blocks
    /// Until there is one; the caller polls before.
    ///
    /// # Errors
    /// The socket is none.
    pub fn receive(&self) -> io::Result<bool> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = recvmsg(&self.channel, &mut [IoSliceMut::new(&mut byte)], &mut control, flags);
        match got {
            Ok(got) if got.bytes > 0 => {}
            Err(rustix::io::Errno::INTR) => return Ok(true),
            ended => {
                let mut state = self.state.lock();
                state.is_cut = true;
                // Wakes those that wait.
                state.asking.clear();
                return ended.map(|_| false).map_err(Into::into);
            }
        }
        let handed_out = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
            _ => None,
        });
        if let Some(asked) = self.state.lock().asking.pop_front() {
            // It may have given up; the connection ends then.
            let _ = asked.try_send(handed_out);
        }
        Ok(true)
    }
}

/// The master's end of a worker's channel.
#[derive(Debug)]
pub struct HandOut(UnixStream);

impl HandOut {
    /// Serves asks that come on this socket.
    ///
    /// # Errors
    /// The socket is none.
    pub fn new(channel: UnixStream) -> io::Result<Self> {
        channel.set_nonblocking(true)?;
        // Connections on their way to a worker that takes none count against this user's files.
        sockopt::set_socket_send_buffer_size(&channel, BROKER_SEND_BYTES)?;
        Ok(Self(channel))
    }

    /// What to wait for until there is something to answer: an ask, or room for its answer first.
    /// A worker that asks without taking what it gets is asked no further, so that few connections
    /// are on their way; one that was held up finds its answers when it goes on.
    pub fn waits_for(&self) -> PollFlags {
        let mut room = [PollFd::new(self, PollFlags::OUT)];
        // A signal does not interrupt a look.
        match poll(&mut room, Some(&Timespec::default())) {
            Ok(0) => PollFlags::OUT,
            _ => PollFlags::IN,
        }
    }

    /// Answers one ask, if there is one, with a connection whose other end `serve` takes; false
    /// once the worker is gone.
    ///
    /// # Blocks
    /// As `serve` does.
    pub fn answer(&self, serve: &dyn Fn(Stream) -> bool) -> bool {
        let mut ask = [0];
        match (&self.0).read(&mut ask) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return is_again(&error),
        }
        let is_known = [Ask::Link, Ask::Database].iter().any(|known| *known as u8 == ask[0]);
        let theirs = UnixStream::pair()
            .ok()
            .filter(|_| is_known)
            .and_then(|(ours, theirs)| serve(ours.into()).then_some(theirs));
        // It fails too while too many descriptors of this user are on their way.
        let sent = theirs.is_some_and(|socket| self.send(HANDED_OUT, &socket).is_ok());
        let sent = if sent { Ok(1) } else { (&self.0).write(&[NO_ROOM]) };
        if sent.is_err() {
            // The lifeline as well: without connections the worker is of no use.
            let _ = self.0.shutdown(Shutdown::Both);
        }
        sent.is_ok()
    }

    fn send(&self, byte: u8, socket: &UnixStream) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let sockets = [socket.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&sockets));
        let bytes = [byte];
        Ok(sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?)
    }
}

impl AsFd for HandOut {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn is_again(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::base::thread::{self, OwnedThread};

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A broker whose answers a thread of its own takes, as the lifeline's does, and the other end.
    fn scene() -> (Arc<Broker>, OwnedThread, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let broker = Arc::new(Broker::new(theirs.into()));
        let reads = broker.clone();
        let reader = thread::spawn("reader", move || while reads.receive().expect("a socket") {});
        (broker, reader.expect("a thread"), ours)
    }

    /// Answers so many asks; the served ends are returned.
    fn answer(hand_out: &HandOut, asks: usize, takes: bool) -> Vec<Stream> {
        let (served_tx, served_rx) = bounded(asks);
        for _ in 0..asks {
            poll(&mut [PollFd::new(hand_out, PollFlags::IN)], None).expect("an ask");
            let serve = |stream| {
                served_tx.send(stream).expect("room");
                takes
            };
            assert!(hand_out.answer(&serve));
        }
        served_rx.try_iter().collect()
    }

    #[test]
    fn a_handed_out_connection_leads_to_the_served_end() {
        let (broker, reader, ours) = scene();
        let hand_out = HandOut::new(ours).expect("a channel");
        let asks = broker.clone();
        let asking = thread::spawn("asks", move || asks.connect(Ask::Link, PATIENCE));
        let mut served = answer(&hand_out, 1, true);
        let mut got = asking.expect("a thread").join().expect("an end").expect("a connection");
        got.write_all(b"hello").expect("sent");
        let mut bytes = [0; 5];
        served[0].read_exact(&mut bytes).expect("read");
        assert_eq!(&bytes, b"hello");
        drop(hand_out);
        reader.join();
        let error = broker.connect(Ask::Database, PATIENCE).expect_err("no master");
        assert_eq!(error.kind(), ErrorKind::NotConnected);
    }

    #[test]
    fn a_worker_without_room_is_told_so_at_once() {
        let (broker, _reader, ours) = scene();
        let hand_out = HandOut::new(ours).expect("a channel");
        let asks = broker.clone();
        let asking = thread::spawn("asks", move || asks.connect(Ask::Database, PATIENCE));
        answer(&hand_out, 1, false);
        let error = asking.expect("a thread").join().expect("an end").expect_err("no room");
        assert_eq!(error.kind(), ErrorKind::ResourceBusy);
    }

    #[test]
    fn an_ask_that_gave_up_keeps_its_place_in_the_line() {
        let (broker, _reader, ours) = scene();
        let error = broker.connect(Ask::Link, Duration::from_millis(20)).expect_err("no answer");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let hand_out = HandOut::new(ours).expect("a channel");
        let asks = broker.clone();
        let asking = thread::spawn("asks", move || asks.connect(Ask::Database, PATIENCE));
        let mut served = answer(&hand_out, 2, true);
        let mut got = asking.expect("a thread").join().expect("an end").expect("a connection");
        // The first connection was closed with its ask; the second is the one that was got.
        assert_eq!(served[0].read(&mut [0]).expect("the end"), 0);
        served[1].write_all(b"x").expect("sent");
        assert_eq!(got.read(&mut [0]).expect("read"), 1);
    }

    #[test]
    fn a_silent_master_is_not_asked_without_end() {
        let (broker, reader, ours) = scene();
        let mut refused = None;
        for _ in 0..=BROKER_ASKS_MAX {
            let began = Instant::now();
            let error = broker.connect(Ask::Link, Duration::ZERO).expect_err("no answer");
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            refused = Some(began.elapsed());
        }
        assert!(refused.is_some());
        drop(ours);
        reader.join();
    }

    #[test]
    fn a_worker_that_takes_nothing_is_asked_no_further() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let hand_out = HandOut::new(ours).expect("a channel");
        theirs.set_nonblocking(true).expect("a mode");
        let handed_out = std::cell::Cell::new(0);
        for _ in 0..10_000 {
            let _ = (&theirs).write(b"d");
            let mut waited = [PollFd::new(&hand_out, hand_out.waits_for())];
            if poll(&mut waited, Some(&Timespec::default())).expect("a look") > 0 {
                let serve = |_| handed_out.replace(handed_out.get() + 1) < 100;
                assert!(hand_out.answer(&serve));
            }
        }
        assert!((1..50).contains(&handed_out.get()), "{}", handed_out.get());
    }

    #[test]
    fn a_worker_that_takes_late_gets_all_that_it_asked_for() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let hand_out = HandOut::new(ours).expect("a channel");
        (&theirs).write_all(&[b'd'; BROKER_ASKS_MAX]).expect("as many as may be open");
        let reader = thread::spawn("late", move || {
            (0..BROKER_ASKS_MAX).all(|_| (&theirs).read(&mut [0]).is_ok_and(|len| len == 1))
        });
        let answered = std::cell::Cell::new(0);
        while answered.get() < BROKER_ASKS_MAX {
            let waited = PollFd::new(&hand_out, hand_out.waits_for());
            poll(&mut [waited], None).expect("an ask, or room");
            let serve = |_| answered.replace(answered.get() + 1) < BROKER_ASKS_MAX;
            assert!(hand_out.answer(&serve), "cut off after {answered:?}");
        }
        assert_eq!(reader.expect("a thread").join(), Some(true));
    }

    #[test]
    fn an_unknown_ask_gets_no_connection() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let hand_out = HandOut::new(ours).expect("a channel");
        theirs.write_all(b"?").expect("sent");
        assert!(hand_out.answer(&|_| panic!("nothing to serve")));
        let mut byte = [0];
        theirs.read_exact(&mut byte).expect("an answer");
        assert_eq!(byte, [NO_ROOM]);
    }
}
