//! A worker that does wrong on purpose, in one way that its first argument names. The tests in
//! `tests/it/faults/` start it in the place of `mesophyll worker`; it takes the same options. What
//! it did it says on stdout, so that a test knows that the fault took place. Never part of a
//! product.
//!
//! It speaks the protocol through the library's `wire/` where it behaves, and through bytes of its
//! own where it does not.

#![allow(clippy::print_stdout, reason = "a program, and what it prints is its interface")]

use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{abort, exit};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mesophyll::net::stream::{Stream, unix_path};
use mesophyll::wire::data::{EncodedJson, KhronosValue, TenantId, TenantMessage};
use mesophyll::wire::message::{ClientMessage, Health, Incoming, Ready, ServerMessage};
use mesophyll::wire::pack::value::encode;
use tungstenite::{Message, WebSocket};

type Done = Result<(), Box<dyn Error>>;

/// How often it beats, unless its fault is that it does not: often enough for every master of the
/// tests.
const BEAT: Duration = Duration::from_millis(50);

/// A test that waits for this worker's end has given up long before.
const FOREVER: Duration = Duration::from_secs(600);

const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;

fn main() -> Done {
    let args = Args::read()?;
    if args.lifeline {
        // Whoever started it is gone when its stdin ends: nothing that does wrong may stay behind.
        std::thread::spawn(|| {
            let _ = io::stdin().read_to_end(&mut Vec::new());
            exit(0);
        });
    }
    let fault = args.fault.clone();
    match fault.as_str() {
        // "worker": started as what a master starts, it is one without a fault, of another version.
        "none" | "worker" => {
            serve(&mut Peer::ready(&args)?, &args, &mut |peer, request| peer.answer(request))
        }
        "garbage" => garbage(&args),
        "oversized" => oversized(&args),
        "huge-answers" => flood(&args, &unasked("x".repeat(15 << 20))),
        "unknown" => flood(&args, &frame(BINARY, b"\x81\xa7Unknown\x90").repeat(1000)),
        "unasked" => flood(&args, &unasked("nobody asked".to_owned()).repeat(1000)),
        "lies-about-senders" => lies_about_senders(&args),
        "ignores-questions" => {
            serve(&mut Peer::ready(&args)?, &args, &mut |peer, request| peer.answer(request))
        }
        "twice" => serve(&mut Peer::ready(&args)?, &args, &mut twice),
        "two-connections" => two_connections(&args),
        "never-reads" => never_reads(&args),
        "never-writes" => until_cut_off(Peer::connect(&args)?, "wrote nothing"),
        "dribbles" => dribbles(&args),
        "half-a-frame" => half_a_frame(&args),
        "never-ready" => never_ready(&args),
        "ready-late" => ready_late(&args),
        "odd-closes" => odd_closes(&args),
        "dies-with-answers-unsent" => dies_with_answers_unsent(&args),
        "crashes-at-boot" => {
            say("crashing at boot");
            abort()
        }
        "exits-at-once" => {
            say("leaving at once");
            Ok(())
        }
        "crashes-on-an-event" => serve(&mut Peer::ready(&args)?, &args, &mut |_, request| {
            say(&format!("crashing on {}", request.name));
            abort()
        }),
        "ignores-term" => ignores_term(&args),
        "hangs" => hangs(&args),
        "floods-output" => floods_output(&args),
        other => Err(format!("no such fault: {other:?}").into()),
    }
}

/// What it was started with: as `mesophyll worker`, the fault first.
struct Args {
    fault: String,
    id: String,
    master: String,
    token: String,
    lifeline: bool,
}

impl Args {
    fn read() -> Result<Self, Box<dyn Error>> {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let option = |name: &str| {
            let at = words.iter().position(|word| word == name);
            at.and_then(|at| words.get(at + 1)).cloned()
        };
        Ok(Self {
            fault: words.first().cloned().unwrap_or_default(),
            id: option("--id").ok_or("--id is missing")?,
            master: option("--master").ok_or("--master is missing")?,
            token: std::env::var("MESOPHYLL_CLIENT_TOKEN")?,
            lifeline: option("--lifeline").is_some(),
        })
    }
}

fn say(text: &str) {
    println!("{text}");
}

/// Does nothing for so long, which is what it is here for.
fn pause(time: Duration) {
    let _ = crossbeam_channel::never::<()>().recv_timeout(time);
}

/// One link to the master, by hand.
struct Peer {
    socket: WebSocket<Stream>,
    beaten: Instant,
}

/// A dispatch that wants an answer.
struct Request {
    tenant: TenantId,
    name: String,
    request_id: u64,
}

