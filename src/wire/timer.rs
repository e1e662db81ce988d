//! What goes over `/db/timers`, and a timer as the event that it is.

use super::pack::shape::{wire_enum, wire_struct};
use super::pack::value;
use crate::wire::WireError;
use crate::wire::data::{CreateEvent, EventData, KhronosValue, Timer, TimerOp, TimerWhen};

wire_struct!(Timer { id, name, due, every, data });

wire_enum!(TimerWhen {
    0 At(time),
    1 After(micros),
    2 Every(schedule),
});

wire_enum!(TimerOp {
    0 Set { id, name, when, data },
    1 Cancel { id },
    2 List {},
});

/// The event of a run of a timer, without an author: its data is `{timer, due, data}`.
///
/// # Errors
/// The timer's data is no value.
pub fn event(timer: &Timer) -> Result<CreateEvent, WireError> {
    let text = |text: &str| KhronosValue::Text(text.to_owned());
    let data = KhronosValue::Map(vec![
        (text("timer"), text(&timer.id)),
        (text("due"), KhronosValue::Timestamptz(timer.due)),
        (text("data"), value::decode(&timer.data)?),
    ]);
    let data = EventData::KhronosValue(value::encode(&data));
    Ok(CreateEvent { name: timer.name.clone(), author: None, data })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::data::{EncodedValue, Timestamp};
    use crate::wire::json::value_to_json;
    use crate::wire::pack::shape::{Decode, Encode};

    fn timer(data: EncodedValue) -> Timer {
        let due = Timestamp::from_unix_micros(1_700_000_000_000_000).expect("in range");
        Timer { id: "ab".to_owned(), name: "Remind".to_owned(), due, every: None, data }
    }

    #[test]
    fn the_event_says_which_timer_when_and_what() {
        let data = value::encode(&KhronosValue::List(vec![KhronosValue::Integer(-1)]));
        let event = event(&timer(data)).expect("a value");
        assert_eq!((event.name.as_str(), event.author), ("Remind", None));
        let EventData::KhronosValue(data) = event.data else { panic!("a value") };
        let json = r#"{"timer":"ab","due":{"$timestamp":"2023-11-14T22:13:20Z"},"data":[-1]}"#;
        assert_eq!(value_to_json(&data).expect("JSON"), json);
    }

    #[test]
    fn operations_and_timers_come_out_as_they_went_in() {
        let timer = timer(EncodedValue::null());
        assert_eq!(Timer::from_bytes(&timer.to_bytes()), Ok(timer.clone()));
        for when in [
            TimerWhen::At(timer.due),
            TimerWhen::After(u64::MAX),
            TimerWhen::Every("0 9 * * *".to_owned()),
        ] {
            let (id, name) = (timer.id.clone(), timer.name.clone());
            let op = TimerOp::Set { id, name, when, data: EncodedValue::null() };
            assert_eq!(TimerOp::from_bytes(&op.to_bytes()), Ok(op));
        }
        for op in [TimerOp::Cancel { id: "x".to_owned() }, TimerOp::List] {
            assert_eq!(TimerOp::from_bytes(&op.to_bytes()), Ok(op));
        }
    }
}
