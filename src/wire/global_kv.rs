//! What goes over `/db/public-global-kv` and `/db/global-kv`.

use rmp::Marker;

use super::WireError;
use super::pack::reader::Reader;
use super::pack::shape::{
    Decode, Encode, FieldCount, Name, array, fields, required, wire_enum, wire_struct,
};
use super::pack::writer::Writer;
use crate::wire::data::{
    CreateGlobalKv, GlobalKeyValueOp, GlobalKv, GlobalKvData, PartialGlobalKv,
    PublicGlobalKeyValueOp,
};

wire_struct!(PartialGlobalKv {
    key,
    version,
    owner_id,
    owner_type,
    price,
    short,
    public_metadata,
    scope,
    created_at,
    last_updated_at,
    public_data,
    review_state,
    long,
});

impl Encode for GlobalKvData {
    fn encode(&self, writer: &mut Writer) {
        match self {
            GlobalKvData::Value { data, opaque } => {
                writer.array(3);
                writer.text("Value");
                data.encode(writer);
                writer.boolean(*opaque);
            }
            GlobalKvData::PurchaseRequired { purchase_url } => {
                writer.array(2);
                writer.text("PurchaseRequired");
                writer.text(purchase_url);
            }
        }
    }
}

/// The one enum whose variant stands among its fields: first in an array, as `type` in a map.
impl Decode for GlobalKvData {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        if matches!(reader.peek()?, Marker::FixMap(_) | Marker::Map16 | Marker::Map32) {
            return data_by_name(reader);
        }
        let len = array(reader)?;
        match (data_variant(reader)?, len) {
            (0, 3) => Ok(GlobalKvData::Value {
                data: Decode::decode(reader)?,
                opaque: Decode::decode(reader)?,
            }),
            (1, 2) => Ok(GlobalKvData::PurchaseRequired { purchase_url: Decode::decode(reader)? }),
            _ => Err(WireError::Invalid("a struct with the wrong number of fields")),
        }
    }
}

fn data_variant(reader: &mut Reader<'_>) -> Result<usize, WireError> {
    let variant = Name::read(reader)?.find(&["Value", "PurchaseRequired"]);
    variant.ok_or(WireError::Invalid("unknown variant"))
}

fn data_by_name(reader: &mut Reader<'_>) -> Result<GlobalKvData, WireError> {
    let (mut variant, mut data, mut opaque, mut purchase_url) = (None, None, None, None);
    fields(
        reader,
        &["type", "data", "opaque", "purchase_url"],
        FieldCount::Exact,
        |field, reader| {
            match field {
                0 => variant = Some(data_variant(reader)?),
                1 => data = Some(Decode::decode(reader)?),
                2 => opaque = Some(Decode::decode(reader)?),
                _ => purchase_url = Some(Decode::decode(reader)?),
            }
            Ok(())
        },
    )?;
    match variant {
        Some(0) => Ok(GlobalKvData::Value { data: required(data)?, opaque: required(opaque)? }),
        Some(_) => Ok(GlobalKvData::PurchaseRequired { purchase_url: required(purchase_url)? }),
        None => Err(WireError::Invalid("a field is missing")),
    }
}

wire_struct!(GlobalKv { partial, data });

wire_struct!(CreateGlobalKv {
    key,
    version,
    short,
    public_metadata,
    scope,
    public_data,
    long,
    data,
});

wire_enum!(PublicGlobalKeyValueOp {
    0 Find { query, scope },
    1 Get { key, version, scope, id },
});

wire_enum!(GlobalKeyValueOp {
    0 Create { entry },
    1 Delete { key, version, scope },
});
