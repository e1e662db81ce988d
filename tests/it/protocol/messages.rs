//! Messages of tenants on a link: whose they may be, and how they are answered.

use mesophyll::dispatch::{HostAnswer, MessageAnswer, MessageCarrier};
use mesophyll::wire::data::{HostCall, HostError, HostOutcome, MessageOutcome, TenantMessage};

use super::*;

/// Notes what is handed in, and answers in turn.
struct Carrier {
    seen_tx: Sender<TenantMessage>,
    outcomes_rx: Receiver<MessageOutcome>,
}

impl MessageCarrier for Carrier {
    fn carry(&self, message: TenantMessage, answer: MessageAnswer) {
        self.seen_tx.send(message).expect("the test looks");
        // Without a further outcome no answer comes.
        if let Ok(outcome) = self.outcomes_rx.try_recv() {
            answer(outcome);
        }
    }

    fn call_host(&self, call: HostCall, answer: HostAnswer) {
        answer(Err(HostError { outcome: HostOutcome::Failed, text: call.name }));
    }
}

fn carrier(outcomes: &[MessageOutcome]) -> (Arc<Carrier>, Receiver<TenantMessage>) {
    let (seen_tx, seen_rx) = unbounded();
    let (outcomes_tx, outcomes_rx) = unbounded();
    outcomes.iter().for_each(|outcome| outcomes_tx.send(*outcome).expect("sent"));
    (Arc::new(Carrier { seen_tx, outcomes_rx }), seen_rx)
}

fn server(workers: usize, messages: &MessageDoor) -> ServerConfig {
    let messages = messages.clone();
    ServerConfig { heartbeat_interval: DEADLINE, messages, ..ServerConfig::new(workers) }
}

fn message(from: TenantId, topic: &str) -> TenantMessage {
    let (to, topic, data) = (TenantId::User(3), topic.to_owned(), EncodedJson::null());
    TenantMessage { from, to, topic, data, depth: 2 }
}

#[test]
fn a_worker_that_lies_about_the_sender_loses_its_link() {
    let door = MessageDoor::default();
    let master = Master::with(server(2, &door));
    let (carrier, seen_rx) = carrier(&[MessageOutcome::NotAllowed]);
    let kept: Arc<dyn MessageCarrier> = carrier;
    door.open(Arc::downgrade(&kept));
    let (own, others) = (TenantId::Guild(2 << 22), TenantId::Guild(3 << 22));
    let mut peer = master.raw_peer();
    let send = |peer: &mut WebSocket<TcpStream>, from, request_id| {
        let message = ClientMessage::send_message(message(from, "t"), request_id);
        peer.send(Message::binary(message.encode())).expect("sent");
    };
    assert!(next_message(&mut peer).starts_with(b"\x81\xa5Hello"));
    send(&mut peer, own, 8);
    assert_eq!(
        ServerMessage::decode(&next_message(&mut peer)),
        Ok(Incoming::Message(ServerMessage::send_answer(8, MessageOutcome::NotAllowed)))
    );
    assert_eq!(seen_rx.try_recv(), Ok(message(own, "t")));
    send(&mut peer, others, 9);
    assert_eq!(master.wait_disconnected(), CloseCause::ClosedByUs(close_code::PROTOCOL));
    assert!(seen_rx.try_recv().is_err());
}

#[test]
fn a_worker_gets_what_became_of_each_message() {
    let door = MessageDoor::default();
    let master = Master::with(server(1, &door));
    let outbox = Outbox::default();
    assert_eq!(outbox.send(message(TENANT, "before")), MessageOutcome::Busy);
    let worker = Worker::with_outbox(&master, outbox.clone());
    master.wait_ready();
    assert_eq!(outbox.send(message(TENANT, "no carrier")), MessageOutcome::Busy);
    let (carrier, seen_rx) = carrier(&MessageOutcome::ALL);
    let kept: Arc<dyn MessageCarrier> = carrier;
    door.open(Arc::downgrade(&kept));
    for outcome in MessageOutcome::ALL {
        assert_eq!(outbox.send(message(TENANT, outcome.as_str())), outcome);
        assert_eq!(seen_rx.try_recv(), Ok(message(TENANT, outcome.as_str())));
    }
    // The carrier has no further outcome: the end of the client ends the wait.
    let waiting = outbox.clone();
    let sender = mesophyll::base::thread::spawn("sender", move || {
        waiting.send(message(TENANT, "unanswered"))
    });
    seen_rx.recv_timeout(DEADLINE).expect("it is handed in");
    drop(worker);
    assert_eq!(sender.expect("a thread").join(), Some(MessageOutcome::Unknown));
    assert_eq!(outbox.send(message(TENANT, "after")), MessageOutcome::Busy);
}
