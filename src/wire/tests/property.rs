//! Random values and random damage, from seeds, so that a failure can be repeated. Tests only.

use std::time::Duration;

use crate::base::metrics::{Buckets, LATENCY_BOUNDS_US};
use crate::base::process_figures::ProcessFigures;
use crate::base::random;
use crate::wire::data::sharding::ShardSet;
use crate::wire::data::{
    Budget, CreateEvent, DbCall, DbFigures, EncodedJson, EventData, GlobalKeyValueOp, GlobalKv,
    Interval, KeyValueOp, KhronosValue, KvRecord, MessageOutcome, PartialGlobalKv,
    PublicGlobalKeyValueOp, RuntimeFigures, Sandbox, TenantId, TenantMessage, TenantState,
    Timestamp,
};
use crate::wire::json::{
    canonical, event_data_from_json, json_from_encoded, value_from_json, value_to_json,
};
use crate::wire::message::{
    ClientMessage, FinishedEvents, Health, Incoming, Ready, ScriptLine, ServerMessage,
};
use crate::wire::pack::plain;
use crate::wire::pack::shape::{Decode, Encode};
use crate::wire::pack::value::{check, decode, encode, storable};
#[cfg(feature = "postgres")]
use crate::wire::{
    data::EncodedValue,
    json::{from_jsonb, to_jsonb},
};

/// A small generator (splitmix64): the same numbers for the same seed, everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        random::mix(self.0)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// Any number of bits, so that small numbers and all widths come up.
    fn number(&mut self) -> u64 {
        let bits = self.next();
        bits >> self.below(64)
    }

    fn text(&mut self) -> String {
        let len = self.pick(&[0, 1, 2, 3, 5, 8, 31, 32, 300]);
        (0..len)
            .map(|_| {
                self.pick(&['a', 'z', '$', '"', '\\', '\n', '\u{1}', '/', 'é', '😀', '\u{7f}', '0'])
            })
            .collect()
    }

    fn float(&mut self) -> f64 {
        match self.below(4) {
            0 => {
                self.pick(&[0.0, 1.0, -1.5, 0.1, 1e300, 5e-324, f64::MAX, 1e15, 1e16, 1e21, -1e-7])
            }
            1 => self.number() as f64,
            _ => Some(f64::from_bits(self.next()))
                .filter(|number| number.is_finite() && *number != 0.0)
                .unwrap_or(2.5),
        }
    }

    fn float32(&mut self) -> f32 {
        Some(f32::from_bits(self.next() as u32))
            .filter(|number| number.is_finite() && *number != 0.0)
            .unwrap_or(2.5)
    }

    fn timestamp(&mut self) -> Timestamp {
        Timestamp::from_unix_micros(self.number() as i64 / 4).unwrap_or_else(|_| Timestamp::now())
    }

    fn interval(&mut self) -> Interval {
        Interval::new(self.number() as i64 / 2000, self.below(1_000_000_000) as u32)
            .expect("within bounds")
    }

    /// A value that every form can keep: finite, no −0.0, a `LazyStringMap` with sorted keys.
    fn value(&mut self, levels: usize) -> KhronosValue {
        let kinds = if levels > 0 { 14 } else { 12 };
        match self.below(kinds) {
            0 => KhronosValue::Text(self.text()),
            1 => KhronosValue::Integer(self.number() as i64),
            2 => KhronosValue::UnsignedInteger(self.number()),
            3 => KhronosValue::Float(self.float()),
            4 => KhronosValue::Boolean(self.below(2) == 0),
            5 => KhronosValue::Buffer(
                (0..self.pick(&[0, 1, 2, 3, 4, 300])).map(|_| self.next() as u8).collect(),
            ),
            6 => KhronosValue::Vector([self.float32(), self.float32(), self.float32()]),
            7 => KhronosValue::Timestamptz(self.timestamp()),
            8 => KhronosValue::Interval(self.interval()),
            9 => KhronosValue::TimeZone(
                self.pick(&["UTC", "Europe/London", "Etc/GMT+12"]).to_owned(),
            ),
            10 => {
                let pairs: std::collections::BTreeMap<_, _> =
                    (0..self.below(8)).map(|_| (self.text(), self.text())).collect();
                KhronosValue::LazyStringMap(pairs.into_iter().collect())
            }
            11 => KhronosValue::Null,
            12 => KhronosValue::List((0..self.below(8)).map(|_| self.value(levels - 1)).collect()),
            _ => {
                let (len, text_keys) = (self.below(8), self.below(2) == 0);
                let pair = |_| {
                    let key = if text_keys {
                        KhronosValue::Text(self.text())
                    } else {
                        self.value(levels - 1)
                    };
                    (key, self.value(levels - 1))
                };
                KhronosValue::Map((0..len).map(pair).collect())
            }
        }
    }

    fn buckets(&mut self) -> Buckets {
        let counts = (0..=LATENCY_BOUNDS_US.len()).map(|_| self.number()).collect();
        Buckets::from_parts(counts, self.number()).expect("as many buckets as ours")
    }

    /// Figures in which some kinds have something, and some nothing.
    fn figures(&mut self) -> RuntimeFigures {
        let mut figures = RuntimeFigures::default();
        for number in [
            &mut figures.evicted_vms,
            &mut figures.discarded_vms,
            &mut figures.waiting_events,
            &mut figures.coroutines,
            &mut figures.preemptions,
            &mut figures.panics,
            &mut figures.script_errors,
            &mut figures.large_answers,
            &mut figures.dropped_log_lines,
        ] {
            *number = self.number();
        }
        (figures.running, figures.wall) = (self.buckets(), self.buckets());
        for budget in Budget::ALL.into_iter().filter(|_| self.below(2) == 0).collect::<Vec<_>>() {
            *figures.budget_mut(budget) = self.number();
        }
        for call in DbCall::ALL.into_iter().filter(|_| self.below(2) == 0).collect::<Vec<_>>() {
            *figures.db_mut(call) = DbFigures { failed: self.number(), took: self.buckets() };
        }
        figures.busiest = (0..self.below(3))
            .map(|_| (TenantId::Guild(7), self.number(), self.number()))
            .collect();
        figures.busiest_us = self.number();
        figures
    }

    fn health(&mut self) -> Health {
        Health {
            stalest_executor_ms: self.number(),
            in_flight: self.number(),
            vms: self.number(),
            events: self.number(),
            longest: (self.below(2) == 0).then(|| (TenantId::User(5), self.text(), self.number())),
            memory_bytes: self.number(),
            figures: (self.below(4) > 0).then(|| Box::new(self.figures())),
            process: (self.below(4) > 0).then(|| ProcessFigures {
                cpu: Duration::from_micros(self.number()),
                resident_bytes: self.number(),
                open_fds: self.number(),
                max_fds: self.number(),
                threads: self.number(),
                started_unix_ms: self.number(),
            }),
        }
    }

    fn json(&mut self, levels: usize) -> serde_json::Value {
        use serde_json::Value;
        match self.below(if levels > 0 { 8 } else { 6 }) {
            0 => Value::Null,
            1 => Value::from(self.below(2) == 0),
            2 => Value::from(self.number()),
            3 => Value::from(-(self.below(1 << 40) as i64)),
            4 => Value::from(self.float()),
            5 => Value::from(self.text()),
            6 => (0..self.below(8)).map(|_| self.json(levels - 1)).collect(),
            _ => Value::Object(
                (0..self.below(8)).map(|_| (self.text(), self.json(levels - 1))).collect(),
            ),
        }
    }
}

