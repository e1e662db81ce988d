//! A worker says that a tenant is not subscribed to an event, to masters that may know what that
//! means.

use super::*;

#[test]
fn a_worker_says_not_subscribed_before_it_answers() {
    let master = Master::start(Duration::from_secs(5));
    let state =
        TenantState { events: BTreeSet::from(["ONLY".to_owned()]), data: EncodedJson::null() };
    master.db.set_tenant_state(TENANT, &state).expect("set");
    let worker = Worker::start(&master);
    let conn = master.wait_ready();
    for (name, is_unsubscribed) in [("ONLY", false), ("OTHER", true)] {
        let pending = start(&conn, TENANT, mesophyll::dispatch::Job::Dispatch(named(name)), far());
        let slot = pending.slot().clone();
        pending.wait().expect("an answer");
        assert_eq!(slot.is_unsubscribed(), is_unsubscribed, "{name}");
    }
    drop(worker);
    // By hand: one that says so of a request that is not pending disturbs no other.
    let mut peer = master.raw_peer();
    let mut say =
        |message: ClientMessage| peer.send(Message::binary(message.encode())).expect("sent");
    let ready = Ready {
        version: "ours".to_owned(),
        extensions: vec!["subscribed".to_owned()],
        ..Ready::default()
    };
    say(ClientMessage::Ready(ready));
    let conn = master.wait_ready();
    let pending = start(&conn, TENANT, mesophyll::dispatch::Job::Dispatch(named("E")), far());
    let slot = pending.slot().clone();
    let request_id = loop {
        if let Ok(Incoming::Message(ServerMessage::DispatchEvent { req_id: request_id, .. })) =
            ServerMessage::decode(&next_message(&mut peer))
        {
            break request_id.expect("one that is waited for");
        }
    };
    let mut say =
        |message: ClientMessage| peer.send(Message::binary(message.encode())).expect("sent");
    say(ClientMessage::NotSubscribed { req_id: request_id ^ 1 });
    say(ClientMessage::DispatchResponse {
        req_id: request_id,
        result: Ok(mesophyll::wire::data::EncodedValue::null()),
    });
    pending.wait().expect("an answer");
    assert!(!slot.is_unsubscribed());
}

/// A worker with these subscriptions, and the end of its link that a test writes by hand.
pub(super) fn under_a_master_by_hand(
    events: BTreeSet<String>,
) -> (MesophyllClient, WebSocket<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let config = ClientConfig {
        master: listener.local_addr().expect("an address").to_string().into(),
        worker_id: 0,
        workers: 1,
        token: "t".to_owned(),
        link_limits: LinkLimits::default(),
        sandbox: None,
        host: None,
        outbox: Outbox::default(),
    };
    let (runtime, _told_rx) = StandInRuntime::new();
    let db = Master::start(DEADLINE).db.clone();
    let db = Arc::new(WorkerDb::direct(db, 0, 1, MessageDoor::default()));
    let subscriptions = Arc::new(Subscriptions::new(events));
    let worker = Arc::new(WorkerThread::new(0, Box::new(runtime), 1, subscriptions, db));
    let client = MesophyllClient::start(config, worker).expect("a client");
    let peer = tungstenite::accept(listener.accept().expect("accept").0).expect("a handshake");
    (client, peer)
}

#[test]
fn a_master_that_never_said_hello_is_told_nothing_new() {
    let (client, mut peer) = under_a_master_by_hand(["FAIL".to_owned(), "BUSY".to_owned()].into());
    while !matches!(
        ClientMessage::decode(&next_message(&mut peer)),
        Ok(Incoming::Message(ClientMessage::Ready(_)))
    ) {}
    let dispatch = |name: &str, request_id: u64| ServerMessage::DispatchEvent {
        id: TENANT,
        event: named(name),
        req_id: Some(request_id),
    };
    let ask = |peer: &mut WebSocket<TcpStream>, name: &str, request_id: u64| {
        peer.send(Message::binary(dispatch(name, request_id).encode())).expect("sent");
        let mut seen = Vec::new();
        loop {
            match ClientMessage::decode(&next_message(peer)) {
                Ok(Incoming::Message(ClientMessage::DispatchResponse { req_id: id, result }))
                    if id == request_id =>
                {
                    break (result.map(|value| decode(&value).expect("a value")), seen);
                }
                Ok(Incoming::Message(ClientMessage::NotSubscribed { req_id: request_id })) => {
                    seen.push(request_id)
                }
                Ok(_) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    };
    let null = || Ok(KhronosValue::Null);
    let error = |text: &str| Err(text.to_owned());
    assert_eq!(ask(&mut peer, "E", 1), (null(), vec![]));
    // Nor is it told of what kind an error is: it would take that for a part of the text.
    assert_eq!(ask(&mut peer, "FAIL", 2), (error("as asked"), vec![]));
    assert_eq!(ask(&mut peer, "BUSY", 3), (error("as asked"), vec![]));
    let hello = ServerMessage::Hello { heartbeat_interval_ms: 5000 };
    peer.send(Message::binary(hello.encode())).expect("sent");
    assert_eq!(ask(&mut peer, "E", 4), (null(), vec![4]));
    assert_eq!(ask(&mut peer, "FAIL", 5), (error("script: as asked"), vec![]));
    assert_eq!(ask(&mut peer, "BUSY", 6), (error("busy: as asked"), vec![]));
    drop(peer);
    client.stop();
}
