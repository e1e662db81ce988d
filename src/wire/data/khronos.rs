//! The typed value that templates exchange with the world, in its convenient form.
//!
//! Hot paths carry [`super::EncodedValue`] instead; this form is for the edge of the API and for
//! tests.

use super::Timestamp;

/// A typed value: everything a template can receive, return or store.
///
/// Limit: cloning, comparing and dropping recurse. What was decoded nests at most 1,023 levels, for
/// which a stack of 768 KiB is enough in a debug build (measured); a caller that builds deeper ones
/// by hand needs a larger stack.
#[derive(Debug, Clone, PartialEq)]
pub enum KhronosValue {
    /// UTF-8 text.
    Text(String),
    /// A signed whole number.
    Integer(i64),
    /// A whole number that may exceed `i64`.
    UnsignedInteger(u64),
    /// A floating-point number.
    Float(f64),
    /// True or false.
    Boolean(bool),
    /// Bytes.
    Buffer(Vec<u8>),
    /// Three numbers.
    Vector([f32; 3]),
    /// Pairs with keys of any kind; order and duplicates are kept.
    Map(Vec<(KhronosValue, KhronosValue)>),
    /// A list.
    List(Vec<KhronosValue>),
    /// A point in time.
    Timestamptz(Timestamp),
    /// A span of time.
    Interval(Interval),
    /// An IANA time zone name, such as `Europe/London`.
    TimeZone(String),
    /// Pairs of text; order is kept.
    LazyStringMap(Vec<(String, String)>),
    /// Nothing.
    Null,
}

/// A signed span of time: `secs` rounded down, plus `nanos` in 0..=999,999,999, so −0.5 s is (−1,
/// 500,000,000).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval {
    secs: i64,
    nanos: u32,
}

impl Interval {
    /// The reference keeps spans within ±i64::MAX milliseconds.
    const MAX: Interval = Interval { secs: i64::MAX / 1000, nanos: 807_000_000 };
    const MIN: Interval = Interval { secs: -i64::MAX / 1000 - 1, nanos: 193_000_000 };

    /// A span, if it is within ±`i64::MAX` milliseconds and `nanos` is below 10⁹.
    pub fn new(secs: i64, nanos: u32) -> Option<Self> {
        let span = Interval { secs, nanos };
        (nanos < 1_000_000_000 && span >= Self::MIN && span <= Self::MAX).then_some(span)
    }

    /// Whole seconds, rounded down.
    pub fn secs(self) -> i64 {
        self.secs
    }

    /// Nanoseconds on top of [`Interval::secs`].
    pub fn nanos(self) -> u32 {
        self.nanos
    }
}
