//! The shapes that structs, enums and options have on the wire, read as leniently as the async
//! reference reads them.
//!
//! A struct comes as an array of its fields or as a map by field name; an enum as `{variant:
//! value}` or a bare variant; a name as str or bin, or as its index. Only the first of each is what
//! we write (protocol.md: "Encoding"), and only that keeps a [`Reader`] canonical. Pure; nothing
//! here recurses except over the fixed nesting of our own types.

use std::collections::BTreeSet;

use super::reader::{Item, Reader};
use super::writer::Writer;
use crate::base::limits::WIRE_DEPTH_MAX;
use crate::wire::WireError;
use crate::wire::data::Timestamp;

/// What has a form on the wire.
pub trait Encode {
    /// Appends it.
    fn encode(&self, writer: &mut Writer);

    /// It alone, as bytes.
    fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        self.encode(&mut writer);
        writer.into_bytes()
    }
}

/// What can be read from the wire.
pub trait Decode: Sized {
    /// Reads it and leaves the reader behind it.
    ///
    /// # Errors
    /// The bytes there are something else.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError>;

    /// What it is when a struct comes as a map that lacks the field; nothing if it must be there.
    fn missing() -> Option<Self> {
        None
    }

    /// Reads it from bytes that hold nothing else.
    ///
    /// # Errors
    /// The bytes are something else, or others follow.
    fn from_bytes(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let value = Self::decode(&mut reader)?;
        reader.end()?;
        Ok(value)
    }
}

/// An enum's variant, or a struct's field, as the sender named it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name<'a> {
    /// By name; the bytes may not be UTF-8.
    Text(&'a [u8]),
    /// By its place in the declaration.
    Index(u64),
}

impl<'a> Name<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let item = reader.item()?;
        Self::from_item(item, reader)
    }

    fn from_item(item: Item<'a>, reader: &mut Reader<'a>) -> Result<Self, WireError> {
        if let Item::Str(name) = item {
            return Ok(Name::Text(name));
        }
        reader.not_canonical();
        match item {
            Item::Bin(name) => Ok(Name::Text(name)),
            Item::Unsigned(index) => Ok(Name::Index(index)),
            _ => Err(WireError::Invalid("expected a name")),
        }
    }

    /// Its place in a list of names, if it is one of them.
    pub(crate) fn find(self, names: &[&str]) -> Option<usize> {
        match self {
            Name::Text(name) => names.iter().position(|known| known.as_bytes() == name),
            Name::Index(index) => usize::try_from(index).ok().filter(|index| *index < names.len()),
        }
    }
}

/// What stands around an enum's value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Envelope<'a> {
    /// Which variant.
    pub(crate) name: Name<'a>,
    /// Whether the variant's value follows; otherwise the name was all.
    pub(crate) has_value: bool,
}

impl<'a> Envelope<'a> {
    /// Reads up to the variant's value, if it has one.
    #[inline]
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        if let Some(name) = reader.short_variant() {
            return Ok(Self { name: Name::Text(name), has_value: true });
        }
        match reader.item()? {
            Item::Map(1) => Ok(Self { name: Name::read(reader)?, has_value: true }),
            item => Ok(Self { name: Name::from_item(item, reader)?, has_value: false }),
        }
    }

    /// The place of a variant, all of which have a value.
    pub(crate) fn variant_with_value(
        reader: &mut Reader<'a>,
        names: &[&str],
    ) -> Result<usize, WireError> {
        let envelope = Self::read(reader)?;
        let index = envelope.name.find(names).ok_or(WireError::Invalid("unknown variant"))?;
        if envelope.has_value {
            Ok(index)
        } else {
            Err(WireError::Invalid("a variant without its value"))
        }
    }
}

/// How many fields an array of them must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldCount {
    /// Exactly those that are named.
    Exact,
    /// Any number: further ones are skipped, and the reader of the struct has defaults for missing
    /// ones.
    Any,
}

/// Reads a struct: calls `read` with the place of each field that is there, in the order in which
/// they come.
pub(crate) fn fields<'a>(
    reader: &mut Reader<'a>,
    names: &[&str],
    count: FieldCount,
    mut read: impl FnMut(usize, &mut Reader<'a>) -> Result<(), WireError>,
) -> Result<(), WireError> {
    match reader.item()? {
        Item::Array(len) => {
            if count == FieldCount::Exact && len != names.len() {
                return Err(WireError::Invalid("a struct with the wrong number of fields"));
            }
            for index in 0..len.min(names.len()) {
                read(index, reader)?;
            }
            for _ in names.len()..len {
                skip_unknown(reader)?;
            }
            Ok(())
        }
        Item::Map(len) => {
            reader.not_canonical();
            fields_by_name(reader, names, len, read)
        }
        _ => Err(WireError::Invalid("expected a struct")),
    }
}

