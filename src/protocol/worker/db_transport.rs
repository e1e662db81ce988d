//! The connections of a worker's database client, under ureq: a request leaves in one piece, and
//! its answer costs one read.
//!
//! ureq's own connections send head and body apart, which wakes the master twice, and ask the
//! kernel six things about a connection before they use it again: in all 12 system calls where 4
//! do. Which request is on which connection, and for how long, stays ureq's business. Runs on the
//! I/O thread that asks; `close` of the client shuts the sockets down.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, NextTimeout, ShutdownHandle, Transport,
};
use ureq::{Error, Timeout};

use super::db_buffers::DbBuffers;
use super::dial::Dial;
use crate::base::limits::{
    DB_ADDRESS_AGE, DB_CONNECT_TIMEOUT, DB_OUTGOING_BYTES, DB_RESPONSE_TIMEOUT, DB_SEND_TIMEOUT,
};
use crate::base::throttle::Throttle;
use crate::net::broker::Ask;
use crate::net::lookup::Lookup;
use crate::net::stream::{Stream, is_again};

/// Where the master is.
pub(super) fn lookup(master: &Dial) -> Lookup {
    match master {
        Dial::Found(_, addresses) => Lookup::fixed(addresses.clone()),
        Dial::Tls(address, _) => lookup(address),
        Dial::Address(_) if master.unix_path().is_none() => Lookup::new(DB_ADDRESS_AGE),
        // No address leads there.
        Dial::Address(_) | Dial::Broker(_) => Lookup::fixed(Vec::new()),
    }
}

/// Makes connections.
#[derive(Debug)]
pub(super) struct DbConnector {
    master: Dial,
    refusals: Arc<TlsRefusals>,
}

/// Says that there is no TLS with the master: without it a caller learns only that the master
/// cannot be reached.
#[derive(Debug, Default)]
struct TlsRefusals(Throttle);

impl TlsRefusals {
    fn record(&self, error: &io::Error) {
        if let Some(count) = self.0.record(Instant::now()) {
            log::error!("{count} times no connection to the master's database: {error}");
        }
    }
}

impl DbConnector {
    pub(super) fn new(master: &Dial) -> Self {
        Self { master: master.clone(), refusals: Arc::default() }
    }

    fn open(&self, addresses: &[SocketAddr], timeout: Duration) -> Result<Stream, Error> {
        let path = self.master.unix_path();
        let deadline = Instant::now() + timeout;
        let stream = match (&self.master, path) {
            (Dial::Broker(broker), _) => broker.connect(Ask::Database, timeout),
            (_, Some(path)) => Stream::connect_unix(path, timeout),
            (Dial::Tls(..), _) => {
                self.master.secure(connect_any(addresses, deadline)?.into(), deadline)
            }
            _ => return connect_any(addresses, deadline).map(Into::into),
        };
        stream.map_err(|error| match error.kind() {
            ErrorKind::InvalidData => {
                self.refusals.record(&error);
                Error::ConnectionFailed
            }
            ErrorKind::TimedOut => Error::Timeout(Timeout::Connect),
            ErrorKind::ResourceBusy => error.into(),
            // With any other error nothing was sent.
            _ => Error::ConnectionFailed,
        })
    }
}

impl Connector<()> for DbConnector {
    type Out = DbConnection;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<DbConnection>, Error> {
        let stream =
            Arc::new(self.open(&details.addrs, left(details.timeout, DB_CONNECT_TIMEOUT)?)?);
        stream.set_nodelay()?;
        let handle: Weak<dyn ShutdownHandle> = Arc::downgrade(&stream) as Weak<dyn ShutdownHandle>;
        (details.register_shutdown)(handle)?;
        let buffers = DbBuffers::default();
        Ok(Some(DbConnection {
            stream,
            refusals: self.refusals.clone(),
            buffers,
            outgoing: Vec::new(),
            read_armed: None,
            write_armed: None,
        }))
    }
}

