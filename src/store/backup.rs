//! A store's contents as a stream: what a backup through a running master consists of, the same for
//! every store.
//!
//! Frames, each a length of 4 bytes (highest first) and so many bytes of MessagePack: first what
//! this is, then a frame for each tenant state, record, entry and purchase, last how many there
//! were. A stream without that last frame is no backup. Pure but for the reader that it is given;
//! any thread.

use std::fmt;
use std::io::{self, Read};

use super::global::{GlobalAddress, GlobalEntry};
use super::{Standing, StoredState};
use crate::base::error::DbError;
use crate::base::limits::{BACKUP_FRAME_MAX_BYTES, BACKUP_READ_BYTES};
use crate::wire::WireError;
use crate::wire::data::{
    EncodedJson, KvRecord, PartialGlobalKv, TenantId, TenantState, Timer, Timestamp,
};
use crate::wire::pack::reader::{Item, Reader};
use crate::wire::pack::shape::{Decode, Encode};
use crate::wire::pack::writer::Writer;

/// What the first frame says.
const NAME: &str = "mesophyll backup";

/// The version of this form. A reader refuses a later one; timers came with 2.
const VERSION: u64 = 2;

/// One thing that a store keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exported {
    /// A tenant's state and standing.
    State {
        /// Whose.
        tenant: TenantId,
        /// What.
        stored: StoredState,
    },
    /// A tenant's record.
    Record {
        /// Whose.
        tenant: TenantId,
        /// What.
        record: KvRecord,
    },
    /// An entry of the shop.
    Entry(GlobalEntry),
    /// That a tenant purchased an entry.
    Purchase {
        /// The owner.
        tenant: TenantId,
        /// What.
        at: GlobalAddress,
        /// When.
        when: Timestamp,
    },
    /// A tenant's timer.
    Timer {
        /// Whose.
        tenant: TenantId,
        /// What.
        timer: Timer,
    },
}

/// Everything in a store as it is at one moment, one after the other; an error is the last item.
pub type Export = Box<dyn Iterator<Item = Result<Exported, DbError>> + Send>;

/// How many of each there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Tenants with a state or a ban.
    pub states: u64,
    /// Records.
    pub records: u64,
    /// Entries of the shop.
    pub entries: u64,
    /// Purchases.
    pub purchases: u64,
    /// Timers.
    pub timers: u64,
}

impl Totals {
    fn count(&mut self, one: &Exported) {
        let counted = match one {
            Exported::State { .. } => &mut self.states,
            Exported::Record { .. } => &mut self.records,
            Exported::Entry(_) => &mut self.entries,
            Exported::Purchase { .. } => &mut self.purchases,
            Exported::Timer { .. } => &mut self.timers,
        };
        *counted += 1;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals { states, records, entries, purchases, timers } = self;
        write!(
            f,
            "{states} tenant states, {records} records, {entries} shop entries, {purchases} purchases, {timers} timers"
        )
    }
}

/// The frames of a backup, one by one. After an error of the store comes a frame that says so, and
/// then nothing.
fn frames(export: Export) -> impl Iterator<Item = Vec<u8>> + Send {
    let mut export = export;
    let mut totals = Totals::default();
    let mut has_ended = false;
    let body = std::iter::from_fn(move || {
        if has_ended {
            return None;
        }
        let body = match export.next() {
            Some(Ok(one)) => {
                totals.count(&one);
                encode_one(&one)
            }
            Some(Err(error)) => {
                has_ended = true;
                encode("error", &[&error.to_string()])
            }
            None => {
                has_ended = true;
                let Totals { states, records, entries, purchases, timers } = &totals;
                encode("end", &[states, records, entries, purchases, timers])
            }
        };
        if body.len() <= BACKUP_FRAME_MAX_BYTES {
            return Some(framed(&body));
        }
        has_ended = true;
        let why = "something in the store is too large for a backup".to_owned();
        Some(framed(&encode("error", &[&why])))
    });
    std::iter::once(framed(&encode(NAME, &[&VERSION]))).chain(body)
}

/// The frames of a backup, in pieces that are worth a system call.
pub fn pieces(export: Export) -> impl Iterator<Item = Vec<u8>> + Send {
    let mut frames = frames(export);
    std::iter::from_fn(move || {
        let mut piece = frames.next()?;
        while piece.len() < BACKUP_READ_BYTES {
            let Some(frame) = frames.next() else { break };
            piece.extend_from_slice(&frame);
        }
        Some(piece)
    })
}

fn framed(body: &[u8]) -> Vec<u8> {
    // Limit: far below what 4 bytes hold.
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), body].concat()
}

/// A frame's body: an array that begins with what it is.
fn encode(kind: &str, parts: &[&dyn Encode]) -> Vec<u8> {
    let mut writer = Writer::with_capacity(256);
    writer.array(1 + parts.len());
    writer.text(kind);
    parts.iter().for_each(|part| part.encode(&mut writer));
    writer.into_bytes()
}

