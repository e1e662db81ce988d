//! Links over real sockets, against each other and against peers that misbehave.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket};

use super::*;

const WAIT: Duration = Duration::from_secs(20);

const TENANT: TenantId = TenantId::Guild(1);

/// What a handler saw.
#[derive(Debug, PartialEq)]
enum Seen {
    Message(Vec<u8>),
    Text(String),
    Closed(CloseCause),
}

struct Recorder(Sender<Seen>, Arc<LinkStats>);

impl LinkHandler for Recorder {
    fn on_message(&mut self, _: &LinkSender, message: Received<'_>) -> Result<(), u16> {
        let message = message.bytes();
        self.0.send(Seen::Message(message.to_vec())).expect("the test listens");
        assert!(message != b"panic", "on purpose");
        if message == b"close with 1007" { Err(close_code::UNDECODABLE) } else { Ok(()) }
    }

    fn on_text(&mut self, _: &LinkSender, text: &str) -> Result<(), u16> {
        self.0.send(Seen::Text(text.to_owned())).expect("the test listens");
        Ok(())
    }

    fn on_closed(&mut self, cause: &CloseCause) {
        self.0.send(Seen::Closed(cause.clone())).expect("the test listens");
    }

    fn stats(&self) -> Arc<LinkStats> {
        self.1.clone()
    }
}

struct NoPulse;

impl Pulse for NoPulse {
    fn beat(&mut self, _: &LinkSender, now: Instant) -> Instant {
        now + Duration::from_secs(3600)
    }
}

fn recorder() -> (Service, Receiver<Seen>) {
    let (seen_tx, seen_rx) = unbounded();
    ((Box::new(Recorder(seen_tx, Arc::default())), Box::new(NoPulse)), seen_rx)
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    (listener, address)
}

/// Reads a request's head and returns its WebSocket key.
fn read_upgrade(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("text");
    let line = head
        .lines()
        .find(|line| line.to_ascii_lowercase().starts_with("sec-websocket-key:"))
        .expect("a key");
    line.split_once(':').expect("a value").1.trim().to_owned()
}

fn accept_link(listener: &TcpListener, limits: &LinkLimits) -> (Link, Receiver<Seen>) {
    accept_with(listener, limits, recorder())
}

fn accept_with(
    listener: &TcpListener,
    limits: &LinkLimits,
    (service, seen_rx): (Service, Receiver<Seen>),
) -> (Link, Receiver<Seen>) {
    let (mut socket, _) = listener.accept().expect("accept");
    let key = read_upgrade(&mut socket);
    let headers = [
        ("connection", b"Upgrade".as_slice()),
        ("upgrade", b"websocket"),
        ("sec-websocket-version", b"13"),
        ("sec-websocket-key", key.as_bytes()),
    ];
    let upgrade = accept(headers.into_iter()).expect("an upgrade");
    (
        upgrade.start("test-s", socket.into(), Vec::new(), limits, |_| service).expect("a link"),
        seen_rx,
    )
}

fn connect_link(address: SocketAddr) -> (Link, Receiver<Seen>) {
    let (service, seen_rx) = recorder();
    let link = connect(
        "test-c",
        &[address],
        "localhost",
        "/ws?id=0",
        WAIT,
        &LinkLimits::default(),
        |_| service,
    );
    (link.expect("a link"), seen_rx)
}

/// A link of ours as the server, and a plain tungstenite client as its peer.
fn link_and_peer(limits: &LinkLimits) -> (Link, Receiver<Seen>, WebSocket<TcpStream>) {
    link_and_peer_with(limits, recorder())
}

fn link_and_peer_with(
    limits: &LinkLimits,
    served: (Service, Receiver<Seen>),
) -> (Link, Receiver<Seen>, WebSocket<TcpStream>) {
    let (listener, address) = listener();
    let peer = std::thread::spawn(move || {
        let socket = TcpStream::connect(address).expect("connect");
        socket.set_read_timeout(Some(WAIT)).expect("a timeout");
        tungstenite::client::client("ws://localhost/ws", socket).expect("a handshake").0
    });
    let (link, seen_rx) = accept_with(&listener, limits, served);
    (link, seen_rx, peer.join().expect("the peer"))
}

fn next(seen_rx: &Receiver<Seen>) -> Seen {
    seen_rx.recv_timeout(WAIT).expect("something is seen")
}

