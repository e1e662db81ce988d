//! The least there is: two processes that send the same number of bytes to and fro, blocking, with
//! nothing that looks at them.
//!
//! Over loopback TCP and over a Unix socket, and either with one hand-over between threads on each
//! side (the asking side's reader gives the answer to its caller, the answering side's reader gives
//! the question to an executor), which is what any link with many callers has, or without.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};

use super::asked::{Outcome, say};

/// A way to send bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    Tcp,
    Unix,
}

/// A running answering process, and the ends of a connection with it.
pub struct PingPong {
    bytes: usize,
    sender: Box<dyn Write + Send>,
    answers: Answers,
    child: Child,
    stdin: Option<ChildStdin>,
    socket_path: Option<PathBuf>,
}

enum Answers {
    Read(Box<dyn Read + Send>),
    /// What a reader thread, which ends with the connection, hands over.
    Handed(Receiver<Vec<u8>>),
}

impl PingPong {
    pub fn start(
        over: Over,
        bytes: usize,
        has_hand_over: bool,
        folder: &Path,
    ) -> Result<Self, String> {
        let failed = |error: io::Error| format!("ping-pong: {error}");
        let path = folder.join(format!("{}.socket", mesophyll::base::random::u64()));
        let at = if over == Over::Unix { path.display().to_string() } else { "-".to_owned() };
        let hands = if has_hand_over { "hand-over" } else { "-" };
        let program = std::env::current_exe().map_err(failed)?;
        let mut child = Command::new(program)
            .args(["ping-pong", &at, &bytes.to_string(), hands])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let mut line = String::new();
        stdout
            .map_or(Ok(0), |out| io::BufRead::read_line(&mut io::BufReader::new(out), &mut line))
            .map_err(failed)?;
        let (reader, sender) = match over {
            Over::Tcp => tcp_halves(TcpStream::connect(line.trim()).map_err(failed)?),
            Over::Unix => unix_halves(UnixStream::connect(&path).map_err(failed)?),
        }
        .map_err(failed)?;
        let answers = if has_hand_over {
            Answers::Handed(hand_over(reader, bytes))
        } else {
            Answers::Read(reader)
        };
        let socket_path = (over == Over::Unix).then_some(path);
        Ok(Self { bytes, sender, answers, child, stdin, socket_path })
    }

    /// Does a turn.
    pub fn run(&mut self, lasting: Duration) -> Result<Outcome, String> {
        let message = vec![7; self.bytes];
        let mut buffer = vec![0; self.bytes];
        let begun = Instant::now();
        let (mut now, mut times) = (begun, Vec::new());
        while now - begun < lasting {
            self.sender.write_all(&message).map_err(|error| error.to_string())?;
            match &mut self.answers {
                Answers::Read(reader) => {
                    reader.read_exact(&mut buffer).map_err(|error| error.to_string())?
                }
                Answers::Handed(handed) => {
                    buffer = handed.recv().map_err(|error| error.to_string())?
                }
            }
            let then = std::mem::replace(&mut now, Instant::now());
            times.push((now - then).as_nanos() as u64);
        }
        Ok(Outcome::new(times.len() as u64, begun.elapsed(), times))
    }
}

impl Drop for PingPong {
    fn drop(&mut self) {
        self.stdin.take();
        let _ = self.child.wait();
        if let Some(path) = &self.socket_path {
            let _ = std::fs::remove_file(path);
        }
    }
}

type Halves = (Box<dyn Read + Send>, Box<dyn Write + Send>);

fn tcp_halves(socket: TcpStream) -> io::Result<Halves> {
    socket.set_nodelay(true)?;
    Ok((Box::new(socket.try_clone()?), Box::new(socket)))
}

fn unix_halves(socket: UnixStream) -> io::Result<Halves> {
    Ok((Box::new(socket.try_clone()?), Box::new(socket)))
}

/// Starts a thread that reads messages and hands them over, until the connection ends.
fn hand_over(mut reader: Box<dyn Read + Send>, bytes: usize) -> Receiver<Vec<u8>> {
    let (messages_tx, messages_rx) = unbounded();
    std::thread::spawn(move || {
        let mut message = vec![0; bytes];
        while reader.read_exact(&mut message).is_ok() {
            if messages_tx.send(message.clone()).is_err() {
                return;
            }
        }
    });
    messages_rx
}

/// The answering process: serves one connection, and ends with its stdin.
pub fn serve(at: &str, bytes: &str, hands: &str) -> Result<(), String> {
    let bytes: usize = bytes.parse().map_err(|_| "not a size".to_owned())?;
    let has_hand_over = hands == "hand-over";
    let failed = |error: io::Error| error.to_string();
    if at == "-" {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
        say(&listener.local_addr().map_err(failed)?.to_string())?;
        std::thread::spawn(move || echo(tcp_halves(listener.accept()?.0)?, bytes, has_hand_over));
    } else {
        let listener = UnixListener::bind(at).map_err(failed)?;
        say(at)?;
        std::thread::spawn(move || echo(unix_halves(listener.accept()?.0)?, bytes, has_hand_over));
    }
    io::stdin().read_to_end(&mut Vec::new()).map(drop).map_err(failed)
}

fn echo((mut reader, mut writer): Halves, bytes: usize, has_hand_over: bool) -> io::Result<()> {
    if has_hand_over {
        for message in hand_over(reader, bytes) {
            writer.write_all(&message)?;
        }
        return Ok(());
    }
    let mut message = vec![0; bytes];
    loop {
        reader.read_exact(&mut message)?;
        writer.write_all(&message)?;
    }
}
