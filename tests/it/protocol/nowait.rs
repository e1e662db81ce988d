//! Events that no caller waits for: they leave without a request id, and workers say in numbers
//! what became of them.

use super::subscribed::under_a_master_by_hand;
use super::*;
use mesophyll::base::limits::TENANT_UNHEARD_MAX;
use mesophyll::dispatch::{DispatchResult, EventWatcher};
use mesophyll::wire::message::FinishedEvents;

const OTHER: TenantId = TenantId::User(1 << 22);

/// Passes on how events end.
struct Ends(Sender<(TenantId, DispatchResult)>);

impl EventWatcher for Ends {
    fn ended(&self, tenant: TenantId, result: DispatchResult) {
        // The test may have ended.
        let _ = self.0.send((tenant, result));
    }
}

/// Sends events and sees how they end.
struct Sends<'a> {
    conn: &'a MesophyllServerConn,
    ends: Arc<Ends>,
    ends_rx: Receiver<(TenantId, DispatchResult)>,
}

impl<'a> Sends<'a> {
    fn new(conn: &'a MesophyllServerConn) -> Self {
        let (ends_tx, ends_rx) = unbounded();
        Self { conn, ends: Arc::new(Ends(ends_tx)), ends_rx }
    }

    fn send(&self, tenant: TenantId, event: CreateEvent) {
        let answer = Answer::watched(tenant, self.ends.clone());
        self.conn.submit(Request::new(tenant, Job::Dispatch(event), far(), answer));
    }

    fn end(&self) -> (TenantId, DispatchResult) {
        self.ends_rx.recv_timeout(DEADLINE).expect("it ends")
    }

    /// How the next events end, by the kind of the error, sorted.
    fn kinds(&self, count: usize) -> Vec<(TenantId, &'static str)> {
        let kind = |result: DispatchResult| result.map_or_else(|error| error.kind(), |_| "ok");
        let ends = (0..count).map(|_| self.end());
        let mut kinds: Vec<_> = ends.map(|(tenant, result)| (tenant, kind(result))).collect();
        kinds.sort();
        kinds
    }
}

/// A peer by hand that is ready as a worker with these extensions, or as the reference's.
fn ready_peer(
    master: &Master,
    extensions: Option<&[&str]>,
) -> (WebSocket<TcpStream>, MesophyllServerConn) {
    let mut peer = master.raw_peer();
    let message = extensions.map_or(ClientMessage::Heartbeat, |names| {
        let extensions = names.iter().map(|name| (*name).to_owned()).collect();
        ClientMessage::Ready(Ready { extensions, ..Ready::default() })
    });
    say(&mut peer, &message);
    let conn = master.wait_ready();
    (peer, conn)
}

fn say(peer: &mut WebSocket<TcpStream>, message: &ClientMessage) {
    peer.send(Message::binary(message.encode())).expect("sent");
}

fn finished(tenant: TenantId, ok: u64, failed: u64, busy: u64) -> FinishedEvents {
    FinishedEvents { tenant, ok, failed, busy }
}

/// The next event that a peer by hand is sent, by tenant, name and request id.
fn next_event(peer: &mut WebSocket<TcpStream>) -> (TenantId, String, Option<u64>) {
    loop {
        if let Ok(Incoming::Message(ServerMessage::DispatchEvent { id, event, req_id })) =
            ServerMessage::decode(&next_message(peer))
        {
            return (id, event.name, req_id);
        }
    }
}

#[test]
fn of_a_worker_that_does_not_tell_events_end_as_they_leave() {
    let master = Master::start(Duration::from_secs(5));
    for extensions in [None, Some(["subscribed"].as_slice())] {
        let (mut peer, conn) = ready_peer(&master, extensions);
        let sends = Sends::new(&conn);
        for _ in 0..4 {
            (0..TENANT_UNHEARD_MAX).for_each(|_| sends.send(TENANT, named("E")));
            let all_well = vec![(TENANT, "ok"); TENANT_UNHEARD_MAX];
            assert_eq!(sends.kinds(TENANT_UNHEARD_MAX), all_well, "{extensions:?}");
            assert_eq!(conn.in_flight(), 0);
        }
        for _ in 0..4 * TENANT_UNHEARD_MAX {
            assert_eq!(next_event(&mut peer), (TENANT, "E".to_owned(), None));
        }
        // One that tells all the same ends nothing by that, and a caller still gets its answer.
        let pending = start(&conn, TENANT, Job::Dispatch(named("WAITS")), far());
        say(&mut peer, &ClientMessage::Finished(vec![finished(TENANT, 9, 0, 0)]));
        let request_id = next_event(&mut peer).2.expect("one that is waited for");
        let result = Ok(mesophyll::wire::data::EncodedValue::null());
        say(&mut peer, &ClientMessage::DispatchResponse { req_id: request_id, result });
        assert!(pending.wait().is_ok());
    }
}

