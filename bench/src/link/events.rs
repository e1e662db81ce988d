//! What is sent in every case, in the form that each side's callers have: the same texts, the same
//! tenants, the same order.

use mesophyll::wire;
use mesophyll::wire::data::{CreateEvent, EncodedValue, EventData, KhronosValue, TenantId};

use super::asked::{Kind, Load, Size};
use crate::peer::types as peer;

/// What every event is called but one.
pub const ECHO: &str = "MESSAGE_CREATE";

/// An event that a template never ends.
pub const LOOP: &str = "LOOP";

/// The tenant that loops; the others are numbered from 0.
pub const LOOPER: u64 = 1_000_000;

/// The texts of one event: one, or pairs.
enum Shape {
    Text(String),
    Pairs(Vec<(String, String)>),
}

fn text(bytes: usize) -> Shape {
    Shape::Text("x".repeat(bytes))
}

/// 60 pairs, 2 KiB of MessagePack.
fn pairs() -> Shape {
    Shape::Pairs((0..60).map(|at| (format!("key-{at:02}"), format!("value-{at:04}"))).collect())
}

fn shapes(size: Size) -> Vec<Shape> {
    match size {
        Size::Tiny => vec![text(16)],
        Size::TwoK | Size::TwoKTree => vec![pairs()],
        Size::TenM => vec![text(10 << 20)],
        Size::Mixed => vec![text(16), pairs(), text(20 << 10), text(200 << 10)],
    }
}

impl Shape {
    fn ours(&self) -> KhronosValue {
        let text = |text: &String| KhronosValue::Text(text.clone());
        match self {
            Shape::Text(only) => text(only),
            Shape::Pairs(pairs) => {
                KhronosValue::Map(pairs.iter().map(|(k, v)| (text(k), text(v))).collect())
            }
        }
    }

    fn theirs(&self) -> peer::KhronosValue {
        let text = |text: &String| peer::KhronosValue::Text(text.clone());
        match self {
            Shape::Text(only) => text(only),
            Shape::Pairs(pairs) => {
                peer::KhronosValue::Map(pairs.iter().map(|(k, v)| (text(k), text(v))).collect())
            }
        }
    }
}

/// Which tenant and which shape the event of a number has.
#[derive(Debug, Clone, Copy)]
struct Order {
    tenants: u64,
    is_mixed: bool,
}

impl Order {
    fn of(load: &Load) -> Self {
        Self { tenants: load.tenants.max(1), is_mixed: load.size == Size::Mixed }
    }

    fn tenant(self, number: u64) -> u64 {
        (number % self.tenants) << 22
    }

    fn shape(self, number: u64) -> usize {
        // Mixed (splitmix64), so that large ones come neither in step with tenants nor with
        // callers.
        let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        match (mixed ^ (mixed >> 31)) % 100 {
            _ if !self.is_mixed => 0,
            0..70 => 0,
            70..95 => 1,
            95..99 => 2,
            _ => 3,
        }
    }
}

/// Events as callers of ours have them: data as bytes.
pub struct Ours {
    order: Order,
    trees: Vec<KhronosValue>,
    encoded: Vec<EncodedValue>,
    from_trees: bool,
}

impl Ours {
    pub fn new(load: &Load) -> Self {
        let trees: Vec<_> = shapes(load.size).iter().map(Shape::ours).collect();
        let encoded = trees.iter().map(wire::pack::value::encode).collect();
        Self { order: Order::of(load), trees, encoded, from_trees: load.size == Size::TwoKTree }
    }

    pub fn tenant(&self, number: u64) -> TenantId {
        TenantId::Guild(self.order.tenant(number))
    }

    /// A fresh one, as `submit` keeps it.
    pub fn event(&self, number: u64) -> CreateEvent {
        let shape = self.order.shape(number);
        let data = if self.from_trees {
            wire::pack::value::encode(&self.trees[shape])
        } else {
            self.encoded[shape].clone()
        };
        CreateEvent { name: ECHO.to_owned(), author: None, data: EventData::KhronosValue(data) }
    }

    /// Takes an answer as a caller does.
    pub fn take(&self, answer: EncodedValue) -> Result<(), String> {
        if self.from_trees {
            std::hint::black_box(
                wire::pack::value::decode(&answer).map_err(|error| error.to_string())?,
            );
        }
        Ok(())
    }

    /// Whether an answer is what was sent.
    pub fn is_echo(&self, number: u64, answer: &EncodedValue) -> bool {
        answer.as_bytes().len() == self.encoded[self.order.shape(number)].as_bytes().len()
    }

    pub fn looping() -> (TenantId, CreateEvent) {
        let data = EventData::KhronosValue(EncodedValue::null());
        (TenantId::Guild(LOOPER << 22), CreateEvent { name: LOOP.to_owned(), author: None, data })
    }
}

/// Events as callers of the peer have them: data as trees. Dispatching borrows them, so that nobody
/// is charged for copies.
pub struct Theirs {
    order: Order,
    events: Vec<peer::CreateEvent>,
}

impl Theirs {
    pub fn new(load: &Load) -> Self {
        let event = |shape: &Shape| peer::CreateEvent {
            name: ECHO.to_owned(),
            author: None,
            data: peer::EventData::KhronosValue(shape.theirs()),
        };
        Self { order: Order::of(load), events: shapes(load.size).iter().map(event).collect() }
    }

    pub fn tenant(&self, number: u64) -> peer::Id {
        peer::Id::Guild(peer::Snowflake(self.order.tenant(number)))
    }

    pub fn event(&self, number: u64) -> &peer::CreateEvent {
        &self.events[self.order.shape(number)]
    }

    /// Whether an answer is what was sent; a map may have lost its order in Luau.
    pub fn is_echo(&self, number: u64, answer: &peer::KhronosValue) -> bool {
        let peer::EventData::KhronosValue(sent) = &self.event(number).data else { return false };
        match (sent, answer) {
            (peer::KhronosValue::Map(sent), peer::KhronosValue::Map(answer)) => {
                sent.len() == answer.len()
            }
            (sent, answer) => sent == answer,
        }
    }

    pub fn looping() -> (peer::Id, peer::CreateEvent) {
        let data = peer::EventData::KhronosValue(peer::KhronosValue::Null);
        let event = peer::CreateEvent { name: LOOP.to_owned(), author: None, data };
        (peer::Id::Guild(peer::Snowflake(LOOPER << 22)), event)
    }
}

/// The same as one message's bytes, for those who carry bytes only.
pub fn message(size: Size) -> Vec<u8> {
    let load = Load {
        kind: Kind::Flight,
        size,
        in_flight: 1,
        tenants: 1,
        lasting: std::time::Duration::ZERO,
    };
    let events = Ours::new(&load);
    let message = wire::message::ServerMessage::DispatchEvent {
        id: events.tenant(0),
        event: events.event(0),
        req_id: Some(u64::MAX / 3),
    };
    message.encode()
}
