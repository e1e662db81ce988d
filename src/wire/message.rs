//! What goes over a link: [`ServerMessage`] from the master, [`ClientMessage`] from a worker. One
//! message is one binary frame.
//!
//! The first four and the first two are the protocol's; the others are ours, and a peer that does
//! not know them skips them, as [`Incoming::Unknown`] lets us skip what we do not know. Values are
//! checked, and copied if they are small, never built into trees.

use super::WireError;
use super::event::event_len;
use super::pack::reader::Reader;
use super::pack::shape::{
    Decode, Encode, Envelope, FieldCount, Name, Variants, fields, read_growing, skip_unknown,
    variants, wire_enum, wire_struct, write_variant,
};
use super::pack::writer::Writer;
use crate::base::limits::MESSAGE_MAX_BYTES;
use crate::base::process_figures::ProcessFigures;
use crate::base::shared_bytes::{OutMessage, Received};
use crate::wire::data::sharding::ShardSet;
use crate::wire::data::{
    CreateEvent, EncodedJson, EncodedValue, HostCall, HostResult, MessageOutcome, RuntimeFigures,
    Sandbox, TenantId, TenantMessage, TenantState,
};

/// What a message needs besides an event and a script.
const AROUND_BYTES: usize = 96;

/// From the master to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerMessage {
    /// The first message of a link.
    Hello {
        /// How often the worker is to send a heartbeat, in milliseconds.
        heartbeat_interval_ms: u64,
    },
    /// Run a tenant's template on an event.
    DispatchEvent {
        /// The tenant.
        id: TenantId,
        /// The event.
        event: CreateEvent,
        /// Names the answer; without it none is wanted.
        req_id: Option<u64>,
    },
    /// Ours: the same, also if the tenant is not subscribed to it.
    DeliverEvent {
        /// The tenant.
        id: TenantId,
        /// The event.
        event: CreateEvent,
        /// Names the answer; without it none is wanted.
        req_id: Option<u64>,
    },
    /// Run a script in a tenant's VM.
    RunScript {
        /// The tenant.
        id: TenantId,
        /// Name shown in errors.
        name: String,
        /// Luau source.
        code: String,
        /// What the script's `ctx:event()` returns.
        event: CreateEvent,
        /// Names the answer.
        req_id: u64,
    },
    /// Close a tenant's VM.
    DropWorker {
        /// The tenant.
        id: TenantId,
        /// Names the answer.
        req_id: u64,
    },
    /// Ours: this answer has no waiter any more.
    CancelDispatch {
        /// The request that is given up.
        req_id: u64,
    },
    /// Ours: a tenant's state has changed.
    UpdateTenantState {
        /// The tenant.
        id: TenantId,
        /// Its new state.
        state: TenantState,
    },
    /// Ours: a tenant's own template may have changed.
    ReloadTemplate {
        /// The tenant.
        id: TenantId,
    },
    /// Ours: log so much from now on.
    SetLogLevel {
        /// `off`, `error`, `warn`, `info`, `debug` or `trace`.
        level: String,
    },
    /// Ours: which of these tenants have a VM. The answer is a `Buffer` of as many bytes as there
    /// are ids: 1 for one that has.
    LiveTenants {
        /// Names the answer.
        req_id: u64,
        /// The tenants.
        ids: Vec<TenantId>,
    },
    /// Ours: what became of a message.
    SendAnswer {
        /// Which [`ClientMessage::SendMessage`].
        req_id: u64,
        /// Null, or the name of another [`MessageOutcome`] than `accepted`.
        result: Result<EncodedValue, String>,
    },
    /// Ours: what came of a call to a host process.
    HostAnswer {
        /// Which [`ClientMessage::HostCall`].
        req_id: u64,
        /// What the host process answered, or the text of a [`crate::wire::data::HostError`].
        result: Result<EncodedValue, String>,
    },
    /// Ours: the worker's tenants are those of exactly these shards. Of those that it had been told
    /// before and that are missing now, everything ends; the tenants of new ones start.
    Shards {
        /// The shards.
        served: ShardSet,
    },
    /// Ours: the worker is to answer what it has, take no more, and end, so that its host starts it
    /// anew.
    Retire,
}