fn fields_by_name<'a>(
    reader: &mut Reader<'a>,
    names: &[&str],
    len: usize,
    mut read: impl FnMut(usize, &mut Reader<'a>) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let mut seen = 0_u32;
    for _ in 0..len {
        let Some(index) = Name::read(reader)?.find(names) else {
            skip_unknown(reader)?;
            continue;
        };
        if seen & (1 << index) != 0 {
            return Err(WireError::Invalid("a field that comes twice"));
        }
        seen |= 1 << index;
        read(index, reader)?;
    }
    Ok(())
}

/// Passes over something that a newer peer added.
pub(crate) fn skip_unknown(reader: &mut Reader<'_>) -> Result<(), WireError> {
    // An enum's map does not count as a level for the reference, so a value of WIRE_DEPTH_MAX
    // levels has up to twice as many containers.
    reader.skip(2 * WIRE_DEPTH_MAX).map(drop)
}

/// A field that must have been there, unless it is optional.
pub(crate) fn required<T: Decode>(field: Option<T>) -> Result<T, WireError> {
    field.or_else(T::missing).ok_or(WireError::Invalid("a field is missing"))
}

/// Reads a struct into variables of the names of its fields.
macro_rules! read_fields {
    ($reader:expr =>) => {
        $crate::wire::pack::shape::fields(
            $reader,
            &[],
            $crate::wire::pack::shape::FieldCount::Exact,
            |_, _| Ok(()),
        )?;
    };
    ($reader:expr => $($field:ident),+) => {
        let reader: &mut $crate::wire::pack::reader::Reader<'_> = $reader;
        // As nearly everybody writes it: one field after the other, without asking for the place of
        // each.
        let ($($field,)+) = if reader.short_array_of([$(stringify!($field)),+].len()) {
            ($({
                let $field = $crate::wire::pack::shape::Decode::decode(reader)?;
                $field
            },)+)
        } else {
            $(let mut $field = None;)+
            $crate::wire::pack::shape::fields(
                reader,
                &[$(stringify!($field)),+],
                $crate::wire::pack::shape::FieldCount::Exact,
                |index, reader| {
                    let mut place = 0..;
                    $(if place.next() == Some(index) {
                        $field = Some($crate::wire::pack::shape::Decode::decode(reader)?);
                    })+
                    Ok(())
                },
            )?;
            ($($crate::wire::pack::shape::required($field)?,)+)
        };
    };
}
pub(crate) use read_fields;

/// Reads the fields that are there into a struct that has defaults for the others. What follows
/// `=>` reads a field that has not the form of its type.
macro_rules! read_growing {
    ($reader:ident, $read:ident: $($field:ident $(=> $custom:expr)?),+ $(,)?) => {
        $crate::wire::pack::shape::fields(
            $reader,
            &[$(stringify!($field)),+],
            $crate::wire::pack::shape::FieldCount::Any,
            |index, $reader| {
                let mut place = 0..;
                $(if place.next() == Some(index) {
                    $crate::wire::pack::shape::read_growing!(@$reader $read $field $($custom)?);
                })+
                Ok(())
            },
        )?
    };
    (@$reader:ident $read:ident $field:ident) => {
        $read.$field = $crate::wire::pack::shape::Decode::decode($reader)?
    };
    (@$reader:ident $read:ident $field:ident $custom:expr) => {
        $custom?
    };
}
pub(crate) use read_growing;

/// Writes and reads a struct as an array of its fields, in the order in which they are named here.
/// A `growing` struct may come with fewer fields, which are then as in its default, or with more,
/// which a newer peer has added.
macro_rules! wire_struct {
    ($type:ident { $($field:ident),+ $(,)? }) => {
        $crate::wire::pack::shape::wire_struct!(@encode $type { $($field),+ });

        impl $crate::wire::pack::shape::Decode for $type {
            fn decode(
                reader: &mut $crate::wire::pack::reader::Reader<'_>,
            ) -> Result<Self, $crate::wire::WireError> {
                $crate::wire::pack::shape::read_fields!(reader => $($field),+);
                Ok(Self { $($field),+ })
            }
        }
    };
    (growing $type:ident { $($field:ident),+ $(,)? }) => {
        $crate::wire::pack::shape::wire_struct!(@encode $type { $($field),+ });

        impl $crate::wire::pack::shape::Decode for $type {
            fn decode(
                reader: &mut $crate::wire::pack::reader::Reader<'_>,
            ) -> Result<Self, $crate::wire::WireError> {
                let mut read = Self::default();
                $crate::wire::pack::shape::read_growing!(reader, read: $($field),+);
                Ok(read)
            }
        }
    };
    (@encode $type:ident { $($field:ident),+ }) => {
        impl $crate::wire::pack::shape::Encode for $type {
            fn encode(&self, writer: &mut $crate::wire::pack::writer::Writer) {
                writer.array([$(stringify!($field)),+].len());
                $(self.$field.encode(writer);)+
            }
        }
    };
}
pub(crate) use wire_struct;