#[test]
fn messages_of_any_size_travel_both_ways_in_order() {
    let (listener, address) = listener();
    let client = std::thread::spawn(move || connect_link(address));
    let (server, server_seen) = accept_link(&listener, &LinkLimits::default());
    let (client, client_seen) = client.join().expect("the client");
    let messages: Vec<Vec<u8>> = [0, 1, 125, 126, 65_535, 65_536, limits::MESSAGE_MAX_BYTES]
        .iter()
        .map(|len| vec![b'x'; *len])
        .collect();
    for message in &messages {
        server.sender().send(message.clone()).expect("room");
        client.sender().send(message.clone()).expect("room");
    }
    for message in messages {
        assert!(next(&server_seen) == Seen::Message(message.clone()));
        assert!(next(&client_seen) == Seen::Message(message));
    }
    server.sender().close(close_code::REPLACED);
    server.join();
    client.join();
    assert_eq!(next(&client_seen), Seen::Closed(CloseCause::ClosedByPeer(close_code::REPLACED)));
    assert_eq!(next(&server_seen), Seen::Closed(CloseCause::ClosedByUs(close_code::REPLACED)));
}

#[test]
fn a_message_larger_than_the_limit_is_refused_before_it_is_sent() {
    let (link, _seen, _peer) = link_and_peer(&LinkLimits::default());
    let limit = limits::MESSAGE_MAX_BYTES;
    let refused = link.sender().send(vec![0; limit + 1]);
    assert_eq!(refused, Err(SendError::TooLarge { bytes: limit + 1, limit }));
    assert!(!link.sender().is_closed());
}

#[test]
fn of_a_names_addresses_one_that_answers_is_enough() {
    let (listener, address) = listener();
    // An address without a listener, because its listener has gone.
    let nobody = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("an address");
    let client = std::thread::spawn(move || {
        let (service, _seen_rx) = recorder();
        connect(
            "test-c",
            &[nobody, address],
            "localhost",
            "/ws",
            WAIT,
            &LinkLimits::default(),
            |_| service,
        )
    });
    let (server, _seen_rx) = accept_link(&listener, &LinkLimits::default());
    drop(client.join().expect("the client").expect("a link"));
    server.join();
    let (service, _seen_rx) = recorder();
    let none =
        connect("test-c", &[], "localhost", "/ws", WAIT, &LinkLimits::default(), |_| service);
    assert!(matches!(none, Err(ConnectError::Unreachable(_))));
}

#[test]
fn a_frame_glued_to_the_101_reply_is_not_lost() {
    let (listener, address) = listener();
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("accept");
        let key = read_upgrade(&mut socket);
        let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
        let mut bytes = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        )
        .into_bytes();
        bytes.extend_from_slice(b"\x82\x05hello");
        socket.write_all(&bytes).expect("one write");
        socket
    });
    let (link, seen_rx) = connect_link(address);
    assert_eq!(next(&seen_rx), Seen::Message(b"hello".to_vec()));
    drop(server.join().expect("the server"));
    link.join();
}

#[test]
fn a_ping_is_answered_while_messages_leave() {
    let (link, _seen, mut peer) = link_and_peer(&LinkLimits::default());
    for _ in 0..100 {
        link.sender().send(vec![1; 1000]).expect("room");
    }
    peer.send(Message::Ping(b"are you there".to_vec().into())).expect("a ping");
    let mut messages = 0;
    loop {
        match peer.read().expect("a frame that is whole") {
            Message::Pong(text) => {
                assert_eq!(&text[..], b"are you there");
                break;
            }
            Message::Binary(_) => messages += 1,
            other => panic!("unexpected {other:?}"),
        }
    }
    while messages < 100 {
        assert!(peer.read().expect("a frame that is whole").is_binary());
        messages += 1;
    }
}

#[test]
fn a_peer_that_closes_gets_its_close_answered() {
    let (link, seen_rx, mut peer) = link_and_peer(&LinkLimits::default());
    peer.close(None).expect("a close");
    assert!(matches!(
        peer.read(),
        Ok(Message::Close(_)) | Err(tungstenite::Error::ConnectionClosed)
    ));
    assert_eq!(next(&seen_rx), Seen::Closed(CloseCause::ClosedByPeer(close_code::NONE_GIVEN)));
    link.join();
}

