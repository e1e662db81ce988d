//! Bytes that several owners have without copying them, and messages that are made of such.
//!
//! An event of megabytes passes a caller, a link, a queue and a template. Each copy of it costs its
//! bytes twice, as new memory is cleared by the system first; so large bytes are shared, and what
//! stands around them in a message is written beside them.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// More bytes than these are shared; fewer are copied sooner than counted.
pub const SHARED_MIN_BYTES: usize = 16 * 1024;

/// Bytes that do not change any more. A clone of many shares them.
#[derive(Clone)]
pub struct SharedBytes(BytesHeld);

#[derive(Clone)]
enum BytesHeld {
    Own(Vec<u8>),
    /// A part of these, from one place up to another. With these types it is all no larger than a
    /// `Vec`.
    Shared(Arc<Vec<u8>>, u32, u32),
}

impl SharedBytes {
    /// A part of shared bytes: shared too, if it is large and most of them, so that nothing keeps
    /// much more memory alive than it needs.
    pub fn part(whole: &Arc<Vec<u8>>, range: Range<usize>) -> Self {
        let is_most = range.len() > SHARED_MIN_BYTES && range.len() >= whole.len() / 2;
        Self(match (u32::try_from(range.start), u32::try_from(range.end)) {
            (Ok(start), Ok(end)) if is_most => BytesHeld::Shared(whole.clone(), start, end),
            // No message is as long as to have other places.
            _ => BytesHeld::Own(whole[range].to_vec()),
        })
    }

    /// Whether a clone costs no copy.
    pub fn is_shared(&self) -> bool {
        matches!(self.0, BytesHeld::Shared(..))
    }

    /// How many bytes a copy of it takes that nothing is shared with.
    pub fn own_len(&self) -> usize {
        if self.is_shared() { 0 } else { self.len() }
    }

    /// The bytes by themselves: copied if others have them too, or more of them.
    pub fn into_vec(self) -> Vec<u8> {
        match self.0 {
            BytesHeld::Own(bytes) => bytes,
            BytesHeld::Shared(whole, 0, end) if end as usize == whole.len() => {
                Arc::try_unwrap(whole).unwrap_or_else(|whole| whole.to_vec())
            }
            BytesHeld::Shared(whole, start, end) => whole[start as usize..end as usize].to_vec(),
        }
    }
}

impl From<Vec<u8>> for SharedBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(match u32::try_from(bytes.len()) {
            Ok(end) if bytes.len() > SHARED_MIN_BYTES => BytesHeld::Shared(Arc::new(bytes), 0, end),
            _ => BytesHeld::Own(bytes),
        })
    }
}

impl Default for SharedBytes {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl Deref for SharedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            BytesHeld::Own(bytes) => bytes,
            BytesHeld::Shared(whole, start, end) => &whole[*start as usize..*end as usize],
        }
    }
}

impl PartialEq for SharedBytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for SharedBytes {}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedBytes({} bytes)", self.len())
    }
}

/// A message that is to leave: its bytes, of which a large part may be shared.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutMessage {
    /// What stands before the shared part; all of it, if there is none.
    pub before: Vec<u8>,
    /// The shared part and what stands behind it.
    pub shared: Option<Box<(SharedBytes, Vec<u8>)>>,
}

impl OutMessage {
    /// How many bytes it has.
    pub fn len(&self) -> usize {
        let shared = self.shared.as_deref();
        self.before.len() + shared.map_or(0, |(shared, behind)| shared.len() + behind.len())
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its bytes in one piece.
    pub fn into_vec(self) -> Vec<u8> {
        let mut bytes = self.before;
        if let Some(shared) = self.shared {
            bytes.reserve_exact(shared.0.len() + shared.1.len());
            bytes.extend_from_slice(&shared.0);
            bytes.extend_from_slice(&shared.1);
        }
        bytes
    }
}

impl From<Vec<u8>> for OutMessage {
    fn from(before: Vec<u8>) -> Self {
        Self { before, shared: None }
    }
}

/// A message that came in: lent, or large and shared, so that parts of it can be kept uncopied.
#[derive(Debug, Clone, Copy)]
pub enum Received<'m> {
    /// It is gone after this call.
    Lent(&'m [u8]),
    /// It may be kept.
    Shared(&'m Arc<Vec<u8>>),
}

impl<'m> Received<'m> {
    /// All of it.
    pub fn bytes(self) -> &'m [u8] {
        match self {
            Received::Lent(bytes) => bytes,
            Received::Shared(whole) => whole,
        }
    }
}

impl<'m> From<&'m [u8]> for Received<'m> {
    fn from(bytes: &'m [u8]) -> Self {
        Received::Lent(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bytes_are_shared_and_small_ones_are_not() {
        let (small, large) = (vec![1; SHARED_MIN_BYTES], vec![2; SHARED_MIN_BYTES + 1]);
        let kept = SharedBytes::from(large.clone());
        assert!(!SharedBytes::from(small.clone()).is_shared() && kept.is_shared());
        assert_eq!(SharedBytes::from(small.clone()).into_vec(), small);
        let (other, at) = (kept.clone(), kept.as_ptr());
        assert_eq!(other.as_ptr(), at);
        assert_eq!(kept.into_vec(), large, "a copy, as the other one has it too");
        let last = other.into_vec();
        assert_eq!(last.as_ptr(), at, "the last owner has no use for a copy");
    }

    #[test]
    fn it_is_as_large_as_a_vec() {
        assert_eq!(size_of::<SharedBytes>(), size_of::<Vec<u8>>());
    }

    #[test]
    fn a_small_part_keeps_no_large_whole_alive() {
        let whole = Arc::new(vec![7; 3 * SHARED_MIN_BYTES]);
        assert!(SharedBytes::part(&whole, 10..2 * SHARED_MIN_BYTES).is_shared());
        assert!(
            !SharedBytes::part(&whole, 0..SHARED_MIN_BYTES + 1).is_shared(),
            "less than a half"
        );
        assert_eq!(SharedBytes::part(&whole, 5..whole.len()).as_ptr(), whole[5..].as_ptr());
    }

    #[test]
    fn a_message_in_parts_is_as_long_as_in_one() {
        let shared = SharedBytes::from(vec![2; SHARED_MIN_BYTES + 1]);
        let message = OutMessage { before: vec![1], shared: Some(Box::new((shared, vec![3, 4]))) };
        assert_eq!(message.len(), SHARED_MIN_BYTES + 4);
        let bytes = message.into_vec();
        assert_eq!((bytes.len(), bytes[0], bytes[1]), (SHARED_MIN_BYTES + 4, 1, 2));
        assert_eq!(bytes[SHARED_MIN_BYTES + 1..], [2, 3, 4]);
    }
}