/// An enum each of whose variants has a value: a struct's fields, or one value of another type.
pub(crate) trait Variants: Sized {
    /// The variants' names, each at its number. A number without a variant has no name.
    const NAMES: &'static [&'static str];

    /// The names of the fields of the variant of this number.
    fn field_names(variant: usize) -> &'static [&'static str];

    /// Reads the value of the variant of this number.
    fn read(variant: usize, reader: &mut Reader<'_>) -> Result<Self, WireError>;
}

/// Writes an enum, and reads the values of its variants. Each variant has its number on the wire.
macro_rules! variants {
    ($type:ty {
        $($number:literal $variant:ident $(($value:ident))? $({ $($field:ident),* })?),+ $(,)?
    }) => {
        impl $crate::wire::pack::shape::Variants for $type {
            const NAMES: &'static [&'static str] = &{
                let mut names = [""; [$($number),+][[$($number),+].len() - 1] + 1];
                $(names[$number] = stringify!($variant);)+
                names
            };

            fn field_names(variant: usize) -> &'static [&'static str] {
                match variant {
                    $($number => &[$($(stringify!($field)),*)?],)+
                    _ => &[],
                }
            }

            fn read(
                variant: usize,
                reader: &mut $crate::wire::pack::reader::Reader<'_>,
            ) -> Result<Self, $crate::wire::WireError> {
                match variant {
                    $($number => {
                        $($crate::wire::pack::shape::read_fields!(reader => $($field),*);)?
                        $(let $value = $crate::wire::pack::shape::Decode::decode(reader)?;)?
                        Ok(Self::$variant $(($value))? $({ $($field),* })?)
                    })+
                    _ => Err($crate::wire::WireError::Invalid("unknown variant")),
                }
            }
        }

        impl $crate::wire::pack::shape::Encode for $type {
            fn encode(&self, writer: &mut $crate::wire::pack::writer::Writer) {
                match self {
                    $(Self::$variant $(($value))? $({ $($field),* })? => {
                        $crate::wire::pack::shape::write_variant!(
                            writer, $variant $(($value))? $({ $($field),* })?
                        );
                    })+
                }
            }
        }
    };
}
pub(crate) use variants;

/// Writes a variant of an enum; its value is in variables, of the names of the fields if it has
/// such.
macro_rules! write_variant {
    ($writer:expr, $variant:ident $(($value:ident))? $({ $($field:ident),* })?) => {
        const ARRAY: &[u8] = &[$(0x90 | <[&str]>::len(&[$(stringify!($field)),*]) as u8)?];
        const HEAD: [u8; stringify!($variant).len() + 2 + ARRAY.len()] =
            $crate::wire::pack::shape::head(stringify!($variant), ARRAY);
        let writer: &mut $crate::wire::pack::writer::Writer = $writer;
        writer.encoded(&HEAD);
        $($value.encode(writer);)?
        $($($field.encode(writer);)*)?
    };
}
pub(crate) use write_variant;

/// Writes and reads an enum whose variants are all known.
macro_rules! wire_enum {
    ($type:ty { $($variants:tt)+ }) => {
        $crate::wire::pack::shape::variants!($type { $($variants)+ });

        impl $crate::wire::pack::shape::Decode for $type {
            fn decode(
                reader: &mut $crate::wire::pack::reader::Reader<'_>,
            ) -> Result<Self, $crate::wire::WireError> {
                use $crate::wire::pack::shape::{Envelope, Variants};
                Self::read(Envelope::variant_with_value(reader, Self::NAMES)?, reader)
            }
        }
    };
}
pub(crate) use wire_enum;

/// What stands before a variant's value, as one piece: the head of a map of one, the name, and
/// `array`, the head of an array of at most 15 fields if the value is one.
pub(crate) const fn head<const LEN: usize>(name: &str, array: &[u8]) -> [u8; LEN] {
    assert!(name.len() < 32, "a short name");
    let mut head = [0x81; LEN];
    let (start, rest) = head.split_at_mut(2);
    start[1] = 0xa0 | name.len() as u8;
    let (text, end) = rest.split_at_mut(name.len());
    text.copy_from_slice(name.as_bytes());
    end.copy_from_slice(array);
    head
}