/// From a worker to the master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientMessage {
    /// The answer to the request of that id.
    DispatchResponse {
        /// Which request.
        req_id: u64,
        /// What the template returned, or why it did not.
        result: Result<EncodedValue, String>,
    },
    /// The worker is alive.
    Heartbeat,
    /// Ours: the worker takes events now.
    Ready(Ready),
    /// Ours: how the worker is doing; sent beside each heartbeat.
    Health(Health),
    /// Ours: a tenant of this worker sends a message to another tenant; see [`TenantMessage`].
    SendMessage {
        /// The sender.
        from: TenantId,
        /// The receiver.
        to: TenantId,
        /// What it is about.
        topic: String,
        /// What it says.
        data: EncodedJson,
        /// How many messages in a row led to it, itself counted.
        depth: u64,
        /// Names the answer.
        req_id: u64,
    },
    /// Ours: what a tenant publishes to those that read its feed. There is no answer.
    PublishFeed {
        /// The tenant.
        from: TenantId,
        /// What it is about.
        topic: String,
        /// What there is to say.
        data: EncodedJson,
    },
    /// Ours: a tenant of this worker calls a host process; see [`HostCall`].
    HostCall {
        /// The tenant.
        from: TenantId,
        /// What is called.
        name: String,
        /// What it is called with.
        args: EncodedJson,
        /// Names the answer.
        req_id: u64,
    },
    /// Ours: the tenant of that request is not subscribed to its event; the answer, which is null,
    /// follows.
    NotSubscribed {
        /// Which request.
        req_id: u64,
    },
    /// Ours: what became of events that had no request id, since the last one of these.
    Finished(Vec<FinishedEvents>),
    /// Ours: what scripts logged, since the last one of these, in order. There is no answer.
    ScriptLog(Vec<ScriptLine>),
}

/// A line that a script logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptLine {
    /// The tenant.
    pub tenant: TenantId,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
    /// What it says.
    pub text: String,
}

/// How many events of a tenant have ended that had no request id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FinishedEvents {
    /// The tenant.
    pub tenant: TenantId,
    /// Those that ran, and those that the tenant is not subscribed to.
    pub ok: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those that the worker did not take.
    pub busy: u64,
}

/// Names the extension of a worker that says [`ClientMessage::Finished`].
pub const NOWAIT_EXTENSION: &str = "nowait";

/// Names the extension of a worker that understands [`ServerMessage::DeliverEvent`].
pub const DELIVER_EXTENSION: &str = "deliver";

/// Names the extension of a worker that says [`ClientMessage::ScriptLog`].
pub const LOGS_EXTENSION: &str = "logs";

/// Names the extension of a worker that understands [`ServerMessage::Shards`].
pub const SHARDS_EXTENSION: &str = "shards";

/// Names the extension of a worker that ends at [`ServerMessage::Retire`].
pub const RETIRE_EXTENSION: &str = "retire";

/// Names the extension of a worker that says [`ClientMessage::SendMessage`] and understands
/// [`ServerMessage::SendAnswer`].
pub const MESSAGES_EXTENSION: &str = "messages";

/// Names the extension of a worker that says [`ClientMessage::HostCall`] and understands
/// [`ServerMessage::HostAnswer`].
pub const HOST_EXTENSION: &str = "host";

/// What a worker tells when it is ready. Later versions may add fields at the end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ready {
    /// The worker's version of Mesophyll.
    pub version: String,
    /// Executor threads that run.
    pub executors: u64,
    /// Tenant states that were loaded.
    pub tenant_states: u64,
    /// Whether it answers [`ServerMessage::LiveTenants`]; an older worker skips that.
    pub live_tenants: bool,
    /// What else it understands or says, by name; an older worker names nothing.
    pub extensions: Vec<String>,
    /// What confines its process; an older worker does not tell.
    pub sandbox: Option<Sandbox>,
    /// The machine that it runs on, by name; an older worker does not tell.
    pub host: Option<String>,
}