#[test]
fn events_that_did_not_leave_before_the_links_end_are_lost() {
    let master = Master::start(Duration::from_secs(5));
    // A peer that reads nothing, so that what does not fit into the socket's buffers never leaves.
    let (peer, conn) = ready_peer(&master, None);
    let sends = Sends::new(&conn);
    let data = format!("\"{}\"", "x".repeat(60_000));
    let data = mesophyll::wire::json::event_data_from_json(data.as_bytes()).expect("JSON");
    let (mut sent, mut left) = (0, 0);
    while conn.in_flight() < 100 {
        sends.send(TENANT, event("FILL", data.clone()));
        sent += 1;
        left += sends.ends_rx.try_iter().filter(|(_, result)| result.is_ok()).count();
    }
    assert_eq!(conn.in_flight_events().len(), conn.in_flight());
    drop(peer);
    let rest = sends.kinds(sent - left);
    let lost = rest.iter().filter(|end| **end == (TENANT, "outcome_unknown")).count();
    assert!(lost > 0, "{rest:?}");
    assert_eq!(rest.len() - lost, rest.iter().filter(|end| **end == (TENANT, "ok")).count());
}

#[test]
fn of_a_worker_that_tells_a_tenant_has_so_many_events() {
    let master = Master::start(Duration::from_secs(5));
    let (mut peer, conn) = ready_peer(&master, Some(&["nowait"]));
    let send = |tenant, name: &str| conn.dispatch_event_nowait(tenant, named(name), far());
    (0..TENANT_UNHEARD_MAX).for_each(|_| send(TENANT, "E").expect("taken"));
    assert!(matches!(send(TENANT, "NEVER"), Err(DispatchError::Busy(_))));
    assert_eq!(send(OTHER, "OTHER"), Ok(()));
    assert_eq!((conn.in_flight(), conn.in_flight_events().len()), (1025, 1025));
    for _ in 0..TENANT_UNHEARD_MAX {
        assert_eq!(next_event(&mut peer), (TENANT, "E".to_owned(), None));
    }
    assert_eq!(next_event(&mut peer), (OTHER, "OTHER".to_owned(), None));
    say(&mut peer, &ClientMessage::Finished(vec![finished(TENANT, 0, 2, 1)]));
    let pending = start(&conn, TENANT, Job::Dispatch(named("WAITS")), far());
    let request_id = next_event(&mut peer).2.expect("one that is waited for");
    let result = Ok(mesophyll::wire::data::EncodedValue::null());
    say(&mut peer, &ClientMessage::DispatchResponse { req_id: request_id, result });
    assert!(pending.wait().is_ok(), "what it told before was heard before");
    assert_eq!(conn.in_flight(), 1022);
    (0..3).for_each(|_| send(TENANT, "E").expect("there is room again"));
    assert!(matches!(send(TENANT, "NEVER"), Err(DispatchError::Busy(_))));
}

#[test]
fn what_a_worker_tells_that_is_not_so_harms_nobody() {
    let master = Master::start(Duration::from_secs(5));
    let (mut peer, conn) = ready_peer(&master, Some(&["nowait"]));
    let sends = Sends::new(&conn);
    sends.send(TENANT, named("E"));
    sends.send(OTHER, named("E"));
    let pending = start(&conn, OTHER, Job::Dispatch(named("WAITS")), far());
    let request_id = loop {
        if let (_, _, Some(request_id)) = next_event(&mut peer) {
            break request_id;
        }
    };
    let lies = vec![
        finished(TENANT, u64::MAX, u64::MAX, u64::MAX),
        finished(TenantId::Guild(77), 5, 5, 5),
        finished(TENANT, 1, 0, 0),
    ];
    for _ in 0..40 {
        say(&mut peer, &ClientMessage::Finished(lies.clone()));
    }
    assert_eq!(sends.kinds(1), [(TENANT, "ok")]);
    let result = Ok(mesophyll::wire::data::EncodedValue::null());
    say(&mut peer, &ClientMessage::DispatchResponse { req_id: request_id, result });
    assert!(pending.wait().is_ok(), "its link is up");
    assert_eq!((conn.in_flight(), conn.late_answers()), (1, 40));
    sends.send(TENANT, named("AFTER"));
    say(&mut peer, &ClientMessage::Finished(vec![finished(OTHER, 0, 1, 0)]));
    assert_eq!(sends.kinds(1), [(OTHER, "script")]);
    drop(peer);
    assert_eq!(sends.kinds(1), [(TENANT, "outcome_unknown")]);
}