/// `UnsignedInteger`s within the range of `Integer` are `Integer`s in the `$`-tagged form.
fn as_read_from_json(value: KhronosValue) -> KhronosValue {
    match value {
        KhronosValue::UnsignedInteger(number) => match i64::try_from(number) {
            Ok(number) => KhronosValue::Integer(number),
            Err(_) => KhronosValue::UnsignedInteger(number),
        },
        KhronosValue::List(values) => {
            KhronosValue::List(values.into_iter().map(as_read_from_json).collect())
        }
        KhronosValue::Map(pairs) => {
            let pair = |(key, value)| (as_read_from_json(key), as_read_from_json(value));
            KhronosValue::Map(pairs.into_iter().map(pair).collect())
        }
        other => other,
    }
}

#[cfg(feature = "postgres")]
fn jsonb_reads_back(value: &EncodedValue) {
    let jsonb = to_jsonb(value).expect("JSON");
    assert!(serde_json::from_str::<serde_json::Value>(&jsonb).is_ok(), "{value:?}");
    assert_eq!(from_jsonb(jsonb.as_bytes()).as_ref(), Ok(value));
}

#[test]
fn random_values_survive_every_form() {
    for seed in 0..2000 {
        let value = Random(seed).value(4);
        let encoded = encode(&value);
        assert_eq!(check(encoded.as_bytes().to_vec()).as_ref(), Ok(&encoded), "seed {seed}");
        assert!(decode(&encoded).as_ref() == Ok(&value), "seed {seed}");
        #[cfg(feature = "postgres")]
        jsonb_reads_back(&encoded);
        let json = value_to_json(&encoded).expect("JSON");
        assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "seed {seed}");
        let read = value_from_json(json.as_bytes()).map(|read| decode(&read));
        assert!(read == Ok(Ok(as_read_from_json(value))), "seed {seed}");
        if encoded.as_bytes().len() <= crate::base::limits::KV_VALUE_MAX_BYTES {
            assert_eq!(storable(&encoded), Ok(encoded), "seed {seed}");
        }
    }
}