impl Peer {
    /// After the handshake, and silent so far.
    fn connect(args: &Args) -> Result<Self, Box<dyn Error>> {
        let stream = match unix_path(&args.master) {
            Some(path) => Stream::connect_unix(path, FOREVER)?,
            None => TcpStream::connect(&args.master)?.into(),
        };
        stream.set_nodelay()?;
        let url = format!("ws://localhost/ws?id={}&token={}", args.id, args.token);
        let (socket, _) = tungstenite::client::client(url, stream)?;
        Ok(Self { socket, beaten: Instant::now() })
    }

    /// A worker as it should be: it has said Ready and its heart beats.
    fn ready(args: &Args) -> Result<Self, Box<dyn Error>> {
        let mut peer = Self::connect(args)?;
        // Only this fault claims to answer questions; no fault does.
        let live_tenants = args.fault == "ignores-questions";
        let version = "faulty".to_owned();
        let ready =
            Ready { version, executors: 1, tenant_states: 0, live_tenants, ..Ready::default() };
        peer.send(&ClientMessage::Ready(ready))?;
        peer.send(&ClientMessage::Heartbeat)?;
        Ok(peer)
    }

    fn send(&mut self, message: &ClientMessage) -> Result<(), tungstenite::Error> {
        self.socket.send(Message::binary(message.encode()))
    }

    /// Writes bytes that no library would.
    fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.get_mut().write_all(bytes)
    }

    fn beat_if_due(&mut self) -> Result<(), tungstenite::Error> {
        if self.beaten.elapsed() >= BEAT {
            self.beaten = Instant::now();
            self.send(&ClientMessage::Heartbeat)?;
        }
        Ok(())
    }

    fn answer(&mut self, request: &Request) -> Result<(), tungstenite::Error> {
        self.answer_with(request, &format!("{} of {}", request.name, request.tenant))
    }

    fn answer_with(&mut self, request: &Request, text: &str) -> Result<(), tungstenite::Error> {
        let result = Ok(encode(&KhronosValue::Text(text.to_owned())));
        self.send(&ClientMessage::DispatchResponse { req_id: request.request_id, result })
    }

    /// The next dispatch that comes within `patience`.
    fn next_request(&mut self, patience: Duration) -> Result<Option<Request>, tungstenite::Error> {
        self.socket.get_ref().set_read_timeout(Some(patience))?;
        let message = match self.socket.read() {
            Ok(Message::Binary(message)) => message,
            Ok(Message::Close(_)) => return Err(tungstenite::Error::ConnectionClosed),
            Ok(_) => return Ok(None),
            Err(tungstenite::Error::Io(error))
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        Ok(match ServerMessage::decode(&message) {
            Ok(Incoming::Message(ServerMessage::DispatchEvent {
                id,
                event,
                req_id: Some(request_id),
            })) => Some(Request { tenant: id, name: event.name, request_id }),
            Ok(Incoming::Message(ServerMessage::LiveTenants { ids, .. })) => {
                say(&format!("asked about {} tenants", ids.len()));
                None
            }
            _ => None,
        })
    }

    /// Reads until the master hangs up; returns the code that it gave, 0 for none.
    fn read_to_end(&mut self) -> u16 {
        let _ = self.socket.get_ref().set_read_timeout(Some(FOREVER));
        loop {
            match self.socket.read() {
                Ok(Message::Close(frame)) => return frame.map_or(0, |frame| frame.code.into()),
                Ok(_) => {}
                Err(_) => return 0,
            }
        }
    }
}

/// A frame as a client sends it, under a mask that changes nothing.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    [head(first, payload.len() as u64), payload.to_vec()].concat()
}

