//! A WebSocket peer that echoes every message, over the product's own `http/` and `link/`: same
//! handshake, threads, limits and close. The conformance suite (tests/conformance/) talks to it, as
//! a server and as a client. Never part of a product.
//!
//! `ws_echo server ADDRESS` prints the address that it listens at and serves until its stdin ends.
//! `ws_echo client ADDRESS` connects to an Autobahn-like fuzzing server there, once for each of its
//! cases. `--broken` makes a link that takes only short messages, for the proof that the suite sees
//! a link that does not conform.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program, and what it prints is its interface"
)]

use std::error::Error;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use mesophyll::base::shared_bytes::Received;
use mesophyll::net::http::{Body, Handler, HttpLimits, HttpServer, RequestHead, Response};
use mesophyll::net::link::{
    self, CloseCause, Link, LinkHandler, LinkLimits, LinkSender, Pulse, SendError, Service,
    close_code,
};

/// The longest cases send thousands of messages.
const CASE_TIMEOUT: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["server", address] => serve(address, LinkLimits::default()),
        ["server", address, "--broken"] => serve(address, broken()),
        ["client", address] => connect_to_each_case(address, &LinkLimits::default()),
        ["client", address, "--broken"] => connect_to_each_case(address, &broken()),
        _ => Err("usage: ws_echo server|client ADDRESS [--broken]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ws_echo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Limits with which a link refuses what RFC 6455 lets a peer send.
fn broken() -> LinkLimits {
    LinkLimits { message_max_bytes: 100, ..LinkLimits::default() }
}

#[derive(Default)]
struct Echoer {
    closed_tx: Option<Sender<CloseCause>>,
}

impl Echoer {
    fn service(self) -> Service {
        (Box::new(self), Box::new(NoPulse))
    }
}

impl LinkHandler for Echoer {
    fn on_message(&mut self, link: &LinkSender, message: Received<'_>) -> Result<(), u16> {
        sent(link.send(message.bytes().to_vec()))
    }

    fn on_text(&mut self, link: &LinkSender, text: &str) -> Result<(), u16> {
        sent(link.send_text(text.to_owned()))
    }

    fn on_closed(&mut self, cause: &CloseCause) {
        if let Some(closed_tx) = self.closed_tx.take() {
            // Nobody listens any more once the case has taken too long.
            let _ = closed_tx.send(cause.clone());
        }
    }
}

/// A message that cannot be queued ends the link, as an echo must not lose one in silence.
fn sent(result: Result<(), SendError>) -> Result<(), u16> {
    match result {
        Ok(()) | Err(SendError::Closed) => Ok(()),
        Err(SendError::Full | SendError::TooLarge { .. }) => Err(close_code::TOO_LARGE),
    }
}

struct NoPulse;

impl Pulse for NoPulse {
    fn beat(&mut self, _: &LinkSender, now: Instant) -> Instant {
        now + CASE_TIMEOUT
    }
}

struct EchoRoutes {
    limits: LinkLimits,
    links: Arc<Mutex<Vec<Link>>>,
}

impl Handler for EchoRoutes {
    fn handle(&self, head: &RequestHead, _: &mut Body<'_>) -> Response {
        let upgrade = match link::accept(head.upgrade_headers()) {
            Ok(upgrade) => upgrade,
            Err(error) => return Response::text(426, &error.to_string()),
        };
        let (limits, links) = (self.limits.clone(), Arc::clone(&self.links));
        Response::upgrade(move |socket, already_read| {
            let started = upgrade
                .start("echo", socket, already_read, &limits, |_| Echoer::default().service());
            let mut links = links.lock().expect("no panic while it was held");
            links.retain(|link| !link.is_finished());
            links.extend(started);
        })
    }
}

fn serve(address: &str, limits: LinkLimits) -> Result<(), Box<dyn Error>> {
    let links = Arc::default();
    let routes = EchoRoutes { limits, links: Arc::clone(&links) };
    let server = HttpServer::start(
        TcpListener::bind(address)?,
        "echo",
        HttpLimits::default(),
        Arc::new(routes),
    )?;
    println!("{}", server.local_addr());
    // Whoever started this holds the other end.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    server.shutdown(Instant::now());
    links.lock().expect("no panic while it was held").clear();
    Ok(())
}

/// Runs the cases of a fuzzing server in the way that Autobahn defined: `/getCaseCount` sends their
/// number as a text, then `/runCase?case=I` is a case each, and `/updateReports` ends the run.
fn connect_to_each_case(address: &str, limits: &LinkLimits) -> Result<(), Box<dyn Error>> {
    let address: SocketAddr = address.parse()?;
    let (count_tx, count_rx) = crossbeam_channel::bounded(1);
    let counting =
        open(address, "/getCaseCount", limits, (Box::new(Counter(count_tx)), Box::new(NoPulse)))?;
    let cases: u32 = count_rx.recv_timeout(CASE_TIMEOUT)?.trim().parse()?;
    counting.join();
    for case in 1..=cases {
        let path = format!("/runCase?case={case}&agent=mesophyll");
        let (closed_tx, closed_rx) = crossbeam_channel::bounded(1);
        let link = open(address, &path, limits, Echoer { closed_tx: Some(closed_tx) }.service())?;
        let ended = closed_rx.recv_timeout(CASE_TIMEOUT);
        if ended.is_err() {
            eprintln!("case {case} did not end in time");
        }
        link.join_until(Instant::now() + Duration::from_secs(5));
    }
    open(address, "/updateReports?agent=mesophyll", limits, Echoer::default().service())?.join();
    Ok(())
}

fn open(
    address: SocketAddr,
    path: &str,
    limits: &LinkLimits,
    service: Service,
) -> Result<Link, Box<dyn Error>> {
    let host = address.to_string();
    Ok(link::connect("echo", &[address], &host, path, Duration::from_secs(10), limits, |_| {
        service
    })?)
}

/// Takes the first text message.
struct Counter(Sender<String>);

impl LinkHandler for Counter {
    fn on_message(&mut self, _: &LinkSender, _: Received<'_>) -> Result<(), u16> {
        Err(close_code::PROTOCOL)
    }

    fn on_text(&mut self, _: &LinkSender, text: &str) -> Result<(), u16> {
        // A second text finds the channel full, and means nothing.
        let _ = self.0.try_send(text.to_owned());
        Ok(())
    }

    fn on_closed(&mut self, _: &CloseCause) {}
}