/// How a worker is doing. Later versions may add fields at the end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// How long the executor that has been away longest has not come back to its loop, in
    /// milliseconds.
    pub stalest_executor_ms: u64,
    /// Events that wait or run.
    pub in_flight: u64,
    /// VMs alive.
    pub vms: u64,
    /// Events started since the worker started.
    pub events: u64,
    /// What runs longest without a pause: tenant, event name, for how many milliseconds.
    pub longest: Option<(TenantId, String, u64)>,
    /// Memory of the process, in bytes.
    pub memory_bytes: u64,
    /// What its runtime has counted; an older worker does not tell.
    pub figures: Option<Box<RuntimeFigures>>,
    /// What the system tells of its process; an older worker does not.
    pub process: Option<ProcessFigures>,
}

/// A message that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming<M> {
    /// One that we know.
    Message(M),
    /// A variant that we do not know, by its name (cut to 64 characters): to be counted and
    /// skipped.
    Unknown(String),
}

impl ServerMessage {
    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            ServerMessage::DispatchEvent { id, event, req_id } => {
                Self::encode_event(*id, event, *req_id).into_vec()
            }
            ServerMessage::DeliverEvent { id, event, req_id } => {
                Self::encode_delivery(*id, event, *req_id).into_vec()
            }
            ServerMessage::RunScript { id, name, code, event, req_id } => {
                Self::encode_script(*id, name, code, event, *req_id).into_vec()
            }
            _ => {
                let mut writer = Writer::reusing(AROUND_BYTES);
                Encode::encode(self, &mut writer);
                writer.into_bytes()
            }
        }
    }

    /// A [`ServerMessage::DispatchEvent`] whose event the sender keeps; large data is shared.
    pub fn encode_event(id: TenantId, event: &CreateEvent, req_id: Option<u64>) -> OutMessage {
        // What grows is an event; one allocation is enough for everything around it.
        let mut writer = Writer::of_message(event_len(event) + AROUND_BYTES);
        write_variant!(&mut writer, DispatchEvent { id, event, req_id });
        writer.into_message()
    }

    /// The same as a [`ServerMessage::DeliverEvent`].
    pub fn encode_delivery(id: TenantId, event: &CreateEvent, req_id: Option<u64>) -> OutMessage {
        let mut writer = Writer::of_message(event_len(event) + AROUND_BYTES);
        write_variant!(&mut writer, DeliverEvent { id, event, req_id });
        writer.into_message()
    }

    /// A [`ServerMessage::RunScript`] whose script the sender keeps; large data is shared.
    pub fn encode_script(
        id: TenantId,
        name: &str,
        code: &str,
        event: &CreateEvent,
        req_id: u64,
    ) -> OutMessage {
        let len = name.len() + code.len() + event_len(event) + AROUND_BYTES;
        let mut writer = Writer::of_message(len);
        write_variant!(&mut writer, RunScript { id, name, code, event, req_id });
        writer.into_message()
    }

    /// The message that the bytes are.
    ///
    /// # Errors
    /// They are larger than a message may be, or none of this kind.
    pub fn decode(bytes: &[u8]) -> Result<Incoming<Self>, WireError> {
        Self::decode_received(bytes.into())
    }

    /// The message that came in; a large value of one that may be kept is not copied.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_received(message: Received<'_>) -> Result<Incoming<Self>, WireError> {
        decode_message(message)
    }

    /// Which request the bytes make, of those that do not decode, if it is one that is to be
    /// answered.
    pub fn request_of(bytes: &[u8]) -> Option<u64> {
        let asking = ["DispatchEvent", "DeliverEvent", "RunScript", "DropWorker", "LiveTenants"];
        request_in::<Self>(bytes, &asking)
    }

    /// Whose event the bytes are, of those that do not decode, if no request id can be seen in it.
    pub fn nowait_tenant_of(bytes: &[u8]) -> Option<TenantId> {
        let (mut tenant, mut request) = (None, None);
        let name = fields_in::<Self>(bytes, |field, reader| match field {
            "id" => TenantId::decode(reader).map(|id| tenant = Some(id)),
            "req_id" => Option::decode(reader).map(|id: Option<u64>| request = id),
            _ => skip_unknown(reader),
        })?;
        let is_event = matches!(name, "DispatchEvent" | "DeliverEvent");
        tenant.filter(|_| is_event && request.is_none())
    }
}

