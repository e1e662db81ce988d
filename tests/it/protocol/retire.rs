//! A worker that is told to retire.

use super::subscribed::under_a_master_by_hand;
use super::*;

fn say(peer: &mut WebSocket<TcpStream>, message: &ServerMessage) {
    peer.send(Message::binary(message.encode())).expect("sent");
}

/// The next answer.
fn answer(peer: &mut WebSocket<TcpStream>) -> (u64, Result<KhronosValue, String>) {
    loop {
        if let Ok(Incoming::Message(ClientMessage::DispatchResponse { req_id: id, result })) =
            ClientMessage::decode(&next_message(peer))
        {
            return (id, result.map(|value| decode(&value).expect("a value")));
        }
    }
}

#[test]
fn a_worker_that_retires_answers_what_it_has_and_ends() {
    let (client, mut peer) = under_a_master_by_hand(["HOLD".to_owned(), "E".to_owned()].into());
    let dispatch = |name: &str, request_id: u64| ServerMessage::DispatchEvent {
        id: TENANT,
        event: named(name),
        req_id: Some(request_id),
    };
    say(&mut peer, &ServerMessage::Hello { heartbeat_interval_ms: 5000 });
    let ready = loop {
        if let Ok(Incoming::Message(ClientMessage::Ready(ready))) =
            ClientMessage::decode(&next_message(&mut peer))
        {
            break ready;
        }
    };
    assert!(ready.extensions.iter().any(|name| name == "retire"), "{ready:?}");
    say(&mut peer, &dispatch("HOLD", 1));
    say(&mut peer, &ServerMessage::Retire);
    say(&mut peer, &dispatch("E", 2));
    let (id, result) = answer(&mut peer);
    assert!(id == 2 && result.as_ref().is_err_and(|text| text.starts_with("busy: ")), "{result:?}");
    // So the link stood on; the answer that it waits for still comes over it.
    say(&mut peer, &ServerMessage::CancelDispatch { req_id: 1 });
    assert_eq!(answer(&mut peer), (1, Err("script: cancelled".to_owned())));
    let code = loop {
        match peer.read() {
            Ok(Message::Close(frame)) => break frame.map(|frame| u16::from(frame.code)),
            Ok(_) => {}
            Err(error) => panic!("it says goodbye first: {error}"),
        }
    };
    assert_eq!(code, Some(close_code::GOING_AWAY));
    assert_eq!(client.ended_rx().recv_timeout(DEADLINE), Ok(ClientEnd::Retired));
    assert_eq!(client.stop(), Some(ClientEnd::Retired));
}