/// What a peer sees that sent something wrong: the code it was closed with.
fn close_code_after(bytes: &[u8], limits: &LinkLimits) -> (CloseCode, CloseCause) {
    let (link, seen_rx, mut peer) = link_and_peer(limits);
    peer.get_mut().write_all(bytes).expect("written");
    let code = loop {
        match peer.read().expect("a close") {
            Message::Close(frame) => break frame.expect("a code").code,
            _ => continue,
        }
    };
    let cause = loop {
        if let Seen::Closed(cause) = next(&seen_rx) {
            break cause;
        }
    };
    drop(peer);
    link.join();
    (code, cause)
}

#[test]
fn a_peer_that_breaks_the_protocol_is_told_so() {
    // An unmasked frame, a reserved bit, a reserved opcode, a control frame in pieces.
    for bytes in
        [&b"\x82\x01x"[..], b"\xf2\x81\0\0\0\0x", b"\x83\x81\0\0\0\0x", b"\x09\x81\0\0\0\0x"]
    {
        let (code, cause) = close_code_after(bytes, &LinkLimits::default());
        assert_eq!(
            (code, cause),
            (CloseCode::Protocol, CloseCause::ClosedByUs(close_code::PROTOCOL)),
            "{bytes:x?}"
        );
    }
}

#[test]
fn a_message_too_large_ends_the_link_with_1009_unread() {
    let limits = LinkLimits { message_max_bytes: 1000, ..LinkLimits::default() };
    // The head of a frame of 1 GiB, and none of its bytes.
    let (code, _) = close_code_after(b"\x82\xff\0\0\0\0\x40\0\0\0\0\0\0\0", &limits);
    assert_eq!(code, CloseCode::Size);
}

#[test]
fn a_refusal_closes_with_its_code_while_the_peer_sends() {
    let (link, seen_rx, mut peer) = link_and_peer(&LinkLimits::default());
    peer.send(Message::binary(b"close with 1007".to_vec())).expect("sent");
    // Unread bytes at the end would turn the close into a reset.
    for _ in 0..50 {
        let _ = peer.send(Message::binary(vec![0; 10_000]));
    }
    let code = loop {
        match peer.read() {
            Ok(Message::Close(frame)) => break frame.expect("a code").code,
            Ok(_) => continue,
            Err(error) => panic!("the close was lost: {error}"),
        }
    };
    assert_eq!(code, CloseCode::Invalid);
    assert_eq!(next(&seen_rx), Seen::Message(b"close with 1007".to_vec()));
    assert_eq!(next(&seen_rx), Seen::Closed(CloseCause::ClosedByUs(close_code::UNDECODABLE)));
    drop(peer);
    link.join();
}

#[test]
fn a_peer_that_does_not_read_loses_the_link() {
    let limits = LinkLimits {
        queue_bytes: 8 * 1024 * 1024,
        write_timeout: Duration::from_millis(400),
        ..LinkLimits::default()
    };
    let (link, seen_rx, peer) = link_and_peer(&limits);
    let mut refused = None;
    for _ in 0..1000 {
        if let Err(error) = link.sender().send(vec![0; 1024 * 1024]) {
            refused = Some(error);
            break;
        }
    }
    assert!(matches!(refused, Some(SendError::Full | SendError::Closed)), "{refused:?}");
    let closed = next(&seen_rx);
    assert_eq!(closed, Seen::Closed(CloseCause::SlowPeer));
    link.join();
    drop(peer);
}

#[test]
fn a_peer_that_drains_a_byte_at_a_time_loses_the_link_too() {
    let limits = LinkLimits { write_timeout: Duration::from_millis(600), ..LinkLimits::default() };
    let (link, seen_rx, mut peer) = link_and_peer(&limits);
    let (stop_tx, stop_rx) = crossbeam_channel::bounded::<()>(0);
    let dribble = std::thread::spawn(move || {
        let mut byte = [0];
        while stop_rx.recv_timeout(Duration::from_millis(10))
            == Err(crossbeam_channel::RecvTimeoutError::Timeout)
        {
            let _ = peer.get_mut().read(&mut byte);
        }
    });
    for _ in 0..16 {
        link.sender().send(vec![0; 4 * 1024 * 1024]).ok();
    }
    assert_eq!(next(&seen_rx), Seen::Closed(CloseCause::SlowPeer));
    link.join();
    drop(stop_tx);
    dribble.join().expect("the peer");
}