#[test]
fn a_worker_tells_what_became_of_events_without_a_waiter() {
    let (master, worker, conn) = master_and_worker();
    let state = TenantState { events: BTreeSet::new(), data: EncodedJson::null() };
    master.db.set_tenant_state(OTHER, &state).expect("set");
    let sends = Sends::new(&conn);
    for round in 0..3 {
        for name in ["E", "FAIL", "BUSY"] {
            sends.send(TENANT, named(name));
        }
        sends.send(OTHER, named("NOT_SUBSCRIBED"));
        let expected = [(TENANT, "busy"), (TENANT, "ok"), (TENANT, "script"), (OTHER, "ok")];
        assert_eq!(sends.kinds(4), expected, "round {round}");
    }
    for _ in 0..6 {
        (0..500).for_each(|_| sends.send(TENANT, named("E")));
        assert_eq!(sends.kinds(500), vec![(TENANT, "ok"); 500]);
    }
    assert_eq!((conn.in_flight(), conn.late_answers()), (0, 0));
    sends.send(TENANT, named("HOLD"));
    let held = conn.in_flight_events();
    assert_eq!(held.len(), 1);
    assert_eq!((held[0].tenant, &*held[0].what), (TENANT, "HOLD"));
    drop(worker);
    assert_eq!(sends.kinds(1), [(TENANT, "outcome_unknown")]);
}

#[test]
fn a_worker_that_is_stopped_tells_first_what_became_of_events() {
    let (client, mut peer) = under_a_master_by_hand(BTreeSet::from(["*".to_owned()]));
    let mut send = |message: ServerMessage| {
        peer.send(Message::binary(message.encode())).expect("sent");
    };
    send(ServerMessage::Hello { heartbeat_interval_ms: 5000 });
    let event = |name: &str, req_id| ServerMessage::DispatchEvent {
        id: TENANT,
        event: named(name),
        req_id,
    };
    let mut seen = (0, 0, 0);
    let mut hear = |peer: &mut WebSocket<TcpStream>, until: &dyn Fn(&ClientMessage) -> bool| {
        while let Ok(frame) = peer.read() {
            let Message::Binary(bytes) = frame else { continue };
            let Ok(Incoming::Message(message)) = ClientMessage::decode(&bytes) else {
                panic!("it does not decode: {bytes:x?}")
            };
            if let ClientMessage::Finished(told) = &message {
                for events in told {
                    assert_eq!(events.tenant, TENANT);
                    seen = (seen.0 + events.ok, seen.1 + events.failed, seen.2 + events.busy);
                }
            }
            if until(&message) {
                break;
            }
        }
        seen
    };
    hear(&mut peer, &|message| matches!(message, ClientMessage::Ready(_)));
    peer.send(Message::binary(event("E", None).encode())).expect("sent");
    let first = hear(&mut peer, &|message| matches!(message, ClientMessage::Finished(_)));
    assert_eq!(first, (1, 0, 0), "one that comes after a quiet time is told of at once");
    // One that does not decode, of which the tenant can be seen.
    let mut garbled = event("E", None).encode();
    let place = garbled.len() - 1;
    garbled[place] = 0xc1;
    for message in [event("FAIL", None).encode(), garbled, event("E", Some(7)).encode()] {
        peer.send(Message::binary(message)).expect("sent");
    }
    hear(&mut peer, &|message| matches!(message, ClientMessage::DispatchResponse { .. }));
    let stop = std::thread::spawn(move || client.stop());
    assert_eq!(hear(&mut peer, &|_| false), (1, 2, 0));
    stop.join().expect("it stops");
}
