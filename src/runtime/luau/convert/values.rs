//! The kinds of value that Luau lacks: 64-bit integers, points in time, spans of time and time
//! zones.
//!
//! Small immutable userdata with the operators that make sense and one constructor table each
//! (`integer`, `timestamp`, `interval`, `timezone`). Their metatables cost nothing in a VM that
//! never meets one.

use mlua::{
    Error, FromLua, IntoLua, Lua, MetaMethod, Table, UserData, UserDataFields, UserDataMethods,
    Value,
};

use super::{EXACT_MAX, number};
use crate::base::clock::ScriptClock;
use crate::base::limits::SCRIPT_NAME_MAX_BYTES;
use crate::wire::data::timezone;
use crate::wire::data::{Interval, Timestamp};

/// A 64-bit integer that keeps every digit. It leaves Luau as the kind that it came as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runtime::luau) enum Wide {
    Signed(i64),
    Unsigned(u64),
}

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(in crate::runtime::luau) struct Time(pub(in crate::runtime::luau) Timestamp);

/// A span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(in crate::runtime::luau) struct Span(pub(in crate::runtime::luau) Interval);

/// A time zone, by its IANA name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::runtime::luau) struct Zone(pub(in crate::runtime::luau) String);

/// A name, or a text to be read: copied only if it is short, as a text may be as large as the VM.
#[derive(Debug)]
pub(in crate::runtime::luau) struct ValueName(pub(in crate::runtime::luau) String);

impl FromLua for ValueName {
    fn from_lua(value: Value, lua: &Lua) -> mlua::Result<Self> {
        if let Value::String(text) = &value
            && text.as_bytes().len() > SCRIPT_NAME_MAX_BYTES
        {
            let bytes = text.as_bytes().len();
            return Err(Error::runtime(format!(
                "a text of {bytes} bytes; at most {SCRIPT_NAME_MAX_BYTES} are allowed here"
            )));
        }
        String::from_lua(value, lua).map(Self)
    }
}

/// Puts the constructor tables into a VM's globals.
pub(in crate::runtime::luau) fn install(
    lua: &Lua,
    globals: &Table,
    clock: &ScriptClock,
) -> mlua::Result<()> {
    let constructors = |entries: &[(&str, mlua::Function)]| -> mlua::Result<Table> {
        lua.create_table_from(entries.iter().map(|(name, function)| (*name, function)))
    };
    let parse = lua.create_function(|_, text: ValueName| Wide::parse(&text.0))?;
    let from = lua.create_function(|_, value: Value| Wide::operand(&value))?;
    globals.raw_set("integer", constructors(&[("parse", parse), ("from", from)])?)?;

    let clock = clock.clone();
    let now = lua.create_function(move |_, ()| Ok(Time(Timestamp::of(clock.date()))))?;
    let parse = lua.create_function(|_, text: ValueName| {
        text.0.parse().map(Time).map_err(|_| Error::runtime("not an RFC 3339 date and time"))
    })?;
    let from = lua.create_function(|_, seconds: f64| Time::from_seconds(seconds))?;
    globals
        .raw_set("timestamp", constructors(&[("now", now), ("parse", parse), ("from", from)])?)?;

    let from = lua.create_function(|_, seconds: f64| Span::from_seconds(seconds))?;
    globals.raw_set("interval", constructors(&[("from", from)])?)?;

    let from = lua.create_function(|_, ValueName(name): ValueName| {
        if timezone::is_known(&name) {
            Ok(Zone(name))
        } else {
            Err(Error::runtime("not the name of an IANA time zone"))
        }
    })?;
    globals.raw_set("timezone", constructors(&[("from", from)])?)
}

impl Wide {
    /// An integer as Luau gets it: a number, if that holds it exactly.
    pub(in crate::runtime::luau) fn luau(number: i64, lua: &Lua) -> mlua::Result<Value> {
        if (-EXACT_MAX..=EXACT_MAX).contains(&number) {
            Ok(Value::Number(number as f64))
        } else {
            Wide::Signed(number).into_lua(lua)
        }
    }

    fn parse(text: &str) -> mlua::Result<Self> {
        let wide = text.parse().map(Wide::Signed).or_else(|_| text.parse().map(Wide::Unsigned));
        wide.map_err(|_| Error::runtime("not a decimal integer of 64 bits"))
    }

    /// An operand of arithmetic: a wide integer, or a whole number that Luau holds exactly.
    fn operand(value: &Value) -> mlua::Result<Self> {
        let wide = value.as_userdata().and_then(|data| data.borrow::<Wide>().ok());
        match (wide, number(value)) {
            (Some(wide), _) => Ok(*wide),
            (None, Some(number))
                if number.trunc() == number && number.abs() <= EXACT_MAX as f64 =>
            {
                Ok(Wide::Signed(number as i64))
            }
            _ => Err(Error::runtime("a 64-bit integer goes together with integers only")),
        }
    }