/// Gives its peer up at the third beat after it was told to.
struct Impatient(Arc<AtomicBool>, u32);

impl Pulse for Impatient {
    fn beat(&mut self, link: &LinkSender, now: Instant) -> Instant {
        self.1 += u32::from(self.0.load(Ordering::SeqCst));
        if self.1 == 3 {
            link.abort(CloseCause::Silent);
        }
        now + Duration::from_millis(50)
    }
}

#[test]
fn the_pulse_goes_on_while_the_peer_takes_nothing() {
    let (seen_tx, seen_rx) = unbounded();
    let is_told = Arc::new(AtomicBool::new(false));
    let pulse = Impatient(is_told.clone(), 0);
    let limits = LinkLimits { write_timeout: 10 * WAIT, ..LinkLimits::default() };
    let (link, seen_rx, peer) = link_and_peer_with(
        &limits,
        ((Box::new(Recorder(seen_tx, Arc::default())), Box::new(pulse)), seen_rx),
    );
    for _ in 0..4 {
        link.sender().send(vec![0; limits::MESSAGE_MAX_BYTES]).expect("room");
    }
    // More than a socket holds: between two beats the writer has come to where it waits for the
    // peer.
    is_told.store(true, Ordering::SeqCst);
    assert_eq!(next(&seen_rx), Seen::Closed(CloseCause::Silent));
    link.join();
    drop(peer);
}

#[test]
fn a_link_that_cannot_say_goodbye_is_joined_at_the_deadline() {
    let limits = LinkLimits { write_timeout: 10 * WAIT, ..LinkLimits::default() };
    let (link, seen_rx, peer) = link_and_peer(&limits);
    for _ in 0..4 {
        link.sender().send(vec![0; limits::MESSAGE_MAX_BYTES]).expect("room");
    }
    link.sender().close(close_code::GOING_AWAY);
    let before = Instant::now();
    link.join_until(before + Duration::from_millis(100));
    assert!(before.elapsed() < WAIT);
    assert_eq!(next(&seen_rx), Seen::Closed(CloseCause::ClosedByUs(close_code::GOING_AWAY)));
    drop(peer);
}

#[test]
fn a_peer_that_goes_without_reading_ends_the_link_at_once() {
    let limits = LinkLimits { write_timeout: 10 * WAIT, ..LinkLimits::default() };
    let (link, seen_rx, mut peer) = link_and_peer(&limits);
    for _ in 0..4 {
        link.sender().send(vec![0; limits::MESSAGE_MAX_BYTES]).expect("room");
    }
    // It says no more, and keeps its side open.
    peer.get_mut().shutdown(Shutdown::Write).expect("open");
    assert!(matches!(next(&seen_rx), Seen::Closed(CloseCause::Broken(_))));
    assert!(link.wait_until(Instant::now() + WAIT), "the writer waits for room no longer");
    assert_eq!(link.sender().queued(), (0, 0), "what can leave no more is not kept");
    let sender = link.sender().downgrade();
    link.join();
    assert!(sender.upgrade().is_none(), "nor is anything else");
    drop(peer);
}

#[test]
fn a_bug_in_the_handler_ends_its_link_and_the_end_is_told() {
    let (link, seen_rx, mut peer) = link_and_peer(&LinkLimits::default());
    peer.send(Message::binary(b"panic".to_vec())).expect("sent");
    assert_eq!(next(&seen_rx), Seen::Message(b"panic".to_vec()));
    assert!(matches!(next(&seen_rx), Seen::Closed(CloseCause::Broken(_))));
    link.join();
}

#[test]
fn an_abort_frees_a_blocked_reader_and_joins_both_threads() {
    let (link, seen_rx, _peer) = link_and_peer(&LinkLimits::default());
    link.sender().abort(CloseCause::Silent);
    assert_eq!(next(&seen_rx), Seen::Closed(CloseCause::Silent));
    link.join();
}

#[test]
fn a_close_that_the_peer_ignores_ends_after_a_grace() {
    let (link, seen_rx, peer) = link_and_peer(&LinkLimits::default());
    link.sender().close(close_code::GOING_AWAY);
    link.join();
    assert_eq!(next(&seen_rx), Seen::Closed(CloseCause::ClosedByUs(close_code::GOING_AWAY)));
    drop(peer);
}

