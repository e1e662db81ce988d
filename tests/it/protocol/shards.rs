//! A worker is told of which shards its tenants are, if it knows what that means.

use mesophyll::dispatch::worker_like::handed_over;
use mesophyll::wire::data::sharding::{Shard, ShardSet};

use super::*;

fn shards(numbers: &[u16]) -> ShardSet {
    numbers.iter().copied().filter_map(Shard::new).collect()
}

#[test]
fn a_worker_ends_the_tenants_of_shards_that_are_gone() {
    let (_master, worker, conn) = master_and_worker();
    // Of shards that it never heard of there is nothing to end.
    for (served, dropped) in
        [(&[1, 2, 3][..], None), (&[2, 4], Some(&[1, 3][..])), (&[2], Some(&[4])), (&[2], None)]
    {
        conn.serve_shards(&shards(served));
        if let Some(dropped) = dropped {
            assert_eq!(worker.told(), Told::Dropped(shards(dropped)), "{served:?}");
        }
    }
    // Behind all of that, and whatever was not told of was not done.
    assert_eq!(dispatch(&conn, "AFTER"), Ok(text("AFTER")));
    assert_eq!(worker.told(), Told::Submitted(TENANT, "AFTER".to_owned()));
    let state = |event: &str| TenantState {
        events: BTreeSet::from([event.to_owned()]),
        data: EncodedJson::null(),
    };
    conn.serve_shards(&shards(&[1, 2]));
    conn.update_tenant_state(TENANT, &state("ONLY"));
    assert_eq!(dispatch(&conn, "OTHER"), Ok(KhronosValue::Null));
    // Its state went with it.
    conn.serve_shards(&shards(&[2]));
    assert_eq!(dispatch(&conn, "OTHER"), Ok(text("OTHER")));
}

#[test]
fn what_was_handed_over_in_flight_is_unknown_and_nothing_else() {
    let (_master, _worker, conn) = master_and_worker();
    let other = TenantId::Guild(2 << 22);
    let hold = |tenant| start(&conn, tenant, Job::Dispatch(named("HOLD")), far());
    let (gone, kept) = (hold(TENANT), hold(other));
    conn.end_shards(&shards(&[1]));
    assert_eq!(gone.wait(), Err(handed_over()));
    assert_eq!(conn.in_flight(), 1);
    drop(kept);
}

#[test]
fn a_peer_that_does_not_name_the_extension_is_told_nothing() {
    let master = Master::start(DEADLINE);
    for (extensions, is_told) in [(vec![], false), (vec!["subscribed", "shards"], true)] {
        let mut peer = master.raw_peer();
        let ready = Ready {
            version: "ours".to_owned(),
            extensions: extensions.into_iter().map(str::to_owned).collect(),
            ..Ready::default()
        };
        peer.send(Message::binary(ClientMessage::Ready(ready).encode())).expect("sent");
        let conn = master.wait_ready();
        conn.serve_shards(&shards(&[7]));
        conn.reload_template(TENANT);
        let mut told = Vec::new();
        loop {
            match ServerMessage::decode(&next_message(&mut peer)) {
                Ok(Incoming::Message(ServerMessage::ReloadTemplate { .. })) => break,
                Ok(Incoming::Message(ServerMessage::Hello { .. })) => {}
                Ok(Incoming::Message(message)) => told.push(message),
                other => panic!("{other:?}"),
            }
        }
        let expected = is_told.then(|| ServerMessage::Shards { served: shards(&[7]) });
        assert_eq!(told, Vec::from_iter(expected));
    }
}
