//! A proxy between workers and their master that breaks connections on purpose, by a seed: for the
//! tests and `make stress`.
//!
//! Two threads for each connection carry its bytes, one each way. In calm weather nothing happens
//! to them; in a storm each thread picks its next fault and after how many bytes it comes. What a
//! fault has swallowed never arrives later: like TCP, a connection loses its end and never its
//! middle.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Random;

/// What may happen to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// Bytes arrive up to 200 ms late.
    Delay,
    /// Bytes stand still for up to three seconds.
    Stall,
    /// Bytes arrive in pieces of a few, for half a second.
    Throttle,
    /// The connection ends for both sides, wherever it is in a frame.
    Cut,
    /// As `Cut`, with a reset.
    Reset,
    /// One way ends, the other goes on.
    HalfClose,
    /// One byte becomes another.
    Corrupt,
}

/// All that loses or holds up bytes, and does not change them.
pub(crate) const BREAKING: &[Fault] =
    &[Fault::Delay, Fault::Stall, Fault::Throttle, Fault::Cut, Fault::Reset, Fault::HalfClose];

/// The faults to come, about how many bytes of one way pass between two, and how many there may be
/// in all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Storm {
    pub(crate) faults: &'static [Fault],
    pub(crate) every_bytes: u64,
    pub(crate) most: u64,
}

/// A running proxy; dropping it ends its connections.
pub(crate) struct Chaos {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    calmed: Condvar,
    stopping: AtomicBool,
}

#[derive(Default)]
struct State {
    storm: Option<Storm>,
    happened: BTreeMap<Fault, u64>,
    open: Vec<Weak<Connection>>,
}

/// The two sockets of one connection; they close when both ways have ended.
struct Connection {
    near: TcpStream,
    far: TcpStream,
    /// It ends without a goodbye.
    is_reset: AtomicBool,
}

impl Chaos {
    /// Starts a proxy to `target`, in calm weather.
    pub(crate) fn start(target: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Mutex::new(State::default());
        let shared =
            Arc::new(Shared { state, calmed: Condvar::new(), stopping: AtomicBool::new(false) });
        let accepting = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || accepting.accept(&listener, target, seed));
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// Where workers find their master.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on faults happen.
    pub(crate) fn storm(&self, storm: Storm) {
        self.shared.lock().storm = Some(storm);
    }

    /// From now on nothing happens, and what stands still goes on.
    pub(crate) fn calm(&self) {
        self.shared.lock().storm = None;
        self.shared.calmed.notify_all();
    }

    /// How often each fault has happened.
    pub(crate) fn happened(&self) -> BTreeMap<Fault, u64> {
        self.shared.lock().happened.clone()
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.calm();
        // Wakes `accept`.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under this lock")
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener, target: SocketAddr, seed: u64) {
        let mut pumps: Vec<JoinHandle<()>> = Vec::new();
        for number in 0u64.. {
            let Ok((near, _)) = listener.accept() else { break };
            if self.stopping.load(Ordering::SeqCst) {
                break;
            }
            pumps.retain(|pump| !pump.is_finished());
            // A master that is not there is one more end of a connection.
            let Ok(far) = TcpStream::connect(target) else { continue };
            let connection = Arc::new(Connection { near, far, is_reset: AtomicBool::new(false) });
            for is_back in [false, true] {
                let random = Random::new(
                    seed.wrapping_mul(31).wrapping_add(2 * number + u64::from(is_back)),
                );
                let (shared, connection) = (Arc::clone(self), Arc::clone(&connection));
                pumps.push(std::thread::spawn(move || {
                    Pump { shared, random, connection, is_back, next: None }.run()
                }));
            }
            let mut state = self.lock();
            state.open.retain(|connection| connection.strong_count() > 0);
            state.open.push(Arc::downgrade(&connection));
        }
        for connection in self.lock().open.drain(..).filter_map(|connection| connection.upgrade()) {
            connection.shutdown(Shutdown::Both);
        }
        for pump in pumps {
            let _ = pump.join();
        }
    }

    /// Waits as long as the storm lasts, but not longer than this.
    fn hold(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut state = self.lock();
        while state.storm.is_some() && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            state = self.calmed.wait_timeout(state, left).expect("no panic under this lock").0;
        }
    }
}