#[test]
fn dropping_a_clone_of_the_sender_closes_nothing() {
    let (link, seen_rx, mut peer) = link_and_peer(&LinkLimits::default());
    drop(link.sender().clone());
    peer.send(Message::binary(b"still here".to_vec())).expect("sent");
    assert_eq!(next(&seen_rx), Seen::Message(b"still here".to_vec()));
}

#[test]
fn a_refused_handshake_tells_why_and_a_silent_one_ends() {
    let (listener, address) = listener();
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("accept");
        read_upgrade(&mut socket);
        socket
            .write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 12\r\nConnection: close\r\n\r\nwrong token\n")
            .expect("written");
        drop(socket);
        // The second one gets no answer until the test is over.
        listener.accept().expect("accept").0
    });
    let (service, _seen) = recorder();
    let refused = connect(
        "t",
        &[address],
        "localhost",
        "/ws?token=secret",
        WAIT,
        &LinkLimits::default(),
        |_| service,
    );
    assert_eq!(refused.expect_err("refused"), ConnectError::Refused(401, "wrong token".to_owned()));
    let (service, _seen) = recorder();
    let timeout = Duration::from_millis(100);
    let silent = connect(
        "t",
        &[address],
        "localhost",
        "/ws?token=secret",
        timeout,
        &LinkLimits::default(),
        |_| service,
    );
    let error = silent.expect_err("no answer").to_string();
    assert!(!error.contains("secret"), "{error}");
    drop(server.join().expect("the server"));
}

#[test]
fn requests_that_are_no_upgrade_are_refused() {
    let good = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    assert!(accept(good.iter().map(|(name, value)| (*name, value.as_bytes()))).is_ok());
    for missing in 0..good.len() {
        let headers = good.iter().enumerate().filter(|(place, _)| *place != missing);
        assert!(
            accept(headers.map(|(_, (name, value))| (*name, value.as_bytes()))).is_err(),
            "{missing}"
        );
    }
}

#[test]
fn traffic_is_counted_and_awaited_pongs_are_timed() {
    let (seen_tx, seen_rx) = unbounded();
    let stats: Arc<LinkStats> = Arc::default();
    let service: Service = (Box::new(Recorder(seen_tx, stats.clone())), Box::new(NoPulse));
    let (link, seen_rx, mut peer) = link_and_peer_with(&LinkLimits::default(), (service, seen_rx));
    link.sender().send(vec![1; 1000]).expect("room");
    assert!(peer.read().expect("a message").is_binary());
    // The link did not ask for these.
    for payload in [vec![], vec![0; 8], 7_u64.to_be_bytes().to_vec()] {
        peer.send(Message::Pong(payload.into())).expect("a pong");
    }
    // A second ping while the first one's pong is awaited is answered, and not timed.
    link.sender().ping();
    link.sender().ping();
    for _ in 0..2 {
        assert!(peer.read().expect("a ping").is_ping());
    }
    let wait_for_pong = |peer: &mut WebSocket<TcpStream>| {
        // By itself it would leave behind the message.
        peer.flush().expect("a pong");
        peer.send(Message::binary(vec![2; 10])).expect("a message");
        assert_eq!(next(&seen_rx), Seen::Message(vec![2; 10]));
    };
    wait_for_pong(&mut peer);
    assert_eq!(stats.round_trips.snapshot().count(), 1);
    link.sender().ping();
    assert!(peer.read().expect("a ping").is_ping());
    wait_for_pong(&mut peer);
    assert_eq!(stats.round_trips.snapshot().count(), 2, "the next one is timed again");
    assert_eq!((stats.received_messages.get(), stats.sent_messages.get()), (2, 1));
    // Two messages of 10 bytes and six pongs, masked; a message of 1000 bytes and three pings,
    // which are not.
    assert_eq!(stats.received_bytes.get(), 2 * 16 + (6 + 14 + 14) + 3 * 14);
    // What has left is counted then, perhaps after the peer has read it.
    link.sender().close(close_code::NORMAL);
    assert!(peer.read().expect("a close").is_close());
    drop(peer);
    link.join();
    assert_eq!(stats.sent_bytes.get(), 1004 + 3 * 10 + 4);
}