#[test]
fn random_json_survives_messagepack() {
    for seed in 0..2000 {
        let json = Random(seed).json(4);
        let text = json.to_string();
        let encoded = event_data_from_json(text.as_bytes()).expect("JSON");
        assert_eq!(plain::check(encoded.as_bytes().to_vec()).as_ref(), Ok(&encoded), "seed {seed}");
        let back = json_from_encoded(&encoded).expect("plain");
        assert_eq!(event_data_from_json(back.as_bytes()).as_ref(), Ok(&encoded), "seed {seed}");
        // serde_json sorts keys, and its numbers are the shortest, so the reference's form is what
        // came in.
        assert_eq!(canonical(&encoded), encoded, "seed {seed}");
        assert!(crate::wire::pack::codec::to_serde(&encoded) == Ok(json), "seed {seed}");
    }
}

/// A value decoded from damaged bytes must encode to bytes that decode to the same.
fn survives<T: Decode + Encode + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> bool {
    let Ok(value) = T::from_bytes(bytes) else {
        return false;
    };
    assert_eq!(T::from_bytes(&value.to_bytes()).as_ref(), Ok(&value), "{bytes:x?}");
    true
}

fn decode_as_everything(bytes: &[u8]) -> usize {
    crate::wire::pack::skim::tests::same_judgement(bytes);
    let server = ServerMessage::decode(bytes);
    if let Ok(Incoming::Message(message)) = &server {
        assert_eq!(ServerMessage::decode(&message.encode()), server);
    }
    let client = ClientMessage::decode(bytes);
    if let Ok(Incoming::Message(message)) = &client {
        assert_eq!(ClientMessage::decode(&message.encode()), client);
    }
    if let Ok(value) = check(bytes.to_vec()) {
        assert_eq!(
            check(value.as_bytes().to_vec()).as_ref(),
            Ok(&value),
            "what is checked is canonical: {bytes:x?}"
        );
        assert_eq!(decode(&value).map(|tree| encode(&tree)), Ok(value.clone()), "{bytes:x?}");
        let json = value_to_json(&value).expect("JSON");
        assert!(value_from_json(json.as_bytes()).is_ok(), "{bytes:x?}: {json}");
        if let Ok(stored) = storable(&value) {
            assert_eq!(storable(&stored).as_ref(), Ok(&stored), "{bytes:x?}");
            #[cfg(feature = "postgres")]
            jsonb_reads_back(&stored);
        }
    }
    if let Ok(json) = plain::check(bytes.to_vec()) {
        let canonical = canonical(&json);
        assert_eq!(crate::wire::pack::plain::canonical(&canonical), canonical, "{bytes:x?}");
        let text = json_from_encoded(&canonical).expect("plain");
        assert_eq!(event_data_from_json(text.as_bytes()), Ok(canonical), "{bytes:x?}: {text}");
    }
    [
        server.is_ok(),
        client.is_ok(),
        survives::<TenantId>(bytes),
        survives::<CreateEvent>(bytes),
        survives::<EventData>(bytes),
        survives::<TenantState>(bytes),
        survives::<Vec<KvRecord>>(bytes),
        survives::<Option<KvRecord>>(bytes),
        survives::<KeyValueOp>(bytes),
        survives::<PublicGlobalKeyValueOp>(bytes),
        survives::<GlobalKeyValueOp>(bytes),
        survives::<Vec<PartialGlobalKv>>(bytes),
        survives::<GlobalKv>(bytes),
        survives::<EncodedJson>(bytes),
    ]
    .into_iter()
    .filter(|decoded| *decoded)
    .count()
}

fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    // Heads, lengths and names are what decoders trip over.
    const HEADS: [u8; 16] = [
        0x80, 0x81, 0x90, 0x91, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc4, 0xcb, 0xd3, 0xdb, 0xdd, 0xdf,
        0xff,
    ];
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            return bytes.push(random.next() as u8);
        }
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] = random.next() as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes[at] = random.pick(&HEADS),
            3 => bytes.truncate(at),
            4 => bytes.insert(at, random.pick(&HEADS)),
            _ => {
                let end = at + random.below(bytes.len() - at);
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
}