/// Connects to the first of the addresses that answers; each has its share of the time.
fn connect_any(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, Error> {
    let mut failed = Error::ConnectionFailed;
    for (number, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Timeout(Timeout::Connect));
        }
        let share = left / u32::try_from(addresses.len() - number).unwrap_or(1).max(1);
        match TcpStream::connect_timeout(address, share) {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                failed = Error::Timeout(Timeout::Connect)
            }
            Err(error) => failed = error.into(),
        }
    }
    Err(failed)
}

/// A connection to the master.
pub(super) struct DbConnection {
    /// Shared, weakly, with the client, which may shut it down.
    stream: Arc<Stream>,
    refusals: Arc<TlsRefusals>,
    buffers: DbBuffers,
    /// What is to be sent with what comes next.
    outgoing: Vec<u8>,
    // The timeouts that the kernel has now: setting one costs a system call, so one that serves is
    // left alone.
    read_armed: Option<Duration>,
    write_armed: Option<Duration>,
}

impl DbConnection {
    fn flush(&mut self, timeout: NextTimeout) -> Result<(), Error> {
        let deadline = Instant::now() + left(timeout, DB_SEND_TIMEOUT)?.min(DB_SEND_TIMEOUT);
        let mut unsent = &self.outgoing[..];
        while !unsent.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Timeout(Timeout::SendBody));
            }
            arm(&mut self.write_armed, left, |left| self.stream.set_write_timeout(Some(left)))?;
            match (&*self.stream).write(unsent) {
                Ok(0) => return Err(io::Error::from(ErrorKind::BrokenPipe).into()),
                Ok(sent) => unsent = &unsent[sent..],
                Err(error) if is_again(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        while let Err(error) = (&*self.stream).flush() {
            if !is_again(&error) {
                return Err(error.into());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Timeout(Timeout::SendBody));
            }
            arm(&mut self.write_armed, left, |left| self.stream.set_write_timeout(Some(left)))?;
        }
        self.outgoing.clear();
        self.outgoing.shrink_to(DB_OUTGOING_BYTES);
        Ok(())
    }
}

impl Transport for DbConnection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.outgoing.extend_from_slice(&self.buffers.output()[..amount]);
        // What comes last is sent when the answer is waited for.
        if self.outgoing.len() >= DB_OUTGOING_BYTES { self.flush(timeout) } else { Ok(()) }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.flush(timeout)?;
        let deadline = Instant::now() + left(timeout, DB_RESPONSE_TIMEOUT)?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Timeout(timeout.reason));
            }
            arm(&mut self.read_armed, left, |left| self.stream.set_read_timeout(Some(left)))?;
            match (&*self.stream).read(self.buffers.input_append_buf()) {
                Ok(got) => {
                    self.buffers.input_appended(got);
                    return Ok(got > 0);
                }
                Err(error) if is_again(&error) => {}
                Err(error) => {
                    // With TLS 1.3 a refused certificate is told with the first answer.
                    if error.kind() == ErrorKind::InvalidData {
                        self.refusals.record(&error);
                    }
                    return Err(error.into());
                }
            }
        }
    }

    /// Whether it can take another request: nothing is unsent, and the master neither said anything
    /// unasked nor left.
    fn is_open(&mut self) -> bool {
        let peeked = recv(&*self.stream, &mut [0_u8], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        self.outgoing.is_empty() && peeked.is_err_and(|error| error == rustix::io::Errno::AGAIN)
    }
}

impl std::fmt::Debug for DbConnection {
    // Not what it carries: a request has the worker's token in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DbConnection")
    }
}

/// What is left of a phase's time; ureq may not know a limit, we always do.
fn left(timeout: NextTimeout, otherwise: Duration) -> Result<Duration, Error> {
    if timeout.after.is_not_happening() {
        return Ok(otherwise);
    }
    let left: Duration = *timeout.after;
    if left.is_zero() { Err(Error::Timeout(timeout.reason)) } else { Ok(left) }
}

/// Sets a timeout, unless the one that is set will do: not past the deadline, and not so short that
/// we would spin.
fn arm(
    armed: &mut Option<Duration>,
    left: Duration,
    set: impl FnOnce(Duration) -> io::Result<()>,
) -> io::Result<()> {
    if armed.is_none_or(|armed| armed > left || armed < left / 2) {
        set(left)?;
        *armed = Some(left);
    }
    Ok(())
}