fn encode_one(one: &Exported) -> Vec<u8> {
    match one {
        Exported::State { tenant, stored } => {
            encode("state", &[tenant, &(stored.standing == Standing::Banned), &stored.state])
        }
        Exported::Record { tenant, record } => encode("record", &[tenant, record]),
        Exported::Entry(GlobalEntry { partial, data }) => encode("entry", &[partial, data]),
        Exported::Purchase { tenant, at: GlobalAddress { scope, key, version }, when } => {
            encode("purchase", &[tenant, scope, key, version, when])
        }
        Exported::Timer { tenant, timer } => encode("timer", &[tenant, timer]),
    }
}

/// Why a stream is no backup.
#[derive(Debug)]
pub enum StreamError {
    /// It ended, or broke, before its last frame.
    CutShort(Option<io::Error>),
    /// The store failed in the middle; the text is its error's.
    Store(String),
    /// It is something else, or of a newer version.
    Foreign,
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StreamError::CutShort(Some(error)) => write!(f, "the backup was cut short: {error}"),
            StreamError::CutShort(None) => f.write_str("the backup was cut short"),
            StreamError::Store(text) => {
                write!(f, "the master's store failed in the middle: {text}")
            }
            StreamError::Foreign => f.write_str("the answer is no backup that this version knows"),
        }
    }
}

impl std::error::Error for StreamError {}

impl From<WireError> for StreamError {
    fn from(_: WireError) -> Self {
        StreamError::Foreign
    }
}

/// Reads a backup's frames.
#[derive(Debug)]
pub struct FrameReader<R> {
    from: R,
    seen: Totals,
    has_begun: bool,
}

/// What a frame holds.
enum Frame {
    One(Box<Exported>),
    End(Totals),
    Error(String),
}

impl<R: Read> FrameReader<R> {
    /// Reads from here.
    pub fn new(from: R) -> Self {
        Self { from, seen: Totals::default(), has_begun: false }
    }

    /// What was seen so far; after the end of the backup all there is.
    pub fn seen(&self) -> Totals {
        self.seen
    }

    /// The next thing; nothing at the end of a whole backup.
    ///
    /// # Blocks
    /// As its reader.
    ///
    /// # Errors
    /// It is no backup, or not a whole one.
    // An iterator of results invites to drop errors in adaptors.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Exported>, StreamError> {
        if !self.has_begun {
            let frame = self.frame()?;
            check_head(&frame)?;
            self.has_begun = true;
        }
        let frame = self.frame()?;
        match decode(&frame)? {
            Frame::One(one) => {
                self.seen.count(&one);
                Ok(Some(*one))
            }
            Frame::Error(text) => Err(StreamError::Store(text)),
            Frame::End(totals) if totals == self.seen => Ok(None),
            Frame::End(_) => Err(StreamError::CutShort(None)),
        }
    }

    fn frame(&mut self) -> Result<Vec<u8>, StreamError> {
        let mut length = [0; 4];
        self.fill(&mut length)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > BACKUP_FRAME_MAX_BYTES {
            return Err(StreamError::Foreign);
        }
        let mut body = vec![0; length];
        self.fill(&mut body)?;
        Ok(body)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), StreamError> {
        self.from.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => StreamError::CutShort(None),
            _ => StreamError::CutShort(Some(error)),
        })
    }
}

fn check_head(frame: &[u8]) -> Result<(), StreamError> {
    let mut reader = Reader::new(frame);
    let is_ours = reader.item()? == Item::Array(2) && reader.item()? == Item::Str(NAME.as_bytes());
    match reader.item()? {
        Item::Unsigned(1..=VERSION) if is_ours => Ok(()),
        _ => Err(StreamError::Foreign),
    }
}