impl ServerMessage {
    /// The answer to a [`ClientMessage::SendMessage`].
    pub fn send_answer(req_id: u64, outcome: MessageOutcome) -> Self {
        let result = match outcome {
            MessageOutcome::Accepted => Ok(EncodedValue::null()),
            refused => Err(refused.as_str().to_owned()),
        };
        ServerMessage::SendAnswer { req_id, result }
    }
}

impl ServerMessage {
    /// The answer to a [`ClientMessage::HostCall`].
    pub fn host_answer(req_id: u64, result: HostResult) -> Self {
        let result = result.map_err(|error| error.to_text());
        ServerMessage::HostAnswer { req_id, result }
    }
}

impl ClientMessage {
    /// A tenant's call to a host process.
    pub fn host_call(call: HostCall, req_id: u64) -> Self {
        let HostCall { from, name, args } = call;
        ClientMessage::HostCall { from, name, args, req_id }
    }

    /// A tenant's message.
    pub fn send_message(message: TenantMessage, req_id: u64) -> Self {
        let TenantMessage { from, to, topic, data, depth } = message;
        ClientMessage::SendMessage { from, to, topic, data, depth, req_id }
    }

    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        self.to_message().into_vec()
    }

    /// The message as it leaves: a large value of it is shared.
    pub fn to_message(&self) -> OutMessage {
        let len = match self {
            ClientMessage::DispatchResponse { result: Ok(value), .. } => value.shared().own_len(),
            ClientMessage::DispatchResponse { result: Err(text), .. } => text.len(),
            ClientMessage::SendMessage { topic, data, .. }
            | ClientMessage::PublishFeed { topic, data, .. } => {
                topic.len() + data.as_bytes().len() + AROUND_BYTES
            }
            // A tenant with small numbers.
            ClientMessage::Finished(events) => 36 * events.len(),
            ClientMessage::ScriptLog(lines) => {
                lines.iter().map(|line| line.text.len() + 48).sum::<usize>()
            }
            _ => 0,
        };
        let mut writer = Writer::of_message(len + 48);
        Encode::encode(self, &mut writer);
        writer.into_message()
    }

    /// The message that the bytes are.
    ///
    /// # Errors
    /// They are larger than a message may be, or none of this kind.
    pub fn decode(bytes: &[u8]) -> Result<Incoming<Self>, WireError> {
        Self::decode_received(bytes.into())
    }

    /// The message that came in; a large value of one that may be kept is not copied.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_received(message: Received<'_>) -> Result<Incoming<Self>, WireError> {
        decode_message(message)
    }

    /// Which request the bytes answer, of those that do not decode.
    pub fn request_of(bytes: &[u8]) -> Option<u64> {
        request_in::<Self>(bytes, &["DispatchResponse"])
    }
}

variants!(ServerMessage {
    0 Hello { heartbeat_interval_ms },
    1 DispatchEvent { id, event, req_id },
    2 RunScript { id, name, code, event, req_id },
    3 DropWorker { id, req_id },
    4 CancelDispatch { req_id },
    5 UpdateTenantState { id, state },
    6 ReloadTemplate { id },
    7 SetLogLevel { level },
    8 LiveTenants { req_id, ids },
    9 SendAnswer { req_id, result },
    13 Shards { served },
    14 Retire {},
    15 DeliverEvent { id, event, req_id },
    16 HostAnswer { req_id, result },
});