    fn value(self) -> i128 {
        match self {
            Wide::Signed(number) => number.into(),
            Wide::Unsigned(number) => number.into(),
        }
    }

    /// The result of arithmetic: unsigned only if both operands were or nothing else fits.
    fn result(left: Self, right: Self, value: Option<i128>) -> mlua::Result<Self> {
        let unsigned = || value.and_then(|value| u64::try_from(value).ok()).map(Wide::Unsigned);
        let signed = || value.and_then(|value| i64::try_from(value).ok()).map(Wide::Signed);
        let result = match (left, right) {
            (Wide::Unsigned(_), Wide::Unsigned(_)) => unsigned().or_else(signed),
            _ => signed().or_else(unsigned),
        };
        result.ok_or_else(|| Error::runtime("the result does not fit into 64 bits"))
    }
}

/// Adds an operator whose operands may be a wide integer and a number, either way round.
fn operator<M: UserDataMethods<Wide>>(
    methods: &mut M,
    name: MetaMethod,
    apply: fn(i128, i128) -> Option<i128>,
) {
    methods.add_meta_function(name, move |_, (left, right): (Value, Value)| {
        let (left, right) = (Wide::operand(&left)?, Wide::operand(&right)?);
        Wide::result(left, right, apply(left.value(), right.value()))
    });
}

impl UserData for Wide {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_meta_field(MetaMethod::Type, "integer");
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        operator(methods, MetaMethod::Add, i128::checked_add);
        operator(methods, MetaMethod::Sub, i128::checked_sub);
        operator(methods, MetaMethod::Mul, i128::checked_mul);
        operator(methods, MetaMethod::IDiv, |left, right| {
            let (quotient, rest) = (left.checked_div(right)?, left.checked_rem(right)?);
            // Luau's // rounds down.
            if rest != 0 && (rest < 0) != (right < 0) { Some(quotient - 1) } else { Some(quotient) }
        });
        operator(methods, MetaMethod::Mod, |left, right| {
            let rest = left.checked_rem(right)?;
            if rest != 0 && (rest < 0) != (right < 0) { Some(rest + right) } else { Some(rest) }
        });
        methods.add_meta_method(MetaMethod::Unm, |_, wide, ()| {
            Wide::result(*wide, Wide::Signed(0), wide.value().checked_neg())
        });
        methods.add_meta_method(MetaMethod::Eq, |_, wide, other: Wide| {
            Ok(wide.value() == other.value())
        });
        methods.add_meta_method(MetaMethod::Lt, |_, wide, other: Wide| {
            Ok(wide.value() < other.value())
        });
        methods.add_meta_method(MetaMethod::Le, |_, wide, other: Wide| {
            Ok(wide.value() <= other.value())
        });
        methods.add_meta_method(MetaMethod::ToString, |_, wide, ()| Ok(wide.value().to_string()));
        methods.add_meta_function(MetaMethod::Concat, |lua, (left, right): (Value, Value)| {
            let mut joined = Vec::new();
            concat_operand(&left, &mut joined)?;
            concat_operand(&right, &mut joined)?;
            lua.create_string(joined)
        });
        methods.add_method("tonumber", |_, wide, ()| Ok(wide.value() as f64));
    }
}

impl FromLua for Wide {
    fn from_lua(value: Value, _: &Lua) -> mlua::Result<Self> {
        Wide::operand(&value)
    }
}

/// Adds an operand's bytes: those of a text as they are, as it may be large and need not be UTF-8.
fn concat_operand(value: &Value, joined: &mut Vec<u8>) -> mlua::Result<()> {
    match (value, number(value)) {
        (Value::String(text), _) => joined.extend_from_slice(&text.as_bytes()),
        (_, Some(number)) => joined.extend_from_slice(number.to_string().as_bytes()),
        _ => joined.extend_from_slice(Wide::operand(value)?.value().to_string().as_bytes()),
    }
    Ok(())
}

impl Time {
    fn from_seconds(seconds: f64) -> mlua::Result<Self> {
        let micros = (seconds * 1e6).round();
        // `as` saturates, and what saturates is out of range for a timestamp too.
        match Timestamp::from_unix_micros(micros as i64) {
            Ok(time) if micros.is_finite() => Ok(Time(time)),
            _ => Err(Error::runtime("not a point in time")),
        }
    }