/// The head of a frame that says it has so many bytes.
fn head(first: u8, len: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match len {
        0..=125 => bytes.push(0x80 | len as u8),
        126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend(len.to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes
}

/// The frame of an answer that no request ever had.
fn unasked(text: String) -> Vec<u8> {
    let result = Ok(encode(&KhronosValue::Text(text)));
    frame(BINARY, &ClientMessage::DispatchResponse { req_id: 42, result }.encode())
}

/// Does what a worker should until its link ends, except for how it answers.
fn serve(
    peer: &mut Peer,
    args: &Args,
    answer: &mut dyn FnMut(&mut Peer, &Request) -> Result<(), tungstenite::Error>,
) -> Done {
    say(&format!("serving as worker {}", args.id));
    loop {
        peer.beat_if_due()?;
        if let Some(request) = peer.next_request(BEAT)? {
            answer(peer, &request)?;
        }
    }
}

/// Sixteen frames that are nothing, on one link after the other, as fast as it can.
fn garbage(args: &Args) -> Done {
    for round in 1.. {
        let mut peer = Peer::ready(args)?;
        let garbage =
            (0..16u8).flat_map(|at| frame(BINARY, &[0xc1, at, 0xff])).collect::<Vec<u8>>();
        peer.send_raw(&garbage)?;
        say(&format!("garbage: round {round} closed with {}", peer.read_to_end()));
    }
    Ok(())
}

/// A message of a tenant that is another worker's, to one that allows it; again and again.
fn lies_about_senders(args: &Args) -> Done {
    let message = TenantMessage {
        from: TenantId::Guild(2 << 22),
        to: TenantId::Guild(4 << 22),
        topic: "lie".to_owned(),
        data: EncodedJson::null(),
        depth: 1,
    };
    for round in 1..u64::MAX {
        let mut peer = Peer::ready(args)?;
        peer.send(&ClientMessage::send_message(message.clone(), round))?;
        say(&format!("lies: round {round} closed with {}", peer.read_to_end()));
    }
    Ok(())
}

/// Frames that are too large by their head, and messages that become too large piece by piece.
fn oversized(args: &Args) -> Done {
    for round in 1.. {
        let mut peer = Peer::ready(args)?;
        // Whether all of it can be written is the master's affair.
        if round % 2 == 0 {
            let _ = peer.send_raw(&[head(BINARY, 1 << 40), vec![b'x'; 1 << 20]].concat());
        } else {
            let piece = vec![b'x'; 1 << 20];
            let _ = (0..20u8).try_for_each(|at| {
                peer.send_raw(&frame(if at == 0 { 0x02 } else { 0x00 }, &piece))
            });
        }
        say(&format!("oversized: round {round} closed with {}", peer.read_to_end()));
    }
    Ok(())
}

/// Writes these bytes again and again, and is a good worker beside that.
fn flood(args: &Args, bytes: &[u8]) -> Done {
    let mut peer = Peer::ready(args)?;
    let mut told = Instant::now();
    for count in 1u64.. {
        peer.send_raw(bytes)?;
        // Each time, not each so many ms: a master that is slow to read has no more before it than
        // the last lot.
        peer.send(&ClientMessage::Heartbeat)?;
        while let Some(request) = peer.next_request(Duration::from_millis(1))? {
            peer.answer(&request)?;
        }
        if told.elapsed() >= Duration::from_millis(200) {
            told = Instant::now();
            say(&format!("flood: {} bytes", count * bytes.len() as u64));
        }
    }
    Ok(())
}

fn twice(peer: &mut Peer, request: &Request) -> Result<(), tungstenite::Error> {
    peer.answer(request)?;
    peer.answer_with(request, "the second answer")?;
    let result = Err("script: the third answer".to_owned());
    peer.send(&ClientMessage::DispatchResponse { req_id: request.request_id, result })?;
    say(&format!("answered {} three times", request.name));
    Ok(())
}

/// Two links that take each other's place again and again.
fn two_connections(args: &Args) -> Done {
    let mut older = Peer::ready(args)?;
    for round in 1.. {
        let newer = Peer::ready(args)?;
        say(&format!("two connections: round {round} closed with {}", older.read_to_end()));
        older = newer;
    }
    Ok(())
}

/// Its heart beats, and it takes nothing of what it is sent.
fn never_reads(args: &Args) -> Done {
    let mut peer = Peer::ready(args)?;
    say("reading nothing");
    while peer.send(&ClientMessage::Heartbeat).is_ok() {
        pause(BEAT);
    }
    say("cut off while reading nothing");
    pause(FOREVER);
    Ok(())
}

fn until_cut_off(mut peer: Peer, what: &str) -> Done {
    say(&format!("{what}; waiting for the end"));
    let begun = Instant::now();
    peer.read_to_end();
    say(&format!("{what}; cut off after {} ms", begun.elapsed().as_millis()));
    pause(FOREVER);
    Ok(())
}

/// A large message, a byte at a time.
fn dribbles(args: &Args) -> Done {
    let mut peer = Peer::ready(args)?;
    let begun = Instant::now();
    say("dribbling");
    let mut bytes = 0u64;
    for byte in frame(BINARY, &vec![b'x'; 1 << 20]) {
        if peer.send_raw(&[byte]).is_err() {
            break;
        }
        bytes += 1;
        pause(Duration::from_millis(20));
    }
    say(&format!("dribbled {bytes} bytes; cut off after {} ms", begun.elapsed().as_millis()));
    pause(FOREVER);
    Ok(())
}

fn half_a_frame(args: &Args) -> Done {
    let mut peer = Peer::ready(args)?;
    let whole = frame(BINARY, &[b'x'; 1000]);
    peer.send_raw(&whole[..500])?;
    until_cut_off(peer, "half a frame")
}

/// It tells its health and nothing else.
fn never_ready(args: &Args) -> Done {
    for round in 1.. {
        let mut peer = Peer::connect(args)?;
        let begun = Instant::now();
        say(&format!("never ready: round {round}"));
        while peer.send(&ClientMessage::Health(Health::default())).is_ok()
            && begun.elapsed() < FOREVER
        {
            pause(BEAT);
        }
        say(&format!("never ready: cut off after {} ms", begun.elapsed().as_millis()));
    }
    Ok(())
}

/// Ready only at the fourth link, after a while.
fn ready_late(args: &Args) -> Done {
    let mut peer = Peer::connect(args)?;
    for round in 1..=3 {
        say(&format!("not ready yet: round {round}"));
        pause(Duration::from_millis(400));
        peer = Peer::connect(args)?;
    }
    peer.send(&ClientMessage::Ready(Ready::default()))?;
    peer.send(&ClientMessage::Heartbeat)?;
    serve(&mut peer, args, &mut |peer, request| peer.answer(request))
}

/// Close frames of every kind, those that RFC 6455 forbids too, each on a link of its own; then a
/// good worker.
fn odd_closes(args: &Args) -> Done {
    let codes = [
        0, 999, 1000, 1001, 1002, 1004, 1005, 1006, 1007, 1011, 1015, 2999, 3000, 4001, 4999, 5000,
        65535,
    ];
    let mut payloads: Vec<Vec<u8>> =
        codes.iter().map(|code: &u16| code.to_be_bytes().to_vec()).collect();
    // None, half a code, a reason that is no text, one that is too long for a control frame.
    payloads.extend([
        vec![],
        vec![3],
        vec![3, 232, 0xff, 0xfe],
        [vec![3, 232], vec![b'x'; 200]].concat(),
    ]);
    for payload in payloads {
        let mut peer = Peer::ready(args)?;
        peer.send_raw(&frame(CLOSE, &payload))?;
        let answer = peer.read_to_end();
        say(&format!("closed with {:?}, answered {answer}", &payload[..payload.len().min(4)]));
    }
    say("all closes sent");
    serve(&mut Peer::ready(args)?, args, &mut |peer, request| peer.answer(request))
}

fn dies_with_answers_unsent(args: &Args) -> Done {
    let mut requests = 0;
    serve(&mut Peer::ready(args)?, args, &mut |_, _| {
        requests += 1;
        if requests == 5 {
            say("dying with 5 answers unsent");
            exit(9);
        }
        Ok(())
    })
}

fn ignores_term(args: &Args) -> Done {
    let asked = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&asked))?;
    let mut peer = Peer::ready(args)?;
    say(&format!("serving as worker {}", args.id));
    loop {
        // The link's end does not end it either.
        let _ = peer.beat_if_due();
        match peer.next_request(BEAT) {
            Ok(Some(request)) => peer.answer(&request)?,
            Ok(None) => {}
            Err(_) => pause(BEAT),
        }
        if asked.swap(false, Ordering::SeqCst) {
            say("ignoring TERM");
        }
    }
}