// The numbers that are left out are for what others are to say.
variants!(ClientMessage {
    0 DispatchResponse { req_id, result },
    1 Heartbeat {},
    2 Ready(ready),
    3 Health(health),
    4 SendMessage { from, to, topic, data, depth, req_id },
    5 PublishFeed { from, topic, data },
    7 Finished(events),
    8 ScriptLog(lines),
    9 NotSubscribed { req_id },
    10 HostCall { from, name, args, req_id },
});

wire_enum!(Result<EncodedValue, String> {
    0 Ok(value),
    1 Err(text),
});

wire_struct!(FinishedEvents { tenant, ok, failed, busy });

wire_struct!(ScriptLine { tenant, level, text });

wire_struct!(growing Health {
    stalest_executor_ms,
    in_flight,
    vms,
    events,
    longest,
    memory_bytes,
    figures,
    process,
});

fn decode_message<M: Variants>(message: Received<'_>) -> Result<Incoming<M>, WireError> {
    let bytes = message.bytes().len();
    if bytes > MESSAGE_MAX_BYTES {
        return Err(WireError::TooLarge { bytes, limit: MESSAGE_MAX_BYTES });
    }
    let mut reader = Reader::of(message);
    let envelope = Envelope::read(&mut reader)?;
    let variant = envelope.name.find(M::NAMES).filter(|variant| !M::NAMES[*variant].is_empty());
    let incoming = match variant {
        Some(_) if !envelope.has_value => {
            return Err(WireError::Invalid("a message without its fields"));
        }
        Some(variant) => Incoming::Message(M::read(variant, &mut reader)?),
        None => {
            if envelope.has_value {
                skip_unknown(&mut reader)?;
            }
            Incoming::Unknown(printable(envelope.name))
        }
    };
    reader.end()?;
    Ok(incoming)
}

/// Which request a message is about that does not decode, if it is one of those that are `named`
/// and its request can be seen all the same.
fn request_in<M: Variants>(bytes: &[u8], named: &[&str]) -> Option<u64> {
    let mut request = None;
    let name = fields_in::<M>(bytes, |field, reader| match field {
        "req_id" => Option::decode(reader).map(|id| request = id),
        _ => skip_unknown(reader),
    })?;
    request.filter(|_| named.contains(&name))
}

/// Reads the fields of a message that does not decode, as far as `read` can; returns its name.
fn fields_in<M: Variants>(
    bytes: &[u8],
    mut read: impl FnMut(&str, &mut Reader<'_>) -> Result<(), WireError>,
) -> Option<&'static str> {
    let mut reader = Reader::new(bytes.get(..bytes.len().min(MESSAGE_MAX_BYTES))?);
    let envelope = Envelope::read(&mut reader).ok().filter(|envelope| envelope.has_value)?;
    let variant = envelope.name.find(M::NAMES)?;
    let names = M::field_names(variant);
    // Something is wrong with it, before what is looked for or behind it; what can be passed over
    // before it is.
    let _ = fields(&mut reader, names, FieldCount::Any, |field, reader| read(names[field], reader));
    Some(M::NAMES[variant])
}

/// An unknown variant's name, fit for a log.
fn printable(name: Name<'_>) -> String {
    match name {
        Name::Text(bytes) => {
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(256)]);
            text.chars().take(64).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
        }
        Name::Index(index) => index.to_string(),
    }
}

impl Encode for ShardSet {
    fn encode(&self, writer: &mut Writer) {
        let words = self.words();
        writer.array(words.len());
        words.iter().for_each(|word| writer.unsigned(*word));
    }
}

impl Decode for ShardSet {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let words = Vec::<u64>::decode(reader)?;
        ShardSet::from_words(&words).ok_or(WireError::Invalid("not a set of shards"))
    }
}

