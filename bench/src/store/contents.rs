//! What is in every database, and what callers ask of it: the same for us and for everybody we are
//! compared with.

use std::fmt;

use mesophyll::store::DbState;
use mesophyll::wire;
use mesophyll::wire::data::{EncodedValue, KeyValueOp, KhronosValue, Scopes, TenantId};

/// Tenants of whom single records are read and written.
pub const TENANTS: u64 = 16;

/// Records of each of them.
pub const RECORDS: u64 = 250;

/// The records of the tenant whose records are all found.
pub const FOUND: u64 = 1000;

/// The bytes of a record's text.
pub const TEXT_BYTES: usize = 256;

/// The bytes of the text of a record that is found.
const FOUND_TEXT_BYTES: usize = 64;

/// The tenant whose records are all found.
pub const FINDER: TenantId = TenantId::User(TENANTS << 22);

/// The one scope of every record.
pub const SCOPE: &str = "bench";

/// What a caller does again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Overwrites a record of 256 bytes, any of 4,000.
    Set,
    /// Reads one of those.
    Get,
    /// Reads all 1,000 records of a tenant, of 64 bytes each.
    Find,
}

impl Op {
    pub const ALL: [Op; 3] = [Op::Set, Op::Get, Op::Find];
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Op::Set => "set",
            Op::Get => "get",
            Op::Find => "find",
        })
    }
}

/// A caller's choices, the same in every run.
pub struct Picker {
    random: u64,
    value: EncodedValue,
}

impl Picker {
    pub fn new(caller: usize) -> Self {
        Self {
            random: (caller as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            value: text(TEXT_BYTES),
        }
    }

    /// The next record: its tenant's number and its own.
    pub fn pick(&mut self) -> (u64, u64) {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % TENANTS, (self.random >> 32) % RECORDS)
    }

    /// The next operation, as a worker would ask.
    pub fn operation(&mut self, op: Op) -> (TenantId, KeyValueOp) {
        let (tenant, record) = self.pick();
        let (key, scopes) = (key(record), Scopes::new([SCOPE]));
        match op {
            Op::Set => {
                (tenant_id(tenant), KeyValueOp::Set { scopes, key, value: self.value.clone() })
            }
            Op::Get => (tenant_id(tenant), KeyValueOp::Get { scopes, key }),
            Op::Find => (FINDER, KeyValueOp::Find { scopes, query: "%".to_owned() }),
        }
    }
}

pub fn tenant_id(number: u64) -> TenantId {
    TenantId::Guild(number << 22)
}

pub fn key(record: u64) -> String {
    format!("settings:{record:04}")
}

fn text(bytes: usize) -> EncodedValue {
    wire::pack::value::encode(&KhronosValue::Text("x".repeat(bytes)))
}

/// Writes everything that is asked for later.
pub fn fill(db: &DbState) -> Result<(), String> {
    const THREADS: u64 = 32;
    let set = |tenant, record: u64, bytes| {
        let scopes = Scopes::new([SCOPE]);
        db.kv(tenant, KeyValueOp::Set { scopes, key: key(record), value: text(bytes) })
            .map(drop)
            .map_err(|error| format!("cannot be filled: {error}"))
    };
    std::thread::scope(|scope| {
        let fillers: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    for number in (thread..TENANTS * RECORDS).step_by(THREADS as usize) {
                        set(tenant_id(number % TENANTS), number / TENANTS, TEXT_BYTES)?;
                    }
                    (thread..FOUND)
                        .step_by(THREADS as usize)
                        .try_for_each(|record| set(FINDER, record, FOUND_TEXT_BYTES))
                })
            })
            .collect();
        fillers
            .into_iter()
            .try_for_each(|filler| filler.join().map_err(|_| "a thread panicked".to_owned())?)
    })
}