/// Text, from a str or a bin.
pub(crate) fn text<'a>(reader: &mut Reader<'a>) -> Result<&'a str, WireError> {
    if let Some(bytes) = reader.short_str() {
        return utf8(bytes);
    }
    match reader.item()? {
        Item::Str(bytes) => utf8(bytes),
        Item::Bin(bytes) => {
            reader.not_canonical();
            utf8(bytes)
        }
        _ => Err(WireError::Invalid("expected text")),
    }
}

/// Text, from a str only: what the reference parses from text, it does not take from a bin.
pub(crate) fn text_from_str<'a>(reader: &mut Reader<'a>) -> Result<&'a str, WireError> {
    match reader.item()? {
        Item::Str(bytes) => utf8(bytes),
        _ => Err(WireError::Invalid("expected text")),
    }
}

pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, WireError> {
    std::str::from_utf8(bytes).map_err(|_| WireError::Invalid("text that is not UTF-8"))
}

/// The number of items of an array.
pub(crate) fn array(reader: &mut Reader<'_>) -> Result<usize, WireError> {
    if let Some(len) = reader.short_array() {
        return Ok(len);
    }
    match reader.item()? {
        Item::Array(len) => Ok(len),
        _ => Err(WireError::Invalid("expected an array")),
    }
}

macro_rules! encode_as {
    ($($type:ty => $write:ident),+) => {
        $(impl Encode for $type {
            fn encode(&self, writer: &mut Writer) {
                writer.$write((*self).into());
            }
        })+
    };
}

encode_as!(i64 => integer, i32 => integer, u64 => unsigned, bool => boolean);

impl Decode for u64 {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        match reader.item()? {
            Item::Unsigned(number) => Ok(number),
            _ => Err(WireError::Invalid("expected a whole number from zero on")),
        }
    }
}

impl Decode for i64 {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        match reader.item()? {
            Item::Unsigned(number) => i64::try_from(number)
                .map_err(|_| WireError::Invalid("a whole number that is too large")),
            Item::Negative(number) => Ok(number),
            _ => Err(WireError::Invalid("expected a whole number")),
        }
    }
}

impl Decode for i32 {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        i64::decode(reader)?
            .try_into()
            .map_err(|_| WireError::Invalid("a whole number that is too large"))
    }
}

impl Decode for bool {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        match reader.item()? {
            Item::Boolean(value) => Ok(value),
            _ => Err(WireError::Invalid("expected true or false")),
        }
    }
}

impl Encode for str {
    fn encode(&self, writer: &mut Writer) {
        writer.text(self);
    }
}

impl Encode for String {
    fn encode(&self, writer: &mut Writer) {
        writer.text(self);
    }
}

impl Decode for String {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        text(reader).map(str::to_owned)
    }
}

impl Encode for Timestamp {
    fn encode(&self, writer: &mut Writer) {
        writer.text(&self.to_string());
    }
}

impl Decode for Timestamp {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        text_from_str(reader)?.parse().map_err(|_| WireError::Invalid("not a date and time"))
    }
}

impl<T: Encode> Encode for Option<T> {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Some(value) => value.encode(writer),
            None => writer.nil(),
        }
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        if reader.nil() { Ok(None) } else { T::decode(reader).map(Some) }
    }

    fn missing() -> Option<Self> {
        Some(None)
    }
}

impl<T: Encode> Encode for Box<T> {
    fn encode(&self, writer: &mut Writer) {
        (**self).encode(writer);
    }
}

impl<T: Decode> Decode for Box<T> {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        T::decode(reader).map(Box::new)
    }
}

impl<A: Encode, B: Encode, C: Encode> Encode for (A, B, C) {
    fn encode(&self, writer: &mut Writer) {
        writer.array(3);
        self.0.encode(writer);
        self.1.encode(writer);
        self.2.encode(writer);
    }
}

impl<A: Decode, B: Decode, C: Decode> Decode for (A, B, C) {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        match reader.item()? {
            Item::Array(3) => Ok((A::decode(reader)?, B::decode(reader)?, C::decode(reader)?)),
            _ => Err(WireError::Invalid("expected an array of three")),
        }
    }
}

impl<T: Encode> Encode for Vec<T> {
    fn encode(&self, writer: &mut Writer) {
        writer.array(self.len());
        for item in self {
            item.encode(writer);
        }
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let len = array(reader)?;
        // Limit: an item in memory may be a hundred times its least encoding, so room is not made
        // by the claim alone.
        let mut items = Vec::with_capacity(len.min(64));
        for _ in 0..len {
            items.push(T::decode(reader)?);
        }
        Ok(items)
    }
}

impl Encode for BTreeSet<String> {
    fn encode(&self, writer: &mut Writer) {
        writer.array(self.len());
        for item in self {
            writer.text(item);
        }
    }
}

impl Decode for BTreeSet<String> {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Vec::<String>::decode(reader).map(Self::from_iter)
    }
}