#[test]
fn messages_stay_whole_and_in_their_senders_order() {
    const SENDERS: u8 = 4;
    const EACH: u16 = 2000;
    let (listener, address) = listener();
    let client = std::thread::spawn(move || connect_link(address));
    let (server, server_seen) = accept_link(&listener, &LinkLimits::default());
    let (client, client_seen) = client.join().expect("the client");
    // Both roles, as one of them masks what it sends.
    for (sender, seen_rx) in [(client.sender(), &server_seen), (server.sender(), &client_seen)] {
        std::thread::scope(|scope| {
            for number in 0..SENDERS {
                scope.spawn(move || {
                    for count in 0..EACH {
                        let mut message = vec![number; 3 + usize::from(count) * 7 % 900];
                        message[1..3].copy_from_slice(&count.to_be_bytes());
                        let sent = if (count + u16::from(number)) % 3 == 0 {
                            sender.send(message)
                        } else {
                            sender.send_alone(TENANT, message)
                        };
                        sent.expect("room");
                    }
                });
            }
        });
        let mut counts = [0; SENDERS as usize];
        for _ in 0..u32::from(SENDERS) * u32::from(EACH) {
            let Seen::Message(message) = next(seen_rx) else { panic!("the link ended") };
            let (number, count) = (message[0], u16::from_be_bytes([message[1], message[2]]));
            assert_eq!(count, counts[usize::from(number)], "of sender {number}");
            assert_eq!(message.len(), 3 + usize::from(count) * 7 % 900);
            counts[usize::from(number)] += 1;
        }
    }
    client.sender().close(close_code::NORMAL);
    client.join();
    server.join();
}

#[test]
fn a_lone_sender_leaves_to_the_writer_what_would_block() {
    let (link, seen_rx, mut peer) = link_and_peer(&LinkLimits::default());
    let message = |number: u32| [&number.to_be_bytes()[..], &vec![b'x'; 60_000]].concat();
    // More than all buffers of the system between the two hold.
    let mut sent = 0;
    while link.sender().queued().0 < 10 {
        link.sender().send_alone(TENANT, message(sent)).expect("room");
        sent += 1;
    }
    for number in 0..sent {
        match peer.read().expect("a message") {
            Message::Binary(bytes) => assert!(bytes[..] == message(number)[..], "message {number}"),
            other => panic!("{other:?}"),
        }
    }
    // And it goes on: with the way free again, the next one is written directly.
    link.sender().send_alone(TENANT, b"last".to_vec()).expect("room");
    assert_eq!(peer.read().expect("a message"), Message::binary(b"last".to_vec()));
    peer.close(None).expect("closed");
    let _ = peer.read();
    assert_eq!(next(&seen_rx), Seen::Closed(CloseCause::ClosedByPeer(close_code::NONE_GIVEN)));
    assert_eq!(link.sender().send_alone(TENANT, b"late".to_vec()), Err(SendError::Closed));
    link.join();
}

#[test]
fn a_lone_message_to_a_peer_that_has_gone_ends_the_link() {
    let (link, seen_rx, peer) = link_and_peer(&LinkLimits::default());
    peer.get_ref().shutdown(Shutdown::Both).expect("a socket");
    drop(peer);
    while link.sender().send_alone(TENANT, vec![0; 100]).is_ok() {}
    assert!(matches!(next(&seen_rx), Seen::Closed(_)));
    link.join();
}

/// Panics when it is told of the end.
struct BrokenAtTheEnd;

impl LinkHandler for BrokenAtTheEnd {
    fn on_message(&mut self, _: &LinkSender, _: Received<'_>) -> Result<(), u16> {
        Ok(())
    }

    fn on_text(&mut self, _: &LinkSender, _: &str) -> Result<(), u16> {
        Ok(())
    }

    fn on_closed(&mut self, _: &CloseCause) {
        panic!("on purpose");
    }
}

#[test]
fn a_bug_in_what_is_told_of_the_end_leaves_no_thread_behind() {
    let (_, seen_rx) = recorder();
    let service: Service = (Box::new(BrokenAtTheEnd), Box::new(NoPulse));
    let (link, _, mut peer) = link_and_peer_with(&LinkLimits::default(), (service, seen_rx));
    peer.close(None).expect("closed");
    link.join();
}
