//! A worker whose master is not what it should be: it answers with anything, or takes nothing. The
//! worker stays small and calm, and ends when it is told to.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use mesophyll::base::limits;
use mesophyll::net::link::LinkLimits;
use mesophyll::pool::{Subscriptions, WorkerDb, WorkerThread};
use mesophyll::protocol::{ClientConfig, ClientEnd, MesophyllClient, MesophyllDbClient, Outbox};
use mesophyll::wire::message::{ClientMessage, Incoming, ServerMessage};
use tungstenite::Message;

use crate::support::DEADLINE;
use crate::support::stand_in::StandInRuntime;

/// A worker of ours at this master.
fn worker(master: SocketAddr) -> MesophyllClient {
    let master = master.to_string();
    let token = "t".repeat(64);
    let (runtime, _) = StandInRuntime::new();
    let db = Arc::new(WorkerDb::mesophyll(
        MesophyllDbClient::new(&master, 0, &token),
        Outbox::default(),
    ));
    let subscriptions = Arc::new(Subscriptions::new(BTreeSet::new()));
    let worker = WorkerThread::new(0, Box::new(runtime), 1, subscriptions, db);
    let config = ClientConfig {
        master: master.into(),
        worker_id: 0,
        workers: 1,
        token,
        link_limits: LinkLimits::default(),
        sandbox: None,
        host: None,
        outbox: Outbox::default(),
    };
    MesophyllClient::start(config, Arc::new(worker)).expect("a client")
}

/// A master that serves its first connection like this; it ends by itself when the worker goes.
fn master(serve: impl FnOnce(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    // So that a peer which takes nothing is noticed after few bytes.
    rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 4096).expect("an option");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let (socket, _) = listener.accept().expect("the worker connects");
        socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        serve(socket);
    });
    address
}

fn ended(client: &MesophyllClient) -> ClientEnd {
    client.ended_rx().recv_timeout(DEADLINE).expect("the client ends")
}

#[test]
fn a_refusal_is_one_short_line_without_control_characters() {
    let text = format!("\x1b[2J\x07no\u{9b}1m {}\nmore", "x".repeat(100_000));
    let address = master(move |mut socket| {
        let _ = socket.read(&mut [0; 4096]);
        let head = format!("HTTP/1.1 401 Unauthorized\r\nContent-Length: {}\r\n\r\n", text.len());
        socket.write_all((head + &text).as_bytes()).unwrap_or_default();
    });
    let client = worker(address);
    let ClientEnd::Refused(why) = ended(&client) else { panic!("it was refused") };
    assert!(why.starts_with("the master refuses this worker (401): [2Jno1m x"), "{why}");
    assert!(why.len() < 400 && !why.contains(char::is_control), "{why}");
    client.stop();
}

#[test]
fn a_request_that_does_not_decode_is_answered_with_an_error() {
    let (answer_tx, answer_rx) = bounded(4);
    let address = master(move |socket| {
        let mut link = tungstenite::accept(socket).expect("a handshake");
        let requests: [&[u8]; 4] = [
            b"\x81\xadDispatchEvent\x93\x81\xa5Guild\xa1x\x92\x01\xc0\x01",
            b"\x81\xa9RunScript\x95\xc0\xc0\xc0\xc0\x02",
            b"\x81\xaaDropWorker\x92\x81\xa5Guild\xa1x\x03",
            b"\x81\xabLiveTenants\x92\x04\x01",
        ];
        // One that has not said Hello would be told no kind of error.
        let hello = ServerMessage::Hello { heartbeat_interval_ms: 5000 };
        link.send(Message::binary(hello.encode())).expect("sent");
        requests
            .into_iter()
            .for_each(|request| link.send(Message::binary(request.to_vec())).expect("sent"));
        while let Ok(message) = link.read() {
            if let Ok(Incoming::Message(ClientMessage::DispatchResponse {
                req_id: request_id,
                result,
            })) = ClientMessage::decode(&message.into_data())
            {
                answer_tx.send((request_id, result.map(drop))).unwrap_or_default();
            }
        }
    });
    let client = worker(address);
    for request in 1..=4 {
        let (request_id, result) = answer_rx.recv_timeout(DEADLINE).expect("an answer");
        let is_told = result
            .as_ref()
            .is_err_and(|text| text.starts_with("bad_input: the message does not decode: "));
        assert!(request_id == request && is_told, "{request_id}: {result:?}");
    }
    client.stop();
}

#[test]
fn a_master_that_takes_no_answer_does_not_hold_up_a_stop() {
    let (full_tx, full_rx): (_, Receiver<()>) = bounded(1);
    let address = master(move |socket| {
        let mut link = tungstenite::accept(socket).expect("a handshake");
        // Every ping is to be answered; nobody reads the answers.
        for count in 0.. {
            if link.send(Message::Ping(vec![b'p'; 125].into())).is_err() {
                return;
            }
            if count == 100_000 {
                full_tx.send(()).unwrap_or_default();
            }
        }
    });
    let client = worker(address);
    full_rx.recv_timeout(DEADLINE).expect("the worker reads");
    let before = Instant::now();
    client.stop();
    assert!(
        before.elapsed() < limits::LINK_WRITE_TIMEOUT - Duration::from_secs(10),
        "{:?}",
        before.elapsed()
    );
}

#[test]
fn a_silent_master_does_not_hold_up_a_stop() {
    let (accepted_tx, accepted_rx) = bounded(1);
    let (hold_tx, hold_rx) = bounded::<()>(0);
    let address = master(move |mut socket| {
        // The request has come, and is never answered.
        socket.read_exact(&mut [0; 16]).expect("a request");
        accepted_tx.send(()).expect("the test waits");
        let _ = hold_rx.recv_timeout(DEADLINE);
    });
    let client = worker(address);
    accepted_rx.recv_timeout(DEADLINE).expect("the worker connects");
    let before = Instant::now();
    assert_eq!(client.stop(), Some(ClientEnd::Stopped));
    assert!(before.elapsed() < Duration::from_secs(8), "{:?}", before.elapsed());
    drop(hold_tx);
}