impl Connection {
    fn shutdown(&self, how: Shutdown) {
        let _ = self.near.shutdown(how);
        let _ = self.far.shutdown(how);
    }

    /// Both ends get a reset when the sockets close, which is when both ways have ended.
    fn reset(&self) {
        self.is_reset.store(true, Ordering::SeqCst);
        for socket in [&self.near, &self.far] {
            let _ = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
        }
        // Wakes both ways and tells nobody else.
        self.shutdown(Shutdown::Read);
    }
}

/// One way of one connection.
struct Pump {
    shared: Arc<Shared>,
    random: Random,
    connection: Arc<Connection>,
    /// From the master to the worker.
    is_back: bool,
    /// The next fault, and after how many bytes.
    next: Option<(Fault, u64)>,
}

impl Pump {
    fn from(&self) -> &TcpStream {
        if self.is_back { &self.connection.far } else { &self.connection.near }
    }

    fn to(&self) -> &TcpStream {
        if self.is_back { &self.connection.near } else { &self.connection.far }
    }

    fn run(mut self) {
        let mut buffer = [0; 16 * 1024];
        let _ = self.to().set_nodelay(true);
        while let Ok(len @ 1..) = self.from().read(&mut buffer) {
            if self.carry(&mut buffer[..len]).is_none() {
                break;
            }
        }
        if !self.connection.is_reset.load(Ordering::SeqCst) {
            let _ = self.to().shutdown(Shutdown::Write);
        }
    }

    /// Carries bytes; `None`: this way has ended.
    fn carry(&mut self, mut bytes: &mut [u8]) -> Option<()> {
        while let Some((fault, at)) = self.fault_within(bytes.len() as u64) {
            let (before, rest) = bytes.split_at_mut(at as usize);
            self.write(before)?;
            let carried = self.strike(fault, rest)?;
            bytes = &mut rest[carried..];
        }
        if let Some((_, left)) = &mut self.next {
            // Not one of them is reached by the next fault.
            *left -= bytes.len() as u64;
        }
        self.write(bytes)
    }

    fn write(&self, bytes: &[u8]) -> Option<()> {
        self.to().write_all(bytes).ok()
    }

    /// The fault that happens before so many bytes have passed, and where.
    fn fault_within(&mut self, len: u64) -> Option<(Fault, u64)> {
        let mut state = self.shared.lock();
        let Some(storm) = state.storm.as_mut().filter(|storm| storm.most > 0) else {
            self.next = None;
            return None;
        };
        let random = &mut self.random;
        let next = self.next.get_or_insert_with(|| {
            (random.one_of(storm.faults), random.below(2 * storm.every_bytes))
        });
        if next.1 >= len {
            return None;
        }
        storm.most -= 1;
        *state.happened.entry(next.0).or_default() += 1;
        drop(state);
        self.next.take()
    }

    /// Does what this fault is, to the bytes that come next, and says how many of them it has
    /// carried; `None`: this way has ended.
    fn strike(&mut self, fault: Fault, rest: &mut [u8]) -> Option<usize> {
        match fault {
            Fault::Delay => self.shared.hold(Duration::from_millis(self.random.below(200))),
            Fault::Stall => self.shared.hold(Duration::from_millis(500 + self.random.below(2500))),
            Fault::Throttle => return self.throttle(rest),
            Fault::Cut => {
                self.connection.shutdown(Shutdown::Both);
                return None;
            }
            Fault::Reset => {
                self.connection.reset();
                return None;
            }
            Fault::HalfClose => {
                let _ = self.to().shutdown(Shutdown::Write);
                // Taken and lost, until the other way ends, too.
                let mut waste = [0; 4096];
                while matches!(self.from().read(&mut waste), Ok(1..)) {}
                return None;
            }
            Fault::Corrupt => {
                if let Some(byte) = rest.first_mut() {
                    *byte ^= 1 << self.random.below(8);
                }
            }
        }
        Some(0)
    }

    /// Carries bytes a few at a time, for half a second; says how many.
    fn throttle(&self, bytes: &[u8]) -> Option<usize> {
        let until = Instant::now() + Duration::from_millis(500);
        let mut carried = 0;
        for piece in bytes.chunks(7) {
            if Instant::now() >= until {
                break;
            }
            self.write(piece)?;
            carried += piece.len();
            self.shared.hold(Duration::from_millis(2));
        }
        Some(carried)
    }
}