/// Its heart beats on while it gets nowhere with the first event, and its health says so.
fn hangs(args: &Args) -> Done {
    let mut peer = Peer::ready(args)?;
    let mut stuck: Option<(Request, Instant)> = None;
    say(&format!("serving as worker {}", args.id));
    loop {
        if peer.beaten.elapsed() >= BEAT {
            peer.beat_if_due()?;
            let mut health = Health::default();
            if let Some((request, since)) = &stuck {
                let ms = since.elapsed().as_millis() as u64;
                health.stalest_executor_ms = ms;
                health.in_flight = 1;
                health.longest = Some((request.tenant, request.name.clone(), ms));
            }
            peer.send(&ClientMessage::Health(health))?;
        }
        if let Some(request) = peer.next_request(BEAT)?
            && stuck.is_none()
        {
            say(&format!("hanging in {}", request.name));
            stuck = Some((request, Instant::now()));
        }
    }
}

/// Prints as fast as anybody takes it, on both of its outputs; its answers say how many lines that
/// made.
fn floods_output(args: &Args) -> Done {
    let lines = Arc::new(AtomicU64::new(0));
    for at in 0..2 {
        let lines = Arc::clone(&lines);
        std::thread::spawn(move || {
            let text = format!("{}\n", "a line of a flood ".repeat(5)).repeat(100);
            let write = || {
                if at == 0 {
                    io::stdout().write_all(text.as_bytes())
                } else {
                    io::stderr().write_all(text.as_bytes())
                }
            };
            while write().is_ok() {
                lines.fetch_add(100, Ordering::Relaxed);
            }
        });
    }
    let mut peer = Peer::ready(args)?;
    loop {
        peer.beat_if_due()?;
        if let Some(request) = peer.next_request(BEAT)? {
            peer.answer_with(&request, &lines.load(Ordering::Relaxed).to_string())?;
        }
    }
}