    fn moved(self, micros: Option<i128>) -> mlua::Result<Self> {
        let moved = micros.and_then(|by| i64::try_from(i128::from(self.0.unix_micros()) + by).ok());
        match moved.map(Timestamp::from_unix_micros) {
            Some(Ok(time)) => Ok(Time(time)),
            _ => Err(Error::runtime("the result is not a point in time")),
        }
    }
}

impl UserData for Time {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_meta_field(MetaMethod::Type, "timestamp");
        fields.add_field_method_get("unix", |_, time| Ok(time.0.unix_micros() as f64 / 1e6));
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method(MetaMethod::ToString, |_, time, ()| Ok(time.0.to_string()));
        methods.add_meta_method(MetaMethod::Eq, |_, time, other: Time| Ok(*time == other));
        methods.add_meta_method(MetaMethod::Lt, |_, time, other: Time| Ok(*time < other));
        methods.add_meta_method(MetaMethod::Le, |_, time, other: Time| Ok(*time <= other));
        methods.add_meta_method(MetaMethod::Add, |_, time, span: Span| {
            time.moved(Some(span.micros()))
        });
        methods.add_meta_method(MetaMethod::Sub, |lua, time, other: Value| {
            match Time::from_lua(other.clone(), lua) {
                Ok(other) => {
                    let micros =
                        i128::from(time.0.unix_micros()) - i128::from(other.0.unix_micros());
                    Span::from_micros(micros)?.into_lua(lua)
                }
                Err(_) => time.moved(Some(-Span::from_lua(other, lua)?.micros()))?.into_lua(lua),
            }
        });
    }
}

impl FromLua for Time {
    fn from_lua(value: Value, _: &Lua) -> mlua::Result<Self> {
        match value.as_userdata().map(|data| data.borrow::<Time>()) {
            Some(Ok(time)) => Ok(*time),
            _ => Err(Error::runtime("a timestamp was expected, such as timestamp.now()")),
        }
    }
}

impl Span {
    fn from_seconds(seconds: f64) -> mlua::Result<Self> {
        let micros = (seconds * 1e6).round();
        if micros.is_finite() {
            Self::from_micros(micros as i128)
        } else {
            Err(Error::runtime("not a span of time"))
        }
    }

    fn from_micros(micros: i128) -> mlua::Result<Self> {
        let secs = i64::try_from(micros.div_euclid(1_000_000)).ok();
        let nanos = u32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap_or_default();
        let span = secs.and_then(|secs| Interval::new(secs, nanos)).map(Span);
        span.ok_or_else(|| Error::runtime("not a span of time"))
    }

    fn micros(self) -> i128 {
        i128::from(self.0.secs()) * 1_000_000 + i128::from(self.0.nanos() / 1000)
    }

    pub(in crate::runtime::luau) fn seconds(self) -> f64 {
        self.0.secs() as f64 + f64::from(self.0.nanos()) / 1e9
    }
}

impl UserData for Span {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_meta_field(MetaMethod::Type, "interval");
        fields.add_field_method_get("seconds", |_, span| Ok(span.seconds()));
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method(MetaMethod::ToString, |_, span, ()| {
            Ok(format!("{}s", span.seconds()))
        });
        methods.add_meta_method(MetaMethod::Eq, |_, span, other: Span| Ok(*span == other));
        methods.add_meta_method(MetaMethod::Lt, |_, span, other: Span| Ok(*span < other));
        methods.add_meta_method(MetaMethod::Le, |_, span, other: Span| Ok(*span <= other));
        methods.add_meta_method(MetaMethod::Add, |_, span, other: Span| {
            Span::from_micros(span.micros() + other.micros())
        });
        methods.add_meta_method(MetaMethod::Sub, |_, span, other: Span| {
            Span::from_micros(span.micros() - other.micros())
        });
        methods.add_meta_method(MetaMethod::Unm, |_, span, ()| Span::from_micros(-span.micros()));
    }
}

impl FromLua for Span {
    fn from_lua(value: Value, _: &Lua) -> mlua::Result<Self> {
        match value.as_userdata().map(|data| data.borrow::<Span>()) {
            Some(Ok(span)) => Ok(*span),
            _ => Err(Error::runtime("an interval was expected, such as interval.from(60)")),
        }
    }
}

impl UserData for Zone {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_meta_field(MetaMethod::Type, "timezone");
        fields.add_field_method_get("name", |_, zone| Ok(zone.0.clone()));
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method(MetaMethod::ToString, |_, zone, ()| Ok(zone.0.clone()));
        methods.add_meta_method(MetaMethod::Eq, |_, zone, other: Value| {
            let other = other.as_userdata().and_then(|data| data.borrow::<Zone>().ok());
            Ok(other.is_some_and(|other| *other == *zone))
        });
    }
}
