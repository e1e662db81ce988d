//! Dispatches through HTTP: the driver in front of our internal API and of the peer's axum route.
//!
//! One thread that keeps all connections busy, as a load generator does, so that the processors are
//! the master's and its workers'. It is in the benchmark's own process, whose time is not counted.

use std::io::{self, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::asked::{Load, Outcome};
use super::events::ECHO;
use crate::serve::Buffer;

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What every event carries, and every answer.
const TEXT: &str = "xxxxxxxxxxxxxxxx";

/// A connection with one request at a time.
struct Caller {
    socket: TcpStream,
    buffer: Buffer,
    asked: Option<Instant>,
}

/// One request for each tenant.
fn requests(address: &str, authorization: &str, tenants: u64) -> Vec<Vec<u8>> {
    let body = format!("{{\"name\":\"{ECHO}\",\"data\":\"{TEXT}\"}}");
    let request = |number: u64| {
        let (guild, bytes) = (number << 22, body.len());
        format!(
            "POST /i/dispatch-event/{guild} HTTP/1.1\r\nHost: {address}\r\nAuthorization: \
             {authorization}\r\nContent-Type: application/json\r\nContent-Length: {bytes}\r\n\r\n{body}"
        )
        .into_bytes()
    };
    (0..tenants).map(request).collect()
}

/// Keeps so many connections busy.
pub fn drive(address: &str, authorization: &str, load: &Load) -> Result<Outcome, String> {
    run(address, authorization, load).map_err(|error| error.to_string())
}

fn run(address: &str, authorization: &str, load: &Load) -> io::Result<Outcome> {
    let requests = requests(address, authorization, load.tenants);
    let mut callers = Vec::new();
    for _ in 0..load.in_flight {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        callers.push(Caller { socket, buffer: Buffer::new(), asked: None });
    }
    let begun = Instant::now();
    let (until, mut now, mut times) = (begun + load.lasting, begun, Vec::new());
    let mut sent = 0;
    let mut ask = |caller: &mut Caller, now: Instant| {
        caller.asked = Some(now);
        sent += 1;
        caller.socket.write_all(&requests[sent % requests.len()])
    };
    for caller in &mut callers {
        ask(caller, now)?;
    }
    let patience = Timespec::try_from(PATIENCE).ok();
    while callers.iter().any(|caller| caller.asked.is_some()) {
        let mut fds: Vec<_> =
            callers.iter().map(|caller| PollFd::new(&caller.socket, PollFlags::IN)).collect();
        if poll(&mut fds, patience.as_ref())? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        now = Instant::now();
        for (caller, _) in callers.iter_mut().zip(ready).filter(|(_, is_ready)| *is_ready) {
            caller.buffer.message(&mut caller.socket, check)??;
            let asked = caller.asked.take().ok_or(io::ErrorKind::InvalidData)?;
            times.push((now - asked).as_nanos() as u64);
            if now < until {
                ask(caller, now)?;
            }
        }
    }
    Ok(Outcome::new(times.len() as u64, begun.elapsed(), times))
}

fn check(answer: &[u8]) -> io::Result<()> {
    let is_echo = answer.windows(TEXT.len()).any(|window| window == TEXT.as_bytes());
    if answer.starts_with(b"HTTP/1.1 200 ") && is_echo {
        return Ok(());
    }
    Err(io::Error::other(format!("no echo: {}", String::from_utf8_lossy(answer))))
}