#[test]
fn damaged_messages_never_panic_and_what_decodes_encodes() {
    let mut decoded = 0;
    let mut random = Random(1);
    let ours = [
        ClientMessage::Health(Random(5).health()).encode(),
        ServerMessage::LiveTenants { req_id: 1 << 40, ids: (1..5).map(TenantId::Guild).collect() }
            .encode(),
        ServerMessage::Shards { served: ShardSet::full() }.encode(),
    ];
    for original in super::golden::all_inputs().into_iter().chain(ours) {
        for _ in 0..if original.len() > 600 { 20 } else { 200 } {
            let mut bytes = original.clone();
            damage(&mut bytes, &mut random);
            decoded += decode_as_everything(&bytes);
        }
    }
    assert!(decoded > 5000, "the damage left {decoded} decodable: too few to prove anything");
}

#[test]
fn damaged_json_never_panics() {
    let mut random = Random(2);
    let mut read = 0;
    for seed in 0..300 {
        let value = encode(&Random(seed).value(3));
        for text in [
            value_to_json(&value).expect("JSON"),
            #[cfg(feature = "postgres")]
            to_jsonb(&value).expect("JSON"),
        ] {
            for _ in 0..if text.len() > 2000 { 2 } else { 30 } {
                let mut bytes = text.clone().into_bytes();
                damage(&mut bytes, &mut random);
                read += usize::from(event_data_from_json(&bytes).is_ok());
                if let Ok(value) = value_from_json(&bytes) {
                    assert_eq!(check(value.as_bytes().to_vec()), Ok(value));
                }
                #[cfg(feature = "postgres")]
                if let Ok(value) = from_jsonb(&bytes) {
                    assert_eq!(check(value.as_bytes().to_vec()), Ok(value));
                }
            }
        }
    }
    assert!(read > 100, "the damage left {read} readable: too few to prove anything");
}

#[test]
fn messages_of_our_own_come_back() {
    let (mut random, id) = (Random(3), TenantId::User(5));
    let state =
        TenantState { events: ["A".to_owned(), "B".to_owned()].into(), data: EncodedJson::null() };
    for message in [
        ServerMessage::CancelDispatch { req_id: u64::MAX },
        ServerMessage::UpdateTenantState { id, state },
        ServerMessage::ReloadTemplate { id },
        ServerMessage::LiveTenants { req_id: 7, ids: vec![id, TenantId::Guild(0)] },
        ServerMessage::LiveTenants { req_id: 7, ids: Vec::new() },
        ServerMessage::SetLogLevel { level: "debug".to_owned() },
        ServerMessage::send_answer(7, MessageOutcome::Accepted),
        ServerMessage::send_answer(u64::MAX, MessageOutcome::Busy),
        ServerMessage::Shards { served: ShardSet::default() },
        ServerMessage::Shards { served: ShardSet::full() },
        ServerMessage::Retire,
    ] {
        assert_eq!(ServerMessage::decode(&message.encode()), Ok(Incoming::Message(message)));
    }
    for _ in 0..200 {
        let health = random.health();
        let (version, executors, extensions) =
            (random.text(), random.number(), vec![random.text(), "x".to_owned()]);
        let sandbox = Some(Sandbox {
            mode: random.text(),
            landlock_abi: random.number(),
            landlock_status: random.text(),
            seccomp: executors.is_multiple_of(2),
        });
        let sandbox = sandbox.filter(|sandbox| sandbox.landlock_abi.is_multiple_of(2));
        let (tenant_states, live_tenants) = (3, true);
        let host = sandbox.is_some().then(|| random.text());
        let ready =
            Ready { version, executors, tenant_states, live_tenants, extensions, sandbox, host };
        let not_subscribed = ClientMessage::NotSubscribed { req_id: executors };
        let message = TenantMessage {
            from: id,
            to: TenantId::Guild(0),
            topic: random.text(),
            data: event_data_from_json(b"[{\"a\":null}]").expect("JSON"),
            depth: random.number(),
        };
        let sent = ClientMessage::send_message(message, executors);
        let (health, ready) = (ClientMessage::Health(health), ClientMessage::Ready(ready));
        let (ok, failed, busy) = (executors, random.number(), random.number());
        let finished = FinishedEvents { tenant: id, ok, failed, busy };
        let count = random.below(3);
        let finished = ClientMessage::Finished(vec![finished; count]);
        let line = ScriptLine { tenant: id, level: random.text(), text: random.text() };
        let logged = ClientMessage::ScriptLog(vec![line; count]);
        for message in [health, ready, not_subscribed, sent, finished, logged] {
            assert_eq!(ClientMessage::decode(&message.encode()), Ok(Incoming::Message(message)));
        }
    }
}