fn decode(frame: &[u8]) -> Result<Frame, StreamError> {
    let mut reader = Reader::new(frame);
    let reader = &mut reader;
    let (Item::Array(parts), Item::Str(kind)) = (reader.item()?, reader.item()?) else {
        return Err(StreamError::Foreign);
    };
    let one = |one| Frame::One(Box::new(one));
    let frame = match kind {
        b"state" => one(Exported::State {
            tenant: TenantId::decode(reader)?,
            stored: {
                let standing =
                    if bool::decode(reader)? { Standing::Banned } else { Standing::Good };
                StoredState { standing, state: Option::<TenantState>::decode(reader)? }
            },
        }),
        b"record" => one(Exported::Record {
            tenant: TenantId::decode(reader)?,
            record: KvRecord::decode(reader)?,
        }),
        b"entry" => one(Exported::Entry(GlobalEntry {
            partial: PartialGlobalKv::decode(reader)?,
            data: EncodedJson::decode(reader)?,
        })),
        b"purchase" => one(Exported::Purchase {
            tenant: TenantId::decode(reader)?,
            at: GlobalAddress {
                scope: String::decode(reader)?,
                key: String::decode(reader)?,
                version: i32::decode(reader)?,
            },
            when: Timestamp::decode(reader)?,
        }),
        b"timer" => one(Exported::Timer {
            tenant: TenantId::decode(reader)?,
            timer: Timer::decode(reader)?,
        }),
        b"end" => Frame::End(Totals {
            states: u64::decode(reader)?,
            records: u64::decode(reader)?,
            entries: u64::decode(reader)?,
            purchases: u64::decode(reader)?,
            timers: if parts > 5 { u64::decode(reader)? } else { 0 },
        }),
        b"error" => Frame::Error(String::decode(reader)?),
        _ => return Err(StreamError::Foreign),
    };
    reader.end()?;
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::data::{EncodedValue, KhronosValue};
    use crate::wire::pack::value;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_unix_micros(micros).expect("in range")
    }

    fn everything() -> Vec<Exported> {
        let state = TenantState { events: ["A".to_owned()].into(), data: EncodedJson::null() };
        let record = KvRecord {
            id: "id".to_owned(),
            key: "k".to_owned(),
            value: value::encode(&KhronosValue::Buffer(vec![0; 1000])),
            scopes: vec!["a".to_owned(), "b".to_owned()],
            created_at: Some(at(-5)),
            last_updated_at: None,
        };
        let partial = PartialGlobalKv {
            key: "key".to_owned(),
            version: -1,
            owner_id: "1".to_owned(),
            owner_type: "staff".to_owned(),
            price: Some(i64::MAX),
            short: "short".to_owned(),
            public_metadata: EncodedJson::null(),
            scope: "tags".to_owned(),
            created_at: at(1),
            last_updated_at: at(2),
            public_data: true,
            review_state: "approved".to_owned(),
            long: Some("long".to_owned()),
        };
        let place = GlobalAddress::of(&partial);
        vec![
            Exported::State {
                tenant: TenantId::Guild(0),
                stored: StoredState { state: Some(state), standing: Standing::Good },
            },
            Exported::State {
                tenant: TenantId::User(u64::MAX - 1),
                stored: StoredState { state: None, standing: Standing::Banned },
            },
            Exported::Record {
                tenant: TenantId::User(5),
                record: KvRecord { value: EncodedValue::null(), ..record.clone() },
            },
            Exported::Record { tenant: TenantId::User(5), record },
            Exported::Entry(GlobalEntry { partial, data: EncodedJson::null() }),
            Exported::Purchase {
                tenant: TenantId::Guild(7),
                at: place,
                when: at(1_700_000_000_123_456),
            },
            Exported::Timer {
                tenant: TenantId::Guild(7),
                timer: Timer {
                    id: "id".to_owned(),
                    name: "E".to_owned(),
                    due: at(3),
                    every: Some("60".to_owned()),
                    data: EncodedValue::null(),
                },
            },
        ]
    }

    fn stream(items: Vec<Result<Exported, DbError>>) -> Vec<u8> {
        pieces(Box::new(items.into_iter())).flatten().collect()
    }

    fn read(bytes: &[u8]) -> Result<(Vec<Exported>, Totals), StreamError> {
        let mut reader = FrameReader::new(bytes);
        let mut all = Vec::new();
        while let Some(one) = reader.next()? {
            all.push(one);
        }
        Ok((all, reader.seen()))
    }

    #[test]
    fn a_backup_reads_back_whole_or_not_at_all() {
        let items = everything();
        let bytes = stream(items.iter().cloned().map(Ok).collect());
        let (read_back, totals) = read(&bytes).expect("whole");
        assert_eq!(read_back, items);
        assert_eq!(totals, Totals { states: 2, records: 2, entries: 1, purchases: 1, timers: 1 });
        for length in 0..bytes.len() {
            assert!(
                matches!(read(&bytes[..length]), Err(StreamError::CutShort(None))),
                "{length} bytes"
            );
        }
        assert_eq!(read(&stream(Vec::new())).expect("empty, and whole").1, Totals::default());
    }

    #[test]
    fn a_failing_store_says_so_and_a_lost_frame_is_noticed() {
        let mut items: Vec<_> = everything().into_iter().map(Ok).collect();
        items.insert(2, Err(DbError::Unavailable("gone".to_owned())));
        assert!(matches!(read(&stream(items)), Err(StreamError::Store(text)) if text == "gone"));
        let whole: Vec<Vec<u8>> = frames(Box::new(everything().into_iter().map(Ok))).collect();
        let without: Vec<u8> = [&whole[..3], &whole[4..]].concat().concat();
        assert!(matches!(read(&without), Err(StreamError::CutShort(None))));
    }

    #[test]
    fn what_is_no_backup_is_refused() {
        for bytes in [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &[0xff; 100], &[0, 0, 0, 1, 0xc0]] {
            assert!(matches!(read(bytes), Err(StreamError::Foreign)), "{bytes:?}");
        }
        let mut newer = stream(Vec::new());
        let at = newer.iter().position(|byte| *byte == 2).expect("the version");
        newer[at] = 3;
        assert!(matches!(read(&newer), Err(StreamError::Foreign)));
    }
}
