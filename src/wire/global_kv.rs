//! What goes over `/db/public-global-kv` and `/db/global-kv`.

use rmp::Marker;

use super::WireError;
use super::pack::reader::Reader;
use super::pack::shape::{
    Decode, Encode, Envelope, FieldCount, Name, array, fields, read_fields, required,
};
use super::pack::writer::Writer;
use crate::wire::data::{
    CreateGlobalKv, GlobalKeyValueOp, GlobalKv, GlobalKvData, PartialGlobalKv,
    PublicGlobalKeyValueOp,
};

impl Encode for PartialGlobalKv {
    fn encode(&self, writer: &mut Writer) {
        writer.array(13);
        writer.text(&self.key);
        writer.integer(self.version.into());
        writer.text(&self.owner_id);
        writer.text(&self.owner_type);
        self.price.encode(writer);
        writer.text(&self.short);
        self.public_metadata.encode(writer);
        writer.text(&self.scope);
        self.created_at.encode(writer);
        self.last_updated_at.encode(writer);
        writer.boolean(self.public_data);
        writer.text(&self.review_state);
        self.long.encode(writer);
    }
}

impl Decode for PartialGlobalKv {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        read_fields!(reader => key, version, owner_id, owner_type, price, short, public_metadata,
            scope, created_at, last_updated_at, public_data, review_state, long);
        Ok(Self {
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
        })
    }
}

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

impl Encode for GlobalKv {
    fn encode(&self, writer: &mut Writer) {
        writer.array(2);
        self.partial.encode(writer);
        self.data.encode(writer);
    }
}

impl Decode for GlobalKv {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        read_fields!(reader => partial, data);
        Ok(Self { partial, data })
    }
}

impl Encode for CreateGlobalKv {
    fn encode(&self, writer: &mut Writer) {
        writer.array(8);
        writer.text(&self.key);
        writer.integer(self.version.into());
        writer.text(&self.short);
        self.public_metadata.encode(writer);
        writer.text(&self.scope);
        writer.boolean(self.public_data);
        self.long.encode(writer);
        self.data.encode(writer);
    }
}

impl Decode for CreateGlobalKv {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        read_fields!(reader => key, version, short, public_metadata, scope, public_data, long,
            data);
        Ok(Self { key, version, short, public_metadata, scope, public_data, long, data })
    }
}

impl Encode for PublicGlobalKeyValueOp {
    fn encode(&self, writer: &mut Writer) {
        match self {
            PublicGlobalKeyValueOp::Find { query, scope } => {
                writer.variant("Find");
                writer.array(2);
                writer.text(query);
                writer.text(scope);
            }
            PublicGlobalKeyValueOp::Get { key, version, scope, id } => {
                writer.variant("Get");
                writer.array(4);
                writer.text(key);
                writer.integer((*version).into());
                writer.text(scope);
                id.encode(writer);
            }
        }
    }
}

impl Decode for PublicGlobalKeyValueOp {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(match Envelope::variant_with_value(reader, &["Find", "Get"])? {
            0 => {
                read_fields!(reader => query, scope);
                PublicGlobalKeyValueOp::Find { query, scope }
            }
            _ => {
                read_fields!(reader => key, version, scope, id);
                PublicGlobalKeyValueOp::Get { key, version, scope, id }
            }
        })
    }
}

impl Encode for GlobalKeyValueOp {
    fn encode(&self, writer: &mut Writer) {
        match self {
            GlobalKeyValueOp::Create { entry } => {
                writer.variant("Create");
                writer.array(1);
                entry.encode(writer);
            }
            GlobalKeyValueOp::Delete { key, version, scope } => {
                writer.variant("Delete");
                writer.array(3);
                writer.text(key);
                writer.integer((*version).into());
                writer.text(scope);
            }
        }
    }
}

impl Decode for GlobalKeyValueOp {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(match Envelope::variant_with_value(reader, &["Create", "Delete"])? {
            0 => {
                read_fields!(reader => entry);
                GlobalKeyValueOp::Create { entry }
            }
            _ => {
                read_fields!(reader => key, version, scope);
                GlobalKeyValueOp::Delete { key, version, scope }
            }
        })
    }
}