/// The fields of a message's one value, which is an array of at most 15, each as bytes; and what
/// stands before them.
fn split(message: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let mut reader = crate::wire::pack::reader::Reader::new(message);
    let envelope = crate::wire::pack::shape::Envelope::read(&mut reader).expect("a message");
    assert!(envelope.has_value);
    let name = message[..message.len() - reader.rest().len()].to_vec();
    let len = crate::wire::pack::shape::array(&mut reader).expect("fields");
    let field = |_| {
        let before = reader.rest();
        reader.skip(64).expect("a field");
        before[..before.len() - reader.rest().len()].to_vec()
    };
    (name, (0..len).map(field).collect())
}

#[test]
fn a_health_of_an_older_or_a_newer_worker_is_understood() {
    let mut random = Random(7);
    for _ in 0..100 {
        let health = Health { figures: Some(Box::new(random.figures())), ..random.health() };
        let (name, fields) = split(&ClientMessage::Health(health.clone()).encode());
        assert_eq!(fields.len(), 8);
        let with = |fields: &[Vec<u8>]| {
            [&name[..], &[0x90 + fields.len() as u8], &fields.concat()].concat()
        };
        let more: Vec<Vec<u8>> =
            fields.iter().cloned().chain([b"\x93\xc0\xa1x\x90".to_vec()]).collect();
        let newer = ClientMessage::decode(&with(&more));
        assert_eq!(newer, Ok(Incoming::Message(ClientMessage::Health(health.clone()))));
        let older = ClientMessage::decode(&with(&fields[..6]));
        let known = Health { figures: None, process: None, ..health };
        assert_eq!(older, Ok(Incoming::Message(ClientMessage::Health(known))));
    }
}

#[test]
fn the_ready_of_an_older_worker_announces_nothing_new() {
    let extensions = vec!["x".to_owned()];
    let ready = Ready {
        version: "1".to_owned(),
        executors: 2,
        tenant_states: 3,
        live_tenants: true,
        extensions,
        sandbox: Some(Sandbox { landlock_abi: 7, ..Sandbox::default() }),
        host: Some("east-1".to_owned()),
    };
    let (name, fields) = split(&ClientMessage::Ready(ready.clone()).encode());
    let of = |count: usize| [&name[..], &[0x90 + count as u8], &fields[..count].concat()].concat();
    let decode = |bytes: &[u8]| ClientMessage::decode(bytes);
    assert_eq!(decode(&of(7)), Ok(Incoming::Message(ClientMessage::Ready(ready.clone()))));
    let known = Ready { host: None, ..ready };
    assert_eq!(decode(&of(6)), Ok(Incoming::Message(ClientMessage::Ready(known.clone()))));
    let nil = [&name[..], b"\x97", &fields[..6].concat(), b"\xc0"].concat();
    assert_eq!(decode(&nil), Ok(Incoming::Message(ClientMessage::Ready(known.clone()))));
    let known = Ready { sandbox: None, ..known };
    assert_eq!(decode(&of(5)), Ok(Incoming::Message(ClientMessage::Ready(known.clone()))));
    let known = Ready { extensions: Vec::new(), ..known };
    assert_eq!(decode(&of(4)), Ok(Incoming::Message(ClientMessage::Ready(known.clone()))));
    let nil = [&name[..], b"\x95", &fields[..4].concat(), b"\xc0"].concat();
    assert_eq!(decode(&nil), Ok(Incoming::Message(ClientMessage::Ready(known.clone()))));
    let known = Ready { live_tenants: false, ..known };
    assert_eq!(decode(&of(3)), Ok(Incoming::Message(ClientMessage::Ready(known))));
}

#[test]
fn a_number_that_another_extension_has_is_unknown() {
    let message = ClientMessage::decode(&[0x81, 6, 0x91, 7]);
    assert_eq!(message, Ok(Incoming::Unknown("6".to_owned())));
    let message = ClientMessage::decode(&[0x81, 8, 0x90]);
    assert_eq!(message, Ok(Incoming::Message(ClientMessage::ScriptLog(vec![]))));
    let message = ClientMessage::decode(&[0x81, 9, 0x91, 7]);
    assert_eq!(message, Ok(Incoming::Message(ClientMessage::NotSubscribed { req_id: 7 })));
    let message = ClientMessage::decode(&[0x81, 7, 0x90]);
    assert_eq!(message, Ok(Incoming::Message(ClientMessage::Finished(vec![]))));
    assert_eq!(ClientMessage::decode(b"\x81\xa0\x91\x07"), Ok(Incoming::Unknown(String::new())));
}