wire_struct!(growing Sandbox { mode, landlock_abi, landlock_status, seccomp });

impl Encode for Ready {
    fn encode(&self, writer: &mut Writer) {
        writer.array(7);
        writer.text(&self.version);
        writer.unsigned(self.executors);
        writer.unsigned(self.tenant_states);
        writer.boolean(self.live_tenants);
        self.extensions.encode(writer);
        self.sandbox.encode(writer);
        self.host.encode(writer);
    }
}

impl Decode for Ready {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut ready = Ready::default();
        read_growing!(reader, ready:
            version, executors, tenant_states, live_tenants,
            extensions => Option::decode(reader)
                .map(|names| ready.extensions = names.unwrap_or_default()),
            sandbox,
            host,
        );
        Ok(ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_of_a_message_that_does_not_decode_is_seen() {
        let response = b"\x81\xb0DispatchResponse";
        let answer = |rest: &[u8]| [&response[..], rest].concat();
        // What a worker once sent: an integer that is none.
        let wrong =
            answer(b"\x92\x07\x81\xa2Ok\x81\xa7Integer\xcb\x40\x16\x00\x00\x00\x00\x00\x00");
        for bytes in [
            &wrong,
            &answer(b"\x93\x07\xc0\xc1"),
            &answer(b"\x92\x07\x81"),
            &answer(b"\x91\xcc\x07"),
        ] {
            assert!(ClientMessage::decode(bytes).is_err());
            assert_eq!(ClientMessage::request_of(bytes), Some(7), "{bytes:x?}");
        }
        for bytes in [
            &answer(b"\x92\xa1x\xc0"),
            &answer(b""),
            &b"\x81\xa6Health\x91\x07".to_vec(),
            &b"\xc1".to_vec(),
        ] {
            assert_eq!(ClientMessage::request_of(bytes), None, "{bytes:x?}");
        }
        let requests: [&[u8]; 4] = [
            b"\x81\xadDispatchEvent\x93\x81\xa5Guild\xa1x\x92\x01\xc0\x07",
            b"\x81\xa9RunScript\x95\xc0\xc0\xc0\xc0\x07",
            b"\x81\xaaDropWorker\x92\x81\xa5Guild\xa1x\x07",
            b"\x81\xabLiveTenants\x92\x07\x01",
        ];
        for bytes in requests {
            assert!(ServerMessage::decode(bytes).is_err());
            assert_eq!(ServerMessage::request_of(bytes), Some(7), "{bytes:x?}");
        }
        let tenant_of = ServerMessage::nowait_tenant_of;
        let event = |rest: &[u8]| [b"\x81\xadDispatchEvent".as_slice(), rest].concat();
        for (bytes, tenant) in [
            (event(b"\x93\x81\xa5Guild\xa17\xc0\xc0"), Some(TenantId::Guild(7))),
            (event(b"\x93\x81\xa5Guild\xa17\xc1"), Some(TenantId::Guild(7))),
            (event(b"\x93\x81\xa5Guild\xa17\xc0\x07"), None),
            (event(b"\x93\x81\xa5Guild\xa1x\xc0\xc0"), None),
            (b"\x81\xaaDropWorker\x92\x81\xa5Guild\xa17\xc1".to_vec(), None),
        ] {
            assert!(ServerMessage::decode(&bytes).is_err());
            assert_eq!(tenant_of(&bytes), tenant, "{bytes:x?}");
        }
        let nobody_waits: [&[u8]; 3] = [
            b"\x81\xadDispatchEvent\x93\xc0\xc0\xc0",
            b"\x81\xaeCancelDispatch\x92\x07\x07",
            b"\x81\xb1UpdateTenantState\x92\x07\x07",
        ];
        for bytes in nobody_waits {
            assert_eq!(ServerMessage::request_of(bytes), None, "{bytes:x?}");
        }
    }
}
