//! The other processes: a master's database behind a real loopback socket, and the bare exchange
//! that it is compared with.
//!
//! A worker is another process than its master, so they are here too: a round trip pays for
//! switching between processes as it does in service. Each of them ends when its stdin does.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;

use mesophyll::protocol::{MesophyllServer, ServerConfig};
use mesophyll::store::{self as product, DbOptions, DbState};

use crate::peer;
use crate::peer::db::Store;
use crate::peer::master::Master;
use crate::store::contents;

/// Worker 0's.
pub const TOKEN: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ01";

/// A running server process; dropping it ends it.
pub struct Server {
    pub address: SocketAddr,
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Server {
    /// A master's database, filled with what the cases ask for.
    pub fn of_store(url: &str) -> Result<Self, String> {
        Self::start(&["serve-store", url], &[])
    }

    /// The async peer's master over a database that is filled already.
    pub fn of_peer(url: &str) -> Result<Self, String> {
        Self::start(&["serve-peer", url], &[])
    }

    /// Answers every request with the same bytes.
    pub fn bare(answer: &[u8]) -> Result<Self, String> {
        Self::start(&["serve-bare"], answer)
    }

    fn start(args: &[&str], input: &[u8]) -> Result<Self, String> {
        let failed = |error: io::Error| format!("{args:?}: {error}");
        let program = std::env::current_exe().map_err(failed)?;
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (mut stdin, stdout) = (child.stdin.take(), child.stdout.take());
        if let Some(stdin) = stdin.as_mut().filter(|_| !input.is_empty()) {
            stdin
                .write_all(&(input.len() as u64).to_be_bytes())
                .and_then(|()| stdin.write_all(input))
                .map_err(failed)?;
        }
        let mut line = String::new();
        stdout
            .map_or(Ok(0), |stdout| BufReader::new(stdout).read_line(&mut line))
            .map_err(failed)?;
        let address =
            line.trim().parse().map_err(|_| format!("{args:?} did not say its address"))?;
        Ok(Self { address, child, stdin })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stdin.take();
        let _ = self.child.wait();
    }
}

fn listen() -> Result<TcpListener, String> {
    TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())
}

fn say_address(address: SocketAddr) {
    println!("{address}");
}

fn until_stdin_ends() {
    let _ = io::stdin().lock().read_to_end(&mut Vec::new());
}

/// Serves a store until stdin ends.
pub fn store(url: &str) -> Result<(), String> {
    let url = url.parse().map_err(|error: product::InvalidStoreUrl| error.to_string())?;
    let store = product::open(&url).map_err(|error| error.to_string())?;
    let db =
        Arc::new(DbState::new(store, DbOptions::default()).map_err(|error| error.to_string())?);
    contents::fill(&db)?;
    let idents = vec![(0, TOKEN.to_owned())];
    let server =
        MesophyllServer::new_with(listen()?, Arc::clone(&db), ServerConfig::new(1), idents)
            .map_err(|error| error.to_string())?;
    say_address(server.local_addr());
    until_stdin_ends();
    db.close();
    Ok(())
}

/// Serves the async peer's data layer until stdin ends.
pub fn peer(url: &str) -> Result<(), String> {
    let runtime = peer::runtime()?;
    let started = async { Master::start(1, TOKEN, Some(Store::open(url).await?)).await };
    let (_master, address) = runtime.block_on(started)?;
    say_address(address);
    until_stdin_ends();
    Ok(())
}

/// Gives the same answer to every request until stdin ends.
pub fn bare() -> Result<(), String> {
    let (mut length, mut stdin) = ([0; 8], io::stdin().lock());
    stdin.read_exact(&mut length).map_err(|error| error.to_string())?;
    let mut answer = vec![0; u64::from_be_bytes(length) as usize];
    stdin.read_exact(&mut answer).map_err(|error| error.to_string())?;
    drop(stdin);
    let listener = listen()?;
    say_address(listener.local_addr().map_err(|error| error.to_string())?);
    let answer: Arc<[u8]> = answer.into();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || answer_all(socket, &answer));
        }
    });
    until_stdin_ends();
    Ok(())
}

fn answer_all(mut socket: TcpStream, answer: &[u8]) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer = Buffer::new();
    loop {
        buffer.message(&mut socket, |_| ())?;
        socket.write_all(answer)?;
    }
}

/// One HTTP message after the other, read with as few calls as they come in.
pub struct Buffer {
    bytes: Vec<u8>,
    filled: usize,
}

impl Buffer {
    pub fn new() -> Self {
        Self { bytes: vec![0; 64 * 1024], filled: 0 }
    }

    /// Reads one message with a `Content-Length` and hands its bytes to `look`.
    pub fn message<T>(
        &mut self,
        socket: &mut TcpStream,
        look: impl FnOnce(&[u8]) -> T,
    ) -> io::Result<T> {
        let mut total = None;
        loop {
            if total.is_none() {
                total = end_of(&self.bytes[..self.filled]);
            }
            if let Some(total) = total
                && self.filled >= total
            {
                let found = look(&self.bytes[..total]);
                self.bytes.copy_within(total..self.filled, 0);
                self.filled -= total;
                return Ok(found);
            }
            let needed = total.unwrap_or(0);
            if self.bytes.len() < needed.max(self.filled + 1) {
                self.bytes.resize(needed.max(2 * self.filled + 1), 0);
            }
            match socket.read(&mut self.bytes[self.filled..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                got => self.filled += got,
            }
        }
    }
}

/// Where a message ends, once its head is there.
fn end_of(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let mut body = 0;
    for line in bytes[..head].split(|byte| *byte == b'\n') {
        const NAME: &[u8] = b"content-length:";
        if line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME) {
            body = std::str::from_utf8(&line[NAME.len()..]).ok()?.trim().parse().ok()?;
        }
    }
    Some(head + 4 + body)
}
