//! What goes over `/db/kv`, `/db/tenant-states` and `/db/tenant-state`: operations, records and
//! tenant states. Global KV is in [`super::global_kv`].
//!
//! Bodies are bounded by their reader on a socket; the rules on keys and sizes are the
//! store's.

use std::collections::HashMap;

use super::WireError;
use super::pack::reader::{Item, Reader};
use super::pack::shape::{Decode, Encode, wire_enum, wire_struct};
use super::pack::writer::Writer;
use crate::wire::data::{KeyValueOp, KvRecord, Scopes, TenantId, TenantState};

wire_struct!(KvRecord { id, key, value, scopes, created_at, last_updated_at });

impl Encode for Scopes {
    fn encode(&self, writer: &mut Writer) {
        writer.array(self.as_slice().len());
        self.as_slice().iter().for_each(|scope| writer.text(scope));
    }
}

/// In any order, and more than once if a peer has them so.
impl Decode for Scopes {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Vec::<String>::decode(reader).map(Scopes::new)
    }
}

wire_enum!(KeyValueOp {
    0 Get { scopes, key },
    1 ListScopes {},
    2 Set { scopes, key, value },
    3 Delete { scopes, key },
    4 Find { scopes, query },
});

/// Written in no particular order; see [`encode_tenant_states`] for a body that is made piece by
/// piece.
impl Encode for HashMap<TenantId, TenantState> {
    fn encode(&self, writer: &mut Writer) {
        writer.map(self.len());
        for (id, state) in self {
            id.encode(writer);
            state.encode(writer);
        }
    }
}

impl Decode for HashMap<TenantId, TenantState> {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let Item::Map(len) = reader.item()? else {
            return Err(WireError::Invalid("expected a map of tenants"));
        };
        // Limit: room for a hundred thousand tenants at once would be fine, for what a length
        // claims it is not.
        let mut states = HashMap::with_capacity(len.min(1024));
        for _ in 0..len {
            states.insert(TenantId::decode(reader)?, TenantState::decode(reader)?);
        }
        Ok(states)
    }
}

/// The answer to `/db/tenant-states` in pieces of about `piece_bytes`, so that a large one need not
/// be in memory twice.
pub fn encode_tenant_states<S>(states: S, piece_bytes: usize) -> impl Iterator<Item = Vec<u8>>
where
    S: ExactSizeIterator<Item = (TenantId, TenantState)>,
{
    let mut head = Writer::with_capacity(piece_bytes + 1024);
    head.map(states.len());
    let mut states = states;
    let mut piece = Some(head);
    std::iter::from_fn(move || {
        let mut writer = piece.take()?;
        while writer.len() < piece_bytes {
            let Some((id, state)) = states.next() else {
                return Some(writer.into_bytes());
            };
            id.encode(&mut writer);
            state.encode(&mut writer);
        }
        piece = Some(Writer::with_capacity(piece_bytes + 1024));
        Some(writer.into_bytes())
    })
    .filter(|piece| !piece.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::data::EncodedJson;

    #[test]
    fn tenant_states_in_pieces_are_one_map() {
        let state = TenantState { events: ["A".to_owned()].into(), data: EncodedJson::null() };
        for count in [0, 1, 3, 100] {
            let states: HashMap<_, _> =
                (0..count).map(|id| (TenantId::User(id), state.clone())).collect();
            let pieces: Vec<_> = encode_tenant_states(states.clone().into_iter(), 64).collect();
            assert!(pieces.iter().all(|piece| !piece.is_empty() && piece.len() < 128));
            assert_eq!(pieces.len() > 1, count > 3, "{count} states in {} pieces", pieces.len());
            assert_eq!(HashMap::from_bytes(&pieces.concat()), Ok(states));
        }
    }
}
