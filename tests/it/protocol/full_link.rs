//! A worker that reads nothing, so that its link has no more room.

use super::*;

#[test]
fn a_drop_finds_room_on_a_link_that_is_full_for_its_tenant() {
    let link_limits = LinkLimits { queue_messages: 16, ..LinkLimits::default() };
    let master = Master::with(ServerConfig { link_limits, ..ServerConfig::new(1) });
    let mut peer = master.raw_peer();
    peer.send(Message::binary(ClientMessage::Heartbeat.encode())).expect("sent");
    let conn = master.wait_ready();
    let (answer_tx, answer_rx) = unbounded();
    let submit = |request_id, job| {
        let answer_tx = answer_tx.clone();
        let answer = Answer::callback(move |result| {
            answer_tx.send((request_id, result)).unwrap_or_default()
        });
        let (tenant, id, deadline) = (TENANT, RequestId(request_id), far());
        conn.submit(Request { tenant, id, job, deadline, answer, delivery: Delivery::default() });
    };
    // The peer reads nothing, so that what does not fit into the socket's buffers stays in the
    // queue.
    let data = format!("\"{}\"", "x".repeat(60_000));
    let data = mesophyll::wire::json::event_data_from_json(data.as_bytes()).expect("JSON");
    let mut last = 0;
    while answer_rx.is_empty() {
        last += 1;
        submit(last, Job::Dispatch(event("FILL", data.clone())));
    }
    let (refused, result) = answer_rx.recv_timeout(DEADLINE).expect("an answer");
    assert!(
        refused == last && matches!(result, Err(DispatchError::Busy(_))),
        "{refused} of {last}: {result:?}"
    );
    submit(last + 1, Job::DropTenant);
    assert_eq!(answer_rx.try_recv().ok(), None, "the drop waits for the worker");
}
