//! Messages of links and bodies of the database: what decodes can be written, and reads the same
//! again.

use mesophyll::wire::data::{
    CreateEvent, GlobalKeyValueOp, GlobalKv, KeyValueOp, KvRecord, PartialGlobalKv,
    PublicGlobalKeyValueOp, TenantId, TenantState,
};
use mesophyll::wire::message::{ClientMessage, Incoming, ServerMessage};
use mesophyll::wire::pack::shape::{Decode, Encode};

/// A message of a master.
pub(super) fn server_message(bytes: &[u8]) {
    let _ = ServerMessage::request_of(bytes);
    let Ok(Incoming::Message(message)) = ServerMessage::decode(bytes) else { return };
    let written = message.encode();
    let Ok(Incoming::Message(read)) = ServerMessage::decode(&written) else {
        panic!("cannot read {message:?} again")
    };
    assert_eq!(read.encode(), written);
}

/// A message of a worker.
pub(super) fn client_message(bytes: &[u8]) {
    let _ = ClientMessage::request_of(bytes);
    let Ok(Incoming::Message(message)) = ClientMessage::decode(bytes) else { return };
    let written = message.encode();
    let Ok(Incoming::Message(read)) = ClientMessage::decode(&written) else {
        panic!("cannot read {message:?} again")
    };
    assert_eq!(read.encode(), written);
}

/// Any body of `/db/*`: the first byte says which.
pub(super) fn db_body(bytes: &[u8]) {
    let Some((which, body)) = bytes.split_first() else { return };
    match which % 10 {
        0 => same_again::<KeyValueOp>(body),
        1 => same_again::<PublicGlobalKeyValueOp>(body),
        2 => same_again::<GlobalKeyValueOp>(body),
        3 => same_again::<TenantState>(body),
        4 => same_again::<Vec<KvRecord>>(body),
        5 => same_again::<Option<GlobalKv>>(body),
        6 => same_again::<Vec<PartialGlobalKv>>(body),
        7 => same_again::<CreateEvent>(body),
        8 => same_again::<TenantId>(body),
        _ => same_again::<Option<KvRecord>>(body),
    }
}

fn same_again<T: Decode + Encode>(bytes: &[u8]) {
    let Ok(first) = T::from_bytes(bytes) else { return };
    let written = first.to_bytes();
    let second = T::from_bytes(&written).expect("what we write, we read");
    assert_eq!(second.to_bytes(), written);
}
