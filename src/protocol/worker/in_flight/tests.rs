//! What a worker answers when its master reads nothing.

use super::*;
use crate::net::link::{LinkLimits, close_code};
use crate::protocol::worker::quiet_link::{WAIT, quiet_link};
use crate::wire::data::EncodedValue;
use crate::wire::message::Incoming;
use crossbeam_channel::bounded;
use std::net::TcpListener;
use tungstenite::Message;

#[test]
fn results_without_room_are_errors_and_no_other_tenants() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (read_tx, read_rx) = bounded::<()>(0);
    let master = std::thread::spawn(move || {
        let mut peer =
            tungstenite::accept(listener.accept().expect("accept").0).expect("a handshake");
        // It reads nothing until everything has been answered.
        let _ = read_rx.recv_timeout(WAIT);
        let mut answers = Vec::new();
        while let Ok(Message::Binary(message)) = peer.read() {
            match ClientMessage::decode(&message) {
                Ok(Incoming::Message(ClientMessage::DispatchResponse {
                    req_id: request_id,
                    result,
                })) => {
                    answers.push((request_id, result.map(drop)));
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        answers
    });
    let limits = LinkLimits { queue_bytes: 4 << 20, ..LinkLimits::default() };
    let link = quiet_link(address, &limits);
    let mut text = vec![0xdb, 0, 0x10, 0, 0];
    text.resize(5 + (1 << 20), b'x');
    let value = EncodedValue::from_checked([b"\x81\xa4Text".as_slice(), &text].concat());
    let (greedy, other) = (TenantId::Guild(1), TenantId::Guild(2));
    for request_id in 0..40 {
        send_answer(link.sender(), greedy, RequestId(request_id), Ok(value.clone()), false, true);
    }
    for request_id in 40..1040 {
        send_answer(
            link.sender(),
            other,
            RequestId(request_id),
            Ok(EncodedValue::null()),
            false,
            true,
        );
    }
    assert!(!link.sender().is_closed());
    link.sender().close(close_code::NORMAL);
    drop(read_tx);
    let mut answers = master.join().expect("the master");
    // Large ones leave behind small ones.
    answers.sort_by_key(|(request_id, _)| *request_id);
    link.join();
    assert_eq!(
        answers.iter().map(|(request_id, _)| *request_id).collect::<Vec<_>>(),
        (0..1040).collect::<Vec<_>>()
    );
    let is_dropped = |(_, result): &(u64, Result<(), String>)| {
        result.as_ref().is_err_and(|text| text.starts_with("script: the result was dropped"))
    };
    let (greedys, others) = answers.split_at(40);
    assert!(
        greedys.iter().filter(|answer| is_dropped(answer)).count() > 0,
        "the link had room for all of it"
    );
    assert!(greedys.iter().all(|answer| answer.1.is_ok() || is_dropped(answer)));
    assert!(others.iter().all(|(_, result)| result.is_ok()));
}
